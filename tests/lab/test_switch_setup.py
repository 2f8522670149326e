"""The seed's node with two bridges, for real: isolation with and without controller, tunnels, BFD.

See two_bridges.py for the picture.
"""

import asyncio
import ipaddress
import os
import secrets
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from tests.lab.two_bridges import (
    PATCH_OFPORT,
    VM_OFPORT,
    TwoBridgeLab,
    frames,
    packet_socket,
    run,
)
from tests.waiting import until

from anabranch.fabric.bridges import Bfd, Bridge, Device, FailMode, Patch, Tls, TunnelKind
from anabranch.fabric.controller import Controller
from anabranch.fabric.dhcp_server import DhcpServer, DhcpSettings
from anabranch.fabric.errors import FabricError
from anabranch.fabric.openvswitch import NICE, OpenVSwitch
from anabranch.fabric.ovsdb.interfaces import InterfaceState
from anabranch.host.process import find_marked

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

Start = Callable[[TwoBridgeLab], Awaitable[TwoBridgeLab]]
BROADCAST = b"\xff" * 6
INSIDE = IPv4Interface("10.0.0.1/24")


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    labs: list[TwoBridgeLab] = []

    async def build(lab: TwoBridgeLab) -> TwoBridgeLab:
        labs.append(lab)
        await lab.build()
        return lab

    try:
        yield build
        for lab in labs:
            for switch in lab.switches.values():
                await switch.stop()
                left = run("ip", "-n", str(switch.netns), "-o", "link")
                assert "ovs-netdev" not in left
                assert "br1" not in left
            assert find_marked(lab.run_id) == []
    finally:
        for lab in labs:
            await lab.tear_down()


def report(line: str) -> None:
    sys.stdout.write(f"\n{line}\n")


def carry(lab: TwoBridgeLab, one: str, other: str) -> None:
    """Rules by hand: everything from the one VM by the tunnel to the other and back."""
    for near, far in ((one, other), (other, one)):
        link = lab.tunnel_ofport(near, far)
        lab.add_flow(near, f"in_port={VM_OFPORT},actions=output:{link}")
        lab.add_flow(near, f"in_port={link},actions=output:{VM_OFPORT}")


async def controller_of(lab: TwoBridgeLab) -> Controller:
    controller = Controller(lab.events.append)
    for name, switch in lab.switches.items():
        await controller.listen_unix(switch.controller_path("br1"), name)
    return controller


async def connected(controller: Controller, lab: TwoBridgeLab) -> None:
    def all_there() -> bool:
        states = controller.switches()
        return all(name in states and states[name].connected for name in lab.switches)

    await until(all_there)


def mac_of(lab: TwoBridgeLab, name: str) -> bytes:
    line = run("ip", "-n", lab.namespace(name), "-o", "link", "show", "eth0")
    return bytes.fromhex(line.split("link/ether ")[1].split()[0].replace(":", ""))


