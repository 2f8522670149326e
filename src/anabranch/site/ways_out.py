"""The ways out of the leaves: who may be sent streams there, and who refuses them."""

import asyncio
import socket
from collections.abc import Callable, Collection, Mapping

from anabranch.channels.presence import Refusal, refusal_of
from anabranch.host import streams_out
from anabranch.host.addresses import local_addresses
from anabranch.site.carriage import Target
from anabranch.site.plan import NodePlan

_LARGEST = 576
"""Bytes of an ICMP message at most (RFC 1812, section 4.3.2.3)."""


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
        self._sockets: dict[str, socket.socket] = {}
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
            await streams_out.set_receivers(node.namespace, wanted)
            self._places[leaf] = wanted

    def forget(self, *, but: Collection[str] = ()) -> None:
        """Forget leaves that are not up any more; without ``but``, all."""
        for leaf in self._sockets.keys() - set(but):
            self._places.pop(leaf, None)
            closing = self._sockets.pop(leaf)
            asyncio.get_running_loop().remove_reader(closing)
            closing.close()

    def _listen(self, node: NodePlan) -> None:
        assert node.gateway is not None
        assert node.gateway.address is not None
        made = self._sockets[node.name] = streams_out.unreachable_socket(node.namespace)
        own = {str(node.gateway.address.ip), *map(str, local_addresses())}
        loop = asyncio.get_running_loop()
        loop.add_reader(made, self._hear, node.name, made, own)

    def _hear(self, leaf: str, from_kernel: socket.socket, own: Collection[str]) -> None:
        while True:
            try:
                packet = from_kernel.recv(_LARGEST)
            except OSError:  # that was all
                return
            refusal = refusal_of(packet, own)
            if refusal is not None:
                self._on_refused(leaf, refusal)
