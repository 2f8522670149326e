"""A sender, a router that is a node, and a receiver: three namespaces in a row.

    sender 10.1.0.1 --- 10.1.255.254 ROUTER 10.2.255.254 --- 10.2.0.1 receiver

10.1.128.0/17 is behind the sender, 10.2.128.0/17 behind the receiver. What comes to either end is
counted at its device.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path

from anabranch.host.network import (
    Port,
    add_route,
    entered,
    make_link,
    make_namespace,
    remove_namespace,
    run_tool,
)

SENDER, RECEIVER = "10.1.0.1", "10.2.0.1"
SOURCES_FROM = "10.1.128.1"
"""The first address that packets of measurements come from: behind the sender."""
_FILTER = """
table ip filter {
  chain forward {
    type filter hook forward priority 0; policy accept;
    ip protocol udp counter accept
  }
}
"""
_SINK = """
table netdev sink {{
  chain ingress_udp {{
    type filter hook ingress device "{device}" priority 0; policy accept;
    ip protocol udp drop
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class World:
    """The names of the three namespaces; devices are ``s0``, ``in0`` and ``out0``, ``d0``."""

    sender: str
    router: str
    receiver: str

    def received(self) -> int:
        """Return how many packets have come to the receiver's device."""
        return packets_in(self.receiver, "d0")


@contextmanager
def make_world(*, sink: bool) -> Iterator[World]:
    """Make the three, and remove them again.

    Args:
        sink: both ends drop UDP at once, so that it costs as little as can be.
    """
    run = f"ab-path-{os.getpid()}"
    world = World(f"{run}-s", f"{run}-r", f"{run}-d")
    names = (world.sender, world.router, world.receiver)
    try:
        for name in names:
            remove_namespace(name)
            make_namespace(name)
        make_link(_port("s0", world.sender, f"{SENDER}/16"),
                  _port("in0", world.router, "10.1.255.254/16"))  # fmt: skip
        make_link(_port("d0", world.receiver, f"{RECEIVER}/16"),
                  _port("out0", world.router, "10.2.255.254/16"))  # fmt: skip
        add_route(world.sender, "default", device="s0", via="10.1.255.254")
        add_route(world.receiver, "default", device="d0", via="10.2.255.254")
        with entered(world.router):
            for name in ("all", "default", "in0", "out0"):
                Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0")
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        run_tool("nft", "-f", "-", namespace=world.router, stdin=_FILTER)
        _know_neighbour(world.router, "out0", RECEIVER, mac_of(world.receiver, "d0"))
        _know_neighbour(world.router, "in0", SENDER, mac_of(world.sender, "s0"))
        # Everybody else on both sides is behind the one that is there.
        add_route(world.router, "10.1.128.0/17", device="in0", via=SENDER)
        add_route(world.router, "10.2.128.0/17", device="out0", via=RECEIVER)
        if sink:
            for namespace, device in ((world.receiver, "d0"), (world.sender, "s0")):
                sink_at(namespace, device)
        yield world
    finally:
        for name in names:
            remove_namespace(name)


def sink_at(namespace: str, device: str) -> None:
    """Have a device drop UDP at once."""
    run_tool("nft", "-f", "-", namespace=namespace, stdin=_SINK.format(device=device))


def mac_of(namespace: str, device: str) -> str:
    """Return a device's MAC address, with colons."""
    lines = run_tool("ip", "-br", "link", "show", device, namespace=namespace)
    return lines[0].split()[2]


def packets_in(namespace: str, device: str) -> int:
    """Return how many packets a device has received."""
    with entered(namespace):
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    line = next(line for line in lines if line.strip().startswith(f"{device}:"))
    return int(line.split(":")[1].split()[1])


def _know_neighbour(namespace: str, device: str, address: str, mac: str) -> None:
    words = ("neighbour", "replace", address, "lladdr", mac, "dev", device, "nud", "permanent")
    run_tool("ip", *words, namespace=namespace)


def _port(device: str, namespace: str, address: str) -> Port:
    return Port(device, namespace, address=IPv4Interface(address))
