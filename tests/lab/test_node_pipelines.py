"""Pipelines of the nodes of a running site, as an operator has them."""

import ctypes
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.lab.test_node_join import NODE, invite, is_serving, left_of, worlds
from tests.lab.test_site_failures import marked, namespaces
from tests.waiting import wait_until

from anabranch.app.bench.site_process import SiteProcess
from anabranch.site.plan import namespace_of
from anabranch.tree.pipelines.run import WORKER

pytestmark = pytest.mark.lab

SOUND = (
    "audiotestsrc ! audio/x-raw,format=S16LE,rate=48000,channels=1 ! opusenc ! rtpopuspay"
    " ! anabranchsink name=out"
)
RELAYED = (
    "anabranchsrc stream=sound"
    " caps=application/x-rtp,media=audio,clock-rate=48000,encoding-name=OPUS"
    " ! anabranchsink name=out"
)


@pytest.fixture(scope="module")
def site() -> Iterator[SiteProcess]:
    made = SiteProcess(TEST_CHANNELS="1")
    try:
        made.start()
        yield made
        assert made.api("PUT", at("relay", "last"), json={"description": SOUND}).is_success
        assert made.api("POST", at("relay", "last", "play")).is_success
        (worker,) = workers(made)
        assert made.stop() == 0
        assert not psutil.pid_exists(worker)
        assert namespaces(made.name) == []
        assert marked(made) == []
        assert not made.run_dir.exists()
    finally:
        made.remove()


def at(node: str, *words: str) -> str:
    return "/".join(("/api/nodes", node, "pipelines", *words))


def workers(site: SiteProcess) -> list[int]:
    """Processes of pipelines below the site's."""
    assert site.process is not None
    children = psutil.Process(site.process.pid).children(recursive=True)
    return [each.pid for each in children if str(WORKER) in each.cmdline()]


def changed(site: SiteProcess, method: str, path: str, **body: Any) -> dict[str, Any]:
    answer = site.api(method, path, **({"json": body} if body else {}))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def only(site: SiteProcess, node: str) -> dict[str, Any]:
    (found,) = site.api("GET", at(node)).json()
    result: dict[str, Any] = found
    return result


def address(site: SiteProcess, node: str) -> str:
    """The address of the host behind a node's switch; nodes are numbered from the root."""
    number = ("root", "relay", "leaf1", "leaf2").index(node) + 1
    return str(IPv4Network(site.settings["ADDRESSES__OVERLAY"])[number])


def receiver(site: SiteProcess, node: str) -> socket.socket:
    """Return a bound UDP socket of a node's namespace."""

    def make() -> socket.socket:
        with Path(f"/run/netns/{namespace_of(site.name, node)}").open() as namespace:
            # In a thread of its own, which ends: no other code is in that namespace.
            assert ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0) == 0
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(20.0)
        made.bind((address(site, node), 0))
        return made

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


@pytest.fixture(autouse=True)
def none_stays(request: pytest.FixtureRequest, site: SiteProcess) -> Iterator[None]:
    yield
    for node in ("root", "relay", "leaf2"):
        for each in site.api("GET", at(node)).json():
            assert site.api("DELETE", at(node, each["id"])).status_code == 204
    assert workers(site) == []


def test_a_pipeline_of_the_relay_reaches_a_leaf(site: SiteProcess) -> None:
    told = changed(site, "PUT", at("relay", "sound"), description=SOUND)
    assert (told["state"], told["outlets"]) == ("defined", {"out": []})
    with receiver(site, "leaf1") as leaf:
        to = f"{address(site, 'leaf1')}:{leaf.getsockname()[1]}"
        changed(site, "PUT", at("relay", "sound", "outlets", "out"), to=[to])
        told = changed(site, "POST", at("relay", "sound", "play"))
        assert (told["state"], told["outlets"], told["error"]) == ("playing", {"out": [to]}, None)
        for _ in range(50):
            data, sender = leaf.recvfrom(2048)
            assert data[0] >> 6 == 2, "RTP"
            assert sender[0] == address(site, "relay")
    assert changed(site, "POST", at("relay", "sound", "stop"))["state"] == "stopped"
    assert workers(site) == []
    assert only(site, "relay")["state"] == "stopped"


