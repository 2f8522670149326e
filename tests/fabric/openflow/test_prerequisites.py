"""What a switch would refuse is known before it is asked."""

import pytest

from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.openflow.prerequisites import fault_of


@pytest.mark.parametrize(
    "match",
    [
        Match(),
        Match(eth_type=0x0800, ip_proto=17, ipv4_dst="239.1.2.3", udp_dst=5004),
        Match(eth_type=0x86DD, ip_proto=58, icmpv6_type=135, ipv6_nd_target="fe80::1"),
        Match(eth_type=0x0806, arp_op=1, arp_tpa="10.0.0.1"),
        Match(vlan_vid=0),
        Match(vlan_vid=0x1000 | 7, vlan_pcp=3),
        Match(vlan_vid=(0x1000, 0x1000)),
        Match(vlan_vid=(0x1004, 0x1006), vlan_pcp=3),
        Match(vlan_vid=(0, 1)),
        Match(eth_type=0x0800, ip_proto=1, icmpv4_type=8, icmpv4_code=0),
        Match(eth_type=0x86DD, ip_proto=58, icmpv6_type=136, icmpv6_code=0, ipv6_nd_target="::1"),
        Match(eth_type=0x0800, ip_proto=58),
        Match(eth_type=0x0800, ip_proto=6, tcp_flags=(2, 2)),
    ],
)
def test_a_match_that_a_switch_takes(match: Match) -> None:
    assert fault_of(match) is None


@pytest.mark.parametrize(
    ("match", "words"),
    [
        (Match(udp_dst=1), "udp_dst needs ip_proto 17"),
        (Match(ip_proto=17, udp_dst=1), "ip_proto needs eth_type 0x0800 or 0x86dd"),
        (Match(eth_type=0x0800, ip_proto=6, udp_dst=1), "udp_dst needs ip_proto 17"),
        (Match(ipv4_dst="10.0.0.1"), "ipv4_dst needs eth_type 0x0800"),
        (Match(eth_type=0x0800, arp_op=1), "arp_op needs eth_type 0x0806"),
        (Match(vlan_pcp=1), "vlan_pcp needs a vlan_vid"),
        (Match(vlan_pcp=1, vlan_vid=0), "vlan_pcp needs a vlan_vid"),
        (Match(vlan_pcp=1, vlan_vid=(5, 0xFFF)), "vlan_pcp needs a vlan_vid"),
        (Match(vlan_pcp=1, vlan_vid=(0, 0x1000)), "vlan_pcp needs a vlan_vid"),
        (Match(eth_type=0x86DD, ip_proto=1, icmpv4_type=8), "icmpv4_type needs eth_type 0x0800"),
        (Match(eth_type=0x0800, ip_proto=58, icmpv6_code=0), "icmpv6_code needs eth_type 0x86dd"),
        (
            Match(eth_type=0x86DD, ip_proto=58, icmpv6_type=134, ipv6_nd_target="::1"),
            "ipv6_nd_target needs icmpv6_type 135 or 136",
        ),
        (
            Match(
                eth_type=0x86DD, ip_proto=58, icmpv6_type=135, icmpv6_code=1, ipv6_nd_target="::1"
            ),
            "ipv6_nd_target needs icmpv6_code 0",
        ),
        (Match(eth_type=0x0806, arp_op=256), "arp_op 256 is more than 255"),
        (Match(vlan_vid=5), "vlan_vid 5 is none"),
        (Match(vlan_vid=0x1FFF), "vlan_vid 8191 is none"),
    ],
)
def test_a_match_that_a_switch_refuses(match: Match, words: str) -> None:
    assert words in (fault_of(match) or "")
