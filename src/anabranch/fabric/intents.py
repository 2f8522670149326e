"""What the rest of the site may ask of the fabric. Records only; ``compiler.py`` makes tables."""

from dataclasses import dataclass, field
from enum import StrEnum

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.oxm import Match

STRICT = {"extra": "forbid"}
"""For :mod:`.intents_json`: a name that is misspelt is no name, and not "anything"."""


class Policy(StrEnum):
    """How a flow finds its way."""

    SHORTEST = "shortest"
    WIDEST = "widest"


@dataclass(frozen=True, slots=True, order=True)
class Egress:
    """Where copies of a flow leave the fabric, and what is rewritten (None: untouched).

    Several of one flow may leave by the same port with different rewriting. The port may be the
    one the flow enters by.
    """

    __pydantic_config__ = STRICT

    at: PortRef
    eth_dst: str | None = None
    ipv4_dst: str | None = None
    udp_dst: int | None = None
    eth_src: str | None = None
    ipv4_src: str | None = None
    ipv6_dst: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class Service:
    """A thing on the way: packets go out of ``to`` and come back by ``back`` (often the same)."""

    __pydantic_config__ = STRICT

    to: PortRef
    back: PortRef


@dataclass(frozen=True, slots=True)
class Flow:
    """Carry what matches from where it enters to wherever it is wanted, one copy per link.

    Attributes:
        match: header fields, without ``in_port`` and ``metadata``. Two flows that enter by the
            same port must differ in it; at inner switches any two flows must, too. Without
            ``vlan_vid`` it is for untagged packets only; a tag is matched exactly.
        ingress: edge port where packets enter; any switch.
        egress: none, and no ``sort``: nothing is carried, and no rule exists.
        through: services to be passed, in this order, by everything before it is copied.
        protected: links of its tree get a bypass that the switch takes by itself.
        rate_kbps: what more enters is dropped at the ingress; None: no limit.
        priority: 1 to 1000, higher wins where matches overlap.
        sort: switches to which it is brought though nothing may leave there. Its copies at these
            are always made by a group: a copy that moves from one such flow to another does so in
            one step, and all other copies and every rule stay as they are.
    """

    __pydantic_config__ = STRICT

    name: str
    match: Match
    ingress: PortRef
    egress: frozenset[Egress] = frozenset()
    through: tuple[Service, ...] = ()
    policy: Policy = Policy.SHORTEST
    protected: bool = True
    rate_kbps: int | None = None
    priority: int = 100
    sort: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.match.in_port is not None or self.match.metadata is not None:
            raise MisuseError(f"flow {self.name}: in_port and metadata are the fabric's own")
        if not 1 <= self.priority <= 1000:
            raise MisuseError(f"flow {self.name}: priority {self.priority} is not of 1 to 1000")


@dataclass(frozen=True, slots=True)
class Tap:
    """Copy (or divert) what matches at some switches to a port, or to the director.

    Attributes:
        switches: where; empty: at every switch, where packets enter the fabric.
        to: a port of each of these switches, or None for the director (``on_tapped``).
        divert: the packet goes nowhere else; otherwise it goes its usual way as well.
    """

    __pydantic_config__ = STRICT

    name: str
    match: Match
    switches: frozenset[str] = frozenset()
    to: int | None = None
    divert: bool = False
    priority: int = 100


Intent = Flow | Tap


@dataclass(frozen=True, slots=True)
class Intents:
    """The whole of what is wanted. Names are unique among all."""

    __pydantic_config__ = STRICT

    flows: tuple[Flow, ...] = ()
    taps: tuple[Tap, ...] = ()
    names: frozenset[str] = field(init=False, compare=False, default=frozenset())

    def __post_init__(self) -> None:
        names = [flow.name for flow in self.flows] + [tap.name for tap in self.taps]
        unique = frozenset(names)
        if len(unique) != len(names):
            twice = sorted(name for name in unique if names.count(name) > 1)
            raise MisuseError(f"asked for twice: {', '.join(twice)}")
        object.__setattr__(self, "names", unique)
