"""The rules of the plain Linux plane, as nft reads them (nft(8)). Pure.

In the router's namespace a table of family *netdev*: at the ingress of every device of the router
a map leads what is claimed to its tenant's link; at the ingress of each link's end a guard lets
back only what is from or to addresses that the tenant has claimed, and not more than its rate.
"""

from collections.abc import Iterable, Mapping
from ipaddress import collapse_addresses

from anabranch.services.claim import Claim, Network
from anabranch.services.planes.plane import Tenant

TABLE = "anabranch_services"
PACKETS, SERVER = "svc", "srv"
"""What the router's ends of the tenants' links begin with."""
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


def base(devices: Iterable[str]) -> str:
    """Return the rules that are there from the beginning; what was there before goes."""
    maps, look_ups = [], []
    for version, (family, kind) in _FAMILIES.items():
        for name, key, types in _KEYS:
            type_ = types.format(type=kind)
            maps.append(f"  map {name}{version} {{ type {type_} : verdict; flags interval; }}")
            look_ups.append(f"    {key.format(family=family)} vmap @{name}{version}")
    quoted = ", ".join(f'"{device}"' for device in devices)
    lines = "\n".join
    return f"""
table netdev {TABLE}
delete table netdev {TABLE}
table inet {TABLE}
delete table inet {TABLE}
table netdev {TABLE} {{
{lines(maps)}
  chain path {{
    type filter hook ingress devices = {{ {quoted} }} priority 0; policy accept;
{lines(look_ups)}
  }}
}}
table inet {TABLE} {{
  chain input {{
    type filter hook input priority -5; policy accept;
    iifname "{SERVER}*" icmp type echo-request accept
    iifname "{SERVER}*" {_NEIGHBOURS} accept
    iifname {{ "{SERVER}*", "{PACKETS}*" }} drop
  }}
}}
"""


def removal() -> str:
    """Return what removes all rules, there or not."""
    return "".join(
        f"table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in ("netdev", "inet")
    )


def tenant(asked: Tenant) -> str:
    """Return the rules of a tenant that claims nothing yet."""
    number, rate = asked.number, _rate(asked.bandwidth_mbit)
    text = f"""
table netdev {TABLE} {{
  set own4_{number} {{ type ipv4_addr; flags interval; }}
  set own6_{number} {{ type ipv6_addr; flags interval; }}
  chain to{number} {{ counter fwd to "{PACKETS}{number}"; }}
  chain from{number} {{
    type filter hook ingress device "{PACKETS}{number}" priority 0; policy drop;
    {rate} counter drop
    ip daddr @own4_{number} accept
    ip saddr @own4_{number} accept
    ip6 daddr @own6_{number} accept
    ip6 saddr @own6_{number} accept
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


def claims(all_claims: Mapping[int, Iterable[Claim]], changed: int) -> str:
    """Return what makes exactly these claims hold, by tenants' numbers, in one transaction.

    Args:
        changed: the tenant whose claims are other than before.
    """
    lines = []
    for version in _FAMILIES:
        for name, _, _ in _KEYS:
            lines.append(f"flush map netdev {TABLE} {name}{version}")
            found = [
                f"{element} : goto to{number}"
                for number, of_one in all_claims.items()
                for element in _elements(name, [c for c in of_one if _belongs(c, name, version)])
            ]
            if found:
                lines.append(f"add element netdev {TABLE} {name}{version} {{ {', '.join(found)} }}")
        own = [c.destination for c in all_claims.get(changed, ())
               if c.destination.version == version]  # fmt: skip
        lines.append(f"flush set netdev {TABLE} own{version}_{changed}")
        if own:
            merged = ", ".join(map(str, collapse_addresses(own)))  # type: ignore[type-var]
            lines.append(f"add element netdev {TABLE} own{version}_{changed} {{ {merged} }}")
    return "\n".join(lines) + "\n"


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
