"""Nodes come and go under live video: started, inserted, drained, switched off, dead and back.

Seven nodes, of which four idle; the director programs the switches itself, or a controller in a
process of its own does. The browser is on another computer: one on the site's own machine comes
from the address of a link to a leaf, which goes with that leaf.
"""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from tests.lab.computer import Computer
from tests.lab.page import BrowserThread, Page, Watching
from tests.lab.test_site_failures import links, marked, namespaces
from tests.lab.viewer import viewer
from tests.waiting import wait_until

from anabranch.app.bench.recovery import SAMPLER, standstill, wait_until_steady
from anabranch.app.bench.site_process import SiteProcess
from anabranch.site.plan import namespace_of

pytestmark = pytest.mark.lab

NODES = [
    {"name": "root", "role": "root"},
    {"name": "relay1", "role": "relay", "parent": "root"},
    {"name": "relay2", "role": "relay", "parent": "relay1", "idle": True},
    {"name": "leaf1", "role": "leaf", "parent": "relay1"},
    {"name": "leaf2", "role": "leaf", "parent": "relay1", "idle": True, "capacity": 2},
    {"name": "leaf3", "role": "leaf", "parent": "relay1", "idle": True},
    {"name": "leaf4", "role": "leaf", "parent": "relay1", "idle": True},
]
LINKS = [{"between": ["relay2", f"leaf{number}"]} for number in range(1, 5)]
TREE = {
    "NODES": json.dumps(NODES),
    "LINKS": json.dumps(LINKS),
    "TEST_CHANNELS": "1",
    "TREE__ACT": "false",  # here the test is who acts
}
HERE, THERE = "10.96.2.1", "10.96.2.2"


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[BrowserThread]:
    """A browser on another computer."""
    computer = Computer(HERE, THERE, 24)
    try:
        browser = BrowserThread(computer.name)
        yield browser
        browser.close()
    finally:
        computer.remove()


@pytest.fixture(
    scope="module",
    params=["0", pytest.param("1", marks=pytest.mark.proof)],
    ids=["inside", "separate"],
)
def seven(
    request: pytest.FixtureRequest,
    elsewhere: BrowserThread,  # its address is the site's public one
) -> Iterator[SiteProcess]:
    site = SiteProcess(**TREE, FABRIC__CONTROLLERS=request.param, PUBLIC_ADDRESS=HERE)
    try:
        site.start()
        yield site
        assert site.stop() == 0
        nothing_left(site)
    finally:
        site.remove()


