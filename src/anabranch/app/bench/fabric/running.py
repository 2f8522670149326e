"""A controller or a whole fabric over the switches of a lab, while it is measured."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from anabranch.app.bench.fabric.lab import Lab, connected
from anabranch.core.events import Event
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.model import LinkInfo
from anabranch.fabric.options import Options


@asynccontextmanager
async def fabric_over(
    made: Lab, on_event: Callable[[Event], None] = lambda _: None
) -> AsyncIterator[Fabric]:
    """Give a fabric that knows the lab's links and has all of its switches."""
    shape = made.shape
    options = Options(
        names={shape.dpid(name): name for name in shape.switches},
        links={link: LinkInfo() for link in shape.links},
        edge=frozenset(shape.hosts.values()),
        counters_s=0,
    )
    fabric = Fabric(options, on_event)
    running = asyncio.create_task(fabric.run(), name="fabric")
    try:
        for name in shape.switches:
            await fabric.controller.listen_unix(made.controller_path(name), name)
        await connected(fabric.controller, shape.switches)
        yield fabric
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await fabric.close()
