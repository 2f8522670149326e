"""A leaf server over the agent's API: the same contract, whatever is between."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import until

from anabranch.app.serving import listen_unix, serve
from anabranch.console.leaf_api import make_leaf_api
from anabranch.media.leaf import (
    Feed,
    Inlet,
    KeyFrame,
    Ladder,
    LeafBusyError,
    LeafUnavailableError,
    OfferError,
    Rung,
    ViewerStatistics,
    Viewing,
    ViewingState,
)
from anabranch.site.leaf_news import LeafNews, read_inlets
from anabranch.site.remote_leaf import RemoteLeaf, _read_key_frame

FEED, LOW = Feed("news", "high"), Feed("news", "low")
LADDER = [Rung(FEED, 1000), Rung(LOW, 300)]
INLET = Inlet(FEED, 21000, 21001)
FIGURES = ViewerStatistics(1000, 8, 2, 3, 4.5, None)


class Server:
    """A leaf server in memory."""

    name = "far"
    child = None

    def __init__(self) -> None:
        self.on_viewing: Callable[[str, ViewingState], None] = lambda _id, _state: None
        self.on_inlets: Callable[[], None] = lambda: None
        self.on_shown: Callable[[str, Feed], None] = lambda _id, _feed: None
        self.on_key_frame: Callable[[Feed], None] = lambda _feed: None
        self.ready = True
        self.asked: list[tuple[Ladder, bool]] = []
        self.warm: Collection[Rung] = ()
        self.viewings: dict[str, Feed] = {}
        self.fails: Exception | None = None
        self.served: frozenset[Inlet] = frozenset()
        self.key_frames: dict[Feed, KeyFrame] = {}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def watch(
        self, feed: Feed, offer: str, *, ladder: Ladder = (), pinned: bool = False
    ) -> Viewing:
        self.asked.append((ladder, pinned))
        if self.fails is not None:
            raise self.fails
        viewing = str(len(self.viewings) + 1)
        self.viewings[viewing] = feed
        self.served |= {INLET}
        self.on_inlets()
        return Viewing(viewing, feed, f"answer to {offer}")

    async def change(
        self, viewing_id: str, feed: Feed, *, ladder: Ladder = (), pinned: bool = False
    ) -> bool:
        if viewing_id not in self.viewings:
            raise LeafUnavailableError("there is no such viewer")
        if self.fails is not None:
            raise self.fails
        self.asked.append((ladder, pinned))
        self.viewings[viewing_id] = feed
        return feed == LOW

    async def statistics(self, viewing_id: str) -> ViewerStatistics | None:
        return FIGURES if viewing_id in self.viewings else None

    async def key_frame(self, feed: Feed) -> KeyFrame | None:
        return self.key_frames.get(feed)

    async def close(self, viewing_id: str) -> None:
        self.viewings.pop(viewing_id, None)
        self.on_viewing(viewing_id, "gone")

    def recall(self, viewings: Mapping[str, Feed]) -> None:
        raise NotImplementedError

    def keep_warm(self, ladder: Collection[Rung]) -> None:
        self.warm = ladder

    def inlets(self) -> frozenset[Inlet]:
        return self.served


class Door:
    """Leads nowhere: both ends are on this machine."""

    async def open(self, path: Path) -> None: ...

    async def close(self) -> None: ...


@asynccontextmanager
async def agent(path: Path, news: LeafNews) -> AsyncIterator[None]:
    with listen_unix(path) as listener:
        serving = asyncio.create_task(serve(make_leaf_api(news), listener, None))
        try:
            yield
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


class Both:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.server = Server()
        self.news = LeafNews()
        self.news.follow(self.server)
        self.leaf = RemoteLeaf("far", path, Door())  # type: ignore[arg-type]
        self.states: list[tuple[str, str]] = []
        self.told = 0
        self.leaf.on_viewing = lambda viewing, state: self.states.append((viewing, state))
        self.leaf.on_inlets = self._inlets

    def _inlets(self) -> None:
        self.told += 1


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    made = Both(tmp_path / "leaf.sock")
    async with agent(made.path, made.news):
        await made.leaf.start()
        yield made
        await made.leaf.stop()


async def test_a_viewer_from_offer_to_end(both: Both) -> None:
    viewing = await both.leaf.watch(FEED, "offer")
    assert viewing == Viewing("1", FEED, "answer to offer")
    await until(lambda: both.leaf.inlets() == {INLET})
    assert both.told == 1
    both.server.on_viewing("1", "up")
    await until(lambda: both.states == [("1", "up")])
    assert await both.leaf.statistics("1") == FIGURES
    assert await both.leaf.change("1", LOW, ladder=LADDER, pinned=True)
    assert not await both.leaf.change("1", FEED)
    assert await both.leaf.change("1", LOW)
    assert both.server.asked == [([], False), (LADDER, True), ([], False), ([], False)]
    assert both.server.viewings == both.news.viewings == {"1": LOW}
    await both.leaf.close("1")
    assert both.server.viewings == both.news.viewings == {}
    assert await both.leaf.statistics("1") is None


async def test_a_key_frame_comes_as_it_is_there(both: Both) -> None:
    odd = Feed("a/b ?", "high")
    both.server.key_frames = {FEED: KeyFrame(bytes(range(256)), 0.25), odd: KeyFrame(b"x", 0.0)}
    assert await both.leaf.key_frame(FEED) == KeyFrame(bytes(range(256)), 0.25)
    assert await both.leaf.key_frame(LOW) is None
    both.news.follow(None)
    assert await both.leaf.key_frame(FEED) is None


VALUES = st.none() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@given(
    VALUES
    | st.fixed_dictionaries(
        {"annex_b": VALUES | st.binary().map(lambda raw: b64encode(raw).decode()), "age_s": VALUES}
    )
)
def test_whatever_is_said_of_a_key_frame_is_understood_or_none(said: Any) -> None:
    found = _read_key_frame(said)
    assert found is None or (found.annex_b and 0 <= found.age_s < float("inf"))


@pytest.mark.parametrize("error", [OfferError("no video"), LeafUnavailableError("it restarts")])
async def test_its_errors_are_the_same_here(both: Both, error: Exception) -> None:
    both.server.fails = error
    with pytest.raises(type(error), match=str(error)):
        await both.leaf.watch(FEED, "offer")
    with pytest.raises(LeafUnavailableError, match="no such viewer"):
        await both.leaf.change("17", LOW)


async def test_a_storm_of_changes_is_a_storm_here(both: Both) -> None:
    await both.leaf.watch(FEED, "offer", ladder=LADDER)
    both.server.fails = LeafBusyError("too many changes")
    with pytest.raises(LeafBusyError, match="too many changes"):
        await both.leaf.change("1", LOW)


async def test_what_the_leaf_does_by_itself_is_told(both: Both) -> None:
    shown: list[tuple[str, Feed]] = []
    wanted: list[Feed] = []
    both.leaf.on_shown = lambda viewing, feed: shown.append((viewing, feed))
    both.leaf.on_key_frame = wanted.append
    await both.leaf.watch(FEED, "offer", ladder=LADDER)
    both.server.on_shown("1", LOW)
    both.server.on_key_frame(FEED)
    await until(lambda: bool(wanted))
    assert shown[-1] == ("1", LOW)
    assert wanted == [FEED]
    assert both.news.viewings == {"1": LOW}


async def test_a_server_that_comes_anew_is_told_what_to_keep_warm(both: Both) -> None:
    both.leaf.keep_warm(LADDER)
    await until(lambda: list(both.server.warm) == LADDER)
    fresh = Server()
    both.news.follow(fresh)
    assert list(fresh.warm) == LADDER
    both.leaf.keep_warm(())
    await until(lambda: list(fresh.warm) == [])


async def test_an_agent_that_begins_anew_is_told_what_to_keep_warm(tmp_path: Path) -> None:
    made = Both(tmp_path / "leaf.sock")
    async with agent(made.path, made.news):
        await made.leaf.start()
        made.leaf.keep_warm(LADDER)
        await until(lambda: list(made.server.warm) == LADDER)
    server, news = Server(), LeafNews()
    news.follow(server)
    async with agent(made.path, news):
        await until(lambda: list(server.warm) == LADDER)
        await made.leaf.stop()


async def test_a_viewer_that_goes_by_itself_is_told(both: Both) -> None:
    await both.leaf.watch(FEED, "offer")
    both.server.on_viewing("1", "gone")
    await until(lambda: both.states == [("1", "gone")])
    assert both.news.viewings == {}


async def test_a_server_that_is_not_ready_takes_nobody(both: Both) -> None:
    both.server.ready = False
    await until(lambda: not both.leaf.ready)
    both.server.ready = True
    await until(lambda: both.leaf.ready)


async def test_a_machine_that_begins_anew_has_lost_its_viewers(both: Both) -> None:
    await both.leaf.watch(FEED, "offer")
    await until(lambda: both.leaf.inlets() == {INLET})
    both.news.follow(None)
    await until(lambda: not both.leaf.ready)
    await until(lambda: both.states == [("1", "gone")])
    assert both.leaf.inlets() == frozenset()
    both.news.follow(Server())
    await until(lambda: both.leaf.ready)


async def test_an_agent_that_is_away_for_a_moment_keeps_its_viewers(tmp_path: Path) -> None:
    made = Both(tmp_path / "leaf.sock")
    async with agent(made.path, made.news):
        await made.leaf.start()
        await made.leaf.watch(FEED, "offer")
        await until(lambda: made.leaf.inlets() == {INLET})
    await until(lambda: not made.leaf.ready)
    with pytest.raises(LeafUnavailableError):
        await made.leaf.watch(FEED, "offer")
    async with agent(made.path, made.news):
        await until(lambda: made.leaf.ready)
        assert made.leaf.inlets() == {INLET}
        assert made.states == []
        await made.leaf.stop()


async def test_nobody_waits_for_a_leaf_whose_node_has_left(tmp_path: Path) -> None:
    both = Both(tmp_path / "socket")
    waiting = asyncio.create_task(both.leaf.start())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    both.leaf.abandon()
    with pytest.raises(LeafUnavailableError, match="does not come up"):
        await asyncio.wait_for(waiting, 1.0)
    await both.leaf.stop()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_whatever_is_told_is_inlets_or_refused(value: Any) -> None:
    try:
        inlets = read_inlets(value)
    except (TypeError, ValueError):
        return
    assert all(0 <= inlet.video_port < 65536 for inlet in inlets)
