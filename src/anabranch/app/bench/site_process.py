"""A site of its own for a measurement or a test: another process, other names, other ports."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from anabranch.app.bench.claims import Claim
from anabranch.core.errors import UnavailableError

_LIMIT = 60.0
_SITES = 32


class SiteProcess:
    """``anabranch up`` as a child process, with a state of its own that is removed afterwards."""

    def __init__(self, **settings: str) -> None:
        """Prepare; ``settings`` are ``ANABRANCH_*`` variables without their prefix."""
        self.name = f"t{secrets.token_hex(2)}"
        # Short: Unix socket paths end at 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="ab", dir="/tmp"))
        # Of no other site at the same time, and below the ports that the kernel gives away.
        self._claim = Claim("site", _SITES)
        third = 20 + 6 * self._claim.number
        base = 20000 + 300 * self._claim.number
        self.port = base + 299
        defaults = {
            "SITE": self.name,
            "LISTEN": f"[::]:{self.port}",
            "PUBLIC_ADDRESS": "none",
            "STATE_DIR": str(self.directory / "state"),
            "RUN_DIR": str(self.directory / "run"),
            "ADDRESSES__OVERLAY": f"10.98.{third}.0/24",
            "ADDRESSES__ACCESS": f"10.97.{third}.0/24",
            "PORTS__MEDIA": f"{base}-{base + 99}",
            "PORTS__INLETS": f"{base + 100}-{base + 199}",
            "PORTS__SRT": f"{base + 200}-{base + 219}",
            "PORTS__RTP": f"{base + 220}-{base + 239}",
            "PORTS__HANDOVER": f"{base + 240}-{base + 279}",
            "PORTS__WHIP": str(base + 297),
            "PORTS__RTMP": str(base + 298),
            "LOG__FORMAT": "json",
        }
        values = defaults | {name.upper(): value for name, value in settings.items()}
        self.environment = {f"ANABRANCH_{name}": value for name, value in values.items()}
        self.settings = values
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        scheme = "https" if self.settings.get("TLS__ENABLED") == "true" else "http"
        return f"{scheme}://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def run_dir(self) -> Path:
        return Path(self.settings["RUN_DIR"])

    def start(self, prefix: Sequence[str] = ()) -> float:
        """Start it and return the seconds until its channels are on the air.

        Those that wait for a publisher are not waited for.

        Raises:
            UnavailableError: it ended, or was not on the air in a minute; with its last words.
        """
        began = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "anabranch", "up"],
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        answer: object = None
        while time.monotonic() - began < _LIMIT:
            if self.process.poll() is not None:
                break
            try:
                channels = self._get("/api/channels").json()["channels"]
                if all(map(_as_live_as_can_be, channels)):
                    return time.monotonic() - began
                answer = [(each["name"], each["state"], each["detail"]) for each in channels]
            except httpx.TransportError as error:
                answer = error
            time.sleep(0.05)
        words = self.log.read_text(errors="replace").strip().splitlines()
        self.stop()
        raise UnavailableError(
            f"the site did not come up: {' | '.join(words[-3:])}; its last answer: {answer!r}"
        )

    def _get(self, path: str) -> httpx.Response:
        # Its certificate, if it has one, was generated for it just now.
        return httpx.get(self.url + path, timeout=2.0, verify=False)  # noqa: S501

    def stop(self) -> int | None:
        """End it as Ctrl-C does; return its exit code."""
        process, self.process = self.process, None
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            return process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def kill(self) -> None:
        """End it as kill -9 does: what it made stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def command(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run an ``anabranch`` command about this site."""
        return subprocess.run(
            [sys.executable, "-m", "anabranch", *arguments],
            env=os.environ | self.environment | {"COLUMNS": "200"},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request with the operator's token."""
        return httpx.request(method, self.url + path, headers=self.bearer, timeout=20.0, **options)

    @property
    def bearer(self) -> dict[str, str]:
        """The header with the operator's token."""
        token = (Path(self.settings["STATE_DIR"]) / "token").read_text().strip()
        return {"Authorization": f"Bearer {token}"}

    def post(self, path: str, **options: Any) -> httpx.Response:
        """Send what anybody may send."""
        return httpx.post(self.url + path, timeout=20.0, **options)

    def remove(self) -> None:
        """End it and remove everything, whatever state it is in."""
        self.stop()
        self.command("down")
        shutil.rmtree(self.directory, ignore_errors=True)
        self._claim.release()


@contextmanager
def running_site(**settings: str) -> Iterator[SiteProcess]:
    """Give a site that is on the air, and remove it afterwards."""
    site = SiteProcess(**settings)
    try:
        site.start()
        yield site
    finally:
        site.remove()


def _as_live_as_can_be(channel: dict[str, Any]) -> bool:
    return bool(channel["state"] == "live" or channel["detail"] == "waiting for a publisher")
