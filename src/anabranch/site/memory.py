"""What a director notes for the next one: which nodes are up, and how they hang."""

from collections.abc import Collection
from dataclasses import replace

import structlog

from anabranch.core.errors import UsageError
from anabranch.host import holdings
from anabranch.site.plan import SitePlan
from anabranch.tree.description import Candidate
from anabranch.tree.plan_file import read_plan, to_json
from anabranch.tree.planning import Plan

_NOTE = "nodes"
_log = structlog.get_logger("anabranch.site")


def note_nodes(run_id: str, tree: Plan, up: Collection[str]) -> None:
    """Note which nodes are up, and how they hang: once all of it is made."""
    holdings.note(run_id, _NOTE, {"up": sorted(up), "tree": to_json(tree)})


def noted_plan(run_id: str, plan: SitePlan) -> SitePlan:
    """Return a plan with the tree and the nodes that an earlier director noted, if one did."""
    said = holdings.noted(run_id, _NOTE)
    if said is None:
        return plan
    try:
        tree = read_plan(said["tree"].encode())
    except UsageError as error:
        _log.error("tree.not_understood", error=str(error))
        return plan
    up = plan.nodes.keys() & said["up"]
    nodes = tuple(Candidate(n.name, n.role, n.name in up) for n in tree.description.nodes)
    return replace(plan, tree=replace(tree, description=replace(tree.description, nodes=nodes)))
