"""Members joined by an in-memory network in virtual time: it delays, cuts, parts and restarts."""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random

from anabranch.core.errors import AnabranchError
from anabranch.tree.branch import BranchMember
from anabranch.tree.events import (
    Blame,
    Close,
    Connect,
    Deliver,
    Establish,
    NodeEvent,
    Output,
    Send,
    Target,
)
from anabranch.tree.member import Member
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity
from anabranch.tree.root import Placement, RootMember, stay
from anabranch.tree.soleil.codec import decode, encode
from anabranch.tree.soleil.messages import Body, Endpoint

ROOT_NAME = "root"
GREETING_S, LOST_S = 10.0, 9.0


class Host:
    """A machine: its member lives, dies and comes back with another boot."""

    def __init__(self, name: str, role: Role) -> None:
        self.name = name
        self.role = role
        self.member: Member | None = None
        self.life = 0
        self.events: list[NodeEvent] = []
        self.handled: Counter[tuple[int, str | None, str | None]] = Counter()
        self.cut_off = False


class Connection:
    """Two ends, the dialler's first; each has a number of its own."""

    def __init__(self, ends: tuple[Host, Host], links: tuple[int, int], delay: float) -> None:
        self.ends = ends
        self.links = links
        self.delay = delay
        self.lives = ends[0].life, ends[1].life
        self.established = [False, False]
        self.open = [True, True]
        self.broken = False

    def side(self, host: Host, link: int) -> int:
        return 0 if (self.ends[0], self.links[0]) == (host, link) else 1


