"""Two leaf servers with one address and one identity: a viewer's connection goes to and fro.

Each of them gets the same streams of a real encoder, under numbers of its own.
"""

import asyncio
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from anabranch.app.bench.takeover_switch import (
    INLET_PORTS,
    LEAF_ADDRESS,
    LEAVES,
    MEDIA_PORT,
    TakeoverSwitch,
)
from anabranch.core.errors import UnavailableError
from anabranch.core.names import new_id
from anabranch.host.journal import Journal
from anabranch.media import sdp_answer
from anabranch.media.answer_parts import Candidate
from anabranch.media.encoder import Encoder, EncoderConfig
from anabranch.media.ingest import Ingest
from anabranch.media.leaf import LeafPlace
from anabranch.media.leaf_client import LeafClient
from anabranch.media.leaf_protocol import LeafEvent, Message, integer, members, read_added
from anabranch.media.native import media_of
from anabranch.media.native_process import LeafProcess
from anabranch.media.rendition import AUDIO, Format, Rendition
from anabranch.media.sdp import parse_offer
from anabranch.media.sdp_answer import ServerEnd
from anabranch.media.source_text import parse_source

SNAPSHOT_S = 0.5
JUMP = 1024
"""More numbers than are sent between two snapshots, at up to 10 Mbit/s."""
_RENDITION = Rendition("high", 640, 360, 1000)
_GOP_S = 2.0
_LIMIT_S = 15.0


class Half:
    """One of the two leaf servers.

    Attributes:
        process: it, supervised.
        up: viewers that have connected to it or were taken over, and are there.
    """

    def __init__(self, leaf: str, directory: Path, run_id: str, netns: str) -> None:
        self.name = leaf
        first = 100 * LEAVES.index(leaf)
        self.video, self.audio = first + 1, first + 2
        self.up: set[str] = set()
        self.key_frame_wanted: Callable[[], None] = lambda: None
        place = LeafPlace(
            name=leaf,
            directory=directory,
            run_id=run_id,
            netns=netns,
            media_addresses=(LEAF_ADDRESS,),
            public_addresses=(),
            media_ports=(MEDIA_PORT, MEDIA_PORT),
            inlet_interface=LEAF_ADDRESS,
            inlet_ports=INLET_PORTS,
        )
        self.process = LeafProcess(
            place,
            1,
            on_event=self._event,
            resume=self._resume,
            on_cut=lambda: None,
            on_gone=self.up.clear,
        )

    async def start(self, stack: AsyncExitStack) -> None:
        """Start it, to be stopped by ``stack``. Raises LeafUnavailableError."""
        stack.push_async_callback(self.process.stop)
        await self.process.start()

    async def request(self, do: str, **fields: object) -> Message:
        """Ask it.

        Raises:
            RefusedError: it refused.
            LeafUnavailableError: it is not there.
        """
        return await self.process.connected().request(do, **fields)

    def shows(self) -> Message:
        """Return what a viewer is shown, in its numbers."""
        rung = {"stream": self.video, "kbps": _RENDITION.bitrate_kbps}
        return {"ladder": [rung], "sound": self.audio}

    async def take(self, viewer: str, state: Message, jump: int = 0) -> None:
        """Go on with a viewer of the other one. Raises as :meth:`request`."""
        await self.request("viewer.import", state=state, jump=jump, **self.shows())
        self.up.add(viewer)

    async def ring_filled(self) -> None:
        """Wait until it is there and has a key frame.

        Raises:
            UnavailableError: that does not happen.
        """
        await until(lambda: self.process.ready, f"leaf server {self.name}")
        while not await self._has_key_frame():  # noqa: ASYNC110  # the server does not tell
            await asyncio.sleep(0.05)

    async def _has_key_frame(self) -> bool:
        streams = (await self.request("statistics"))["streams"]
        return streams.get(str(self.video), {}).get("key_frame_age_ms") is not None

    async def _resume(self, client: LeafClient) -> None:
        state = await client.request("state")
        there = {integer(each, "stream") for each in members(state, "streams")}
        for number, kind, port in zip(
            (self.video, self.audio), ("video", "audio"), INLET_PORTS, strict=True
        ):
            if number not in there:
                await client.request(
                    *("stream.add",),
                    stream=number,
                    kind=kind,
                    address=LEAF_ADDRESS,
                    port=port,
                    name=kind,
                    group="test",
                    clock=90000 if kind == "video" else 48000,
                    kbps=_RENDITION.bitrate_kbps if kind == "video" else 64,
                )

    def _event(self, event: LeafEvent) -> None:
        match event.kind:
            case "viewer.up":
                self.up.add(event.fields["viewer"])
            case "viewer.gone":
                self.up.discard(event.fields["viewer"])
            case "key_frame.wanted":
                self.key_frame_wanted()


