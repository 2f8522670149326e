"""Names, addresses and numbers of a site's ingress. Pure."""

from dataclasses import dataclass
from ipaddress import IPv4Interface

from anabranch.core.errors import UsageError
from anabranch.fabric.ingress import Ends
from anabranch.host.forwarding import FAMILIES, Family
from anabranch.host.journal import TABLE_PREFIX
from anabranch.host.network import Port, link_local
from anabranch.site.plan import NodePlan, ingress_ends_6, namespace_of, tag_of
from anabranch.site.settings import SiteSettings

BRIDGE = "ingress"
CABLE_DEVICE = "in0"
SWITCH_DEVICE = "sw-ingest"
LISTENERS_DEVICE = "ingest0"
_PREFIX = 30


@dataclass(frozen=True, slots=True)
class IngressPlan:
    """Names, addresses and numbers of a site's ingress.

    Attributes:
        switch: as which its bridge is known.
        namespace: of the listeners.
        table: the nft table that forwards to it.
        outer, cable: ends of the cable from this machine to the switch.
        inner, port: ends of the cable from the listeners to the switch.
    """

    switch: str
    dpid: int
    namespace: str
    table: str
    outer: Port
    cable: Port
    inner: Port
    port: Port

    @property
    def ends(self) -> Ends:
        assert self.outer.address is not None
        assert self.inner.address is not None
        of_6 = [
            () if end.address_6 is None else (end.address_6.ip, link_local(end.address_6))
            for end in (self.outer, self.inner)
        ]
        return Ends(self.outer.address.ip, self.inner.address.ip, *of_6)

    @property
    def families(self) -> tuple[Family, ...]:
        """By which producers come, as far as what listens for them has them."""
        return FAMILIES if self.inner.address_6 is not None else FAMILIES[:1]


def make_ingress_plan(settings: SiteSettings, root: NodePlan, leaves: int) -> IngressPlan:
    """Compute the plan; the last addresses of the access network are the ingress's.

    Raises:
        UsageError: the leaves need them all.
    """
    access, tag = settings.addresses.access, tag_of(settings.name)
    size = 1 << 32 - _PREFIX
    if access.num_addresses // size < leaves + 1:
        raise UsageError(f"the access network {access} has no room for the ingress: a /{_PREFIX}")
    first = access.num_addresses - size
    outer, inner = (IPv4Interface(f"{access[first + n]}/{_PREFIX}") for n in (1, 2))
    inner_6 = outer_6 = None
    if any(":" in address for address in settings.public_addresses):
        inner_6, outer_6 = ingress_ends_6(settings.addresses.access_6, tag)
    # No node can be called that: names have no dot.
    namespace = namespace_of(settings.name, ".in")
    return IngressPlan(
        switch=f"{root.name}.{BRIDGE}",
        dpid=0xAB << 40 | tag << 16 | 0xFFFF,
        namespace=namespace,
        table=f"{TABLE_PREFIX}{settings.name.replace('-', '_')}_in",
        outer=Port(f"ab{tag:04x}-in", None, address=outer, address_6=outer_6),
        cable=Port(CABLE_DEVICE, root.namespace),
        inner=Port(LISTENERS_DEVICE, namespace, address=inner, address_6=inner_6),
        port=Port(SWITCH_DEVICE, root.namespace),
    )
