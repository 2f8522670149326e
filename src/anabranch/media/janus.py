"""Debian's Janus as a leaf server: its streaming plugin, one mountpoint per feed.

A mountpoint exists only while somebody watches it (and a moment longer, for zapping): the
inlets that the network must serve are exactly the mountpoints. A viewer's offer names the
payload types it wants; the plugin sends a mountpoint's packets with the mountpoint's own, so
viewers of one feed with different payload types sit on different mountpoints.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from anabranch.core.errors import AnabranchError
from anabranch.host.process import Child, ChildSpec
from anabranch.media import janus_sdp
from anabranch.media.janus_client import JanusClient, JanusError, Message, number_of, within
from anabranch.media.janus_config import write_configuration
from anabranch.media.janus_figures import read_handle_info
from anabranch.media.leaf import (
    Feed,
    Inlet,
    KeyFrame,
    Ladder,
    LeafError,
    LeafPlace,
    LeafUnavailableError,
    OfferError,
    Rung,
    ViewerStatistics,
    Viewing,
    ViewingState,
)
from anabranch.media.sdp import parse_offer

_PLUGIN = "janus.plugin.streaming"
_HOLD = 3.0
"""Seconds that a mountpoint outlives its last viewer."""
_HANGS_AFTER = 5.0
"""Seconds in which a Janus that was just started must answer: now and then one hangs then."""
_SETUP_LIMIT = 15.0
"""Seconds in which a viewer must have connected, or its seat is given up."""
_START_LIMIT = 20.0
"""Seconds in which Janus must have come up at the site's start."""
_SILENCE_CHECK = 3.0
"""Seconds between two looks at who is still heard of; the kernel forgets a viewer after 8."""
_MAX_VARIANTS = 6
"""Mountpoints of one feed, each for other payload types; real players need two or three."""
_log = structlog.get_logger("anabranch.leaf")


_Key = tuple[Feed, int, int | None]  # with the payload types of picture and sound


@dataclass(slots=True)
class _Mountpoint:
    key: _Key
    number: int
    inlet: Inlet
    viewers: set[str] = field(default_factory=set)
    expiry: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class _Viewer:
    handle: int
    mountpoint: _Mountpoint
    port: int | None
    deadline: asyncio.TimerHandle | None = None
    up_since: float | None = None


