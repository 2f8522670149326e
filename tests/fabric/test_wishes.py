"""What operators want, kept: nothing is lost, and nothing that cannot be stops the rest."""

import stat
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path as FilePath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from structlog.testing import capture_logs
from tests.fabric.test_intents_json import PATHS
from tests.fabric.worlds import intents_of, network_of

from anabranch.core.errors import UnavailableError
from anabranch.fabric import intents_json
from anabranch.fabric.compiler import Compiler
from anabranch.fabric.errors import FabricError, MisuseError
from anabranch.fabric.intents import Egress, Flow, Intents
from anabranch.fabric.intents_json import Wanted, declared_links
from anabranch.fabric.model import Link, LinkInfo, Network, PortRef
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pathlogic.logic import Path
from anabranch.fabric.wishes import (
    OPERATOR,
    StoredWishes,
    Wishes,
    WishFile,
    WishStore,
    agreeing,
    names_of,
)
from anabranch.store.database import Database, StoreError, WishRow

IN, OUT = PortRef("s1", 1), PortRef("s2", 1)


def flow(name: str, address: str = "239.1.2.3") -> Flow:
    return Flow(name, Match(eth_type=0x0800, ipv4_dst=address), IN, frozenset({Egress(OUT)}))


LECTURE, OTHER = flow("lecture"), flow("other", "239.1.2.4")
STREAM = Path("stream", IN, OUT, "192.168.1.181", Match(eth_type=0x0800, ipv4_dst="10.0.0.255"))
SITE = Wanted({"site": Intents((flow("news", "239.0.0.1"),))})


class MemoryFabric:
    """Wants what it is told, if that does not contradict itself."""

    def __init__(self) -> None:
        self.wanted: dict[str, Intents] = {}
        self.paths: tuple[Path, ...] = ()
        self.links: dict[Link, LinkInfo] = {}
        self.taken: set[PortRef] = set()
        self.steps = 0

    def intents(self, owner: str | None = None) -> Intents:
        assert owner is not None
        return self.wanted.get(owner, Intents())

    def followed(self) -> Mapping[str, Path]:
        return {path.name: path for path in self.paths}

    def declared(self) -> Mapping[Link, LinkInfo]:
        return self.links

    def declare(self, links: Mapping[Link, LinkInfo]) -> None:
        if taken := {link.src for link in links} & self.taken:
            raise MisuseError(f"{min(taken)} is in another link")
        self.links = dict(links)

    async def restore(
        self, wanted: Mapping[str, Intents], paths: Collection[Path]
    ) -> frozenset[str]:
        flows = [flow for intents in wanted.values() for flow in intents.flows]
        flows += [Flow(path.name, path.match, path.ingress) for path in paths]
        Compiler().compile(Intents(tuple(flows)), Network())
        self.wanted, self.paths = dict(wanted), tuple(paths)
        self.steps += 1
        return frozenset()


@pytest.fixture(params=["store", "file"])
async def store(request: pytest.FixtureRequest, tmp_path: FilePath) -> AsyncIterator[WishStore]:
    if request.param == "file":
        yield WishFile(tmp_path / "state")
        return
    database = Database("sqlite+aiosqlite://")
    await database.open()
    yield StoredWishes(database)
    await database.close()


async def begun(store: WishStore, fabric: MemoryFabric, given: Wanted = SITE) -> Wishes:
    wishes = Wishes(store)
    await wishes.load()
    await wishes.restore(fabric, given)
    return wishes


async def test_what_is_changed_is_wanted_again_in_one_step(store: WishStore) -> None:
    fabric = MemoryFabric()
    wishes = await begun(store, fabric)
    assert await store.load() is None, "nothing to keep yet"
    async with wishes.changing(fabric):
        fabric.wanted[OPERATOR] = Intents((LECTURE,))
    async with wishes.changing(fabric):
        fabric.paths = (STREAM,)
    again = MemoryFabric()
    await begun(store, again)
    assert again.wanted == {**SITE.intents, OPERATOR: Intents((LECTURE,))}
    assert (again.paths, again.steps) == ((STREAM,), 1)
    wishes = await begun(store, again)
    async with wishes.changing(again):
        again.wanted[OPERATOR], again.paths = Intents(), ()
    assert not names_of(intents_json.load_wanted(await store.load() or b""))


async def test_also_what_a_switch_refused_is_kept(store: WishStore) -> None:
    fabric = MemoryFabric()
    wishes = await begun(store, fabric)

    async def refused() -> None:
        async with wishes.changing(fabric):
            fabric.wanted[OPERATOR] = Intents((LECTURE,))
            raise FabricError("table full")

    with pytest.raises(FabricError, match="table full"):
        await refused()
    again = MemoryFabric()
    await begun(store, again)
    assert again.intents(OPERATOR).names == {"lecture"}


