"""Packets through several soft switches."""

import pytest
from tests.fabric.softswitch.cases import rule, udp

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.actions import Group, Output, PopVlan, PushVlan, SetField
from anabranch.fabric.openflow.messages import Bucket, GroupType
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.softswitch.network import MAX_HOPS, SoftNetwork, graph, line, tree
from anabranch.fabric.softswitch.switch import SoftSwitch
from anabranch.fabric.tables import GroupSpec, Tables


def flood() -> Tables:
    return Tables(frozenset({rule(Match(), Output(0xFFFFFFFB))}))


def test_a_flood_in_a_tree_reaches_every_host_once() -> None:
    network = tree(7, 2)
    network.load(dict.fromkeys(network.switches, flood()), 0.0)
    left = network.send(PortRef("s4", 1), udp(), 0.0)
    hosts = [PortRef(f"s{n}", 1) for n in range(1, 8) if n != 4]
    assert sorted(left) == [(ref, udp()) for ref in hosts]
    assert network.looped == 0


def test_a_flood_in_a_ring_ends() -> None:
    network = graph([(1, 2), (2, 3), (3, 1)])
    network.load(dict.fromkeys(network.switches, flood()), 0.0)
    left = network.send(PortRef("s1", 1), udp(), 0.0)
    assert network.looped == 2
    assert len(left) == 2 * (MAX_HOPS - 1)


def test_a_bypass_carries_the_flow_around_a_broken_link() -> None:
    """s1 - s2 directly, or by s3 with a tag: the pipeline's fail-over in small."""
    network = graph([(1, 2), (1, 3), (3, 2)])  # s1: 2 -> s2, 3 -> s3; s2: 2 -> s1, 3 -> s3
    tag = PushVlan(), SetField("vlan_vid", 0x1064)
    buckets = (
        Bucket((Output(2),), watch_port=2),
        Bucket((*tag, Output(3)), watch_port=3),
    )
    network.load(
        {
            "s1": Tables(
                frozenset({rule(Match(in_port=1), Group(1))}),
                frozenset({GroupSpec(1, GroupType.FAST_FAILOVER, buckets)}),
            ),
            "s2": Tables(
                frozenset(
                    {
                        rule(Match(in_port=2), Output(1)),
                        rule(Match(in_port=3, vlan_vid=0x1064), PopVlan(), Output(1)),
                    }
                )
            ),
            "s3": Tables(frozenset({rule(Match(in_port=2, vlan_vid=0x1064), Output(3))})),
        },
        0.0,
    )
    arrived = [(PortRef("s2", 1), udp())]
    assert network.send(PortRef("s1", 1), udp(), 0.0) == arrived
    assert network.switches["s3"].ports[2].rx_packets == 0
    network.set_link(PortRef("s2", 2), False)
    assert not network.switches["s1"].ports[2].port.up
    assert network.send(PortRef("s1", 1), udp(), 0.0) == arrived
    assert network.switches["s3"].ports[2].rx_packets == 1
    network.set_link(PortRef("s1", 2), True)
    assert network.send(PortRef("s1", 1), udp(), 0.0) == arrived
    assert network.switches["s3"].ports[2].rx_packets == 1


def test_shapes() -> None:
    row = line(3, host_ports=2)
    assert row.peers == {
        PortRef("s1", 3): PortRef("s2", 3),
        PortRef("s2", 3): PortRef("s1", 3),
        PortRef("s2", 4): PortRef("s3", 3),
        PortRef("s3", 3): PortRef("s2", 4),
    }
    wide = tree(10, 3)
    assert sorted(wide.switches["s1"].ports) == [1, 2, 3, 4]
    assert wide.peers[PortRef("s10", 2)] == PortRef("s3", 5)
    assert [switch.dpid for switch in graph((), nodes=3).switches.values()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (PortRef("a", 1), PortRef("a", 9)),
        (PortRef("a", 1), PortRef("b", 1)),
        (PortRef("a", 1), PortRef("a", 1)),
    ],
)
def test_links_end_at_ports_that_are_there_and_free(left: PortRef, right: PortRef) -> None:
    with pytest.raises(MisuseError):
        SoftNetwork({"a": SoftSwitch(1, (1, 2))}, [(left, right)])
