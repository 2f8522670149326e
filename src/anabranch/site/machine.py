"""What the nodes of a site are made of on this machine: namespaces, veth pairs, the way in.

Every function blocks for milliseconds: call it in a thread. What is made is in the journal first.
"""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from anabranch.host import forwarding, network, packet_rules, streams_out
from anabranch.host.forwarding import Family
from anabranch.host.journal import Journal, Kind
from anabranch.site.carriage import STREAM_PORT
from anabranch.site.guests import MTU, key_of
from anabranch.site.layout import Cable, Layout, is_cable
from anabranch.site.plan import HOST_DEVICE, NodePlan, SitePlan
from anabranch.site.settings import SiteSettings

_KEPT: Mapping[Family, Kind] = {"ip": "forwarding", "ip6": "forwarding6"}
_KEEPERS: Mapping[Family, Path] = {
    "ip": Path("/run/anabranch.ip_forward"),
    "ip6": Path("/run/anabranch.ip6_forward"),
}
_FORGET_AFTER_S = 8


class Machine:
    """Makes and removes. All methods that make raise ``NetworkError``."""

    def __init__(self, settings: SiteSettings, plan: SitePlan, journal: Journal) -> None:
        self._settings = settings
        self._plan = plan
        self._journal = journal

    def tidy(self, layout: Layout) -> None:
        """Leave of what an earlier director made what belongs to a layout and is whole.

        All of ``layout`` was there when it was noted; only what was made or removed since may be
        half done.
        """
        ends = {(end.node, end.device) for cable in layout.cables for end in cable.ends}
        for node in self._plan.nodes.values():
            if node.tunnel is not None or not network.has_namespace(node.namespace):
                continue
            found = network.devices(node.namespace)
            if node.name not in layout.up or not self._is_whole(node, found):
                self.remove_node(node)
                continue
            for device in filter(is_cable, found):
                if (node.name, device) not in ends:
                    network.remove_link(device, node.namespace)

    def _is_whole(self, node: NodePlan, found: Collection[str]) -> bool:
        wanted = [node.host, node.switch_end, *([node.access] if node.access else [])]
        if node.gateway is not None and not network.has_device(node.gateway.device):
            return False
        return all(port.device in found for port in wanted)

    def make_node(self, node: NodePlan) -> None:
        """Make a node as :func:`make_node` does, unless it is there.

        A guest's own machine does that for it.
        """
        if node.tunnel is not None or network.has_namespace(node.namespace):
            return
        make_node(node, self._journal)
        if node is self._plan.root:
            groups = str(self._settings.addresses.groups)
            network.add_route(node.namespace, groups, device=HOST_DEVICE)

    def remove_node(self, node: NodePlan) -> None:
        """Remove what :meth:`make_node` made, as far as it came, and the node's files."""
        if node.tunnel is None:
            remove_node(node, self._journal)
        shutil.rmtree(self._settings.run_dir / node.name, ignore_errors=True)

    def make_cables(self, cables: Collection[Cable]) -> None:
        """Make all of these that are not there, or none."""
        try:
            for cable in cables:
                if not self._is_there(cable):
                    self._make_cable(cable)
        except BaseException:
            self.remove_cables(cables)
            raise

    def _is_there(self, cable: Cable) -> bool:
        """Say whether there is a cable between two nodes of this machine."""
        ends = [(self._plan.nodes[end.node], end.device) for end in cable.ends]
        return all(
            node.tunnel is None and network.has_device(device, node.namespace)
            for node, device in ends
        )

    def _make_cable(self, cable: Cable) -> None:
        """Make a veth pair, or this machine's end of a link to a guest."""
        nodes = [self._plan.nodes[name] for name in cable.nodes]
        if all(node.tunnel is None for node in nodes):
            network.make_link(*self._plan.ends_of(cable))
            return
        ports = self._plan.ends_of(cable)
        for node, far, port in zip(nodes, reversed(nodes), ports, strict=True):
            if node.tunnel is None and far.tunnel is not None:
                network.make_vxlan(
                    port,
                    underlay=self._plan.hub,
                    local=self._plan.hub_address,
                    remote=far.tunnel,
                    key=key_of(node.index, far.index),
                    mtu=MTU,
                )

    def remove_cables(self, cables: Collection[Cable]) -> None:
        """Remove these; absent is fine."""
        for cable in cables:
            for name, end in zip(cable.nodes, self._plan.ends_of(cable), strict=True):
                if self._plan.nodes[name].tunnel is None:
                    network.remove_link(end.device, end.namespace)

    def open(self) -> None:
        """Have this machine forward what comes for the leaves, if others can reach it."""
        open_machine(self._plan.table, self._settings.families, self._journal)

    def forward(self, up: Collection[str]) -> None:
        """Forward the media ports of exactly the leaves that are up; what flows is not cut."""
        leaves = [leaf for leaf in self._plan.leaves if leaf.name in up]
        forward_to(self._plan.table, self._settings.families, leaves)


