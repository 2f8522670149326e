"""Paths past virtual machines: wanted once, carried anew whenever a machine comes or goes."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from anabranch.core.events import Event
from anabranch.fabric import flow_rules
from anabranch.fabric.apart import Apart
from anabranch.fabric.errors import MisuseError, NoPathError
from anabranch.fabric.failures import Failure
from anabranch.fabric.intents import Flow, Intents
from anabranch.fabric.model import Network
from anabranch.fabric.pathlogic.logic import NamedRule, Path, PathLogic
from anabranch.fabric.trees import FlowTree


@dataclass(frozen=True, slots=True)
class Completed:
    """Intents and the flows of paths.

    Attributes:
        impossible: why paths are left out, by name, in the order in which they are wanted.
        rivals: those of them that contradict the intents, or a path that was wanted before them.
        intruders: those of these that contradict the intents.
    """

    intents: Intents
    impossible: Mapping[str, str] = field(default_factory=dict)
    rivals: frozenset[str] = frozenset()
    intruders: frozenset[str] = frozenset()

    def blame(self, names: Collection[str]) -> None:
        """Raise MisuseError if a path of these names is left out."""
        for name, reason in self.impossible.items():
            if name in names:
                raise MisuseError(reason)


class FollowedPaths:
    """What is wanted of the path logic (seed 000, section 6.5.3).

    Args:
        logic: says how each path is carried in the network as it is.
        publish: gets ``path.impossible`` about a path that cannot be at the moment, and
            ``path.possible`` when it can again.
    """

    def __init__(self, logic: PathLogic, publish: Callable[[Event], None]) -> None:
        self._logic = logic
        self._publish = publish
        self._wanted: dict[str, Path] = {}
        self._impossible: Mapping[str, str] = {}
        self._apart = Apart()
        self._beside: Mapping[str, Flow] = {}  # what it accepted

    @property
    def wanted(self) -> Mapping[str, Path]:
        return dict(self._wanted)

    @contextmanager
    def trying(
        self, paths: Collection[Path], network: Network, *, again: bool = False
    ) -> Iterator[None]:
        """Want exactly ``paths``; if the block fails, want what was wanted before.

        ``again``: they were wanted before, and may be impossible at the moment.

        Raises:
            MisuseError: two have one name, or one cannot be in this network.
        """
        wanted = {path.name: path for path in paths}
        if len(wanted) != len(paths):
            raise MisuseError("two paths have the same name")
        if not again:
            for path in paths:
                self._logic.flow(path, network)
        before, self._wanted = self._wanted, wanted
        try:
            yield
        except BaseException:
            self._wanted = before
            raise

    def complete(self, intents: Intents, network: Network) -> Completed:
        """Return ``intents`` and the flows of the paths; one that cannot be now is left out.

        Raises:
            MisuseError: a path has the name of a flow or tap.
        """
        if not self._wanted:
            return Completed(intents)
        flows, impossible = self._flows(network)
        return Completed(Intents((*intents.flows, *flows), intents.taps), impossible)

    def complete_apart(self, intents: Intents, network: Network) -> Completed:
        """Do as :meth:`complete`, and leave out what contradicts ``intents`` or an older path.

        Where a machine is decides by which ports a path enters, so two may get along for years.

        Raises:
            MisuseError: as :meth:`complete`, or ``intents`` contradict themselves.
        """
        flows, impossible = self._flows(network)
        apart = self._told_apart(intents)
        beside: list[Flow] = []
        rivals: list[str] = []
        for flow in flows:
            if fault := _fault(apart, flow):
                impossible[flow.name] = fault
                rivals.append(flow.name)
            else:
                apart.change((flow,), ())
                beside.append(flow)
        intruders, accepted = frozenset(rivals), []
        for flow in beside:
            if fault := _fault(apart, flow):
                impossible[flow.name] = fault
                rivals.append(flow.name)
            else:
                accepted.append(flow)
        apart.change(accepted, ())
        whole = Intents((*intents.flows, *accepted), intents.taps)
        in_order = {name: impossible[name] for name in self._wanted if name in impossible}
        return Completed(whole, in_order, frozenset(rivals), intruders)

    def settle(self, completed: Completed) -> None:
        """Take it that this is carried now, and tell which paths cannot be and which can again."""
        before, self._impossible = self._impossible, completed.impossible
        for name in sorted(self._impossible.keys() - before.keys()):
            self._publish(Event("path.impossible", name, {"reason": self._impossible[name]}))
        for name in sorted((before.keys() - self._impossible.keys()) & self._wanted.keys()):
            self._publish(Event("path.possible", name))

    def failures(self) -> list[Failure]:
        """Return the paths that cannot be now, each at the switch by which it would enter."""
        return [
            Failure(path.ingress.switch, self._impossible[name], hit=frozenset({name}))
            for name, path in self._wanted.items()
            if name in self._impossible
        ]

    def _told_apart(self, intents: Intents) -> Apart:
        """Return what accepts only flows that do not contradict ``intents``.

        It costs what has changed since the last time: thousands of flows take a second.
        """
        before, now = self._beside, {flow.name: flow for flow in intents.flows}
        new = [flow for name, flow in now.items() if before.get(name) is not flow]
        for flow in new:
            flow_rules.check(flow)
        self._apart.change([it for name, it in before.items() if now.get(name) is not it], new)
        self._beside = now
        return self._apart

    def _flows(self, network: Network) -> tuple[list[Flow], dict[str, str]]:
        flows: list[Flow] = []
        impossible: dict[str, str] = {}
        for path in self._wanted.values():
            try:
                flows.append(self._logic.flow(path, network))
            except MisuseError as error:
                impossible[path.name] = str(error)
        return flows, impossible

    def named_rules(
        self, name: str, tree: FlowTree | None, network: Network
    ) -> tuple[NamedRule, ...]:
        """Return a path's rules under the names that people know them by; none if not carried.

        Raises:
            NoPathError: there is no such path.
        """
        path = self._wanted.get(name)
        if path is None:
            raise NoPathError(f"there is no path {name[:60]!r}")
        if tree is None or name in self._impossible:
            return ()
        return self._logic.names(self._logic.flow(path, network), tree, network)


def _fault(apart: Apart, flow: Flow) -> str | None:
    """Accept a flow, or say why not."""
    try:
        flow_rules.check(flow)
        apart.change((), (flow,))
    except MisuseError as error:
        return str(error)
    return None
