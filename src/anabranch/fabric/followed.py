"""Paths past virtual machines: wanted once, carried anew whenever a machine comes or goes."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from anabranch.core.events import Event
from anabranch.fabric.errors import MisuseError, NoPathError
from anabranch.fabric.intents import Flow, Intents
from anabranch.fabric.model import Network
from anabranch.fabric.pathlogic.logic import NamedRule, Path, PathLogic
from anabranch.fabric.trees import FlowTree


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
        self._impossible: dict[str, str] = {}

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

    def complete(self, intents: Intents, network: Network) -> Intents:
        """Return ``intents`` and the flows of the paths; one that cannot be now is left out."""
        if not self._wanted and not self._impossible:
            return intents
        flows: list[Flow] = []
        impossible: dict[str, str] = {}
        for path in self._wanted.values():
            try:
                flows.append(self._logic.flow(path, network))
            except MisuseError as error:
                impossible[path.name] = str(error)
        before, self._impossible = self._impossible, impossible
        for name in sorted(impossible.keys() - before.keys()):
            self._publish(Event("path.impossible", name, {"reason": impossible[name]}))
        for name in sorted((before.keys() - impossible.keys()) & self._wanted.keys()):
            self._publish(Event("path.possible", name))
        return Intents((*intents.flows, *flows), intents.taps)

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
