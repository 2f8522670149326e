"""How a publisher's layers get to be a channel's renditions: ports, SSRCs and formats."""

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from anabranch.host import network
from anabranch.media.encoder import EncoderState
from anabranch.media.gate import Passing, StreamTarget
from anabranch.media.relay import bind
from anabranch.media.rendition import AUDIO, Format, Rendition, draw_ssrcs


class Passage:
    """The ports of one publisher's layers.

    Args:
        encoded: of the channel's encoder, which runs: its time and SSRCs.
        ports: where the streams arrive, the sound last.
        held: where ffmpeg would read the publisher if its layers did not fit; nobody else may have
            these meanwhile.
        netns: the network namespace that the ports are of, where the gate is; None: this process's.

    Raises:
        OSError: a port is taken.
    """

    def __init__(
        self,
        ladder: Sequence[Rendition],
        form: Format,
        encoded: EncoderState,
        ports: Sequence[int],
        held: Sequence[int],
        *,
        netns: str | None = None,
    ) -> None:
        # As the encoder's own: the largest picture is made of the largest layer.
        best_first = sorted(ladder, key=lambda it: it.width * it.height, reverse=True)
        rates = {rendition.name: rendition.bitrate_kbps for rendition in best_first}
        ssrcs = draw_ssrcs((*rates, AUDIO), encoded.ssrcs.values())
        at = dict(zip((*rates, AUDIO), ports, strict=True))
        self.plan = Passing(
            encoded.epoch_ms,
            tuple(
                StreamTarget(name, ssrcs[name], form.video_payload_type, kbps, at[name])
                for name, kbps in rates.items()
            ),
            StreamTarget(
                AUDIO, ssrcs[AUDIO], form.audio_payload_type, form.audio_bitrate_kbps, at[AUDIO]
            ),
        )
        self._held = ExitStack()
        self._sockets: dict[str, socket.socket] = {}
        with ExitStack() as made:
            self._sockets = {
                name: made.enter_context(network.made_inside(netns, partial(bind, port)))
                for name, port in at.items()
            }
            for port in held:
                made.enter_context(network.made_inside(netns, partial(bind, port)))
            self._held = made.pop_all()

    def take_sockets(self) -> dict[str, socket.socket]:
        """Return the sockets at which the streams arrive, by stream; they are the caller's then."""
        taken, self._sockets = self._sockets, {}
        return {name: each.dup() for name, each in taken.items()}

    def close(self) -> None:
        """Let go of all ports that are still held. Safe to call twice."""
        self._held.close()
