"""Who is asked for packets that are lost on the way, and what it must have. Pure."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from anabranch.media.leaf import Feed
from anabranch.site.carriage import AUDIO, Want


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """Who repairs what.

    Attributes:
        rings: the nodes that have a ring server: those with an asker below them.
        parents: whom each leaf and each ring server asks that is delivered anything.
        feeds: what each ring server must have for that.
    """

    rings: frozenset[str]
    parents: Mapping[str, str]
    feeds: Mapping[str, frozenset[Feed]]


def plan_repair(
    above: Mapping[str, str],
    places: Collection[str],
    askers: Collection[str],
    wants: Collection[Want],
) -> RepairPlan:
    """Have every asker ask the nearest ring server above it, which asks the nearest above itself.

    Args:
        above: the parent of every node of the tree.
        places: the nodes at which a ring server can be.
        askers: the leaves that ask.
        wants: what the leaves are delivered.
    """
    wanted: dict[str, set[Feed]] = defaultdict(set)
    for want in wants:
        if want.leaf in askers and want.stream.name != AUDIO:
            wanted[want.leaf].add(Feed(want.stream.channel, want.stream.name))
    rings: set[str] = set()
    parents: dict[str, str] = {}
    feeds: dict[str, set[Feed]] = defaultdict(set)
    for leaf in askers:
        below = leaf
        for at in _way_up(above, leaf):
            if at not in places:
                continue
            rings.add(at)
            if wanted[leaf]:
                parents[below] = at
                feeds[at] |= wanted[leaf]
            below = at
    return RepairPlan(
        frozenset(rings), parents, {ring: frozenset(each) for ring, each in feeds.items()}
    )


def _way_up(above: Mapping[str, str], node: str) -> Iterator[str]:
    while node in above:
        node = above[node]
        yield node
