"""The gate: where publishers by WHIP connect. One process of our leaf server, beside the ingests.

It ends ICE, DTLS and SRTP, asks for what was lost, and hands everything on as plain RTP on the
loopback address. Its protocol: docs/protocols/leaf.md.
"""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import structlog

from anabranch.media import publish_answer
from anabranch.media.answer_parts import NearEnd
from anabranch.media.leaf import LeafError, LeafPlace, LeafUnavailableError
from anabranch.media.leaf_client import LeafClient
from anabranch.media.leaf_protocol import (
    LeafEvent,
    LeafProtocolError,
    Message,
    RefusedError,
    text,
)
from anabranch.media.native_process import LeafProcess
from anabranch.media.native_server import NativeServer, candidates_of
from anabranch.media.publish_answer import PublishOffer, Track
from anabranch.media.publisher_figures import Reception, read_reception
from anabranch.media.source import LOOPBACK, RtpStream

_NO_MID = "-"
"""What the server is told where no mid is sent: it wants one of 1 to 200 bytes."""
_log = structlog.get_logger("anabranch.gate")

PublisherState = Literal["up", "gone"]


@dataclass(frozen=True, slots=True)
class PublisherNews:
    """What happened to a publisher: it is connected, or has gone.

    Attributes:
        detail: its address, or why it has gone: ``closed``, ``silent``, ``never``, ``failed``,
            ``dropped``, or ``lost`` with the gate.
    """

    publisher: str
    state: PublisherState
    detail: str


@dataclass(frozen=True, slots=True)
class LayerNews:
    """Which layers of a publisher are renditions of its channel now.

    Attributes:
        renditions: by name the rid of its layer; None: none is just now.
        unfit: why the picture is handed on to be decoded, from now on; empty: it is not.
    """

    publisher: str
    renditions: Mapping[str, str | None]
    unfit: str = ""


@dataclass(frozen=True, slots=True)
class StreamTarget:
    """A stream of a channel, and the port of the loopback address that takes it.

    Attributes:
        ssrc: its first one; each time that it begins anew it has another.
    """

    name: str
    ssrc: int
    payload_type: int
    kbps: int
    port: int


@dataclass(frozen=True, slots=True)
class Passing:
    """What a publisher's layers are to be, if they fit.

    Attributes:
        epoch_ms: time of day at RTP timestamp 0 of all streams, ms since the epoch.
        renditions: the best one first.
    """

    epoch_ms: int
    renditions: tuple[StreamTarget, ...]
    sound: StreamTarget