LINK = Link(PortRef("s1", 3), PortRef("s2", 3))
LINKS = {LINK: LinkInfo(capacity_mbit=10.0, redundant=True), LINK.reverse: LinkInfo()}
BESIDE = {Link(PortRef("s1", 4), PortRef("s2", 4)): LinkInfo()}


async def test_declared_links_are_known_again(store: WishStore) -> None:
    fabric = MemoryFabric()
    wishes = await begun(store, fabric)
    async with wishes.changing(fabric):
        fabric.declare(LINKS)
    async with wishes.changing(fabric):
        fabric.wanted[OPERATOR] = Intents((LECTURE,))
    again = MemoryFabric()
    wishes = await begun(store, again)
    assert (again.links, again.intents(OPERATOR).names) == (LINKS, {"lecture"})
    async with wishes.changing(again):
        again.declare({})
    again = MemoryFabric()
    await begun(store, again)
    assert again.links == {}


async def test_a_link_that_cannot_be_now_is_told_and_stays_written(store: WishStore) -> None:
    fabric = MemoryFabric()
    wishes = await begun(store, fabric)
    async with wishes.changing(fabric):
        fabric.declare({**LINKS, **BESIDE})
    again = MemoryFabric()
    again.taken.add(LINK.src)
    with capture_logs() as logs:
        wishes = await begun(store, again)
    assert again.links == {LINK.reverse: LinkInfo(), **BESIDE}
    assert [(entry["event"], entry["name"]) for entry in logs] == [
        ("wish.not_restored", "s1:3>s2:3")
    ]
    async with wishes.changing(again):
        again.declare(BESIDE)
    kept = declared_links({**BESIDE, LINK: LINKS[LINK]})
    assert set(intents_json.load_wanted(await store.load() or b"").links) == set(kept)


async def test_a_document_without_links_is_read(store: WishStore) -> None:
    await store.save(b'{"intents": {"operator": {"flows": [], "taps": []}}, "paths": []}')
    fabric = MemoryFabric()
    with capture_logs() as logs:
        await begun(store, fabric)
    assert (logs, fabric.links) == ([], {})


async def test_what_others_gave_is_not_the_operators(store: WishStore) -> None:
    fabric = MemoryFabric()
    given = Wanted(SITE.intents, (STREAM,))
    wishes = await begun(store, fabric, given)
    async with wishes.changing(fabric):
        fabric.wanted[OPERATOR] = Intents((LECTURE,))
    assert names_of(intents_json.load_wanted(await store.load() or b"")) == {"lecture"}


async def test_what_contradicts_is_left_out_told_once_and_never_lost(store: WishStore) -> None:
    await store.save(
        intents_json.dump_wanted(Wanted({OPERATOR: Intents((LECTURE, OTHER))}, (STREAM,)))
    )
    given = Wanted({"site": Intents((flow("lecture", "239.9.9.9"), flow("stream", "239.9.9.8")))})
    fabric = MemoryFabric()
    with capture_logs() as logs:
        wishes = await begun(store, fabric, given)
        await wishes.restore(fabric, given)
    assert fabric.intents(OPERATOR).names == {"other"}
    assert fabric.paths == ()
    assert sorted(entry["name"] for entry in logs) == ["lecture", "stream"]
    assert {entry["event"] for entry in logs} == {"wish.not_restored"}
    async with wishes.changing(fabric):
        fabric.wanted[OPERATOR] = Intents((flow("more", "239.1.2.5"),))
    again = MemoryFabric()
    wishes = await begun(store, again)
    assert again.intents(OPERATOR).names == {"lecture", "more"}
    assert again.intents(OPERATOR).flows[1] == LECTURE
    assert again.paths == (STREAM,)
    async with wishes.changing(again):
        again.wanted[OPERATOR] = Intents()
    assert names_of(wishes.kept) == {"stream"}, "what was restored may go"


async def test_a_new_wish_replaces_one_of_its_name_that_cannot_be(store: WishStore) -> None:
    await store.save(intents_json.dump_wanted(Wanted({OPERATOR: Intents((LECTURE,))})))
    fabric = MemoryFabric()
    wishes = await begun(store, fabric, Wanted({"site": Intents((flow("lecture"),))}))
    for flows in ((flow("lecture", "239.7.7.7"),), ()):
        async with wishes.changing(fabric):
            fabric.wanted[OPERATOR] = Intents(flows)
        assert wishes.kept.intents[OPERATOR].flows == flows


