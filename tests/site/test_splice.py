"""Doors between machines: who comes through, and what."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

from anabranch.site.splice import InDoor, OutDoor
from anabranch.tree.certificates import Authority, Credentials, client_context, server_context
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity

LOOPBACK = IPv4Address("127.0.0.1")


def credentials(directory: Path, authority: Authority, name: str, role: Role) -> Credentials:
    made = Credentials(directory / f"{authority.fingerprint[:6]}-{name}")
    authority.provide(made, name, role)
    return made


@asynccontextmanager
async def echo(path: Path) -> AsyncIterator[None]:
    """A program at a Unix socket that says everything twice."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data * 2)
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield
    finally:
        server.close()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def doors(
    directory: Path, *, inner: str = "far", outer: str = "far", foreign: bool = False
) -> AsyncIterator[Path]:
    """Give the Unix socket that leads to the program; ``inner`` is who is really there."""
    authority = Authority.open(directory / "authority.pem")
    other = Authority.open(directory / "other.pem") if foreign else authority
    listening = socket.create_server(("127.0.0.1", 0))
    into = InDoor(lambda who: directory / "echo" if who.role is Role.ROOT else None)
    await into.open(listening, server_context(credentials(directory, authority, inner, Role.LEAF)))
    root = credentials(directory, other, "root", Role.ROOT)
    out = OutDoor(outer, (LOOPBACK, listening.getsockname()[1]), _socket, client_context(root))
    await out.open(directory / "way")
    try:
        async with echo(directory / "echo"):
            yield directory / "way"
    finally:
        await out.close()
        await into.close()


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    return made


async def said(path: Path, words: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(words)
    try:
        async with asyncio.timeout(10):
            return await reader.read(2 * len(words))
    finally:
        writer.close()


async def test_what_is_said_passes_both_ways(tmp_path: Path) -> None:
    async with doors(tmp_path) as way:
        assert (way.stat().st_mode & 0o777) == 0o600
        assert await said(way, b"hello") == b"hellohello"


async def test_who_is_not_the_one_that_was_wanted_is_hung_up_on(tmp_path: Path) -> None:
    async with doors(tmp_path, inner="somebody-else") as way:
        assert await said(way, b"hello") == b""


async def test_another_sites_root_is_not_let_in(tmp_path: Path) -> None:
    async with doors(tmp_path, foreign=True) as way:
        assert await said(way, b"hello") == b""


async def test_a_node_that_is_not_the_root_reaches_nothing(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path / "authority.pem")
    listening = socket.create_server(("127.0.0.1", 0))
    asked: list[Identity] = []

    def nowhere(who: Identity) -> None:
        asked.append(who)

    door = InDoor(nowhere)
    await door.open(listening, server_context(credentials(tmp_path, authority, "far", Role.LEAF)))
    relay = client_context(credentials(tmp_path, authority, "relay", Role.RELAY))
    reader, writer = await asyncio.open_connection(
        *listening.getsockname(), ssl=relay, server_hostname=""
    )
    assert await reader.read() == b""
    writer.close()
    await door.close()
    assert [(who.name, who.role) for who in asked] == [("relay", Role.RELAY)]


async def test_nobody_there_ends_the_connection(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path / "authority.pem")
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    context = client_context(credentials(tmp_path, authority, "root", Role.ROOT))
    door = OutDoor("far", (LOOPBACK, port), _socket, context)
    await door.open(tmp_path / "way")
    assert await said(tmp_path / "way", b"hello") == b""
    await door.close()
