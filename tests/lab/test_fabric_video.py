"""The network and its controllers break under live video, and a browser does not notice.

The leaves are joined by a redundancy link, links are watched by BFD, and there are two controllers.
How long a picture stands still is measured by ``anabranch bench failover``; here it must go on by
itself: the same connection, and the same seat.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from tests.lab.page import Page, Watching
from tests.waiting import wait_until

from anabranch.app.bench.failover import REDUNDANT, black_hole, leaf_of, link_down
from anabranch.app.bench.site_process import SiteProcess, running_site

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def redundant() -> Iterator[SiteProcess]:
    with running_site(**REDUNDANT) as site:
        yield site


@pytest.fixture
def page(redundant: SiteProcess, watch: Watching) -> Page:
    # It stays at its rendition, whatever is lost.
    page = watch(redundant.url, "test1", "?rendition=high")
    page.wait_for_picture()
    time.sleep(1.0)
    return page


def links_of(site: SiteProcess, name: str) -> set[tuple[str, str]]:
    path: dict[str, Any] = site.api("GET", "/api/fabric/paths?limit=100").json()
    flow = next(item for item in path["items"] if item["name"] == name)
    return {(hop["src"], hop["dst"]) for hop in flow["links"]}


def reserves(site: SiteProcess) -> set[tuple[str, str]]:
    items = site.api("GET", "/api/fabric/links").json()["items"]
    return {(link["src"], link["dst"]) for link in items if link["redundant"]}


def fed(site: SiteProcess, name: str) -> set[str]:
    """The leaves that a flow goes to; for some seconds also that of a viewer who has left."""
    return {dst.partition(":")[0] for _, dst in links_of(site, name)} & {"leaf1", "leaf2"}


def goes_on(page: Page) -> None:
    """The picture is fresh, and over the connection it always had."""
    assert page.outage(5.0) < 4.0
    assert page.evaluate("window.anabranch.reconnects") == 0


@pytest.mark.parametrize("broken", [pytest.param(link_down, marks=pytest.mark.proof), black_hole])
def test_a_broken_link_is_bypassed_and_then_planned_around(
    redundant: SiteProcess,
    page: Page,
    broken: Callable[[SiteProcess], AbstractContextManager[None]],
) -> None:
    seat = leaf_of(redundant)
    wait_until(
        lambda: fed(redundant, "test1/high") == {seat},
        "an earlier viewer's leaf is fed on",
        limit_s=30,
    )
    way = links_of(redundant, "test1/high")
    assert not way & reserves(redundant)
    with broken(redundant):
        goes_on(page)
        wait_until(
            lambda: bool(links_of(redundant, "test1/high") & reserves(redundant)),
            "the controller has not planned anew",
        )
        goes_on(page)
    # Not before the damping ends, should the link have flapped besides.
    wait_until(
        lambda: links_of(redundant, "test1/high") == way,
        "the tree link is not used again",
        limit_s=75,
    )
    goes_on(page)
    assert leaf_of(redundant) == seat


def test_a_viewer_misses_nothing_when_the_controller_at_work_is_killed(
    redundant: SiteProcess, page: Page, watch: Watching
) -> None:
    before = redundant.api("GET", "/api/site").json()
    lost = page.stats()["packetsLost"]
    os.kill(before["children"][before["controller"]]["pid"], signal.SIGKILL)
    wait_until(
        lambda: (
            redundant.api("GET", "/api/site").json()["controller"]
            not in (None, before["controller"])
        ),
        "nobody has taken over",
    )
    # Whoever took over carries what is wanted now.
    other = watch(redundant.url, "test2")
    other.wait_for_picture()
    goes_on(page)
    assert page.stats()["packetsLost"] == lost


def test_a_viewer_misses_nothing_while_there_is_no_controller_at_all(
    redundant: SiteProcess, page: Page, watch: Watching
) -> None:
    lost = page.stats()["packetsLost"]
    children = redundant.api("GET", "/api/site").json()["children"]
    pids = {name: children[name]["pid"] for name in ("controller1", "controller2")}
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: redundant.api("GET", "/api/site").json()["controller"] is not None,
        "no controller is back at work",
    )
    watch(redundant.url, "test2").wait_for_picture()
    goes_on(page)
    assert page.stats()["packetsLost"] == lost


def path_named(name: str, port: int) -> dict[str, Any]:
    return {
        "name": name,
        "ingress": "root:1",
        "egresses": [{"at": "leaf1:1"}, {"at": "leaf2:1"}],
        "match": {"eth_type": 2048, "ip_proto": 17, "udp_dst": port},
    }


def own_paths(site: SiteProcess) -> set[str]:
    items = site.api("GET", "/api/fabric/paths?limit=1000").json()["items"]
    return {item["name"] for item in items if item["own"]}


def test_what_several_operators_do_at_once_is_all_done(redundant: SiteProcess) -> None:
    names = [f"lecture{number}" for number in range(16)]

    def add(name: str) -> int:
        wanted = path_named(name, 7000 + names.index(name))
        return redundant.api("POST", "/api/fabric/paths", json=wanted).status_code

    def remove(name: str) -> int:
        return redundant.api("DELETE", f"/api/fabric/paths/{name}").status_code

    with ThreadPoolExecutor(4) as operators:
        assert set(operators.map(add, names)) == {201}
        assert own_paths(redundant) == set(names)
        assert set(operators.map(remove, names)) == {204}
    assert own_paths(redundant) == set()


def test_a_service_nodes_key_is_passed_on_by_the_director(redundant: SiteProcess) -> None:
    key = redundant.api("GET", "/api/fabric/service-nodes/n1/key").json()["key"]
    node = {"at": "leaf1:77", "mac": "02:00:00:00:01:01", "address": "10.0.0.101", "seconds": 60}

    def say(method: str, name: str) -> int:
        path = f"{redundant.url}/api/fabric/service-nodes/{name}"
        shown = {"Authorization": f"Bearer {key}"}
        return httpx.request(method, path, json=node, headers=shown, timeout=20.0).status_code

    assert (say("PUT", "n1"), say("PUT", "n2")) == (200, 401)
    assert redundant.api("GET", "/api/fabric/service-nodes").json()[0]["name"] == "n1"
    assert (say("DELETE", "n2"), say("GET", "n1"), say("DELETE", "n1")) == (401, 401, 204)


def test_a_new_controller_touches_no_rule_that_stays(redundant: SiteProcess, page: Page) -> None:
    """Neither the site's nor an operator's, though they come from different askers."""

    def ages() -> dict[str, float]:
        flows = redundant.api("GET", "/api/fabric/datapaths/relay/flows?table=3").json()["items"]
        return {str(f["match"]): f["duration_s"] for f in flows if f["priority"] > 0}

    added = redundant.api("POST", "/api/fabric/paths", json=path_named("lecture", 7100))
    assert added.status_code == 201, added.text
    time.sleep(1.0)
    before = ages()
    assert len(before) >= 3  # sound, picture, lecture
    began = time.monotonic()
    children = redundant.api("GET", "/api/site").json()["children"]
    for name in ("controller1", "controller2"):
        os.kill(children[name]["pid"], signal.SIGKILL)
    wait_until(
        lambda: redundant.api("GET", "/api/site").json()["controller"] is not None,
        "no controller is back at work",
    )
    time.sleep(2.0)  # it has told the switches what it wants
    passed = time.monotonic() - began
    after = ages()
    assert after.keys() == before.keys()
    assert all(after[match] >= before[match] + passed - 0.5 for match in before)
    assert own_paths(redundant) == {"lecture"}
    assert redundant.api("DELETE", "/api/fabric/paths/lecture").status_code == 204
