"""Network namespaces, and the links between them.

Thin over pyroute2 (netlink) and nft. All functions block for milliseconds: they are called while
a site is set up or removed, in a thread.
"""

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import TypeVar

import psutil
from pyroute2 import IPRoute, netns
from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool
from pyroute2.netlink.exceptions import NetlinkError

from anabranch.core.errors import AnabranchError

Made = TypeVar("Made")
_NETNS = Path("/run/netns")
VXLAN_PORT = 4789
"""RFC 7348, section 8."""
_SETTINGS_6 = Path("/proc/sys/net/ipv6/conf")
_LINK_SCOPE = 253
"""RT_SCOPE_LINK of linux/rtnetlink.h: straight to whom it is for."""
_NO_DAD = 0x02
"""IFA_F_NODAD of linux/if_addr.h: the address is usable at once."""
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class NetworkError(AnabranchError):
    """The kernel refused a namespace, link or rule."""


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a veth pair.

    Attributes:
        device: interface name, at most 15 characters.
        namespace: where it lives; None is the host's own.
        mac: fixed address, so that flow rules can be computed before the port exists.
        address: IPv4 address with prefix, or None for a switch port.
        address_6: IPv6 address with prefix; None: the device has no IPv6 but what is its
            namespace's custom.
        rate_mbit: shaping of what leaves through it, in Mbit/s; None is unshaped.
    """

    device: str
    namespace: str | None
    mac: str | None = None
    address: IPv4Interface | None = None
    address_6: IPv6Interface | None = None
    rate_mbit: float | None = None


def make_namespace(name: str) -> None:
    """Make a namespace with its loopback up."""
    try:
        with _back_again():
            # Not pyroute2's create: it forks all of this process for that.
            if _libc.unshare(_CLONE_NEWNET) < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            netns.attach(name, threading.get_native_id())
    except OSError as error:
        raise NetworkError(f"cannot make the namespace {name}: {error.strerror}") from error
    with entered(name), suppress(OSError):  # a kernel without IPv6
        # The kernel's own neighbour discovery would put packets on links where nothing flows.
        for scope in ("all", "default"):
            Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
    with _inside(name) as inside:
        inside.link("set", index=1, state="up")


def namespaces(prefix: str) -> list[str]:
    """Return the named namespaces whose names begin so."""
    if not _NETNS.is_dir():
        return []
    return sorted(path.name for path in _NETNS.iterdir() if path.name.startswith(prefix))


def remove_namespace(name: str) -> None:
    """End what still runs in a namespace and remove it; absent is fine.

    The namespace is the site's own, so whatever is in it is, too.
    """
    path = _NETNS / name
    if not path.exists():
        return
    inode = path.stat().st_ino
    remains = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.stat(f"/proc/{process.pid}/ns/net").st_ino == inode:
                remains.append(process)
                process.kill()
    psutil.wait_procs(remains, timeout=2.0)
    with suppress(OSError):
        netns.remove(name)


def make_link(one: Port, other: Port) -> None:
    """Make a veth pair with an end at each port, addressed, shaped and up."""
    arguments: dict[str, object] = {"kind": "veth", **_end(one), "peer": _end(other)}
    descriptors = list(_descriptors(arguments))
    try:
        with closing(IPRoute()) as host:
            host.link("add", **arguments)
    except NetlinkError as error:
        raise NetworkError(f"cannot make the link {one.device}-{other.device}: {error}") from error
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    for port, peer in ((one, other), (other, one)):
        _bring_up(port, beside_switch=peer.address is None)


def make_vxlan(
    port: Port, *, underlay: str | None, local: IPv4Address, remote: IPv4Address, key: int, mtu: int
) -> None:
    """Make one end of a VXLAN link (RFC 7348) between two machines, shaped and up.

    The device is at ``port``; what it carries goes by the namespace ``underlay``, for as long as
    it lives. It does not depend on the device there: that may go and come again.

    Args:
        port: where it is plugged in; its address is not set.
        underlay: the namespace that has the address ``local``; None: this machine's own.
        local, remote: outer addresses of this and the far end.
        key: VXLAN network identifier (24 bits), the same at both ends.
        mtu: of what is carried; the outer packets may be fragmented on their way.

    Raises:
        NetworkError: the kernel refused it, or has no VXLAN.
    """
    end = _end(port)
    try:
        with _inside(underlay) as inside:
            inside.link(
                "add",
                kind="vxlan",
                **end,
                mtu=mtu,
                vxlan_id=key,
                vxlan_local=str(local),
                vxlan_group=str(remote),
                vxlan_port=VXLAN_PORT,
                vxlan_learning=0,
            )
    finally:
        for descriptor in _descriptors(end):
            os.close(descriptor)
    _bring_up(port, beside_switch=False)


def has_device(device: str, namespace: str | None = None) -> bool:
    """Say whether there is a device; in this machine's own namespace unless another is named."""
    with _inside(namespace) as inside:
        return bool(inside.link_lookup(ifname=device))


