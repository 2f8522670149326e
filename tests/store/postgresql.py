"""Debian's PostgreSQL as nobody, on a port of this machine alone."""

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

USER, PASSWORD = "anabranch", "s3cret/and@odd"
_QUOTED = "s3cret%2Fand%40odd"


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    directory: Path
    port: int

    @property
    def store_url(self) -> str:
        return self.url().replace("postgresql:", "postgresql+psycopg:")

    def url(self, port: int | None = None) -> str:
        return f"postgresql://{USER}:{_QUOTED}@127.0.0.1:{port or self.port}/postgres"

    def _control(self, *arguments: str) -> None:
        _as_nobody(
            str(_programs() / "pg_ctl"), "-D", str(self.directory / "data"), "-w", *arguments
        )

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off"
        options += " -c unix_socket_directories="
        self._control("-l", str(self.directory / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._control("-m", "immediate", "stop")


def _programs() -> Path:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.fail("PostgreSQL is missing: apt-get install postgresql")
    return programs[-1]


def _as_nobody(*argv: str) -> None:
    subprocess.run(["runuser", "-u", "nobody", "--", *argv], check=True, capture_output=True)


@contextmanager
def postgresql() -> Iterator[Server]:
    """Run a server; what it has is in a directory of its own, which pytest's would hide from it."""
    with tempfile.TemporaryDirectory(prefix="ab-pg") as name:
        directory = Path(name)
        directory.chmod(0o777)
        password = directory / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        initdb = str(_programs() / "initdb")
        way = ("--auth=scram-sha-256", f"--pwfile={password}")
        _as_nobody(initdb, "-D", str(directory / "data"), "-U", USER, *way)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        server = Server(directory, port)
        server.start()
        try:
            yield server
        finally:
            server.stop()
