"""A path in memory: sender - node a - plain router - node b - ... - destination; time by hand.

Queries on their way are taken off by the next node, as a real router's diversion does; the
destination answers what it knows nothing of with "port unreachable".
"""

import hashlib
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from pathlib import Path as FilePath
from typing import Any

from anabranch.services.controller.controller import Controller, NoArchiveError
from anabranch.services.controller.runtime import ModuleRequest, RuntimeRefusedError
from anabranch.services.controller.users import User
from anabranch.services.keys import PrivateKey
from anabranch.services.signalling.compose import Author, compose, setup_headers
from anabranch.services.signalling.gist.events import Close, Connect, Datagram, Segment
from anabranch.services.signalling.gist.node import Gist
from anabranch.services.signalling.gist.objects import Stack, Transport
from anabranch.services.signalling.gist.options import GistOptions
from anabranch.services.signalling.message import Method
from anabranch.services.signalling.relay import Relay
from anabranch.services.signalling.sender import Result, Sender

SENDER, DESTINATION = ip_address("192.0.2.1"), ip_address("198.51.100.9")
WALL = 1_800_000_000.0
KEY = PrivateKey.generate()
JANE = Author("janedoe", KEY)
ARCHIVE = b"an archive"
DIGEST = hashlib.sha256(ARCHIVE).digest()
NET = "NetServ.apps.NetMonitor_1.0.0"
STACK = Stack(((Transport.TCP,),), port=270, hold_time=90_000)


class Runtime:
    """Records what it is asked for."""

    def __init__(self) -> None:
        self.building_blocks = {"netserv.timers": "1.2"}
        self.capabilities = {"planes": "memory"}
        self.installed: dict[tuple[str, str], ModuleRequest] = {}
        self.calls: list[str] = []
        self.refuses: RuntimeRefusedError | None = None

    async def install(self, user: User, module: ModuleRequest) -> dict[str, str]:
        if self.refuses:
            raise self.refuses
        self.calls.append(f"install {module.name}")
        self.installed[user.name, module.name] = module
        return {"listens": "80"}

    async def remove(self, user: User, name: str) -> None:
        if self.refuses:
            raise self.refuses
        self.calls.append(f"remove {name}")
        self.installed.pop((user.name, name), None)

    async def status(self, user: User, name: str) -> dict[str, str]:
        return {"state": "running"}