class JanusLeaf:
    """A :class:`~anabranch.media.leaf.LeafServer` on Janus.

    ``heard()`` returns the media ports on which anything arrived in the last seconds: an ICE-lite
    Janus does not notice a viewer that vanished without a word. Without it such a viewer keeps
    its seat.
    """

    def __init__(
        self,
        place: LeafPlace,
        *,
        heard: Callable[[], Awaitable[frozenset[int]]] | None = None,
    ) -> None:
        self.name = place.name
        self.on_viewing: Callable[[str, ViewingState], None] = lambda _id, _state: None
        self.on_inlets: Callable[[], None] = lambda: None
        self.on_shown: Callable[[str, Feed], None] = lambda _id, _feed: None
        self.on_key_frame: Callable[[Feed], None] = lambda _feed: None
        self._place = place
        self._heard = heard
        self._child: Child | None = None
        self._client: JanusClient | None = None
        self._admin: JanusClient | None = None
        self._control: int = 0
        self._connector: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._mountpoints: dict[_Key, _Mountpoint] = {}
        self._creating = asyncio.Lock()
        self._viewers: dict[str, _Viewer] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._admin_secret = secrets.token_urlsafe(24)

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    @property
    def child(self) -> Child | None:
        """The supervised process, once started."""
        return self._child

    def recall(self, viewings: Mapping[str, Feed]) -> None:
        """See :class:`~anabranch.media.leaf.LeafServer`: its viewings end with their director."""
        for viewing_id in viewings:
            self.on_viewing(viewing_id, "gone")

    async def start(self) -> None:
        """Write the configuration, start Janus and wait until it takes viewers."""
        write_configuration(self._place, self._admin_secret)
        directory = self._place.directory
        self._child = Child(
            ChildSpec(
                name=f"janus:{self.name}",
                argv=("janus", "-F", str(directory), "-C", str(directory / "janus.jcfg")),
                netns=self._place.netns,
                secrets=(self._admin_secret,),
                # Janus 1.1.2 ends about every fourth start ("No Janus API transport is
                # available"): its Unix socket thread may run before the flag it obeys is set.
                first_delay=0.02,
                max_delay=0.5,
            ),
            self._place.run_id,
            on_start=lambda _pid: self._begin_connecting(),
            on_exit=lambda _code: self._remove_sockets(),
        )
        await self._child.start()
        if self._heard is not None:
            self._spawn(self._watch_over(self._heard))
        try:
            await asyncio.wait_for(self._ready.wait(), _START_LIMIT)
        except TimeoutError:
            last = self._child.last_lines[-1] if self._child.last_lines else "no output"
            raise LeafUnavailableError(f"Janus of {self.name} does not come up: {last}") from None

    async def stop(self) -> None:
        if self._connector is not None:
            self._connector.cancel()
            await asyncio.gather(self._connector, return_exceptions=True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in (self._client, self._admin):
            if client is not None:
                await client.close()
        self._lost()
        if self._child is not None:
            await self._child.stop()

    def inlets(self) -> frozenset[Inlet]:
        return frozenset(mountpoint.inlet for mountpoint in self._mountpoints.values())

    def keep_warm(self, ladder: Collection[Rung]) -> None:
        """Do nothing: a mountpoint keeps no key frame for who comes later."""

    async def watch(
        self, feed: Feed, offer: str, *, ladder: Ladder = (), pinned: bool = False
    ) -> Viewing:
        """See :class:`~anabranch.media.leaf.LeafServer`; a viewer stays at its feed."""
        wanted = parse_offer(offer)
        client = self._client
        if client is None or not self.ready:
            raise LeafUnavailableError(f"leaf {self.name} is starting; try again")
        handle = await self._attach(client)
        viewing_id = str(handle)
        try:
            audio = wanted.audio_codec.payload_type if wanted.audio_codec else None
            key = (feed, wanted.video_codec.payload_type, audio)
            mountpoint = await self._join(client, key, viewing_id)
            asked = await client.plugin(handle, {"request": "watch", "id": mountpoint.number})
            theirs = within(asked, "jsep").get("sdp")
            if not isinstance(theirs, str):
                raise LeafUnavailableError("Janus made no offer")
            answer = {"type": "answer", "sdp": janus_sdp.answer_for_server(wanted, theirs)}
            await client.plugin(handle, {"request": "start"}, answer)
        except JanusError as error:
            await self._discard(client, handle, viewing_id)
            # 465 and 466: its parser refuses what the viewer sent, relayed in our answer.
            kind = OfferError if error.code in (465, 466) else LeafUnavailableError
            raise kind(str(error)) from error
        except BaseException:
            await self._discard(client, handle, viewing_id)
            raise
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(_SETUP_LIMIT, self._give_up, viewing_id)
        port = janus_sdp.media_port(theirs)
        self._viewers[viewing_id] = _Viewer(handle, mountpoint, port, deadline)
        return Viewing(viewing_id, feed, janus_sdp.answer_for_viewer(wanted, theirs))

    async def change(
        self, viewing_id: str, feed: Feed, *, ladder: Ladder = (), pinned: bool = False
    ) -> bool:
        """See :class:`~anabranch.media.leaf.LeafServer`; a viewer stays at its feed."""
        client, viewer = self._client, self._viewers.get(viewing_id)
        if client is None or viewer is None:
            raise LeafUnavailableError(f"leaf {self.name} has no such viewer")
        present, video, audio = viewer.mountpoint.key
        if present == feed:
            return False
        mountpoint = await self._join(client, (feed, video, audio), viewing_id)
        try:
            await client.plugin(viewer.handle, {"request": "switch", "id": mountpoint.number})
        except BaseException as error:
            self._leave(mountpoint, viewing_id)
            if isinstance(error, JanusError):
                raise LeafUnavailableError(str(error)) from error
            raise
        before, viewer.mountpoint = viewer.mountpoint, mountpoint
        if before is not mountpoint:
            self._leave(before, viewing_id)
        if viewing_id not in self._viewers:  # gone meanwhile
            self._leave(mountpoint, viewing_id)
        self.on_key_frame(feed)
        return True

    async def statistics(self, viewing_id: str) -> ViewerStatistics | None:
        """See :class:`~anabranch.media.leaf.LeafServer`."""
        viewer = self._viewers.get(viewing_id)
        if viewer is None or self._admin is None:
            return None
        try:
            answer = await self._admin.request(
                janus="handle_info",
                admin_secret=self._admin_secret,
                session_id=self._session_of(),
                handle_id=viewer.handle,
            )
        except LeafError:
            return None
        return read_handle_info(within(answer, "info"))

    async def key_frame(self, _feed: Feed) -> KeyFrame | None:
        """See :class:`~anabranch.media.leaf.LeafServer`: Janus keeps none that can be asked for."""
        return None

    async def close(self, viewing_id: str) -> None:
        """See :class:`~anabranch.media.leaf.LeafServer`."""
        if (viewer := self._viewers.get(viewing_id)) is not None and self._client is not None:
            with suppress(LeafError):
                await self._client.request(janus="detach", handle_id=viewer.handle)
        self._forget(viewing_id)

    def _session_of(self) -> int | None:
        return self._client.session if self._client else None

    async def _attach(self, client: JanusClient) -> int:
        return number_of(await client.request(janus="attach", plugin=_PLUGIN))

    async def _join(self, client: JanusClient, key: _Key, viewing_id: str) -> _Mountpoint:
        """Put a viewer on the mountpoint of its feed and payload types, making it if needed."""
        async with self._creating:  # two first viewers must not make it twice
            mountpoint = self._mountpoints.get(key)
            if mountpoint is None:
                await self._make_room(client, key[0])
                mountpoint = await self._create(client, key)
                self._mountpoints[key] = mountpoint
                self.on_inlets()
            mountpoint.viewers.add(viewing_id)
            if mountpoint.expiry is not None:
                mountpoint.expiry.cancel()
                mountpoint.expiry = None
        return mountpoint

    async def _create(self, client: JanusClient, key: _Key) -> _Mountpoint:
        feed, video_type, audio_type = key
        video_port, audio_port = self._free_ports()
        interface = self._place.inlet_interface
        media: list[Message] = [
            {
                "type": "video",
                "mid": "v",
                "port": video_port,
                "pt": video_type,
                "codec": "h264",
                "fmtp": "profile-level-id=42e01f;packetization-mode=1",
                "iface": interface,
            }
        ]
        if audio_type is not None:
            media.append(
                {
                    "type": "audio",
                    "mid": "a",
                    "port": audio_port,
                    "pt": audio_type,
                    "codec": "opus",
                    "iface": interface,
                }
            )
        number = next(self._numbers)
        body = {
            "request": "create",
            "type": "rtp",
            "id": number,
            "name": f"{feed.channel}/{feed.rendition}",
            "permanent": False,
            "media": media,
        }
        try:
            await client.plugin(self._control, body)
        except BaseException:
            # It may have been made all the same, after a time-out for example.
            self._spawn(self._destroy(client, number))
            raise
        inlet = Inlet(feed, video_port, audio_port if audio_type is not None else 0)
        return _Mountpoint(key, number, inlet)

    async def _make_room(self, client: JanusClient, feed: Feed) -> None:
        """See that a feed does not get ever more mountpoints by offers with ever other types."""
        variants = {k: m for k, m in self._mountpoints.items() if k[0] == feed}
        if len(variants) < _MAX_VARIANTS:
            return
        for key, mountpoint in variants.items():
            if all(self._is_pending(viewer) for viewer in mountpoint.viewers):
                del self._mountpoints[key]
                if mountpoint.expiry is not None:
                    mountpoint.expiry.cancel()
                for viewer in mountpoint.viewers:
                    self._spawn(self.close(viewer))
                await self._destroy(client, mountpoint.number)
                self.on_inlets()
                return
        raise LeafUnavailableError(f"too many kinds of players watch {feed.channel} just now")

    def _is_pending(self, viewing_id: str) -> bool:
        viewer = self._viewers.get(viewing_id)
        return viewer is None or viewer.up_since is None

    async def _destroy(self, client: JanusClient, number: int) -> None:
        with suppress(LeafError):
            await client.plugin(self._control, {"request": "destroy", "id": number})

    def _free_ports(self) -> tuple[int, int]:
        used = {mountpoint.inlet.video_port for mountpoint in self._mountpoints.values()}
        first, last = self._place.inlet_ports
        for port in range(first, last, 2):
            if port not in used:
                return port, port + 1
        raise LeafUnavailableError(f"leaf {self.name} has no inlet port left ({first} to {last})")

    async def _discard(self, client: JanusClient, handle: int, viewing_id: str) -> None:
        with suppress(LeafError):
            await client.request(janus="detach", handle_id=handle)
        for mountpoint in self._mountpoints.values():
            self._leave(mountpoint, viewing_id)

    def _give_up(self, viewing_id: str) -> None:
        _log.info("viewer.never_connected", leaf=self.name, viewing=viewing_id)
        self._spawn(self.close(viewing_id))

    def _forget(self, viewing_id: str) -> None:
        viewer = self._viewers.pop(viewing_id, None)
        if viewer is None:
            return
        if viewer.deadline is not None:
            viewer.deadline.cancel()
        self._leave(viewer.mountpoint, viewing_id)
        self.on_viewing(viewing_id, "gone")

    def _leave(self, mountpoint: _Mountpoint, viewing_id: str) -> None:
        if viewing_id in mountpoint.viewers:
            mountpoint.viewers.discard(viewing_id)
            if not mountpoint.viewers:
                loop = asyncio.get_running_loop()
                mountpoint.expiry = loop.call_later(
                    _HOLD, lambda: self._spawn(self._expire(mountpoint))
                )

    async def _expire(self, mountpoint: _Mountpoint) -> None:
        async with self._creating:
            if mountpoint.viewers:
                return
            for key, candidate in list(self._mountpoints.items()):
                if candidate is mountpoint:
                    del self._mountpoints[key]
                    self.on_inlets()
            if self._client is not None:
                await self._destroy(self._client, mountpoint.number)

    async def _watch_over(self, heard: Callable[[], Awaitable[frozenset[int]]]) -> None:
        """End the viewings of viewers that have fallen silent, for ever."""
        while True:
            await asyncio.sleep(_SILENCE_CHECK)
            before = time.monotonic() - 2 * _SILENCE_CHECK
            settled = {
                viewing_id: viewer.port
                for viewing_id, viewer in self._viewers.items()
                if viewer.up_since is not None and viewer.up_since < before
            }
            if not settled:
                continue
            try:
                ports = await heard()
            except AnabranchError as error:
                _log.warning("leaf.deaf", leaf=self.name, error=str(error))
                continue
            for viewing_id, port in settled.items():
                if port is not None and port not in ports:
                    _log.info("viewer.silent", leaf=self.name, viewing=viewing_id)
                    self._spawn(self.close(viewing_id))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin_connecting(self) -> None:
        if self._connector is not None:
            self._connector.cancel()
        self._connector = asyncio.create_task(self._connect(), name=f"janus-connect:{self.name}")

    async def _connect(self) -> None:
        """Connect to a Janus that has just been started; end one that does not come to listen."""
        directory = self._place.directory
        self._lost()
        deadline = time.monotonic() + _HANGS_AFTER
        while time.monotonic() < deadline:
            client = JanusClient(
                directory / "api.sock", on_event=self._event, on_lost=self._client_lost
            )
            admin = JanusClient(
                directory / "admin.sock", on_event=lambda _message: None, on_lost=lambda: None
            )
            try:
                await client.connect(session=True)
                await admin.connect(session=False)
                self._control = await self._attach(client)
            except LeafError:
                await client.close()
                await admin.close()
                await asyncio.sleep(0.05)
                continue
            self._client, self._admin = client, admin
            self._ready.set()
            return
        _log.warning("leaf.hangs", leaf=self.name)
        assert self._child is not None
        self._child.kill()  # supervision starts a fresh one

    def _client_lost(self) -> None:
        _log.warning("leaf.lost", leaf=self.name)
        self._lost()
        if self._child is not None:
            self._child.kill()  # if it still runs, it hangs: supervision starts a fresh one

    def _remove_sockets(self) -> None:
        for name in ("api.sock", "admin.sock"):
            (self._place.directory / name).unlink(missing_ok=True)

    def _lost(self) -> None:
        """Janus is gone and everything in it: forget viewers and mountpoints, and say so."""
        self._ready.clear()
        self._client = None
        self._admin = None
        for mountpoint in self._mountpoints.values():
            if mountpoint.expiry is not None:
                mountpoint.expiry.cancel()
        had_inlets = bool(self._mountpoints)
        self._mountpoints.clear()
        for viewing_id in list(self._viewers):
            viewer = self._viewers.pop(viewing_id)
            if viewer.deadline is not None:
                viewer.deadline.cancel()
            self.on_viewing(viewing_id, "gone")
        if had_inlets:
            self.on_inlets()

    def _event(self, message: Message) -> None:
        viewing_id = str(message.get("sender", ""))
        viewer = self._viewers.get(viewing_id)
        if viewer is None:
            return
        match message.get("janus"):
            case "webrtcup":
                if viewer.deadline is not None:
                    viewer.deadline.cancel()
                    viewer.deadline = None
                viewer.up_since = time.monotonic()
                self.on_viewing(viewing_id, "up")
                self.on_key_frame(viewer.mountpoint.key[0])
            case "hangup" | "detached":
                self._spawn(self.close(viewing_id))
