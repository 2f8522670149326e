"""The rules of the plain Linux plane, as nft reads them (nft(8)). Pure.

In the router's namespace a table of family *netdev*: at the ingress of every device of the router
a map leads what is claimed to its tenant's link; at the ingress of each link's end a guard lets
back only what is from or to addresses that the tenant has claimed, and not more than its rate.
Connections that are claimed for a tenant's server are led there and back by the kernel's NAT.
"""

from collections.abc import Iterable
from ipaddress import collapse_addresses

from anabranch.services.claim import Claim, Network
from anabranch.services.planes.plane import Tenant

TABLE = "anabranch_services"
PACKETS, SERVER = "svc", "srv"
"""What the router's ends of the tenants' links begin with."""
SIGNALLING_PORT = 270
"""The node's own, whatever anybody claims."""
_FAMILIES = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}
_KEYS = (
    ("ports", "{family} daddr . meta l4proto . th dport", "{type} . inet_proto . inet_service"),
    ("protocols", "{family} daddr . meta l4proto", "{type} . inet_proto"),
    ("any", "{family} daddr", "{type}"),
)
"""The maps, the closest first: what a claim leaves open is not in its key."""
_BURST_MS = 20
_NEIGHBOURS = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255"
"""RFC 4861, section 7.1: what comes from elsewhere has a lower hop limit."""


ROUTED = "accept"
"""What becomes of a tenant's packets on a router: they go on as if they had just arrived."""


def sent_to(device: str) -> str:
    """Return the statement that sends a frame out of a device as it is."""
    return f'fwd to "{device}"'


def base(devices: Iterable[str], back_by: str | None = None) -> str:
    """Return the rules that are there from the beginning; what was there before goes.

    Args:
        back_by: the device of a node beside a switch, which leads here what is claimed: by it goes
            back at once what nobody claims any more, see :func:`led`. None: the node is a router.
    """
    maps, look_ups = [], []
    for version, (family, kind) in _FAMILIES.items():
        for name, key, types in _KEYS:
            type_ = types.format(type=kind)
            maps.append(f"  map {name}{version} {{ type {type_} : verdict; flags interval; }}")
            look_ups.append(f"    {key.format(family=family)} vmap @{name}{version}")
    quoted = ", ".join(f'"{device}"' for device in devices)
    lines = "\n".join
    back = ""
    if back_by is not None:
        maps.append("  set led4 { type ipv4_addr; flags interval; auto-merge; }")
        back = f"    meta pkttype other ip daddr @led4 {sent_to(back_by)}"
    return f"""
table netdev {TABLE}
delete table netdev {TABLE}
table inet {TABLE}
delete table inet {TABLE}
table netdev {TABLE} {{
{lines(maps)}
  chain path {{
    type filter hook ingress devices = {{ {quoted} }} priority 0; policy accept;
    udp dport {SIGNALLING_PORT} accept
{lines(look_ups)}
{back}
  }}
}}
table inet {TABLE} {{
  chain input {{
    type filter hook input priority -5; policy accept;
    iifname {{ {quoted} }} accept
    iifname "{SERVER}*" icmp type echo-request accept
    iifname "{SERVER}*" {_NEIGHBOURS} accept
    iifname {{ "{SERVER}*", "{PACKETS}*" }} drop
  }}
  map served {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; flags interval; }}
  chain served {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "{SERVER}*" accept
    dnat ip to ip daddr . tcp dport map @served
  }}
}}
"""


def removal() -> str:
    """Return what removes all rules, there or not."""
    return "".join(
        f"table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in ("netdev", "inet")
    )


def tenant(asked: Tenant, onward: str = ROUTED, forged: str = "") -> str:
    """Return the rules of a tenant that claims nothing yet.

    Args:
        onward: what becomes of its packets.
        forged: a match; what it says of a packet is a lie, whatever the claims.
    """
    number, rate = asked.number, _rate(asked.bandwidth_mbit)
    guard = f'{forged} counter drop comment "forged"' if forged else ""
    text = f"""
table netdev {TABLE} {{
  set own4_{number} {{ type ipv4_addr; flags interval; }}
  set own6_{number} {{ type ipv6_addr; flags interval; }}
  chain to{number} {{ counter fwd to "{PACKETS}{number}"; }}
  chain from{number} {{
    type filter hook ingress device "{PACKETS}{number}" priority 0; policy drop;
    {rate} counter drop
    {guard}
    ip daddr @own4_{number} {onward}
    ip saddr @own4_{number} {onward}
    ip6 daddr @own6_{number} {onward}
    ip6 saddr @own6_{number} {onward}
    counter comment "forged"
  }}
}}
"""
    if asked.address is not None:
        text += f"""
table netdev {TABLE} {{
  chain server{number} {{
    type filter hook ingress device "{SERVER}{number}" priority 0; policy drop;
    {rate} counter drop
    ether type arp accept
    ip saddr {asked.address} accept
    {_from6(asked)}
    counter comment "forged"
  }}
}}
"""
    return text


