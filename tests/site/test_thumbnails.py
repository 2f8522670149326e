"""When channels' pictures are made, of what, and for how long they are shown."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from anabranch.core.errors import NotFoundError
from anabranch.media.errors import ThumbnailError
from anabranch.media.leaf import Feed, Inlet, KeyFrame
from anabranch.media.rendition import Rendition
from anabranch.site import thumbnails
from anabranch.site.thumbnails import Thumbnails

LADDER = [
    Rendition("full", 1280, 720, 2500),
    Rendition("mid", 480, 270, 700),
    Rendition("tiny", 160, 90, 100),
]


class Leaf:
    """A leaf server that has key frames."""

    def __init__(self, name: str, *, child: object = "a process") -> None:
        self.name = name
        self.child = child
        self.ready = True
        self.has: dict[Feed, KeyFrame | None] = {}
        self.asked: list[Feed] = []
        self.answering = asyncio.Event()
        self.answering.set()

    def inlets(self) -> frozenset[Inlet]:
        return frozenset(Inlet(feed, 1, 2) for feed in self.has)

    async def key_frame(self, feed: Feed) -> KeyFrame | None:
        self.asked.append(feed)
        await self.answering.wait()
        return self.has[feed]


class World:
    """A site's channels and leaves, and a decoder that says what it was given."""

    def __init__(self, *channels: str) -> None:
        self.leaves: list[Leaf] = [Leaf("leaf1")]
        self.there = {name: SimpleNamespace(name=name) for name in channels}
        self.decoded: list[bytes] = []
        self.fails = False
        self.decoding = asyncio.Event()
        self.decoding.set()
        self.thumbnails = Thumbnails(self, LADDER, self.decode)

    @property
    def channels(self) -> Iterator[SimpleNamespace]:
        return iter(self.there.values())

    def channel(self, name: str) -> SimpleNamespace:
        if name not in self.there:
            raise NotFoundError(f"there is no channel named {name}")
        return self.there[name]

    def has(self, feed: Feed, raw: bytes = b"picture", age_s: float = 1.0) -> None:
        self.leaves[0].has[feed] = KeyFrame(raw, age_s)

    async def decode(self, raw: bytes) -> bytes:
        self.decoded.append(raw)
        await self.decoding.wait()
        if self.fails:
            raise ThumbnailError("no picture in it")
        return b"jpeg of " + raw


HIGH, MID, TINY = (Feed("news", each.name) for each in LADDER)


