"""Ethernet frames: headers as OXM fields, builders, rewriting with right checksums."""

# isort: off
from anabranch.fabric.frames.building import (
    arp_probe as arp_probe,
    arp_reply as arp_reply,
    arp_request as arp_request,
    ethernet as ethernet,
    icmp_echo as icmp_echo,
    icmp_echo_reply as icmp_echo_reply,
    ipv4 as ipv4,
    ipv4_udp as ipv4_udp,
    ipv6 as ipv6,
    tcp as tcp,
    udp as udp,
)
from anabranch.fabric.frames.checksums import (
    checksum as checksum,
    transport_checksum as transport_checksum,
)
from anabranch.fabric.frames.headers import (
    ARP_REPLY as ARP_REPLY,
    ARP_REQUEST as ARP_REQUEST,
    BROADCAST as BROADCAST,
    ETH_ARP as ETH_ARP,
    ETH_IPV4 as ETH_IPV4,
    ETH_IPV6 as ETH_IPV6,
    ETH_LLDP as ETH_LLDP,
    ETH_NONE as ETH_NONE,
    ETH_QINQ as ETH_QINQ,
    ETH_VLAN as ETH_VLAN,
    ICMP_ECHO_REPLY as ICMP_ECHO_REPLY,
    ICMP_ECHO_REQUEST as ICMP_ECHO_REQUEST,
    IP_ICMP as IP_ICMP,
    IP_ICMPV6 as IP_ICMPV6,
    IP_TCP as IP_TCP,
    IP_UDP as IP_UDP,
    VLAN_PRESENT as VLAN_PRESENT,
    Headers as Headers,
    number as number,
    parse as parse,
    text as text,
)
from anabranch.fabric.frames.rewriting import (
    REWRITABLE as REWRITABLE,
    pop_vlan as pop_vlan,
    push_vlan as push_vlan,
    rewrite as rewrite,
)
# isort: on