class Pair:
    """Both of them, behind one switch.

    Attributes:
        device: where the viewer's side of the switch is, in this machine's own network.
        serving: the one that the viewer is led to.
        spare: the other one.
    """

    def __init__(self, switch: TakeoverSwitch, halves: tuple[Half, Half]) -> None:
        self.device = switch.device
        self.serving, self.spare = halves
        self._switch = switch

    async def watch(self, offer: str) -> tuple[str, str]:
        """Take a viewer; return its name and the answer to its offer.

        Raises:
            OfferError: the offer cannot be answered.
            LeafError: the leaf server does not take it.
        """
        half, viewer, cname = self.serving, new_id(), new_id()
        wanted = parse_offer(offer)
        agreement = sdp_answer.agree(wanted)
        remote = {
            "ufrag": wanted.ice_ufrag,
            "pwd": wanted.ice_pwd,
            "fingerprint": wanted.fingerprint,
            "setup": "actpass",
        }
        added = read_added(
            await half.request(
                "viewer.add",
                viewer=viewer,
                remote=remote,
                cname=cname,
                group="test",
                start=0,
                pinned=False,
                **media_of(agreement),
                **half.shows(),
            )
        )
        end = ServerEnd(
            session_id=secrets.randbits(62),
            ufrag=added.ufrag,
            pwd=added.pwd,
            fingerprint=half.process.fingerprint,
            candidates=[Candidate(LEAF_ADDRESS, MEDIA_PORT)],
            cname=cname,
            video_ssrc=added.video_ssrc,
            rtx_ssrc=added.rtx_ssrc,
            audio_ssrc=added.audio_ssrc,
        )
        return viewer, sdp_answer.answer(wanted, agreement, end)

    async def until_up(self, viewer: str) -> None:
        """Wait until a viewer is connected.

        Raises:
            UnavailableError: it does not connect.
        """
        await until(lambda: viewer in self.serving.up, "the viewer's connection")

    async def move(self, viewer: str) -> None:
        """Move a viewer to the spare one, which serves from then on.

        The way out of the spare one is opened first, when nothing comes of it yet: so only export
        and import are between the last packet here and the first there. What the viewer sends
        meanwhile is lost: reports and checks, which it sends again.

        Raises:
            LeafError, FabricError: it does not work; the viewer may be at neither.
        """
        old, new = self.serving, self.spare
        await self._switch.lead(old.name, LEAVES)
        state = (await old.request("viewer.export", viewer=viewer))["state"]
        await new.take(viewer, state)
        await self._switch.lead(new.name, {new.name})
        self.serving, self.spare = new, old

    async def snapshot(self, viewer: str) -> Message:
        """Return a viewer's state, which goes on here. Raises LeafError."""
        reply = await self.serving.request("viewer.snapshot", viewer=viewer)
        state: Message = reply["state"]
        return state

    async def rescue(self, viewer: str, snapshot: Message) -> None:
        """Move a viewer to the spare one, the serving one being dead.

        First the switch shuts the dead one's way out: it might live after all, and both would use
        the same numbers with the same key.

        Raises:
            LeafError, FabricError: it does not work.
        """
        old, new = self.serving, self.spare
        await self._switch.lead(new.name, {new.name})
        await new.take(viewer, snapshot, JUMP)
        self.serving, self.spare = new, old

    async def whole_again(self) -> None:
        """Wait until both are there and have a key frame.

        Raises:
            UnavailableError: that does not happen.
        """
        for half in (self.serving, self.spare):
            await half.ring_filled()


@asynccontextmanager
async def running_pair() -> AsyncIterator[Pair]:
    """Give a pair with a picture that moves and sound; remove everything afterwards.

    Raises:
        UnavailableError: this is not root.
        LeafUnavailableError: the leaf server is not installed, or does not come up.
    """
    if os.geteuid() != 0:
        raise UnavailableError("this needs root: it makes network namespaces")
    # Short: Unix socket paths end at 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="abm", dir="/tmp"))
    run_id, prefix = f"bench-{new_id()}", f"abm{secrets.token_hex(3)}"
    switch = TakeoverSwitch(prefix, directory / "switch", run_id)
    first, second = (
        Half(leaf, directory / leaf, run_id, switch.namespace(leaf)) for leaf in LEAVES
    )
    journal = Journal(directory)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, journal.undo)
        journal.record("run", run_id)
        for namespace in switch.namespaces:
            journal.record("netns", namespace)
        stack.push_async_callback(switch.stop)
        await switch.start()
        await first.start(stack)
        (directory / second.name).mkdir(mode=0o700)
        shutil.copy(directory / first.name / "identity.pem", directory / second.name)
        await second.start(stack)
        await switch.lead(first.name, {first.name})
        encoder = await stack.enter_async_context(_on_air(directory, run_id))
        for half in (first, second):
            half.key_frame_wanted = lambda: encoder.request_keyframe(_RENDITION.name)
        pair = Pair(switch, (first, second))
        await pair.whole_again()
        yield pair


@asynccontextmanager
async def _on_air(directory: Path, run_id: str) -> AsyncIterator[Encoder]:
    """Give an encoder that sends a test picture to both leaf servers."""
    place = directory / "encoder"
    place.mkdir()
    config = EncoderConfig("test", place, (_RENDITION,), form=Format(gop_s=_GOP_S))
    video, audio = ([(LEAF_ADDRESS, port)] for port in INLET_PORTS)
    targets = {_RENDITION.name: video, AUDIO: audio}
    encoder = Encoder("takeover", config, run_id, targets=targets)
    source = parse_source("test")
    ingest = Ingest("takeover-source", source, config.picture, config.feed_path, place, run_id)
    try:
        await encoder.start()
        await ingest.start()
        await until(lambda: encoder.state.video == "live", "the picture")
        yield encoder
    finally:
        await ingest.stop()
        await encoder.stop()


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so.

    Raises:
        UnavailableError: it is not within 15 s.
    """
    end = time.monotonic() + _LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise UnavailableError(f"{what} does not come up")
        await asyncio.sleep(0.02)