def devices(namespace: str | None = None) -> frozenset[str]:
    """Return the names of all devices of a namespace, this machine's own unless one is named.

    Raises:
        NetworkError: there is no such namespace.
    """
    with _inside(namespace) as inside:
        return frozenset(link.get_attr("IFLA_IFNAME") for link in inside.get_links())


def has_namespace(name: str) -> bool:
    """Say whether there is a namespace."""
    return (_NETNS / name).exists()


def place_device(
    device: str, namespace: str, address: IPv4Interface, *, mtu: int, forward: bool = False
) -> None:
    """Move a device of this machine's own namespace into another; have it addressed and up there.

    Args:
        forward: pass on what comes in by it and is for somebody else.

    Raises:
        NetworkError: there is no such device or namespace, or the kernel refused it.
    """
    with _moved(device, namespace) as (inside, index):
        inside.link("set", index=index, mtu=mtu, state="up")
        inside.addr(
            "replace", index=index, address=str(address.ip), prefixlen=address.network.prefixlen
        )
    if forward:
        with entered(namespace):
            Path(f"/proc/sys/net/ipv4/conf/{device}/forwarding").write_text("1")


def lend_device(device: str, namespace: str) -> None:
    """Move a device of this machine's own namespace into another, and have it up there.

    It is a switch's from then on: what the kernel has to say, it does not say there.

    Raises:
        NetworkError: there is no such device or namespace, or the kernel refused it.
    """
    with _moved(device, namespace) as (inside, index):
        inside.link("set", index=index, state="up")


@contextmanager
def _moved(device: str, namespace: str) -> Iterator[tuple[IPRoute, int]]:
    """Move a device of this machine's own into a namespace; give its index and a socket there."""
    with _inside(None) as outside, _open_namespace(namespace) as descriptor:
        found = outside.link_lookup(ifname=device)
        if not found:
            raise NetworkError(f"there is no device {device} on this machine")
        outside.link("set", index=found[0], net_ns_fd=descriptor)
    with _inside(namespace) as inside:
        yield inside, inside.link_lookup(ifname=device)[0]


def take_back(device: str, namespace: str) -> None:
    """Undo :func:`lend_device`, but for addresses that the device had; absent is fine."""
    if not (_NETNS / namespace).exists():
        return
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        with _inside(namespace) as inside:
            for index in inside.link_lookup(ifname=device):
                inside.link("set", index=index, net_ns_fd=own)
    finally:
        os.close(own)


