"""Sockets on their way from the director to the encoder's worker."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from anabranch.media.encoder_worker.handover import MAX_STREAMS, take_sockets
from anabranch.media.errors import EncoderError
from anabranch.media.relay import Relay, bind


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[socket.socket]:
    """A worker's listening socket."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.bind(str(tmp_path / "r"))
    made.listen(1)
    made.settimeout(5)
    yield made
    made.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_what_comes_from_then_on_is_read_there(worker: socket.socket) -> None:
    high, low = bind(0), bind(0)
    port = low.getsockname()[1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gate:
        gate.sendto(b"old", ("127.0.0.1", port))
        relay = Relay({"high": high, "low": low})
        relay.connect(Path(worker.getsockname()))
        connection, _ = worker.accept()
        taken = take_sockets(connection, ("high", "low"))
        assert taken is not None
        assert list(taken) == ["high", "low"]
        there = socket.socket(fileno=taken["low"])
        there.settimeout(5)
        gate.sendto(b"new", ("127.0.0.1", port))
        assert there.recv(100) == b"new"
    closing = asyncio.create_task(relay.close())
    assert await asyncio.to_thread(connection.recv, 100) == b'{"end": true}', "it is told"
    assert not closing.done(), "and waited for"
    there.close()
    os.close(taken["high"])
    connection.close()
    await closing
    bind(port).close()  # it is free
    await relay.close()


async def test_the_next_life_of_a_worker_gets_them_too(worker: socket.socket) -> None:
    relay = Relay({"high": bind(0)})
    for _ in range(2):
        relay.connect(Path(worker.getsockname()))
        connection, _ = worker.accept()
        for fd in (take_sockets(connection, ("high", "low")) or {}).values():
            os.close(fd)
        connection.close()
    await relay.close()


async def test_after_another_director_a_worker_keeps_them_and_its_next_life_gets_others(
    worker: socket.socket,
) -> None:
    with bind(0) as free:
        port = free.getsockname()[1]
    relay = Relay.kept()
    relay.ports = {"high": port}
    relay.connect(Path(worker.getsockname()))
    connection, _ = worker.accept()
    assert take_sockets(connection, ("high",)) is None
    connection.close()
    relay.connect(Path(worker.getsockname()))
    connection, _ = worker.accept()
    taken = take_sockets(connection, ("high",))
    assert taken is not None
    there = socket.socket(fileno=taken["high"])
    assert there.getsockname()[1] == port
    there.close()
    connection.close()
    await relay.close()
    bind(port).close()


async def test_without_a_worker_there_is_an_error(tmp_path: Path) -> None:
    before = descriptors()
    relay = Relay({"high": bind(0)})
    with pytest.raises(EncoderError, match="does not take"):
        relay.connect(tmp_path / "nobody")
    await relay.close()
    assert descriptors() == before


def test_a_taken_port_is_an_error() -> None:
    with bind(0) as first, pytest.raises(OSError, match="in use"):
        bind(first.getsockname()[1])


@pytest.mark.parametrize(
    "message",
    [b"", b"{}", b"[]", b"nonsense", b'{"streams": 5}', b"\xff\xff", b'{"streams": ["a"]}',
     b'{"streams": ["a", "a"]}', b'{"streams": ["a", "x"]}', b'{"streams": [[1], [2]]}'],
)  # fmt: skip
def test_nonsense_leaves_nothing_open(message: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, bind(0) as first, bind(0) as second:
        before = descriptors()
        socket.send_fds(theirs, [message or b" "], [first.fileno(), second.fileno()])
        with pytest.raises(ValueError, match="not understood"):
            take_sockets(ours, ("a", "b", "c"))
        assert descriptors() == before
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ValueError, match="not understood"):
            take_sockets(ours, ("a", "b", "c"))
    assert MAX_STREAMS >= 9