def udp_frame(
    source: bytes, payload: bytes, ports: tuple[int, int], *, src: str, tag: int | None = None
) -> bytes:
    """Return a broadcast frame, written by hand."""
    udp = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    addresses = IPv4Address(src).packed + b"\xff" * 4
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack("!10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + struct.pack("!H", 0xFFFF - (total & 0xFFFF) - (total >> 16)) + ip[12:]
    vlan = b"" if tag is None else struct.pack("!HH", 0x8100, tag)
    return BROADCAST + source + vlan + b"\x08\x00" + ip + udp


def leaks(lab: TwoBridgeLab) -> tuple[bool, bool]:
    """Broadcast from inside and from outside, with and without tags; say what got out, and in."""
    vm, outsider = mac_of(lab, "vma"), mac_of(lab, "out")
    inside = lab.open("vma", packet_socket("eth0"))
    outside = lab.open("out", packet_socket("eth0"))
    frames(inside, 0.05), frames(outside, 0.05)
    for tag in (None, 0, 2, 4094):
        for _ in range(3):
            inside.send(udp_frame(vm, b"x" * 30, (5000, 5001), src="10.0.0.11", tag=tag))
            outside.send(udp_frame(outsider, b"y" * 30, (5000, 5001), src="192.168.50.9", tag=tag))
    out = any(frame[6:12] == vm for frame in frames(outside, 0.4))
    into = any(frame[6:12] == outsider for frame in frames(inside, 0.1))
    return out, into


@pytest.mark.parametrize("kind", TunnelKind)
async def test_tunnels_carry_what_rules_send_and_nothing_else(start: Start, kind: str) -> None:
    lab = await start(TwoBridgeLab(kind=TunnelKind(kind)))
    await lab.apply(FailMode.SECURE)
    assert not lab.reaches("a", "b", patience=0.5)
    carry(lab, "a", "b")
    assert lab.reaches("a", "b", patience=3)  # the first has to wait for ARP below
    assert lab.reaches("b", "a")
    assert lab.reaches("a", "b", size=1450 - 28)
    assert leaks(lab) == (False, False)
    # Explicit output does not care about tags: the patch is in no VLAN of the VM's.
    lab.add_flow("a", f"in_port={VM_OFPORT},priority=40000,actions=output:{PATCH_OFPORT}")
    assert leaks(lab) == (True, False)


async def test_secure_bridges_keep_to_their_rules_without_a_controller(start: Start) -> None:
    lab = await start(TwoBridgeLab())
    controller = await controller_of(lab)
    await lab.apply(FailMode.SECURE)
    try:
        await connected(controller, lab)
        carry(lab, "a", "b")
        assert lab.reaches("a", "b", patience=3)
    finally:
        await controller.close()
    await asyncio.sleep(5)  # well over three probes of one second
    assert lab.reaches("a", "b")
    lab.add_flow("b", f"in_port={VM_OFPORT},priority=40000,actions=drop")
    assert not lab.reaches("b", "a", patience=0.5)
    assert leaks(lab) == (False, False)


async def test_stand_alone_bridges_switch_without_a_controller_but_isolated(start: Start) -> None:
    lab = await start(TwoBridgeLab())
    controller = await controller_of(lab)
    await lab.apply(FailMode.STANDALONE)
    try:
        await connected(controller, lab)
        for node in lab.nodes:
            lab.add_flow(node, "priority=1,actions=drop")
        assert not lab.reaches("a", "b", patience=0.5)
    finally:
        await controller.close()
    gone = time.monotonic()
    assert lab.reaches("a", "b", patience=30)
    report(f"stand-alone switching {time.monotonic() - gone:.1f} s after the controller was gone")
    assert lab.reaches("b", "a")
    assert leaks(lab) == (False, False)
    controller = await controller_of(lab)
    try:
        await connected(controller, lab)
        # Open vSwitch forgot the rules when it took over; until there are new ones nothing passes.
        assert "actions" not in lab.flows("a")
        await asyncio.sleep(0.2)
        assert not lab.reaches("a", "b", patience=0.5)
        carry(lab, "a", "b")
        assert lab.reaches("a", "b")
    finally:
        await controller.close()


async def test_a_patch_without_a_tag_would_let_the_overlay_out(start: Start) -> None:
    """Why patch ports are access ports here, other than in the seed; and that leaks are seen."""
    lab = await start(TwoBridgeLab(edges=(), nodes=("a",)))
    layout = [
        replace(
            bridge,
            controllers=(),
            ports=tuple(
                replace(port, tag=None) if isinstance(port, Patch) else port
                for port in bridge.ports
            ),
        )
        for bridge in lab.describe("a", FailMode.STANDALONE)
    ]
    await lab.switches["a"].apply(layout)
    assert leaks(lab) == (True, True)
    await lab.switches["a"].apply(
        [replace(b, controllers=()) for b in lab.describe("a", FailMode.STANDALONE)]
    )
    assert leaks(lab) == (False, False)


async def test_redundancy_links_make_no_loop_of_stand_alone_bridges(start: Start) -> None:
    lab = await start(
        TwoBridgeLab(nodes=("a", "b", "c"), edges=(("a", "b"), ("a", "c")), reserve=(("b", "c"),))
    )
    for node, switch in lab.switches.items():
        layout = lab.describe(node, FailMode.STANDALONE)
        await switch.apply([replace(bridge, controllers=()) for bridge in layout])
    assert lab.reaches("b", "c", patience=3)
    listening = lab.open("vmc", packet_socket("eth0"))
    sending = lab.open("vmb", packet_socket("eth0"))
    mac = mac_of(lab, "vmb")
    frames(listening, 0.2)
    for number in range(5):
        sending.send(udp_frame(mac, b"once%d" % number, (5000, 5001), src="10.0.0.12"))
    got = [frame[42:47] for frame in frames(listening, 0.5) if frame[6:12] == mac]
    assert got == [b"once0", b"once1", b"once2", b"once3", b"once4"]
    # With a rule the redundancy link carries all the same.
    link = lab.tunnel_ofport("c", "b")
    lab.add_flow("b", f"in_port={VM_OFPORT},actions=output:{lab.tunnel_ofport('b', 'c')}")
    lab.add_flow("c", f"in_port={link},actions=output:{VM_OFPORT}")
    sending.send(udp_frame(mac, b"reserve", (5000, 5001), src="10.0.0.12"))
    assert any(frame[42:49] == b"reserve" for frame in frames(listening, 0.5))


async def test_applying_again_changes_nothing_and_what_is_not_wanted_goes(start: Start) -> None:
    lab = await start(TwoBridgeLab())
    await lab.apply(FailMode.SECURE)
    carry(lab, "a", "b")
    assert lab.reaches("a", "b", patience=3)
    switch = lab.switches["a"]
    sending = asyncio.create_task(asyncio.to_thread(lab.reaches, "a", "b"))
    await lab.apply(FailMode.SECURE)
    assert await sending
    physical, overlay = lab.describe("a")
    gone: list[tuple[str, InterfaceState | None]] = []
    await switch.watch(lambda name, state: gone.append((name, state)))
    without = replace(overlay, ports=tuple(p for p in overlay.ports if p.name != "vnet0"))
    await switch.apply([physical, without])
    await until(lambda: ("vnet0", None) in gone)
    moved = IPv4Interface("192.168.50.99/24")
    alone = replace(physical, ports=physical.ports[:1], address=moved)  # nor its end of the patch
    await switch.apply([alone])
    addresses = run("ip", "-n", lab.namespace("a"), "-br", "addr", "show", "br0").split()[2:]
    assert addresses == [str(moved)]
    assert "br1" not in run("ip", "-n", lab.namespace("a"), "-br", "link")
    strange = replace(without, ports=(*without.ports, replace(overlay.ports[0], name="nothere")))
    with pytest.raises(FabricError, match="nothere shall be port 1 but cannot be opened"):
        await switch.apply([physical, strange])


async def test_a_killed_switch_comes_back_with_addresses_and_tunnels(start: Start) -> None:
    lab = await start(TwoBridgeLab())
    await lab.apply(FailMode.SECURE)
    carry(lab, "b", "a")
    for killed in ("vswitchd", "ovsdb"):
        getattr(lab.switches["a"], killed).kill()
        async with asyncio.timeout(10):
            while not await asyncio.to_thread(_answers, lab):
                await asyncio.sleep(0.02)
        addresses = run("ip", "-n", lab.namespace("a"), "-br", "addr", "show", "br0")
        assert addresses.split()[2] == str(lab.outer("a"))
        carry(lab, "a", "b")
        assert lab.reaches("a", "b", patience=5)


def _answers(lab: TwoBridgeLab) -> bool:
    try:
        lab.flows("a")
    except AssertionError:
        return False
    return True


def _make_certificates(directory: Path) -> Tls:
    key, certificate = directory / "key.pem", directory / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", certificate, "-subj", "/CN=test",
         "-addext", "subjectAltName=IP:192.168.50.100"],
        check=True, capture_output=True,
    )  # fmt: skip
    return Tls(str(key), str(certificate), str(certificate))


