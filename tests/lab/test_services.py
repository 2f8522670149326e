"""Messages on a real path: diverted by netfilter, carried by UDP and TCP, answered hop by hop."""

import hashlib
import json
import secrets
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.lab.inside import socket_in
from tests.lab.service_path import (
    ARCHIVE,
    DESTINATION,
    DESTINATION_6,
    NODE_A,
    NODE_B,
    SENDER,
    WEB_PORT,
    ServicePath,
)
from tests.lab.two_bridges import packet_socket, run

from anabranch.services.keys import PrivateKey
from anabranch.services.node.diversion import TABLE
from anabranch.services.node.sending import Signaller, proving
from anabranch.services.signalling import request as requests
from anabranch.services.signalling.compose import Author, compose, setup_headers
from anabranch.services.signalling.message import Method
from anabranch.services.signalling.sender import Result

pytestmark = pytest.mark.lab
NAME = "Shelved_1.0"
URL = f"http://{SENDER}:{WEB_PORT}/module.zip"
DIGEST = hashlib.sha256(ARCHIVE).digest()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServicePath]:
    made = ServicePath(tmp_path_factory.mktemp("services"))
    try:
        made.build()
        yield made
    finally:
        made.close()


def setup(path: ServicePath, author: Author | None = None, **more: Any) -> bytes:
    headers = setup_headers(URL, DIGEST, more.pop("ttl", 60), **more)
    return message(path, Method.SETUP, headers, author)


def message(
    path: ServicePath, method: Method, headers: Any = None, author: Author | None = None
) -> bytes:
    return compose(
        author or path.author,
        method,
        NAME,
        headers or {},
        wall_time=time.time(),
        nonce=secrets.token_bytes(16),
    )


def stack(result: Result) -> list[tuple[str, int]]:
    assert result.response, result.reason
    return [(hop.node_id, hop.status) for hop in result.response.hops]


def test_setup_probe_and_remove_at_each_node_in_the_order_of_the_path(path: ServicePath) -> None:
    async def use(signaller: Signaller) -> list[Result]:
        session = signaller.session(DESTINATION)
        probe = {"probe": "address,status,capabilities"}
        results = [await signaller.ask(session, setup(path, filter_proto="udp"))]
        results.append(await signaller.ask(session, message(path, Method.PROBE, probe)))
        assert path.installed("a") == path.installed("b") == [NAME]
        results.append(await signaller.ask(session, message(path, Method.REMOVE)))
        return results

    began = time.monotonic()
    installed, probed, removed = path.sending(use)
    assert time.monotonic() - began < 3.0, "the last node is found by ICMP, not by waiting"
    assert stack(installed) == stack(probed) == stack(removed) == [("a", 200), ("b", 200)]
    assert [hop.details["filter"] for hop in installed.response.hops] == ["10.77.1.1/32"] * 2
    assert [hop.details["address"] for hop in probed.response.hops] == [NODE_A, NODE_B]
    assert probed.response.hops[1].details["bytes"] == str(len(ARCHIVE))
    assert path.installed("a") == path.installed("b") == []


def test_the_same_by_ipv6(path: ServicePath) -> None:
    async def use(signaller: Signaller) -> Result:
        probe = message(path, Method.PROBE, {"probe": "address"})
        return await signaller.ask(signaller.session(DESTINATION_6), probe)

    began = time.monotonic()
    result = path.sending(use)
    assert [hop.details["address"] for hop in result.response.hops] == ["fd77:1::2", "fd77:3::2"]
    assert time.monotonic() - began < 3.0


def test_replays_are_refused_and_renewals_are_not(path: ServicePath) -> None:
    async def use(signaller: Signaller) -> list[Result]:
        session = signaller.session(DESTINATION)
        first, forged = setup(path), setup(path, Author("janedoe", PrivateKey.generate()))
        results = [await signaller.ask(session, first)]
        results.append(await signaller.ask(session, setup(path)))
        results.append(await signaller.ask(signaller.session(DESTINATION), first))
        results.append(await signaller.ask(session, forged))
        await signaller.ask(session, message(path, Method.REMOVE))
        return results

    first, again, replayed, forged = path.sending(use)
    assert stack(first) == stack(again) == [("a", 200), ("b", 200)]
    assert again.response.hops[0].reason == "renewed"
    assert stack(replayed) == [("a", 409)]
    assert stack(forged) == [("a", 401)]


