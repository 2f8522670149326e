"""Debian's nats-server on loopback."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class NatsServer:
    """A server with the configuration ``directory/nats.conf``; it can be restarted."""

    def __init__(self, directory: Path, host: str = "127.0.0.1") -> None:
        self._host = host
        self.configuration = directory / "nats.conf"
        self._log = directory / "nats.log"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server((host, 0)) as free:
            self.port: int = free.getsockname()[1]

    def start(self) -> None:
        program = shutil.which("nats-server", path="/usr/sbin:/usr/bin:/usr/local/bin")
        if program is None:
            pytest.fail("nats-server is missing: apt-get install nats-server")
        argv = [program, "-c", str(self.configuration), "-l", str(self._log)]
        self._process = subprocess.Popen(argv)
        while not self._listens():
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(0.02)

    def reload(self) -> None:
        """Have it read its configuration anew."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self._host, self.port)) == 0


@contextmanager
def nats_server(directory: Path, host: str = "127.0.0.1") -> Iterator[NatsServer]:
    server = NatsServer(directory, host)
    try:
        yield server
    finally:
        server.kill()
