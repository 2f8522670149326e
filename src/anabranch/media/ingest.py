"""The ingest: one ffmpeg per channel that turns any source into raw picture and sound."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from anabranch.core.tasks import end_task
from anabranch.host import holdings
from anabranch.host.process import Backoff, Child, ChildSpec, ProcessError, redact
from anabranch.media.ffmpeg_log import LogReader
from anabranch.media.publisher_figures import SourcePicture
from anabranch.media.rendition import Picture
from anabranch.media.source import RtmpSource, Source, TestSource, WhipSource

_MIN_DELAY = 0.1
_MAX_DELAY = 3.0  # a source that breaks again and again is still back within 5 s
_HEALTHY_AFTER = 5.0


class IngestState(StrEnum):
    """How a channel's source is doing."""

    STARTING = "starting"
    WAITING = "waiting"
    """It listens, and nobody publishes yet."""
    RUNNING = "running"
    RETRYING = "retrying"
    ENDED = "ended"
    """A file that was to be played once is over."""
    STOPPED = "stopped"


OnState = Callable[[IngestState, str], None]


def video_filter(picture: Picture) -> str:
    """Return the ffmpeg filters that fit any picture into ``picture``: aspect kept, bars black."""
    width, height = picture.width, picture.height
    return (
        f"fps={picture.framerate},"
        f"scale='trunc(min({width},{height}*dar)/2)*2':'trunc(min({height},{width}/dar)/2)*2'"
        f":flags=bilinear,pad={width}:{height}:(ow-iw)/2:(oh-ih)/2,setsar=1,format=yuv420p"
    )


def ingest_command(
    source: Source,
    picture: Picture,
    feed: Path,
    directory: Path,
    *,
    sound: bool = True,
    ffmpeg: str = "ffmpeg",
) -> tuple[str, ...]:
    """Return the command that feeds ``source`` into the Unix socket ``feed``.

    Raises:
        SourceError: the source lacks a port.
    """
    command = [ffmpeg, "-hide_banner", "-nostdin", "-loglevel", "level+info", "-nostats"]
    command += ["-progress", "pipe:1", "-stats_period", "1"]
    command += source.input_args(picture, directory)
    # V, not v: the cover of a music file is no moving picture.
    command += ["-map", "0:V:0?"]
    command += ["-map", "0:a:0?"] if sound else ["-an"]
    command += ["-sn", "-dn", "-map_metadata", "-1", "-map_chapters", "-1"]
    if not isinstance(source, TestSource):
        command += ["-filter_threads", "1", "-vf", video_filter(picture)]
        if sound:
            command += [
                *("-af", "aresample=48000:async=1:first_pts=0"),
                *("-ar", "48000", "-ac", "2", "-sample_fmt", "s16"),
            ]
    command += ["-c:v", "rawvideo"]
    if sound:
        command += ["-c:a", "pcm_s16le"]
    # Neither line waits for the other: the muxer's 10 s become 0.2 s, and an announced line of
    # which nothing comes is given up after 50 packets.
    command += ["-max_interleave_delta", "1000"]
    command += ["-max_muxing_queue_size", "50", "-muxing_queue_data_threshold", "1"]
    if isinstance(source, WhipSource):
        # Sound comes at once, the picture with the key frame that the publisher is asked for.
        command += ["-max_muxing_queue_size:a", "300"]
    command += ["-f", "matroska", "-live", "1", "-cluster_time_limit", "1"]
    command += ["-flush_packets", "1", f"unix:{feed}"]
    return tuple(command)


@dataclass(frozen=True, slots=True)
class IngestStats:
    """How the ingest is doing.

    Attributes:
        frames, media_s: frames and seconds of media that the present life has delivered.
        restarts: lives begun before.
        since: when the source began to run, in seconds since the epoch; None: it does not.
        picture: what is read, as it was then; None: nothing is, or there is none.
        announced_kbps: the bitrate that the source says it has; None: it does not.
    """

    frames: int
    media_s: float
    restarts: int
    since: float | None = None
    picture: SourcePicture | None = None
    announced_kbps: int | None = None


