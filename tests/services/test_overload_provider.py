"""The receiving entity with a module that reports to it over a real socket."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address

from anabranch.services.errors import ServicesError
from anabranch.services.keys import PrivateKey
from anabranch.services.module import Context
from anabranch.services.modules.overload.control import Load, Thresholds
from anabranch.services.modules.overload.overload import OverloadControl
from anabranch.services.modules.overload.provider import ReceivingEntity, Settings

CALLER = ip_address("192.0.2.9")


class Flooded:
    """A server before which a queue stands."""

    def __init__(self) -> None:
        self.load = Load(100.0, 1.0)
        self.silent = False

    async def measure(self) -> Load:
        if self.silent:
            raise ServicesError("no answer")
        return self.load

    async def callers(self, most: int) -> list:
        return [CALLER]


class Edge:
    """A node that runs the module in this process, or refuses it."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.asked: list[Mapping[str, str]] = []
        self.module: OverloadControl | None = None

    async def install(self, towards: object, properties: Mapping[str, str]) -> None:
        assert towards == CALLER
        self.asked.append(properties)
        if self.refuses:
            raise ServicesError("not here")
        if self.module is None:
            self.module = OverloadControl()
            context = Context("OverloadControl", "1.0.0", "itsp", properties, address="127.0.0.1")
            self.module.configure(context)
            self.module.start()

    async def remove(self, towards: object) -> None:
        assert towards == CALLER
        if self.module is not None:
            self.module.stop()
            self.module = None


@asynccontextmanager
async def running(server: Flooded, edge: Edge, **more: float) -> AsyncIterator[ReceivingEntity]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.setblocking(False)
    listener.bind(("127.0.0.1", 0))
    settings = Settings(listener.getsockname(), PrivateKey.generate(), Thresholds(**more))
    entity = ReceivingEntity(settings, server, edge, listener)
    task = asyncio.create_task(entity.run())
    try:
        yield entity
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition, edge: Edge | None = None) -> None:
    """Wait for a condition; a module has its timer called meanwhile."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        if edge is not None and edge.module is not None:
            edge.module._exchange()
        await asyncio.sleep(0.02)


async def test_a_module_is_had_told_and_removed() -> None:
    server, edge = Flooded(), Edge()
    async with running(server, edge, calm=1.0) as entity:
        await until(lambda: edge.module is not None)
        module = edge.module
        assert module is not None
        await until(lambda: len(entity.entities) == 1, edge)
        rate = entity.controller.rate
        assert rate is not None
        await until(lambda: module.admission.bucket.rate != float(edge.asked[0]["rate"]), edge)
        told = module.admission.bucket.rate
        assert told is not None
        assert 0 < told <= 100.0
        server.load = Load(10.0, 0.0)
        await until(lambda: edge.module is None, edge)
        assert entity.controller.rate is None
        assert len(edge.asked) == 1


async def test_an_edge_that_refuses_is_not_pestered() -> None:
    edge = Edge(refuses=True)
    async with running(Flooded(), edge):
        await until(lambda: edge.asked)
        await asyncio.sleep(0.8)
    assert len(edge.asked) == 1


async def test_a_server_that_is_silent_changes_nothing() -> None:
    server, edge = Flooded(), Edge()
    server.silent = True
    async with running(server, edge) as entity:
        await asyncio.sleep(0.6)
        assert entity.controller.rate is None
        assert edge.asked == []
        entity.take(b"no report", ("127.0.0.1", 1))