@pytest.fixture(autouse=True)
def as_at_first(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test has started is idle again afterwards."""
    yield
    if "seven" in request.fixturenames:
        site: SiteProcess = request.getfixturevalue("seven")
        for name in ("leaf2", "leaf3", "leaf4", "relay2"):
            done(site, name, "stop", patience_s=0)
        done(site, "leaf1", "undrain")


@pytest.fixture
def page(seven: SiteProcess, elsewhere: BrowserThread) -> Iterator[Page]:
    watch = Watching(elsewhere)
    page = watch(f"http://{HERE}:{seven.port}", "test1")
    page.wait_for_picture()
    time.sleep(1.0)
    yield page
    watch.close()


def nothing_left(site: SiteProcess) -> None:
    assert namespaces(site.name) == []
    assert marked(site) == []
    assert links(site.name) == set()
    assert not site.run_dir.exists()


def done(site: SiteProcess, node: str, what: str, **how: Any) -> dict[str, Any]:
    body = {"json": how} if how else {}
    answer = site.api("POST", f"/api/nodes/{node}/{what}", **body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(site: SiteProcess, node: str, what: str, **how: Any) -> str:
    body = {"json": how} if how else {}
    answer = site.api("POST", f"/api/nodes/{node}/{what}", **body)
    assert answer.status_code in (404, 409, 422), answer.text
    return str(answer.json()["detail"])


def parents(site: SiteProcess) -> dict[str, str | None]:
    return {node["name"]: node["parent"] for node in site.api("GET", "/api/tree").json()["nodes"]}


def states(site: SiteProcess) -> dict[str, str]:
    return {node["name"]: node["state"] for node in site.api("GET", "/api/nodes").json()}


def undisturbed(page: Page) -> None:
    stats = page.stats()
    assert page.evaluate("window.anabranch.reconnects") == 0
    assert stats["packetsLost"] == 0


async def leaf_of_the_next_viewer(site: SiteProcess) -> str:
    """Have somebody play and leave again; return the leaf that it was sent to."""
    before = viewers(site)
    async with viewer() as one, httpx.AsyncClient() as client:

        async def ask(offer: str) -> str:
            headers = {"Content-Type": "application/sdp"}
            answer = await client.post(f"{site.url}/whep/test1", content=offer, headers=headers)
            assert answer.status_code == 201, answer.text
            places.append(answer.headers["location"])
            return answer.text

        places: list[str] = []
        await one.watch(ask)
        await one.frames(10)
        (leaf,) = viewers(site) - before
        await client.delete(f"{site.url}{places[0]}")
    return leaf


def viewers(site: SiteProcess) -> Counter[str]:
    nodes = site.api("GET", "/api/nodes").json()
    return Counter({node["name"]: node["viewers"] or 0 for node in nodes})


async def test_a_leaf_comes_and_goes_while_a_browser_plays(seven: SiteProcess, page: Page) -> None:
    assert done(seven, "leaf3", "start")["state"] == "up"
    assert done(seven, "leaf3", "start")["state"] == "up", "once more changes nothing"
    assert parents(seven)["leaf3"] == "relay1"
    done(seven, "leaf1", "drain")
    assert await leaf_of_the_next_viewer(seven) == "leaf3"
    done(seven, "leaf1", "undrain")
    assert done(seven, "leaf3", "drain")["state"] == "draining"
    assert await leaf_of_the_next_viewer(seven) == "leaf1"
    assert done(seven, "leaf3", "stop")["state"] == "idle"
    assert "leaf3" not in parents(seven)
    assert namespace_of(seven.name, "leaf3") not in namespaces(seven.name)
    assert not (seven.run_dir / "leaf3").exists()
    assert "leaf3" not in (seven.run_dir / "journal.jsonl").read_text()
    undisturbed(page)


def test_a_level_is_inserted_and_taken_out_without_a_packet_lost(
    seven: SiteProcess, page: Page
) -> None:
    done(seven, "leaf2", "start")
    done(seven, "relay2", "start", below="relay1")
    hang = parents(seven)
    assert (hang["relay2"], hang["leaf1"], hang["leaf2"]) == ("relay1", "relay2", "relay2")

    def hops() -> set[str]:
        found = seven.api("GET", "/api/fabric/paths?limit=100").json()["items"]
        return {hop["dst"].partition(":")[0] for flow in found for hop in flow["links"]}

    wait_until(lambda: "relay2" in hops(), "the picture does not go by the new relay")
    time.sleep(1.0)
    undisturbed(page)
    done(seven, "relay2", "stop")
    assert parents(seven)["leaf1"] == "relay1"
    assert "relay2" not in hops()
    time.sleep(1.0)
    undisturbed(page)


def test_a_page_whose_leaf_is_switched_off_plays_on_from_another(
    seven: SiteProcess, page: Page
) -> None:
    assert states(seven)["leaf1"] == "up"
    assert "cannot be spared" in refused(seven, "leaf1", "stop"), "it is the last leaf"
    done(seven, "leaf2", "start")
    page.evaluate(SAMPLER)
    time.sleep(1.0)
    done(seven, "leaf1", "stop", patience_s=0)
    try:
        gap_ms = page.with_page(lambda raw: standstill(wait_until_steady(raw)))
        assert gap_ms < 3000
        assert page.evaluate("window.anabranch.reconnects") == 1
        (seat,) = seven.api("GET", "/api/seats").json()
        assert seat["leaf"] == "leaf2"
    finally:
        done(seven, "leaf1", "start")


async def test_a_full_leaf_takes_nobody_more(seven: SiteProcess) -> None:
    done(seven, "leaf2", "start")
    done(seven, "leaf1", "drain")
    async with viewer() as one, httpx.AsyncClient() as client:
        codes: list[int] = []

        async def ask(offer: str) -> str:
            headers = {"Content-Type": "application/sdp"}
            url = f"{seven.url}/whep/test1"
            answers = [await client.post(url, content=offer, headers=headers) for _ in range(3)]
            codes.extend(answer.status_code for answer in answers)
            return answers[0].text

        await one.watch(ask)
        await one.frames(5)
    assert codes == [201, 201, 503]


def test_who_asks_for_what_cannot_be_is_told(seven: SiteProcess) -> None:
    assert "no node named" in refused(seven, "nowhere", "start")
    assert "no leaf that is up" in refused(seven, "leaf4", "drain")
    assert "root" in refused(seven, "root", "stop")
    assert "no node named" in refused(seven, "relay2", "start", below="nowhere")
    assert "only a relay is put below" in refused(seven, "leaf3", "start", below="relay1")
    assert "relay1 hangs from root already" in refused(seven, "relay1", "start", below="leaf1")
    assert "leaf1 is a leaf" in refused(seven, "relay2", "start", below="leaf1")
    assert states(seven)["relay2"] == "idle"
    url = f"{seven.url}/api/nodes/leaf3/start"
    assert httpx.post(url, timeout=5).status_code == 401
    assert "leaf3" not in parents(seven)


def test_what_is_asked_for_at_the_same_time_is_all_done(seven: SiteProcess) -> None:
    names = ["leaf2", "leaf3", "leaf4", "relay2", "leaf3"]
    with ThreadPoolExecutor(5) as operators:
        list(operators.map(lambda name: done(seven, name, "start"), names))
        assert set(states(seven).values()) == {"up"}
        list(operators.map(lambda name: done(seven, name, "stop", patience_s=0), names))
    assert sorted(parents(seven)) == ["leaf1", "relay1", "root"]
    assert len(namespaces(seven.name)) == 3


@contextmanager
def killed(site: SiteProcess, child: str) -> Iterator[None]:
    """Kill a child, and each next life of it as soon as it is seen."""
    over = Event()

    def kill() -> None:
        while not over.is_set():
            pid = site.api("GET", "/api/site").json()["children"][child]["pid"]
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
            over.wait(0.05)

    with ThreadPoolExecutor(1) as thread:
        killing = thread.submit(kill)
        try:
            yield
        finally:
            over.set()
            killing.result()


@contextmanager
def cut_off(site: SiteProcess, node: str) -> Iterator[None]:
    """Take the links of a node down."""
    namespace = namespace_of(site.name, node)
    found = subprocess.run(
        ["ip", "-n", namespace, "-j", "link"], capture_output=True, text=True, check=True
    ).stdout
    names = [link["ifname"] for link in json.loads(found) if link["ifname"].startswith("to")]
    _set(namespace, names, "down")
    try:
        yield
    finally:
        _set(namespace, names, "up")


def _set(namespace: str, names: list[str], state: str) -> None:
    for name in names:
        subprocess.run(["ip", "-n", namespace, "link", "set", name, state], check=True)


@pytest.mark.parametrize("how", [killed, cut_off])
def test_the_children_of_a_dead_relay_hang_elsewhere_until_it_is_back(
    seven: SiteProcess, page: Page, how: Callable[..., Any]
) -> None:
    dead = "relay1-vswitchd" if how is killed else "relay1"
    with how(seven, dead):
        wait_until(
            lambda: parents(seven).get("leaf1") == "root", "the leaf hangs from the dead relay"
        )
        assert states(seven)["relay1"] == "down"
        assert page.outage(8.0) < 5.0
    wait_until(
        lambda: parents(seven)["leaf1"] == "relay1", "it does not take its place again", limit_s=30
    )
    assert states(seven)["relay1"] == "up"
    assert page.outage(8.0) < 5.0
    assert page.evaluate("performance.getEntriesByType('navigation')[0].type") == "navigate"


def test_the_command_line_shows_and_changes_the_tree(seven: SiteProcess) -> None:
    for arguments, words in (
        (["show"], "not in the tree: leaf3 leaf idle"),
        (["start", "leaf3"], "leaf3 leaf up, 0 viewers"),
        (["drain", "leaf3"], "draining"),
        (["undrain", "leaf3"], "up"),
        (["show"], "leaf3 leaf up"),
        (["stop", "leaf3", "--patience", "0"], "idle"),
    ):
        found = seven.command("tree", *arguments)
        assert found.returncode == 0, found.stderr
        assert words in found.stdout
    assert seven.command("tree", "start", "nowhere").returncode == 1
    shown = json.loads(seven.command("tree", "show", "--json").stdout)
    assert {node["name"] for node in shown["nodes"]} == {"root", "relay1", "leaf1"}
    metrics = seven.api("GET", "/metrics").text
    assert 'anabranch_node_up{node="relay1",role="relay"} 1.0' in metrics
    assert "anabranch_nodes_idle 4.0" in metrics


def test_what_was_started_is_removed_after_kill_9_too() -> None:
    site = SiteProcess(**TREE)
    try:
        site.start()
        done(site, "leaf3", "start")
        assert Path(f"/run/netns/{namespace_of(site.name, 'leaf3')}").exists()
        site.kill()
        assert site.command("down").returncode == 0
        nothing_left(site)
    finally:
        site.remove()
