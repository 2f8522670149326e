"""What gate, leaf and ring server have in common: each stands on a process of our own server."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from anabranch.host.process import Child
from anabranch.media.answer_parts import Candidate
from anabranch.media.inlets import Inlets, Stream
from anabranch.media.leaf import Inlet, LeafPlace
from anabranch.media.leaf_client import LeafClient
from anabranch.media.leaf_protocol import Message, integer, members, text
from anabranch.media.native_figures import Repairs, read_repairs
from anabranch.media.native_process import LeafProcess
from anabranch.media.native_streams import Streams


class NativeServer:
    """One that is started and stopped with its process."""

    def __init__(self, process: LeafProcess) -> None:
        self._process = process
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether it takes work now."""
        return self._process.ready

    @property
    def child(self) -> Child | None:
        """The supervised process, once started."""
        return self._process.child

    async def start(self) -> None:
        """Start the process and wait until it takes work.

        Raises:
            LeafUnavailableError: it is not installed, or does not come up.
        """
        await self._process.start()

    async def stop(self) -> None:
        """End the process and all that was begun."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._process.stop()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class StreamServer(NativeServer):
    """One that streams are delivered to, and that may ask for what was lost on their way."""

    def __init__(self, process: LeafProcess, inlets: Inlets, streams: Streams) -> None:
        super().__init__(process)
        self._inlets = inlets
        self._streams = streams

    def inlets(self) -> frozenset[Inlet]:
        """Return what must be delivered to it."""
        return self._inlets.inlets()

    def ask(self, parent: str | None) -> None:
        """Have packets lost on their way here asked for at ``address:port``, or nowhere."""
        self._streams.ask(parent)

    async def repairs(self) -> Repairs:
        """Return what was lost on the way here, and answered.

        Raises:
            LeafError: the server does not tell.
        """
        return read_repairs(await self._process.connected().request("statistics"))

    def _restore(self, state: Message) -> None:
        """Begin with the streams of a server that an earlier director had; see :meth:`_follow`."""
        now = asyncio.get_running_loop().time()
        self._inlets.restore(map(read_stream, members(state, "streams")), now)

    def _follow(self, client: LeafClient, state: Message) -> None:
        """Go on with a server that may know of streams; ``state`` is what it says of itself."""
        there = {integer(each, "stream"): each.get("parent") for each in members(state, "streams")}
        self._streams.follow(client, there)


def read_stream(said: Message) -> Stream:
    """Understand a stream as it is in a server's state.

    Raises:
        LeafProtocolError: it is none.
    """
    return Stream(
        integer(said, "stream"),
        "audio" if text(said, "kind") == "audio" else "video",
        integer(said, "port"),
        text(said, "name"),
        text(said, "group"),
        integer(said, "kbps"),
    )


def candidates_of(place: LeafPlace) -> list[Candidate]:
    """Return where a server may be reached: first by what leads there from far away."""
    addresses = (*place.public_addresses, *place.media_addresses)
    return [Candidate(address, place.media_ports[0]) for address in dict.fromkeys(addresses)]
