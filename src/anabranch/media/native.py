"""The leaf server of our own as a :class:`~anabranch.media.leaf.LeafServer`.

It has every stream once, whatever its viewers' payload types are, and changes a viewer's stream by
itself when the way to the viewer gets narrower or wider: then it tells, and what it needs for that
is delivered. Its protocol: docs/protocols/leaf.md.
"""

import asyncio
import secrets
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog

from anabranch.core.names import new_id
from anabranch.media import sdp_answer
from anabranch.media.answer_parts import MID
from anabranch.media.inlets import UNKNOWN_KBPS, Inlets
from anabranch.media.leaf import (
    Feed,
    Inlet,
    KeyFrame,
    Ladder,
    LeafBusyError,
    LeafError,
    LeafPlace,
    LeafUnavailableError,
    Rung,
    ViewerStatistics,
    Viewing,
    ViewingState,
)
from anabranch.media.leaf_client import LeafClient
from anabranch.media.leaf_protocol import (
    LeafEvent,
    LeafProtocolError,
    Message,
    RefusedError,
    integer,
    members,
    read_added,
    read_key_frame,
    text,
)
from anabranch.media.native_figures import Figures
from anabranch.media.native_process import LeafProcess
from anabranch.media.native_server import StreamServer, candidates_of
from anabranch.media.native_streams import Streams, until_added
from anabranch.media.rendition import AUDIO
from anabranch.media.sdp import parse_offer
from anabranch.media.sdp_answer import Agreement, Medium, ServerEnd

_NO_MID = "-"
"""What the server is told where no mid is sent: it wants one of 1 to 200 bytes."""
_log = structlog.get_logger("anabranch.leaf")


@dataclass(slots=True)
class _Viewer:
    """A viewer and the feed that it is shown."""

    feed: Feed