def socket_inside(namespace: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Return an IPv4 socket of a namespace, TCP or UDP, not yet bound; it does not block.

    Raises:
        NetworkError: there is no such namespace.
    """
    protocol = socket.IPPROTO_TCP if kind is socket.SOCK_STREAM else socket.IPPROTO_UDP
    with entered(namespace):
        made = socket.socket(socket.AF_INET, kind, protocol)
    made.setblocking(False)
    return made


@contextmanager
def _open_namespace(namespace: str) -> Iterator[int]:
    try:
        descriptor = os.open(_NETNS / namespace, os.O_RDONLY)
    except OSError as error:
        raise NetworkError(f"there is no namespace {namespace}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _end(port: Port) -> dict[str, object]:
    end: dict[str, object] = {"ifname": port.device}
    if port.mac is not None:
        end["address"] = port.mac
    if port.namespace is not None:
        end["net_ns_fd"] = os.open(_NETNS / port.namespace, os.O_RDONLY)
    return end


def _descriptors(arguments: Mapping[str, object]) -> Iterator[int]:
    for key, value in arguments.items():
        if key == "net_ns_fd" and isinstance(value, int):
            yield value
        elif isinstance(value, dict):
            yield from _descriptors(value)


def _bring_up(port: Port, *, beside_switch: bool) -> None:
    if port.address_6 is not None:
        _have_ipv6_alone(port)
    with _inside(port.namespace) as inside:
        index = inside.link_lookup(ifname=port.device)[0]
        if port.address is not None:
            inside.addr(
                "add",
                index=index,
                address=str(port.address.ip),
                prefixlen=port.address.network.prefixlen,
            )
        for address in _addresses_6(port):
            inside.addr(
                "add",
                index=index,
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
                flags=_NO_DAD,  # there are just the two ends, and both are ours
            )
        inside.link("set", index=index, state="up")
        if port.rate_mbit is not None:
            inside.tc(
                "add",
                "tbf",
                index,
                rate=f"{round(port.rate_mbit * 1000)}kbit",
                burst=64 * 1024,
                latency="50ms",
            )
    if port.address is not None and beside_switch:
        # A userspace switch hands packets on as they are: without this, UDP and TCP from a
        # host port leave with their checksum still to be filled in, and are dropped.
        fill_checksums(port.device, port.namespace)


def fill_checksums(device: str, namespace: str | None = None) -> None:
    """Have what leaves by a device be as on a wire: checksums made, segments cut.

    Raises:
        NetworkError: there is no such device.
    """
    try:
        with entered(namespace), closing(IoctlEthtool(device)) as opened:
            opened.set_offload_flag("tx-checksumming", 0)
    except (OSError, EthtoolError) as error:
        raise NetworkError(f"{device} does not make checksums: {error}") from error


def _addresses_6(port: Port) -> tuple[IPv6Interface, ...]:
    """Return the IPv6 addresses of a device: one for its link, and what it is given.

    Without the first (RFC 4291 section 2.1) the kernel does not ask for a neighbour on behalf of
    a packet that it forwards, and says nothing of it.
    """
    if port.address_6 is None:
        return ()
    return IPv6Interface((link_local(port.address_6), 64)), port.address_6


def link_local(address: IPv6Interface) -> IPv6Address:
    """Return the link-local address that a device of ours has beside an address."""
    return IPv6Address(0xFE80 << 112 | int(address.ip) & (1 << 64) - 1)


def _have_ipv6_alone(port: Port) -> None:
    """Have a device take IPv6, and no address but what it is given: it is to be on one link."""
    assert port.address_6 is not None
    wanted = {"addr_gen_mode": "1", "accept_ra": "0", "disable_ipv6": "0"}
    with entered(port.namespace):
        for name, value in wanted.items():  # in this order: enabled it would draw an address
            try:
                (_SETTINGS_6 / port.device / name).write_text(value)
            except OSError as error:
                raise NetworkError(
                    f"{port.device} cannot have {port.address_6.ip}: IPv6: {error.strerror}"
                ) from error


def add_route(
    namespace: str | None, destination: str, *, device: str, via: str | None = None
) -> None:
    """Add a route inside a namespace (None: the host's own).

    ``destination`` may be ``default``, of ``via``'s family.
    """
    with _inside(namespace) as inside:
        index = inside.link_lookup(ifname=device)[0]
        family = socket.AF_INET6 if ":" in (via or destination) else socket.AF_INET
        extra: dict[str, object] = {"gateway": via} if via is not None else {}
        if via is None and family == socket.AF_INET:
            extra["scope"] = _LINK_SCOPE  # such a route can lead to another's gateway
        inside.route("add", dst=destination, oif=index, family=family, **extra)


def set_address(
    namespace: str | None, device: str, address: IPv4Interface, gateway: IPv4Address | None
) -> None:
    """Give a switch's internal device exactly this IPv4 address and have it up; repeatable.

    ``gateway``: also the default route, by this device.

    Raises:
        NetworkError: there is no such device, or the kernel refused it.
    """
    with _inside(namespace) as inside:
        found = inside.link_lookup(ifname=device)
        if not found:
            raise NetworkError(f"there is no device {device} in namespace {namespace or 'host'}")
        index = found[0]
        wanted = {"address": str(address.ip), "prefixlen": address.network.prefixlen}
        for there in inside.get_addr(family=socket.AF_INET, index=index):
            old = {"address": there.get_attr("IFA_ADDRESS"), "prefixlen": there["prefixlen"]}
            if old != wanted:
                inside.addr("del", index=index, **old)
        inside.addr("replace", index=index, **wanted)
        inside.link("set", index=index, state="up")
        if gateway is not None:
            inside.route("replace", dst="default", gateway=str(gateway), oif=index)
    fill_checksums(device, namespace)  # see _bring_up


def remove_link(device: str, namespace: str | None = None) -> None:
    """Remove a link that has an end in a namespace (None: the host's own); absent is fine."""
    if namespace is not None and not (_NETNS / namespace).exists():
        return
    with _inside(namespace) as inside:
        for index in inside.link_lookup(ifname=device):
            with suppress(NetlinkError):
                inside.link("del", index=index)


def made_inside(namespace: str | None, make: Callable[[], Made]) -> Made:
    """Return what ``make`` makes in a namespace: sockets stay there.

    Raises:
        NetworkError: there is no such namespace.
    """
    with entered(namespace):
        return make()


@contextmanager
def _inside(namespace: str | None) -> Iterator[IPRoute]:
    # Not pyroute2's NetNS: it forks a helper, which shares our signal wake-up descriptor, so that
    # the SIGTERM which ends the helper would end the director. This thread steps inside instead,
    # just to open the socket, which stays there.
    with entered(namespace):
        handle = IPRoute()
    try:
        yield handle
    except NetlinkError as error:
        raise NetworkError(f"in namespace {namespace or 'host'}: {error}") from error
    finally:
        handle.close()


@contextmanager
def entered(namespace: str | None) -> Iterator[None]:
    """Have this thread be in a namespace for a moment: the sockets that it makes stay there."""
    if namespace is None:
        yield
        return
    with _back_again(), _open_namespace(namespace) as there:
        try:
            netns.setns(there)
        except OSError as error:
            raise NetworkError(f"{namespace} is no namespace: {error.strerror}") from error
        yield


@contextmanager
def _back_again() -> Iterator[None]:
    """Have this thread be in its namespace again afterwards."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        try:
            yield
        finally:
            netns.setns(own)
    finally:
        os.close(own)


def run_tool(*argv: str, namespace: str | None = None, stdin: str | None = None) -> list[str]:
    """Run a program, in a namespace if one is named, and return the lines that it prints.

    Raises:
        NetworkError: it cannot be run, or fails; with its last words.
    """
    if namespace is not None:
        argv = ("nsenter", f"--net=/run/netns/{namespace}", "--", *argv)
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NetworkError(f"cannot run {argv[0]}: {error.strerror}") from error
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()
        raise NetworkError(f"{argv[0]}: {last[-1] if last else done.returncode}")
    return done.stdout.splitlines()
