"""The root's decisions: who may come, where each node hangs, and whom to believe about it."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from anabranch.core.errors import ConflictError, NotFoundError
from anabranch.tree.branch import PARENT, UNREACHABLE
from anabranch.tree.events import Left, Output, Send, TreeEvent
from anabranch.tree.member import Member, Neighbour, RefusedError, bare
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity, wall_ms
from anabranch.tree.registry import Registry
from anabranch.tree.soleil.messages import (
    Endpoint,
    Error,
    Fault,
    Hello,
    Kill,
    Message,
    Redirect,
)
from anabranch.tree.subtree import Subtree

MAX_NODES = 20_000
_SUMMON_EVERY_S = 30.0


class Gate(Protocol):
    """Who may be a node; every refusal is a RefusedError."""

    @property
    def authority(self) -> str:
        """The authority's certificate, PEM."""

    def admit(self, hello: Hello) -> str:
        """Return the chain for a node that has a token."""

    def renew(self, name: str, request: str) -> str:
        """Return a new chain for a node that has one."""

    def check(self, identity: Identity) -> None:
        """Look whether a node with a genuine certificate is still welcome."""

    def is_known(self, name: str) -> bool:
        """Say whether there is a node of that name."""


Placement = Callable[[Hello, "RootMember"], str]
"""Given a node that has come, the name of the parent that it should have; the root's, too."""


def stay(hello: Hello, root: "RootMember") -> str:
    """Leave a node where it is; take in one that hangs nowhere."""
    return hello.features.get(PARENT, root.name)


