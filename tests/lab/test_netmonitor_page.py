"""NetMonitor over two nodes with a router between, and its page in a browser beside the sender.

sender s --- node a --- plain router r --- node b --- d, who sends
"""

import json
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.lab.inside import socket_in
from tests.lab.page import BrowserThread
from tests.lab.service_path import DESTINATION, SENDER, WEB_PORT, WholeNodes
from tests.lab.test_portal_access import AXE, TAGS, report
from tests.waiting import wait_until

from anabranch.services import modules
from anabranch.services.archive import pack

pytestmark = pytest.mark.lab
PACKETS = 200


class MonitorPath(WholeNodes):
    def user(self, name: str) -> dict[str, Any]:
        return {"filter_prefixes": [f"{SENDER}/32"]}

    @contextmanager
    def monitor(self) -> Iterator[None]:
        archive = pack(Path(modules.__file__).parent / "netmonitor").sign("janedoe", self.key)
        (self.web / "monitor.abm").write_bytes(bytes(archive))
        process = self.provide(
            "monitor", str(DESTINATION), "--url", f"http://{SENDER}:{WEB_PORT}/monitor.abm",
            "--archive", str(self.web / "monitor.abm"), "--filter", "udp:5060",
            "--interval", "0.5",
        )  # fmt: skip
        try:
            wait_until(lambda: len(self.snapshot().get("nodes", ())) == 2)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        assert process.returncode == 0

    def snapshot(self) -> dict[str, Any]:
        done = subprocess.run(
            ("ip", "netns", "exec", self.netns("s"), "curl", "-sS",
             "http://127.0.0.1:8089/api/monitor"),
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def send(self) -> None:
        user = socket_in(self.netns("d"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with user:
            for _ in range(PACKETS):
                user.sendto(b"x" * 20, (str(SENDER), 5060))
                time.sleep(0.002)


@pytest.fixture
def path() -> Iterator[MonitorPath]:
    with tempfile.TemporaryDirectory(prefix="ab-monitor-") as name:
        Path(name).chmod(0o755)
        made = MonitorPath(Path(name))
        try:
            made.build()
            yield made
        finally:
            made.close()


def test_the_page_shows_what_each_node_counts(path: MonitorPath) -> None:
    with path.monitor():
        path.send()
        wait_until(lambda: all(n["packets"] >= PACKETS for n in path.snapshot()["nodes"]))
        found = path.snapshot()
        flow = found["flows"][0]
        assert (flow["source"], flow["destination"]) == (str(DESTINATION), str(SENDER))
        # b sees them first, with a router less behind them
        assert [(each["node"][0], each["ttl"]) for each in flow["seen"]] == [("a", 62), ("b", 64)]
        assert [each["packets"] for each in flow["seen"]] == [PACKETS] * 2
        looked_at(path)
    said = path.command("probe", str(DESTINATION), "--json")
    assert [hop["details"]["modules"] for hop in json.loads(said.stdout)] == ["none", "none"]


def looked_at(path: MonitorPath) -> None:
    browser = BrowserThread(path.netns("s"))
    try:
        for scheme, width in (("light", 1280), ("dark", 390)):
            browser.do(lambda s=scheme, w=width: look(browser.browser, s, w))
    finally:
        browser.close()


def look(browser: Any, scheme: str, width: int) -> None:
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto("http://127.0.0.1:8089/")
    page.wait_for_selector("#flows tr")
    assert page.locator("#nodes h3").count() == 2
    assert f"{PACKETS} packets" in page.locator("#flows tr").first.inner_text()
    page.evaluate(AXE.read_text())
    found = page.evaluate(f"axe.run(document, {{runOnly: {TAGS!r}, iframes: false}})")
    assert report(found) == []
    assert errors == []
    page.close()
