"""One node's decisions, without any I/O: neighbours, routing, what it may believe whom.

A runtime (``runtime.py``) hands in what happens on connections, each a *link* by number, and the
time (monotonic seconds); it carries out what comes back (``events.py``). Here is what the root and
the others have in common; ``root.py`` and ``branch.py`` have the rest.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

from anabranch.core.errors import UnavailableError, UsageError
from anabranch.core.names import check_name, new_id
from anabranch.tree.events import Blame, Close, Deliver, Establish, Output, Send
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity, wall_ms
from anabranch.tree.seen import Seen
from anabranch.tree.soleil.codec import type_of
from anabranch.tree.soleil.messages import (
    ROOT,
    Body,
    Bye,
    ChildsUpdate,
    Endpoint,
    Error,
    Fault,
    Hello,
    Kill,
    Message,
    Ping,
    PipeDef,
    PlayPipeline,
    Pong,
    Redirect,
    RemovePipeline,
    ReqFullStats,
    RoutePipeline,
    StopPipeline,
)
from anabranch.tree.soleil.routing import (
    Forward,
    Handle,
    Position,
    Refuse,
    attributed,
    route,
)
from anabranch.tree.subtree import LieError, Subtree

COMMANDS = (
    Kill
    | Redirect
    | PipeDef
    | PlayPipeline
    | StopPipeline
    | RemovePipeline
    | RoutePipeline
    | ReqFullStats
)
"""What only the root may say."""


class Stage(Enum):
    """How far a link has come."""

    WAITING = auto()
    DIALLED = auto()
    CHILD = auto()
    PARENT = auto()
    DONE = auto()


@dataclass(slots=True)
class Neighbour:
    """Who is at a link.

    Attributes:
        identity: None: it has no certificate.
        name: what it is called; of use once it is child or parent.
        since: when it became so.
    """

    link: int
    stage: Stage
    identity: Identity | None
    name: str = ""
    since: float = 0.0


class RefusedError(UsageError):
    """What a neighbour wants is refused."""

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


class Member(ABC):
    """A node of the tree.

    Args:
        name: its name; the root's, too.
        role: what it is.
        server: where it takes children in; None: nowhere.
        boot: tells this life of the node from others; drawn unless given.
        max_children: how many nodes may hang from it directly.
        wall_ms: milliseconds since the epoch, for envelopes only.

    Attributes:
        server, client, pipelines, features: for its HELLO; they may change.
    """

    def __init__(
        self,
        name: str,
        role: Role,
        subtree: Subtree,
        *,
        server: Endpoint | None = None,
        boot: str | None = None,
        max_children: int = 2000,
        wall_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self.name = check_name(name)
        self.role = role
        self.server = server
        self.boot = boot or new_id()
        self.client: Endpoint | None = None
        self.pipelines: tuple[str, ...] = ()
        self.features: Mapping[str, str] = {}
        self._max_children = max_children
        self._wall_ms = wall_ms
        self._is_root = role is Role.ROOT
        self._subtree = subtree
        self._links: dict[int, Neighbour] = {}
        self._newest: dict[str, int] = {}
        self._parent: Neighbour | None = None
        self._position = self._placed()
        self._seen = Seen()
        self._sent = 0
        self._out: list[Output] = []

    @property
    def parent(self) -> str | None:
        """The node that this one hangs from."""
        return None if self._parent is None else self._parent.name

    @property
    def children(self) -> Collection[str]:
        """The nodes that hang from this one directly."""
        return self._subtree.children.keys()

    # What happens on links.

    def accepted(self, link: int, identity: Identity | None) -> None:
        """Note that somebody has dialled this node; its HELLO is to come."""
        self._links[link] = Neighbour(link, Stage.WAITING, identity)
        if identity is not None:
            self._newest[identity.name] = link

    def receive(self, link: int, message: Message, now: float) -> list[Output]:
        """Take a message from a link and return what follows from it."""
        neighbour = self._links.get(link)
        if neighbour is None:
            return []
        try:
            match neighbour.stage, message.body:
                case Stage.WAITING, Hello() as hello:
                    self._greeted(neighbour, hello, message, now)
                case Stage.DIALLED, _:
                    self._dial_answered(neighbour, message, now)
                case ((Stage.CHILD | Stage.PARENT), _):
                    self._route(neighbour, attributed(message, neighbour.name), now)
                case _:
                    pass
        except RefusedError as error:
            self._refuse(neighbour, message, error)
        return self._take()

    def lost(self, link: int, reason: str, now: float) -> list[Output]:
        """Note that a link has ended, whoever ended it."""
        neighbour = self._links.pop(link, None)
        if neighbour is not None:
            if neighbour.identity is not None and self._newest.get(neighbour.identity.name) == link:
                del self._newest[neighbour.identity.name]
            self._forget(neighbour, reason, now)
        return self._take()

    # What this node wants.

    def send(
        self,
        body: Body,
        to: str | None,
        now: float,
        *,
        time_ms: int | None = None,
        in_seconds: bool = False,
    ) -> list[Output]:
        """Send a message of this node's own; ``to`` None: to the parent.

        ``time_ms`` and ``in_seconds`` are those of the request whose time is echoed.

        Raises:
            UnavailableError: there is no way to it, for now.
        """
        message = self._message(body, to, time_ms, in_seconds)
        if to is None:
            if self._parent is None:
                raise UnavailableError("this node hangs from nobody")
            self._forward(self._parent.name, message, now)
            return self._take()
        match route(self._position, message):
            case Handle():
                self._out.append(Deliver(message, self.name))
            case Forward(neighbours):
                for name in neighbours:
                    self._forward(name, message, now)
            case Refuse(error):
                raise UnavailableError(error.text)
        return self._take()

    @abstractmethod
    def next_timer(self) -> float | None:
        """Return when ``handle_timer`` is due, in monotonic seconds; None for never."""

    @abstractmethod
    def handle_timer(self, now: float) -> list[Output]:
        """Do what is due at ``now``."""

    # What root and others do differently.

    @abstractmethod
    def _greeted(self, neighbour: Neighbour, hello: Hello, message: Message, now: float) -> None:
        """Decide about somebody who has dialled this node."""

    @abstractmethod
    def _dial_answered(self, neighbour: Neighbour, message: Message, now: float) -> None:
        """Take the answer of somebody whom this node has dialled."""

    @abstractmethod
    def _presented(self, message: Message, hello: Hello, now: float) -> None:
        """Take a HELLO for this node of somebody who is in the tree already."""

    @abstractmethod
    def _changed(self, names: Iterable[str], now: float) -> None:
        """Follow a change of where ``names`` hang."""

    @abstractmethod
    def _obey(self, message: Message, now: float) -> None:
        """Carry out a KILL or REDIRECT of the root's."""

    def _farewell(self, name: str, reason: str) -> None:  # noqa: B027  # the root's business
        """Note that a node leaves for good."""

    def _forget(self, neighbour: Neighbour, reason: str, now: float) -> None:
        if neighbour.stage is Stage.CHILD:
            self._changed(self._subtree.detach(neighbour.link), now)

    # Taking children in.

    def _check_child(self, neighbour: Neighbour, identity: Identity, hello: Hello) -> None:
        """Check a HELLO against the certificate, and this node against its own limits."""
        if (hello.name, hello.role) != (identity.name, identity.role):
            raise RefusedError(
                Fault.FORBIDDEN,
                f"the certificate is of {identity.role} {identity.name},"
                f" not of {hello.role} {hello.name}",
            )
        if identity.role is Role.ROOT or identity.name == self.name:
            raise RefusedError(Fault.FORBIDDEN, "there is one root, and one node of a name")
        if self._newest.get(identity.name, neighbour.link) != neighbour.link:
            raise RefusedError(Fault.CONFLICT, f"{identity.name} has connected anew")
        if hello.name in self._subtree.children:
            return  # it takes its own place
        if len(self._subtree.children) >= self._max_children:
            raise RefusedError(Fault.FAILED, f"{self.name} has as many children as it can")

    def _take_in(self, neighbour: Neighbour, hello: Hello, now: float) -> None:
        touched = self._let_go(hello.name, "it has connected anew")
        neighbour.stage = Stage.CHILD
        neighbour.name = hello.name
        neighbour.since = now
        self._subtree.attach(neighbour.link, hello.name, hello.role)
        self._out.append(Establish(neighbour.link))
        self._tell(neighbour.link, self.hello())
        self._changed({hello.name, *touched}, now)

    def _let_go(self, name: str, reason: str) -> set[str]:
        """End the connection of a child, if there is one; return the nodes that this touches."""
        link = self._subtree.children.get(name)
        if link is None:
            return set()
        self._close(link, reason)
        return self._subtree.detach(link)

    def hello(self) -> Hello:
        """Return how this node presents itself."""
        return Hello(
            *(self.name, self.role, self.server, self.client, self.pipelines, self.boot),
            features=self.features,
        )

    # Messages within the tree.

    def _route(self, neighbour: Neighbour, message: Message, now: float) -> None:
        decision = route(self._position, message, neighbour.name)
        if isinstance(decision, Refuse):
            if decision.to is not None:
                self._tell(neighbour.link, decision.error, decision.to)
            if decision.error.fault is Fault.FORBIDDEN:
                # A node that has just moved may still be heard by its old way.
                claims = self._subtree.claims(message.sender or "")
                moved = any(claim.link == neighbour.link for claim in claims)
                self._blame(neighbour, decision.error.text, counted=not moved)
            return
        if isinstance(message.body, COMMANDS) and message.sender != ROOT:
            raise RefusedError(Fault.FORBIDDEN, f"only the root may send {type_of(message.body)}")
        if not self._seen.is_new(message):
            return
        if isinstance(decision, Forward):
            for name in decision.neighbours:
                self._forward(name, message, now)
            if isinstance(message.body, Bye) and message.sender == neighbour.name:
                self._dismiss(neighbour, now)
        if isinstance(decision, Handle) or decision.handle:
            self._handle(neighbour, message, now)

    def _handle(self, neighbour: Neighbour, message: Message, now: float) -> None:
        match message.body:
            case Hello() as hello:
                self._presented(message, hello, now)
            case ChildsUpdate() as update:
                self._updated(neighbour, message, update, now)
            case Bye(reason):
                if message.to is not None and message.sender is not None:
                    self._farewell(message.sender, reason or "it said goodbye")
                if message.sender == neighbour.name:
                    self._dismiss(neighbour, now)
            case Ping(nonce) if message.sender is not None:
                self._tell(neighbour.link, Pong(nonce), message.sender)
            case Kill() | Redirect():
                self._obey(message, now)
            case _:
                self._out.append(Deliver(message, neighbour.name))

    def _updated(
        self, neighbour: Neighbour, message: Message, update: ChildsUpdate, now: float
    ) -> None:
        if neighbour.stage is not Stage.CHILD or message.sender != neighbour.name:
            raise RefusedError(Fault.FORBIDDEN, "a node tells its parent of what is below it")
        try:
            touched, refused = self._subtree.update(
                neighbour.link, update.number, update.descendants
            )
        except UsageError as error:  # a lie, or no name at all
            fault = Fault.CONFLICT if isinstance(error, LieError) else Fault.MALFORMED
            raise RefusedError(fault, str(error)) from error
        self._changed(touched, now)
        refused |= {name for name in touched if self._is_elsewhere(name, neighbour)}
        if refused:
            text = f"not below you: {', '.join(sorted(refused)[:10])}"
            fault = Fault.CONFLICT
            self._tell(neighbour.link, Error(fault, text, type_of(update), message.id))
            self._blame(neighbour, text, counted=False)

    def _is_elsewhere(self, name: str, neighbour: Neighbour) -> bool:
        """Say whether a child claims a node, and is not believed."""
        believed = self._subtree.claim(name)
        claimed = any(claim.link == neighbour.link for claim in self._subtree.claims(name))
        return claimed and believed is not None and believed.link != neighbour.link

    def _dismiss(self, neighbour: Neighbour, now: float) -> None:
        """Let a neighbour go that has said goodbye."""
        self._forget(neighbour, "it said goodbye", now)
        self._close(neighbour.link, "it said goodbye")

    def _refuse(self, neighbour: Neighbour, message: Message, error: RefusedError) -> None:
        """Tell the sender why not; who has not been taken in is sent away."""
        if not isinstance(message.body, Error):
            body = Error(error.fault, str(error), type_of(message.body), message.id)
            self._tell(neighbour.link, body, message.sender)
        own = message.sender in (None, neighbour.name)
        self._blame(neighbour, str(error), counted=own or isinstance(message.body, COMMANDS))
        if neighbour.stage is Stage.WAITING:
            self._close(neighbour.link, str(error))

    # Sending.

    def _forward(self, name: str, message: Message, now: float) -> None:
        """Send a message by the neighbour ``name``."""
        link = self._subtree.children.get(name)
        if link is None and self._parent is not None and name == self._parent.name:
            link = self._parent.link
        if link is not None:
            self._out.append(Send(link, message))

    def _tell(self, link: int, body: Body, to: str | None = None) -> None:
        """Send a message of this node's own by a link."""
        self._out.append(Send(link, self._message(body, to)))

    def _message(
        self, body: Body, to: str | None, time_ms: int | None = None, in_seconds: bool = False
    ) -> Message:
        self._sent += 1
        return Message(
            body,
            self._wall_ms() if time_ms is None else time_ms,
            to=to,
            sender=ROOT if self._is_root else self.name,
            id=f"{self.boot}-{self._sent}",
            in_seconds=in_seconds,
        )

    def _blame(self, neighbour: Neighbour, reason: str, *, counted: bool = True) -> None:
        # Above, news is older: what looks like a lie may be a node that has just moved.
        counted = counted and neighbour.stage is not Stage.PARENT
        self._out.append(Blame(neighbour.link, reason, counted))

    def _close(self, link: int, reason: str) -> None:
        if (neighbour := self._links.get(link)) is not None:
            neighbour.stage = Stage.DONE
        self._out.append(Close(link, reason))

    def _take(self) -> list[Output]:
        out, self._out = self._out, []
        return out

    def _hang(self, parent: Neighbour | None) -> None:
        self._parent = parent
        self._position = self._placed()

    def _placed(self) -> Position:
        return Position(
            self.name,
            self.parent,
            self._subtree.children,
            self._subtree.below,
            self._is_root,
        )


def bare(hello: Hello) -> Hello:
    """Return a HELLO without what is between its node and the root alone."""
    return replace(hello, token=None, request=None, certificate=None)
