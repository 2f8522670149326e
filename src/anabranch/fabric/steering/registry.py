"""The service nodes that have registered: soft state, told again and again by each of them."""

from collections.abc import Mapping

from anabranch.core.errors import ConflictError
from anabranch.fabric.model import Network, PortRef
from anabranch.fabric.steering.model import ServiceNode

MAX_NODES = 256
Nodes = tuple[ServiceNode, ...]


class Registry:
    """Who is there, where, and until when.

    Attributes:
        nodes: every node that has registered, by name.
        touched: ports at which a node has come or gone: entries may be left there, from before.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, ServiceNode] = {}
        self.touched: dict[PortRef, None] = {}
        self._until: dict[str, float] = {}
        self._seen = Network()
        self._changed = False
        self._reached: Mapping[str, Nodes] = {}

    def put(self, node: ServiceNode, until: float) -> bool:
        """Have a node registered, as it is now, until then (monotonic seconds).

        Returns: whether anything is other than before.

        Raises:
            ConflictError: its port or one of its addresses is another's, or there are too many.
        """
        for other in self.nodes.values():
            if other.name != node.name and (
                other.at == node.at or other.mac == node.mac or other.address == node.address
            ):
                raise ConflictError(f"{other.name} is at that port, or has that address")
        before = self.nodes.get(node.name)
        if before is None and len(self.nodes) >= MAX_NODES:
            raise ConflictError(f"there are {MAX_NODES} service nodes already")
        self._until[node.name] = until
        if before == node:
            return False
        if before is None or before.at != node.at:
            # A controller before this one may have left entries there.
            self.touched[node.at] = None
            if before is not None:
                self.touched[before.at] = None
        self.nodes[node.name] = node
        self._changed = True
        return True

    def withdraw(self, name: str) -> bool:
        """Forget a node; returns whether there was one."""
        node = self.nodes.pop(name, None)
        self._until.pop(name, None)
        if node is not None:
            self.touched[node.at] = None
            self._changed = True
        return node is not None

    def next_timer(self) -> float | None:
        """Return when the first of the nodes will have been silent for too long."""
        return min(self._until.values(), default=None)

    def expire(self, now: float) -> list[str]:
        """Forget the nodes that have been silent for too long; return their names."""
        silent = [name for name, until in self._until.items() if until <= now]
        for name in silent:
            self.withdraw(name)
        return silent

    def reached(self, network: Network) -> Mapping[str, Nodes]:
        """Return the nodes that can be reached, by switch and in the order of their ranks."""
        if self._seen is not network or self._changed:
            self._seen, self._changed = network, False
            found: dict[str, list[ServiceNode]] = {}
            for node in sorted(self.nodes.values(), key=lambda node: node.rank):
                port = network.ports.get(node.at)
                if port is not None and port.up:
                    found.setdefault(node.at.switch, []).append(node)
            self._reached = {switch: tuple(nodes) for switch, nodes in found.items()}
        return self._reached
