"""What the fabric does for hosts: ARP, DHCP, ICMP and, if wanted, any unicast; never flooded."""

from anabranch.fabric.host_services.acts import Act, HostSeen, Install, Remove, SendPacket
from anabranch.fabric.host_services.services import HostServices
from anabranch.fabric.host_services.settings import Settings, Unicast

__all__ = [
    "Act",
    "HostSeen",
    "HostServices",
    "Install",
    "Remove",
    "SendPacket",
    "Settings",
    "Unicast",
]