@pytest.mark.parametrize("document", [b"{", b'{"intents": {}, "colour": 1}', b'{"paths": [1]}'])
async def test_what_is_not_understood_is_set_aside_with_the_first_change(
    store: WishStore, document: bytes
) -> None:
    await store.save(document)
    fabric = MemoryFabric()
    with capture_logs() as logs:
        wishes = await begun(store, fabric)
        assert await store.load() == document, "a later version may read it"
        async with wishes.changing(fabric):
            fabric.wanted[OPERATOR] = Intents((LECTURE,))
    assert [entry["event"] for entry in logs] == ["wishes.not_understood", "wishes.set_aside"]
    assert await aside(store, logs[1]["name"]) == document
    assert names_of(intents_json.load_wanted(await store.load() or b"")) == {"lecture"}


async def aside(store: WishStore, name: str) -> bytes:
    if isinstance(store, WishFile):
        return FilePath(name).read_bytes()
    assert isinstance(store, StoredWishes)
    async with store._database.transaction() as session:
        found = await session.scalar(select(WishRow.document).where(WishRow.name == name))
    assert found is not None
    return found.encode()


async def test_no_change_before_what_was_wanted_is_wanted_again(store: WishStore) -> None:
    fabric = MemoryFabric()
    wishes = Wishes(store)
    await wishes.load()
    with pytest.raises(UnavailableError, match="not restored yet"):
        async with wishes.changing(fabric):
            raise AssertionError
    twice = Wanted({"one": Intents((LECTURE,)), "two": Intents((LECTURE,))})
    with pytest.raises(MisuseError, match="asked for twice: lecture"):
        await wishes.restore(fabric, twice)
    assert not wishes.restored
    await wishes.restore(fabric, SITE)
    async with wishes.changing(fabric):
        pass
    wishes.stand_by()
    with pytest.raises(UnavailableError):
        async with wishes.changing(fabric):
            raise AssertionError


async def test_without_a_store_nothing_is_kept_and_nothing_awaited() -> None:
    wishes, fabric = Wishes(), MemoryFabric()
    wishes.stand_by()
    async with wishes.changing(fabric):
        fabric.wanted[OPERATOR] = Intents((LECTURE,))


async def test_a_store_that_fails_is_said_and_written_with_the_next_change() -> None:
    class Broken:
        document: bytes | None = None
        broken = True

        async def load(self) -> bytes | None:
            return self.document

        async def save(self, document: bytes) -> None:
            if self.broken:
                raise StoreError("the store cannot be used: disk full")
            self.document = document

        async def set_aside(self) -> str:
            raise AssertionError

    store, fabric = Broken(), MemoryFabric()
    wishes = await begun(store, fabric)
    with pytest.raises(StoreError, match=r"not beyond the next restart: .*disk full"):
        async with wishes.changing(fabric):
            fabric.wanted[OPERATOR] = Intents((LECTURE,))
    store.broken = False
    async with wishes.changing(fabric):
        pass
    assert names_of(intents_json.load_wanted(store.document or b"")) == {"lecture"}


async def test_the_file_is_its_owners_alone_and_whole(tmp_path: FilePath) -> None:
    file = tmp_path / "state"
    file.write_text("old")
    file.chmod(0o644)
    await WishFile(file).save(b"new")
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(FabricError, match=r"cannot keep the state .*: no such directory"):
        await WishFile(tmp_path / "no" / "state").load()
    with pytest.raises(FabricError, match=r"cannot read the state .*: Is a directory"):
        await WishFile(tmp_path).load()
    with pytest.raises(FabricError, match=r"cannot keep the state .*: No such file"):
        await WishFile(tmp_path / "no" / "state").save(b"")


NETWORK = network_of(3, [(0, 1, False), (1, 2, False)])


@given(intents_of(NETWORK), intents_of(NETWORK), st.lists(PATHS, max_size=2))
def test_what_agrees_can_be_wanted_and_every_other_is_named(
    given_: Intents, kept: Intents, paths: list[Path]
) -> None:
    site, wishes = Wanted({"site": given_}), Wanted({OPERATOR: kept}, tuple(paths))
    agreed, refused = agreeing(wishes, site)
    together = (*given_.flows, *agreed.intents[OPERATOR].flows)
    Compiler().compile(Intents(together), NETWORK)
    assert names_of(agreed) | refused.keys() == names_of(wishes)
    flows = agreed.intents[OPERATOR].flows
    assert [flow for flow in kept.flows if flow.name not in refused] == list(flows)
