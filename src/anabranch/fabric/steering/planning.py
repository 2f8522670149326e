"""Which nodes a flow passes. Pure.

Of each stage one node for each user whose filter covers the flow, chosen by rendezvous hashing: a
node that goes takes nobody's flows with it but its own, and one that comes gets just its share. All
packets between two addresses, either way and fragments too, are one node's.

A flow passes its nodes in ascending order of rank, and whatever comes back from a node goes to
nodes of a higher rank only. So nothing goes round, whatever modules make of their packets.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b

from anabranch.fabric.steering.model import FlowKey, ServiceNode


def chain(
    nodes: Iterable[ServiceNode], key: FlowKey, after: ServiceNode | None = None
) -> tuple[ServiceNode, ...]:
    """Return the nodes that packets of a flow pass, in turn.

    Args:
        nodes: those of one switch that are there.
        after: the node that the packets come back from; None: they come from elsewhere.
    """
    shares: dict[tuple[str, str], list[ServiceNode]] = {}
    for node in nodes:
        for user in {each.user for each in node.filters if each.covers(key)}:
            shares.setdefault((node.stage, user), []).append(node)
    chosen = {_chosen(of_share, key).rank: _chosen(of_share, key) for of_share in shares.values()}
    return tuple(chosen[rank] for rank in sorted(chosen) if after is None or rank > after.rank)


def _chosen(nodes: Sequence[ServiceNode], key: FlowKey) -> ServiceNode:
    ends = sorted((key.ipv4_src.packed, key.ipv4_dst.packed))
    return max(nodes, key=lambda node: (_weight(ends, node.name), node.name))


def _weight(ends: Sequence[bytes], name: str) -> bytes:
    return blake2b(b"".join(ends) + name.encode(), digest_size=8).digest()
