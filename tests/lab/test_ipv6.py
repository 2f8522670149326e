"""Viewers and publishers on other computers by IPv6 alone; and where there is none, all as before.

this machine ---- by6 (2001:db8:96::2, nothing else)
             ---- by4 (10.96.1.2, nothing else)
"""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from tests.lab.computer import Computer
from tests.lab.inside import inside, socket_in
from tests.lab.page import BrowserThread, Watching
from tests.lab.test_site_failures import nothing_left
from tests.lab.test_site_feed import add, state
from tests.lab.two_bridges import run
from tests.waiting import wait_until

from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.site.settings import ACCESS_6

pytestmark = pytest.mark.lab
HERE_6, THERE_6 = "2001:db8:96::1", "2001:db8:96::2"
HERE_4, THERE_4 = "10.96.1.1", "10.96.1.2"
KEY = "secretkeyofthestage0001"
_FORWARDING = Path("/proc/sys/net/ipv6/conf/all/forwarding")
_IPV6 = 0x86DD


@pytest.fixture(scope="module")
def by6() -> Iterator[Computer]:
    made = Computer(HERE_6, THERE_6, 64)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def by4() -> Iterator[Computer]:
    made = Computer(HERE_4, THERE_4, 24)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def both_site(by6: Computer, by4: Computer) -> Iterator[SiteProcess]:
    before = _FORWARDING.read_text()
    with running_site(public_address=f"{HERE_4}, {HERE_6}", ingress__enabled="true") as site:
        yield site
        assert site.stop() == 0
        nothing_left(site)
    assert _FORWARDING.read_text() == before


def candidates(answer: str) -> set[str]:
    """Return the addresses that an answer names, as candidates or otherwise."""
    found = set(re.findall(r"^a=candidate:\S+ 1 udp \d+ (\S+) ", answer, re.MULTILINE))
    assert set(re.findall(r"^c=IN IP[46] (\S+)\r?$", answer, re.MULTILINE)) <= found | {"0.0.0.0"}
    return found