class RootMember(Member):
    """The root.

    A node asks the root itself, with its own certificate, before it goes anywhere. What a node has
    said so outweighs what others say about it.

    Args:
        gate: who may come; None: whoever is authenticated.
        place: where nodes go; what is impossible is taken in by the root.
        belongs: says whether a node (first) may be below a child of the root's (second); the root
            believes no claim of another.
        grace: seconds that a lost node has to come back.

    Attributes:
        registry: the picture of the tree.
    """

    def __init__(
        self,
        name: str,
        *,
        gate: Gate | None = None,
        place: Placement = stay,
        belongs: Callable[[str, str], bool] = lambda _name, _child: True,
        server: Endpoint | None = None,
        boot: str | None = None,
        max_children: int = 2000,
        grace: float = 15.0,
        wall_ms: Callable[[], int] = wall_ms,
    ) -> None:

        def may_be_below(node: str, child: str) -> bool:
            return (gate is None or gate.is_known(node)) and belongs(node, child)

        super().__init__(
            name,
            Role.ROOT,
            Subtree(name, most=MAX_NODES, belongs=may_be_below),
            server=server,
            boot=boot,
            max_children=max_children,
            wall_ms=wall_ms,
        )
        self._gate = gate
        self._place = place
        self.registry = Registry(name, self._subtree, grace=grace)
        self._orders: dict[str, str] = {}
        self._summoned: dict[str, float] = {}

    def can_hang(self, name: str, parent: str) -> bool:
        """Say whether ``name`` can be told to hang from ``parent``: a relay not below it."""
        if parent == self.name:
            return True
        place = self.registry.nodes.get(parent)
        return (
            place is not None
            and self.registry.is_present(parent)
            and place.role is Role.RELAY
            and not self.registry.may_hang_below(parent, name)
        )

    def redirect(self, name: str, parent: str, reason: str, now: float) -> list[Output]:
        """Have a node hang from another parent.

        Raises:
            NotFoundError: there is no such node.
            ConflictError: it cannot hang there.
            UnavailableError: it cannot be reached.
        """
        if name not in self.registry.nodes:
            raise NotFoundError(f"there is no node {name}")
        if not self.can_hang(name, parent):
            raise ConflictError(f"{name} cannot hang from {parent}")
        out = self.send(Redirect(parent, self._at(parent), reason), name, now)
        self._orders[name] = parent
        self._subtree.sworn[name] = parent
        return out

    def kill(self, name: str, reason: str, now: float) -> list[Output]:
        """End a node. Raises as :meth:`send`."""
        out = self.send(Kill(reason), name, now)
        self.registry.take_leave(name, reason)
        self._changed(self._let_go(name, "the root has ended it"), now)
        return out + self._take()

    def next_timer(self) -> float | None:
        """Return when ``handle_timer`` is due, in monotonic seconds; None for never."""
        return self.registry.next_timer()

    def handle_timer(self, now: float) -> list[Output]:
        """Give up nodes that do not come back; ask those who they are that have not said so."""
        self._report(self.registry.expire(now))
        for name in self.registry.strangers(now):
            if (child := self._subtree.below.get(name)) is not None:
                self._forward(child, self._message(self.hello(), name), now)
        return self._take()

    def _greeted(self, neighbour: Neighbour, hello: Hello, message: Message, now: float) -> None:
        if neighbour.identity is None:
            self._admit(neighbour, hello)
            return
        self._check_child(neighbour, neighbour.identity, hello)
        if self._gate is not None:
            self._gate.check(neighbour.identity)
        parent = self._orders.pop(hello.name, None) or self._place(hello, self)
        refused = hello.features.get(UNREACHABLE, "").split()
        if parent in refused or not self.can_hang(hello.name, parent):
            parent = self.name
        self._subtree.sworn[hello.name] = parent
        if parent == self.name:
            self._take_in(neighbour, hello, now)
            self._report(self.registry.introduce(bare(hello), now))
            return
        at = () if hello.features.get(PARENT) == parent else self._at(parent)
        self._tell(neighbour.link, Redirect(parent, at))
        self._close(neighbour.link, f"sent to {parent}")
        touched = {hello.name}
        if hello.features.get(PARENT) != self.name:
            touched |= self._let_go(hello.name, "it has connected anew")
        self._changed(touched, now)

    def _admit(self, neighbour: Neighbour, hello: Hello) -> None:
        """Give a node without certificate the authority's, or for its token one of its own."""
        if self._gate is None:
            raise RefusedError(Fault.FORBIDDEN, "a certificate is needed")
        answer = self._gate.authority if hello.token is None else self._gate.admit(hello)
        self._tell(neighbour.link, replace(self.hello(), certificate=answer))
        if hello.token is not None:
            self._close(neighbour.link, f"{hello.name} has a certificate now")

    def _dial_answered(self, neighbour: Neighbour, message: Message, now: float) -> None:
        raise AssertionError("the root dials nobody")

    def _presented(self, message: Message, hello: Hello, now: float) -> None:
        if hello.name != message.sender:
            raise RefusedError(Fault.FORBIDDEN, f"{message.sender} says it is {hello.name}")
        if hello.name in self._subtree.children:
            place = self.registry.nodes[hello.name]
            if place.hello is not None and place.hello.boot != hello.boot:
                raise RefusedError(Fault.CONFLICT, f"{hello.name} has not connected anew")
        self._report(self.registry.introduce(bare(hello), now))
        if hello.request is not None and self._gate is not None:
            chain = self._gate.renew(hello.name, hello.request)
            answer = self._message(replace(self.hello(), certificate=chain), hello.name)
            self._forward(self._subtree.below[hello.name], answer, now)

    def _changed(self, names: Iterable[str], now: float) -> None:
        names = list(names)
        self._report(self.registry.settle(names, now))
        for name in names:
            claim = self._subtree.claim(name)
            if claim is None:
                continue
            if self._orders.get(name) == claim.parent:
                del self._orders[name]
            settled = claim.parent in (self._subtree.sworn.get(name), self.name)
            if not settled and len(list(self._subtree.claims(name))) > 1:
                self._summon(name, now)

    def _summon(self, name: str, now: float) -> None:
        """Have a node that two parents claim come and say where it hangs."""
        if self._summoned.get(name, -_SUMMON_EVERY_S) + _SUMMON_EVERY_S > now:
            return
        self._summoned[name] = now
        at = () if self.server is None else (self.server,)
        message = self._message(Redirect(self.name, at, "two parents claim this node"), name)
        self._out += [Send(claim.link, message) for claim in self._subtree.claims(name)]

    def _handle(self, neighbour: Neighbour, message: Message, now: float) -> None:
        match message:
            case Message(Error(regarding="redirect"), sender=str(name)):  # it stays where it is
                self._orders.pop(name, None)
                if (place := self.registry.nodes.get(name)) is not None:
                    self._subtree.sworn[name] = place.parent
        super()._handle(neighbour, message, now)

    def _farewell(self, name: str, reason: str) -> None:
        self.registry.take_leave(name, reason)

    def _obey(self, message: Message, now: float) -> None:
        raise AssertionError("nobody commands the root")

    def _at(self, parent: str) -> tuple[Endpoint, ...]:
        if parent == self.name:
            return () if self.server is None else (self.server,)
        hello = self.registry.nodes[parent].hello
        return () if hello is None or hello.server is None else (hello.server,)

    def _report(self, events: Iterable[TreeEvent]) -> None:
        for event in events:
            if isinstance(event, Left):
                self._orders.pop(event.name, None)
                self._summoned.pop(event.name, None)
            self._out.append(event)
