"""How what policies decide is done at a site on this machine."""

from collections.abc import Awaitable, Callable, Mapping

from anabranch.site.nodes import Nodes
from anabranch.site.switched import SwitchedUnderlay
from anabranch.tree.actions import (
    Action,
    AddLeaf,
    AddRelay,
    DrainLeaf,
    InsertLevel,
    LowerRendition,
    RestoreRendition,
    SwitchOff,
    UndrainLeaf,
)
from anabranch.tree.growth import grow
from anabranch.tree.model import TreeError
from anabranch.tree.planning import Plan


class Actor:
    """Carries actions out.

    Args:
        nodes: the site's.
        underlay: has the tree.
        fit: shows every viewer the rendition that is right for it now.

    Attributes:
        drained: leaves that a policy drains; an operator's are the operator's to undrain.
    """

    def __init__(
        self, nodes: Nodes, underlay: SwitchedUnderlay, fit: Callable[[], Awaitable[None]]
    ) -> None:
        self._nodes = nodes
        self._underlay = underlay
        self._fit = fit
        self._above: dict[str, str] = {}
        self.drained: set[str] = set()

    async def act(self, action: Action) -> None:
        """Carry one out.

        Raises:
            AnabranchError: it cannot be done.
        """
        match action:
            case LowerRendition() | RestoreRendition():
                await self._fit()
            case DrainLeaf(node):
                self._nodes.drain(node)
                self.drained.add(node)
            case UndrainLeaf(node):
                self._nodes.undrain(node)
                self.drained.discard(node)
            case AddLeaf(node, parent):
                await self._nodes.start_node(node)
                await self._hang({node: parent})
            case AddRelay(node, parent):  # it is part of the tree once something hangs from it
                await self._nodes.start_node(node)
                self._above[node] = parent
            case InsertLevel(node, parent, children):
                await self._nodes.start_node(node)
                await self._hang({node: parent, **dict.fromkeys(children, node)})
            case SwitchOff(node):
                await self._nodes.switch_off(node)
                self.drained.discard(node)

    async def _hang(self, wanted: Mapping[str, str]) -> None:
        def change(tree: Plan) -> Plan:
            waiting = {name: at for name, at in self._above.items() if name not in tree.parents}
            return hung(tree, {**waiting, **wanted})

        await self._underlay.regrow(change)


def hung(tree: Plan, wanted: Mapping[str, str]) -> Plan:
    """Return the tree in which these nodes hang from these parents, and all others as they did.

    A parent that is not in the tree is joined by its own ``wanted`` parent. Nodes that are not
    available stay out of it.

    Raises:
        TreeError: a leaf that is in the tree would hang from nobody, for a circle perhaps.
    """
    available = {node.name for node in tree.description.nodes if node.available}
    kept = dict(tree.parents)
    kept |= {
        child: parent
        for child, parent in wanted.items()
        if {child, parent} <= available and tree.parents.get(child) != parent
    }
    grown = grow(tree.description, kept=kept, present=kept)
    lost = [leaf.name for leaf in tree.tree.leaves if leaf.name not in grown.parents]
    if lost:
        raise TreeError(f"{min(lost)} would hang from nobody")
    return Plan(tree.description, grown.parents, grown.pruned)
