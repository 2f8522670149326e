"""Publishers over RTMP: the server they meet, and who may feed which channel."""

import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from anabranch.channels.channel import Channel
from anabranch.core.errors import AnabranchError, ConflictError, UsageError
from anabranch.core.events import Event
from anabranch.host import holdings
from anabranch.host.gateway import Protocol, Way, tcp_peers
from anabranch.media.publisher_figures import Connection, Reception
from anabranch.media.rtmp import RtmpCall, RtmpConfig, RtmpServer
from anabranch.media.source import RtmpSource
from anabranch.site.ingress import Ingress
from anabranch.site.settings import SiteSettings

_NOTE = "publishers:rtmp"
_log = structlog.get_logger("anabranch.site")


class Publishers:
    """The site's RTMP server and its publishers, one a channel.

    Args:
        channels: the channels on the air, by name.
        spawn: starts work that is ended with the site.
        on_event: gets ``publisher.*`` events.
        ingress: the gateway behind which the server is; None: it is met directly.
    """

    def __init__(
        self,
        settings: SiteSettings,
        channels: Mapping[str, Channel],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        on_event: Callable[[Event], None],
        ingress: Ingress | None = None,
    ) -> None:
        self._ingress = ingress
        self._way = Way(Protocol.TCP, settings.ports.rtmp)
        self._channels = channels
        self._spawn = spawn
        self._on_event = on_event
        self._directory = settings.run_dir / "rtmp"
        config = RtmpConfig(
            self._directory,
            settings.ports.rtmp,
            settings.callback_port,
            netns=None if ingress is None else ingress.namespace,
        )
        self.server = RtmpServer(
            "rtmp", config, settings.run_id, on_exit=lambda _code: self._all_left()
        )
        self.available = False
        self._run_id = settings.run_id
        self._connections: dict[str, Connection] = {}
        """By the server's number."""

    async def start(self) -> list[str]:
        """Start the server; return why there is none, if it does not start: the site runs on."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            if self._ingress is not None:
                await self._ingress.serve(self._way)
            await self.server.start()
        except AnabranchError as error:
            _log.warning("rtmp.unavailable", error=str(error))
            return [f"no RTMP: {error}"]
        self.available = True
        return []

    async def restore(self) -> None:
        """Go on with the publishers that an earlier director let in, as far as they are there."""
        noted: Mapping[str, Any] = holdings.noted(self._run_id, _NOTE) or {}
        there = await self.server.statistics() if noted and self.server.child.adopted else {}
        for number, said in noted.items():
            channel = self._channels.get(said["channel"])
            if number not in there or channel is None or channel.publisher is not None:
                continue
            channel.publisher = number
            self._connections[number] = Connection(said["since"], said["address"])
            await channel.follow_publisher()
        self._note()

    def _note(self) -> None:
        """Note for the next director who feeds which channel."""
        fed = {each.publisher: each.name for each in self._channels.values()}
        said = {
            number: {"channel": fed[number], "since": it.since, "address": it.address}
            for number, it in self._connections.items()
            if number in fed
        }
        holdings.note(self._run_id, _NOTE, said or None)

    async def stop(self) -> None:
        await self.server.stop()

    def publish(self, call: RtmpCall) -> str:
        """Decide about a publisher whose stream is named by its key; return its channel's name.

        Raises:
            UsageError: no channel has this key.
            ConflictError: the channel has a publisher already.
        """
        address = call.addr if self._ingress is None else self._ingress.told(call.addr)
        for channel in self._channels.values():
            if isinstance(channel.source, RtmpSource) and channel.definition.key == call.name:
                where = {"address": address}
                if channel.publisher is not None:
                    self._on_event(Event("publisher.refused", channel.name, where))
                    raise ConflictError(f"the channel {channel.name} has a publisher already")
                channel.publisher = call.client_id
                self._connections[call.client_id] = Connection(time.time(), address)
                self._note()
                self._let_in(channel, call.addr)
                self._spawn(channel.follow_publisher())
                self._on_event(Event("publisher.came", channel.name, where))
                return channel.name
        self._on_event(Event("publisher.refused", "rtmp", {"address": address}))
        raise UsageError("no channel has this key")

    def done(self, call: RtmpCall) -> None:
        """Note that a publisher has left; the server says so of refused ones, too."""
        self._connections.pop(call.client_id, None)
        for channel in self._channels.values():
            if channel.publisher is not None and channel.publisher == call.client_id:
                self._left(channel)

    async def end_at(self, channel: Channel) -> None:
        """End the publisher of a channel, if one came by RTMP."""
        if isinstance(channel.source, RtmpSource) and channel.publisher is not None:
            self._left(channel)
            await self.server.drop(channel.name)

    def _all_left(self) -> None:
        """The server has ended, and with it every connection."""
        self._connections.clear()
        for channel in self._channels.values():
            if channel.publisher is not None:
                self._left(channel)

    async def statistics(self) -> dict[str, tuple[Connection, Reception | None]]:
        """Return who feeds which channel, and what came so far, if the server tells."""
        fed = {each.name: each.publisher for each in self._channels.values() if each.publisher}
        here = {name: number for name, number in fed.items() if number in self._connections}
        found = await self.server.statistics() if here else {}
        return {
            name: (connection, found.get(number))
            for name, number in here.items()
            if (connection := self._connections.get(number)) is not None
        }

    def _let_in(self, channel: Channel, address: str) -> None:
        """Have the gateway pass what a publisher sends; the server tells its address alone."""
        if self._ingress is None:
            return
        pid, port = self.server.child.pid, None
        if pid is not None:
            here = tcp_peers(pid, self._way.port) - self._ingress.known_peers(self._way)
            ports = [number for where, number in here if where == address]
            port = ports[0] if len(ports) == 1 else None
        self._ingress.let_in(channel.name, self._way, address, port)

    def _left(self, channel: Channel) -> None:
        channel.publisher = None
        self._note()
        if self._ingress is not None:
            self._ingress.gone(channel.name)
        self._spawn(channel.follow_publisher())
        self._on_event(Event("publisher.left", channel.name))
