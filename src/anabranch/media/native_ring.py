"""A ring server: our leaf server without viewers, which others ask for packets that they have lost.

It stands at a relay or the root. Its rings are short: what is asked for has just gone by.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from anabranch.media.inlets import UNKNOWN_KBPS, Inlets, Stream
from anabranch.media.leaf import LeafPlace, Rung
from anabranch.media.leaf_client import LeafClient
from anabranch.media.native_process import LeafProcess
from anabranch.media.native_server import StreamServer
from anabranch.media.native_streams import Streams

_KEPT_S = 2.0
"""Seconds that a ring holds: several times what its askers wait for."""
_LEAST_BYTES, _MOST_BYTES = 2**18, 2**23
_SLOT = 1460
"""What every packet takes, whatever its length."""
_PACKET = 1000
"""Bytes of a packet of a picture, as a rule."""


@dataclass(frozen=True, slots=True)
class RingPlace:
    """Where a ring server lives.

    Attributes:
        name: its node's.
        directory: its own run directory.
        run_id: mark of the site's children.
        netns: network namespace, or None.
        address: where streams arrive, and questions.
        ports: first and last UDP port for streams; the last is the one for questions.
        askers: who may ask.
    """

    name: str
    directory: Path
    run_id: str
    netns: str | None
    address: str
    ports: tuple[int, int]
    askers: IPv4Network

    @property
    def port(self) -> int:
        """The UDP port for questions."""
        return self.ports[1]


class RingServer(StreamServer):
    """A ring server.

    Attributes:
        on_inlets: :meth:`inlets` has changed by itself.
    """

    def __init__(self, place: RingPlace) -> None:
        self.name = place.name
        self.on_inlets: Callable[[], None] = lambda: None
        first, last = place.ports
        inlets = Inlets(range(first, last))
        streams = Streams(inlets, place.address, self._moved, ring_bytes=_ring_bytes)
        process = LeafProcess(
            LeafPlace(
                name=place.name,
                directory=place.directory,
                run_id=place.run_id,
                netns=place.netns,
                media_addresses=(),
                public_addresses=(),
                media_ports=(0, 0),
                inlet_interface=place.address,
                inlet_ports=place.ports,
            ),
            1,
            on_event=lambda _event: None,
            resume=self._resume,
            on_cut=lambda: streams.follow(None),
            on_gone=lambda: None,
            kind="ring",
            serves=(
                *("--repair", f"{place.address}:{place.port}"),
                *("--repair-for", str(place.askers)),
            ),
        )
        super().__init__(process, inlets, streams)

    def keep(self, ladder: Collection[Rung]) -> None:
        """Have exactly these feeds in its rings, with the sounds of their channels."""
        self._inlets.keep_warm(ladder)
        self._inlets.expire(asyncio.get_running_loop().time())
        self._streams.apply()

    async def _resume(self, client: LeafClient) -> None:
        self._follow(client, await client.request("state"))

    def _moved(self) -> None:
        self._streams.apply()
        self.on_inlets()


def _ring_bytes(stream: Stream) -> int | None:
    if stream.kind == "audio" or stream.kbps == UNKNOWN_KBPS:
        return _LEAST_BYTES
    packets = stream.kbps * 125 * _KEPT_S / _PACKET
    return max(_LEAST_BYTES, min(round(packets * _SLOT), _MOST_BYTES))
