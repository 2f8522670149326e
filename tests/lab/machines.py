"""Machines that are namespaces, one of them behind a NAT.

root's machine ---- internet (routes, masquerades) ---- home
  198.18.n.1            198.18.n.254 | 192.168.44.1       192.168.44.2

``internet`` masquerades what comes from ``home``, and knows no way back but by its answers: nobody
can dial ``home``. The root's machine is the namespace that the tests run in.
"""

import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.lab.inside import socket_in
from tests.lab.two_bridges import packet_socket, run

from anabranch.app.bench.claims import Claim

HOME_ADDRESS = "192.168.44.2"
_SO_RCVBUFFORCE = 33


@dataclass
class Machines:
    """Names carry ``tag``, so that several tests can have machines at once."""

    tag: str = field(default_factory=lambda: secrets.token_hex(2))
    claim: Claim = field(default_factory=lambda: Claim("machines", 200))

    @property
    def root_address(self) -> str:
        return f"198.18.{self.claim.number}.1"

    @property
    def nat_address(self) -> str:
        """What those at home seem to have."""
        return f"198.18.{self.claim.number}.254"

    @property
    def internet(self) -> str:
        return f"abx-{self.tag}-net"

    @property
    def home(self) -> str:
        return f"abx-{self.tag}-home"

    @property
    def wan(self) -> str:
        """The device of ``internet`` that leads to the root's machine."""
        return f"wan{self.tag}"

    @property
    def uplink(self) -> str:
        """The device of the root's machine that leads to ``internet``."""
        return f"abx{self.tag}"

    def build(self) -> None:
        for name in (self.internet, self.home):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "link", "add", self.uplink, "type", "veth", "peer", "name", self.wan,
            "netns", self.internet)  # fmt: skip
        run("ip", "link", "add", "lan0", "netns", self.internet, "type", "veth", "peer", "name",
            "eth0", "netns", self.home)  # fmt: skip
        run("ip", "addr", "add", f"{self.root_address}/24", "dev", self.uplink)
        run("ip", "link", "set", self.uplink, "up")
        for name, device, address in (
            (self.internet, self.wan, f"{self.nat_address}/24"),
            (self.internet, "lan0", "192.168.44.1/24"),
            (self.home, "eth0", f"{HOME_ADDRESS}/24"),
        ):
            run("ip", "-n", name, "addr", "add", address, "dev", device)
            run("ip", "-n", name, "link", "set", device, "up")
        run("ip", "-n", self.home, "route", "add", "default", "via", "192.168.44.1")
        run("ip", "netns", "exec", self.internet, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        rules = (
            "table ip nat { chain post { type nat hook postrouting priority srcnat;"
            f' oifname "{self.wan}" masquerade; }}; }}\n'
            "table ip door { chain forward { type filter hook forward priority 0; policy accept;"
            f' iifname "{self.wan}" ct state new drop; }}; }}'
        )
        command = ["ip", "netns", "exec", self.internet, "nft", "-f", "-"]
        subprocess.run(command, input=rules, text=True, check=True)

    def remove(self) -> None:
        for name in (self.home, self.internet):
            subprocess.run(["ip", "netns", "delete", name], check=False)
        with suppress(AssertionError):  # it goes with its peer
            run("ip", "link", "delete", self.uplink)
        self.claim.release()

    @contextmanager
    def overheard(self) -> Iterator[list[bytes]]:
        """Give every frame between the NAT and the root's machine, both ways, once it has ended."""
        tap = socket_in(self.internet, packet_socket(self.wan))
        tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 * 1024 * 1024)
        tap.settimeout(0.1)
        heard: list[bytes] = []
        ended = threading.Event()

        def listen() -> None:
            while not ended.is_set():
                with suppress(TimeoutError):
                    heard.append(tap.recv(65535))
            tap.setblocking(False)  # what waits was sent before the end
            with suppress(BlockingIOError):
                while True:
                    heard.append(tap.recv(65535))

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            yield heard
        finally:
            ended.set()
            listener.join()
            tap.close()


@contextmanager
def machines() -> Iterator[Machines]:
    made = Machines()
    try:
        made.build()
        yield made
    finally:
        made.remove()
