"""Changing a tree that stands: a node goes or comes, a level is inserted; the rest stays put.

Pure: the caller carries :func:`~anabranch.tree.planning.moves` out, new ways before old ones go.
"""

from collections.abc import Iterable
from dataclasses import replace
from math import inf

from anabranch.tree.description import Candidate, CandidateLink, Description, ends
from anabranch.tree.growth import Reason, grow
from anabranch.tree.model import Role, TreeError
from anabranch.tree.planning import Plan


def without(plan: Plan, *names: str) -> Plan:
    """Return the plan after nodes died, were drained or are to be switched off.

    Each subtree that they leave behind hangs from the best parent that it has a link to, by a
    redundancy link if there is no other; one that has none falls apart, and its parts hang where
    they can. Leaves that find no place are pruned, and nodes without a leaf below.

    Raises:
        TreeError: a node is unknown or the root, or no leaf is left.
    """
    roles = plan.description.roles
    for name in names:
        if roles.get(name, Role.ROOT) is Role.ROOT:
            raise TreeError(f"{name} is the root" if name in roles else f"there is no node {name}")
    nodes = tuple(
        replace(node, available=False) if node.name in names else node
        for node in plan.description.nodes
    )
    return _mended(replace(plan.description, nodes=nodes), plan)


def joined(plan: Plan, node: Candidate, links: Iterable[CandidateLink] = ()) -> Plan:
    """Return the plan with a node more, or with one available again; links replace those known.

    A leaf hangs from the best parent, with idle relays between if it needs them. A relay waits
    until it is needed.

    Raises:
        TreeError: the node is in the tree already, or known in another role, or a link is wrong.
    """
    known = {each.name: each for each in plan.description.nodes}
    if node.name in plan.parents or node.role is Role.ROOT:
        raise TreeError(f"node {node.name} is in the tree already, or a second root")
    if node.name in known and known[node.name].role is not node.role:
        raise TreeError(f"node {node.name} is known as a {known[node.name].role}")
    known[node.name] = node
    drawn = {link.ends: link for link in plan.description.links}
    drawn |= {link.ends: link for link in links}
    description = replace(
        plan.description, nodes=tuple(known.values()), links=tuple(drawn.values())
    )
    return _mended(description, plan)


def insert_level(plan: Plan, parent: str, relay: str | None = None) -> Plan:
    """Return the plan with an idle relay between ``parent`` and half of its children.

    More move if the limit of the parent's fan-out wants it, fewer if that of the relay's does;
    those with the lightest links to the relay. ``relay`` None: the one that can take most of them,
    then the one with the lightest link to the parent.

    Raises:
        TreeError: no idle relay, or not this one, has links to the parent and to at least two of
            its children.
    """
    children = [child for child, above in plan.parents.items() if above == parent]
    roles, limits = plan.description.roles, plan.description.fan_out
    idle = [
        node.name
        for node in plan.description.nodes
        if node.role is Role.RELAY and plan.pruned.get(node.name, Reason.IDLE) is not Reason.IDLE
    ]
    links = _preferences(plan.description)
    options = []
    for name in idle if relay is None else {relay} & set(idle):
        takes = sorted((links[ends(c, name)], c) for c in children if ends(c, name) in links)
        if ends(parent, name) in links and len(takes) > 1:
            options.append((-len(takes), links[ends(parent, name)], name, takes))
    if not options:
        who = "no idle relay has" if relay is None else f"{relay} is no idle relay with"
        raise TreeError(f"{who} links to node {parent} and at least two of its children")
    _, _, chosen, takes = min(options)
    surplus = len(children) + 1 - limits.get(roles[parent], inf)
    most = limits.get(Role.RELAY, inf)
    count = int(min(max(surplus, (len(children) + 1) // 2, 2), most, len(takes)))
    moved = {child: chosen for _, child in takes[:count]}
    pruned = {name: reason for name, reason in plan.pruned.items() if name != chosen}
    return Plan(plan.description, {**plan.parents, chosen: parent, **moved}, pruned)


def _preferences(description: Description) -> dict[tuple[str, str], tuple[bool, float, float]]:
    """Return every link by its ends with what tells how good it is, the least best."""
    weights = description.weights
    return {
        link.ends: (link.redundant, weights[link.ends], -link.rate_mbit)
        for link in description.links
    }


def _mended(description: Description, plan: Plan) -> Plan:
    grown = grow(description, kept=plan.parents, present=plan.parents)
    return Plan(description, grown.parents, grown.pruned)
