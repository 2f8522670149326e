"""What breaks comes back, without the viewer doing anything; and nothing is left at the end."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from tests.lab.page import Watching

from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.site.plan import tag_of

pytestmark = pytest.mark.lab


@pytest.mark.parametrize(
    "victim",
    [
        "leaf",
        "encoder:test1",
        pytest.param("ingest:test1", marks=pytest.mark.proof),
        "vswitchd-leaf",
        pytest.param("relay-vswitchd", marks=pytest.mark.proof),
    ],
)
def test_a_killed_part_is_back_within_5_s(site: SiteProcess, watch: Watching, victim: str) -> None:
    page = watch(site.url, "test1")
    page.wait_for_picture()
    time.sleep(1.5)
    (seat,) = [s for s in site.api("GET", "/api/seats").json() if s["channel"] == "test1"]
    name = {"leaf": f"leaf:{seat['leaf']}", "vswitchd-leaf": f"{seat['leaf']}-vswitchd"}.get(
        victim, victim
    )
    pid = site.api("GET", "/api/site").json()["children"][name]["pid"]
    other = watch(site.url, "test2") if victim in {"encoder:test1", "ingest:test1"} else None
    if other is not None:
        other.wait_for_picture()
    os.kill(pid, signal.SIGKILL)
    assert page.outage(8.0) < 5.5  # 5 s, and the half second that it takes to be sure
    assert page.evaluate("performance.getEntriesByType('navigation')[0].type") == "navigate"
    if other is not None:  # other channels do not notice
        assert other.stats()["packetsLost"] == 0
        assert page.evaluate("window.anabranch.reconnects") in (0, 1)
        assert other.evaluate("window.anabranch.reconnects") == 0
    children = site.api("GET", "/api/site").json()["children"]
    assert children[name]["pid"] not in (None, pid)


def namespaces(name: str) -> list[str]:
    text = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    return [line for line in text.splitlines() if line.startswith(f"ab-{name}-")]


def marked(site: SiteProcess) -> list[str]:
    """Processes of this machine that have a file of the site's directory in their arguments."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if any(str(site.directory) in word for word in words):
            found.append(" ".join(words)[:100])
    return found


def links(site: str) -> set[str]:
    """Return the devices of a site outside its namespaces; other sites may have theirs."""
    return {name for _, name in socket.if_nameindex() if name.startswith(f"ab{tag_of(site):04x}-")}


def tables() -> str:
    return subprocess.run(
        ["nft", "list", "tables"], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def own_site() -> Iterator[SiteProcess]:
    site = SiteProcess(public_address="127.0.0.1")
    yield site
    site.remove()


def nothing_left(site: SiteProcess) -> None:
    assert namespaces(site.name) == []
    assert marked(site) == []
    assert links(site.name) == set()
    assert f"anabranch_{site.name}" not in tables()
    assert not site.run_dir.exists()


def test_ctrl_c_leaves_nothing_and_it_starts_again(own_site: SiteProcess) -> None:
    own_site.start()
    assert len(namespaces(own_site.name)) == 4
    assert len(links(own_site.name)) == 2
    assert own_site.stop() == 0
    nothing_left(own_site)
    own_site.start()
    assert own_site.command("down").returncode == 0
    assert own_site.process is not None
    assert own_site.process.wait(5) == 0
    nothing_left(own_site)


def test_forwarding_stays_while_another_site_needs_it() -> None:
    switch = Path("/proc/sys/net/ipv4/ip_forward")
    before = switch.read_text()
    with (
        running_site(public_address="127.0.0.1") as one,
        running_site(public_address="127.0.0.1"),
    ):
        assert one.stop() == 0
        assert switch.read_text().strip() == "1"
    assert switch.read_text() == before


def test_a_hanging_leaf_server_is_replaced(site: SiteProcess) -> None:
    name = "leaf:leaf1"
    pid = site.api("GET", "/api/site").json()["children"][name]["pid"]
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 15
    while site.api("GET", "/api/site").json()["children"][name]["pid"] in (pid, None):
        assert time.monotonic() < end
        time.sleep(0.2)


def test_down_cleans_up_after_kill_9(own_site: SiteProcess) -> None:
    own_site.start()
    own_site.kill()
    assert marked(own_site)  # the network forwards on without its director
    assert len(namespaces(own_site.name)) == 4
    done = own_site.command("down")
    assert done.returncode == 0, done.stderr
    nothing_left(own_site)
    assert "Nothing was up" in own_site.command("down").stdout


def test_a_new_start_goes_on_after_kill_9(own_site: SiteProcess) -> None:
    own_site.start()
    own_site.kill()
    own_site.start()
    assert len(namespaces(own_site.name)) == 4
    second = subprocess.run(
        [sys.executable, "-m", "anabranch", "up"],
        env=os.environ | own_site.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert second.returncode == 1
    assert "running already" in second.stderr


def test_a_taken_port_is_said_and_leaves_nothing(own_site: SiteProcess) -> None:
    with socket.socket() as blocker:
        blocker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        blocker.bind(("0.0.0.0", own_site.port))
        blocker.listen()
        done = own_site.command("up")
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert "ANABRANCH_LISTEN" in done.stderr
    nothing_left(own_site)


def test_without_root_a_picture_all_the_same(watch: Watching) -> None:
    """As nobody, who may read this checkout but change nothing; and with no switch."""
    site = SiteProcess(log__level="debug")
    as_nobody = [
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
        *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
        *("--bounding-set=-all,+dac_read_search", "--no-new-privs"),
    ]
    os.chown(site.directory, 65534, 65534)
    try:
        site.start(as_nobody)
        assert site.process is not None
        assert psutil.Process(site.process.pid).uids().effective == 65534
        assert site.api("GET", "/api/site").json()["carriage"] == "direct"
        assert "not root" in site.log.read_text()
        page = watch(site.url, "test1")
        page.wait_for_picture()
        time.sleep(1)
        assert page.has_clock()
        assert site.stop() == 0
        assert marked(site) == []
    finally:
        site.remove()


def test_https_with_a_generated_certificate(watch: Watching) -> None:
    with running_site(carriage="direct", tls__enabled="true") as site:
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{site.port}/api/channels")
        assert site.command("status").returncode == 0  # the command line trusts just this one
        key = Path(site.settings["STATE_DIR"]) / "certificate.key"
        assert key.stat().st_mode & 0o077 == 0
        page = watch(f"https://127.0.0.1:{site.port}", "test1")
        page.wait_for_picture()


@pytest.fixture
def other_computer() -> Iterator[str]:
    """A namespace that reaches this machine at 10.96.0.1 and nothing beyond."""
    name, device = f"ab-pc{secrets.token_hex(2)}", f"abpc{secrets.token_hex(2)}"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", "10.96.0.1/30", "dev", device)
        ip("link", "set", device, "up")
        ip("-n", name, "addr", "add", "10.96.0.2/30", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        yield name
    finally:
        subprocess.run(["ip", "link", "del", device], check=False)
        ip("netns", "del", name)


def test_another_computer_watches_through_forwarded_ports(other_computer: str) -> None:
    with running_site(public_address="10.96.0.1") as site:
        done = subprocess.run(
            [
                *("nsenter", f"--net=/run/netns/{other_computer}", "--"),
                *(sys.executable, "-m", "tests.lab.viewer"),
                f"http://10.96.0.1:{site.port}/whep/test1",
            ],
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-500:]
        assert "640x360" in done.stdout
        assert site.command("doctor").returncode == 0
