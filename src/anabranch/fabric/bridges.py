"""What a node's switch shall be, as data: bridges, ports, tunnels, VLANs, controllers, BFD.

``ovsdb/changes.py`` makes a transaction of it. Source: ovs-vswitchd.conf.db(5); the node with two
bridges is that of seed 000, sections 5.2.3 and 6.3.4.

VLAN tags and OpenFlow: a port's ``tag`` and ``trunks`` are looked at by NORMAL switching only. A
rule that outputs to a port ignores them, and so a controller's rules rule while it is there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.ovsdb.values import Atom

TUNNEL_MTU = 1450  # inner MTU of VXLAN over 1500 bytes; GRE would leave 1462
UNTAGGED = 0
MAX_OFPORT = 65279
_MAX_NAME = 15  # IFNAMSIZ, less its final zero
_LAST_TAG = 4094


class FailMode(StrEnum):
    """What a bridge does without its controller: keep to its rules, or switch like a plain one."""

    SECURE = "secure"
    STANDALONE = "standalone"


class TunnelKind(StrEnum):
    VXLAN = "vxlan"
    GRE = "gre"


@dataclass(frozen=True, slots=True)
class Bfd:
    """Bidirectional forwarding detection on a port (RFC 5880).

    The far end counts as dead after ``multiplier`` times the longer of its own ``min_tx_ms`` and
    this end's ``min_rx_ms``. Decay, which would lengthen that on a silent link, stays off.
    """

    min_tx_ms: int = 20
    min_rx_ms: int = 20
    multiplier: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Port:
    """What all ports have.

    Attributes:
        ofport: OpenFlow port number, 1 to 65279.
        tag: access port of this VLAN for NORMAL switching; 0: of what carries no tag.
        trunks: the only VLANs that pass; empty with no ``tag``: all of them do.
    """

    name: str
    ofport: int
    tag: int | None = None
    trunks: tuple[int, ...] = ()
    bfd: Bfd | None = None

    def type_(self) -> str:
        """Return the database's ``type`` of the interface."""
        return ""

    def options(self) -> dict[Atom, Atom]:
        """Return the database's ``options`` of the interface."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device(_Port):
    """A device that exists: an uplink, or a VM's veth or tap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Internal(_Port):
    """A device that the switch makes, for the host's own use."""

    def type_(self) -> str:
        return "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch(_Port):
    """One end of a cable to another bridge of the same switch; ``peer`` names the other end."""

    peer: str

    def type_(self) -> str:
        return "patch"

    def options(self) -> dict[Atom, Atom]:
        return {"peer": self.peer}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel(_Port):
    """A tunnel to another node's bridge.

    Attributes:
        remote_ip, local_ip: outer addresses; ``local_ip`` is on a bridge's internal port.
        key: VXLAN network identifier (24 bits) or GRE key (32 bits).
    """

    kind: TunnelKind = TunnelKind.VXLAN
    remote_ip: IPv4Address
    local_ip: IPv4Address
    key: int

    def type_(self) -> str:
        return self.kind

    def options(self) -> dict[Atom, Atom]:
        return {
            "remote_ip": str(self.remote_ip),
            "local_ip": str(self.local_ip),
            "key": str(self.key),
        }


Port = Device | Internal | Patch | Tunnel


@dataclass(frozen=True, slots=True)
class ControllerTarget:
    """Where a bridge looks for a controller.

    Attributes:
        target: ``unix:<path>``, ``tcp:<address>:<port>`` or ``ssl:<address>:<port>``.
        inactivity_probe_ms: silence after which the switch asks; three times that without an
            answer and a stand-alone bridge switches by itself.
    """

    target: str
    inactivity_probe_ms: int = 5000