async def test_a_controller_is_met_by_tls(start: Start) -> None:
    lab = await start(TwoBridgeLab(nodes=("a",), edges=()))
    tls = _make_certificates(lab.directory)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.ca_cert)
    context.load_cert_chain(tls.certificate, tls.private_key)
    context.verify_mode = ssl.CERT_REQUIRED
    listening = lab.open("out", lambda: socket.create_server(("192.168.50.100", 6653)))
    listening.settimeout(10)

    def meet() -> bytes:
        connection, _ = listening.accept()
        connection.settimeout(10)
        with context.wrap_socket(connection, server_side=True) as secure:
            assert secure.getpeercert() is not None
            return secure.recv(8)

    met = asyncio.create_task(asyncio.to_thread(meet))
    layout = lab.describe("a", target="ssl:192.168.50.100:6653")
    await lab.switches["a"].apply(layout, tls=tls)
    version, kind, _, _ = struct.unpack("!BBHI", await met)
    assert (version, kind) == (6, 0)  # HELLO of the highest version


async def test_bfd_finds_a_black_hole_and_its_end(start: Start) -> None:
    lab = await start(TwoBridgeLab(bfd=Bfd()))
    await lab.apply(FailMode.SECURE)
    states: dict[str, InterfaceState | None] = {}
    heard: list[float] = []

    def changed(name: str, state: InterfaceState | None) -> None:
        states[name] = state
        heard.append(time.monotonic())

    def forwarding() -> bool | None:
        state = states.get("to-a")
        return None if state is None else state.forwarding

    await lab.switches["b"].watch(changed)
    await until(lambda: forwarding() is True)
    await asyncio.sleep(2)  # a session just up keeps its slow intervals for a second
    wire = ("nsenter", f"--net=/run/netns/{lab.namespace('wire')}", "nft")
    hole = "table netdev hole { chain c { type filter hook egress device tob priority 0;"
    run(*wire, f"{hole} udp dport 4789 drop; }}; }}")
    began = time.monotonic()
    await until(lambda: forwarding() is False)
    report(f"black hole noticed after {1000 * (heard[-1] - began):.0f} ms")
    state = states["to-a"]
    assert state is not None
    assert state.link_up  # which is why it is called silent
    assert not state.usable
    run(*wire, "delete table netdev hole")
    await until(lambda: forwarding() is True)


