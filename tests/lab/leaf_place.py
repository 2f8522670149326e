"""A place for one leaf server: a namespace of its own that this machine reaches."""

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Interface
from pathlib import Path

from anabranch.core.names import new_id
from anabranch.host import network
from anabranch.host.journal import Journal
from anabranch.host.network import Port
from anabranch.media.leaf import LeafPlace

_HERE, _THERE = IPv4Interface("10.97.250.1/30"), IPv4Interface("10.97.250.2/30")


@asynccontextmanager
async def leaf_place(inlet_interface: str) -> AsyncIterator[tuple[LeafPlace, str]]:
    """Give the place and its namespace; both are removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="ab", dir="/tmp"))
    tag = secrets.token_hex(2)
    netns = f"ab-t{tag}"
    journal = Journal(directory)
    try:
        journal.record("netns", netns)
        await asyncio.to_thread(_make, netns, f"abt{tag}")
        place = LeafPlace(
            name="leaf1",
            directory=directory / "leaf",
            run_id=new_id(),
            netns=netns,
            media_addresses=(str(_THERE.ip),),
            public_addresses=(),
            media_ports=(20000, 20099),
            inlet_interface=inlet_interface,
            inlet_ports=(21000, 21099),
        )
        yield place, netns
    finally:
        await asyncio.to_thread(journal.undo)
        shutil.rmtree(directory, ignore_errors=True)


def _make(netns: str, device: str) -> None:
    network.make_namespace(netns)
    network.make_link(Port(device, None, address=_HERE), Port("access0", netns, address=_THERE))
