"""A sandbox as its node sees it, with nobody at the other end."""

import asyncio
import socket

import pytest

from anabranch.services.sandbox.container import Sandbox
from anabranch.services.sandbox.spec import encode

NOBODY = 1 << 30  # above any process number


async def test_who_asks_can_be_cancelled_as_the_answer_comes() -> None:
    """Whoever ends a watch waits for it: one that went on would be waited for, for ever."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        sandbox = Sandbox("alice", ours, lambda *_: None)
        sandbox.pid = NOBODY
        asking = asyncio.create_task(sandbox.ask("status", module=""))
        await asyncio.sleep(0)
        sandbox._answers[1].set_result({})
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        # an answer that comes later is to nobody, and no babble
        its.send(encode({"id": 1}))
        sandbox._read()
        assert sandbox.running
        sandbox.note_end(0)
