"""Descriptions drawn by hypothesis, and what their best tree is by trying all."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from hypothesis import strategies as st

from anabranch.tree.description import Candidate, CandidateLink, Description, ends
from anabranch.tree.model import Role, Tree

ROOT = Candidate("root", Role.ROOT)


def described(links: str, *, fan_out: dict[Role, int] | None = None) -> Description:
    """``root-a a-leaf1``: names with ``leaf`` in them are leaves; ``~`` is a redundancy link."""
    names: dict[str, None] = {"root": None}
    made = []
    for text in links.split():
        one, other = re.split("[-~]", text)
        names |= {one: None, other: None}
        made.append(CandidateLink(one, other, redundant="~" in text))
    roles = {n: Role.LEAF if "leaf" in n else Role.RELAY for n in names} | {"root": Role.ROOT}
    nodes = tuple(Candidate(name, roles[name]) for name in names)
    return Description(nodes, tuple(made), fan_out or {})


@st.composite
def descriptions(
    draw: st.DrawFn,
    relays: int = 4,
    leaves: int = 3,
    *,
    costs: Sequence[float] = (0,),
    limited: bool = False,
    absent: bool = False,
) -> Description:
    """Nodes with any links between them; whole numbers, so that sums are exact."""
    nodes = [ROOT]
    available = st.integers(0, 4).map(bool) if absent else st.just(True)
    for number in range(draw(st.integers(0, relays))):
        nodes.append(Candidate(f"relay{number}", Role.RELAY, draw(available)))
    for number in range(draw(st.integers(1, leaves))):
        nodes.append(Candidate(f"leaf{number}", Role.LEAF, draw(available)))
    pairs = [(a.name, b.name) for n, a in enumerate(nodes) for b in nodes[:n]]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, min_size=1))
    links = [
        CandidateLink(
            *pair,
            rate_mbit=draw(st.sampled_from([10, 100])),
            cost=draw(st.sampled_from(costs)),
            redundant=draw(st.integers(0, 5)) == 0,
        )
        for pair in chosen
    ]
    limit = st.integers(1, 3)
    fan_out = {Role.ROOT: draw(limit), Role.RELAY: draw(limit)} if limited else {}
    return Description(tuple(nodes), tuple(links), fan_out)


def trees_over(
    description: Description, names: Sequence[str], *, redundant: bool = False
) -> Iterator[dict[str, str]]:
    """Yield every tree that spans ``names`` and respects roles and limits, as parents."""
    roles = description.roles
    drawn = {link.ends for link in description.links if redundant or not link.redundant}
    below = [name for name in names if name != description.root]
    options = [
        [
            parent
            for parent in names
            if roles[parent] is not Role.LEAF and ends(name, parent) in drawn
        ]
        for name in below
    ]
    for choice in product(*options):
        parents = dict(zip(below, choice, strict=True))
        crowded = any(
            choice.count(name) > description.fan_out.get(roles[name], len(names)) for name in names
        )
        if not crowded and all(reaches(name, description.root, parents) for name in below):
            yield parents


def reaches(name: str, root: str, parents: Mapping[str, str]) -> bool:
    for _ in range(len(parents) + 1):
        if name == root:
            return True
        name = parents[name]
    return False


def weight_of(description: Description, parents: Mapping[str, str]) -> float:
    weights = description.weights
    return sum(weights[ends(*pair)] for pair in parents.items())


def check_sound(description: Description, tree: Tree) -> None:
    """The roles are as described, and no relay is without a leaf below it."""
    roles = description.roles
    for node in tree:
        assert roles[node.name] is node.role
        assert bool(tree.children(node.name)) == (node.role is not Role.LEAF)
