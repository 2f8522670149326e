"""What an operator may set about how the tree looks after itself, and where viewers are sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from anabranch.site.agent import Reporting
from anabranch.tree import placement, policies
from anabranch.tree.model import Role
from anabranch.tree.placement import Best, Network, Placement, Preferences, PrefixTable
from anabranch.tree.policies import Marks, Policy, Standard
from anabranch.tree.trouble import Sensitivity


@dataclass(frozen=True, slots=True)
class TreeRules:
    """How the tree looks after itself.

    Attributes:
        act: False: what would be done is only told.
        policy: name of an entry point of the group ``anabranch.tree_policy``.
        marks: of the standard policy.
        fan_out: children that the root, or a relay, is to have at most.
        pause_s: seconds after a node was started or switched off before the next one is.
    """

    act: bool = True
    reporting: Reporting = field(default_factory=Reporting)
    sensitivity: Sensitivity = field(default_factory=Sensitivity)
    policy: str = policies.DEFAULT
    marks: Marks = field(default_factory=Marks)
    fan_out: Mapping[Role, int] = field(default_factory=dict)
    pause_s: float = 5.0

    def make_policy(self) -> Policy:
        """Return the policy. Raises UsageError if there is none of that name."""
        if self.policy == policies.DEFAULT:
            return Standard(self.marks)
        return policies.find(self.policy)


@dataclass(frozen=True, slots=True)
class PlacementRules:
    """Where viewers are sent.

    Attributes:
        policy: name of an entry point of the group ``anabranch.tree_placement``.
        prefixes: which leaves are near which networks, the nearest first; of the policy ``best``.
    """

    policy: str = placement.DEFAULT
    prefixes: Mapping[Network, tuple[str, ...]] = field(default_factory=dict)

    def make_placement(self) -> Placement:
        """Return the placement. Raises UsageError if there is none of that name."""
        if self.policy == placement.DEFAULT:
            return Best(Preferences(table=PrefixTable(self.prefixes)))
        return placement.find(self.policy)
