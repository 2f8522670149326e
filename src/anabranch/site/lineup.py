"""The line-up: a site's channels, what is kept of them, and where their streams go."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from functools import partial

import structlog

from anabranch.channels.channel import Channel
from anabranch.channels.definitions import Change, Definition, Definitions, Settle, Visibility
from anabranch.channels.ways_in import check_once, ports_of, publish_hints, settle
from anabranch.core.errors import AnabranchError, NotFoundError, UnavailableError
from anabranch.core.events import Event
from anabranch.host.addresses import is_udp_port_free
from anabranch.media.encoder import EncoderConfig
from anabranch.media.rendition import is_transport
from anabranch.media.source_text import parse_source
from anabranch.site import groups
from anabranch.site.carriage import StreamId, Target
from anabranch.site.settings import SiteSettings
from anabranch.site.underlay import Underlay
from anabranch.store.database import Database

_log = structlog.get_logger("anabranch.site")


class Lineup:
    """The channels of a site.

    Args:
        underlay: what carries them.
        prepare_for: sees that channels of a source can be fed; may raise UnavailableError.
        on_event: gets ``channel.*`` events.
        on_change: called when channels have come or gone.

    Attributes:
        definitions: what is kept.
        channels: those on the air, by name; one that is defined need not be.
    """

    def __init__(
        self,
        settings: SiteSettings,
        database: Database,
        underlay: Underlay,
        prepare_for: Callable[[str], Awaitable[None]],
        on_event: Callable[[Event], None],
        on_change: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._underlay = underlay
        self._prepare_for = prepare_for
        self._on_event = on_event
        self._on_change = on_change
        self._changing = asyncio.Lock()
        self.definitions = Definitions(database)
        self.channels: dict[str, Channel] = {}
        self._made: frozenset[StreamId] = frozenset()

    def get(self, name: str) -> Channel:
        """Return a channel.

        Raises:
            NotFoundError: there is none of this name.
        """
        channel = self.channels.get(name)
        if channel is None:
            raise NotFoundError(f"there is no channel named {name[:60]!r}")
        return channel

    # --- coming and going ---------------------------------------------------------------------

    async def defined(self) -> list[Definition]:
        """Return what is defined; where nothing is, test channels are defined."""
        return await self.definitions.all() or await self._define_test_channels()

    async def _define_test_channels(self) -> list[Definition]:
        return [
            await self.definitions.add(
                f"test{number}",
                title=f"Test channel {number}",
                once=False,
                key=None,
                settle=lambda _others: "test",
            )
            for number in range(1, self._settings.test_channels + 1)
        ]

    async def put_back(self, definitions: Sequence[Definition]) -> list[str]:
        """Put channels on the air again; return why some are not."""
        notes = await asyncio.gather(*map(self._put_back, definitions))
        return [note for note in notes if note is not None]

    async def _put_back(self, definition: Definition) -> str | None:
        try:
            await self._put_on_air(definition)
        except AnabranchError as error:
            # One channel that cannot be must not keep the others off the air.
            _log.error("channel.unavailable", channel=definition.name, error=str(error))
            return f"the channel {definition.name} is not on the air: {error}"
        return None

    async def add(
        self,
        name: str,
        source: str,
        *,
        title: str | None = None,
        once: bool = False,
        key: str | None = None,
        visibility: Visibility = "public",
        owner: str | None = None,
        most: int | None = None,
    ) -> Channel:
        """Define a channel and put it on the air.

        Raises:
            UsageError: something about it is not allowed; the message says what.
            ConflictError: its name or port is taken, or ``owner`` has the ``most`` channels.
            StoreError: it cannot be kept; nothing has changed.
        """
        check_once(parse_source(source, loop=not once), once=once)
        await self._prepare_for(source)
        async with self._changing:
            definition = await self.definitions.add(
                name,
                title=title,
                once=once,
                key=key,
                settle=self._settling(source),
                visibility=visibility,
                owner=owner,
                most=most,
            )
            try:
                return await self._put_on_air(definition)
            except BaseException:
                await self.definitions.remove(name)
                raise

    async def change(
        self, name: str, change: Change, end_publisher: Callable[[Channel], Awaitable[None]]
    ) -> Channel:
        """Change a channel, whole or not at all.

        Args:
            name: the channel's.
            change: what is to be otherwise.
            end_publisher: ends who publishes, where the channel is to be fed in another way.

        Raises:
            UsageError: something about it is not allowed, or there is none of this name.
            ConflictError: the key or the port is another's.
            UnavailableError: the server that the new source needs does not start.
            StoreError: it cannot be kept; nothing has changed.
        """
        async with self._changing:
            channel = self.get(name)
            present = channel.definition
            if change.source is not None and change.source.strip() == present.source:
                change = replace(change, source=None)
            text = present.source if change.source is None else change.source
            once = present.once if change.once is None else change.once
            check_once(parse_source(text, loop=not once), once=once)
            settled = None
            if change.source is not None:
                await self._prepare_for(change.source)
                settled = self._settling(change.source, ports_of(parse_source(present.source)))
            before, after = await self.definitions.change(name, change, settled)
            try:
                if channel.needs_another_feed(after):
                    await end_publisher(channel)
                await channel.revise(after)
            except BaseException:
                try:
                    await self.definitions.put_back(before)
                finally:
                    await channel.revise(before)
                raise
        self._on_event(Event("channel.changed", name))
        return channel

    def _settling(self, source: str, own: Collection[int] = ()) -> Settle:
        """Return what settles a source; ``own`` are UDP ports that its channel has already."""
        ports = self._settings.ports

        def is_free(port: int) -> bool:
            return port in own or is_udp_port_free(port)

        return lambda others: settle(source, others, srt=ports.srt, rtp=ports.rtp, is_free=is_free)

    async def remove(self, name: str, end: Callable[[Channel | None], Awaitable[None]]) -> None:
        """Take a channel off the air and forget it.

        Args:
            name: the channel's.
            end: ends it and all who use it, once nobody new can; gets None if it is not on the air.

        Raises:
            NotFoundError: there is none of this name.
        """
        async with self._changing:
            await self.definitions.remove(name)
            # One that could not be put on the air is defined all the same.
            await end(self.channels.pop(name, None))
            self._on_change()
        self._on_event(Event("channel.removed", name))

    async def stop(self) -> None:
        """Take all channels off the air; they stay defined."""
        await asyncio.gather(
            *(channel.stop() for channel in self.channels.values()), return_exceptions=True
        )

    async def _put_on_air(self, definition: Definition) -> Channel:
        directory = self._settings.run_dir / "channels" / str(definition.slot)
        channel = Channel(
            definition,
            EncoderConfig(
                title=definition.title,
                directory=directory,
                renditions=self._settings.ladder,
                form=self._settings.format,
                interface=self._underlay.encoder_interface,
                netns=self._underlay.encoder_namespace,
            ),
            self._settings.run_id,
            rtmp_port=self._settings.ports.rtmp,
            number=definition.slot,
            on_event=self._on_event,
        )
        for stream, group in groups.of_media(self._settings, channel).items():
            channel.encoder.set_targets(stream.name, self._underlay.carriage.targets(stream, group))
        self._made = frozenset(each for each in self._made if each.channel != channel.name)
        self.channels[definition.name] = channel
        try:
            if self._underlay.ingress is not None:
                channel.before_reading = partial(self._underlay.ingress.take, channel)
                await channel.before_reading()
            await channel.start()
        except BaseException as error:
            del self.channels[definition.name]
            await self.take_off_air(channel)
            if isinstance(error, OSError):
                raise UnavailableError(f"the run directory: {error.strerror}") from error
            raise
        self._on_change()
        self._on_event(Event("channel.added", definition.name))
        return channel

    async def take_off_air(self, channel: Channel) -> None:
        """Stop a channel; nobody is let in for it any more."""
        await channel.stop()
        if self._underlay.ingress is not None:
            await self._underlay.ingress.remove(channel.name)

    # --- where streams go ---------------------------------------------------------------------

    def groups(self) -> dict[StreamId, str]:
        """Return the multicast group of every stream."""
        found: dict[StreamId, str] = {}
        for channel in self.channels.values():
            found |= groups.of_media(self._settings, channel)
            found |= groups.of_transport(self._settings, channel)
        return found

    def make_transport(self, wanted: frozenset[StreamId]) -> None:
        """Have encoders make exactly these transport streams, as far as there are such."""
        known = self.groups()
        before, self._made = self._made, wanted & known.keys()
        for stream in before ^ self._made:
            targets: list[Target] = []
            if stream in self._made:
                targets = self._underlay.carriage.targets(stream, known[stream])
            self.retarget(stream, targets)

    def retarget(self, stream: StreamId, targets: list[Target]) -> None:
        """Have a stream sent to these from now on; a transport stream only while it is made."""
        if is_transport(stream.name) and targets and stream not in self._made:
            return
        channel = self.channels.get(stream.channel)
        if channel is not None:
            channel.encoder.set_targets(stream.name, targets)

    def publish_hints(self, name: str) -> dict[str, str]:
        """Return what a producer of a channel enters at its side."""
        channel = self.get(name)
        host, console = self._settings.producers_host, self._settings.console
        return publish_hints(channel.source, channel.definition, host, console)