class Ingest:
    """Keeps one source flowing into the encoder's feed socket.

    Args:
        name: of the child, unique in the site.
        picture: what the encoder expects.
        feed: the encoder's Unix socket.
        directory: existing directory for the ingest's own files.
        run_id: mark of the children.
        on_state: called with the state and one line of detail without secrets, on each change.
        stall_timeout: seconds without progress after which ffmpeg is started anew. A source that
            comes back does so with other timestamps, and a fresh start is sure to take them.

    Attributes:
        source, netns: what the next life reads, and in which named network namespace; None: in the
            director's own.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        picture: Picture,
        feed: Path,
        directory: Path,
        run_id: str,
        *,
        on_state: OnState | None = None,
        stall_timeout: float = 6.0,
        ffmpeg: str = "ffmpeg",
    ) -> None:
        self.name = name
        self.source = source
        self.netns: str | None = None
        self.state = IngestState.STOPPED
        self.detail = ""
        self._picture = picture
        self._feed = feed
        self._directory = directory
        self._run_id = run_id
        self._on_state = on_state
        self._stall_timeout = stall_timeout
        self._ffmpeg = ffmpeg
        self._sound = True
        self._child: Child | None = None
        self._task: asyncio.Task[None] | None = None
        self._reader = LogReader(str(feed))
        self._stalled = False
        self._late = False
        self._restarts = 0
        self._since = 0.0

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    @property
    def stats(self) -> IngestStats:
        reader, runs = self._reader, self.state is IngestState.RUNNING
        return IngestStats(
            *(reader.frames, reader.media_s, self._restarts),
            since=self._since if runs else None,
            picture=reader.picture if runs else None,
            announced_kbps=reader.announced_kbps or None if runs else None,
        )

    async def start(self) -> None:
        """Begin; a source that is not there (yet) is tried again and again.

        Raises:
            SourceError: the source lacks a port.
            ProcessError: there is no ffmpeg.
        """
        if self._task is not None:
            return
        for name, text in self.source.files().items():
            (self._directory / name).write_text(text)
        self._restarts = 0
        self._sound = True
        noted = self._recall()
        child = self._new_child()
        await child.start()
        if child.adopted:
            self._go_on(noted)
        else:
            self._note()
        self._task = asyncio.create_task(self._run(child), name=f"ingest:{self.name}")

    def _recall(self) -> Mapping[str, Any]:
        """Be as an earlier director's ingest was, as far as it can be told; return its note.

        One that is not taken over after all is nothing worse than patient.
        """
        noted: Mapping[str, Any] = holdings.noted(self._run_id, self.name) or {}
        self._sound = bool(noted.get("sound", True))
        if isinstance(self.source, RtmpSource) and noted.get("patient"):
            self.source = replace(self.source, patient=True)
        return noted

    def _go_on(self, noted: Mapping[str, Any]) -> None:
        """Be as an earlier director's ingest was, whose ffmpeg was taken over."""
        self._restarts = noted.get("restarts", 0)
        if (said := noted.get("reader")) is not None and not self._reader.running:
            self._reader.restore(said)
            self._since = noted.get("since", time.time())
            self._tell(IngestState.RUNNING, ", ".join(self._reader.streams))

    def _note(self) -> None:
        """Note for the next director what it could not ask ffmpeg."""
        patient = isinstance(self.source, RtmpSource) and self.source.patient
        said: dict[str, Any] = {
            "sound": self._sound,
            "patient": patient,
            "restarts": self._restarts,
        }
        if self._reader.running:
            said |= {"since": self._since, "reader": self._reader.summary()}
        holdings.note(self._run_id, self.name, said)

    async def stop(self) -> None:
        """End ffmpeg and remove its files. Safe to call twice."""
        task = self._task
        if task is not None:
            await end_task(task)
            self._task = None
        if self._child is not None:
            await self._child.stop()
            self._child = None
        for name in self.source.files() if task is not None else ():
            (self._directory / name).unlink(missing_ok=True)
        if task is not None:
            holdings.note(self._run_id, self.name, None)
            self._tell(IngestState.STOPPED, "")

    async def _run(self, child: Child) -> None:
        backoff = Backoff(_MIN_DELAY, _MAX_DELAY, _HEALTHY_AFTER)
        while True:
            began = time.monotonic()
            code = await self._live(child)
            await child.stop()
            reason = "nothing arrived any more" if self._stalled else self._reader.reason(code)
            if self._late and isinstance(self.source, RtmpSource):
                reason = "the picture came late; looking for longer"
                self.source = replace(self.source, patient=True)
            if self.source.once and code == 0 and not self._stalled:
                self._tell(IngestState.ENDED, reason)
                return
            # A publisher by WHIP is asked for its picture; from others it comes when it comes, and
            # sound that waits for it would make each attempt fail.
            asked = isinstance(self.source, WhipSource) and self._reader.picture_missing
            if self._sound and self._reader.announced_only and not asked:
                self._sound = False
                reason += "; going on without sound"
            self._tell(IngestState.RETRYING, reason)
            await asyncio.sleep(backoff.delay(time.monotonic() - began))
            self._restarts += 1
            child = self._new_child()
            self._note()
            try:
                await child.start()
            except ProcessError as error:
                self._tell(IngestState.RETRYING, str(error))
                await asyncio.sleep(_MAX_DELAY)

    async def _live(self, child: Child) -> int:
        """Follow one life of ffmpeg to its end; end it where it stalls."""
        ended = asyncio.ensure_future(child.wait())
        best, since = -1.0, time.monotonic()
        try:
            while True:
                done, _ = await asyncio.wait({ended}, timeout=0.5)
                if done:
                    return self._code
                if self._late:
                    return self._code
                media_s, now = self._reader.media_s, time.monotonic()
                if media_s > best or not self._reader.running:
                    best, since = media_s, now
                elif now - since > self._stall_timeout:
                    self._stalled = True
                    return self._code
        finally:
            ended.cancel()

    def _new_child(self) -> Child:
        spec = ChildSpec(
            self.name,
            ingest_command(
                self.source,
                self._picture,
                self._feed,
                self._directory,
                sound=self._sound,
                ffmpeg=self._ffmpeg,
            ),
            netns=self.netns,
            secrets=self.source.secrets,
            stop_timeout=1.0,
            restart=False,
            lasting=True,
        )
        self._reader = LogReader(str(self._feed))
        self._stalled = False
        self._late = False
        self._code = -1
        self._tell(
            IngestState.WAITING if self.source.listens else IngestState.STARTING,
            self.source.describe(),
        )
        self._child = Child(spec, self._run_id, on_line=self._on_line, on_exit=self._on_exit)
        return self._child

    def _on_line(self, stream: str, line: str) -> None:
        reader = self._reader
        was_running = reader.running
        reader.read(stream, line)
        # ffmpeg maps what it found at first; a stream that comes later it passes over.
        if "New video stream" in line and isinstance(self.source, RtmpSource):
            self._late = not self.source.patient
        if reader.running and not was_running:
            self._since = time.time()
            self._note()
            self._tell(IngestState.RUNNING, ", ".join(reader.streams))

    def _on_exit(self, code: int) -> None:
        self._code = code

    def _tell(self, state: IngestState, detail: str) -> None:
        detail = redact(detail, self.source.secrets)
        if (state, detail) != (self.state, self.detail):
            self.state, self.detail = state, detail
            if self._on_state is not None:
                self._on_state(state, detail)
