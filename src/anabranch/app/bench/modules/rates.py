"""How many packets a second come through."""

import asyncio
import time
from collections.abc import Callable

from anabranch.app.bench.modules.latency import Frames
from anabranch.app.bench.modules.traffic import send
from anabranch.app.bench.modules.world import World

_SENDER_CORE = 0
_WARM_UP_S = 0.5
_PATIENCE = 10  # seconds for the sender to begin


async def rate_of(
    world: World, frames: Frames, count: Callable[[], int], seconds: float = 2, rate: float = 0
) -> float:
    """Send for a while and return how many packets a second came, once it runs.

    Args:
        count: returns how many have come so far.
        rate: packets/s that are sent; 0: as many as can be.
    """
    sending = asyncio.create_task(
        send(world, frames, seconds + 2 * _WARM_UP_S + 1.0, rate=rate, core=_SENDER_CORE)
    )
    before = count()
    for _ in range(_PATIENCE * 50):
        if count() != before or sending.done():
            break
        await asyncio.sleep(0.02)
    await asyncio.sleep(_WARM_UP_S)
    began, first = time.perf_counter(), count()
    await asyncio.sleep(seconds)
    rate_there = (count() - first) / (time.perf_counter() - began)
    await sending
    return rate_there
