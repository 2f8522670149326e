"""The director's side of a channel's encoder: one supervised worker process."""

import asyncio
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from anabranch.host.process import SYSTEM_PYTHON, Child, ChildSpec
from anabranch.media.errors import EncoderError
from anabranch.media.relay import Relay
from anabranch.media.rendition import (
    AUDIO,
    Format,
    Picture,
    Rendition,
    check_ladder,
    draw_ssrcs,
    transport_of,
)

WORKER = Path(__file__).parent / "encoder_worker"
WORKER_PYTHON = SYSTEM_PYTHON
_MAX_SOCKET_PATH = 107
_TRANSPORT_SOUND_KBPS = 128
_TOLD_LATER = {"targets", "title"}
"""Where streams go is told anew; another title is shown by the next life."""

Target = tuple[str, int]
"""Address and UDP port to which a stream is sent."""


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """One channel's encoder.

    Attributes:
        title: what the slate shows; any text.
        directory: existing directory for the configuration and the feed's socket; its path must
            leave room for a Unix socket's 107 bytes.
        preset: x264 speed preset.
        vbv_ms: span in milliseconds over which the bitrate holds.
        interface: network interface for multicast, or None for the routing table's choice.
        ttl: of the IP packets sent.
        netns: network namespace of the worker, or None for the director's own.
    """

    title: str
    directory: Path
    renditions: tuple[Rendition, ...]
    form: Format = field(default_factory=Format)
    slate_text: str = "Waiting for the source"
    preset: str = "ultrafast"
    vbv_ms: int = 600
    interface: str | None = None
    ttl: int = 16
    netns: str | None = None
    worker_python: str = WORKER_PYTHON

    @property
    def picture(self) -> Picture:
        """What the feed must deliver."""
        return check_ladder(self.renditions, self.form)

    @property
    def feed_path(self) -> Path:
        """The Unix socket that takes the feed."""
        return self.directory / "feed.sock"

    @property
    def relay_path(self) -> Path:
        """The Unix socket that takes ports at which streams arrive ready made."""
        return self.directory / "relay.sock"

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of all RTP streams: the renditions, then the sound."""
        return (*(rendition.name for rendition in self.renditions), AUDIO)

    @property
    def transport_streams(self) -> tuple[str, ...]:
        """Names of the MPEG transport streams: one for each rendition, with the sound in it."""
        return tuple(transport_of(rendition.name) for rendition in self.renditions)


@dataclass(frozen=True, slots=True)
class EncoderState:
    """What is known of the worker.

    Attributes:
        running: it sends.
        video: ``live`` or ``slate``.
        audio: ``live`` or ``silence``.
        relayed: the streams that are sent on as they arrive, instead of being encoded.
        ssrcs: by stream, of what is encoded; others in every life.
        generation: number of this life, from 1.
        epoch_ms: time of day at RTP timestamp 0 of every stream, ms since the epoch.
        detail: the last trouble, or empty.
    """

    running: bool = False
    video: str = "slate"
    audio: str = "silence"
    relayed: frozenset[str] = frozenset()
    ssrcs: Mapping[str, int] = field(default_factory=dict)
    generation: int = 0
    epoch_ms: int = 0
    detail: str = ""


def worker_config(
    config: EncoderConfig, ssrcs: Mapping[str, int], targets: Mapping[str, Sequence[Target]]
) -> dict[str, Any]:
    """Return the worker's configuration as plain data."""
    form, picture = config.form, config.picture
    return {
        "title": config.title,
        "slate_text": config.slate_text,
        "socket": str(config.feed_path),
        "relay_socket": str(config.relay_path),
        "width": picture.width,
        "height": picture.height,
        "framerate": picture.framerate,
        "preset": config.preset,
        "vbv_ms": config.vbv_ms,
        "mtu": form.mtu,
        "video_pt": form.video_payload_type,
        "audio_pt": form.audio_payload_type,
        "interface": config.interface,
        "ttl": config.ttl,
        "streams": [
            {
                "name": rendition.name,
                "width": rendition.width,
                "height": rendition.height,
                "bitrate_kbps": rendition.bitrate_kbps,
                "framerate": rendition.framerate,
                "gop_frames": form.gop_frames(rendition.framerate),
                "ssrc": ssrcs[rendition.name],
                "targets": [list(target) for target in targets.get(rendition.name, ())],
            }
            for rendition in config.renditions
        ],
        "audio": {
            "name": AUDIO,
            "bitrate_kbps": form.audio_bitrate_kbps,
            "ssrc": ssrcs[AUDIO],
            "targets": [list(target) for target in targets.get(AUDIO, ())],
        },
        "transport": {
            "sound_kbps": _TRANSPORT_SOUND_KBPS,
            "streams": [
                {
                    "name": transport_of(rendition.name),
                    "of": rendition.name,
                    "targets": [
                        list(target) for target in targets.get(transport_of(rendition.name), ())
                    ],
                }
                for rendition in config.renditions
            ],
        },
    }


