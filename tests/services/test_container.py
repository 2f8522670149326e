"""A sandbox as its node sees it, without one."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator

import pytest

from anabranch.services.sandbox.container import Sandbox
from anabranch.services.sandbox.spec import decode, encode


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Sandbox, socket.socket]]:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(["sleep", "60"])
    sandbox = Sandbox("alice", ours, lambda _sandbox, _code: None)
    sandbox.pid = process.pid
    try:
        yield sandbox, its
    finally:
        process.kill()
        process.wait()
        sandbox.note_end(-9)
        its.close()


async def test_a_cancellation_that_comes_with_the_answer_counts(
    pair: tuple[Sandbox, socket.socket],
) -> None:
    """Or who keeps asking, such as a node's watch over its sandboxes, cannot be ended."""
    sandbox, its = pair
    asking = asyncio.create_task(sandbox.ask("status", module=""))
    await asyncio.sleep(0)
    question = decode(its.recv(1000))
    its.send(encode({"id": question["id"]}))
    sandbox._read()
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    # an answer that comes later is to nobody, and no babble
    its.send(encode({"id": question["id"]}))
    sandbox._read()
    assert sandbox.running


async def test_one_that_does_not_answer_is_ended(pair: tuple[Sandbox, socket.socket]) -> None:
    sandbox, _ = pair
    with pytest.raises(Exception, match="hangs"):
        await sandbox.ask("status", patience=0.05, module="")
