"""Controllers under measurement: each a process of its own, ended afterwards."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from anabranch.core.errors import UnavailableError

OWN = "anabranch.app.bench.fabric.own_controller"
OS_KEN = "anabranch.app.bench.fabric.osken_controller"
_PATIENCE_S = 10.0


@contextmanager
def python(
    module: str, *arguments: str, netns: str | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a module of ours, in a namespace if one is named; its first line is awaited.

    Raises:
        UnavailableError: it ends before it has printed one.
    """
    within = [] if netns is None else ["nsenter", f"--net=/run/netns/{netns}", "--"]
    process = subprocess.Popen(
        [*within, sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        if not process.stdout.readline():
            last = process.stderr.read().strip().splitlines()[-1:]
            raise UnavailableError(f"{module} does not start: {' '.join(last)}")
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def controller(module: str) -> Iterator[int]:
    """Run a controller; give its TCP port.

    Raises:
        UnavailableError: it does not come up.
    """
    port = free_port()
    with python(module, str(port)):
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                yield port
                return
        raise UnavailableError(f"{module} does not listen")


def free_port() -> int:
    """Return a TCP port that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
