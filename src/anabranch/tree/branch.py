"""The decisions of a relay or leaf: finding a parent, keeping one, telling it what is below."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random, SystemRandom

from anabranch.core.names import new_id
from anabranch.tree.events import (
    Attached,
    Certified,
    Connect,
    Detached,
    Establish,
    Forgotten,
    Introduced,
    Output,
    Send,
    Stopped,
    Target,
)
from anabranch.tree.member import Member, Neighbour, RefusedError, Stage, bare
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity, wall_ms
from anabranch.tree.soleil.codec import type_of
from anabranch.tree.soleil.messages import (
    ROOT,
    Bye,
    ChildsUpdate,
    Descendant,
    Endpoint,
    Error,
    Fault,
    Hello,
    Kill,
    Message,
    Redirect,
)
from anabranch.tree.subtree import MAX_BELOW, Subtree

PARENT = "parent"
"""Feature of a HELLO to the root: the node hangs from that one, and may stay."""
UNREACHABLE = "unreachable"
"""Feature of a HELLO to the root: names, parted by spaces, at which the node found nobody."""
_SETTLE_S = 0.02
_PACE_S = 0.2
_BACK_OFF_S = 0.2
_LONGEST_S = 10.0
_STEADY_S = 5.0
_DOUBTFUL_S = 30.0
_BANNED_S = 600.0
_MAX_BANNED = 1000
_MAX_UNREACHABLE = 8


class BranchMember(Member):
    """A node that hangs from another.

    It dials the root, which takes it in or sends it to a parent. A REDIRECT later on is obeyed
    make before break: the old parent goes when the new one has answered. Without a parent it
    tries the last one first and then the root; what hangs below stays.

    Args:
        root: where the root takes nodes in.
        draw: for the jitter of the back-off.
    """

    def __init__(
        self,
        name: str,
        role: Role,
        root: tuple[Endpoint, ...],
        *,
        server: Endpoint | None = None,
        boot: str | None = None,
        max_children: int = 200,
        wall_ms: Callable[[], int] = wall_ms,
        draw: Random | None = None,
    ) -> None:
        super().__init__(
            name,
            role,
            Subtree(name, most=MAX_BELOW),
            server=server,
            boot=boot or new_id(),
            max_children=max_children,
            wall_ms=wall_ms,
        )
        self._root = Target(None, root)
        self._root_name: str | None = None
        self._root_boot: str | None = None
        self._draw = draw or SystemRandom()
        self._targets: tuple[Target, ...] = ()
        self._dialled: tuple[int, Target] | None = None
        self._last: Target | None = None
        self._order: Message | None = None
        self._attempts = 0
        self._unreachable: dict[str, None] = {}
        self._stopped = False
        self._number = 0
        self._listing: tuple[Descendant, ...] = ()
        self._announced: frozenset[str] = frozenset()
        self._introductions: dict[str, Message] = {}
        self._introduced: dict[str, tuple[Message, float]] = {}
        self._flush_at: float | None = None
        self._flushed = 0.0
        self._banned: dict[str, float] = {}

    def start(self) -> list[Output]:
        """Begin to look for a parent."""
        self._dial((self._root,))
        return self._take()

    def dialled(
        self, link: int, target: Target, identity: Identity | None, now: float
    ) -> list[Output]:
        """Note that ``target`` has been reached; ``identity`` is what its certificate says."""
        neighbour = Neighbour(link, Stage.DIALLED, identity, since=now)
        self._links[link] = neighbour
        self._dialled = link, target
        if identity is None or not _is(identity, target):
            self._close(link, f"not {target.name or 'the root'} that was dialled")
            self._failed(now)
            return self._take()
        neighbour.name = identity.name
        if target.name is None:
            self._root_name = identity.name
        self._tell(link, self._greeting(), ROOT)
        return self._take()

    def failed(self, now: float) -> list[Output]:
        """Note that nobody was reached."""
        self._failed(now)
        return self._take()

    def request_certificate(self, request: str, now: float) -> list[Output]:
        """Ask the root for a new certificate. Raises as :meth:`send`."""
        return self.send(replace(self.hello(), request=request), ROOT, now)

    def leave(self, reason: str) -> list[Output]:
        """Say goodbye for good and end every connection."""
        self._leave(reason)
        return self._take()

    def next_timer(self) -> float | None:
        """Return when ``handle_timer`` is due, in monotonic seconds; None for never."""
        return None if self._parent is None else self._flush_at

    def handle_timer(self, now: float) -> list[Output]:
        """Tell the parent of what has changed below."""
        due = self.next_timer()
        if due is not None and now >= due:
            self._flush(now)
        return self._take()

    # Finding a parent.

    def _dial(self, targets: tuple[Target, ...], after: float = 0.0) -> None:
        if self._stopped:
            return
        if self._dialled is not None:
            self._close(self._dialled[0], "another is dialled")
            self._dialled = None
        self._targets = targets
        self._out.append(Connect(targets, after))

    def _failed(self, now: float) -> None:
        for target in self._targets:
            if target.name is not None:
                self._unreachable[target.name] = None
        while len(self._unreachable) > _MAX_UNREACHABLE:
            del self._unreachable[next(iter(self._unreachable))]
        self._dialled = None
        self._targets = ()
        if self._order is not None and self._parent is not None:
            order, self._order = self._order, None
            text = f"{self.name} stays at {self._parent.name}: nobody else answers"
            error = Error(Fault.FAILED, text, type_of(order.body), order.id)
            self._forward(self._parent.name, self._message(error, ROOT), now)
        if self._parent is None:
            self._dial(self._known_targets(), self._back_off())

    def _known_targets(self) -> tuple[Target, ...]:
        if self._last is None or self._last.name is None:
            return (self._root,)
        if self._last.name in self._unreachable:
            return self._root, self._last
        return self._last, self._root

    def _back_off(self) -> float:
        """Return seconds to wait: none at first, then up to twice as long each time."""
        attempts, self._attempts = self._attempts, self._attempts + 1
        most = min(_LONGEST_S, _BACK_OFF_S * 2 ** min(attempts, 10))
        return self._draw.uniform(0, most) if attempts else 0.0

    def _greeting(self) -> Hello:
        features = dict(self.features)
        if self._parent is not None:
            features[PARENT] = self._parent.name
        if self._unreachable:
            features[UNREACHABLE] = " ".join(self._unreachable)
        return replace(self.hello(), features=features)

    def _dial_answered(self, neighbour: Neighbour, message: Message, now: float) -> None:
        match message.body:
            case Hello(name=name) as hello if name == neighbour.name:
                self._adopted(neighbour, hello, now)
            case Redirect(parent, at) if self._parent is not None and self._parent.name == parent:
                self._close(neighbour.link, "it stays where it is")
                self._dialled = self._order = None
                self._targets = ()
            case Redirect(parent, at) if parent != neighbour.name:
                self._close(neighbour.link, f"sent to {parent}")
                self._dialled = None
                self._go_to(parent, at, self._back_off())
            case Error(text=text):
                self._close(neighbour.link, f"refused: {text}")
                self._failed(now)
            case _:
                self._close(neighbour.link, "it does not answer as a parent does")
                self._failed(now)

    def _go_to(self, parent: str, at: tuple[Endpoint, ...], after: float = 0.0) -> None:
        if parent == self._root_name:
            self._dial((Target(None, at or self._root.at),), after)
        else:
            self._dial((Target(parent, at),), after)

    def _adopted(self, neighbour: Neighbour, hello: Hello, now: float) -> None:
        if hello.role is Role.ROOT and hello.boot != self._root_boot:
            self._root_boot = hello.boot
            # It has begun anew, and is to ask those below who they are: so they learn of it.
            self._introduced.clear()
        assert self._dialled is not None
        _, self._last = self._dialled
        self._dialled = self._order = None
        self._targets = ()
        self._unreachable.clear()
        if (before := self._parent) is not None:
            self._tell(before.link, Bye(f"moved to {neighbour.name}"))
            self._close(before.link, f"moved to {neighbour.name}")
        neighbour.stage = Stage.PARENT
        neighbour.since = now
        self._hang(neighbour)
        self._out += [Establish(neighbour.link), Attached(neighbour.name)]
        self._listing = ()
        self._announced = frozenset()
        self._introductions = {
            name: message for name, (message, _) in self._introduced.items()
        } | self._introductions
        self._flush(now)

    def _forget(self, neighbour: Neighbour, reason: str, now: float) -> None:
        super()._forget(neighbour, reason, now)
        if neighbour is self._parent:
            self._hang(None)
            self._out.append(Detached(reason))
            if now - neighbour.since >= _STEADY_S:
                self._attempts = 0
            if not self._targets:
                self._dial(self._known_targets(), self._back_off())
        elif neighbour.stage is Stage.DIALLED and self._dialled is not None:
            self._failed(now)

    # Taking children in, and telling of them.

    def _greeted(self, neighbour: Neighbour, hello: Hello, message: Message, now: float) -> None:
        if neighbour.identity is None:
            raise RefusedError(Fault.FORBIDDEN, "without a certificate, talk to the root")
        if self.role is Role.LEAF:
            raise RefusedError(Fault.FORBIDDEN, f"{self.name} is a leaf")
        if self._parent is not None and hello.name == self._parent.name:
            raise RefusedError(Fault.CONFLICT, f"{self.name} hangs from {hello.name}")
        if self._banned.get(hello.name, now) > now:
            raise RefusedError(Fault.FORBIDDEN, f"the root has ended {hello.name}")
        self._check_child(neighbour, neighbour.identity, hello)
        self._take_in(neighbour, hello, now)
        self._introduce(Message(bare(hello), message.time_ms, ROOT, hello.name, message.id), now)

    def _route(self, neighbour: Neighbour, message: Message, now: float) -> None:
        if (
            isinstance(message.body, Hello)
            and message.to == ROOT
            and message.sender is not None
            and self._subtree.below.get(message.sender) == neighbour.name
        ):
            if self._seen.is_new(message):
                self._introduce(message, now)
            return
        super()._route(neighbour, message, now)

    def _introduce(self, message: Message, now: float) -> None:
        """Hand a HELLO up, after the news of where its sender hangs.

        It goes once more to the next parent if the present one may have been silent already.
        """
        assert message.sender is not None
        self._introductions[message.sender] = message
        self._changed((), now)

    def _presented(self, message: Message, hello: Hello, now: float) -> None:
        if hello.certificate is not None and message.sender == ROOT:
            self._out.append(Certified(hello.certificate))
        elif message.sender == ROOT and hello.features:
            self._out.append(Introduced(hello.name, hello))
        elif message.sender == ROOT:  # it has begun anew and does not know us
            answer = self._message(self.hello(), ROOT)
            assert self._parent is not None
            self._forward(self._parent.name, answer, now)
            self._out.append(Forgotten())
        elif message.to is None and message.sender in self._subtree.children:
            self._introduce(Message(bare(hello), message.time_ms, ROOT, message.sender), now)

    def _updated(
        self, neighbour: Neighbour, message: Message, update: ChildsUpdate, now: float
    ) -> None:
        super()._updated(neighbour, message, update, now)
        if self._parent is not None and any(
            node.name == self.name and node.parent == self._parent.name
            for node in update.descendants
        ):
            # This is a circle, or somebody who knows our parent lies: the root can tell.
            self._dial((self._root,), self._back_off())

    def _changed(self, names: Iterable[str], now: float) -> None:
        for name in names:
            if name not in self._subtree.below:
                self._introductions.pop(name, None)
                self._introduced.pop(name, None)
        if self._flush_at is None:
            self._flush_at = max(now + _SETTLE_S, self._flushed + _PACE_S)

    def _flush(self, now: float) -> None:
        assert self._parent is not None
        self._flush_at = None
        self._flushed = now
        listing = self._subtree.listing()
        if listing != self._listing:
            self._listing = listing
            self._announced = frozenset(node.name for node in listing)
            self._number += 1
            self._tell(self._parent.link, ChildsUpdate(self._number, listing))
        for name, message in self._introductions.items():
            self._out.append(Send(self._parent.link, message))
            self._introduced.pop(name, None)
            self._introduced[name] = message, now
        self._introductions.clear()
        for name, (_, sent) in list(self._introduced.items()):
            if now - sent < _DOUBTFUL_S:
                break
            del self._introduced[name]

    def _forward(self, name: str, message: Message, now: float) -> None:
        upwards = self._parent is not None and name == self._parent.name
        if upwards and message.sender not in self._announced and message.sender != self.name:
            self._flush(now)
        super()._forward(name, message, now)
        if isinstance(message.body, Kill) and name == message.to:
            self._ban(name, now)

    def _ban(self, name: str, now: float) -> None:
        """Let go of a child that the root ends, and do not take it in again for a while."""
        while len(self._banned) >= _MAX_BANNED:
            del self._banned[next(iter(self._banned))]
        self._banned[name] = now + _BANNED_S
        self._changed(self._let_go(name, "the root has ended it"), now)

    # Obeying the root.

    def _obey(self, message: Message, now: float) -> None:
        match message.body:
            case Kill(reason):
                self._out.append(Stopped(reason))
                self._leave(reason or "ended by the root")
            case Redirect(parent, at):
                if self._parent is not None and self._parent.name == parent:
                    return
                if parent == self.name or parent in self._subtree.below:
                    raise RefusedError(Fault.CONFLICT, f"{parent} hangs from {self.name}")
                self._order = message
                self._go_to(parent, at)

    def _leave(self, reason: str) -> None:
        self._stopped = True
        if self._parent is not None:
            self._tell(self._parent.link, Bye(reason), ROOT)
        for link in self._subtree.children.values():
            self._tell(link, Bye(reason))
        for link in list(self._links):
            self._close(link, reason)
        self._hang(None)


def _is(identity: Identity, target: Target) -> bool:
    if target.name is None:
        return identity.role is Role.ROOT
    return identity.name == target.name and identity.role is not Role.LEAF
