"""Descriptions of switches, and the transactions that make them so in a real ovsdb-server."""

import asyncio
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.fabric.bridges import (
    MAX_OFPORT,
    UNTAGGED,
    Bfd,
    Bridge,
    ControllerTarget,
    Device,
    FailMode,
    Internal,
    Patch,
    Port,
    Tls,
    Tunnel,
    TunnelKind,
    check,
    separated,
    two_bridge_node,
)
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.ovsdb.changes import Snapshot, changes, reading, snapshot
from anabranch.fabric.ovsdb.database import Database
from anabranch.fabric.ovsdb.session import result_rows
from anabranch.fabric.ovsdb.values import Row, members

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
HERE, THERE = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
needs_ovsdb = pytest.mark.skipif(not SCHEMA.exists(), reason="needs ovsdb-server")


def tunnel(name: str = "t", ofport: int = 3, **other: Any) -> Tunnel:
    given_: dict[str, Any] = {"remote_ip": THERE, "local_ip": HERE, "key": 1, **other}
    return Tunnel(name=name, ofport=ofport, **given_)


WRONG: dict[str, tuple[Bridge, ...]] = {
    "used twice: 1": (Bridge("b", (Device(name="x", ofport=1), Device(name="y", ofport=1))),),
    "names used twice: b": (Bridge("b", (Device(name="b", ofport=1),)),),
    "names used twice: x": (
        Bridge("b", (Device(name="x", ofport=1),)),
        Bridge("c", (Device(name="x", ofport=1),)),
    ),
    "at most 15 characters": (Bridge("b", (Device(name="x" * 16, ofport=1),)),),
    "no name": (Bridge(""),),
    "is no name of a device": (Bridge("a/b"),),
    "0 is not a port number": (Bridge("b", (Device(name="x", ofport=0),)),),
    "65280 is not a port number": (Bridge("b", (Device(name="x", ofport=MAX_OFPORT + 1),)),),
    "4095 is no VLAN tag": (Bridge("b", (Device(name="x", ofport=1, tag=4095),)),),
    "-1 is no VLAN tag": (Bridge("b", (Device(name="x", ofport=1, trunks=(1, -1)),)),),
    "4096 is no VLAN tag": (Bridge("b", local_tag=4096),),
    "one tag and no trunks": (Bridge("b", (Device(name="x", ofport=1, tag=1, trunks=(2,)),)),),
    "to itself": (Bridge("b", (tunnel(remote_ip=HERE),)),),
    "no key of 24 bits": (Bridge("b", (tunnel(key=1 << 24),)),),
    "no key of 32 bits": (Bridge("b", (tunnel(key=1 << 32, kind=TunnelKind.GRE),)),),
    "tunnels used twice": (Bridge("b", (tunnel(), tunnel("u", 4))),),
    "no patch that leads back": (Bridge("b", (Patch(name="p", ofport=1, peer="q"),)),),
    "a patch from b to itself": (
        Bridge("b", (Patch(name="p", ofport=1, peer="q"), Patch(name="q", ofport=2, peer="p"))),
    ),
    "no wire to watch": (
        Bridge("b", (Patch(name="p", ofport=1, peer="q", bfd=Bfd()),)),
        Bridge("c", (Patch(name="q", ofport=1, peer="p"),)),
    ),
    "BFD: intervals": (Bridge("b", (Device(name="x", ofport=1, bfd=Bfd(min_tx_ms=0)),)),),
    "multiplier": (Bridge("b", (Device(name="x", ofport=1, bfd=Bfd(multiplier=256)),)),),
    "not a datapath id": (Bridge("b", dpid=0),),
    "datapath ids used twice": (Bridge("b", dpid=7), Bridge("c", dpid=7)),
    "no place of a controller": (Bridge("b", controllers=(ControllerTarget("10.0.0.1"),)),),
    "controllers of b used twice": (Bridge("b", controllers=(ControllerTarget("tcp:a:1"),) * 2),),
    "no time": (Bridge("b", controllers=(ControllerTarget("tcp:a:1", -1),)),),
    "is no MTU": (Bridge("b", mtu=67),),
}


@pytest.mark.parametrize("reason", WRONG)
def test_what_cannot_be_is_misuse_and_says_why(reason: str) -> None:
    with pytest.raises(MisuseError, match=reason):
        check(WRONG[reason])
    with pytest.raises(MisuseError, match=reason):
        changes(WRONG[reason], Snapshot())


def test_tunnels_of_one_pair_differ_in_kind_or_key() -> None:
    check([Bridge("b", (tunnel(), tunnel("u", 4, key=2), tunnel("v", 5, kind=TunnelKind.GRE)))])


