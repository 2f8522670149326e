"""What a switch says, byte by byte or captured from Open vSwitch 3.1; a fabric of soft switches."""

import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.fabric.triangle import World

from anabranch.fabric.fabric import Fabric


class Speech:
    """Messages of a switch, written by hand from the specification: no codec of ours in it."""

    @staticmethod
    def message(kind: int, body: bytes = b"", *, xid: int = 0, version: int = 4) -> bytes:
        return struct.pack("!BBHI", version, kind, 8 + len(body), xid) + body

    @classmethod
    def hello(cls, *versions: int) -> bytes:
        bitmap = struct.pack("!HHI", 1, 8, sum(1 << version for version in versions))
        return cls.message(0, bitmap, version=max(versions))

    @classmethod
    def features(cls, dpid: int, xid: int, *, version: int = 4) -> bytes:
        body = struct.pack("!QIBB2xII", dpid, 0, 254, 0, 0x4F, 0)
        return cls.message(6, body, xid=xid, version=version)

    @staticmethod
    def port(port_no: int, name: str, *, down: bool = False, version: int = 4) -> bytes:
        mac = b"\x02\0\0\0\0" + bytes([port_no])
        if version > 4:
            head = struct.pack("!IH2x6s2x16sII", port_no, 72, mac, name.encode(), 0, int(down))
            return head + struct.pack("!HH4x6I", 0, 32, 0, 0, 0, 0, 0, 0)
        return struct.pack(
            "!I4x6s2x16s8I", port_no, mac, name.encode(), 0, int(down), 0, 0, 0, 0, 0, 0
        )

    @classmethod
    def multipart(
        cls, kind: int, body: bytes, xid: int, *, more: bool = False, version: int = 4
    ) -> bytes:
        head = struct.pack("!HH4x", kind, more)
        return cls.message(19, head + body, xid=xid, version=version)

    @classmethod
    def port_status(cls, reason: int, port: bytes) -> bytes:
        return cls.message(12, struct.pack("!B7x", reason) + port)

    @classmethod
    def error(cls, kind: int, code: int, xid: int, data: bytes = b"", *, version: int = 4) -> bytes:
        return cls.message(1, struct.pack("!HH", kind, code) + data, xid=xid, version=version)

    @staticmethod
    def split(data: bytes) -> list[tuple[int, int, bytes]]:
        """Return the messages in ``data`` as type, xid, body."""
        messages = []
        while data:
            _, kind, length, xid = struct.unpack_from("!BBHI", data)
            messages.append((kind, xid, data[8:length]))
            data = data[length:]
        return messages


@pytest.fixture(scope="session")
def speech() -> type[Speech]:
    return Speech


@pytest.fixture(scope="session")
def captures() -> dict[str, bytes]:
    """Message name to its bytes, as Open vSwitch sent it."""
    lines = Path(__file__).with_name("captures.txt").read_text().splitlines()
    return {name: bytes.fromhex(raw) for name, raw in map(str.split, lines)}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.farm.start()
    yield made
    await made.farm.close()


@pytest.fixture
async def fabric(world: World) -> AsyncIterator[Fabric]:
    async with world.run() as made:
        yield made
