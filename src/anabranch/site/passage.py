"""How a publisher's layers get to be a channel's renditions: ports, SSRCs and formats."""

import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from anabranch.host import network
from anabranch.media.encoder import EncoderState
from anabranch.media.gate import Passing, StreamTarget
from anabranch.media.relay import bind
from anabranch.media.rendition import AUDIO, Format, Rendition, draw_ssrcs


class Passage:
    """The ports of one publisher's layers.

    Attributes:
        ports: where the streams arrive, by stream.
        plan: what the gate is told.
    """

    def __init__(self, ports: Mapping[str, int]) -> None:
        self.ports = dict(ports)
        self.plan: Passing | None = None
        self._held = ExitStack()
        self._sockets: dict[str, socket.socket] = {}

    @classmethod
    def open(
        cls,
        ladder: Sequence[Rendition],
        form: Format,
        encoded: EncoderState,
        ports: Sequence[int],
        held: Sequence[int],
        *,
        netns: str | None = None,
    ) -> "Passage":
        """Take the ports.

        Args:
            encoded: of the channel's encoder, which runs: its time and SSRCs.
            ports: where the streams arrive, the sound last.
            held: where ffmpeg would read the publisher if its layers did not fit; nobody else may
                have these meanwhile.
            netns: the network namespace that the ports are of, where the gate is; None: this
                process's.

        Raises:
            OSError: a port is taken.
        """
        # As the encoder's own: the largest picture is made of the largest layer.
        best_first = sorted(ladder, key=lambda it: it.width * it.height, reverse=True)
        rates = {rendition.name: rendition.bitrate_kbps for rendition in best_first}
        ssrcs = draw_ssrcs((*rates, AUDIO), encoded.ssrcs.values())
        at = dict(zip((*rates, AUDIO), ports, strict=True))
        opened = cls(at)
        opened.plan = Passing(
            encoded.epoch_ms,
            tuple(
                StreamTarget(name, ssrcs[name], form.video_payload_type, kbps, at[name])
                for name, kbps in rates.items()
            ),
            StreamTarget(
                AUDIO, ssrcs[AUDIO], form.audio_payload_type, form.audio_bitrate_kbps, at[AUDIO]
            ),
        )
        opened._bind(at, held, netns)
        return opened

    @classmethod
    def resume(cls, ports: Mapping[str, int], held: Sequence[int]) -> "Passage":
        """Go on with one of an earlier director's: its streams' ports are the encoder's.

        Arguments and errors as :meth:`open`.
        """
        resumed = cls(ports)
        resumed._bind({}, held, None)
        return resumed

    def _bind(self, ports: Mapping[str, int], held: Sequence[int], netns: str | None) -> None:
        with ExitStack() as made:
            self._sockets = {
                name: made.enter_context(network.made_inside(netns, partial(bind, port)))
                for name, port in ports.items()
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