async def test_bfd_watches_a_plain_link_as_well(start: Start) -> None:
    lab = await start(TwoBridgeLab(edges=()))
    lab.link("a", "wire0", "b", "wire0")
    forwarding: dict[str, bool | None] = {}
    for node, switch in lab.switches.items():

        def changed(name: str, state: InterfaceState | None, node: str = node) -> None:
            if name == "wire0" and state is not None:
                forwarding[node] = state.forwarding

        await switch.watch(changed)
        await switch.apply([Bridge("br1", (Device(name="wire0", ofport=1, bfd=Bfd()),))])
    await until(lambda: list(forwarding.values()) == [True, True])
    netns = f"--net=/run/netns/{lab.namespace('a')}"
    hole = "table netdev hole { chain c { type filter hook egress device wire0 priority 0; drop; };"
    run("nsenter", netns, "nft", f"{hole} }}")
    await until(lambda: list(forwarding.values()) == [False, False])  # the far end says so, too


async def test_the_switch_comes_before_ordinary_processes_in_each_life(start: Start) -> None:
    lab = await start(TwoBridgeLab(nodes=("a",), edges=()))
    await lab.apply(FailMode.SECURE)
    child = lab.switches["a"].vswitchd
    for _ in range(2):
        threads = [int(path.name) for path in Path(f"/proc/{child.pid}/task").iterdir()]
        assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {NICE}
        group = Path(f"/proc/{child.pid}/autogroup")
        if group.exists():
            assert group.read_text().split()[-1] == str(NICE)
        pid = child.pid
        child.kill()
        await until(lambda pid=pid: child.pid not in (None, pid))  # type: ignore[misc]
        await asyncio.sleep(0.2)