def make_node(node: NodePlan, journal: Journal) -> None:
    """Make a node's namespace with its host, and a leaf's link to this machine.

    Raises:
        NetworkError: the kernel refused something.
    """
    journal.record("netns", node.namespace)
    network.make_namespace(node.namespace)
    network.make_link(node.host, node.switch_end)
    if node.outlet is not None:
        journal.record("lent", f"{node.outlet.device}@{node.namespace}")
        network.lend_device(node.outlet.device, node.namespace)
    if node.access is not None and node.gateway is not None:
        assert node.gateway.address is not None
        journal.record("link", node.gateway.device)
        network.make_link(node.gateway, node.access)
        network.add_route(
            node.namespace,
            "default",
            device=node.access.device,
            via=str(node.gateway.address.ip),
        )
        if node.gateway.address_6 is not None:
            network.add_route(
                node.namespace,
                "default",
                device=node.access.device,
                via=str(node.gateway.address_6.ip),
            )
        packet_rules.watch_ports(
            node.namespace,
            node.access.device,
            node.media_ports,
            forget_after_s=_FORGET_AFTER_S,
        )
        assert node.access.address is not None
        streams_out.let_streams_out(
            node.namespace,
            HOST_DEVICE,
            node.access.device,
            node.access.address.ip,
            STREAM_PORT,
            source_6=None if node.access.address_6 is None else node.access.address_6.ip,
        )


def remove_node(node: NodePlan, journal: Journal) -> None:
    """Remove what :func:`make_node` made, as far as it came."""
    if node.outlet is not None:
        network.take_back(node.outlet.device, node.namespace)
        journal.forget("lent", f"{node.outlet.device}@{node.namespace}")
    network.remove_namespace(node.namespace)
    journal.forget("netns", node.namespace)
    if node.gateway is not None:
        network.remove_link(node.gateway.device)
        journal.forget("link", node.gateway.device)


def open_machine(table: str, families: Collection[Family], journal: Journal) -> None:
    """Have this machine forward these families; ``table`` is the nft table that needs it."""
    # Recorded first, and so undone last: once that table is gone.
    for family in families:
        journal.record(_KEPT[family], str(_KEEPERS[family]))
    if families:
        journal.record("nft", table)
    for family in families:
        forwarding.enable_forwarding(family, _KEEPERS[family])


def forward_to(table: str, families: Collection[Family], leaves: Collection[NodePlan]) -> None:
    """Forward the media ports of exactly these leaves, of these families.

    What plain seats are sent goes out as this machine's.
    """
    links = [(leaf.access, leaf.media_ports) for leaf in leaves if leaf.access is not None]
    if "ip" in families:
        forwards_4 = {end.address.ip: ports for end, ports in links if end.address is not None}
        forwarding.forward_ports(table, "ip", forwards_4, streams_from=STREAM_PORT)
    if "ip6" in families:
        forwards_6 = {end.address_6.ip: ports for end, ports in links if end.address_6 is not None}
        forwarding.forward_ports(table, "ip6", forwards_6, streams_from=STREAM_PORT)
