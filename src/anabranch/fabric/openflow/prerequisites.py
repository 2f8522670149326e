"""Which fields of a match need which others, or no switch takes it (OpenFlow 1.3.5, table 12)."""

from anabranch.fabric.openflow.oxm import VLAN_PRESENT, Match

_IPV4, _IPV6, _ARP = (0x0800,), (0x86DD,), (0x0806,)
_IP = (*_IPV4, *_IPV6)
_NEEDS: dict[str, tuple[str, tuple[int, ...]]] = {
    **dict.fromkeys(("ip_dscp", "ip_ecn", "ip_proto"), ("eth_type", _IP)),
    **dict.fromkeys(("ipv4_src", "ipv4_dst"), ("eth_type", _IPV4)),
    **dict.fromkeys(("ipv6_src", "ipv6_dst"), ("eth_type", _IPV6)),
    **dict.fromkeys(("arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha"), ("eth_type", _ARP)),
    **dict.fromkeys(("tcp_src", "tcp_dst", "tcp_flags"), ("ip_proto", (6,))),
    **dict.fromkeys(("udp_src", "udp_dst"), ("ip_proto", (17,))),
    **dict.fromkeys(("icmpv4_type", "icmpv4_code"), ("ip_proto", (1,))),
    **dict.fromkeys(("icmpv6_type", "icmpv6_code"), ("ip_proto", (58,))),
    "ipv6_nd_target": ("icmpv6_type", (135, 136)),
}


def fault_of(match: Match) -> str | None:
    """Say why no switch would take ``match``, None if nothing is known against it."""
    for name in _NEEDS:
        if getattr(match, name) is None:
            continue
        needed, values = _NEEDS[name]
        if getattr(match, needed) not in values:
            shown = " or ".join(f"{v:#06x}" if needed == "eth_type" else str(v) for v in values)
            return f"{name} needs {needed} {shown}"
    vlan = match.vlan_vid
    if isinstance(vlan, int) and vlan and not VLAN_PRESENT <= vlan < VLAN_PRESENT + 4095:
        return f"vlan_vid {vlan} is none: 0 for untagged, or 0x1000 and the VLAN's number"
    if match.vlan_pcp is not None and not vlan:
        return "vlan_pcp needs a vlan_vid"
    return None
