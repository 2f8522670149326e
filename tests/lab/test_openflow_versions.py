"""Every version of OpenFlow with Open vSwitch: what we write it holds, and tells us back."""

import asyncio
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from anabranch.fabric.errors import DisconnectedError, FabricError
from anabranch.fabric.openflow.actions import (
    PORT_CONTROLLER,
    PORT_IN_PORT,
    PORT_LOCAL,
    Group,
    Output,
    PopVlan,
    PushVlan,
    SetField,
)
from anabranch.fabric.openflow.connection import Connection
from anabranch.fabric.openflow.messages import (
    BUCKET_LAST,
    GROUP_ALL,
    METER_ALL,
    TABLE_ALL,
    AggregateStats,
    Bucket,
    BundleAdd,
    BundleControl,
    BundleType,
    Command,
    ControllerRole,
    FlowMod,
    FlowStats,
    GroupCommand,
    GroupDesc,
    GroupMod,
    GroupType,
    MeterBand,
    MeterCommand,
    MeterConfig,
    MeterMod,
    MultipartRequest,
    MultipartType,
    PacketIn,
    PacketOut,
    RoleStatus,
)
from anabranch.fabric.openflow.oxm import VLAN_PRESENT, Match
from anabranch.fabric.openflow.session import Refused, SessionEvent, SwitchUp
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.fabric.tables import COOKIE_MASK, INTENT_COOKIE, Rule
from anabranch.host.process import end_marked

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

BRIDGE = "br0"
PORTS = {f"v{number}": number for number in (1, 2, 3)}
UDP = Match(in_port=1, eth_type=0x0800, ip_proto=17, ipv4_dst="10.0.0.0/8", udp_dst=5)
ARP = Match(
    eth_type=0x0806,
    arp_op=1,
    arp_spa="10.0.0.1",
    arp_tpa="10.0.0.0/255.0.0.255",
    arp_sha="02:00:00:00:00:05",
    arp_tha="00:00:00:00:00:00",
)
SYN = Match(
    metadata=7, eth_type=0x86DD, ip_proto=6, ipv6_dst="fe80::/10", tcp_flags=(2, 0x12), tcp_dst=80
)
NEIGHBOUR = Match(
    eth_type=0x86DD, ip_proto=58, icmpv6_type=135, icmpv6_code=0, ipv6_nd_target="fe80::1"
)
PING = Match(
    eth_type=0x0800,
    ip_proto=1,
    icmpv4_type=8,
    icmpv4_code=0,
    ip_dscp=46,
    ip_ecn=1,
    ipv4_src="1.2.3.4",
)
GROUP_BITS = "01:00:00:00:00:00/01:00:00:00:00:00"
RULES = frozenset(
    {
        Rule(
            0,
            10,
            UDP,
            (
                SetField("eth_dst", "02:00:00:00:00:01"),
                SetField("ipv4_dst", "10.1.1.1"),
                SetField("udp_dst", 7),
                Output(2),
            ),
            INTENT_COOKIE,
            goto_table=1,
            metadata=(5, 0xFF),
            meter=1,
        ),
        Rule(0, 11, Match(in_port=1, vlan_vid=VLAN_PRESENT | 5), (PopVlan(), Output(3))),
        Rule(0, 12, Match(vlan_vid=(VLAN_PRESENT, VLAN_PRESENT)), (Output(3),), hard_timeout=60),
        Rule(
            0,
            13,
            Match(vlan_vid=0),
            (PushVlan(), SetField("vlan_vid", VLAN_PRESENT | 7), SetField("vlan_pcp", 3), Group(1)),
            idle_timeout=60,
            notify=True,
        ),
        Rule(1, 14, Match(metadata=(5, 0xFF)), (Output(PORT_CONTROLLER, 128),)),
        Rule(1, 15, SYN, ()),
        Rule(
            1,
            16,
            ARP,
            (
                SetField("arp_op", 2),
                SetField("arp_spa", "1.2.3.5"),
                SetField("arp_tpa", "1.2.3.4"),
                SetField("arp_sha", "02:00:00:00:00:05"),
                SetField("arp_tha", "02:00:00:00:00:06"),
                Output(PORT_IN_PORT),
            ),
        ),
        Rule(1, 17, NEIGHBOUR, (Output(1),)),
        Rule(1, 18, PING, (SetField("ip_dscp", 10), Output(1))),
        Rule(1, 19, Match(tunnel_id=7, eth_dst=GROUP_BITS), (), meter=1),
        Rule(
            1,
            20,
            Match(eth_type=0x0800, ip_proto=6, tcp_src=80),
            (
                SetField("eth_src", "02:00:00:00:00:09"),
                SetField("ipv4_src", "9.9.9.9"),
                SetField("tcp_src", 8080),
                SetField("tcp_dst", 1),
                Output(PORT_LOCAL),
            ),
            goto_table=2,
        ),
        Rule(
            1,
            21,
            Match(eth_type=0x0800, ip_proto=17, udp_src=80),
            (SetField("udp_src", 8080), Output(1)),
        ),
    }
)
FAST_FAILOVER = (
    Bucket((Output(2),), watch_port=2),
    Bucket((PushVlan(), SetField("vlan_vid", VLAN_PRESENT | 9), Output(3)), watch_port=3),
)
GROUPS = (
    GroupMod(GroupCommand.ADD, 1, GroupType.FAST_FAILOVER, FAST_FAILOVER),
    GroupMod(GroupCommand.ADD, 2, GroupType.ALL, (Bucket((Output(1),)), Bucket((Output(2),)))),
    GroupMod(
        GroupCommand.ADD,
        3,
        GroupType.SELECT,
        (Bucket((Output(1),), weight=5), Bucket((Output(2),), weight=1)),
    ),
    GroupMod(GroupCommand.ADD, 4, GroupType.INDIRECT, (Bucket((Output(1),)),)),
)
METERS = (
    MeterMod(MeterCommand.ADD, 1, (MeterBand(1000, 100),)),
    MeterMod(MeterCommand.ADD, 2, (MeterBand(500),), packets=True),
)
WIPE = (
    FlowMod(Command.DELETE, table_id=TABLE_ALL),
    GroupMod(GroupCommand.DELETE, GROUP_ALL),
    MeterMod(MeterCommand.DELETE, METER_ALL),
)