class World:
    """Archives, routability and notification."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.proved: list[tuple[str, str]] = []
        self.notified: list[dict[str, str]] = []
        self.unprovable: Exception | None = None

    async def get(self, url: str, digest: bytes) -> FilePath:
        self.fetched.append(url)
        if digest != DIGEST:
            raise NoArchiveError("it is another archive")
        return FilePath("/archive")

    async def prove(self, address: Any, password: str, signature: bytes, node_id: str) -> None:
        if self.unprovable:
            raise self.unprovable
        self.proved.append((str(address), node_id))

    def notify(self, url: str, values: dict[str, str]) -> None:
        self.notified.append({"url": url, **values})


def jane(**settings: Any) -> User:
    given = {"name": "janedoe", "public_key": KEY.public, "filter_prefixes": ["192.0.2.0/24"]}
    return User.model_validate(given | settings)


@dataclass
class Node:
    """A place on the path; ``relay`` is missing at the sender."""

    name: str
    place: int
    address: IPv4Address
    gist: Gist
    sender: Sender | None = None
    relay: Relay | None = None
    controller: Controller | None = None
    runtime: Runtime = field(default_factory=Runtime)
    world: World = field(default_factory=World)
    acting: bool = True


class Path:
    """Everything between :data:`SENDER` and :data:`DESTINATION`."""

    def __init__(
        self,
        names: str = "ab",
        *,
        loses: Callable[[int, Datagram], bool] = lambda number, datagram: False,
        unreachable: bool = True,
        stack: Stack | None = None,
        refresh: float = 120.0,
        users: dict[str, dict[str, User]] | None = None,
        **limits: int,
    ) -> None:
        self.now = 1000.0
        self.random = random.Random(1)
        self.loses, self.unreachable = loses, unreachable
        self.sent: list[tuple[str, Datagram]] = []
        self.connections: dict[tuple[str, int], tuple[str, int]] = {}
        self.cut: set[str] = set()
        self.options = GistOptions(refresh=refresh, stack=stack, **limits)
        self.nodes: dict[str, Node] = {}
        users = users or {}
        self._add("s", 0, SENDER)
        for index, name in enumerate(names, 1):
            address = ip_address(f"203.0.113.{index}")
            self._add(name, index, address, users.get(name, {"janedoe": jane()}))
        self.end = len(names) + 1

    def _add(self, name: str, place: int, address: Any, users: Any = None) -> None:
        gist = Gist(
            name.encode(),
            self.options,
            address_towards=lambda peer: address,
            random=self.random.randbytes,
            responder=users is not None,
        )
        node = self.nodes[name] = Node(name, place, address, gist)
        if users is None:
            node.sender = Sender(gist, self.random.randbytes)
            return
        node.controller = Controller(
            name,
            users,
            node.runtime,
            node.world,
            node.world,
            clock=lambda: self.now,
            wall_clock=lambda: WALL + self.now - 1000.0,
            address_towards=lambda peer: address,
        )
        node.relay = Relay(gist, node.controller, self.random.randbytes)

    # Packets

    def settle(self) -> None:
        """Carry everything that is on its way, at this moment."""
        moved = True
        while moved:
            moved = False
            for node in self.nodes.values():
                moved |= self._step(node)

    def _step(self, node: Node) -> bool:
        if node.sender:
            node.sender.process(self.now)
        elif node.relay and node.controller:
            node.relay.process(self.now)
            while node.acting and node.relay.acts:
                act = node.relay.acts.popleft()
                outcome = run(node.controller.act(act.request, act.session, act.origin))
                node.relay.acted(act.transaction, outcome.hop, self.now, ttl=outcome.ttl)
                if outcome.ended:
                    request = act.request
                    node.relay.let_go(outcome.ended, request.user, request.name, self.now)
        moved = bool(node.gist.outputs)
        while node.gist.outputs:
            output = node.gist.outputs.popleft()
            match output:
                case Datagram():
                    self._carry(node, output)
                case Connect(number, address, _, _):
                    self._connect(node, number, address)
                case Segment(number, data):
                    self._segment(node, number, data)
                case Close(number):
                    self._close(node, number)
        return moved

    def _carry(self, node: Node, datagram: Datagram) -> None:
        self.sent.append((node.name, datagram))
        if self.loses(len(self.sent), datagram):
            return
        address, port = datagram.destination
        source = datagram.source or (node.address, 270 if node.relay else 40000)
        goal = next((n.place for n in self.nodes.values() if n.address == address), self.end)
        step = 1 if goal > node.place else -1
        for place in range(node.place + step, goal + step, step):
            here = next((n for n in self.nodes.values() if n.place == place), None)
            if here is None or here.name in self.cut:
                continue
            if (port == 270 and here.relay) or here.address == address:
                here.gist.receive_datagram(
                    datagram.data,
                    source,
                    datagram.destination,
                    self.now,
                    local=here.address == address,
                    ttl=datagram.ttl or 64,
                )
                return
        if goal == self.end and self.unreachable and datagram.source is None:
            node.gist.handle_unreachable(address, datagram.data[:540], self.now)

    def _connect(self, node: Node, number: int, address: Any) -> None:
        there = next(n for n in self.nodes.values() if n.address == address)
        other = there.gist.associations.accept(self.now)
        if there.name in self.cut or other is None:
            node.gist.associations.closed(number)
            return
        self.connections[node.name, number] = (there.name, other)
        self.connections[there.name, other] = (node.name, number)
        node.gist.associations.opened(number, self.now)

    def _segment(self, node: Node, number: int, data: bytes) -> None:
        name, other = self.connections[node.name, number]
        for begin in range(0, len(data), 100):
            there = self.nodes[name].gist
            there.receive_segment(other, node.address, data[begin : begin + 100], self.now)

    def _close(self, node: Node, number: int) -> None:
        there = self.connections.pop((node.name, number), None)
        if there is None:
            return  # both closed it at once
        name, other = there
        del self.connections[there]
        self.nodes[name].gist.associations.closed(other)

    # Time

    def run(self, seconds: float) -> None:
        """Let time pass, from timer to timer."""
        until = self.now + seconds
        self.settle()
        while True:
            times = [t for node in self.nodes.values() for t in self._timers(node) if t is not None]
            if min(times, default=until) >= until:
                break
            self.now = max(self.now, min(times))
            for node in self.nodes.values():
                node.gist.handle_timer(self.now)
                if node.sender:
                    node.sender.handle_timer(self.now)
                if node.relay and node.controller:
                    node.relay.handle_timer(self.now)
                    for module in run(node.controller.expire(self.now)):
                        place = (module.session, module.user, module.name)
                        node.relay.let_go(*place, self.now)
            self.settle()
        self.now = until

    def _timers(self, node: Node) -> list[float | None]:
        times = [node.gist.next_timer()]
        if node.sender:
            times.append(node.sender.next_timer())
        if node.relay and node.controller:
            times += [node.relay.next_timer(), node.controller.modules.next_expiry()]
        return times

    # What a sender does

    def ask(self, data: bytes, *, session: bytes | None = None, seconds: float = 60.0) -> Result:
        """Send a request and return how it ended."""
        reference, _ = self.begin(data, session=session)
        sender = self.nodes["s"].sender
        assert sender
        self.settle()
        for _ in range(int(seconds * 10)):
            if reference in sender.results:
                break
            self.run(0.1)
        return sender.results.pop(reference)

    def begin(self, data: bytes, *, session: bytes | None = None) -> tuple[str, bytes]:
        sender = self.nodes["s"].sender
        assert sender
        session = session or sender.open(SENDER, DESTINATION)
        return sender.send(session, data, self.now), session

    def message(self, method: Method, name: str = NET, author: Author = JANE, **more: Any) -> bytes:
        """Return a signed request; a SETUP has what it needs."""
        headers: dict[str, str | None] = {k.replace("_", "-"): v for k, v in more.items()}
        if method is Method.SETUP:
            headers = setup() | headers
        return compose(
            author,
            method,
            name,
            headers,
            wall_time=WALL + self.now - 1000.0,
            nonce=self.random.randbytes(16),
        )


def setup() -> dict[str, str | None]:
    return setup_headers("http://192.0.2.1/net.zip", DIGEST, 600)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing to its end."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")
