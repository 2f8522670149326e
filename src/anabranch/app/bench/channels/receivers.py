"""Five hundred receivers on this machine: counted by the kernel, and one of them looked at.

A table of nftables counts the packets for each port and drops them, unseen by anybody: but for
one port, whose packets are read with the time at which they came.
"""

import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from anabranch.app.bench.site_process import SiteProcess
from anabranch.core.errors import UnavailableError

FIRST_PORT = 41000
STEP = 4
"""Ports of one receiver: picture, and sound two above."""
_TABLE = "anabranch_bench"
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_BUFFER = 2**24
_TIME = struct.Struct("@qq")
_SSRC_AT = 8
_DRAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet: when it came (time of day, seconds) and of which stream (SSRC)."""

    at: float
    ssrc: int


@dataclass
class Receivers:
    """``count`` receivers; number 0 is looked at.

    Attributes:
        arrivals: what came to number 0, in order.
    """

    count: int
    arrivals: list[Arrival] = field(default_factory=list)

    def port(self, number: int) -> int:
        return FIRST_PORT + STEP * number

    def url(self, number: int) -> str:
        return f"rtp://127.0.0.1:{self.port(number)}"

    def counted(self) -> dict[int, int]:
        """Return how many packets of pictures came to each of the others, by number."""
        packets = self._packets()
        return {number: packets.get(self.port(number), 0) for number in range(1, self.count)}

    def counted_sound(self) -> int:
        """Return how many packets of sound came to number 1."""
        return self._packets().get(self.port(1) + 2, 0)

    def _packets(self) -> dict[int, int]:
        found = json.loads(_nft("-j", "list", "set", "ip", _TABLE, "seen"))
        elements = next(item["set"] for item in found["nftables"] if "set" in item).get("elem", ())
        return {
            int(each["elem"]["val"]): int(each["elem"]["counter"]["packets"]) for each in elements
        }


@contextmanager
def receivers(count: int) -> Iterator[Receivers]:
    """Give receivers, and remove their table afterwards.

    Raises:
        UnavailableError: this is not root.
    """
    made = Receivers(count)
    first, last = made.port(0), made.port(count) - 1
    _nft("-f", "-", stdin=f"""
table ip {_TABLE}
delete table ip {_TABLE}
table ip {_TABLE} {{
  set seen {{ type inet_service; flags dynamic; counter; size 65535; }}
  chain prerouting {{
    type filter hook prerouting priority -400; policy accept;
    udp dport {first} accept
    udp dport {first}-{last} update @seen {{ udp dport }} drop
  }}
}}
""")  # fmt: skip
    ended = threading.Event()
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    end.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    end.bind(("0.0.0.0", first))
    end.settimeout(0.2)
    reader = threading.Thread(target=_read, args=(end, made.arrivals, ended), name="mover")
    reader.start()
    try:
        yield made
    finally:
        ended.set()
        reader.join()
        end.close()
        _nft("delete", "table", "ip", _TABLE)


def _read(end: socket.socket, arrivals: list[Arrival], ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            data, extra, _, _ = end.recvmsg(2048, 64)
        except TimeoutError:
            continue
        if len(data) >= _SSRC_AT + 4:
            seconds, ns = _TIME.unpack(extra[0][2])
            (ssrc,) = struct.unpack_from("!I", data, _SSRC_AT)
            arrivals.append(Arrival(seconds + ns / 1e9, ssrc))


@contextmanager
def encoders_still(site: SiteProcess) -> Iterator[None]:
    """Have a site's encoders send nothing for a moment: all that was sent has come."""
    children: Mapping[str, dict[str, int]] = site.api("GET", "/api/site").json()["children"]
    pids = [child["pid"] for name, child in children.items() if name.startswith("encoder:")]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(_DRAIN_S)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def links(site: SiteProcess) -> dict[str, int]:
    """Return the packets sent over each inner link, by node and device."""
    return {
        f"{port['node']}/{port['device']}": port["tx_packets"]
        for port in site.api("GET", "/api/ports").json()
        if port["device"] != "sw-host"
    }


def until_free(site: SiteProcess, limit_s: float) -> float:
    """Wait until a site has no plain seats; return the seconds that it took.

    Raises:
        UnavailableError: it has, after ``limit_s``.
    """
    began = time.monotonic()
    while any(seat["kind"] == "plain" for seat in site.api("GET", "/api/seats").json()):
        if time.monotonic() - began > limit_s:
            raise UnavailableError(f"there are still seats after {limit_s:g} s")
        time.sleep(0.05)
    return time.monotonic() - began


def _nft(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["nft", *arguments], input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["it fails"]
        raise UnavailableError(f"nft: {words[-1]}")
    return done.stdout
