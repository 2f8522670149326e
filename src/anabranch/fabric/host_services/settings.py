"""What the operator may choose about the services for hosts."""

from dataclasses import dataclass
from enum import StrEnum

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.model import PortRef


class Unicast(StrEnum):
    """What hosts may send each other without anybody's intent."""

    NONE = "none"
    ICMP = "icmp"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is done for hosts.

    Attributes:
        dhcp_server: the one edge port behind which a DHCP server may be; None: there is no DHCP.
        edge: ports behind which hosts are, never switches: discovery from there is dropped.
        unicast: ICMP, or any IPv4 between known hosts, carried by reactive rules; also by name.
        ask_unknown: ask for an IPv4 address that nobody is known to have at every edge port;
            otherwise such a question is dropped.
        idle_timeout: seconds without a packet after which a reactive rule ends.
        ageing: seconds of silence after which a host's IPv4 address may be taken by another.
        packet_in_rate: packets/s of ARP, DHCP and ICMP that a switch passes on to the controller
            (not of any unicast, which has to be fast); None: no limit. With a limit
            ``HostServices.meters`` are to be installed with the rules.
        outside: ports towards a network that is not the fabric's, as a two-bridge node's patch
            port: nobody there is a host, and no ARP, DHCP or unicast comes in or goes out by them.
            Flows may use them.
    """

    dhcp_server: PortRef | None = None
    edge: frozenset[PortRef] = frozenset()
    unicast: Unicast = Unicast.ICMP
    ask_unknown: bool = True
    idle_timeout: int = 10
    ageing: float = 300.0
    packet_in_rate: int | None = None
    outside: frozenset[PortRef] = frozenset()

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "unicast", Unicast(self.unicast))
        except ValueError:
            raise MisuseError(f"unicast is {self.unicast!r}, not of {list(Unicast)}") from None
        if not 1 <= self.idle_timeout <= 0xFFFF:
            raise MisuseError(f"an idle time-out of {self.idle_timeout} s is not of 1 to 65535")
        if self.packet_in_rate is not None and self.packet_in_rate < 1:
            raise MisuseError(f"a limit of {self.packet_in_rate} packets/s")