class NativeLeaf(StreamServer):
    """A leaf server of our own.

    Viewers' packets all arrive at the first of the place's media ports.

    Args:
        place: where it lives.
        threads: how many of them carry packets.
    """

    def __init__(self, place: LeafPlace, *, threads: int = 1) -> None:
        self.name = place.name
        self.on_viewing: Callable[[str, ViewingState], None] = lambda _id, _state: None
        self.on_inlets: Callable[[], None] = lambda: None
        self.on_shown: Callable[[str, Feed], None] = lambda _id, _feed: None
        self.on_key_frame: Callable[[Feed], None] = lambda _feed: None
        self._place = place
        self._viewers: dict[str, _Viewer] = {}
        self._recalled: frozenset[str] = frozenset()
        self._resumed = False
        first, last = place.inlet_ports
        inlets = Inlets(range(first, last + 1))
        self._told: frozenset[Inlet] = frozenset()
        self._expiry: asyncio.TimerHandle | None = None
        streams = Streams(inlets, place.inlet_interface, self._refresh)
        self._figures = Figures(self._ask_figures)
        process = LeafProcess(
            place,
            threads,
            on_event=self._event,
            resume=self._resume,
            on_cut=lambda: streams.follow(None),
            on_gone=self._gone,
        )
        super().__init__(process, inlets, streams)

    # --- life ---------------------------------------------------------------------------------

    async def stop(self) -> None:
        self._inlets.keep_warm(())
        await super().stop()

    async def _resume(self, client: LeafClient) -> None:
        """Go on with a server that may know of viewers and streams, or of none."""
        state = await client.request("state")
        recalled, self._recalled = self._recalled, frozenset()
        if self._process.adopted and not self._resumed:
            self._restore(state)
            for viewing_id, known in self._viewers.items():
                self._inlets.use(known.feed, viewing_id)
        self._resumed = True
        there = {text(each, "viewer"): each for each in members(state, "viewers")}
        for viewing_id in self._viewers.keys() - there.keys():
            self._forget(viewing_id)
        for stranger in there.keys() - self._viewers.keys():
            with suppress(RefusedError):
                await client.request("viewer.close", viewer=stranger)
        self._follow(client, state)
        for viewing_id, viewer in there.items():  # who may be shown something else by now
            if isinstance(number := viewer.get("stream"), int):
                self._shown(viewing_id, number)
            if viewing_id in recalled and viewer.get("state") == "up":
                self.on_viewing(viewing_id, "up")

    def _gone(self) -> None:
        """The process is gone and everything in it: forget all viewers, and say so."""
        for viewing_id in list(self._viewers):
            self._forget(viewing_id)
        self._inlets.leave_all()
        self._refresh()

    # --- viewers ------------------------------------------------------------------------------

    def recall(self, viewings: Mapping[str, Feed]) -> None:
        """See :class:`~anabranch.media.leaf.LeafServer`."""
        self._viewers = {viewing_id: _Viewer(feed) for viewing_id, feed in viewings.items()}
        self._recalled = frozenset(viewings)

    async def watch(
        self, feed: Feed, offer: str, *, ladder: Ladder = (), pinned: bool = False
    ) -> Viewing:
        """See :class:`~anabranch.media.leaf.LeafServer`."""
        wanted = parse_offer(offer)
        agreement = sdp_answer.agree(wanted)
        client = self._process.connected()
        viewing_id, cname = new_id(), new_id()
        self._use(feed, viewing_id, ladder)
        self._viewers[viewing_id] = _Viewer(feed)
        try:
            adding = self._streams.adding(feed)
            reply = await client.request(
                "viewer.add",
                viewer=viewing_id,
                remote={
                    "ufrag": wanted.ice_ufrag,
                    "pwd": wanted.ice_pwd,
                    "fingerprint": wanted.fingerprint,
                    "setup": "actpass",
                },
                cname=cname,
                **media_of(agreement),
                **self._shows(feed, ladder, pinned=pinned),
            )
            added = read_added(reply)
            await until_added(adding)
        except BaseException as error:
            # It may have been added all the same, after a time-out for example.
            self._spawn(self.close(viewing_id))
            if isinstance(error, RefusedError | LeafProtocolError):
                raise LeafUnavailableError(str(error)) from error
            raise
        end = ServerEnd(
            session_id=secrets.randbits(62),
            ufrag=added.ufrag,
            pwd=added.pwd,
            fingerprint=self._process.fingerprint,
            candidates=candidates_of(self._place),
            cname=cname,
            video_ssrc=added.video_ssrc,
            rtx_ssrc=added.rtx_ssrc,
            audio_ssrc=added.audio_ssrc,
        )
        return Viewing(viewing_id, feed, sdp_answer.answer(wanted, agreement, end))

    async def change(
        self, viewing_id: str, feed: Feed, *, ladder: Ladder = (), pinned: bool = False
    ) -> bool:
        """See :class:`~anabranch.media.leaf.LeafServer`."""
        viewer = self._viewers.get(viewing_id)
        if viewer is None:
            raise LeafUnavailableError(f"leaf {self.name} has no such viewer")
        client = self._process.connected()
        self._use(feed, viewing_id, ladder)
        try:
            reply = await client.request(
                "viewer.change",
                viewer=viewing_id,
                **self._shows(feed, ladder, pinned=pinned),
            )
        except BaseException as error:
            if feed != viewer.feed:
                self._leave(feed, viewing_id)
            if isinstance(error, RefusedError):
                kind = LeafBusyError if error.code == "busy" else LeafUnavailableError
                raise kind(str(error)) from error
            raise
        self._show(viewing_id, viewer, feed)
        return bool(reply.get("waits"))

    async def statistics(self, viewing_id: str) -> ViewerStatistics | None:
        """See :class:`~anabranch.media.leaf.LeafServer`."""
        if viewing_id not in self._viewers:
            return None
        return await self._figures.of(viewing_id)

    async def key_frame(self, feed: Feed) -> KeyFrame | None:
        """See :class:`~anabranch.media.leaf.LeafServer`."""
        if feed not in {inlet.feed for inlet in self._inlets.inlets()}:
            return None
        number = self._inlets.number(feed)
        with suppress(LeafError):  # it starts, or the stream is on its way there
            reply = await self._process.connected().request("stream.key_frame", stream=number)
            return read_key_frame(reply)
        return None

    async def close(self, viewing_id: str) -> None:
        """See :class:`~anabranch.media.leaf.LeafServer`."""
        if viewing_id in self._viewers:
            with suppress(LeafError):
                await self._process.connected().request("viewer.close", viewer=viewing_id)
        self._forget(viewing_id)

    def keep_warm(self, ladder: Collection[Rung]) -> None:
        """See :class:`~anabranch.media.leaf.LeafServer`."""
        self._inlets.keep_warm(ladder)
        self._refresh()

    def _shows(self, feed: Feed, ladder: Ladder, *, pinned: bool) -> Message:
        """Return what a viewer is shown, as the server is told."""
        rungs = sorted(ladder, key=lambda rung: rung.kbps, reverse=True)
        if feed not in [rung.feed for rung in rungs]:
            rungs = [Rung(feed, UNKNOWN_KBPS)]
        return {
            "group": feed.channel,
            "ladder": [
                {"stream": self._inlets.number(rung.feed), "kbps": rung.kbps} for rung in rungs
            ],
            "sound": self._inlets.number(Feed(feed.channel, AUDIO)),
            "start": [rung.feed for rung in rungs].index(feed),
            "pinned": pinned,
        }

    async def _ask_figures(self, viewing_id: str | None) -> Message:
        which = {} if viewing_id is None else {"viewer": viewing_id}
        reply = await self._process.connected().request("viewer.statistics", **which)
        found = reply.get("viewers")
        return found if isinstance(found, dict) else {}

    def _forget(self, viewing_id: str) -> None:
        viewer = self._viewers.pop(viewing_id, None)
        if viewer is not None:
            self._leave(viewer.feed, viewing_id)
            self.on_viewing(viewing_id, "gone")

    # --- feeds --------------------------------------------------------------------------------

    def _use(self, feed: Feed, viewing_id: str, ladder: Ladder) -> None:
        self._inlets.learn(ladder)
        self._inlets.use(feed, viewing_id)
        self._refresh()

    def _leave(self, feed: Feed, viewing_id: str) -> None:
        self._inlets.leave(feed, viewing_id, asyncio.get_running_loop().time())
        self._refresh()

    def _show(self, viewing_id: str, viewer: _Viewer, feed: Feed) -> None:
        """Note that a viewer is shown a feed that is delivered for it."""
        before, viewer.feed = viewer.feed, feed
        if before != feed:
            self._leave(before, viewing_id)
        if self._viewers.get(viewing_id) is not viewer:  # gone meanwhile
            self._leave(feed, viewing_id)

    def _shown(self, viewing_id: str, number: int) -> None:
        """Note that the server itself shows a viewer another rendition."""
        viewer, feed = self._viewers.get(viewing_id), self._inlets.feed(number)
        if viewer is None or feed is None or feed == viewer.feed:
            return
        self._use(feed, viewing_id, ())
        self._show(viewing_id, viewer, feed)
        self.on_shown(viewing_id, feed)

    def _refresh(self) -> None:
        """Have the inlets be what is wanted now: here, at the server, and in the network."""
        loop = asyncio.get_running_loop()
        self._inlets.expire(loop.time())
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if (due := self._inlets.due()) is not None:
            self._expiry = loop.call_at(due, self._refresh)
        self._streams.apply()
        inlets = self._inlets.inlets()
        if inlets != self._told:
            self._told = inlets
            self.on_inlets()

    # --- what the server says -----------------------------------------------------------------

    def _event(self, event: LeafEvent) -> None:
        try:
            self._heed(event)
        except LeafProtocolError as error:
            _log.error("leaf.nonsense", leaf=self.name, kind=event.kind, error=str(error))
        except LeafUnavailableError as error:
            _log.warning("leaf.full", leaf=self.name, error=str(error))

    def _heed(self, event: LeafEvent) -> None:
        fields = event.fields
        match event.kind:
            case "viewer.up":
                if (viewing_id := text(fields, "viewer")) in self._viewers:
                    self.on_viewing(viewing_id, "up")
            case "viewer.gone":
                viewing_id = text(fields, "viewer")
                _log.info("viewer.gone", leaf=self.name, viewing=viewing_id, why=fields.get("why"))
                self._forget(viewing_id)
            case "viewer.stream":
                self._shown(text(fields, "viewer"), integer(fields, "stream"))
            case "stream.wanted":
                if (feed := self._inlets.feed(integer(fields, "stream"))) is not None:
                    self._inlets.try_out(feed, asyncio.get_running_loop().time())
                    self._refresh()
            case "key_frame.wanted":
                if (feed := self._inlets.feed(integer(fields, "stream"))) is not None:
                    self.on_key_frame(feed)
            case "stream.overflow":
                feed = self._inlets.feed(integer(fields, "stream"))
                _log.warning(
                    "stream.overflow", leaf=self.name, feed=feed, bytes=fields.get("bytes")
                )


def media_of(agreement: Agreement) -> Message:
    """Return what was agreed on as members of ``viewer.add``."""
    media = {"video": _medium(agreement.video)}
    if agreement.audio is not None:
        media["audio"] = _medium(agreement.audio)
    return media


def _medium(medium: Medium) -> Message:
    rtx = {"rtx_payload_type": medium.rtx} if medium.rtx is not None else {}
    return {
        "payload_type": medium.codec.payload_type,
        **rtx,
        "mid": medium.mid if MID in medium.extensions else _NO_MID,
        "extensions": {name: extension.id for name, extension in medium.extensions.items()},
    }
