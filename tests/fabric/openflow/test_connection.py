"""One connection over a real socket; the switch is a script that speaks with our codec."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.waiting import until

from anabranch.fabric.errors import DisconnectedError, FabricError
from anabranch.fabric.openflow.actions import NO_BUFFER, Output
from anabranch.fabric.openflow.codec import Framer, decode, encode
from anabranch.fabric.openflow.connection import Connection
from anabranch.fabric.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    BundleAdd,
    BundleControl,
    BundleType,
    Command,
    ControllerRole,
    Error,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    Hello,
    Message,
    MultipartReply,
    MultipartRequest,
    MultipartType,
    PacketIn,
    PacketOut,
    Port,
    RoleReply,
    RoleRequest,
)
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.openflow.session import Refused, SessionEvent, SwitchUp

PORT = Port(1, "02:00:00:00:00:01", "p1")
FRAME = PacketIn(NO_BUFFER, 5, 0, 0, 0, Match(in_port=1), b"frame")


class Switch:
    """Answers what a controller asks; ``generation`` is the newest that it has heard of."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.generation = 0
        self.heard: list[Message] = []
        self.silent = False
        self._framer = Framer()
        self._writer: asyncio.StreamWriter | None = None

    async def run(self, path: Path) -> None:
        reader, self._writer = await asyncio.open_unix_connection(str(path))
        self.send(Hello(frozenset({self.version}), self.version))
        while data := await reader.read(65536):
            for raw in self._framer.feed(data):
                message = decode(raw)
                self.heard.append(message)
                answer = None if self.silent else self.answer(message)
                if answer is not None:
                    self.send(replace(answer, xid=message.xid))
        self._writer.close()

    def send(self, message: Message) -> None:
        assert self._writer is not None
        self._writer.write(encode(message, self.version))

    def answer(self, message: Message) -> Message | None:
        match message:
            case FeaturesRequest():
                return FeaturesReply(0xAB, 0, 254, 0, 0)
            case MultipartRequest(type=MultipartType.PORT_DESC):
                return MultipartReply(MultipartType.PORT_DESC, (PORT,))
            case MultipartRequest():
                return Error(1, 2)
            case BarrierRequest():
                return BarrierReply()
            case RoleRequest(role=role, generation_id=generation):
                if generation < self.generation:
                    return Error(11, 0)
                self.generation = generation
                return RoleReply(role, generation)
            case BundleControl(bundle_id=bundle_id, type=kind):
                if bundle_id > 9:
                    return Error(17, 5) if self.version > 4 else Error(0xFFFF, 2305)
                return BundleControl(bundle_id, BundleType(kind + 1))
            case _:
                return None


class Peers:
    """A connection, its switch, and what the connection has reported."""

    def __init__(self, version: int, timeout: float) -> None:
        self.events: list[SessionEvent] = []
        self.reasons: list[FabricError] = []
        self.switch = Switch(version)
        self.connection = Connection(
            "leaf",
            lambda _, event: self.events.append(event),
            lambda _, reason: self.reasons.append(reason),
            timeout,
        )


@asynccontextmanager
async def connected(path: Path, version: int = 4, timeout_s: float = 2.0) -> AsyncIterator[Peers]:
    peers = Peers(version, timeout_s)
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: peers.connection, str(path))
    switch = asyncio.create_task(peers.switch.run(path))
    try:
        await until(lambda: bool(peers.events))
        yield peers
    finally:
        server.close()
        peers.connection.close(DisconnectedError("done"))
        await peers.connection.closed
        await switch


@pytest.mark.parametrize("version", [4, 5, 6])
async def test_a_role_is_given_or_refused(tmp_path: Path, version: int) -> None:
    async with connected(tmp_path / "s", version) as peers:
        up = peers.events.pop()
        assert up == SwitchUp(0xAB, 254, (PORT,), version)
        assert peers.connection.version == version
        reply = await peers.connection.set_role(ControllerRole.MASTER, 7)
        assert (reply.role, reply.generation_id) == (ControllerRole.MASTER, 7)
        with pytest.raises(FabricError, match="leaf refused role master: stale generation id"):
            await peers.connection.set_role(ControllerRole.MASTER, 6)
        assert [type(event) for event in peers.events] == [Refused]


@pytest.mark.parametrize("version", [4, 5, 6])
async def test_a_bundle_is_committed_as_a_whole(tmp_path: Path, version: int) -> None:
    async with connected(tmp_path / "s", version) as peers:
        peers.events.clear()
        connection = peers.connection
        mod = FlowMod(Command.ADD, Match(in_port=1), priority=3)
        connection.send(BundleControl(5, BundleType.OPEN_REQUEST, 3), "bundle 5")
        xid = connection.send(BundleAdd(5, 3, mod), "a rule")
        await connection.commit(5, 3)
        heard = [one for one in peers.switch.heard if isinstance(one, BundleControl | BundleAdd)]
        assert [type(one) for one in heard] == [BundleControl, BundleAdd, BundleControl]
        assert heard[1] == BundleAdd(5, 3, replace(mod, xid=xid), xid=xid)
        assert peers.events == []
        with pytest.raises(FabricError, match=r"refused bundle 10: too many bundles \(error type"):
            await connection.commit(10, 3)


async def test_the_hot_hook_answers_before_anybody_else_sees_a_packet(tmp_path: Path) -> None:
    reply = encode(PacketOut(b"reply", (Output(1),)))
    async with connected(tmp_path / "s") as peers:
        peers.events.clear()
        peers.connection.hot = lambda raw: reply if raw.endswith(b"frame") else None
        assert peers.connection.hot is not None
        peers.switch.send(FRAME)
        peers.switch.send(replace(FRAME, data=b"other"))
        await until(lambda: isinstance(peers.switch.heard[-1], PacketOut))
        await until(lambda: bool(peers.events))
        assert decode(reply) in peers.switch.heard
        assert peers.events == [replace(FRAME, data=b"other")]


async def test_a_refused_question_is_an_error_with_words(tmp_path: Path) -> None:
    async with connected(tmp_path / "s") as peers:
        assert await peers.connection.ask(MultipartRequest(MultipartType.PORT_DESC)) == (PORT,)
        with pytest.raises(FabricError, match="refused group desc request: unknown multipart type"):
            await peers.connection.ask(MultipartRequest(MultipartType.GROUP_DESC))


async def test_a_switch_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    async with connected(tmp_path / "s", timeout_s=0.05) as peers:
        peers.switch.silent = True
        with pytest.raises(FabricError, match=r"leaf did not answer within 0\.05 s"):
            await peers.connection.set_role(ControllerRole.EQUAL, 1)
        await peers.connection.closed
        for request in (
            peers.connection.barrier(),
            peers.connection.commit(1, 0),
            peers.connection.set_role(ControllerRole.EQUAL, 2),
        ):
            with pytest.raises(DisconnectedError):
                await request
        assert len(peers.reasons) == 1