def test_one_pipeline_feeds_another_at_the_root_and_a_leaf(site: SiteProcess) -> None:
    told = changed(site, "PUT", at("leaf2", "on"), description=RELAYED)
    port = told["description"].partition("port=")[2].split()[0]
    changed(site, "POST", at("leaf2", "on", "play"))
    changed(site, "PUT", at("root", "sound"), description=SOUND)
    changed(site, "POST", at("root", "sound", "play"))
    source = f"{address(site, 'leaf2')}:{port}"
    changed(site, "PUT", at("root", "sound", "outlets", "out"), to=[source])
    with receiver(site, "leaf1") as leaf:
        to = f"{address(site, 'leaf1')}:{leaf.getsockname()[1]}"
        changed(site, "PUT", at("leaf2", "on", "outlets", "out"), to=[to])
        assert leaf.recvfrom(2048)[1][0] == address(site, "leaf2")


def test_a_killed_worker_is_started_again_and_the_root_told(site: SiteProcess) -> None:
    changed(site, "PUT", at("relay", "sound"), description=SOUND)
    changed(site, "POST", at("relay", "sound", "play"))
    (worker,) = workers(site)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: only(site, "relay")["restarts"] == 1, "nobody told")
    wait_until(lambda: only(site, "relay")["state"] == "playing", "it is not started again")
    assert "signal 9" in only(site, "relay")["error"]
    (again,) = workers(site)
    assert again != worker

    def is_logged() -> bool:
        log = site.api("GET", "/api/log?limit=50").json()
        changes = [each["data"] for each in log if each["kind"] == "pipeline.changed"]
        return any(change["state"] == "failed" for change in changes)

    wait_until(is_logged, "the log does not have it")


@pytest.mark.parametrize(
    ("method", "words", "body", "status", "reason"),
    [
        (
            *("PUT", ("relay", "x"), {"description": "filesrc ! anabranchsink name=o"}),
            *(422, "filesrc"),
        ),
        ("PUT", ("relay", "x"), {"description": "anabranchsrc ! ! fakesink"}, 422, ""),
        ("PUT", ("relay", "x"), {"description": "x" * 9000}, 422, "description"),
        ("PUT", ("relay", "x" * 200), {"description": SOUND}, 422, "pipeline"),
        ("PUT", ("nowhere", "x"), {"description": SOUND}, 404, "no node named 'nowhere'"),
        ("POST", ("relay", "x", "play"), None, 404, "there is no pipeline x"),
        ("DELETE", ("relay", "x"), None, 404, "there is no pipeline x"),
        ("PUT", ("relay", "s", "outlets", "out"), {"to": ["127.0.0.1:5004"]}, 422, "overlay"),
        ("PUT", ("relay", "s", "outlets", "out"), {"to": ["news:5004"]}, 422, "not an IP"),
        ("PUT", ("relay", "s", "outlets", "out"), {"to": ["10.98.0.1"]}, 422, "ADDRESS:PORT"),
        ("PUT", ("relay", "s", "outlets", "in"), {"to": []}, 404, "no outlet in"),
    ],
)
def test_what_is_not_allowed_is_told(
    site: SiteProcess,
    method: str,
    words: tuple[str, ...],
    body: dict[str, Any] | None,
    status: int,
    reason: str,
) -> None:
    changed(site, "PUT", at("relay", "s"), description=SOUND)
    answer = site.api(method, at(*words), json=body)
    assert answer.status_code == status, answer.text
    assert reason in answer.json()["detail"]
    assert only(site, "relay")["state"] == "defined"


def test_a_node_on_another_machine_has_pipelines() -> None:
    with worlds() as (world, site, node):
        node.start(invite(site))
        wait_until(lambda: is_serving(site))
        changed(site, "PUT", at(NODE, "sound"), description=SOUND)
        changed(
            site, "PUT", at(NODE, "sound", "outlets", "out"), to=[f"{address(site, 'relay')}:1024"]
        )
        assert changed(site, "POST", at(NODE, "sound", "play"))["state"] == "playing"
        assert node.stop() == 0
        assert left_of(world) == []
        assert site.api("GET", at(NODE)).json() == []


def test_the_command_line_has_all_of_it(site: SiteProcess) -> None:
    to = f"{address(site, 'leaf1')}:5004"
    for arguments, words in (
        (["list", "relay"], "relay has no pipelines"),
        (["define", "relay", "sound", SOUND], "sound defined"),
        (["route", "relay", "sound", "out", to], f"out to {to}"),
        (["play", "relay", "sound"], "sound playing"),
        (["list", "relay"], "playing"),
        (["stop", "relay", "sound"], "sound stopped"),
        (["remove", "relay", "sound"], "sound is removed"),
    ):
        found = site.command("pipeline", *arguments)
        assert found.returncode == 0, found.stderr
        assert words in found.stdout
    refused = site.command("pipeline", "define", "relay", "x", "filesrc ! anabranchsink name=o")
    assert refused.returncode == 1
    assert "filesrc" in refused.stderr