def test_an_address_elsewhere_is_claimed_by_answering_there(path: ServicePath) -> None:
    elsewhere = "10.78.0.1"  # of the sender, but in none of its prefixes
    run("ip", "-n", path.netns("s"), "addr", "add", f"{elsewhere}/32", "dev", "lo")
    for name, via in (("a", "10.77.1.1"), ("r", "10.77.2.1"), ("b", "10.77.3.1")):
        run("ip", "-n", path.netns(name), "route", "replace", elsewhere, "via", via)
    claim = {"filter_dst": elsewhere, "filter_proto": "udp", "password": "a one-time password"}

    async def use(signaller: Signaller) -> list[Result]:
        session = signaller.session(DESTINATION)
        results = [await signaller.ask(session, setup(path, **claim))]
        proved, stolen = setup(path, **claim), setup(path, **claim)
        async with proving([requests.parse(proved)], elsewhere, 80):
            results.append(await signaller.ask(session, stolen))
            results.append(await signaller.ask(session, proved))
        await signaller.ask(session, message(path, Method.REMOVE))
        return results

    unproved, stolen, proved = path.sending(use)
    assert stack(unproved) == stack(stolen) == [("a", 403), ("b", 403)]
    assert stack(proved) == [("a", 200), ("b", 200)]


def test_large_messages_go_by_tcp(path: ServicePath) -> None:
    async def use(signaller: Signaller) -> Result:
        large = setup(path, properties={"text": "x" * 8000})
        result = await signaller.ask(signaller.session(DESTINATION), large)
        listed = run("ip", "netns", "exec", path.netns("a"), "ss", "-Htn", "state", "established")
        assert ":270" in listed
        return result

    assert stack(path.sending(use)) == [("a", 200), ("b", 200)]


def test_queries_are_diverted_and_nothing_else_is(path: ServicePath) -> None:
    wires = {name: socket_in(path.netns(name), packet_socket("right")) for name in ("s", "a", "b")}

    def queries(name: str, source: str) -> int:
        """Count packets to the destination's port 270 seen on a wire, from one address."""
        count = 0
        while True:
            try:
                frame = wires[name].recv(2048)
            except BlockingIOError:
                return count
            wanted = (frame[23] == 17, frame[26:30] == bytes(map(int, source.split("."))),
                      frame[36:38] == (270).to_bytes(2, "big"))  # fmt: skip
            count += all(wanted) and frame[30:34] == DESTINATION.packed

    async def use(signaller: Signaller) -> Result:
        return await signaller.ask(
            signaller.session(DESTINATION), message(path, Method.PROBE, {"probe": "node-id"})
        )

    try:
        assert stack(path.sending(use)) == [("a", 200), ("b", 200)]
        assert queries("s", str(SENDER)) == 1
        assert queries("a", str(SENDER)) == 0, "diverted at a, not copied"
        assert queries("b", "10.77.2.1") == 0, "a's own was diverted at b"
        other = socket_in(path.netns("s"), lambda: socket.socket(type=socket.SOCK_DGRAM))
        other.sendto(b"no GIST at all", (str(DESTINATION), 270))
        other.close()
        time.sleep(0.3)
        assert queries("b", str(SENDER)) == 1, "it goes on in its sender's name"
    finally:
        for wire in wires.values():
            wire.close()


def test_the_command_line(path: ServicePath) -> None:
    where = str(DESTINATION)
    install = ("install", NAME, where, "--url", URL, "--filter", "udp:5060", "--json")
    done = path.command(*install)
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in json.loads(done.stdout)] == [200, 200]
    done = path.command(*install, "--back")
    assert [row["node"] for row in json.loads(done.stdout)] == ["b", "a"]
    done = path.command("probe", NODE_A, NAME)
    assert "shelved" in done.stdout, "a node itself can be the destination"
    assert path.command("remove", NAME, where).returncode == 0
    assert path.installed("a") == path.installed("b") == []


def test_an_archive_other_than_the_message_says_is_refused(path: ServicePath) -> None:
    async def use(signaller: Signaller) -> Result:
        headers = setup_headers(URL, bytes(32), 60)
        data = message(path, Method.SETUP, headers)
        return await signaller.ask(signaller.session(DESTINATION), data)

    assert stack(path.sending(use)) == [("a", 502), ("b", 502)]


def test_modules_expire_and_a_stopped_node_leaves_nothing(path: ServicePath) -> None:
    async def use(signaller: Signaller) -> Result:
        return await signaller.ask(signaller.session(DESTINATION), setup(path, ttl=1))

    assert stack(path.sending(use)) == [("a", 200), ("b", 200)]
    until = time.monotonic() + 5
    while path.installed("a") and time.monotonic() < until:
        time.sleep(0.1)
    assert path.installed("a") == path.installed("b") == []
    path.stop("b")
    tables = run("ip", "netns", "exec", path.netns("b"), "nft", "list", "tables")
    assert TABLE not in tables
    assert "270" not in run("ip", "-n", path.netns("b"), "rule")
    assert stack(path.sending(use)) == [("a", 200)]
