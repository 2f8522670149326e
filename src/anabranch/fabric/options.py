"""What a fabric is told once, before it begins."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from anabranch.fabric.host_services import Settings
from anabranch.fabric.model import Link, LinkInfo, PortRef
from anabranch.fabric.pathlogic import logic as pathlogic


@dataclass(frozen=True, slots=True)
class Options:
    """What a fabric knows from the start.

    Attributes:
        names: datapath id to name of the switches that are expected.
        adopt: take any other switch in, too; it is named by its datapath id, 16 hex digits.
        links: known without discovery.
        edge: ports behind which hosts are, never switches.
        discover: find links by LLDP; off where all are known.
        hosts: what is done for hosts (ARP, DHCP, unicast); None: nothing.
        settle_s: seconds for which the first rules wait, at most, until every expected switch is
            there and links are found: a network half seen would move flows that need not move.
        path_logic: name of the plug-in that says how paths past virtual machines are carried.
        counters_s: seconds between two readings of the port counters; 0: never.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    adopt: bool = False
    links: Mapping[Link, LinkInfo] = field(default_factory=dict)
    edge: frozenset[PortRef] = frozenset()
    discover: bool = False
    hosts: Settings | None = None
    settle_s: float = 3.0
    path_logic: str = pathlogic.DEFAULT
    counters_s: float = 5.0