def watching(command: list[str], url: str, answer: Path) -> subprocess.Popen[str]:
    """Have a viewer watch, and keep the answer that it gets."""
    argv = [*command, sys.executable, "-m", "tests.lab.viewer", url, "25", str(answer)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def watched(viewer: subprocess.Popen[str]) -> None:
    """Wait until a viewer has seen enough."""
    said, errors = viewer.communicate(timeout=60)
    assert viewer.returncode == 0, errors[-800:]
    assert said == "640x360\n"


def test_viewers_by_either_family_watch_side_by_side(
    both_site: SiteProcess, by6: Computer, by4: Computer, tmp_path: Path
) -> None:
    leaves = [f"ab-{both_site.name}-{leaf}" for leaf in ("leaf1", "leaf2")]
    with ExitStack() as stack:
        taps = [stack.enter_context(socket_in(leaf, arrivals)) for leaf in leaves]
        answers = [tmp_path / "by6", tmp_path / "by4"]
        viewers = [
            watching(each.command, f"http://{host}:{both_site.port}/whep/test1", answer)
            for each, host, answer in zip((by6, by4), (f"[{HERE_6}]", HERE_4), answers, strict=True)
        ]
        for viewer in viewers:
            watched(viewer)
        came = {address for tap in taps for address in sources(tap)}
    # Of the addresses behind the forwarding no viewer learns; 10.97... is for this machine itself.
    for answer in answers:
        told = candidates(answer.read_text())
        inner = {each for each in told if each.startswith("10.97.")}
        assert len(inner) == 1
        assert told - inner == {HERE_4, HERE_6}
    # A leaf sees from where its viewers come: nothing is translated but where they send to.
    assert came == {THERE_6}


def arrivals() -> socket.socket:
    """Return a socket for the IPv6 packets that come in by a leaf's link, not for sent ones."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_IPV6))
    made.bind(("access0", _IPV6))
    made.setblocking(False)
    return made


def sources(tap: socket.socket) -> set[str]:
    """Return from which addresses UDP has come."""
    found = set()
    while True:
        try:
            frame = tap.recv(2048)
        except BlockingIOError:
            return found
        if frame[20] == socket.IPPROTO_UDP:
            found.add(str(ip_address(frame[22:38])))


def test_chromium_plays_by_ipv6_alone(both_site: SiteProcess, by6: Computer) -> None:
    browser = BrowserThread(by6.name)
    try:
        watch = Watching(browser)
        page = watch(f"http://[{HERE_6}]:{both_site.port}", "test1")
        page.wait_for_picture(40.0)  # of a browser that has just been started
        wait_until(lambda: page.stats()["width"] == 640)
        wait_until(lambda: page.stats()["lossPercent"] == 0)  # not known at once
        watch.close()
    finally:
        browser.close()


def test_what_this_machine_itself_sends_is_forwarded_too(both_site: SiteProcess) -> None:
    first = int(both_site.settings["PORTS__MEDIA"].split("-")[0])
    leaf = f"ab-{both_site.name}-leaf1"
    with (
        socket_in(leaf, arrivals) as tap,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender,
    ):
        sender.sendto(b"neither STUN nor DTLS", (HERE_6, first))
        wait_until(lambda: sources(tap) == {HERE_6})


def receiver_of(port: int) -> Callable[[], socket.socket]:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        made.bind(("::", port))
        made.settimeout(10)
        return made

    return make


def ssrc(packet: bytes) -> int:
    return int.from_bytes(packet[8:12], "big")


def test_a_plain_seat_by_ipv6_changes_its_channel_beside_one_by_ipv4(
    both_site: SiteProcess, by6: Computer, by4: Computer
) -> None:
    def take(to: str) -> str:
        body = {"channel": "test1", "to": to, "leaf": "leaf1"}
        answer = both_site.api("POST", "/api/seats", json=body)
        assert answer.status_code == 201, answer.text
        assert answer.json()["to"] == to
        url: str = answer.json()["url"]
        return url

    with (
        closing(socket_in(by6.name, receiver_of(5600))) as six,
        closing(socket_in(by4.name, receiver_of(5600))) as four,
    ):
        seats = [take(f"rtp://[{THERE_6}]:5600"), take(f"rtp://{THERE_4}:5600")]
        packet, sender = six.recvfrom(2000)
        assert ip_address(sender[0]) == ip_address(HERE_6)  # nothing is learned of the leaf
        assert ssrc(packet) == ssrc(four.recv(2000))
        described = both_site.api("GET", f"{seats[0]}.sdp").text
        assert f"c=IN IP6 {THERE_6}" in described
        both_site.api("PATCH", seats[0], json={"channel": "test2"}).raise_for_status()
        other = wait_for(six, lambda got: ssrc(got) != ssrc(packet))
        got = [ssrc(six.recv(2000)) for _ in range(50)]
        assert set(got) == {ssrc(other)}  # never two
        assert ssrc(four.recv(2000)) == ssrc(packet)
        both_site.api("DELETE", seats[1]).raise_for_status()
    # Nobody listens any more, and its machine says so.
    wait_until(lambda: both_site.api("GET", seats[0]).status_code == 404)


def wait_for(receiver: socket.socket, wanted: Callable[[bytes], bool]) -> bytes:
    for _ in range(2000):
        packet = receiver.recv(2000)
        if wanted(packet):
            return packet
    raise AssertionError("it does not come")


def test_a_receiver_by_ipv6_names_itself_and_nobody_else(
    both_site: SiteProcess, by6: Computer
) -> None:
    def ask(to: str) -> int:
        body = json.dumps({"channel": "test1", "to": to})
        return int(
            run(
                *(*by6.command, "curl", "-g", "-s", "-o", "/dev/null", "-w", "%{http_code}"),
                *("-H", "Content-Type: application/json", "-d", body),
                f"http://[{HERE_6}]:{both_site.port}/api/seats",
            )
        )

    with closing(socket_in(by6.name, receiver_of(5604))) as own:
        assert ask(f"udp://[{THERE_6}]:5604") == 201
        assert own.recv(2000)[0] == 0x47
        assert ask("udp://[2001:db8:96::77]:5604") == 403
        assert ask("udp://[ff02::1]:5604") == 422
        assert ask(f"udp://[{ACCESS_6[1]}]:5604") == 422
    wait_until(
        lambda: all(each["kind"] != "plain" for each in both_site.api("GET", "/api/seats").json()),
        limit_s=60,
    )


def test_a_publisher_comes_by_ipv6_and_learns_no_inner_address(
    both_site: SiteProcess, by6: Computer
) -> None:
    add(both_site, "stage", "--from", "whip", "--key", KEY)
    url = f"http://[{HERE_6}]:{both_site.port}/whip/stage"
    one = subprocess.Popen(
        [*by6.command, sys.executable, "-m", "tests.lab.whip_publisher", url, KEY],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert one.stdout is not None
        told = candidates(one.stdout.read())
        assert {HERE_4, HERE_6} <= told
        for address in map(ip_address, told):
            assert not address.is_link_local
            assert address not in ACCESS_6
            assert address not in ip_network(both_site.settings["ADDRESSES__ACCESS"])
        wait_until(lambda: state(both_site, "stage") == "live")
        assert f"[{THERE_6}]:" in both_site.log.read_text()  # from where it came
        report = both_site.api("GET", "/api/ingress").json()
        (door,) = [each for each in report["doors"] if each["protocol"] == "udp"]
        assert door["sessions"] == [THERE_6]
        assert door["passed_bytes"] > 0
        assert report["past"] == []
    finally:
        one.communicate(input="", timeout=20)
    wait_until(lambda: state(both_site, "stage") == "slate")


def test_a_killed_site_leaves_nothing_of_ipv6(by6: Computer) -> None:
    before = _FORWARDING.read_text()
    site = SiteProcess(public_address=HERE_6)
    try:
        site.start()
        assert _FORWARDING.read_text().strip() == "1"
        tables = [line for line in run("nft", "list", "tables").splitlines() if site.name in line]
        assert tables == [f"table ip6 anabranch_{site.name}"]  # and nothing of IPv4
        site.kill()
        assert site.command("down").returncode == 0
        nothing_left(site)
    finally:
        site.remove()
    assert _FORWARDING.read_text() == before


def test_a_machine_whose_ipv6_is_disabled_comes_up_and_says_so(tmp_path: Path) -> None:
    tag = f"abpc{secrets.token_hex(2)}"
    run("ip", "netns", "add", tag)
    site = SiteProcess(public_address="auto")
    try:
        with inside(tag):
            Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
        run("ip", "-n", tag, "link", "set", "lo", "up")
        run("ip", "-n", tag, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        run("ip", "-n", tag, "link", "set", "eth1", "up")
        run("ip", "-n", tag, "addr", "add", "192.0.2.77/24", "dev", "eth0")
        run("ip", "-n", tag, "link", "set", "eth0", "up")
        there = ("nsenter", f"--net=/run/netns/{tag}", "--")
        environment = os.environ | site.environment
        doctor = [*there, sys.executable, "-m", "anabranch", "doctor", "--json"]
        done = subprocess.run(
            doctor, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        (found,) = [each for each in json.loads(done.stdout) if "disable_ipv6" in each["what"]]
        assert found["state"] == "lacks"
        with site.log.open("ab") as log:
            site.process = subprocess.Popen(
                [*there, sys.executable, "-m", "anabranch", "up"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: "On the air" in site.log.read_text())
        tables = subprocess.run(
            [*there, "nft", "list", "tables"], capture_output=True, text=True, check=True
        ).stdout
        assert tables.split() == ["table", "ip", f"anabranch_{site.name}"]
        url = f"http://127.0.0.1:{site.port}/whep/test1"
        watched(watching([*there], url, tmp_path / "answer"))
        told = candidates((tmp_path / "answer").read_text())
        assert "192.0.2.77" in told
        assert not any(":" in each for each in told)
        assert site.stop() == 0
        nothing_left(site)
    finally:
        site.remove()
        run("ip", "netns", "delete", tag)
