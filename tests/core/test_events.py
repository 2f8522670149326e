"""The event bus: whoever does not read loses its own oldest events, counted, and nobody else's."""

import asyncio
from collections.abc import AsyncGenerator

from hypothesis import given
from hypothesis import strategies as st

from anabranch.core.events import Event, EventBus


def numbered(number: int) -> Event:
    return Event("test.happened", str(number))


async def begun(bus: EventBus) -> tuple[AsyncGenerator[Event, None], "asyncio.Task[Event]"]:
    """Subscribe, and wait for the first event in a task."""
    stream = bus.subscribe()
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    return stream, first


async def test_a_slow_subscriber_loses_its_oldest_only() -> None:
    bus = EventBus(queue_size=3)
    slow, slow_first = await begun(bus)
    quick, quick_first = await begun(bus)
    bus.publish(numbered(0))
    assert (await slow_first).subject == (await quick_first).subject == "0"
    for number in range(1, 8):
        bus.publish(numbered(number))
        assert (await anext(quick)).subject == str(number)
    assert [(await anext(slow)).subject for _ in range(3)] == ["5", "6", "7"]
    assert bus.discarded == 4
    await slow.aclose()
    await quick.aclose()
    assert not bus._queues


async def test_a_subscriber_that_is_cancelled_leaves_nothing() -> None:
    bus = EventBus()
    _, waiting = await begun(bus)
    assert len(bus._queues) == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not bus._queues
    bus.publish(numbered(1))
    assert bus.discarded == 0


async def test_nobody_need_listen() -> None:
    bus = EventBus()
    for number in range(600):
        bus.publish(numbered(number))
    assert bus.discarded == 0


@given(st.integers(1, 8), st.lists(st.booleans(), max_size=60))
def test_what_is_read_and_what_is_counted_is_all_there_was(size: int, steps: list[bool]) -> None:
    """True publishes, False reads what is there: each event is read once, in order, or counted."""

    async def play() -> None:
        bus = EventBus(queue_size=size)
        stream, waiting = await begun(bus)
        published, read = 0, []
        for publish in [*steps, *[False] * (size + 1)]:
            if publish:
                bus.publish(numbered(published))
                published += 1
                continue
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if waiting.done():
                read.append(int(waiting.result().subject))
                waiting = asyncio.ensure_future(anext(stream))
                await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert read == sorted(set(read))
        assert len(read) + bus.discarded == published

    asyncio.run(play())
