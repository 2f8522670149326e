"""The console over a real site that was never started, and one leaf in memory."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path

import httpx
import pytest

from anabranch.channels.channel import Channel
from anabranch.channels.definitions import Definition
from anabranch.console.api import make_app
from anabranch.host.journal import Journal
from anabranch.media.encoder import EncoderConfig
from anabranch.media.leaf import (
    Feed,
    Inlet,
    KeyFrame,
    Ladder,
    Rung,
    ViewerStatistics,
    Viewing,
)
from anabranch.media.sdp import parse_offer
from anabranch.site.settings import SiteSettings
from anabranch.site.site import Site

TOKEN = "the-operators-secret"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
KEY = "k" * 24
OFFER = "\r\n".join(
    [
        *("v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0"),
        *("m=video 9 UDP/TLS/RTP/SAVPF 96", "c=IN IP4 0.0.0.0", "a=recvonly", "a=mid:0"),
        *("a=rtpmap:96 H264/90000", "a=fmtp:96 packetization-mode=1;profile-level-id=42e01f"),
        *("a=ice-ufrag:abcd", f"a=ice-pwd:{'p' * 22}"),
        f"a=fingerprint:sha-256 {':'.join(['0A'] * 32)}",
        "",
    ]
)  # fmt: skip


class MemoryLeaf:
    """A leaf server that answers every good offer with the same words."""

    def __init__(self) -> None:
        self.name = "leaf1"
        self.ready = True
        self.child = None
        self.viewings: dict[str, Feed] = {}
        self.told: dict[str, tuple[Ladder, bool]] = {}
        self.changing = asyncio.Event()
        self.changing.set()
        self.changes = 0
        self.key_frames: dict[Feed, KeyFrame] = {}
        self.looks = 0
        self.warm: list[Rung] = []
        self.fails: Exception | None = None

    async def watch(
        self, feed: Feed, offer: str, *, ladder: Ladder = (), pinned: bool = False
    ) -> Viewing:
        if self.fails is not None:
            raise self.fails
        parse_offer(offer)
        viewing = str(len(self.viewings) + 1)
        self.viewings[viewing] = feed
        self.told[viewing] = (ladder, pinned)
        return Viewing(viewing, feed, "v=0\r\n")

    async def change(
        self, viewing_id: str, feed: Feed, *, ladder: Ladder = (), pinned: bool = False
    ) -> bool:
        if self.fails is not None:
            raise self.fails
        self.changes += 1
        await self.changing.wait()
        waits = feed not in self.viewings.values()
        self.viewings[viewing_id] = feed
        self.told[viewing_id] = (ladder, pinned)
        return waits

    async def statistics(self, viewing_id: str) -> ViewerStatistics | None:
        return ViewerStatistics(1000, 8, 2, 3, 4.5, None) if viewing_id in self.viewings else None

    async def key_frame(self, feed: Feed) -> KeyFrame | None:
        self.looks += 1
        return self.key_frames.get(feed)

    async def close(self, viewing_id: str) -> None:
        self.viewings.pop(viewing_id, None)

    def recall(self, viewings: Mapping[str, Feed]) -> None:
        raise NotImplementedError

    def keep_warm(self, ladder: Collection[Rung]) -> None:
        self.warm = list(ladder)

    def inlets(self) -> frozenset[Inlet]:
        return frozenset(Inlet(feed, 1, 2) for feed in self.viewings.values())


def add_channel(site: Site, definition: Definition) -> None:
    """Give a site a channel that nobody started."""
    directory = site.settings.run_dir
    config = EncoderConfig(definition.name, directory, site.settings.ladder, site.settings.format)
    site.lineup.channels[definition.name] = Channel(
        definition, config, "run", rtmp_port=1935, number=1, on_event=site._happened
    )


@pytest.fixture
def leaf() -> MemoryLeaf:
    return MemoryLeaf()


@pytest.fixture
async def site(tmp_path: Path, leaf: MemoryLeaf) -> AsyncIterator[Site]:
    """One RTMP channel, ``news``, that nobody started; and one leaf, in its tree."""
    settings = SiteSettings(
        "main", "run", tmp_path / "run", f"sqlite+aiosqlite:///{tmp_path}/store.db", switches=False
    )
    made = Site(settings, Journal(tmp_path / "run"))
    await made.database.open()
    add_channel(made, Definition("news", "The <b>news</b>", "rtmp", False, KEY, 1))
    made.leaves.append(leaf)  # type: ignore[arg-type]
    await made.steward.start()
    yield made
    await made.steward.stop()
    await made.database.close()


@pytest.fixture
async def client(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_app(site, token=TOKEN), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://site") as made:
        yield made
