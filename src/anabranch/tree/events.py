"""What a node's decisions ask for, and what they tell, as records."""

from dataclasses import dataclass

from anabranch.tree.model import Role
from anabranch.tree.soleil.messages import Endpoint, Hello, Message


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to dial: the node ``name``, or the root, whatever it is called, if None."""

    name: str | None
    at: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Connect:
    """Dial the first of ``targets`` that answers, after ``after`` seconds; replaces an earlier."""

    targets: tuple[Target, ...]
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Establish:
    """The neighbour at ``link`` is taken: it may say everything from now on."""

    link: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``message`` by ``link``."""

    link: int
    message: Message


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection ``link`` once what was sent has left."""

    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class Blame:
    """The peer at ``link`` broke a rule: log one line and, unless it may be innocent, count it."""

    link: int
    reason: str
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Deliver:
    """A message for this node's own pipelines and statistics; ``neighbour``: whom it came by."""

    message: Message
    neighbour: str


@dataclass(frozen=True, slots=True)
class Attached:
    """This node hangs from ``parent`` now."""

    parent: str


@dataclass(frozen=True, slots=True)
class Detached:
    """This node hangs from nobody; it looks for a parent."""

    reason: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The root does not know this node, which hangs where it did: it has begun anew."""


@dataclass(frozen=True, slots=True)
class Certified:
    """The root has answered a request for a certificate with ``chain``, PEM."""

    chain: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The root has ended this node: it must not come back."""

    reason: str


@dataclass(frozen=True, slots=True)
class Joined:
    """A node is in the tree."""

    name: str
    role: Role
    parent: str


@dataclass(frozen=True, slots=True)
class Introduced:
    """A node that is in the tree has presented itself, or does so anew: addresses, pipelines.

    To a node: the root has told it something by the features of a HELLO.
    """

    name: str
    hello: Hello


@dataclass(frozen=True, slots=True)
class Moved:
    """A node hangs elsewhere."""

    name: str
    parent: str
    before: str


@dataclass(frozen=True, slots=True)
class Left:
    """A node is in the tree no more."""

    name: str
    reason: str


TreeEvent = Joined | Introduced | Moved | Left
"""What only the root tells."""
NodeEvent = Deliver | Attached | Detached | Forgotten | Certified | Stopped | TreeEvent
"""What concerns the node itself."""
Order = Connect | Establish | Send | Close | Blame
"""What concerns its connections."""
Output = Order | NodeEvent