class Network:
    """The root and any number of nodes; ``place`` is the root's policy."""

    def __init__(self, seed: int = 0, place: Placement = stay, grace: float = 15.0) -> None:
        self.now = 0.0
        self.draw = Random(seed)
        self.place = place
        self.grace = grace
        self.hosts: dict[str, Host] = {ROOT_NAME: Host(ROOT_NAME, Role.ROOT)}
        self.blames: list[tuple[str, Blame]] = []
        self.dropped: list[str] = []
        self._connections: dict[tuple[str, int], Connection] = {}
        self._links = itertools.count(1)
        self._order = itertools.count()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._connects: dict[str, int] = {}
        self.start(ROOT_NAME)

    @property
    def root(self) -> RootMember:
        member = self.hosts[ROOT_NAME].member
        assert isinstance(member, RootMember)
        return member

    def branch(self, name: str) -> BranchMember:
        member = self.hosts[name].member
        assert isinstance(member, BranchMember)
        return member

    # What a test does.

    def add(self, name: str, role: Role) -> None:
        self.hosts[name] = Host(name, role)
        self.start(name)

    def start(self, name: str) -> None:
        host = self.hosts[name]
        if host.member is not None:
            return
        host.life += 1
        boot = f"{name}.{host.life}"
        at = Endpoint(name, 1)
        clock = lambda: int(self.now * 1000)  # noqa: E731
        if host.role is Role.ROOT:
            host.member = RootMember(
                name, server=at, boot=boot, place=self.place, grace=self.grace, wall_ms=clock
            )
            return
        server = None if host.role is Role.LEAF else at
        member = BranchMember(
            name,
            host.role,
            (Endpoint(ROOT_NAME, 1),),
            server=server,
            boot=boot,
            wall_ms=clock,
            draw=self.draw,
        )
        host.member = member
        self._do(host, member.start())

    def crash(self, name: str) -> None:
        """Kill -9: the kernel ends its connections, which the others notice."""
        host = self.hosts[name]
        host.member = None
        for connection in self._of(host):
            self._break(connection, silent=False)

    def cut(self, name: str, *, silent: bool) -> None:
        """Break the connections of a node; ``silent``: both sides only notice by silence."""
        for connection in self._of(self.hosts[name]):
            self._break(connection, silent=silent)

    def part(self, name: str) -> None:
        """Cut a node off; nobody reaches it until ``heal``."""
        self.hosts[name].cut_off = True
        self.cut(name, silent=True)

    def heal(self, name: str) -> None:
        self.hosts[name].cut_off = False

    def redirect(self, name: str, parent: str) -> None:
        with suppress(AnabranchError):
            self._do(self.hosts[ROOT_NAME], self.root.redirect(name, parent, "a test", self.now))

    def send(self, name: str, body: Body, to: str | None) -> None:
        host = self.hosts[name]
        if host.member is not None:
            with suppress(AnabranchError):
                self._do(host, host.member.send(body, to, self.now))

    def do(self, name: str, outputs: list[Output]) -> None:
        self._do(self.hosts[name], outputs)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = [
                (timer, host)
                for host in self.hosts.values()
                if host.member is not None and (timer := host.member.next_timer()) is not None
            ]
            timer, host = min(due, key=lambda item: item[0], default=(float("inf"), None))
            first = self._queue[0][0] if self._queue else float("inf")
            if min(timer, first) > end:
                self.now = end
                return
            if timer < first:
                self.now = max(self.now, timer)
                assert host is not None
                assert host.member is not None
                self._do(host, host.member.handle_timer(self.now))
            else:
                self.now, _, action = heapq.heappop(self._queue)
                action()

    # The truth.

    def parents(self) -> dict[str, str]:
        """Return where every living node hangs, as it sees itself."""
        return {
            host.name: host.member.parent
            for host in self.hosts.values()
            if host.member is not None and host.member.parent is not None
        }

    def picture(self) -> dict[str, str]:
        """Return where the root thinks that every node hangs."""
        return {
            place.name: place.parent
            for place in self.root.registry.nodes.values()
            if place.lost is None
        }

    # Within.

    def _at(self, after: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + after, next(self._order), action))

    def _of(self, host: Host) -> list[Connection]:
        found = {
            id(each): each for (name, _), each in self._connections.items() if name == host.name
        }
        return list(found.values())

    def _do(self, host: Host, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Send(link, message):
                    connection = self._connections.get((host.name, link))
                    if connection is not None and connection.open[connection.side(host, link)]:
                        self._carry(connection, connection.side(host, link), encode(message))
                case Establish(link):
                    if (connection := self._connections.get((host.name, link))) is not None:
                        connection.established[connection.side(host, link)] = True
                case Close(link, reason):
                    self.dropped.append(f"{host.name}: {reason}")
                    if (connection := self._connections.get((host.name, link))) is not None:
                        side = connection.side(host, link)
                        connection.open[side] = False
                        self._at(connection.delay, lambda c=connection: self._end(c, "closed"))
                case Connect(targets, after):
                    number = next(self._links)
                    self._connects[host.name] = number
                    life = host.life
                    self._at(
                        after, lambda h=host, t=targets, n=number, le=life: self._dial(h, t, n, le)
                    )
                case Blame():
                    self.blames.append((host.name, output))
                case _:
                    host.events.append(output)
                    if isinstance(output, Deliver):
                        message = output.message
                        host.handled[host.life, message.sender, message.id] += 1

    def _carry(self, connection: Connection, side: int, document: bytes) -> None:
        to = 1 - side

        def arrive() -> None:
            host = connection.ends[to]
            alive = host.member is not None and host.life == connection.lives[to]
            if alive and not connection.broken and connection.open[to]:
                assert host.member is not None
                link = connection.links[to]
                self._do(host, host.member.receive(link, decode(document), self.now))

        self._at(connection.delay, arrive)

    def _dial(self, host: Host, targets: tuple[Target, ...], number: int, life: int) -> None:
        if host.member is None or host.life != life or self._connects.get(host.name) != number:
            return
        member = host.member
        assert isinstance(member, BranchMember)
        for target in targets:
            for at in target.at:
                other = self.hosts.get(at.host)
                if other is None or other.member is None or host.cut_off or other.cut_off:
                    continue
                links = next(self._links), next(self._links)
                connection = Connection((host, other), links, self.draw.uniform(0.001, 0.05))
                self._connections[host.name, links[0]] = connection
                self._connections[other.name, links[1]] = connection
                self._at(GREETING_S, lambda c=connection: self._check(c))
                other.member.accepted(links[1], Identity(host.name, host.role))
                identity = Identity(other.name, other.role)
                self._do(host, member.dialled(links[0], target, identity, self.now))
                return
        self._at(0.01, lambda: self._failed(host, number, life))

    def _failed(self, host: Host, number: int, life: int) -> None:
        if host.life == life and self._connects.get(host.name) == number:
            member = host.member
            if isinstance(member, BranchMember):
                self._do(host, member.failed(self.now))

    def _check(self, connection: Connection) -> None:
        if not all(connection.established):
            self._end(connection, "no HELLO in time")

    def _break(self, connection: Connection, *, silent: bool) -> None:
        connection.broken = True
        after = self.draw.uniform(0, LOST_S) if silent else 0.01
        for side in (0, 1):
            later = self.draw.uniform(0, LOST_S) if silent else 0.0
            self._at(after + later, lambda s=side: self._end_side(connection, s, "lost"))

    def _end(self, connection: Connection, reason: str) -> None:
        for side in (0, 1):
            self._end_side(connection, side, reason)

    def _end_side(self, connection: Connection, side: int, reason: str) -> None:
        host, link = connection.ends[side], connection.links[side]
        if self._connections.pop((host.name, link), None) is None:
            return
        connection.open[side] = False
        if host.member is not None and host.life == connection.lives[side]:
            self._do(host, host.member.lost(link, reason, self.now))