async def test_a_switch_may_come_before_everything_else() -> None:
    with tempfile.TemporaryDirectory(prefix="ab-t") as made:
        netns, run_id = f"ab-t{secrets.token_hex(3)}", f"test-{secrets.token_hex(6)}"
        run("ip", "netns", "add", netns)
        switch = OpenVSwitch("a", netns, Path(made), run_id, [].append, realtime=True)
        try:
            await switch.start()
            tasks = Path(f"/proc/{switch.vswitchd.pid}/task").iterdir()
            threads = [int(path.name) for path in tasks]
            assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_RR}
        finally:
            await switch.stop()
            run("ip", "netns", "delete", netns)


async def test_a_link_that_goes_down_is_told(start: Start) -> None:
    lab = await start(TwoBridgeLab(nodes=("a",), edges=()))
    await lab.apply(FailMode.SECURE)
    up: list[bool | None] = []

    def changed(name: str, state: InterfaceState | None) -> None:
        if name == "vnet0" and state is not None:
            up.append(state.link_up)

    await lab.switches["a"].watch(changed)
    run("ip", "-n", lab.namespace("vma"), "link", "set", "eth0", "down")
    took = await until(lambda: up == [True, False])
    report(f"link down told after {1000 * took:.0f} ms")


# the overlay's DHCP server


def discover(mac: bytes, *, request: IPv4Address | None = None) -> bytes:
    """Return a DHCPDISCOVER, or a DHCPREQUEST for an address (RFC 2131, section 2)."""
    fixed = struct.pack("!BBBBIHH", 1, 1, 6, 0, 0x1234ABCD, 0, 0x8000) + b"\0" * 16
    options = b"\x35\x01" + (b"\x01" if request is None else b"\x03")
    if request is not None:
        options += b"\x32\x04" + request.packed
    bootp = fixed + mac.ljust(16, b"\0") + b"\0" * 192 + b"\x63\x82\x53\x63" + options + b"\xff"
    return udp_frame(mac, bootp.ljust(300, b"\0"), (68, 67), src="0.0.0.0")


def offer(your: str, mac: bytes) -> bytes:
    fixed = struct.pack("!BBBBIHH", 2, 1, 6, 0, 0x1234ABCD, 0, 0x8000) + b"\0" * 4
    rest = IPv4Address(your).packed + b"\0" * 8 + mac.ljust(16, b"\0") + b"\0" * 192
    return fixed + rest + b"\x63\x82\x53\x63\x35\x01\x02\xff"


def answers(sniffer: socket.socket, seconds: float = 1.0) -> list[IPv4Address]:
    """Return the addresses that servers offer or grant within ``seconds``."""
    return [
        IPv4Address(frame[58:62])
        for frame in frames(sniffer, seconds)
        if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[34:38] == b"\0\x43\0\x44"
    ]


def ask(lab: TwoBridgeLab, name: str, mac: bytes, request: IPv4Address | None = None) -> set[str]:
    sniffer = lab.open(name, packet_socket("eth0"))
    sniffer.send(discover(mac, request=request))
    return {str(address) for address in answers(sniffer)}


@pytest.fixture
async def dhcp(start: Start) -> AsyncIterator[tuple[TwoBridgeLab, DhcpServer]]:
    """Node a is the root: its overlay bridge has the server at its internal port."""
    lab = await start(TwoBridgeLab())
    for node, switch in lab.switches.items():
        address = INSIDE if node == "a" else None
        layout = lab.describe(node, FailMode.STANDALONE, overlay_address=address)
        await switch.apply([replace(bridge, controllers=()) for bridge in layout])
    assert lab.reaches("a", "b", patience=3)
    settings = DhcpSettings("br1", INSIDE, IPv4Address("10.0.0.100"), IPv4Address("10.0.0.150"))
    server = DhcpServer(
        settings, lab.namespace("a"), lab.directory / "dhcp", lab.run_id, lab.events.append
    )
    try:
        await server.start()
        yield lab, server
    finally:
        await server.stop()


