"""Publishers by WHIP: the gate that they meet, and who may feed which channel."""

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

import structlog

from anabranch.channels.channel import Channel
from anabranch.core.errors import AnabranchError, ConflictError, NotFoundError, UnavailableError
from anabranch.core.events import Event
from anabranch.core.names import new_id
from anabranch.host import addresses as machine
from anabranch.host import holdings
from anabranch.host.gateway import Protocol, Way, is_udp_port_free_inside
from anabranch.host.process import Child
from anabranch.media import publish_answer
from anabranch.media.encoder import EncoderState
from anabranch.media.errors import EncoderError
from anabranch.media.gate import Gate, LayerNews, PublisherNews
from anabranch.media.ingest import IngestState
from anabranch.media.leaf import LeafPlace
from anabranch.media.publisher_figures import Connection, Reception
from anabranch.media.source import LOOPBACK, RtpStream, WhipSource
from anabranch.site.ingress import Ingress
from anabranch.site.passage import Passage
from anabranch.site.plan import is_access_link
from anabranch.site.settings import SiteSettings
from anabranch.site.whip_notes import NotedPublisher, note_publishers, noted_publishers

_LOOK_S = 0.5
"""Seconds between two looks whether the ingest has found its picture yet."""
_LEAST_KBPS = 1500
_log = structlog.get_logger("anabranch.site")


class WrongKeyError(AnabranchError):
    """The publisher's key is not that of the channel, or of any."""


def unfed(name: str) -> NotFoundError:
    """Return what is said of a channel that is not there, or not fed by WHIP."""
    return NotFoundError(f"there is no channel named {name[:60]!r} that is fed by WHIP")


@dataclass(slots=True)
class Publishing:
    """A publisher that was let in; its identifier is unguessable (96 bits).

    Attributes:
        connection: it is connected, so media may arrive; None: not yet.
        source: how ffmpeg reads it.
        passage: how its layers become renditions; None: it has none, or they did not fit.
        layers: by rendition the layer that is sent as it.
    """

    id: str
    channel: Channel
    source: WhipSource
    connection: Connection | None = None
    passage: Passage | None = None
    layers: dict[str, str | None] = field(default_factory=dict)


