"""The seed's path logic (5.2.3, 6.5.3, 7.3).

A node without a VM, and the root, pass packets to the next hop. Where there is a VM they go to it
and from it to the next hop. The leaf puts the receiver's address in the place of the stream's and
sends it out to the physical network. All this is one flow, whose services are the VMs on its way.
"""

from collections.abc import Iterator

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.graph import shortest
from anabranch.fabric.intents import Egress, Flow, Service
from anabranch.fabric.model import Network, PortRef
from anabranch.fabric.openflow.oxm import ETH_IPV4
from anabranch.fabric.pathlogic.logic import NamedRule, Path, Role
from anabranch.fabric.trees import FlowTree


class Soleil:
    """See the module."""

    def flow(self, path: Path, network: Network) -> Flow:
        """Return the flow along the shortest way from the root to the leaf, through its VMs.

        Without a way there is no VM on it; the flow is what will carry the path when there is one.

        Raises:
            MisuseError: the specific match does not say IPv4, whose address the leaf rewrites, or
                the roles contradict the path.
        """
        if path.match.eth_type != ETH_IPV4:
            raise MisuseError(
                f"path {path.name}: dataLayerType must be 0x0800 for the leaf to rewrite addresses"
            )
        roles = path.roles or {}
        for at, role in ((path.ingress.switch, Role.ROOT), (path.exit.switch, Role.LEAF)):
            if roles.get(at, role) is not role:
                raise MisuseError(f"path {path.name}: {at} is a {roles[at]}, not a {role}")
        ports = vm_ports(network)
        services = [
            Service(at, at)
            for switch in _way(path, network)
            if roles.get(switch) is not Role.ROOT and switch != path.ingress.switch
            for at in ports.get(switch, ())
            if at not in (path.ingress, path.exit)
        ]
        egress = Egress(path.exit, eth_dst=path.external_mac, ipv4_dst=path.external)
        return Flow(path.name, path.match, path.ingress, frozenset({egress}), tuple(services))

    def names(self, flow: Flow, tree: FlowTree, network: Network) -> tuple[NamedRule, ...]:
        """Return the rules as the seed names them, from the root to the leaf."""
        return tuple(_names(flow, tree, network))


def vm_ports(network: Network) -> dict[str, list[PortRef]]:
    """Return the ports of VMs by switch, in order.

    A VM without an IPv4 address is still booting: what is sent to it would be lost.
    """
    ports: dict[str, set[PortRef]] = {}
    for host in network.hosts.values():
        if host.vm and host.ipv4:
            ports.setdefault(host.at.switch, set()).add(host.at)
    return {switch: sorted(found) for switch, found in ports.items()}


def _way(path: Path, network: Network) -> list[str]:
    links = shortest(network, path.ingress.switch, path.exit.switch)
    if links is None:
        return []
    return [path.ingress.switch, *(link.dst.switch for link in links)]


def _names(flow: Flow, tree: FlowTree, network: Network) -> Iterator[NamedRule]:
    outlets = [service.to for service in flow.through]
    outlets += [egress.at for egress in flow.egress]
    for number, (segment, outlet) in enumerate(zip(tree.segments, outlets, strict=False)):
        switch, in_port = segment.root, segment.entry
        while True:
            children = segment.children.get(switch, ())
            out_port = children[0].src.port_no if children else outlet.port_no
            dpid = f"{network.switches.get(switch, 0):016x}"
            if not children and number < len(flow.through):
                name = f"RTP_TOVNET{out_port}_{dpid}"
            elif switch == segment.root and number:
                name = f"RTP_FROMVNET{in_port}_{dpid}"
            else:
                name = f"RTP_PASSTHROUGH{dpid}"
            # Only where packets enter by an edge port a rule depends on it.
            known = in_port if switch == segment.root else None
            yield NamedRule(name, switch, known, out_port)
            if not children:
                break
            switch, in_port = children[0].dst.switch, children[0].dst.port_no
