"""The interface of a path logic, and how the one that the operator names is found.

The seed (6.5.3) keeps its ``PathManager`` replaceable: another application may want packets to be
carried in another way. A package offers its own by an entry point of the group
``anabranch.path_logic``; it is an object that satisfies :class:`PathLogic`, or a class without
arguments that makes one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from anabranch.core.errors import UsageError
from anabranch.core.plugins import find_plugin
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.intents import Flow
from anabranch.fabric.model import Network, PortRef
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.openflow.wire import canonical_ipv4, canonical_mac
from anabranch.fabric.trees import FlowTree

GROUP = "anabranch.path_logic"
DEFAULT = "soleil"


class Role(StrEnum):
    """What the administrator says a node is (seed 5.2.3)."""

    ROOT = "root"
    RELAY = "relay"
    LEAF = "leaf"


@dataclass(frozen=True, slots=True)
class Path:
    """A path that somebody asked for.

    Attributes:
        name: of the flow that carries it.
        ingress: the port of the root node by which the stream enters: the root VM's.
        exit: the port of the leaf node towards the physical network.
        external: IPv4 address that the leaf puts in place of the stream's, in the physical network.
        external_mac: its MAC address; None: the stream's own is left, as in the seed.
        match: the operator's specific part, see :mod:`.extend_match`.
        roles: by switch. Switches without one are relays.

    Raises:
        MisuseError: an address is none.
    """

    name: str
    ingress: PortRef
    exit: PortRef
    external: str
    match: Match
    external_mac: str | None = None
    roles: Mapping[str, Role] | None = None

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "external", canonical_ipv4(self.external))
            if self.external_mac is not None:
                object.__setattr__(self, "external_mac", canonical_mac(self.external_mac))
        except MisuseError as error:
            raise MisuseError(f"path {self.name}: {error}") from None


@dataclass(frozen=True, slots=True)
class NamedRule:
    """A rule as people see it: the seed's name, and what it does at which switch."""

    name: str
    switch: str
    in_port: int | None
    out_port: int


@runtime_checkable
class PathLogic(Protocol):
    """Decides how a path is carried. Both methods are pure functions of their arguments."""

    def flow(self, path: Path, network: Network) -> Flow:
        """Return what carries the path in this network; asked again whenever that changes.

        Raises:
            MisuseError: the path cannot be.
        """
        ...

    def names(self, flow: Flow, tree: FlowTree, network: Network) -> tuple[NamedRule, ...]:
        """Return the rules of a compiled flow under the names that people know them by."""
        ...


def find(name: str = DEFAULT) -> PathLogic:
    """Return the path logic called ``name``.

    Raises:
        MisuseError: there is none, it cannot be imported, or it is no path logic.
    """
    from anabranch.fabric.pathlogic.soleil import Soleil

    try:
        return find_plugin(GROUP, name, PathLogic, {DEFAULT: Soleil})  # type: ignore[type-abstract]
    except UsageError as error:
        raise MisuseError(str(error)) from error