def shell(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"


@pytest.fixture
async def bridge() -> AsyncIterator[Path]:
    """Return the socket at which a switch of three ports waits for controllers."""
    netns, run_id = f"ab-v{secrets.token_hex(3)}", f"test-{secrets.token_hex(6)}"
    directory = Path(tempfile.mkdtemp(prefix="ab-v"))
    switch = OpenVSwitch("versions", netns, directory, run_id, lambda event: None)
    shell("ip", "netns", "add", netns)
    try:
        for name in PORTS:
            shell("ip", "-n", netns, "link", "add", name, "up", "type", "veth", "peer", f"{name}p")
        await switch.start()
        await switch.configure(BRIDGE, 0xAB, PORTS, f"unix:{switch.controller_path(BRIDGE)}")
        yield directory / f"{BRIDGE}.mgmt"
    finally:
        await switch.stop()
        end_marked(run_id)
        subprocess.run(["ip", "netns", "delete", netns], check=False)
        shutil.rmtree(directory, ignore_errors=True)


class Peer:
    """One controller's connection and what it has heard."""

    def __init__(self, version: int) -> None:
        self.events: list[SessionEvent] = []
        self.connection = Connection(
            "switch",
            lambda _, event: self.events.append(event),
            lambda _, reason: None,
            2.0,
            frozenset({version}),
        )

    async def heard(self, kind: type[SessionEvent]) -> SessionEvent:
        async with asyncio.timeout(2):
            while not any(isinstance(event, kind) for event in self.events):
                await asyncio.sleep(0.005)
        return next(event for event in self.events if isinstance(event, kind))

    async def do(self, *requests: FlowMod | GroupMod | MeterMod | PacketOut) -> list[SessionEvent]:
        """Send all and return what the switch says about it."""
        self.events.clear()
        for request in requests:
            self.connection.send(request, type(request).__name__)
        await self.connection.barrier()
        return self.events

    async def bundle(self, bundle_id: int, *requests: FlowMod | GroupMod) -> None:
        flags = 3
        self.connection.send(BundleControl(bundle_id, BundleType.OPEN_REQUEST, flags), "open")
        for request in requests:
            self.connection.send(BundleAdd(bundle_id, flags, request), "in the bundle")
        await self.connection.commit(bundle_id, flags)


@asynccontextmanager
async def connected(path: Path, version: int) -> AsyncIterator[Peer]:
    peer = Peer(version)
    await asyncio.get_running_loop().create_unix_connection(lambda: peer.connection, str(path))
    up = await peer.heard(SwitchUp)
    assert isinstance(up, SwitchUp)
    assert (up.dpid, up.version) == (0xAB, version)
    assert {port.name: port.port_no for port in up.ports}.items() >= PORTS.items()
    try:
        yield peer
    finally:
        peer.connection.close(DisconnectedError("done"))
        await peer.connection.closed


@pytest.mark.parametrize("version", [4, 5, 6])
async def test_a_switch_holds_what_it_was_told(bridge: Path, version: int) -> None:
    async with connected(bridge, version) as peer:
        assert await peer.do(*WIPE, *METERS, *GROUPS, *(rule.add() for rule in RULES)) == []
        flows = await peer.connection.ask(MultipartRequest(MultipartType.FLOW))
        assert {Rule.installed(flow) for flow in flows if isinstance(flow, FlowStats)} == RULES
        for cookie in {rule.cookie for rule in RULES}:
            narrowed = MultipartRequest(
                MultipartType.AGGREGATE, cookie=cookie, cookie_mask=COOKIE_MASK
            )
            (total,) = await peer.connection.ask(narrowed)
            count = sum(rule.cookie == cookie for rule in RULES)
            assert total == AggregateStats(0, 0, count)
        groups = await peer.connection.ask(MultipartRequest(MultipartType.GROUP_DESC))
        held = {
            group.group_id: (group.type, [(one.actions, one.watch_port) for one in group.buckets])
            for group in groups
            if isinstance(group, GroupDesc)
        }
        assert held == {
            mod.group_id: (mod.type, [(one.actions, one.watch_port) for one in mod.buckets])
            for mod in GROUPS
        }
        meters = await peer.connection.ask(MultipartRequest(MultipartType.METER_CONFIG))
        assert set(meters) == {MeterConfig(mod.meter_id, mod.bands, mod.packets) for mod in METERS}
        for kind in MultipartType:
            assert await peer.connection.ask(MultipartRequest(kind))


@pytest.mark.parametrize("version", [4, 5, 6])
async def test_refusals_packets_and_roles(bridge: Path, version: int) -> None:
    async with connected(bridge, version) as peer:
        assert await peer.do(*WIPE, *GROUPS, *METERS) == []
        wrong = (GROUPS[0], Rule(0, 1, Match(), (Group(99),)).add(), METERS[0])
        assert [event.reason for event in await peer.do(*wrong) if isinstance(event, Refused)] == [
            "group exists",
            "unknown group in action",
            "meter exists",
        ]
        await peer.do(PacketOut(bytes(64), (Output(PORT_CONTROLLER, 0xFFFF),), in_port=1))
        packet = await peer.heard(PacketIn)
        assert isinstance(packet, PacketIn)
        assert (packet.data, packet.match) == (bytes(64), Match(in_port=1))
        await peer.connection.set_role(ControllerRole.MASTER, 5)
        with pytest.raises(FabricError, match="stale generation id"):
            await peer.connection.set_role(ControllerRole.MASTER, 4)
        async with connected(bridge, version) as other:
            await other.connection.set_role(ControllerRole.MASTER, 6)
            if version > 4:
                status = await peer.heard(RoleStatus)
                assert isinstance(status, RoleStatus)
                assert (status.role, status.generation_id) == (ControllerRole.SLAVE, 6)
            refused = (await peer.do(Rule(0, 1, Match(), ()).add()))[-1]
            assert isinstance(refused, Refused)
            assert refused.reason == "controller is slave"


@pytest.mark.parametrize("version", [4, 5, 6])
async def test_a_bundle_is_done_as_a_whole_or_not_at_all(bridge: Path, version: int) -> None:
    right = Rule(0, 5, Match(in_port=1), (Group(2),))
    wrong = Rule(0, 6, Match(in_port=1), (Group(77),))

    async with connected(bridge, version) as peer:
        assert await peer.do(*WIPE) == []
        await peer.bundle(1, GROUPS[1], right.add())
        with pytest.raises(FabricError, match="message in bundle failed"):
            await peer.bundle(2, right.delete(), wrong.add())
        assert [event.request for event in peer.events if isinstance(event, Refused)] == [
            "in the bundle",
            "bundle 2",
        ]
        flows = await peer.connection.ask(MultipartRequest(MultipartType.FLOW))
        assert [Rule.installed(flow) for flow in flows if isinstance(flow, FlowStats)] == [right]


async def test_single_buckets_come_and_go_in_openflow_15(bridge: Path) -> None:
    async with connected(bridge, 6) as peer:
        assert await peer.do(*WIPE, GROUPS[1]) == []
        third = Bucket((Output(3),), bucket_id=9)
        insert = GroupMod(
            GroupCommand.INSERT_BUCKET, 2, buckets=(third,), command_bucket_id=BUCKET_LAST
        )
        remove = GroupMod(GroupCommand.REMOVE_BUCKET, 2, command_bucket_id=0)
        assert await peer.do(insert, remove) == []
        (group,) = await peer.connection.ask(MultipartRequest(MultipartType.GROUP_DESC, group_id=2))
        assert group == GroupDesc(2, GroupType.ALL, (Bucket((Output(2),), bucket_id=1), third))
        again = await peer.do(insert, remove)
        assert [event.reason for event in again if isinstance(event, Refused)] == [
            "bucket exists",
            "unknown bucket",
        ]
