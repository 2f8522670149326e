"""What a controller of its own answers to its director."""

import asyncio
import json
from collections.abc import AsyncGenerator

from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute

from anabranch.console.control import make_control
from anabranch.core.events import Event
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.options import Options


async def stream(fabric: Fabric) -> AsyncGenerator[bytes, None]:
    router = make_control(fabric, lambda: True)
    (route,) = (it for it in router.routes if isinstance(it, APIRoute) and "events" in it.path)
    answer = await route.endpoint()
    assert isinstance(answer, StreamingResponse)
    assert isinstance(answer.body_iterator, AsyncGenerator)
    return answer.body_iterator


async def test_no_event_is_lost_once_the_stream_is_open() -> None:
    fabric = Fabric(Options(), lambda _: None)
    lines = await stream(fabric)
    assert json.loads(await anext(lines)) == {"active": True}
    for subject in ("one", "two"):
        fabric.publish(Event("link.down", subject))
    async with asyncio.timeout(5):
        found = [json.loads(await anext(lines)) for _ in range(2)]
    assert [(line["kind"], line["subject"], line["active"]) for line in found] == [
        ("link.down", "one", True),
        ("link.down", "two", True),
    ]
    await lines.aclose()
    assert not fabric.announcements._bus._queues


async def test_a_stream_that_is_left_at_once_leaves_nothing() -> None:
    fabric = Fabric(Options(), lambda _: None)
    lines = await stream(fabric)
    await anext(lines)
    assert fabric.announcements._bus._queues
    await lines.aclose()
    assert not fabric.announcements._bus._queues
