"""Which fields of a match need which others, or no switch takes it (OpenFlow 1.3.5, table 12).

Where Open vSwitch 3.1 asks for more than the specification, so does this: an ARP operation of one
byte, and neighbour discovery's code, which is 0 (RFC 4861, section 4.3).
"""

from anabranch.fabric.openflow.oxm import VLAN_PRESENT, Match

_IPV4 = "eth_type", (0x0800,)
_IPV6 = "eth_type", (0x86DD,)
_ARP = "eth_type", (0x0806,)
_IP = "eth_type", (0x0800, 0x86DD)
_NEEDS: dict[str, tuple[tuple[str, tuple[int | None, ...]], ...]] = {
    **dict.fromkeys(("ip_dscp", "ip_ecn", "ip_proto"), (_IP,)),
    **dict.fromkeys(("ipv4_src", "ipv4_dst"), (_IPV4,)),
    **dict.fromkeys(("ipv6_src", "ipv6_dst"), (_IPV6,)),
    **dict.fromkeys(("arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha"), (_ARP,)),
    **dict.fromkeys(("tcp_src", "tcp_dst", "tcp_flags"), (("ip_proto", (6,)),)),
    **dict.fromkeys(("udp_src", "udp_dst"), (("ip_proto", (17,)),)),
    **dict.fromkeys(("icmpv4_type", "icmpv4_code"), (("ip_proto", (1,)), _IPV4)),
    **dict.fromkeys(("icmpv6_type", "icmpv6_code"), (("ip_proto", (58,)), _IPV6)),
    "ipv6_nd_target": (("icmpv6_type", (135, 136)), ("icmpv6_code", (0, None))),
}


def fault_of(match: Match) -> str | None:
    """Say why no switch would take ``match``, None if nothing is known against it.

    A ``vlan_vid`` that is neither 0 nor a VLAN is a fault, too: no packet has it.
    """
    for name, needs in _NEEDS.items():
        if getattr(match, name) is None:
            continue
        for needed, values in needs:
            if getattr(match, needed) not in values:
                return f"{name} needs {needed} {_listed(needed, values)}"
    if match.arp_op is not None and match.arp_op > 0xFF:
        return f"arp_op {match.arp_op} is more than 255"
    vlan = match.vlan_vid
    if isinstance(vlan, int) and vlan and not VLAN_PRESENT <= vlan < VLAN_PRESENT + 4095:
        return f"vlan_vid {vlan} is none: 0 for untagged, or 0x1000 and the VLAN's number"
    if match.vlan_pcp is not None and not _is_tagged(vlan):
        return "vlan_pcp needs a vlan_vid with 0x1000"
    return None


def _is_tagged(vlan: int | tuple[int, int] | None) -> bool:
    """Say whether only tagged frames match; the bit of a masked value is within its mask."""
    value = vlan[0] if isinstance(vlan, tuple) else vlan or 0
    return bool(value & VLAN_PRESENT)


def _listed(name: str, values: tuple[int | None, ...]) -> str:
    shown = (f"{v:#06x}" if name == "eth_type" else str(v) for v in values if v is not None)
    return " or ".join(shown)
