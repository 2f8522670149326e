"""Many soft switches in one process, each with a connection of its own to a controller."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.messages import VERSIONS
from anabranch.fabric.softswitch.agent import Channel, SwitchAgent
from anabranch.fabric.softswitch.network import SoftNetwork
from anabranch.fabric.softswitch.switch import Emission

_FIRST_DELAY, _MAX_DELAY = 0.1, 2.0
_AT_ONCE = 64  # connections being made; more overflow the backlog of a listener


class Farm:
    """The switches of ``network``, dialling a controller again and again.

    Args:
        network: the switches and their links; the farm takes them over.
        target: ``tcp:<address>:<port>``, or ``unix:<path>``, in which ``{name}`` is the switch's.
        on_frame: gets what leaves by a port without link; must not block.
        on_state: called when a switch's connection came up (True) or went away; must not block.
        versions: OpenFlow wire versions that the switches speak.

    Raises:
        MisuseError: the target is none.
    """

    def __init__(
        self,
        network: SoftNetwork,
        target: str,
        *,
        on_frame: Callable[[PortRef, bytes], None] | None = None,
        on_state: Callable[[str, bool], None] | None = None,
        versions: frozenset[int] = VERSIONS,
    ) -> None:
        self._kind, _, self._address = target.partition(":")
        host, _, port = self._address.rpartition(":")
        if self._kind == "tcp" and host and port.isdecimal():
            self._host, self._port = host, int(port)
        elif self._kind != "unix" or not self._address:
            raise MisuseError(f"{target[:100]!r} is neither tcp:<address>:<port> nor unix:<path>")
        self.network = network
        self.agents = {
            name: SwitchAgent(switch, versions) for name, switch in network.switches.items()
        }
        self._on_frame = on_frame or (lambda ref, frame: None)
        self._on_state = on_state or (lambda name, up: None)
        self._connections: dict[str, _Connection] = {}
        self._dialling = asyncio.Semaphore(_AT_ONCE)
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connected(self) -> int:
        """How many switches a controller knows now."""
        return sum(connection.up for connection in self._connections.values())

    async def start(self) -> None:
        """Begin to dial."""
        self._loop = asyncio.get_running_loop()
        for name in self.agents:
            self._tasks.append(asyncio.create_task(self._keep(name), name=f"soft switch {name}"))

    async def close(self) -> None:
        """Close all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._timer is not None:
            self._timer.cancel()

    def send(self, at: PortRef, frame: bytes) -> None:
        """Let a frame enter by a port."""
        self._carried(self.network.send(at, frame, self._loop.time(), self._process))

    def set_link(self, end: PortRef, up: bool) -> None:
        """Let a link go down or come up; the controller hears of both ports."""
        self.network.set_link(end, up)
        self._tell()

    def set_port(self, at: PortRef, up: bool) -> None:
        """Let one port go down or come up."""
        self.network.switches[at.switch].set_port(at.port_no, up)
        self._tell()

    def disconnect(self, name: str) -> None:
        """Cut a switch's connection off; it dials again at once."""
        connection = self._connections.get(name)
        if connection is not None:
            connection.abort()

    # inside

    async def _keep(self, name: str) -> None:
        delay = _FIRST_DELAY
        while True:
            connection = _Connection(self, name)
            with suppress(OSError):
                async with self._dialling:
                    await self._dial(connection, name)
                    # The next begins when this one's handshake is over, not all at once.
                    await asyncio.wait({connection.ready}, timeout=_MAX_DELAY)
            if connection.transport is not None:
                try:
                    await asyncio.shield(connection.closed)
                finally:
                    connection.abort()
                if connection.up:
                    connection.up = False
                    self._on_state(name, False)
                    delay = _FIRST_DELAY
            await asyncio.sleep(delay)
            delay = min(2 * delay, _MAX_DELAY)

    async def _dial(self, connection: "_Connection", name: str) -> None:
        if self._kind == "tcp":
            await self._loop.create_connection(lambda: connection, self._host, self._port)
        else:
            path = self._address.replace("{name}", name)
            await self._loop.create_unix_connection(lambda: connection, path)

    def opened(self, connection: "_Connection") -> Channel:
        """Take note of a connection and return its channel."""
        self._connections[connection.name] = connection
        return self.agents[connection.name].connect()

    def received(self, connection: "_Connection", data: bytes) -> None:
        """Hand bytes from a controller to the switch and carry what it emits."""
        name, now = connection.name, self._loop.time()
        try:
            emitted = connection.channel.receive(data, now)
        except ProtocolError:
            connection.flush()
            connection.abort()
            return
        if connection.channel.up and not connection.up:
            connection.up = True
            self._on_state(name, True)
        connection.flush()
        if emitted:
            self._carried(self.network.carry(name, emitted, now, self._process))
        self._tell(name)

    def _process(self, name: str, in_port: int, frame: bytes, now: float) -> list[Emission]:
        emitted = self.agents[name].process(in_port, frame, now)
        self._flush(name)
        return emitted

    def _carried(self, left: list[tuple[PortRef, bytes]]) -> None:
        for ref, frame in left:
            self._on_frame(ref, frame)

    def _tell(self, *names: str) -> None:
        for name in names or self.agents:
            self.agents[name].tell()
            self._flush(name)
            self._schedule(name)

    def _flush(self, name: str) -> None:
        connection = self._connections.get(name)
        if connection is not None:
            connection.flush()

    def _schedule(self, name: str) -> None:
        due = self.agents[name].switch.next_timer()
        if due is not None and (self._timer is None or due < self._timer.when()):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        for name, agent in self.agents.items():
            due = agent.switch.next_timer()
            if due is not None and due <= now:
                agent.handle_timer(now)
                self._flush(name)
            self._schedule(name)


class _Connection(asyncio.Protocol):
    """One switch's connection; ``ready`` when the controller knows it, or it is closed."""

    def __init__(self, farm: Farm, name: str) -> None:
        self.name = name
        self.up = False
        self.transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.ready: asyncio.Future[None] = loop.create_future()
        self._farm = farm
        self.channel: Channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.channel = self._farm.opened(self)
        self.flush()

    def data_received(self, data: bytes) -> None:
        self._farm.received(self, data)
        if self.up and not self.ready.done():
            self.ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.channel.close()
        for future in (self.closed, self.ready):
            if not future.done():
                future.set_result(None)

    def flush(self) -> None:
        if self.transport is not None and (data := self.channel.data_to_send()):
            self.transport.write(data)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.close()