class Encoder:
    """Keeps a channel encoded and sent, slate or live, until it is stopped.

    Args:
        name: of the child, unique in the site.
        run_id: mark of the child.
        targets: where each stream goes at first; see :meth:`set_targets`.
        on_state: called on every change of :attr:`state`.

    Raises:
        RenditionError: the ladder cannot be encoded.
        EncoderError: the directory's path is too long for a socket.
    """

    def __init__(
        self,
        name: str,
        config: EncoderConfig,
        run_id: str,
        *,
        targets: Mapping[str, Sequence[Target]] | None = None,
        on_state: Callable[[EncoderState], None] | None = None,
    ) -> None:
        check_ladder(config.renditions, config.form)
        for path in (config.feed_path, config.relay_path):
            if len(str(path).encode()) > _MAX_SOCKET_PATH:
                raise EncoderError(f"{path} is too long for a socket's path")
        self.name = name
        self.config = config
        self.state = EncoderState()
        self._targets: dict[str, tuple[Target, ...]] = {}
        self._on_state = on_state
        self._ready = asyncio.Event()
        self._relay: Relay | None = None
        self._stats: list[asyncio.Future[dict[str, Any]]] = []
        self._config_path = config.directory / "encoder.json"
        self._child = Child(
            ChildSpec(
                name,
                (config.worker_python, str(WORKER), "--config", str(self._config_path)),
                netns=config.netns,
                env={"PYTHONDONTWRITEBYTECODE": "1", "MALLOC_ARENA_MAX": "2"},
                lasting=True,
            ),
            run_id,
            on_line=self._on_line,
            on_exit=self._on_exit,
        )
        for stream, addresses in (targets or {}).items():
            self.set_targets(stream, addresses)

    @property
    def feed_path(self) -> Path:
        return self.config.feed_path

    @property
    def pid(self) -> int | None:
        return self._child.pid

    async def start(self, timeout: float = 15.0) -> None:  # noqa: ASYNC109
        """Start the worker and wait until it sends (the slate, at first).

        Raises:
            ProcessError: the worker's Python cannot be executed.
            EncoderError: it was not ready within ``timeout`` seconds; it is stopped again.
        """
        if self._child.survives and (ssrcs := self._kept()) is not None:
            self._set(EncoderState(ssrcs=ssrcs, generation=1))
            self._relay = Relay.kept()
        else:
            await self._child.abandon()
            self._next_life("")
        await self._child.start()
        if self._child.adopted:
            self._child.write_line('{"cmd": "tell"}')
        try:
            await asyncio.wait_for(self._ready.wait(), timeout)
        except TimeoutError:
            last = self.state.detail or (self._child.last_lines or [""])[-1]
            await self.stop()
            raise EncoderError(f"{self.name} was not ready in {timeout:g} s: {last}") from None

    async def stop(self) -> None:
        """End the worker and remove its files. Safe to call twice."""
        await self._child.stop()
        await self.end_relay()
        for path in (self._config_path, self.feed_path, self.config.relay_path):
            path.unlink(missing_ok=True)
        self._cancel_stats()
        self._ready.clear()
        if self.state.running:
            self._set(
                replace(
                    self.state,
                    running=False,
                    video="slate",
                    audio="silence",
                    relayed=frozenset(),
                )
            )

    async def relay(self, sockets: Mapping[str, socket.socket]) -> None:
        """Send on what arrives at these UDP sockets, by stream, in place of what is encoded.

        What is encoded is sent as long as nothing arrives. Sockets of before are let go of; these
        are the encoder's from now on, in later lives too.

        Raises:
            EncoderError: there is no such stream, or the worker does not take them.
        """
        await self.end_relay()
        relay = Relay(sockets)
        try:
            for name in sockets:
                self._known(name)
        except EncoderError:
            await relay.close()
            raise
        self._relay = relay
        if self.state.running:
            self._relay.connect(self.config.relay_path)

    def keep_relay(self, ports: Mapping[str, int]) -> bool:
        """Go on with sockets that an earlier director handed over; say whether they are there.

        Args:
            ports: theirs on the loopback address by stream, for later lives.
        """
        kept = self._child.adopted and self._relay is not None
        if kept and self._relay is not None:
            self._relay.ports = dict(ports)
        return kept

    async def end_relay(self) -> None:
        """Send what is encoded alone again; return when the ports are free. Safe to call twice."""
        relay, self._relay = self._relay, None
        if relay is not None:
            await relay.close()

    def request_keyframe(self, rendition: str | None = None) -> None:
        """Ask for a key frame of one rendition, or of all.

        The worker makes at most one a second per rendition; what comes sooner is put off to then.
        """
        command = {"cmd": "keyframe"} if rendition is None else {
            "cmd": "keyframe", "stream": self._known(rendition),
        }  # fmt: skip
        self._child.write_line(json.dumps(command))

    def set_targets(self, stream: str, targets: Sequence[Target]) -> None:
        """Send ``stream`` to exactly these addresses from now on, in later lives too.

        A transport stream is made only while it is sent somewhere.

        Raises:
            EncoderError: there is no such stream.
        """
        self._targets[self._known(stream)] = tuple(targets)
        addresses = [list(target) for target in targets]
        self._child.write_line(
            json.dumps({"cmd": "targets", "stream": stream, "targets": addresses})
        )

    async def stats(self, timeout: float = 2.0) -> dict[str, Any]:  # noqa: ASYNC109
        """Return the worker's counters.

        ``streams`` has per stream ``bytes`` (sent), ``seq`` and ``timestamp`` (of the last RTP
        packet); ``transport`` the bytes of each transport stream that is made; ``running_s`` is
        the age of the pipeline in seconds and ``offset_s`` what is added to the feed's time, or
        None.

        Raises:
            EncoderError: the worker does not run or did not answer in ``timeout`` seconds.
        """
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        if not self._child.write_line('{"cmd": "stats"}'):
            raise EncoderError(f"{self.name} does not run")
        self._stats.append(answer)
        try:
            return await asyncio.wait_for(answer, timeout)
        except (TimeoutError, asyncio.InvalidStateError):
            raise EncoderError(f"{self.name} does not answer") from None
        finally:
            with suppress(ValueError):
                self._stats.remove(answer)

    def _known(self, stream: str) -> str:
        if stream not in (*self.config.streams, *self.config.transport_streams):
            raise EncoderError(f"{self.name} has no stream {stream!r}")
        return stream

    def _kept(self) -> dict[str, int] | None:
        """Return the SSRCs of a worker that lives on; None: it encodes something else."""
        try:
            kept = json.loads(self._config_path.read_text())
            ssrcs = {each["name"]: each["ssrc"] for each in (*kept["streams"], kept["audio"])}
            wanted = worker_config(self.config, ssrcs, self._targets)
            return ssrcs if _untargeted(wanted) == _untargeted(kept) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _next_life(self, detail: str) -> None:
        """Write the configuration of the life to come: new SSRCs, the present targets."""
        ssrcs = draw_ssrcs(self.config.streams, self.state.ssrcs.values())
        self._config_path.write_text(json.dumps(worker_config(self.config, ssrcs, self._targets)))
        self._config_path.chmod(0o600)
        self._set(EncoderState(ssrcs=ssrcs, generation=self.state.generation + 1, detail=detail))

    def _on_exit(self, code: int) -> None:
        self._cancel_stats()
        self._next_life(self.state.detail or f"the encoder ended with code {code}")

    def _cancel_stats(self) -> None:
        for answer in self._stats:
            if not answer.done():
                answer.set_exception(EncoderError(f"{self.name} ended"))
        self._stats.clear()

    def _on_line(self, stream: str, line: str) -> None:
        if stream != "stdout":
            return
        try:
            message = json.loads(line)
            event = message["event"]
        except (ValueError, KeyError, TypeError):
            return
        if event == "ready":
            # What changed between the writing of the configuration and now.
            for name, addresses in self._targets.items():
                if addresses or not self._child.adopted:  # else it is about to be said where to
                    self.set_targets(name, addresses)
            self._set(replace(self.state, running=True, epoch_ms=message["epoch_ms"], detail=""))
            self._ready.set()
            if self._relay is not None:
                try:
                    self._relay.connect(self.config.relay_path)
                except EncoderError as error:
                    self._set(replace(self.state, detail=str(error)))
        elif event == "source":
            self._set(
                replace(
                    self.state,
                    video=message["video"],
                    audio=message["audio"],
                    relayed=frozenset(message["relayed"]),
                )
            )
        elif event == "stats":
            for answer in self._stats:
                if not answer.done():
                    answer.set_result({k: v for k, v in message.items() if k != "event"})
        elif event in ("error", "warning"):
            self._set(replace(self.state, detail=str(message["detail"])[:300]))

    def _set(self, state: EncoderState) -> None:
        if state != self.state:
            self.state = state
            if self._on_state is not None:
                self._on_state(state)


def _untargeted(config: Any) -> Any:
    """Return a worker's configuration without what does not make it another one."""
    if isinstance(config, Mapping):
        return {name: _untargeted(it) for name, it in config.items() if name not in _TOLD_LATER}
    if isinstance(config, list):
        return [_untargeted(each) for each in config]
    return config
