"""``bench signalling``: the sessions that a node holds, and the requests that it answers.

Sender, node and the end of the path are processes in namespaces of their own; the node has one
core, all the others share the second. Queries are taken off the path by netfilter, as on a router.
"""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from anabranch.app.bench.report import Peer, Result
from anabranch.core.errors import UnavailableError
from anabranch.host.network import (
    Port,
    entered,
    make_link,
    make_namespace,
    remove_namespace,
    run_tool,
)
from anabranch.services.keys import PrivateKey

SESSIONS = 50_000
REFRESH_S = 120.0
_OPENED_PER_S = 1000
REQUESTS = 20_000
_AT_A_TIME = 64
_SENDER, _NODE, _END = "10.77.1.1", "10.77.2.1", "10.77.2.2"
_DESTINATIONS = "10.80.0.0"  # /14, one for each session


def parts() -> dict[str, tuple[Callable[[int], list[Result]], int]]:
    """Return both measurements by name: what to call, and how many samples are usual."""
    return {"sessions": (_sessions, SESSIONS), "requests": (_requests, REQUESTS)}


def measure(samples: int | None = None) -> list[Result]:
    """Hold sessions for more than one refresh, then ask as fast as a node answers.

    Raises:
        UnavailableError: a process does not do its part, or this is not root.
    """
    return [
        result
        for function, usual in parts().values()
        for result in function(usual if samples is None else samples)
    ]


def _sessions(sessions: int) -> list[Result]:
    with _path() as netns:
        return list(_hold(netns, sessions))


def _requests(requests: int) -> list[Result]:
    with TemporaryDirectory() as directory, _path() as netns:
        return list(_ask(netns, Path(directory), requests))


def _hold(netns: dict[str, str], sessions: int) -> Iterator[Result]:
    with (
        _host(netns["end"], "last", {"core": 1, "refresh": REFRESH_S}),
        _host(netns["node"], "middle", {"core": 0, "refresh": REFRESH_S}) as node,
        _host(netns["sender"], "opener", {"core": 1, "refresh": REFRESH_S}) as opener,
    ):
        empty = node.ask({})
        command = {"source": _SENDER, "first": _DESTINATIONS, "sessions": sessions}
        opened = opener.ask({**command, "rate": _OPENED_PER_S})
        time.sleep(5.0)
        full = node.ask({})
        time.sleep(REFRESH_S)
        held = node.ask({})
    cpu = (held["cpu"] - full["cpu"]) / REFRESH_S
    per_session = (held["rss"] - empty["rss"]) / max(1, held["sessions"]) / 1024
    refreshed = (held["datagrams"] - full["datagrams"]) / REFRESH_S
    n = sessions
    yield Result("signalling_sessions", "sessions", n, held["complete"], target=">= 50000")
    yield Result("session_kb", "KiB", n, round(per_session, 2), target="<= 2.4")
    yield Result("sessions_opened_per_s", "1/s", n, round(sessions / opened["took"]))
    yield Result("refresh_datagrams_per_s", "1/s", n, round(refreshed))
    yield Result("refresh_cpu", "% of one core", n, round(100 * cpu, 1))


def _ask(netns: dict[str, str], directory: Path, requests: int) -> Iterator[Result]:
    key = directory / "key.pem"
    PrivateKey.generate().store(key)
    with (
        _host(netns["node"], "service", {"core": 0, "key": str(key)}) as service,
        _host(netns["sender"], "asker", {"core": 1, "key": str(key)}) as asker,
    ):
        limit = service.ask({})["verifications"]
        command = {"source": _SENDER, "destination": _END, "at_a_time": _AT_A_TIME}
        asker.ask({**command, "requests": 1000})
        done = asker.ask({**command, "requests": requests})
    if done["refused"]:
        raise UnavailableError(f"{done['refused']} of {done['answered']} requests were refused")
    peer = Peer("checking their signatures, nothing else", round(limit))
    rate = round(done["answered"] / done["took"])
    yield Result("signalling_msgs_per_s", "1/s", requests, rate, target=">= 2000", peer=peer)


class _Host:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send a command and return the answer to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise UnavailableError("a process of the benchmark ended; it says why above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def _host(netns: str, role: str, more: dict[str, Any]) -> Iterator[_Host]:
    argv = (sys.executable, "-m", "anabranch.app.bench.signalling.host", role, json.dumps(more))
    with entered(netns):  # which is the child's from its beginning
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        host = _Host(process)
        host.read()
        yield host
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _path() -> Iterator[dict[str, str]]:
    """Make sender, node and end, in a row."""
    prefix = f"ab-g{secrets.token_hex(3)}"
    netns = {name: f"{prefix}-{name}" for name in ("sender", "node", "end")}
    try:
        for name in netns.values():
            make_namespace(name)
        _join(netns["sender"], netns["node"], 1)
        _join(netns["node"], netns["end"], 2)
        run_tool("ip", "route", "add", "default", "via", "10.77.1.2", namespace=netns["sender"])
        run_tool("sysctl", "-qw", "net.ipv4.ip_forward=1", namespace=netns["node"])
        run_tool("ip", "route", "add", "default", "via", _END, namespace=netns["node"])
        run_tool("ip", "route", "add", "default", "via", _NODE, namespace=netns["end"])
        local = ("local", f"{_DESTINATIONS}/14", "dev", "lo")
        run_tool("ip", "route", "add", *local, namespace=netns["end"])
        yield netns
    finally:
        for name in netns.values():
            remove_namespace(name)


def _join(left: str, right: str, subnet: int) -> None:
    make_link(
        Port("right", left, address=IPv4Interface(f"10.77.{subnet}.1/24")),
        Port("left", right, address=IPv4Interface(f"10.77.{subnet}.2/24")),
    )