class WhipPublishers:
    """The site's gate and its publishers, one a channel.

    The gate is started with the first channel that needs it.

    Args:
        channels: the channels on the air, by name.
        spawn: starts work that is ended with the site.
        on_event: gets ``publisher.*`` events.
        ingress: the gateway behind which the gate may be; None: it is met directly.
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
        self._way = Way(Protocol.UDP, settings.ports.whip)
        self._settings = settings
        self._channels = channels
        self._spawn = spawn
        self._on_event = on_event
        self._starting = asyncio.Lock()
        self._gate: Gate | None = None
        self._publishing: dict[str, Publishing] = {}
        first, last = settings.ports.handover
        self._ports = range(first, last + 1)
        # Where a port has just become free, what was sent to it may still be on its way; and two
        # sites of one machine shall not try the same ones.
        self._next_port = secrets.randbelow(len(self._ports))

    @property
    def child(self) -> Child | None:
        """The gate's process, once started."""
        return self._gate.child if self._gate is not None else None

    # --- life ---------------------------------------------------------------------------------

    async def start(self, sources: Iterable[str]) -> list[str]:
        """Start the gate if one of these is WHIP; return why not, if it does not start."""
        try:
            for source in sources:
                await self.prepare_for(source)
        except AnabranchError as error:
            _log.warning("whip.unavailable", error=str(error))
            return [f"no WHIP: {error}"]
        return []

    async def prepare_for(self, source: str) -> None:
        """See that there is a gate if a channel of this source is to be.

        Raises:
            UnavailableError: it is not installed, or its port is taken.
        """
        async with self._starting:
            if self._gate is not None or source.strip() != "whip":
                return
            gate = Gate(self._place(), self._heard, self._heard_layers)
            try:
                if self._ingress is not None:
                    await self._ingress.serve(self._way, by_6=True)
                gate.recall([each.id for each in noted_publishers(self._settings.run_id)])
                await gate.start()
            except BaseException:
                await gate.stop()
                raise
            self._gate = gate

    async def restore(self) -> None:
        """Go on with the publishers that an earlier director let in, as far as they are there."""
        there = self._gate.publishers if self._gate is not None else frozenset()
        for noted in noted_publishers(self._settings.run_id):
            channel = self._channels.get(noted.channel)
            if noted.id in there and channel is not None:
                await self._go_on(noted, channel)
        fed = {each.channel.name for each in self._publishing.values() if each.passage is not None}
        for channel in self._channels.values():
            if channel.name not in fed:  # what was handed over for one who has gone
                await channel.encoder.end_relay()
        self._note()

    async def _go_on(self, noted: NotedPublisher, channel: Channel) -> None:
        publishing = Publishing(noted.id, channel, WhipSource(noted.streams), noted.connection)
        publishing.layers = dict(noted.layers)
        self._publishing[noted.id] = publishing
        channel.publisher = noted.id
        if noted.ports is None:
            await channel.follow_publisher(publishing.source)
        else:
            channel.on_key_frame = lambda name: self._ask_key_frame(publishing, name)
            held = [port for each in noted.streams for port in (each.port, each.port + 1)]
            try:
                publishing.passage = Passage.resume(noted.ports, held)
                kept = channel.encoder.keep_relay(noted.ports)
            except OSError:
                kept = False
            if not kept:  # the encoder has begun anew: so shall the publisher
                await self.end(publishing)
                return
        self._spawn(self._look_after(publishing))

    def _note(self) -> None:
        """Note for the next director who feeds which channel, and how."""
        note_publishers(
            self._settings.run_id,
            (
                NotedPublisher(
                    each.id,
                    each.channel.name,
                    each.source.streams,
                    each.connection,
                    None if each.passage is None else each.passage.ports,
                    each.layers,
                )
                for each in self._publishing.values()
            ),
        )

    async def stop(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            await gate.stop()

    def _place(self) -> LeafPlace:
        if self._ingress is None:
            return self._place_here()
        # Publishers are told this machine's addresses, from which it is forwarded to the gate.
        near_6 = machine.global_addresses_6(but=is_access_link) if self._ingress.by_6 else ()
        near = machine.distinct((*machine.local_addresses(but=is_access_link), *near_6))
        told = (*self._settings.public_besides(near), *near, LOOPBACK)
        return LeafPlace(
            name="whip",
            directory=self._settings.run_dir / "whip",
            run_id=self._settings.run_id,
            netns=self._ingress.namespace,
            media_addresses=(),
            public_addresses=told,
            media_ports=(self._way.port, self._way.port),
            inlet_interface=LOOPBACK,
            inlet_ports=self._settings.ports.handover,
            inner_addresses=self._ingress.addresses,
        )

    def _place_here(self) -> LeafPlace:
        port = self._settings.ports.whip
        # Links to leaves come and go; the gate would not come back without an address of its own.
        near = machine.local_addresses(but=is_access_link)
        near_6 = machine.global_addresses_6(but=is_access_link)
        addresses = machine.distinct((*near, *near_6, IPv4Address(LOOPBACK)))
        lives_on = "leaf:whip" in holdings.left(self._settings.run_id)
        if not lives_on and not all(
            machine.is_udp_port_free(port, address) for address in addresses
        ):
            raise UnavailableError(f"UDP port {port} (ports.whip) is taken by another program")
        return LeafPlace(
            name="whip",
            directory=self._settings.run_dir / "whip",
            run_id=self._settings.run_id,
            netns=None,
            media_addresses=addresses,
            public_addresses=self._settings.public_besides(addresses),
            media_ports=(port, port),
            inlet_interface=LOOPBACK,
            inlet_ports=self._settings.ports.handover,
        )

    # --- publishers ---------------------------------------------------------------------------

    async def publish(
        self, name: str | None, key: str, offer: str, *, client: str = ""
    ) -> tuple[Publishing, str]:
        """Let a publisher in; return who it is from now on, and the SDP answer.

        Args:
            name: of the channel; None: the one that has this key.
            key: the channel's secret.
            offer: SDP.
            client: the address that asks.

        Raises:
            NotFoundError: there is no such channel that is fed by WHIP.
            WrongKeyError: the key is another.
            OfferError: the offer cannot be answered.
            ConflictError: the channel has a publisher already.
            UnavailableError: the gate is not there just now, or no port is left.
        """
        channel = self._find(name, key, client)
        # Where their time is not known, layers cannot be sent beside what is encoded.
        encoded = channel.encoder.state
        renditions = len(self._settings.ladder) if encoded.running else None
        wanted = publish_answer.understand(offer, renditions)
        if self._gate is None or not self._gate.ready:
            raise UnavailableError("the WHIP server is not there just now; try again")
        if channel.publisher is not None:
            self._on_event(Event("publisher.refused", channel.name, {"address": client}))
            raise ConflictError(f"the channel {channel.name} has a publisher already")
        streams = tuple(
            RtpStream(track.encoding, self._draw_port(), track.codec.payload_type)
            for track in wanted.tracks
        )
        publishing = Publishing(new_id(), channel, WhipSource(streams))
        if wanted.has_layers:
            publishing.passage = self._open_passage(encoded, streams)
            channel.on_key_frame = lambda name: self._ask_key_frame(publishing, name)
        channel.publisher = publishing.id
        self._publishing[publishing.id] = publishing
        if self._ingress is not None:
            self._ingress.expect(self._way, client)
        try:
            # Who reads must be there before the first packet, which brings a key frame.
            if publishing.passage is None:
                self._spawn(channel.follow_publisher(publishing.source))
            else:
                await channel.relay(publishing.passage.take_sockets())
            plan = publishing.passage.plan if publishing.passage is not None else None
            answer = await self._gate.admit(publishing.id, wanted, streams, self._kbps, plan)
        except BaseException as error:
            self._left(publishing)
            if isinstance(error, EncoderError):
                raise UnavailableError(str(error)) from error
            raise
        if publishing.id not in self._publishing:  # the channel was removed meanwhile
            raise NotFoundError(f"there is no channel named {channel.name}")
        self._note()
        self._spawn(self._look_after(publishing))
        return publishing, answer

    def _open_passage(self, encoded: EncoderState, streams: tuple[RtpStream, ...]) -> Passage:
        """Raises UnavailableError."""
        held = [port for stream in streams for port in (stream.port, stream.port + 1)]
        form, ladder = self._settings.format, self._settings.ladder
        ports = [self._draw_port() for _ in (*ladder, form)]
        try:
            netns = None if self._ingress is None else self._ingress.namespace
            return Passage.open(ladder, form, encoded, ports, held, netns=netns)
        except OSError as error:
            raise UnavailableError(f"ports.handover: {error.strerror}") from error

    def layers(self, channel: Channel) -> dict[str, str | None]:
        """Return which layer of a channel's publisher is sent as which rendition."""
        publishing = self._publishing.get(channel.publisher or "")
        return dict(publishing.layers) if publishing is not None else {}

    def get(self, publishing_id: str) -> Publishing:
        """Return a publisher.

        Raises:
            NotFoundError: there is none, or no longer.
        """
        found = self._publishing.get(publishing_id)
        if found is None:
            raise NotFoundError("there is no such publisher, or no longer")
        return found

    async def end(self, publishing: Publishing) -> None:
        """End a publisher's connection: the slate is shown at once."""
        self._left(publishing, "deleted")
        if self._gate is not None:
            await self._gate.close(publishing.id)

    async def end_at(self, channel: Channel) -> None:
        """End the publisher of a channel, if it has one."""
        found = self._publishing.get(channel.publisher or "")
        if found is not None:
            await self.end(found)

    async def statistics(self) -> dict[str, tuple[Connection, Reception | None]]:
        """Return who feeds which channel, and what came so far, if the gate tells."""
        if self._gate is None or not self._publishing:
            return {}
        found = await self._gate.statistics()
        return {
            each.channel.name: (each.connection, found.get(each.id))
            for each in self._publishing.values()
            if each.connection is not None
        }

    def _find(self, name: str | None, key: str, client: str) -> Channel:
        fed = [each for each in self._channels.values() if isinstance(each.source, WhipSource)]
        if name is not None:
            fed = [each for each in fed if each.name == name]
            if not fed:
                raise unfed(name)
        given = key.encode()
        matches = [
            each for each in fed if secrets.compare_digest(each.definition.key.encode(), given)
        ]
        if not matches:
            self._on_event(Event("publisher.refused", name or "whip", {"address": client}))
            raise WrongKeyError("the bearer token is not the channel's key")
        return matches[0]

    @property
    def _kbps(self) -> int:
        """What a publisher shall send at most: more than is sent on would be of no use."""
        best = max(rendition.bitrate_kbps for rendition in self._settings.ladder)
        return max(3 * best, _LEAST_KBPS)

    def _draw_port(self) -> int:
        """Return a port that is free, as is the one above it."""
        for _ in range(len(self._ports) // 2):
            port = self._ports[self._next_port // 2 * 2]
            self._next_port = (self._next_port + 2) % len(self._ports)
            if all(self._is_free(number) for number in (port, port + 1)):
                return port
        raise UnavailableError(
            f"no port is left (ports.handover, {self._ports[0]} to {self._ports[-1]})"
        )

    def _is_free(self, port: int) -> bool:
        if self._ingress is None:
            return machine.is_udp_port_free(port)
        return is_udp_port_free_inside(self._ingress.namespace, port)

    async def _look_after(self, publishing: Publishing) -> None:
        """Ask for key frames until the ingest has its picture, at first and after a restart.

        Layers bring their own; but an encoder that was started anew joins them in their middle.
        """
        channel = publishing.channel
        life = channel.encoder.state.generation
        while publishing.id in self._publishing and self._gate is not None:
            if publishing.connection and self._ingress is not None:  # it may have moved
                self._let_in(publishing, await self._gate.address(publishing.id))
            if publishing.passage is not None:
                now = channel.encoder.state
                if now.generation != life and now.relayed:
                    life = now.generation
                    await self._gate.ask_key_frame(publishing.id)
            elif publishing.connection and channel.ingest.state is not IngestState.RUNNING:
                await self._gate.ask_key_frame(publishing.id)
            await asyncio.sleep(_LOOK_S)

    def _ask_key_frame(self, publishing: Publishing, rendition: str) -> None:
        if self._gate is not None:
            self._spawn(self._gate.ask_key_frame(publishing.id, rendition))

    def _end_passage(self, publishing: Publishing) -> None:
        if publishing.passage is not None:
            publishing.passage.close()
            publishing.passage = publishing.channel.on_key_frame = None

    def _heard_layers(self, news: LayerNews) -> None:
        publishing = self._publishing.get(news.publisher)
        if publishing is None or publishing.passage is None:
            return
        channel = publishing.channel
        publishing.layers = {} if news.unfit else dict(news.renditions)
        if news.unfit:
            self._end_passage(publishing)
            self._spawn(channel.follow_publisher(publishing.source))
            self._on_event(Event("publisher.unfit", channel.name, {"why": news.unfit}))
        else:
            self._on_event(Event("publisher.layers", channel.name, dict(news.renditions)))
        self._note()

    def _heard(self, news: PublisherNews) -> None:
        publishing = self._publishing.get(news.publisher)
        if publishing is None:
            return
        if news.state == "gone":
            self._left(publishing, news.detail)
            return
        host, colon, port = news.detail.rpartition(":")
        told = host if self._ingress is None else self._ingress.told(host)
        address = f"{told}{colon}{port}"
        publishing.connection = Connection(time.time(), address)
        self._note()
        self._let_in(publishing, news.detail)
        where = {"address": address}
        self._on_event(Event("publisher.came", publishing.channel.name, where))

    def _let_in(self, publishing: Publishing, address: str) -> None:
        """Have the gateway pass what a publisher sends from an address and port."""
        host, _, port = address.rpartition(":")
        if self._ingress is not None and port.isdigit():
            self._ingress.let_in(publishing.channel.name, self._way, host, int(port))

    def _left(self, publishing: Publishing, why: str = "") -> None:
        """Forget a publisher; the channel shows its slate."""
        if self._publishing.pop(publishing.id, None) is None:
            return
        self._note()
        channel = publishing.channel
        self._end_passage(publishing)
        if channel.publisher == publishing.id:
            channel.publisher = None
            if self._ingress is not None:
                self._ingress.gone(channel.name)
            self._spawn(channel.follow_publisher())
        if publishing.connection is not None:
            self._on_event(Event("publisher.left", channel.name, {"why": why}))
