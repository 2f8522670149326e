"""The flow tables of every switch, in one place: numbers, priorities, metadata.

A packet enters at CLASSIFY. It is a frame of the discovery, or it arrives by an inner link, or by
an edge port. What arrives by an edge port is checked at EDGE, may meet a service or a tap at
SERVICES, and is carried at FLOWS; what no rule there wants may be a reactive rule's at HOSTS. Every
table ends in a drop ("sink or swim").
"""

CLASSIFY, EDGE, SERVICES, FLOWS, HOSTS = range(5)

# CLASSIFY: match in_port (and vlan_vid for bypasses)
LLDP_PRIORITY = 5000  # ethertype 0x88cc -> controller
BYPASS_PRIORITY = 4000  # in_port of a link, vlan_vid of a bypass -> next port, or pop and go on
LINK_PRIORITY = 3000  # in_port of an inner link -> metadata FROM_LINK, goto SERVICES
RETURN_PRIORITY = 2000  # in_port of a service's return -> metadata SERVED, goto EDGE
EDGE_PRIORITY = 0  # anything else -> goto EDGE

# EDGE: ARP, DHCP, guards; its lowest rule goes on to SERVICES
GUARD_PRIORITY = 4000  # rogue DHCP servers, forged discovery -> drop
HOST_SERVICE_PRIORITY = 3000  # ARP, DHCP, ICMP -> controller
PASS_PRIORITY = 0

# SERVICES: taps (copy and go on, or divert) and steering; its lowest rule goes on to FLOWS
TAP_BASE = 2000
STEER_BASE = 1000
# FLOWS: see flow_priority(); its lowest rule goes on to HOSTS
FLOW_BASE = 1000

# Metadata, 64 bits
FROM_LINK = 1  # arrived by an inner link: transit rules apply
ORIGIN_MASK = 0x1
SERVED_SHIFT = 8  # bits 8 to 23: the port by which the packet returned from a service, else 0
SERVED_MASK = 0xFFFF << SERVED_SHIFT


def flow_priority(own: int, *, turned: bool = False) -> int:
    """Return the priority in FLOWS for a flow's own priority.

    ``turned``: of the rule for packets that a bypass brings by a port that they leave by again; it
    stands above the flow's common rule and below those of every higher priority.
    """
    return FLOW_BASE + 2 * own + turned