def test_redundancy_links_share_a_vlan_with_nothing() -> None:
    tree = [Device(name="vm", ofport=1), tunnel("a", 2), tunnel("b", 3, key=2)]
    reserve = [tunnel("c", 4, key=3), tunnel("d", 5, key=4, trunks=(7,))]
    ports = separated(tree, reserve, 2)
    assert [port.name for port in ports] == ["vm", "a", "b", "c", "d"]
    assert [port.tag for port in ports[:3]] == [2, 2, 2]
    parked = [port.tag for port in ports[3:]]
    assert len({2, UNTAGGED, *parked}) == 4
    assert not any(port.trunks for port in ports)
    for tag in (0, 4093, 4095):
        with pytest.raises(MisuseError):
            separated(tree, reserve, tag)


def test_the_two_bridges_of_the_seed() -> None:
    physical, overlay = two_bridge_node(
        "eth0",
        IPv4Interface("192.0.2.1/24"),
        dpid=5,
        controllers=[ControllerTarget("tcp:192.0.2.9:6653")],
        edge=[Device(name="vnet0", ofport=1)],
        links=[tunnel("gre0", 2, kind=TunnelKind.GRE)],
        reserve=[tunnel("gre1", 3, kind=TunnelKind.GRE, key=2)],
        patch_ofport=9,
        overlay_address=IPv4Interface("10.0.0.1/24"),
    )
    assert physical.controllers == ()
    assert physical.fail_mode is FailMode.STANDALONE
    assert overlay.fail_mode is FailMode.SECURE
    by_name = {port.name: port for port in (*physical.ports, *overlay.ports)}
    assert {by_name[name].tag for name in ("vnet0", "gre0")} == {overlay.local_tag} == {2}
    assert by_name["gre1"].tag not in (2, UNTAGGED)
    # A port with neither tag nor trunks would be a trunk of all VLANs, the overlay's too.
    assert [p.tag for p in by_name.values() if isinstance(p, Patch)] == [UNTAGGED, UNTAGGED]
    assert by_name["eth0"].tag is None  # the physical network's own VLANs pass


names = st.sampled_from(["p1", "p2", "p3", "p4", "p5", "p6"])
tags = st.none() | st.integers(0, 4094)
bfds = st.none() | st.builds(Bfd, st.integers(1, 1000), st.integers(1, 1000), st.integers(1, 255))


def _with_vlan(port: Port, tag: int | None, trunks: tuple[int, ...], bfd: Bfd | None) -> Port:
    return replace(port, tag=tag, trunks=() if tag is not None else trunks, bfd=bfd)


ports = st.builds(
    _with_vlan,
    st.builds(Device, name=names, ofport=st.just(1))
    | st.builds(Internal, name=names, ofport=st.just(1))
    | st.builds(
        Tunnel,
        name=names,
        ofport=st.just(1),
        kind=st.sampled_from(TunnelKind),
        remote_ip=st.sampled_from([IPv4Address("192.0.2.7"), THERE]),
        local_ip=st.just(HERE),
        key=st.integers(0, (1 << 24) - 1),
    ),
    tags,
    st.lists(st.integers(0, 4094), max_size=3, unique=True).map(tuple),
    bfds,
)
targets = st.builds(
    ControllerTarget,
    st.sampled_from(["tcp:192.0.2.9:1", "ssl:192.0.2.9:2", "unix:/x"]),
    st.integers(0, 9000),
)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Bridge, ...]:
    """Up to three bridges; the first two may be joined by a patch."""
    shared = draw(st.lists(ports, max_size=6, unique_by=lambda port: port.name))
    shared = [replace(p, key=n) if isinstance(p, Tunnel) else p for n, p in enumerate(shared)]
    bridges = []
    for name in draw(st.lists(st.sampled_from(["bx", "by", "bz"]), max_size=3, unique=True)):
        own = [shared.pop() for _ in range(draw(st.integers(0, len(shared))))]
        numbers = draw(st.permutations(range(1, 10)))
        bridges.append(
            Bridge(
                name,
                tuple(replace(port, ofport=n) for port, n in zip(own, numbers, strict=False)),
                draw(st.none() | st.just(ord(name[1]))),
                draw(st.sampled_from(FailMode)),
                tuple(draw(st.lists(targets, max_size=2, unique_by=lambda one: one.target))),
                local_tag=draw(tags),
                mtu=draw(st.none() | st.integers(68, 65535)),
            )
        )
    if len(bridges) > 1 and draw(st.booleans()):
        for near, far in ((0, 1), (1, 0)):
            patch = Patch(name=f"patch{near}", ofport=10, peer=f"patch{far}")
            bridges[near] = replace(bridges[near], ports=(*bridges[near].ports, patch))
    return tuple(bridges)


