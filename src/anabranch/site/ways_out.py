"""The ways out of the leaves: who may be sent streams there, and who refuses them."""

import asyncio
import socket
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Interface, IPv6Interface

from anabranch.channels.presence import Refusal, refusal_of, refusal_of_6
from anabranch.host import streams_out
from anabranch.host.addresses import local_addresses
from anabranch.host.forwarding import Family, family_of
from anabranch.site.carriage import Target
from anabranch.site.plan import NodePlan

_LARGEST = 1280
"""Bytes of an ICMP message at most (RFC 4443, section 2.4 (c); RFC 1812 has it less)."""


class WaysOut:
    """The kernels behind the leaves' switches pass on what goes to receivers, and nothing else.

    Args:
        nodes: by name; those that are up.
        on_refused: told the leaf whenever a receiver does not take what it was sent.
    """

    def __init__(
        self,
        nodes: Callable[[], Mapping[str, NodePlan]],
        on_refused: Callable[[str, Refusal], None],
    ) -> None:
        self._nodes = nodes
        self._on_refused = on_refused
        self._places: dict[str, frozenset[Target]] = {}
        self._sockets: dict[str, list[socket.socket]] = {}
        self._turn = asyncio.Lock()

    async def allow(self, leaf: str, places: Callable[[], Collection[Target]]) -> None:
        """Let streams out to exactly ``places()``, asked for when it is their turn.

        Raises:
            NetworkError: the kernel refuses it.
        """
        async with self._turn:
            self.forget(but=self._nodes())
            node, wanted = self._nodes().get(leaf), frozenset(places())
            if node is None or wanted == self._places.get(leaf, frozenset()):
                return
            if leaf not in self._sockets:
                self._listen(node)
            await streams_out.set_receivers(node.namespace, wanted, families_of(node))
            self._places[leaf] = wanted

    def forget(self, *, but: Collection[str] = ()) -> None:
        """Forget leaves that are not up any more; without ``but``, all."""
        for leaf in self._sockets.keys() - set(but):
            self._places.pop(leaf, None)
            for closing in self._sockets.pop(leaf):
                asyncio.get_running_loop().remove_reader(closing)
                closing.close()

    def _listen(self, node: NodePlan) -> None:
        own = {str(end.ip) for end in gateway_ends(node)} | set(map(str, local_addresses()))
        made = self._sockets[node.name] = []
        for family in families_of(node):
            each = streams_out.unreachable_socket(node.namespace, family)
            made.append(each)
            asyncio.get_running_loop().add_reader(each, self._hear, node.name, each, own)

    def _hear(self, leaf: str, from_kernel: socket.socket, own: Collection[str]) -> None:
        while True:
            try:
                packet, sender = from_kernel.recvfrom(_LARGEST)
            except OSError:  # that was all
                return
            if from_kernel.family == socket.AF_INET6:
                refusal = refusal_of_6(packet, sender[0].partition("%")[0], own)
            else:
                refusal = refusal_of(packet, own)
            if refusal is not None:
                self._on_refused(leaf, refusal)


def gateway_ends(node: NodePlan) -> list[IPv4Interface | IPv6Interface]:
    """Return this machine's addresses on the link to a leaf: one a family that it is reached by."""
    assert node.gateway is not None
    found = (node.gateway.address, node.gateway.address_6)
    return [address for address in found if address is not None]


def families_of(node: NodePlan) -> list[Family]:
    """Return the families by which a leaf sends to receivers."""
    return [family_of(str(end.ip)) for end in gateway_ends(node)]