@dataclass(frozen=True, slots=True)
class Bridge:
    """One bridge.

    Attributes:
        name: also that of its internal device, which the host uses (OpenFlow port LOCAL).
        dpid: 64-bit datapath id; None leaves it to Open vSwitch.
        controllers: none: the bridge is a plain switch if ``fail_mode`` is standalone.
        address: of the internal device; None leaves the device without.
        gateway: default route by the internal device.
        local_tag: VLAN of the internal port for NORMAL switching.
        mtu: of the internal device; None leaves it to Open vSwitch.
    """

    name: str
    ports: tuple[Port, ...] = ()
    dpid: int | None = None
    fail_mode: FailMode = FailMode.SECURE
    controllers: tuple[ControllerTarget, ...] = ()
    address: IPv4Interface | None = None
    gateway: IPv4Address | None = None
    local_tag: int | None = None
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of PEM that the switch shows to ``ssl:`` controllers and checks them by."""

    private_key: str
    certificate: str
    ca_cert: str


def check(bridges: Sequence[Bridge]) -> None:
    """Refuse what cannot be.

    Raises:
        MisuseError: a name, number, tag, address or end of a patch that is wrong or used twice.
    """
    ports = {port.name: (bridge, port) for bridge in bridges for port in bridge.ports}
    names = [bridge.name for bridge in bridges] + [p.name for b in bridges for p in b.ports]
    _distinct("names", names)
    for name in names:
        if not 0 < len(name.encode()) <= _MAX_NAME or set(name) & set("/ \t\n\"'"):
            raise MisuseError(f"{name!r} is no name of a device: at most {_MAX_NAME} characters")
    _distinct("datapath ids", [b.dpid for b in bridges if b.dpid is not None])
    for bridge in bridges:
        _check_bridge(bridge)
        for port in bridge.ports:
            _check_port(port)
            if isinstance(port, Patch):
                _check_patch(bridge, port, ports)
    tunnels = [p for b in bridges for p in b.ports if isinstance(p, Tunnel)]
    _distinct("tunnels", [(t.kind, t.remote_ip, t.local_ip, t.key) for t in tunnels])


def _distinct(what: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise MisuseError(f"{what} used twice: {value}")
        seen.add(value)


def _check_bridge(bridge: Bridge) -> None:
    if bridge.dpid is not None and not 0 < bridge.dpid < 1 << 64:
        raise MisuseError(f"{bridge.dpid} is not a datapath id")
    _distinct(f"port numbers of {bridge.name}", [port.ofport for port in bridge.ports])
    _distinct(f"controllers of {bridge.name}", [one.target for one in bridge.controllers])
    for controller in bridge.controllers:
        if not controller.target.startswith(("unix:", "tcp:", "ssl:", "ptcp:", "pssl:", "punix:")):
            raise MisuseError(f"{controller.target!r} is no place of a controller")
        if controller.inactivity_probe_ms < 0:
            raise MisuseError(f"{controller.inactivity_probe_ms} ms is no time")
    _check_tags((bridge.local_tag,))
    if bridge.mtu is not None and not 68 <= bridge.mtu <= 65535:
        raise MisuseError(f"{bridge.mtu} is no MTU")


def _check_tags(tags: Iterable[int | None]) -> None:
    for tag in tags:
        if tag is not None and not 0 <= tag <= _LAST_TAG:
            raise MisuseError(f"{tag} is no VLAN tag: 0 to {_LAST_TAG}")


def _check_port(port: Port) -> None:
    if not 1 <= port.ofport <= MAX_OFPORT:
        raise MisuseError(f"{port.name}: {port.ofport} is not a port number of 1 to {MAX_OFPORT}")
    _check_tags((port.tag, *port.trunks))
    if port.tag is not None and port.trunks:
        raise MisuseError(f"{port.name}: an access port has one tag and no trunks")
    if port.bfd is not None:
        if isinstance(port, Patch):
            raise MisuseError(f"{port.name}: a patch has no wire to watch by BFD")
        if min(port.bfd.min_tx_ms, port.bfd.min_rx_ms) < 1 or not 1 <= port.bfd.multiplier <= 255:
            raise MisuseError(f"{port.name}: BFD: intervals of 1 ms or more, multiplier 1 to 255")
    if isinstance(port, Tunnel):
        bits = 24 if port.kind is TunnelKind.VXLAN else 32
        if port.remote_ip == port.local_ip:
            raise MisuseError(f"{port.name}: a tunnel from {port.local_ip} to itself")
        if not 0 <= port.key < 1 << bits:
            raise MisuseError(f"{port.name}: {port.key} is no key of {bits} bits")


def _check_patch(bridge: Bridge, port: Patch, ports: Mapping[str, tuple[Bridge, Port]]) -> None:
    home, peer = ports.get(port.peer, (None, None))
    if not isinstance(peer, Patch) or peer.peer != port.name:
        raise MisuseError(f"{port.name}: {port.peer} is no patch that leads back")
    if home is bridge:
        raise MisuseError(f"{port.name}: a patch from {bridge.name} to itself")


def separated(ports: Iterable[Port], reserve: Iterable[Port], tag: int) -> tuple[Port, ...]:
    """Return the ports of an overlay with their VLANs, for times without a controller.

    ``ports`` (VMs, tree links) share the VLAN ``tag``. Each of ``reserve`` (redundancy links) gets
    a VLAN of its own at this bridge: plain switching over tree and reserve together would be a
    loop, in which one broadcast circles for ever. (RSTP would cut the loop, but over tunnels of
    the userspace datapath Open vSwitch 3.1 aborts in it.) Rules output to any of them all the same.

    Raises:
        MisuseError: more redundancy links than there are tags above ``tag``.
    """
    result = [replace(port, tag=tag, trunks=()) for port in ports]
    parked = [
        replace(port, tag=_LAST_TAG - n, trunks=()) for n, port in enumerate(reserve)
    ]  # fmt: skip
    if not 1 <= tag <= _LAST_TAG - len(parked):
        raise MisuseError(f"{tag} is no VLAN tag below those of {len(parked)} redundancy links")
    return (*result, *parked)


def two_bridge_node(
    uplink: str,
    address: IPv4Interface,
    *,
    dpid: int,
    controllers: Sequence[ControllerTarget],
    edge: Sequence[Port] = (),
    links: Sequence[Port] = (),
    reserve: Sequence[Port] = (),
    patch_ofport: int,
    tag: int = 2,
    fail_mode: FailMode = FailMode.SECURE,
    overlay_address: IPv4Interface | None = None,
    gateway: IPv4Address | None = None,
) -> tuple[Bridge, Bridge]:
    """Return the seed's node: physical bridge ``br0`` and overlay bridge ``br1``, patched together.

    ``br0`` is a plain switch with the node's NIC and the host's address on its internal port, from
    which the tunnels start. ``br1`` has the VMs and links and belongs to the controller.

    All ports of the overlay are in the VLAN ``tag``. The seed leaves the patch ports without one
    "as this traffic will never reach them"; in Open vSwitch such a port is a trunk of all VLANs and
    would let the overlay's broadcasts out, tagged. Here they are access ports of what is untagged.

    Args:
        uplink: the NIC, which becomes port 1 of ``br0``; its host address must be ``address``'s.
        patch_ofport: port number of the patch in ``br1``, for rules that deliver to the outside.
        edge: ports of VMs.
        links: ports of tree links, mostly tunnels.
        reserve: ports of redundancy links, see :func:`separated`.
        overlay_address: of ``br1``'s internal port, as for the overlay's DHCP server.
    """
    physical = Bridge(
        "br0",
        (
            Device(name=uplink, ofport=1),
            Patch(name="to-overlay", ofport=2, peer="to-physical", tag=UNTAGGED),
        ),
        fail_mode=FailMode.STANDALONE,
        address=address,
        gateway=gateway,
    )
    patch = Patch(name="to-physical", ofport=patch_ofport, peer="to-overlay", tag=UNTAGGED)
    overlay = Bridge(
        "br1",
        (*separated((*edge, *links), reserve, tag), patch),
        dpid=dpid,
        fail_mode=fail_mode,
        controllers=tuple(controllers),
        address=overlay_address,
        local_tag=tag,
        mtu=TUNNEL_MTU,
    )
    check((physical, overlay))
    return physical, overlay
