"""The contract of a leaf server: the WebRTC process that viewers connect to.

Everything above it (seats, WHEP, carriage) speaks only this. Janus fulfils it today in
:mod:`anabranch.media.janus`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from anabranch.core.errors import AnabranchError, UnavailableError, UsageError
from anabranch.host.process import Child


class LeafError(AnabranchError):
    """Base of what a leaf server raises."""


class OfferError(LeafError, UsageError):
    """The viewer's offer is malformed, or asks for what the site does not have."""


class LeafUnavailableError(LeafError, UnavailableError):
    """The leaf server is not there just now: it starts, or restarts after a crash."""


@dataclass(frozen=True, slots=True, order=True)
class Feed:
    """What a viewer watches: one rendition of a channel, with the channel's sound."""

    channel: str
    rendition: str


@dataclass(frozen=True, slots=True, order=True)
class Inlet:
    """Where a feed must be delivered at a leaf: UDP ports, ``audio_port`` 0 for none."""

    feed: Feed
    video_port: int
    audio_port: int


@dataclass(frozen=True, slots=True)
class Viewing:
    """A viewer's connection at a leaf: its identifier there and the SDP answer for the viewer."""

    id: str
    feed: Feed
    answer: str


@dataclass(frozen=True, slots=True)
class ViewerStatistics:
    """What the leaf knows of one viewer.

    ``packets_lost`` is a running count as the viewer reports it by RTCP, ``jitter_ms`` and
    ``rtt_ms`` are milliseconds or None before the first report, ``nacks`` counts requests for
    retransmission.
    """

    bytes_sent: int
    packets_sent: int
    packets_lost: int
    nacks: int
    jitter_ms: float | None
    rtt_ms: float | None


ViewingState = Literal["up", "gone"]


class LeafServer(Protocol):
    """One WebRTC server. ``on_viewing(id, state)`` and ``on_inlets()`` are set by the owner."""

    name: str
    on_viewing: Callable[[str, ViewingState], None]
    on_inlets: Callable[[], None]

    @property
    def child(self) -> Child | None:
        """Its process, if it is this process's child."""

    @property
    def ready(self) -> bool:
        """Whether viewers can be taken now."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def watch(self, feed: Feed, offer: str) -> Viewing:
        """Answer a viewer's SDP offer.

        Raises:
            OfferError: the offer cannot be answered; the message says why.
            LeafUnavailableError: try again, here or elsewhere.
        """

    async def change(self, viewing_id: str, feed: Feed) -> None:
        """Show a viewer another feed over the connection it has.

        Raises:
            LeafUnavailableError: there is no such viewer, or no longer, or it cannot be done.
        """

    async def statistics(self, viewing_id: str) -> ViewerStatistics | None:
        """Return a viewer's figures, or None if there is no such viewer."""

    async def close(self, viewing_id: str) -> None:
        """End a viewing; unknown identifiers are ignored."""

    def inlets(self) -> frozenset[Inlet]:
        """Return what must be delivered to this leaf now; changes are told by ``on_inlets``."""
