"""A channel on the air: its ingest, its encoder, and what state the two add up to."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from anabranch.channels.definitions import Definition
from anabranch.channels.ways_in import has_key, is_published, ready_source
from anabranch.core.events import Event
from anabranch.media.encoder import Encoder, EncoderConfig
from anabranch.media.ingest import Ingest, IngestState
from anabranch.media.source import Source, TestSource

State = Literal["starting", "live", "slate", "failed"]
Mode = Literal["passthrough", "encoded"]


class Channel:
    """One channel on the air.

    Args:
        definition: what the operator said.
        config: how and where it is encoded; its directory is the channel's own.
        run_id: mark of the children.
        rtmp_port: port of the site's RTMP server.
        number: which test picture, if it is one and does not say.
        on_event: gets ``channel.*`` events.
    """

    def __init__(
        self,
        definition: Definition,
        config: EncoderConfig,
        run_id: str,
        *,
        rtmp_port: int,
        number: int,
        on_event: Callable[[Event], None],
    ) -> None:
        self.definition = definition
        self._rtmp_port, self._number = rtmp_port, number
        self.source = ready_source(definition, rtmp_port, number)
        self.publisher: str | None = None
        """Who feeds this channel by RTMP (the connection's number) or WHIP, or None."""
        self.on_key_frame: Callable[[str], None] | None = None
        """Asks the publisher for a key frame of a rendition, where its layers are sent."""
        self._on_event = on_event
        self.before_reading: Callable[[], Awaitable[None]] | None = None
        """Has the way in be as another source needs it, before that is read."""
        self._on_listening: Callable[[], None] | None = None
        self._told: State | None = None
        self._trouble = ""
        self._stopped = False
        self._following = asyncio.Lock()
        self._directory: Path = config.directory
        self.encoder = Encoder(
            f"encoder:{definition.name}", config, run_id, on_state=lambda _state: self._changed()
        )
        self.ingest = Ingest(
            f"ingest:{definition.name}",
            self.source,
            config.picture,
            config.feed_path,
            config.directory,
            run_id,
            on_state=self._ingest_changed,
        )

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def title(self) -> str:
        return self.definition.title

    @property
    def described(self) -> str:
        """The source without its secrets."""
        return self.source.describe()

    @property
    def has_key(self) -> bool:
        return has_key(self.source)

    @property
    def state(self) -> State:
        if not self.encoder.state.running:
            return "starting"
        if self.encoder.state.video == "live" or self.encoder.state.audio == "live":
            return "live"
        return "failed" if self._trouble else "slate"

    @property
    def mode(self) -> Mode:
        """Whether what is sent was made by the publisher, or by the encoder, as the slate is."""
        return "passthrough" if self.encoder.state.relayed else "encoded"

    @property
    def detail(self) -> str | None:
        """Why the channel is not live, in words; None if it is."""
        match self.state:
            case "live":
                return None
            case "starting":
                return self.encoder.state.detail or "the encoder starts"
        if is_published(self.source) and self.publisher is None:
            return "waiting for a publisher"
        if self._trouble:
            return self._trouble
        match self.ingest.state:
            case IngestState.WAITING:
                return "waiting for a publisher"
            case IngestState.STARTING | IngestState.RUNNING | IngestState.STOPPED:
                return "waiting for the source"
            case IngestState.ENDED:
                return "the file is over"
        return "the source is lost"

    @property
    def public_detail(self) -> str | None:
        """As :attr:`detail`, for anybody: without what a failed source said of where it is."""
        return "the source is lost" if self.state == "failed" else self.detail

    async def start(self) -> None:
        """Put the channel on the air: the slate first, then the source."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self.encoder.start()
        if not is_published(self.source):
            await self.ingest.start()

    async def stop(self) -> None:
        self._stopped = True
        async with self._following:
            await self.ingest.stop()
            await self.encoder.stop()

    async def follow_publisher(self, source: Source | None = None) -> None:
        """Read what is published while somebody publishes, and only then.

        ``source`` says where that is from now on; None: where it was.
        """
        async with self._following:
            await self.ingest.stop()
            await self.encoder.end_relay()
            if source is not None:
                self.ingest.source = source
            if self.publisher is not None and not self._stopped:
                await self.ingest.start()
        self._changed()

    async def relay(self, sockets: Mapping[str, socket.socket]) -> None:
        """Send what is published as it is: it arrives at these UDP sockets, one for each stream.

        Raises:
            EncoderError: there is no such stream, or the encoder does not take them.
        """
        async with self._following:
            await self.ingest.stop()
            if self.publisher is not None and not self._stopped:
                await self.encoder.relay(sockets)
            else:
                for each in sockets.values():
                    each.close()

    def request_key_frame(self, rendition: str) -> None:
        """Have a key frame of a rendition made, by whoever makes it now."""
        self.encoder.request_keyframe(rendition)
        if self.on_key_frame is not None:
            self.on_key_frame(rendition)

    def needs_another_feed(self, definition: Definition) -> bool:
        """Say whether to be as ``definition`` has it means to end what feeds the channel now."""
        if self.has_key and definition.key != self.definition.key:
            return True
        titled = replace(definition, title=self.title)
        return ready_source(titled, self._rtmp_port, self._number) != self.source

    async def revise(self, definition: Definition) -> None:
        """Be as ``definition`` has it from now on.

        The encoder and its viewers stay. If :meth:`needs_another_feed`, the slate is shown until
        the new source is there; whoever publishes must have been ended before. Another title is
        on the slate, and on a test picture, when that is made anew.

        Raises:
            SourceError: the definition's text is no source.
            ProcessError: there is no ffmpeg.
        """
        source = ready_source(definition, self._rtmp_port, self._number)
        other = self.needs_another_feed(definition)
        self.definition = definition
        self.encoder.config = replace(self.encoder.config, title=definition.title)
        self.source = source
        if other:
            async with self._following:
                await self.ingest.stop()
                self._trouble = ""
                self.ingest.source = source
                if self.before_reading is not None:
                    await self.before_reading()
                if not self._stopped and not is_published(source):
                    await self.ingest.start()
            self._changed()
        elif isinstance(source, TestSource):
            self.ingest.source = source

    def read_inside(
        self, netns: str | None, source: Source, on_listening: Callable[[], None] | None
    ) -> None:
        """Have the source read in a network namespace, as ``source``, from the next start on.

        ``on_listening`` is told whenever it begins to wait for whoever sends.
        """
        self.ingest.netns, self.ingest.source = netns, source
        self._on_listening = on_listening

    async def read_anew(self) -> None:
        """Begin anew with the source: who sent is gone, and whoever sends next is taken at once."""
        async with self._following:
            if self.ingest.state is not IngestState.STOPPED and not self._stopped:
                await self.ingest.stop()
                await self.ingest.start()

    def _ingest_changed(self, state: IngestState, detail: str) -> None:
        if state is IngestState.WAITING and self._on_listening is not None:
            self._on_listening()
        # Trouble lasts until the source is there: each retry would otherwise look like news.
        if state is IngestState.RETRYING:
            self._trouble = detail or "the source is lost"
        elif state is not IngestState.STARTING:
            self._trouble = ""
        self._changed()

    def _changed(self) -> None:
        state = self.state
        if state != self._told and not self._stopped:
            self._told = state
            self._on_event(Event(f"channel.{state}", self.name, {"detail": self.detail}))
