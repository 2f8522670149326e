"""What the host services decide, as records; the fabric does it, in this order."""

from dataclasses import dataclass

from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.actions import PORT_CONTROLLER
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.tables import Rule


@dataclass(frozen=True, slots=True)
class SendPacket:
    """Send ``data``, a whole frame, out of a port of a switch, past all tables."""

    switch: str
    port_no: int
    data: bytes
    in_port: int = PORT_CONTROLLER


@dataclass(frozen=True, slots=True)
class Install:
    """Add reactive rules to a switch, ahead of any packet sent out of it afterwards."""

    switch: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove every reactive rule whose match is ``match`` or narrower."""

    switch: str
    match: Match


@dataclass(frozen=True, slots=True)
class HostSeen:
    """A host was seen at an edge port: for ``Topology.host_seen``; None: its address is unknown.

    ``certain``: nobody but that host can be there.
    """

    mac: str
    at: PortRef
    ipv4: str | None = None
    certain: bool = False


Act = SendPacket | Install | Remove | HostSeen
