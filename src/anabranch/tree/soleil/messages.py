"""The messages of the SOLEIL protocol as records (seed 000, section 3.1.1).

The seed names seventeen types and shows the bodies of four; docs/protocols/soleil.md defines all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from anabranch.tree.model import Role

ROOT = "^"
"""Address of the root, whatever it is called."""
EVERYBODY = "*"
"""Address of all nodes."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An IP address or host name, and a TCP port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Hello:
    """HELLO: a node presents itself; whoever takes it in answers with its own.

    Attributes:
        name: the sender's.
        role: what it is.
        server: where it takes children in; None: nowhere.
        client: where its own connection comes from, as it knows it.
        pipelines: identifiers of the pipelines that it has defined.
        boot: drawn anew at each start of the node: tells a restart from a reconnection.
        token: proves a node that has no certificate yet.
        request: a certificate signing request, PEM; None: it has a certificate.
        certificate: the answer to one, PEM, with the site's authority after it.
        features: what the sender can do beside the seed's protocol, by name.
    """

    name: str
    role: Role
    server: Endpoint | None = None
    client: Endpoint | None = None
    pipelines: tuple[str, ...] = ()
    boot: str | None = None
    token: str | None = field(default=None, repr=False)
    request: str | None = None
    certificate: str | None = None
    features: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bye:
    """BYE: the sender leaves on purpose."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Descendant:
    """A node below the sender, with the parent it hangs from."""

    name: str
    role: Role
    parent: str


@dataclass(frozen=True, slots=True)
class ChildsUpdate:
    """CHILDSUPDATE: everything below the sender, told to its parent whenever that changes.

    Parents come before their children. ``number`` grows with each: an older one is passed over.
    """

    number: int
    descendants: tuple[Descendant, ...] = ()


class Fault(StrEnum):
    """What an ERROR complains of."""

    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    UNKNOWN_TYPE = "unknown-type"
    NO_ROUTE = "no-route"
    FORBIDDEN = "forbidden"
    CONFLICT = "conflict"
    NOT_FOUND = "not-found"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Error:
    """ERROR: a message could not be obeyed; ``regarding`` is its type, ``answers`` its id."""

    fault: Fault
    text: str = ""
    regarding: str | None = None
    answers: str | None = None


@dataclass(frozen=True, slots=True)
class Kill:
    """KILL: the root has a node end: take its children's leave, stop, and not come back."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ping:
    """PING: is the neighbour there? ``nonce`` comes back."""

    nonce: str


@dataclass(frozen=True, slots=True)
class Pong:
    """PONG: the answer to a PING."""

    nonce: str


@dataclass(frozen=True, slots=True)
class Redirect:
    """REDIRECT: hang from another parent, at the first of ``at`` that answers."""

    parent: str
    at: tuple[Endpoint, ...]
    reason: str = ""


class PipelineState(StrEnum):
    """What a media pipeline does."""

    DEFINED = "defined"
    PLAYING = "playing"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PipeDef:
    """PIPEDEF: define a media pipeline, by a GStreamer description."""

    pipeline: str
    description: str


@dataclass(frozen=True, slots=True)
class PipeDefInfo:
    """PIPEDEFINFO: what has become of a pipeline; ``outlets``: where its sinks send."""

    pipeline: str
    state: PipelineState
    description: str = ""
    outlets: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    error: str | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class PlayPipeline:
    """PLAYPIPELINE: start a defined pipeline."""

    pipeline: str


@dataclass(frozen=True, slots=True)
class StopPipeline:
    """STOPPIPELINE: stop it; it stays defined."""

    pipeline: str


@dataclass(frozen=True, slots=True)
class RemovePipeline:
    """REMOVEPIPELINE: stop and forget it."""

    pipeline: str


@dataclass(frozen=True, slots=True)
class RoutePipeline:
    """ROUTEPIPELINE: the sink named ``outlet`` sends to exactly ``to`` from now on."""

    pipeline: str
    outlet: str
    to: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class StreamStats:
    """One ``statsContainer``: figures of one stream over an interval.

    Attributes:
        stream: identifier of the stream.
        start, end: the interval, seconds since the epoch.
        children: ``numOfChildren``, the direct children of the sender.
        weight: how much these figures count in a mean; None: the seed's format, which has none.
        values: by name; ``cpu`` per cent of a core, ``injitter`` milliseconds, ``cumpktlost``
            packets lost, further ones as both ends understand them.
        node: whose figures these are, where a FULLSTATS shows those of the sender's children
            beside its own; None: the sender's, with all that is below it.
    """

    stream: str
    start: float
    end: float
    children: int
    values: Mapping[str, float]
    weight: float | None = None
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """STATS: a subtree's figures, told to the parent. ``round`` grows with each report."""

    containers: tuple[StreamStats, ...] = ()
    round: int | None = None


@dataclass(frozen=True, slots=True)
class ReqFullStats:
    """REQFULLSTATS: the root asks one node for its own figures; of all streams, if None."""

    pipeline: str | None = None


@dataclass(frozen=True, slots=True)
class FullStats:
    """FULLSTATS: the answer; its envelope's time is the request's."""

    containers: tuple[StreamStats, ...] = ()
    pipeline: str | None = None
    end: float | None = None


Body = (
    Hello
    | Bye
    | ChildsUpdate
    | Error
    | Kill
    | Ping
    | Pong
    | Redirect
    | PipeDef
    | PipeDefInfo
    | PlayPipeline
    | StopPipeline
    | RemovePipeline
    | RoutePipeline
    | Stats
    | ReqFullStats
    | FullStats
)


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        body: tells the type, too.
        time_ms: milliseconds since the epoch (the seed's text says seconds, its examples show
            milliseconds; both are read).
        to: a node by name, ROOT, EVERYBODY, or None: whoever receives it.
        sender: the node that wrote it, by name or as ROOT; None: the neighbour it comes from.
        id: unique among the sender's messages; None where another implementation gives none.
        in_seconds: the time was read in seconds, and is written so where it is echoed.
    """

    body: Body
    time_ms: int
    to: str | None = None
    sender: str | None = None
    id: str | None = None
    in_seconds: bool = False
