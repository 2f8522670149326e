"""Random matches, some of which lack something that one of their fields needs."""

from typing import Any

from hypothesis import strategies as st

from anabranch.fabric.openflow.oxm import FIELDS, Match

_MAC = ("02:00:00:00:00:01", "02:00:00:00:00:00/ff:00:00:00:00:00")
_IPV4 = ("10.0.0.1", "10.0.0.0/8", "10.0.1.0/255.0.255.0")
_IPV6 = ("fe80::1", "fe80::/10")
# Ports above 0xfeff and EtherType 0x8035 are left out: there Open vSwitch and the specification
# differ, and a switch of another kind may be the one that is asked.
_VALUES: dict[str, tuple[Any, ...]] = {
    "in_port": (1, 0xFEFF, 0xFFFFFFFE),
    "metadata": (1, (1, 3)),
    **dict.fromkeys(("eth_dst", "eth_src", "arp_sha", "arp_tha"), _MAC),
    "eth_type": (0x0800, 0x0806, 0x86DD, 0x88CC, 0x8100, 0x05FF),
    "vlan_vid": (
        *(0, 0x1000, 0x1005, (0x1000, 0x1000), (0x1004, 0x1006)),
        *((0, 0x1000), (5, 0xFFF), (0, 1)),
    ),
    "vlan_pcp": (0, 7),
    "ip_dscp": (0, 46),
    "ip_ecn": (0, 3),
    "ip_proto": (1, 6, 17, 58, 132),
    **dict.fromkeys(("ipv4_src", "ipv4_dst", "arp_spa", "arp_tpa"), _IPV4),
    **dict.fromkeys(("ipv6_src", "ipv6_dst"), _IPV6),
    "ipv6_nd_target": _IPV6[:1],
    **dict.fromkeys(("tcp_src", "tcp_dst", "udp_src", "udp_dst"), (0, 0xFFFF)),
    "icmpv4_type": (0, 255),
    "icmpv6_type": (1, 134, 135, 136),
    **dict.fromkeys(("icmpv4_code", "icmpv6_code"), (0, 1)),
    "arp_op": (0, 1, 255, 256, 0xFFFF),
    "tunnel_id": (1, (1, 1)),
    "tcp_flags": (2, (2, 2), 0xFFF),
}
assert _VALUES.keys() == {known.name for known in FIELDS}

_ANY = ("in_port", "metadata", "eth_dst", "eth_src", "vlan_vid", "vlan_pcp", "tunnel_id")
_IP = (*_ANY, "ip_dscp", "ip_ecn")
# What packets of one kind have, so that not nearly every match is refused.
_KINDS: tuple[tuple[dict[str, int], tuple[str, ...]], ...] = (
    ({}, _ANY),
    ({"eth_type": 0x0806}, (*_ANY, "arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha")),
    *(
        ({"eth_type": eth_type, "ip_proto": proto}, (*_IP, *network, *transport))
        for eth_type, network in (
            (0x0800, ("ipv4_src", "ipv4_dst")),
            (0x86DD, ("ipv6_src", "ipv6_dst")),
        )
        for proto, transport in (
            (6, ("tcp_src", "tcp_dst", "tcp_flags")),
            (17, ("udp_src", "udp_dst")),
            (1, ("icmpv4_type", "icmpv4_code")),
            (58, ("icmpv6_type", "icmpv6_code", "ipv6_nd_target")),
        )
    ),
)


@st.composite
def matches(draw: st.DrawFn) -> Match:
    """Return a match of one kind of packet, perhaps with a field of another kind, or one less."""
    kind, fields = draw(st.sampled_from(_KINDS))
    names = draw(st.lists(st.sampled_from(fields), max_size=4, unique=True))
    names += draw(st.sampled_from([[], [], [draw(st.sampled_from(sorted(_VALUES)))]]))
    chosen = kind | {name: draw(st.sampled_from(_VALUES[name])) for name in names}
    if chosen and draw(st.integers(0, 7)) == 0:
        del chosen[draw(st.sampled_from(sorted(chosen)))]
    return Match(**chosen)