class Gate(NativeServer):
    """Keeps the process running, and the publishers in it.

    Args:
        place: where it lives; publishers' packets all arrive at the first of its media ports.
        on_news: told of publishers; also of those that end with the process.
        on_layers: told which of a publisher's layers are renditions, whenever that changes.
    """

    def __init__(
        self,
        place: LeafPlace,
        on_news: Callable[[PublisherNews], None],
        on_layers: Callable[[LayerNews], None] = lambda _news: None,
    ) -> None:
        self._place = place
        self._on_news = on_news
        self._on_layers = on_layers
        self._publishers: set[str] = set()
        super().__init__(
            LeafProcess(
                place,
                1,
                on_event=self._event,
                resume=self._resume,
                on_cut=lambda: None,
                on_gone=self._gone,
            )
        )

    def recall(self, publishers: Collection[str]) -> None:
        """Know of publishers that an earlier director let in; call it before :meth:`start`.

        Those that are not there any more are told as gone, others that are there end.
        """
        self._publishers.update(publishers)

    @property
    def publishers(self) -> frozenset[str]:
        """Who was let in and has not gone."""
        return frozenset(self._publishers)

    async def admit(
        self,
        publisher: str,
        offer: PublishOffer,
        streams: Sequence[RtpStream],
        kbps: int,
        passing: Passing | None = None,
    ) -> str:
        """Take a publisher in; return the answer for it.

        Args:
            publisher: an identifier that is not in use.
            offer: what it offers.
            streams: where its tracks go, one each in their order.
            kbps: what it shall send at most.
            passing: what the offer's layers are to be; given exactly if it has some.

        Raises:
            LeafUnavailableError: not now; it may try again.
        """
        client = self._process.connected()
        self._publishers.add(publisher)
        try:
            reply = await client.request(
                "publisher.add",
                publisher=publisher,
                remote={
                    "ufrag": offer.far_end.ufrag,
                    "pwd": offer.far_end.pwd,
                    "fingerprint": offer.far_end.fingerprint,
                    "setup": "actpass",
                },
                tracks=[
                    described
                    for track, stream in zip(offer.tracks, streams, strict=True)
                    for described in _described(track, stream)
                ],
                kbps=kbps,
                **({"passing": _passing(passing)} if passing is not None else {}),
            )
            near = NearEnd(
                session_id=secrets.randbits(62),
                ufrag=text(reply, "ufrag"),
                pwd=text(reply, "pwd"),
                fingerprint=self._process.fingerprint,
                candidates=candidates_of(self._place),
            )
        except BaseException as error:
            # It may have been added all the same, after a time-out for example.
            self._spawn(self.close(publisher))
            if isinstance(error, RefusedError | LeafProtocolError):
                raise LeafUnavailableError(str(error)) from error
            raise
        return publish_answer.answer(offer, near)

    async def ask_key_frame(self, publisher: str, rendition: str | None = None) -> None:
        """Ask a publisher for a key frame; one that is not there is not asked.

        ``rendition``: only of the layer that is this rendition now.
        """
        if publisher in self._publishers:
            which = {"rendition": rendition} if rendition is not None else {}
            with suppress(LeafError):
                await self._process.connected().request(
                    "publisher.key_frame", publisher=publisher, **which
                )

    async def address(self, publisher: str) -> str:
        """Return from where a publisher sends just now: address and port, or nothing."""
        with suppress(LeafError):
            server = self._process.connected()
            reply = await server.request("publisher.statistics", publisher=publisher)
            found = reply.get("publishers")
            said = found.get(publisher) if isinstance(found, dict) else None
            return str(said.get("address", "")) if isinstance(said, dict) else ""
        return ""

    async def close(self, publisher: str) -> None:
        """End a publisher's connection; unknown ones are ignored. Nothing is told of it."""
        if publisher in self._publishers:
            self._publishers.discard(publisher)
            with suppress(LeafError):
                await self._process.connected().request("publisher.close", publisher=publisher)

    async def statistics(self) -> dict[str, Reception]:
        """Return what came from its publishers, by identifier; nothing if the process is away."""
        try:
            reply = await self._process.connected().request("publisher.statistics")
        except LeafError:
            return {}
        found = reply.get("publishers")
        entries = found.items() if isinstance(found, dict) else ()
        return {name: read_reception(said) for name, said in entries if isinstance(said, dict)}

    async def _resume(self, client: LeafClient) -> None:
        """Go on with a process that may know of publishers, or of none."""
        found = (await client.request("publisher.statistics")).get("publishers")
        there = set(found) if isinstance(found, dict) else set()
        for publisher in self._publishers - there:
            self._forget(publisher, "lost")
        for stranger in there - self._publishers:
            with suppress(RefusedError):
                await client.request("publisher.close", publisher=stranger)

    def _gone(self) -> None:
        for publisher in list(self._publishers):
            self._forget(publisher, "lost")

    def _forget(self, publisher: str, why: str) -> None:
        if publisher in self._publishers:
            self._publishers.discard(publisher)
            self._on_news(PublisherNews(publisher, "gone", why))

    def _event(self, event: LeafEvent) -> None:
        try:
            match event.kind:
                case "publisher.up":
                    publisher = text(event.fields, "publisher")
                    if publisher in self._publishers:
                        address = text(event.fields, "address")
                        self._on_news(PublisherNews(publisher, "up", address))
                case "publisher.passing":
                    news = _layer_news(event.fields)
                    if news.publisher in self._publishers:
                        self._on_layers(news)
                case "publisher.gone":
                    self._forget(text(event.fields, "publisher"), text(event.fields, "why"))
        except LeafProtocolError as error:
            _log.error("gate.nonsense", kind=event.kind, error=str(error))


def _described(track: Track, stream: RtpStream) -> list[Message]:
    """Return a track as members of ``publisher.add``: one for each of its layers."""
    kinds = {"nack": "nack", "nack pli": "pli", "goog-remb": "remb"}
    described = {
        "mid": track.mid or _NO_MID,
        "kind": track.kind,
        "clock": track.clock,
        "payload_types": [track.codec.payload_type],
        "rtx": {str(track.rtx): track.codec.payload_type} if track.rtx is not None else {},
        "ssrcs": list(track.ssrcs),
        "extensions": {name: extension.id for name, extension in track.extensions.items()},
        "feedback": [kinds[name] for name in track.feedback],
        "to": f"{LOOPBACK}:{stream.port}",
    }
    return [{**described, "rid": rid} for rid in track.rids] or [described]


def _passing(passing: Passing) -> Message:
    def told(stream: StreamTarget) -> Message:
        return {
            "name": stream.name,
            "ssrc": stream.ssrc,
            "payload_type": stream.payload_type,
            "kbps": stream.kbps,
            "to": f"{LOOPBACK}:{stream.port}",
        }

    return {
        "epoch_ms": passing.epoch_ms,
        "renditions": [told(stream) for stream in passing.renditions],
        "sound": told(passing.sound),
    }


def _layer_news(fields: Message) -> LayerNews:
    """Raises LeafProtocolError."""
    renditions, unfit = fields.get("renditions"), fields.get("unfit", "")
    if not isinstance(renditions, dict) or not isinstance(unfit, str):
        raise LeafProtocolError("publisher.passing without its members")
    layers = {name: layer if isinstance(layer, str) else None for name, layer in renditions.items()}
    return LayerNews(text(fields, "publisher"), layers, unfit)