def without_tenant(asked: Tenant) -> str:
    """Return what removes a tenant's rules; its claims are gone already."""
    names = ["to", "from", *(["server"] if asked.address is not None else [])]
    chains = [f"{name}{asked.number}" for name in names]
    lines = [f"flush chain netdev {TABLE} {chain}" for chain in chains]
    lines += [f"delete chain netdev {TABLE} {chain}" for chain in chains]
    lines += [f"delete set netdev {TABLE} own{v}_{asked.number}" for v in _FAMILIES]
    return "\n".join(lines) + "\n"


def claims(number: int, before: Iterable[Claim], after: Iterable[Claim]) -> str:
    """Return what makes a tenant have exactly the claims ``after``, in one transaction.

    Only what is other than ``before`` is touched: others' claims cost nothing, however many.
    """
    to_ring = [[c for c in each if c.server is None] for each in (before, after)]
    lines = _changes(f"element inet {TABLE} served", _served(before), _served(after))
    for version in _FAMILIES:
        for name, _, _ in _KEYS:
            place = f"element netdev {TABLE} {name}{version}"
            had, has = (
                _elements(name, [c for c in each if _belongs(c, name, version)]) for each in to_ring
            )
            verdict = f" : goto to{number}"
            lines += _changes(place, had, has, verdict)
        had, has = (
            [str(n) for n in collapse_addresses(
                c.destination for c in each if c.destination.version == version)]  # type: ignore[type-var]
            for each in to_ring
        )  # fmt: skip
        lines += _changes(f"element netdev {TABLE} own{version}_{number}", had, has)
    return "\n".join(lines) + "\n"


def _changes(place: str, had: list[str], has: list[str], verdict: str = "") -> list[str]:
    gone = [f"{each}{verdict}" for each in had if each not in has]
    new = [f"{each}{verdict}" for each in has if each not in had]
    lines = [f"delete {place} {{ {', '.join(gone)} }}"] if gone else []
    return lines + ([f"add {place} {{ {', '.join(new)} }}"] if new else [])


def _served(claims: Iterable[Claim]) -> list[str]:
    """Return what leads claimed connections to a tenant's server."""
    networks: dict[str, list[Network]] = {}
    for claim in claims:
        for port in claim.ports if claim.server is not None else ():
            rest = f"{port} : {claim.server} . {port}"
            networks.setdefault(rest, []).append(claim.destination)
    return [
        f"{network} . {rest}"
        for rest, of_rest in networks.items()
        for network in collapse_addresses(of_rest)  # type: ignore[type-var]
    ]


def led(some: Iterable[Claim]) -> str:
    """Return what has these packets, once nobody claims them any more, sent back to the switch.

    Only what was claimed once: no other packet of somebody else's comes from a switch but by
    mistake, and to send that back could make a loop.
    """
    found = ", ".join(str(c.destination) for c in some if c.destination.version == 4)
    return f"add element netdev {TABLE} led4 {{ {found} }}\n" if found else ""


def inside(asked: Tenant) -> str:
    """Return the rules in a tenant's own namespace: who may be spoken to there."""
    ports = ", ".join(map(str, asked.ports))
    listens = f"tcp dport {{ {ports} }} accept\n    udp dport {{ {ports} }} accept" if ports else ""
    return f"""
table inet {TABLE} {{
  chain input {{
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state established,related accept
    icmp type echo-request accept
    icmpv6 type echo-request accept
    {_NEIGHBOURS} accept
    {listens}
  }}
  chain output {{
    type filter hook output priority 0; policy drop;
    oif lo accept
    ip saddr {asked.address} accept
    {_from6(asked)}
  }}
}}
"""


def _from6(asked: Tenant) -> str:
    """Return what lets its packets of IPv6 out, and those by which neighbours find each other."""
    if asked.address6 is None:
        return ""
    return f"ip6 saddr {asked.address6} accept\n    {_NEIGHBOURS} accept"


def _belongs(claim: Claim, name: str, version: int) -> bool:
    closest = "ports" if claim.ports else "protocols" if claim.protocol is not None else "any"
    return closest == name and claim.destination.version == version


def _elements(name: str, found: Iterable[Claim]) -> list[str]:
    """Return the keys of some claims in a map, none of which is inside another."""
    networks: dict[tuple[int, ...], list[Network]] = {}
    for claim in found:
        protocol = claim.protocol or 0
        rests: list[tuple[int, ...]] = [(protocol, port) for port in claim.ports] or [(protocol,)]
        for rest in rests:
            networks.setdefault(rest if name != "any" else (), []).append(claim.destination)
    return [
        " . ".join([str(network), *map(str, rest)])
        for rest, of_rest in networks.items()
        for network in collapse_addresses(of_rest)  # type: ignore[type-var]
    ]


def _rate(mbit: int) -> str:
    kbytes = mbit * 125
    return (
        f"limit rate over {kbytes} kbytes/second burst {max(kbytes * _BURST_MS // 1000, 64)} kbytes"
    )
