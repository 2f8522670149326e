"""Carriage: one copy a link, rewritten for the right leaf, and only for what is wanted."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.site.conftest import Make

from anabranch.core.errors import UsageError
from anabranch.fabric import frames
from anabranch.fabric.compiler import Compiler
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.intents import Egress, Intents
from anabranch.fabric.model import Network, PortInfo, PortRef
from anabranch.fabric.openflow.oxm import ETH_IPV4, IP_UDP
from anabranch.fabric.softswitch.network import SoftNetwork
from anabranch.fabric.softswitch.switch import SoftSwitch
from anabranch.fabric.tables import Tables
from anabranch.media.leaf import Feed, Inlet
from anabranch.site.carriage import (
    STREAM_PORT,
    Brought,
    Bucket,
    DirectCarriage,
    Repair,
    Route,
    Sorting,
    StreamId,
    SwitchCarriage,
    Target,
    Want,
    flows_of,
    group_address,
    group_address_6,
    intents_of,
    repair_flows,
    wants_of,
)
from anabranch.site.layout import HOST_PORT, OUTLET_PORT
from anabranch.site.plan import SitePlan, make_plan
from anabranch.site.settings import DEFAULT_NODES, Outlet

HIGH, SOUND = StreamId("news", "high"), StreamId("news", "audio")
GROUPS = {HIGH: "239.192.0.17", SOUND: "239.192.0.16"}
MAC = "02:00:00:00:00:01"
NETWORK = IPv4Network("239.192.0.0/16")


@pytest.fixture(scope="module")
def plan(settings: Make) -> SitePlan:
    return make_plan(settings())


def test_an_inlet_wants_the_picture_and_its_channels_sound() -> None:
    feed = Feed("news", "high")
    assert wants_of("leaf1", [Inlet(feed, 21000, 21001), Inlet(feed, 21002, 0)]) == {
        Want(HIGH, "leaf1", 21000),
        Want(SOUND, "leaf1", 21001),
        Want(HIGH, "leaf1", 21002),
    }
    assert wants_of("leaf1", []) == frozenset()


def ports_of(plan: SitePlan, node: str) -> list[int]:
    return [HOST_PORT, *(end.port_no for _, end in plan.layout.at(node))]


class Fabric:
    """What the switches of a plan do with wishes: soft switches that hold the compiled tables."""

    def __init__(self, plan: SitePlan, wants: Collection[Want]) -> None:
        self.plan = plan
        pairs = [(cable.link.src, cable.link.dst) for cable in plan.layout.cables]
        switches = {n.name: SoftSwitch(n.dpid, ports_of(plan, n.name)) for n in plan.nodes.values()}
        self.soft = SoftNetwork(switches, pairs)
        self.soft.load(self.compiled(wants), 0.0)

    def compiled(self, wants: Collection[Want]) -> Mapping[str, Tables]:
        return self.tables(intents_of(self.plan, wants, GROUPS))

    def tables(self, intents: Intents) -> Mapping[str, Tables]:
        network = Network(
            {node.name: node.dpid for node in self.plan.nodes.values()},
            {
                PortRef(name, number): PortInfo(f"port{number}")
                for name in self.plan.nodes
                for number in ports_of(self.plan, name)
            },
            self.plan.layout.links,
        )
        return Compiler().compile(intents, network).tables

    def send(self, stream: StreamId) -> list[tuple[str, str, str, int]]:
        """Send a packet of a stream as the encoder does: leaf, MAC, address, port of each copy."""
        frame = frames.ethernet(
            "01:00:5e:40:00:11",
            MAC,
            ETH_IPV4,
            frames.ipv4(
                "10.98.0.1",
                GROUPS[stream],
                IP_UDP,
                frames.udp("10.98.0.1", GROUPS[stream], 5000, STREAM_PORT, b"rtp"),
            ),
        )
        left = self.soft.send(PortRef("root", HOST_PORT), frame, 0.0)
        assert all(at.port_no == HOST_PORT for at, _ in left)
        copies = []
        for at, copy in left:
            headers = frames.parse(copy)
            copies.append(
                (
                    at.switch,
                    headers.mac("eth_dst") or "",
                    headers.ipv4("ipv4_dst") or "",
                    headers.fields["udp_dst"],
                )
            )
        return copies

    def packets_out(self, node: str, port_no: int) -> int:
        return self.soft.switches[node].ports[port_no].tx_packets


def expected(plan: SitePlan, wants: Collection[Want], stream: StreamId) -> list[Any]:
    return sorted(
        (want.leaf, leaf.host.mac, str(leaf.overlay_address), want.port)
        for want in wants
        if want.stream == stream and (leaf := plan.nodes[want.leaf])
    )


def test_what_nobody_wants_goes_nowhere(plan: SitePlan) -> None:
    assert Fabric(plan, []).send(HIGH) == []


def test_one_leaf_costs_one_copy_on_its_way_and_none_elsewhere(plan: SitePlan) -> None:
    wants = [Want(HIGH, "leaf2", 21000)]
    fabric = Fabric(plan, wants)
    assert fabric.send(HIGH) == expected(plan, wants, HIGH)
    assert fabric.send(SOUND) == []
    assert fabric.packets_out("root", plan.port_towards("relay")) == 1
    assert fabric.packets_out("relay", plan.port_towards("leaf2")) == 1
    assert fabric.packets_out("relay", plan.port_towards("leaf1")) == 0


def test_two_leaves_and_two_inlets_still_cost_one_copy_a_link(plan: SitePlan) -> None:
    wants = [Want(HIGH, leaf, port) for leaf in ("leaf1", "leaf2") for port in (21000, 21002)]
    fabric = Fabric(plan, wants)
    assert sorted(fabric.send(HIGH)) == expected(plan, wants, HIGH)
    assert fabric.packets_out("root", plan.port_towards("relay")) == 1
    for leaf in ("leaf1", "leaf2"):
        assert fabric.packets_out("relay", plan.port_towards(leaf)) == 1, leaf


@given(
    st.sets(
        st.builds(
            Want,
            st.sampled_from([HIGH, SOUND, StreamId("gone", "high")]),
            st.sampled_from(["leaf1", "leaf2"]),
            st.integers(21000, 21009),
        )
    )
)
def test_exactly_the_wishes_come_true_in_whatever_order(plan: SitePlan, wants: set[Want]) -> None:
    fabric = Fabric(plan, sorted(wants))
    assert fabric.compiled(sorted(wants)) == fabric.compiled(sorted(wants, reverse=True))
    for stream in (HIGH, SOUND):  # one that has gone is passed over
        assert sorted(fabric.send(stream)) == expected(plan, wants, stream)


async def test_direct_carriage_tells_only_what_changed() -> None:
    told: list[tuple[StreamId, list[Target]]] = []
    carriage = DirectCarriage("127.0.0.1", lambda stream, targets: told.append((stream, targets)))
    assert carriage.targets(HIGH, "unused") == []

    await carriage.carry(
        frozenset({Want(HIGH, "leaf1", 1), Want(SOUND, "leaf1", 2)}), GROUPS, frozenset()
    )
    assert dict(told) == {HIGH: [("127.0.0.1", 1)], SOUND: [("127.0.0.1", 2)]}
    told.clear()
    wants = frozenset({Want(HIGH, "leaf1", 3), Want(HIGH, "leaf1", 1), Want(SOUND, "leaf1", 2)})
    await carriage.carry(wants, GROUPS, frozenset())
    assert told == [(HIGH, [("127.0.0.1", 1), ("127.0.0.1", 3)])]
    assert carriage.targets(HIGH, "unused") == [("127.0.0.1", 1), ("127.0.0.1", 3)]
    told.clear()
    await carriage.carry(wants, GROUPS, frozenset())
    assert told == []
    await carriage.carry(frozenset({Want(StreamId("gone", "x"), "leaf1", 9)}), GROUPS, frozenset())
    assert dict(told) == {HIGH: [], SOUND: []}


def test_pipelines_routes_are_flows_to_the_hosts_of_other_nodes(plan: SitePlan) -> None:
    relay, leaf = (str(plan.nodes[name].overlay_address) for name in ("relay", "leaf1"))
    routes = [
        Route("relay", (leaf, 5004)),
        Route("relay", (relay, 5004)),  # stays within the node
        Route("relay", ("10.98.0.200", 5004)),  # no node's
        Route("gone", (leaf, 5004)),
    ]
    (flow,) = flows_of(plan, routes)
    assert (flow.ingress.switch, flow.match.ipv4_src, flow.match.udp_dst) == ("relay", relay, 5004)
    (egress,) = flow.egress
    assert (egress.at.switch, egress.eth_dst) == ("leaf1", plan.nodes["leaf1"].host.mac)


def test_questions_and_repairs_pass_between_two_hosts_and_nothing_else(plan: SitePlan) -> None:
    fabric = Fabric(plan, [])
    network = Network(
        {node.name: node.dpid for node in plan.nodes.values()},
        {
            PortRef(name, number): PortInfo(f"port{number}")
            for name in plan.nodes
            for number in ports_of(plan, name)
        },
        plan.layout.links,
    )
    repairs = [Repair("leaf1", "relay", 21999), Repair("gone", "relay", 21999)]
    flows = repair_flows(plan, repairs)
    assert {flow.name for flow in flows} == {
        "repair/leaf1/relay/asked",
        "repair/leaf1/relay/answered",
    }
    fabric.soft.load(Compiler().compile(Intents(flows), network).tables, 0.0)

    def reaches(source: str, to: str, from_port: int, port: int) -> list[str]:
        here, there = (str(plan.nodes[name].overlay_address) for name in (source, to))
        datagram = frames.udp(here, there, from_port, port, b"nack")
        frame = frames.ethernet(
            *(plan.nodes[to].host.mac, plan.nodes[source].host.mac, ETH_IPV4),
            frames.ipv4(here, there, IP_UDP, datagram),
        )
        left = fabric.soft.send(PortRef(source, HOST_PORT), frame, 0.0)
        return [at.switch for at, _ in left if at.port_no == HOST_PORT]

    assert reaches("leaf1", "relay", 21003, 21999) == ["relay"]
    assert reaches("relay", "leaf1", 21999, 21003) == ["leaf1"]
    assert reaches("leaf1", "relay", 21999, 21003) == []
    assert reaches("relay", "leaf1", 21003, 21003) == []
    assert reaches("leaf2", "relay", 21003, 21999) == []
    assert reaches("leaf1", "leaf2", 21003, 21999) == []


async def test_a_route_that_contradicts_something_keeps_no_viewer_from_a_stream(
    plan: SitePlan,
) -> None:
    put: list[Intents] = []

    async def refuse_pipelines(intents: Intents) -> frozenset[str]:
        put.append(intents)
        if any(name.startswith("pipelines/") for name in intents.names):
            raise MisuseError("an operator's path has the same match")
        return frozenset()

    carriage = SwitchCarriage(plan, refuse_pipelines)
    route = Route("relay", (str(plan.nodes["leaf1"].overlay_address), 5004))
    with pytest.raises(MisuseError):
        await carriage.carry(frozenset({Want(HIGH, "leaf1", 1)}), GROUPS, frozenset({route}))
    assert put[-1].names == {"news/high"}


@pytest.mark.parametrize("prefix", [16, 24, 28])
def test_every_stream_has_a_group_of_its_own(prefix: int) -> None:
    network = IPv4Network(f"239.192.0.0/{prefix}")
    slots = range(min(1001, network.num_addresses // 16))
    found = [group_address(network, slot, index) for slot in slots for index in range(16)]
    assert len(found) == len(set(found))
    with pytest.raises(UsageError, match="no room"):
        group_address(network, network.num_addresses // 16, 0)
    with pytest.raises(UsageError):
        group_address(network, 0, 16)


OTHER = StreamId("sports", "high")
SORTED = {**GROUPS, OTHER: "239.192.0.33"}
RECEIVER = ("192.0.2.7", 6000)


def bucket(stream: StreamId, receiver: Target = RECEIVER) -> Bucket:
    return Bucket(stream, "leaf2", receiver)


def sorting(*buckets: Bucket, warm: Collection[StreamId] = ()) -> Sorting:
    streams = {each.stream for each in buckets} | set(warm)
    return Sorting(frozenset(buckets), frozenset(Brought(each, "leaf2") for each in streams))


def test_a_plain_seat_is_a_bucket_at_its_leaf(plan: SitePlan) -> None:
    (flow,) = intents_of(plan, [], SORTED, sorting(bucket(HIGH))).flows
    (egress,) = flow.egress
    leaf = plan.nodes["leaf2"]
    assert (egress.at, egress.eth_dst) == (PortRef("leaf2", HOST_PORT), leaf.host.mac)
    assert (egress.ipv4_dst, egress.udp_dst) == RECEIVER
    assert flow.sort == {"leaf2"}


def test_what_is_only_brought_ends_at_the_sort_switch(plan: SitePlan) -> None:
    (flow,) = intents_of(plan, [], SORTED, sorting(warm=[OTHER])).flows
    assert (flow.name, flow.egress, flow.sort) == ("sports/high", frozenset(), {"leaf2"})
    gone = Sorting(brought=frozenset({Brought(HIGH, "gone"), Brought(StreamId("x", "y"), "leaf2")}))
    assert intents_of(plan, [], SORTED, gone).flows == ()


def test_a_receiver_by_ipv6_is_a_bucket_of_a_flow_of_its_own(plan: SitePlan) -> None:
    by_6 = bucket(HIGH, ("2001:db8::7", 6000))
    brought = frozenset({Brought(HIGH, "leaf2"), Brought(HIGH, "leaf2", by_6=True)})
    wanted = Sorting(frozenset({bucket(HIGH), by_6}), brought)
    four, six = intents_of(plan, [], SORTED, wanted).flows
    assert (four.name, six.name) == ("news/high", "news/high/6")
    (egress,) = six.egress
    assert (egress.ipv6_dst, egress.udp_dst, egress.ipv4_dst) == ("2001:db8::7", 6000, None)
    group = group_address_6(SORTED[HIGH])
    assert six.match.ipv6_dst == group
    sent = frames.ethernet(
        "33:33:00:00:00:01",
        MAC,
        0x86DD,
        frames.ipv6("fd00::1", group, 17, frames.udp("fd00::1", group, 1, STREAM_PORT, b"x")),
    )
    fabric = Fabric(plan, [])
    fabric.soft.load(fabric.tables(Intents((four, six))), 0.0)
    ((at, copy),) = fabric.soft.send(PortRef("root", HOST_PORT), sent, 0.0)
    assert at == PortRef("leaf2", HOST_PORT)
    got = frames.parse(copy)
    assert (got.fields["ipv6_dst"], got.fields["udp_dst"]) == (
        int(IPv6Address("2001:db8::7")),
        6000,
    )


def test_who_is_behind_an_outlet_is_sent_to_by_that_port(settings: Make) -> None:
    behind = [IPv4Network("192.0.2.0/24")]
    outlet = Outlet("eth9", tuple(behind), "02:00:00:00:00:09", IPv4Address("192.0.2.1"))
    nodes = [
        replace(node, outlet=outlet if node.name == "leaf2" else None) for node in DEFAULT_NODES
    ]
    plan = make_plan(settings(nodes=nodes))
    assert plan.outside == {PortRef("leaf2", OUTLET_PORT)}
    away = bucket(HIGH, ("198.51.100.7", 6000))
    (flow,) = intents_of(plan, [], SORTED, sorting(bucket(HIGH), away)).flows
    by_port, by_kernel = sorted(flow.egress, key=lambda each: -each.at.port_no)
    assert by_port == Egress(
        PortRef("leaf2", OUTLET_PORT), "02:00:00:00:00:09", *RECEIVER, ipv4_src="192.0.2.1"
    )
    assert (by_kernel.at.port_no, by_kernel.ipv4_src) == (HOST_PORT, None)
    with pytest.raises(UsageError, match="two nodes have the outlet eth9"):
        make_plan(settings(nodes=[replace(node, outlet=outlet) for node in nodes]))


async def test_encoders_send_by_ipv6_while_somebody_takes_it(plan: SitePlan) -> None:
    async def put(_: Intents) -> frozenset[str]:
        return frozenset()

    async def carry(*streams: StreamId) -> list[StreamId]:
        told.clear()
        brought = frozenset(Brought(each, "leaf2", by_6=True) for each in streams)
        await carriage.carry(frozenset(), SORTED, frozenset(), sorting=Sorting(brought=brought))
        return told

    told: list[StreamId] = []
    carriage = SwitchCarriage(plan, put, lambda stream, _: told.append(stream))
    four, six = SORTED[HIGH], group_address_6(SORTED[HIGH])
    assert await carry(HIGH) == [HIGH]
    assert carriage.targets(HIGH, four) == [(four, STREAM_PORT), (six, STREAM_PORT)]
    assert await carry(HIGH, OTHER) == [OTHER]
    assert await carry(OTHER) == [HIGH]
    assert carriage.targets(HIGH, four) == [(four, STREAM_PORT)]


async def test_a_bucket_moves_after_all_that_it_moves_to_is_there(plan: SitePlan) -> None:
    put: list[Intents] = []

    async def note(intents: Intents) -> frozenset[str]:
        put.append(intents)
        return frozenset()

    async def carry(wanted: Sorting) -> list[dict[str, int]]:
        put.clear()
        await carriage.carry(frozenset(), SORTED, frozenset(), sorting=wanted)
        return [{flow.name: len(flow.egress) for flow in intents.flows} for intents in put]

    carriage = SwitchCarriage(plan, note)
    assert await carry(sorting(bucket(HIGH))) == [{"news/high": 1}]
    # Cold: first brought, then moved; what was left is still there, for it is held.
    assert await carry(sorting(bucket(OTHER), warm=[HIGH])) == [
        {"news/high": 1, "sports/high": 0},
        {"news/high": 0, "sports/high": 1},
    ]
    # Warm: one step.
    assert await carry(sorting(bucket(HIGH), warm=[OTHER])) == [{"news/high": 1, "sports/high": 0}]
    # Nobody moves.
    more = sorting(bucket(HIGH), bucket(OTHER, ("192.0.2.8", 6000)))
    assert await carry(more) == [{"news/high": 1, "sports/high": 1}]


async def test_without_switches_a_receiver_never_gets_two(plan: SitePlan) -> None:
    told: list[tuple[StreamId, list[Target]]] = []
    carriage = DirectCarriage("127.0.0.1", lambda stream, targets: told.append((stream, targets)))
    for before, after in ((HIGH, OTHER), (OTHER, HIGH)):
        await carriage.carry(frozenset(), SORTED, frozenset(), sorting=sorting(bucket(before)))
        told.clear()
        await carriage.carry(frozenset(), SORTED, frozenset(), sorting=sorting(bucket(after)))
        assert told == [(before, []), (after, [RECEIVER])]
