"""The contract of a leaf server: the WebRTC process that viewers connect to.

Everything above it (seats, WHEP, carriage) speaks only this. Fulfilled by Debian's Janus in
:mod:`anabranch.media.janus` and by the server of our own in :mod:`anabranch.media.native`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from anabranch.core.errors import AnabranchError, TooManyError, UnavailableError, UsageError
from anabranch.host.process import Child


class LeafError(AnabranchError):
    """Base of what a leaf server raises."""


class OfferError(LeafError, UsageError):
    """The viewer's offer is malformed, or asks for what the site does not have."""


class LeafUnavailableError(LeafError, UnavailableError):
    """The leaf server is not there just now: it starts, or restarts after a crash."""


class LeafBusyError(LeafError, TooManyError):
    """The viewer asks for changes faster than they are carried out."""


@dataclass(frozen=True, slots=True)
class LeafPlace:
    """Where one leaf server lives.

    Attributes:
        name: the leaf's name.
        directory: its own run directory (kept short: Unix socket paths end at 107 bytes).
        run_id: mark of the site's children.
        netns: network namespace, or None.
        media_addresses: local addresses offered to viewers as ICE candidates.
        public_addresses: addresses that other computers reach it by, if any.
        inner_addresses: local addresses to which what comes for public ones is forwarded; viewers
            are not told of them.
        media_ports: first and last UDP port for viewers.
        inlet_interface: local address on which feeds arrive; Janus takes a device's name, too.
        inlet_ports: first and last UDP port for feeds.
    """

    name: str
    directory: Path
    run_id: str
    netns: str | None
    media_addresses: tuple[str, ...]
    public_addresses: tuple[str, ...]
    media_ports: tuple[int, int]
    inlet_interface: str
    inlet_ports: tuple[int, int]
    inner_addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Feed:
    """What a viewer watches: one rendition of a channel, with the channel's sound."""

    channel: str
    rendition: str


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of a ladder: a rendition of a channel and its bitrate in kbit/s."""

    feed: Feed
    kbps: int


Ladder = Sequence[Rung]
"""The renditions between which a leaf may choose for a viewer, the highest bitrate first."""


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


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """A key frame of a feed.

    Attributes:
        annex_b: H.264 as a byte stream (ITU-T H.264 Annex B), its parameter sets included.
        age_s: seconds since it came.
    """

    annex_b: bytes
    age_s: float


ViewingState = Literal["up", "gone"]
LeafKind = Literal["janus", "anabranch"]
"""Debian's Janus, or the server of our own."""


class LeafServer(Protocol):
    """One WebRTC server. Its owner sets what it calls when something happens.

    Attributes:
        on_viewing: ``(viewing_id, state)``: a viewer is connected, or has gone.
        on_inlets: :meth:`inlets` has changed.
        on_shown: ``(viewing_id, feed)``: the leaf itself shows a viewer another rendition.
        on_key_frame: ``(feed)``: somebody sees nothing of a feed before its next key frame.
    """

    name: str
    on_viewing: Callable[[str, ViewingState], None]
    on_inlets: Callable[[], None]
    on_shown: Callable[[str, Feed], None]
    on_key_frame: Callable[[Feed], None]

    @property
    def child(self) -> Child | None:
        """Its process, if it is this process's child."""

    @property
    def ready(self) -> bool:
        """Whether viewers can be taken now."""

    def recall(self, viewings: Mapping[str, Feed]) -> None:
        """Know of viewings that an earlier director had here; call it before :meth:`start`.

        Those that are not there any more are told as gone, others that are there end.
        """

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def watch(
        self, feed: Feed, offer: str, *, ladder: Ladder = (), pinned: bool = False
    ) -> Viewing:
        """Answer a viewer's SDP offer.

        Args:
            feed: what is shown first.
            offer: the offer.
            ladder: what may be shown instead, as the viewer's way in allows; empty: nothing else.
            pinned: the viewer asked for this rendition: it stays.

        Raises:
            OfferError: the offer cannot be answered; the message says why.
            LeafUnavailableError: try again, here or elsewhere.
        """

    async def change(
        self, viewing_id: str, feed: Feed, *, ladder: Ladder = (), pinned: bool = False
    ) -> bool:
        """Show a viewer another feed over the connection it has; arguments as :meth:`watch`.

        Returns whether nothing of it can be shown before its next key frame.

        Raises:
            LeafBusyError: the viewer asks for too many changes.
            LeafUnavailableError: there is no such viewer, or no longer, or it cannot be done.
        """

    async def statistics(self, viewing_id: str) -> ViewerStatistics | None:
        """Return a viewer's figures, or None if there is no such viewer."""

    async def key_frame(self, feed: Feed) -> KeyFrame | None:
        """Return the newest key frame of a feed, or None if none is at hand."""

    async def close(self, viewing_id: str) -> None:
        """End a viewing; unknown identifiers are ignored."""

    def keep_warm(self, ladder: Collection[Rung]) -> None:
        """Have exactly these feeds delivered and at hand though nobody watches, if it can."""

    def inlets(self) -> frozenset[Inlet]:
        """Return what must be delivered to this leaf now; changes are told by ``on_inlets``."""
