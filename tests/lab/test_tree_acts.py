"""The tree acts by itself: nodes come and go with the load, renditions with the trouble.

A root, two relays, four leaves. Marks and holds are short, so that a test need not wait for them.
"""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
from tests.lab.page import Watching
from tests.lab.viewer import Viewer, viewer
from tests.waiting import until

from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.app.bench.tree.emulated import seven_nodes

pytestmark = pytest.mark.lab

JANUS = {"LEAF": "janus"}
"""Our own leaf server sends a viewer less by itself, before the tree has to."""
QUICK = {
    "interval_s": 2,
    "pause_s": 0.5,
    # This machine may be busy with other tests: only loss tells.
    "thresholds": {
        "cpu": {"warning": 900, "danger": 999},
        "injitter": {"warning": 9000, "danger": 9999},
        "rtt": {"warning": 9000, "danger": 9999},
        "linkloss": {"warning": 99, "danger": 100},
    },
    "sensitivity": {"rounds": 2, "calm_s": 4},
    "marks": {
        "high": 0.9,
        "cpu_high": 900,
        "quiet_s": 3,
        "cool_down_s": 4,
        "settle_s": 1,
        "lower_s": 8,
        "lower_at": 1,
    },
}


class Tree:
    """The site's API, without blocking the viewers that live in this process."""

    def __init__(self, site: SiteProcess) -> None:
        self.site = site

    async def get(self, path: str) -> Any:
        return (await asyncio.to_thread(self.site.api, "GET", path)).json()

    async def post(self, path: str) -> None:
        answer = await asyncio.to_thread(self.site.api, "POST", path)
        answer.raise_for_status()

    async def states(self) -> dict[str, str]:
        return {node["name"]: node["state"] for node in await self.get("/api/nodes")}

    async def seats(self) -> list[tuple[str, str]]:
        return sorted((s["leaf"], s["rendition"]) for s in await self.get("/api/seats"))

    async def events(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in await self.get("/api/log?limit=1000") if e["kind"] == kind]

    async def hung(self, names: set[str]) -> bool:
        return set((await self.get("/api/tree/statistics"))["present"]) == names

    async def only(self, leaf: str | None) -> None:
        """Have new viewers go to one leaf, or anywhere."""
        for name, state in (await self.states()).items():
            if name.startswith("leaf") and state in ("up", "draining"):
                to = "drain" if leaf not in (None, name) else "undrain"
                await self.post(f"/api/nodes/{name}/{to}")

    async def watch(self, stack: AsyncExitStack) -> Viewer:
        one = await stack.enter_async_context(viewer())

        async def ask(offer: str) -> str:
            async with httpx.AsyncClient(timeout=10) as client:
                answer = await client.post(
                    f"{self.site.url}/whep/test1",
                    content=offer,
                    headers={"Content-Type": "application/sdp"},
                )
                answer.raise_for_status()
                return answer.text

        await one.watch(ask)
        await one.frames(5, limit=20.0)
        return one