@contextmanager
def ovsdb_server() -> Iterator[Path]:
    """A real ovsdb-server with an empty database of Open vSwitch; nothing acts on it."""
    with tempfile.TemporaryDirectory(prefix="ab-t") as made:
        directory = Path(made)
        subprocess.run(["ovsdb-tool", "create", f"{made}/conf.db", SCHEMA], check=True)
        server = subprocess.Popen(
            ["ovsdb-server", f"{made}/conf.db", f"--remote=punix:{made}/db.sock",
             f"--unixctl={made}/ctl", "-vconsole:off", "--no-chdir"],
        )  # fmt: skip
        try:
            while not (directory / "db.sock").exists():
                assert server.poll() is None
            yield directory / "db.sock"
        finally:
            server.terminate()
            server.wait()


async def _read(database: Database) -> Snapshot:
    found = await database.transact(*reading())
    return snapshot([result_rows(result) for result in found])


async def _opened(path: Path) -> Database:
    database = Database(path)
    await database.open()
    await database.transact({"op": "insert", "table": "Open_vSwitch", "row": {}})
    return database


def _port_names(present: Snapshot) -> dict[object, set[object]]:
    """Bridge name to names of its ports, by way of the references."""
    return {
        bridge["name"]: {present.ports[uuid]["name"] for uuid in _uuids(bridge, "ports")}
        for uuid, bridge in present.bridges.items()
        if uuid in _uuids(present.root, "bridges")
    }


def _uuids(row: Row, column: str) -> list[Any]:
    return list(members(row[column]))


@needs_ovsdb
@settings(max_examples=60, deadline=None)
@given(st.lists(layouts(), min_size=1, max_size=3))
def test_any_state_becomes_any_other_and_then_nothing_is_missing(
    wanted: list[tuple[Bridge, ...]],
) -> None:
    async def scenario() -> None:
        with ovsdb_server() as path:
            database = await _opened(path)
            try:
                for bridges in wanted:
                    operations = changes(bridges, await _read(database))
                    await database.transact(*operations)
                    present = await _read(database)
                    assert changes(bridges, present) == []
                    assert _port_names(present) == {
                        bridge.name: {bridge.name, *(port.name for port in bridge.ports)}
                        for bridge in bridges
                    }
                    assert len(present.ports) == sum(1 + len(b.ports) for b in bridges)
            finally:
                await database.close()

    asyncio.run(scenario())


@needs_ovsdb
async def test_only_the_difference_is_sent() -> None:
    before = Bridge("b", (Device(name="x", ofport=1), tunnel("t", 2, bfd=Bfd())), dpid=1)
    after = replace(before, ports=(replace(before.ports[0], tag=5), before.ports[1]))
    with ovsdb_server() as path:
        database = await _opened(path)
        try:
            await database.transact(*changes([before], await _read(database)))
            present = await _read(database)
            (operation,) = changes([after], present)
            assert (operation["op"], operation["table"]) == ("update", "Port")
            assert operation["row"] == {"tag": 5}
            removed = changes([replace(before, ports=())], present)
            assert [(o["table"], list(o["row"])) for o in removed] == [("Bridge", ["ports"])]
        finally:
            await database.close()


@needs_ovsdb
async def test_other_bridges_stay_only_if_asked_for() -> None:
    one, other = Bridge("one"), Bridge("other")
    with ovsdb_server() as path:
        database = await _opened(path)
        try:
            await database.transact(*changes([one], await _read(database)))
            present = await _read(database)
            await database.transact(*changes([other], present, keep_others=True))
            assert _port_names(await _read(database)) == {"one": {"one"}, "other": {"other"}}
            await database.transact(*changes([other], await _read(database)))
            assert _port_names(await _read(database)) == {"other": {"other"}}
        finally:
            await database.close()


@needs_ovsdb
async def test_files_for_tls_are_set_changed_and_kept() -> None:
    tls = Tls("/k", "/c", "/ca")
    with ovsdb_server() as path:
        database = await _opened(path)
        try:
            for wanted in (tls, replace(tls, certificate="/c2")):
                await database.transact(*changes([], await _read(database), tls=wanted))
                present = await _read(database)
                assert changes([], present, tls=wanted) == []
                assert changes([], present) == []
                (row,) = present.ssl.values()
                assert row["certificate"] == wanted.certificate
        finally:
            await database.close()