async def test_the_overlay_gets_addresses_and_the_physical_network_none(
    dhcp: tuple[TwoBridgeLab, DhcpServer],
) -> None:
    lab, server = dhcp
    for vm in ("vma", "vmb"):  # at the root, and by the tunnel
        mac = mac_of(lab, vm)
        (offered,) = ask(lab, vm, mac)
        assert IPv4Address("10.0.0.100") <= IPv4Address(offered) <= IPv4Address("10.0.0.150")
        assert ask(lab, vm, mac, IPv4Address(offered)) == {offered}
        (lease,) = [one for one in server.leases() if one.mac == mac.hex(":")]
        assert str(lease.address) == offered
        assert lease.expires is not None
        assert 0 < lease.expires - time.time() <= 3600
    assert ask(lab, "out", mac_of(lab, "out")) == set()
    listening = run("nsenter", f"--net=/run/netns/{lab.namespace('a')}", "ss", "-Hulpn")
    assert [line.split()[3] for line in listening.splitlines()] == ["0.0.0.0%br1:67"]
    assert "dnsmasq" not in run("nsenter", f"--net=/run/netns/{lab.namespace('a')}", "ss", "-Htln")


async def test_addresses_of_their_own_and_leases_outlive_the_server(
    dhcp: tuple[TwoBridgeLab, DhcpServer],
) -> None:
    lab, server = dhcp
    mine, other = mac_of(lab, "vmb"), mac_of(lab, "vma")
    (leased,) = ask(lab, "vma", other)
    ask(lab, "vma", other, IPv4Address(leased))
    await server.give({mine.hex(":"): IPv4Address("10.0.0.77")})
    assert ask(lab, "vmb", mine) == {"10.0.0.77"}
    assert [str(lease.address) for lease in server.leases()] == [leased]
    pid = server.child.pid
    server.child.kill()
    await until(lambda: server.child.pid not in (None, pid))
    await until(lambda: ask(lab, "vma", other) == {leased})
    kinds = [(event.kind, event.subject) for event in lab.events]
    assert ("child.restarted", "dhcp-br1") in kinds


async def test_a_rogue_server_is_blocked_by_a_rule_at_the_edge(
    dhcp: tuple[TwoBridgeLab, DhcpServer],
) -> None:
    lab, _ = dhcp
    mac = mac_of(lab, "vmb")
    rogue = lab.open("vma", packet_socket("eth0"))
    reply = udp_frame(mac_of(lab, "vma"), offer("10.66.66.66", mac), (67, 68), src="10.0.0.66")
    client = lab.open("vmb", packet_socket("eth0"))
    rogue.send(reply)
    assert "10.66.66.66" in map(str, answers(client, 0.5))
    lab.add_flow("a", f"priority=50000,in_port={VM_OFPORT},udp,tp_src=67,actions=drop")
    await asyncio.sleep(0.1)
    rogue.send(reply)
    assert answers(client, 0.5) == []
    (offered,) = ask(lab, "vmb", mac)  # the true one is heard all the same
    assert IPv4Address(offered) in ipaddress.ip_network("10.0.0.0/24")


async def test_a_device_that_is_missing_is_named(start: Start) -> None:
    lab = await start(TwoBridgeLab(nodes=("a",), edges=()))
    settings = DhcpSettings("nothere", INSIDE, IPv4Address("10.0.0.9"), IPv4Address("10.0.0.99"))
    server = DhcpServer(
        settings, lab.namespace("a"), lab.directory / "dhcp", lab.run_id, lab.events.append
    )
    with pytest.raises(FabricError, match=r"does not start: .*nothere"):
        await server.start()
    assert find_marked(lab.run_id) != []  # the switch
    assert server.child.pid is None
