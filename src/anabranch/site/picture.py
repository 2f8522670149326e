"""The nodes of a site as policies and placement see them: also since when each is as it is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf

from anabranch.tree.actions import Action, LowerRendition, RestoreRendition, apply
from anabranch.tree.model import Role
from anabranch.tree.state import Lowering, NodeState, Phase, SiteState


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as it is now; the attributes are those of ``NodeState``.

    Attributes:
        pool: it is idle when the site starts; only such nodes are switched on and off.
        busy: a leaf has viewers, another node children.
    """

    name: str
    role: Role
    phase: Phase
    parent: str | None = None
    ready: bool = True
    pool: bool = False
    viewers: int = 0
    capacity: int = 0
    busy: bool = False
    cpu: float | None = None
    streams: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()


class Picture:
    """Follows the nodes; times are monotonic seconds.

    Attributes:
        lowerings: by node whose subtree it is, and stream.
        waiting: viewers who found no leaf since the last decision.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, NodeState] = {}
        self.lowerings: Mapping[tuple[str, str], Lowering] = {}
        self.waiting = 0

    def state(self, views: Iterable[NodeView], now: float) -> SiteState:
        """Return the state, with what the site is now."""
        self._nodes = {view.name: self._follow(view, now) for view in views}
        return SiteState(self._nodes, self.waiting, self.lowerings)

    def note(self, action: Action, now: float) -> None:
        """Take down what has been done about renditions."""
        if isinstance(action, LowerRendition | RestoreRendition):
            self.lowerings = apply(
                SiteState(self._nodes, lowerings=self.lowerings), action, now
            ).lowerings

    def lowered(self, leaf: str, stream: str) -> bool:
        """Say whether viewers at ``leaf`` are to see less than ``stream``."""
        state = SiteState(self._nodes, lowerings=self.lowerings)
        return any(
            (lowering := self.lowerings.get((node, stream))) is not None
            and lowering.restored is None
            for node in state.ancestry(leaf)
        )

    def _follow(self, view: NodeView, now: float) -> NodeState:
        before = self._nodes.get(view.name)
        since = on_since = -inf  # what is so at the start has always been so
        if before is not None:
            since = before.since if before.phase is view.phase else now
            started = before.phase is Phase.IDLE and view.phase is not Phase.IDLE
            on_since = now if started else before.on_since
        empty_since = None
        if not view.busy and view.phase is not Phase.IDLE:
            empty_since = now
            if before is not None and before.empty_since is not None:
                empty_since = before.empty_since
        return NodeState(
            view.name,
            view.role,
            view.parent,
            view.phase,
            ready=view.ready,
            stays=not view.pool,
            since=since,
            on_since=on_since,
            empty_since=empty_since,
            viewers=view.viewers,
            capacity=view.capacity,
            cpu=view.cpu,
            streams=view.streams,
            links=view.links,
        )


def without(state: SiteState, names: Iterable[str]) -> SiteState:
    """Return the state as if the nodes ``names`` were not there."""
    hidden = set(names)
    nodes = {name: node for name, node in state.nodes.items() if name not in hidden}
    return replace(state, nodes=nodes)