@contextmanager
def loss(site: SiteProcess, leaf: str, condition: str = "") -> Iterator[None]:
    """Lose half of what a leaf sends to its viewers, or to those that a condition of nft tells."""
    netns = ["nsenter", f"--net=/run/netns/ab-{site.name}-{leaf}", "--"]
    rules = f"""
    table netdev lossy {{
      chain out {{
        type filter hook egress device access0 priority 0;
        meta protocol ip ip protocol udp {condition} numgen random mod 100 < 50 drop
      }}
    }}
    """
    subprocess.run([*netns, "nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*netns, "nft", "delete", "table", "netdev", "lossy"], check=True)


@pytest.fixture
async def quiet(whole: SiteProcess) -> AsyncIterator[Tree]:
    """A whole site on which nobody watches and nothing is lowered."""
    tree = Tree(whole)
    yield tree
    await tree.only(None)

    async def is_quiet() -> bool:
        found = await tree.get("/api/tree/statistics")
        return not await tree.seats() and not found["lowered"] and not found["diagnoses"]

    await until(is_quiet, limit_s=90)


@pytest.fixture(scope="module")
def whole() -> Iterator[SiteProcess]:
    with running_site(**seven_nodes(redundancy=True), **JANUS, tree=json.dumps(QUICK)) as made:
        yield made


@asynccontextmanager
async def viewers(tree: Tree, counts: dict[str, int]) -> AsyncIterator[list[Viewer]]:
    """So many viewers at each leaf."""
    async with AsyncExitStack() as stack:
        made = []
        for leaf, count in counts.items():
            await tree.only(leaf)
            made += [await tree.watch(stack) for _ in range(count)]
        yield made


def test_a_load_brings_a_relay_and_a_leaf_and_they_go_with_it(watch: Watching) -> None:
    idle = ("relay2", "leaf3", "leaf4")
    settings = seven_nodes(idle=idle, capacity=2)
    with running_site(**settings, **JANUS, tree=json.dumps(QUICK)) as site:
        page = watch(site.url, "test1")
        page.wait_for_picture()
        asyncio.run(_come_and_go(Tree(site)))
        assert page.evaluate("window.anabranch.reconnects") == 0
        page.wait_for_picture()
        told = site.command("tree", "explain", "leaf3").stdout
        assert "leaf-added leaf3: the load is 100% of the leaves' capacity (done)" in told
        assert "node-switched-off leaf3" in told


async def _come_and_go(tree: Tree) -> None:
    async with AsyncExitStack() as stack:
        await until(lambda: tree.hung({"relay1", "leaf1", "leaf2"}))
        for _ in range(3):
            await tree.watch(stack)

        async def grown() -> bool:
            states = await tree.states()
            return all(states[name] == "up" for name in ("relay2", "leaf3"))

        await until(grown)
        await until(lambda: tree.hung({"relay1", "leaf1", "leaf2", "relay2", "leaf3"}))
        late = await tree.watch(stack)
        assert "leaf3" in [leaf for leaf, _ in await tree.seats()]
        assert (await tree.states())["leaf4"] == "idle"  # one is enough
        await late.frames(25)

    async def shrunk() -> bool:
        states = await tree.states()
        return all(states[name] == "idle" for name in ("relay2", "leaf3"))

    await until(shrunk, limit_s=60)
    await until(lambda: tree.hung({"relay1", "leaf1", "leaf2"}))
    assert len(await tree.seats()) == 1

    async def acted() -> list[str]:
        kinds = [e["kind"] for e in reversed(await tree.get("/api/log?limit=1000"))]
        return [k for k in kinds if k.startswith("tree.") and k.split(".")[1] in ACTIONS]

    async def all_told() -> bool:  # the log is written in batches
        return (await acted()).count("tree.node-switched-off") == 2

    await until(all_told)
    done = await acted()
    assert done[:2] == ["tree.relay-added", "tree.leaf-added"]
    assert sorted(set(done[2:])) in (
        ["tree.node-switched-off"],
        ["tree.leaf-draining", "tree.node-switched-off"],
    )


ACTIONS = {
    "leaf-added",
    "relay-added",
    "level-inserted",
    "leaf-draining",
    "leaf-undrained",
    "node-switched-off",
    "action-failed",
}


async def test_loss_at_one_leaf_lowers_its_rendition_until_it_is_over(quiet: Tree) -> None:
    began = time.time()
    async with viewers(quiet, {"leaf1": 2, "leaf2": 1, "leaf3": 1}) as (first, _, other, _):
        assert {rendition for _, rendition in await quiet.seats()} == {"high"}
        with loss(quiet.site, "leaf1"):

            async def lowered() -> bool:
                return [r for leaf, r in await quiet.seats() if leaf == "leaf1"] == ["low", "low"]

            await until(lowered)
            asked = {e["subject"] for e in await quiet.events("tree.asked") if e["time"] > began}
            assert asked == {"relay1", "leaf1"}  # the way down, and nobody else
            signs = [e for e in await quiet.events("tree.diagnosis") if e["time"] > began]
            assert {(e["subject"], e["data"]["suffer"]) for e in signs} == {("leaf1", "most")}
            assert {r for leaf, r in await quiet.seats() if leaf != "leaf1"} == {"high"}
            assert (await quiet.get("/api/tree/statistics"))["lowered"] == [
                {"node": "leaf1", "stream": "test1/high"}
            ]
        async with viewers(quiet, {"leaf1": 1}):
            at_leaf1 = [r for leaf, r in await quiet.seats() if leaf == "leaf1"]
            assert at_leaf1 == ["low"] * 3  # also who comes now

            async def restored() -> bool:
                return {r for _, r in await quiet.seats()} == {"high"}

            await until(restored)
        await first.frames(25)
        await other.frames(25)
    events = await quiet.events("tree.rendition-restored")
    assert [e["subject"] for e in events if e["time"] > began] == ["leaf1"]


async def test_one_bad_viewer_changes_nothing_for_the_others(quiet: Tree) -> None:
    began = time.time()
    async with viewers(quiet, {"leaf2": 3}) as (bad, *_):
        ports = {str(port) for port in _ports(bad)}
        with loss(quiet.site, "leaf2", f"udp dport {{ {', '.join(ports)} }}"):

            async def found() -> bool:
                told = await quiet.events("tree.diagnosis")
                return any(e["time"] > began for e in told)

            await until(found)
            await asyncio.sleep(5)
            told = [e for e in await quiet.events("tree.diagnosis") if e["time"] > began]
            assert {(e["subject"], e["data"]["suffer"]) for e in told} == {("leaf2", "few")}
            assert await quiet.seats() == [("leaf2", "high")] * 3
    assert not [e for e in await quiet.events("tree.rendition-lowered") if e["time"] > began]


def _ports(one: Viewer) -> set[int]:
    """Return the UDP ports of this machine that a viewer may receive at."""
    gatherer = one.connection.getTransceivers()[0].receiver.transport.transport.iceGatherer
    return {candidate.port for candidate in gatherer.getLocalCandidates()}
