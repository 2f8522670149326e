"""ARP, DHCP and ping between real hosts over real switches, and nobody else hears any of it."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Interface

import pytest
from tests.fabric.host_services.line import S23, Dhcp
from tests.lab.host_line import FIRST, HOSTS, LAST, MACS, SERVER_ADDRESS, HostLine
from tests.lab.two_bridges import run

from anabranch.fabric import frames
from anabranch.fabric.moves import probe_frame
from anabranch.fabric.openflow.oxm import ETH_IPV4, IP_ICMP, Match
from anabranch.fabric.tables import COOKIE_MASK, REACTIVE_COOKIE

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
async def line() -> AsyncIterator[HostLine]:
    made = HostLine()
    try:
        await made.build()
        await made.serve("server", SERVER_ADDRESS, str(FIRST), str(LAST))
        yield made
    finally:
        await made.tear_down()


async def reactive(line: HostLine, *protocols: int) -> dict[str, int]:
    """Return how many reactive rules each switch holds, for these IP protocols or all."""
    counts = {}
    for name in line.switches:
        counts[name] = sum(
            flow.cookie & COOKIE_MASK == REACTIVE_COOKIE
            and (not protocols or flow.match.ip_proto in protocols)
            for flow in await line.fabric.flows(name)
        )
    return counts


async def until(
    line: HostLine, wanted: Callable[[dict[str, int]], bool], patience: float = 8.0
) -> float:
    """Wait for the switches to hold as many reactive rules as wanted; return the seconds."""
    began = time.monotonic()
    while not wanted(await reactive(line)):
        assert time.monotonic() - began < patience, await reactive(line)
        await asyncio.sleep(0.05)
    return time.monotonic() - began


def report(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")


def nobody(counts: dict[str, int]) -> bool:
    return not any(counts.values())


async def test_leases_and_pings_reach_those_concerned_and_nobody_else(line):
    a = await line.lease("a")
    b = await line.lease("b", flags=0)  # answers to its own address
    known = line.fabric.network().hosts
    assert {mac: known[mac].ipv4 for mac in (MACS["a"], MACS["b"])} == {MACS["a"]: a, MACS["b"]: b}
    began = time.monotonic()
    assert await line.ping("a", b)
    report(f"first ping, with its process, ARP and rules: {time.monotonic() - began:.3f} s")
    assert await reactive(line) == {"s1": 2, "s2": 2, "s3": 2}
    assert MACS["b"] in run("ip", "-n", line.namespace("a"), "neigh", "show", b)
    assert await line.ping("b", a, count=5)
    assert await line.heard("c") == []
    assert await line.heard("x") == []
    seen = [frames.parse(frame) for frame in await line.heard("b")]
    assert {headers.mac("eth_dst") for headers in seen} == {MACS["b"]}
    assert {headers.get("eth_type") for headers in seen} <= {frames.ETH_ARP, frames.ETH_IPV4}
    for headers in seen:
        if headers.get("eth_type") == frames.ETH_ARP:  # answers to its own questions only
            assert headers.get("arp_op") == frames.ARP_REPLY


async def test_rules_live_while_they_are_used_and_no_longer(line):
    await line.lease("a")
    b = await line.lease("b")
    assert await line.ping("a", b, count=20)  # 4 s, twice the time-out
    asked = line.fabric.counters()["unicast_connected"]
    assert asked <= 3  # the answer may overtake the rules, and be sent on by the controller as well
    report(f"idle rules gone after {await until(line, nobody):.1f} s")
    assert await line.ping("a", b)
    assert line.fabric.counters()["unicast_connected"] > asked


async def test_other_traffic_goes_nowhere(line):
    a = await line.lease("a")
    b = await line.lease("b")
    assert await line.ping("a", b)
    for name in HOSTS:
        await line.heard(name)
    for port in (7, 9, 5004):
        line.send("a", frames.ipv4_udp(MACS["b"], MACS["a"], a, b, 4000, port, b"x"))
    line.send("a", frames.ethernet(frames.BROADCAST, MACS["a"], 0x0842, bytes(60)))
    for name in HOSTS:
        assert await line.heard(name) == []


async def test_a_rogue_server_hears_nothing_and_is_not_heard(line):
    await line.serve("x", IPv4Interface("10.0.0.200/24"), "10.0.0.210", "10.0.0.220")
    for name in ("a", "b", "c"):
        assert (await line.lease(name)).startswith("10.0.0.1")
    assert [frame for frame in await line.heard("x") if frames.parse(frame).get("udp_dst")] == []
    rogue = Dhcp(5, MACS["c"], op=2, yiaddr="10.0.0.213")
    for eth_dst in (frames.BROADCAST, MACS["c"]):
        line.send("x", rogue.from_server(eth_dst, MACS["x"]))
    for name in ("a", "b", "c"):
        assert await line.heard(name) == []


async def test_a_renewal_needs_the_controller_once(line):
    a = await line.lease("b")
    server = str(SERVER_ADDRESS.ip)
    renewal = Dhcp(3, MACS["b"], ciaddr=a, flags=0).from_client(None, MACS["server"], a, server)
    for _ in range(3):
        line.send("b", renewal)
        ack = await line.answer("b", lambda message: message.type == 5)
        assert ack.yiaddr == a
    assert line.fabric.counters()["dhcp_relayed"] == 3  # DISCOVER, REQUEST, the first renewal
    assert await reactive(line, 17) == {"s1": 2, "s2": 2, "s3": 2}
    await until(line, nobody)


async def test_a_poisoned_answer_is_not_believed(line):
    a, b = await line.lease("a"), await line.lease("b")
    for frame in (
        frames.arp_reply(MACS["x"], b, MACS["a"], a),
        frames.arp_request(MACS["x"], b, b),
    ):
        line.send("x", frame)
    assert await line.ping("a", b)
    assert await line.heard("x") == []
    assert line.fabric.counters()["arp_refused"] == 2


async def test_an_unknown_host_is_found_by_asking_at_the_edge(line):
    """Whoever was given an address by hand is known after one question."""
    for name, address in (("a", "10.0.0.50"), ("b", "10.0.0.51")):
        run("ip", "-n", line.namespace(name), "addr", "add", f"{address}/24", "dev", "eth0")
    assert await line.ping("a", "10.0.0.51")
    assert line.fabric.counters()["arp_asked"] == 1
    assert await line.ping("b", "10.0.0.50")
    assert line.fabric.counters()["arp_asked"] == 1


async def test_rules_over_a_broken_link_go_and_come_back(line):
    await line.lease("a")
    b = await line.lease("b")
    assert await line.ping("a", b)
    device = f"{S23.src.switch}-{S23.src.port_no}"
    for state in ("down", "up"):
        run("ip", "-n", line.namespace("s2"), "link", "set", device, state)
        if state == "down":
            report(f"rules over a broken link gone after {await until(line, nobody, 1.5):.3f} s")
            assert not await line.ping("a", b)
    async with asyncio.timeout(10):
        while not await line.ping("a", b):
            pass


async def test_nobody_on_the_way_sends_in_a_hosts_name(line):
    a, b = await line.lease("a"), await line.lease("b")
    assert await line.ping("a", b)
    packet = frames.icmp_echo(MACS["b"], MACS["a"], a, b, data=b"from a")
    for forger in ("c", "x"):
        await line.heard("b")
        line.send("a", packet)
        assert await line.heard("b") == [packet]
        line.send(forger, packet)
        assert await line.heard("b") == []
    line.send("a", packet)
    assert await line.heard("b") == [packet]
    there = Match(eth_src=MACS["a"], eth_dst=MACS["b"], eth_type=ETH_IPV4, ip_proto=IP_ICMP)
    for name in line.switches:  # a bare match includes all that are narrower
        line.fabric.controller.remove_reactive(name, there)
        assert all(flow.match.eth_dst != MACS["b"] for flow in await line.fabric.flows(name))


async def at(line: HostLine, name: str, place: str) -> None:
    """Wait until a host is known to be at the port of another."""
    async with asyncio.timeout(10):
        while line.fabric.network().hosts[MACS[name]].at != HOSTS[place]:
            await asyncio.sleep(0.02)


def conflicts(line: HostLine) -> list[tuple[str, object]]:
    found = [event for event in line.events if event.kind == "host.conflict"]
    return [(event.subject, event.data["by_switch"]) for event in found]


@pytest.mark.parametrize("how", ["silent", "unplugged"])
async def test_a_host_moves(line, how):
    """Its cable is plugged in elsewhere: what it sends first tells where it is now."""
    a, b = await line.lease("a"), await line.lease("b")
    assert await line.ping("a", b)
    if how == "silent":  # a switch of somebody else's is between, its port stays up
        run("ip", "-n", line.namespace("b"), "addr", "flush", "dev", "eth0")
    else:
        run("ip", "-n", line.namespace("s3"), "link", "set", "s3-1", "down")
        async with asyncio.timeout(10):
            while line.fabric.network().ports[HOSTS["b"]].up:
                await asyncio.sleep(0.02)
    await line.heard("b")
    question = frames.arp_request(MACS["b"], b, a)
    line.send("x", question)
    await at(line, "b", "x")
    if how == "silent":  # what it sent before was not answered
        line.send("x", question)
    (reply,) = await line.heard("x")
    assert reply[:42] == frames.arp_reply(MACS["a"], a, MACS["b"], b)
    request = frames.icmp_echo(MACS["b"], MACS["a"], a, b, data=b"where are you")
    line.send("a", request)
    assert await line.heard("x") == [request]
    heard = [frame[:42] for frame in await line.heard("b")]
    assert heard == ([probe_frame(MACS["b"], b)] * 3 if how == "silent" else [])
    assert conflicts(line) == []


@pytest.mark.parametrize("flood", [False, True], ids=["quietly", "by a flood"])
async def test_a_host_that_answers_is_not_robbed_of_its_address(line, flood):
    a, b = await line.lease("a"), await line.lease("b")
    theft = frames.arp_request(MACS["b"], b, a)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        line.send("x", theft)
        await asyncio.sleep(0.0005 if flood else 0.1)
    async with asyncio.timeout(10):
        while not conflicts(line):
            await asyncio.sleep(0.02)
    assert conflicts(line) == [(MACS["b"], "s3")]
    assert line.fabric.network().hosts[MACS["b"]].at == HOSTS["b"]
    assert await line.heard("x") == []
    assert await line.ping("a", b)