@pytest.fixture
def world() -> World:
    made = World("news", "sport")
    made.has(MID)
    return made


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pictures be of an age after 50 ms."""
    monkeypatch.setattr(thumbnails, "FRESH_S", 0.05)


async def test_who_asks_at_once_shares_one(world: World) -> None:
    found = await asyncio.gather(*(world.thumbnails.of("news") for _ in range(50)))
    assert {each.jpeg for each in found} == {b"jpeg of picture"}
    assert await world.thumbnails.of("news") is found[0]  # and who asks soon after, too
    assert world.decoded == [b"picture"]
    assert world.leaves[0].asked == [MID]


@pytest.mark.usefixtures("soon")
async def test_a_new_one_is_made_when_somebody_asks_later(world: World) -> None:
    first = await world.thumbnails.of("news")
    await asyncio.sleep(0.1)
    assert world.decoded == [b"picture"]  # nobody has asked
    world.has(MID, b"another", age_s=0.01)
    second = await world.thumbnails.of("news")
    assert second.jpeg == b"jpeg of another"
    assert second.tag != first.tag
    await asyncio.sleep(0.1)
    world.has(MID, b"another", age_s=0.01)
    assert (await world.thumbnails.of("news")).tag == second.tag
    assert world.decoded == [b"picture", b"another"]  # the same is not decoded again


async def test_one_channel_after_the_other_is_decoded(world: World) -> None:
    world.has(Feed("sport", "mid"), b"ball")
    world.decoding.clear()
    both = [asyncio.create_task(world.thumbnails.of(name)) for name in ("news", "sport")]
    await asyncio.sleep(0.05)
    assert world.decoded == [b"picture"]
    world.decoding.set()
    assert [each.jpeg for each in await asyncio.gather(*both)] == [
        b"jpeg of picture",
        b"jpeg of ball",
    ]


async def test_who_leaves_takes_it_from_nobody(world: World) -> None:
    world.decoding.clear()
    impatient, patient = (asyncio.create_task(world.thumbnails.of("news")) for _ in range(2))
    await asyncio.sleep(0.02)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    world.decoding.set()
    assert (await patient).jpeg == b"jpeg of picture"


async def test_what_is_small_but_not_too_small_is_decoded(world: World) -> None:
    for feed in (HIGH, TINY):
        world.has(feed)
    await world.thumbnails.of("news")
    assert world.leaves[0].asked == [MID]
    other = World("news")
    other.has(HIGH)
    other.has(TINY)
    await other.thumbnails.of("news")
    assert other.leaves[0].asked == [HIGH]


async def test_the_newest_that_any_leaf_has_is_shown(world: World) -> None:
    world.has(MID, b"old", age_s=60.0)
    far, idle, lost = Leaf("leaf0", child=None), Leaf("leaf2"), Leaf("leaf3")
    far.has[MID] = KeyFrame(b"new", 1.0)
    idle.has[MID] = None
    lost.has[MID] = KeyFrame(b"newest", 0.0)
    lost.ready = False
    world.leaves += [far, idle, lost]
    assert (await world.thumbnails.of("news")).jpeg == b"jpeg of new"
    assert [len(leaf.asked) for leaf in world.leaves] == [1, 1, 1, 0]
    # This machine's own come first, and one is enough.
    other = World("news")
    other.has(MID)
    other.leaves.insert(0, far)
    assert (await other.thumbnails.of("news")).jpeg == b"jpeg of picture"


@pytest.mark.usefixtures("soon")
async def test_the_last_one_is_shown_for_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.thumbnails.of("news")
    world.leaves[0].has.clear()
    await asyncio.sleep(0.1)
    assert (await world.thumbnails.of("news")).jpeg == b"jpeg of picture"
    monkeypatch.setattr(thumbnails, "KEEP_S", 1.05)  # it was a second old when it was made
    with pytest.raises(NotFoundError, match="no picture"):
        await world.thumbnails.of("news")


async def test_a_channel_without_a_picture_has_none(world: World) -> None:
    with pytest.raises(NotFoundError, match="no picture"):
        await world.thumbnails.of("sport")
    with pytest.raises(NotFoundError, match="no channel"):
        await world.thumbnails.of("other")


@pytest.mark.usefixtures("soon")
async def test_one_that_cannot_be_decoded_is_told_and_costs_only_itself(world: World) -> None:
    world.fails = True
    with capture_logs() as logs:
        with pytest.raises(NotFoundError):
            await world.thumbnails.of("news")
        with pytest.raises(NotFoundError):
            await world.thumbnails.of("news")  # too soon for another try
    assert [each["event"] for each in logs] == ["thumbnail.failed"]
    world.fails = False
    await asyncio.sleep(0.1)
    assert (await world.thumbnails.of("news")).jpeg == b"jpeg of picture"


async def test_a_leaf_that_does_not_answer_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "_PATIENCE_S", 0.05)
    silent = Leaf("leaf2")
    silent.has[MID] = None
    silent.answering.clear()
    world.has(MID, b"old", age_s=60.0)
    world.leaves.append(silent)
    assert (await world.thumbnails.of("news")).jpeg == b"jpeg of old"


async def test_another_channel_of_the_same_name_does_not_show_what_the_first_did(
    world: World,
) -> None:
    await world.thumbnails.of("news")
    world.leaves[0].has.clear()
    del world.there["news"]
    with pytest.raises(NotFoundError):
        await world.thumbnails.of("news")
    world.there["news"] = SimpleNamespace(name="news")
    with pytest.raises(NotFoundError, match="no picture"):
        await world.thumbnails.of("news")


async def test_no_more_are_kept_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "MAX_KEPT", 3)
    world = World(*"abcde")
    for name in "abcde":
        world.has(Feed(name, "mid"), name.encode())
        await world.thumbnails.of(name)
    assert sorted(world.thumbnails._kept) == ["c", "d", "e"]
    del world.there["c"]
    await world.thumbnails.of("a")
    assert sorted(world.thumbnails._kept) == ["a", "d", "e"]
