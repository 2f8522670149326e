"""A place for one leaf server: a namespace of its own that this machine reaches."""

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from anabranch.app.bench.claims import Claim
from anabranch.core.names import new_id
from anabranch.host import network
from anabranch.host.journal import Journal
from anabranch.host.network import Port
from anabranch.media.leaf import LeafPlace

_SUBNETS = IPv4Network("10.97.250.0/24")


@asynccontextmanager
async def leaf_place(inlet_interface: str) -> AsyncIterator[tuple[LeafPlace, str]]:
    """Give the place and its namespace; both are removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="ab", dir="/tmp"))
    tag = secrets.token_hex(2)
    claim = Claim("leaf-place", _SUBNETS.num_addresses // 4)
    first = int(_SUBNETS.network_address) + 4 * claim.number
    here, there = (IPv4Interface((first + end, 30)) for end in (1, 2))
    netns = f"ab-t{tag}"
    journal = Journal(directory)
    try:
        journal.record("netns", netns)
        await asyncio.to_thread(_make, netns, f"abt{tag}", here, there)
        place = LeafPlace(
            name="leaf1",
            directory=directory / "leaf",
            run_id=new_id(),
            netns=netns,
            media_addresses=(str(there.ip),),
            public_addresses=(),
            media_ports=(20000, 20099),
            inlet_interface=inlet_interface,
            inlet_ports=(21000, 21099),
        )
        yield place, netns
    finally:
        await asyncio.to_thread(journal.undo)
        shutil.rmtree(directory, ignore_errors=True)
        claim.release()


def _make(netns: str, device: str, here: IPv4Interface, there: IPv4Interface) -> None:
    network.make_namespace(netns)
    network.make_link(Port(device, None, address=here), Port("access0", netns, address=there))
