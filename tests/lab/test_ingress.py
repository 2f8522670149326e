"""The ingress gateway: who gets through to the listeners, floods, lost producers and back."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.lab.inside import socket_in
from tests.lab.page import Watching
from tests.lab.test_site_feed import RED, add, picture, state
from tests.lab.test_site_feed import publishing as feeding
from tests.waiting import wait_until

from anabranch.app.bench.ingress import (
    SRT_OUTPUT,
    Audience,
    Flooded,
    Neighbour,
    add_channel,
    door,
    flooded,
    losses,
    neighbour,
    wait_for_event,
)
from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.host.process import SYSTEM_PYTHON
from anabranch.site.ingress import LISTENERS_DEVICE
from anabranch.site.plan import tag_of

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
PPS, FLOOD_S = 10_000, 3.0


@pytest.fixture(scope="module")
def site() -> Iterator[SiteProcess]:
    """A site with an ingress; what is sent here needs a tenth of what a producer may send."""
    with running_site(ingress__enabled="true", ingress__rate_mbit="3") as made:
        yield made


@pytest.fixture(scope="module")
def far() -> Iterator[Neighbour]:
    """Another machine."""
    with neighbour() as made:
        yield made


@pytest.fixture
def channel(site: SiteProcess) -> Iterator[Callable[..., dict[str, Any]]]:
    """Adds channels, which are removed afterwards."""
    names: list[str] = []

    def make(name: str, source: str) -> dict[str, Any]:
        names.append(name)
        return add(site, name, "--from", source)

    yield make
    for name in names:
        site.command("channel", "remove", name)


def port_of(made: dict[str, Any]) -> int:
    return int(str(made["source"]).partition(":")[2].partition(" ")[0])


@contextmanager
def publishing(far: Neighbour, *output: str) -> Iterator[subprocess.Popen[bytes]]:
    process = far.publish(*output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def flooding(far: Neighbour, port: int, source: str) -> Iterator[subprocess.Popen[bytes]]:
    module = "anabranch.app.bench.ingress_flood"
    process = subprocess.Popen(
        [
            *(*far.prefix, sys.executable, "-m", module),
            *(far.here, str(port), str(PPS), "60", source),
        ]
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def rtp_to(far: Neighbour, port: int) -> tuple[str, ...]:
    return "-an", "-f", "rtp", f"rtp://{far.here}:{port}?pkt_size=1200"


def send_from(namespace: str | None, to: tuple[str, int], count: int) -> None:
    """Send datagrams from a port of a namespace, or of this machine."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("", 45_000))
        return made

    with closing(make() if namespace is None else socket_in(namespace, make)) as sender:
        for _ in range(count):
            sender.sendto(bytes(100), to)


def wait_until_dropped(
    site: SiteProcess, port: int, send: Callable[[], None], what: str = "dropped"
) -> None:
    """Send until a door has dropped 100 more: a busy machine loses some on their way to it."""
    wanted = door(site, port)[what] + 100

    def enough() -> bool:
        send()
        return bool(door(site, port)[what] >= wanted)

    wait_until(enough)


def test_only_the_sender_that_was_let_in_gets_through(
    site: SiteProcess, far: Neighbour, channel: Callable[..., dict[str, Any]], watch: Watching
) -> None:
    port = port_of(channel("locked", "rtp"))
    wait_until(lambda: door(site, port)["open"])
    page = watch(site.url, "locked")
    page.wait_for_picture()
    with publishing(far, *rtp_to(far, port)):
        page.wait_for_colour(RED)
        found = door(site, port)
        assert (found["open"], found["sessions"]) == (False, [far.there])
        # From its address, but another port; and from a program of this machine.
        wait_until_dropped(site, port, lambda: send_from(far.namespace, (far.here, port), 50))
        wait_until_dropped(site, port, lambda: send_from(None, ("127.0.0.1", port), 50))
        passed = door(site, port)["passed"]
        wait_until(lambda: door(site, port)["passed"] > passed)
        assert state(site, "locked") == "live"


def test_a_registered_sender_alone_gets_through(
    site: SiteProcess, far: Neighbour, channel: Callable[..., dict[str, Any]]
) -> None:
    port = port_of(channel("known", f"rtp://:?from={far.there}"))
    wait_until_dropped(site, port, lambda: send_from(None, ("127.0.0.1", port), 50))
    assert door(site, port)["strangers"] == 0
    with publishing(far, *rtp_to(far, port)):
        wait_until(lambda: state(site, "known") == "live")
    done = site.command("channel", "add", "odd", "--from", "rtp://:?from=nobody")
    assert done.returncode == 1
    assert "IPv4 address" in done.stderr


def test_a_channel_that_is_removed_under_its_producer_takes_nothing_along(
    site: SiteProcess, far: Neighbour
) -> None:
    for _ in range(3):  # while it goes its producer may be found lost
        port = port_of(add(site, "brief", "--from", f"rtp://:?from={far.there}"))
        with publishing(far, *rtp_to(far, port)):
            wait_until(lambda: state(site, "brief") == "live")
            assert site.command("channel", "remove", "brief").returncode == 0
    time.sleep(2.5)  # by when each would have been lost
    assert site.process is not None
    assert site.process.poll() is None
    assert state(site, "test1") == "live"


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("random", marks=pytest.mark.proof),
        pytest.param("one", marks=pytest.mark.proof),
        "forged",
    ],
)
def test_a_flood_harms_no_other_channel(
    site: SiteProcess, far: Neighbour, channel: Callable[..., dict[str, Any]], source: str
) -> None:
    port = port_of(channel("target", f"rtp://:?from={far.there}"))
    bears = {"random": "random", "one": "198.19.1.1:4000", "forged": f"{far.there}:4001"}[source]
    with publishing(far, *rtp_to(far, port)):
        wait_until(lambda: door(site, port)["sessions"] == [far.there])
        wait_until(lambda: state(site, "target") == "live")
        found: Flooded = flooded(site, far, port, bears, PPS, FLOOD_S)
        assert state(site, "target") == "live"
        assert door(site, port)["sessions"] == [far.there]
    assert found.sent >= PPS * FLOOD_S * 0.5  # a flood still where the machine is busy
    # The switch's socket may overflow on a busy machine: what is lost there has got nowhere, too.
    assert found.at_switch + found.at_kernel >= found.sent * 0.8
    assert found.lost == 0
    assert found.packets > 500


def test_a_producer_that_sends_too_much_is_held_to_its_rate(
    site: SiteProcess, far: Neighbour, channel: Callable[..., dict[str, Any]]
) -> None:
    port = port_of(channel("greedy", f"rtp://:?from={far.there}"))
    wait_until(lambda: door(site, port)["open"])
    with (
        Audience(site.url, ("test1", "test2"), 4) as audience,
        flooding(far, port, f"{far.there}:4002"),  # by which it is the producer: 6 Mbit/s
    ):
        wait_until(lambda: door(site, port)["sessions"] == [far.there])
        wait_until(lambda: door(site, port)["metered"] > PPS)
    assert audience.totals["lost"] == 0
    assert audience.totals["packets"] > 500


def test_strangers_at_a_door_that_waits_keep_no_caller_out(
    site: SiteProcess, far: Neighbour, channel: Callable[..., dict[str, Any]]
) -> None:
    made = channel("busy", "srt")
    url = str(made["publish"]["OBS server"]).replace("127.0.0.1", far.here)
    others = (f"198.19.1.{last}:4000" for last in range(256))
    last_bits = int(far.there.rpartition(".")[2]) % 8
    source = next(o for o in others if int(o.partition(":")[0].rpartition(".")[2]) % 8 != last_bits)
    with flooding(far, port_of(made), source) as flood:
        wait_until(lambda: door(site, port_of(made))["metered"] > 1000)
        with publishing(far, *SRT_OUTPUT, url):
            wait_until(lambda: state(site, "busy") == "live")
            assert flood.poll() is None


def start_producer(
    kind: str, far: Neighbour, published: dict[str, str], key: str
) -> subprocess.Popen[bytes]:
    server = published["OBS server"].replace("127.0.0.1", far.here)
    match kind:
        case "srt":
            return far.publish(*SRT_OUTPUT, server)
        case "rtmp":
            return far.publish(
                "-c:a", "aac", "-f", "flv", f"{server}/{published['OBS stream key']}"
            )
        case _:
            program = str(Path(__file__).with_name("gst_publisher.py"))
            return subprocess.Popen(
                [*far.prefix, SYSTEM_PYTHON, program, server, key, str(0xFFFE0000)]
            )


@pytest.mark.parametrize("kind", ["srt", "rtmp", "whip"])
def test_the_session_that_was_just_authenticated_passes_and_is_lost_if_it_falls_silent(
    site: SiteProcess, far: Neighbour, channel: Callable[..., dict[str, Any]], kind: str
) -> None:
    name, began = f"by-{kind}", time.time()
    made = channel(name, kind)
    # RTMP and WHIP have a port for all channels: others may always knock there, up to a rate.
    shared = {"rtmp": ("tcp", "PORTS__RTMP"), "whip": ("udp", "PORTS__WHIP")}
    protocol, setting = shared.get(kind, ("udp", ""))
    port = int(site.settings[setting]) if setting else port_of(made)
    wait_until(lambda: door(site, port, protocol)["open"])
    assert door(site, port, protocol)["sessions"] == []
    producer = start_producer(kind, far, made["publish"], made["key"])
    try:
        wait_for_event(site, "producer.came", name, began)
        wait_until(lambda: state(site, name) == "live")
        found = door(site, port, protocol)
        assert (found["sessions"], found["open"]) == ([far.there], kind in shared)
        if protocol == "udp":  # from its address, but another port
            what, count = ("metered", 5_000) if kind in shared else ("dropped", 50)
            send = partial(send_from, far.namespace, (far.here, port), count)
            wait_until_dropped(site, port, send, what)
        assert state(site, name) == "live"
        assert door(site, port, protocol)["sessions"] == [far.there]

        stopped = time.time()
        producer.send_signal(signal.SIGSTOP)  # as one whose line goes dead
        lost = wait_for_event(site, "producer.lost", name, stopped) - stopped
        assert lost < 5  # the bench has the figures: this machine is shared here
        assert door(site, port, protocol)["sessions"] == []
        wait_until(lambda: state(site, name) == "slate")
        producer.send_signal(signal.SIGCONT)
        wait_for_event(site, "producer.back", name, stopped)
        wait_until(lambda: state(site, name) == "live")
    finally:
        producer.kill()
        producer.wait()


def test_who_does_not_come_by_it_is_told() -> None:
    addresses = "192.0.2.1, 2001:db8::1"
    with running_site(ingress__enabled="true", public_address=addresses, test_channels="1") as site:
        assert site.api("GET", "/api/site").json()["notes"] == []
        add(site, "camera", "--from", "whip")
        add(site, "own-address", "--from", "rtp://127.0.0.1")
        add(site, "usual", "--from", "rtp")
        report = site.api("GET", "/api/ingress").json()
        assert report["past"] == ["own-address"]
        assert [each["channel"] for each in report["producers"]] == ["camera", "usual"]
        assert "Not by the ingress: own-address" in site.command("fabric", "ingress").stdout
        site.command("channel", "remove", "own-address")
        assert site.api("GET", "/api/ingress").json()["past"] == []


def test_a_lost_producer_is_told_and_the_next_one_let_in(site: SiteProcess, far: Neighbour) -> None:
    found = losses(site, far, 2)
    assert max(found["lost"]) < 5  # the bench has the figures: this machine is shared here
    assert max(found["back"]) < 10


def test_a_killed_switch_lets_the_session_through_again_and_nobody_else(
    site: SiteProcess, far: Neighbour, channel: Callable[..., dict[str, Any]]
) -> None:
    port = port_of(channel("killed", f"rtp://:?from={far.there}"))
    with publishing(far, *rtp_to(far, port)):
        wait_until(lambda: state(site, "killed") == "live")
        children = site.api("GET", "/api/site").json()["children"]
        os.kill(children["root-vswitchd"]["pid"], signal.SIGKILL)
        wait_until(
            lambda: site.api("GET", "/api/site").json()["children"]["root-vswitchd"]["restarts"]
        )
        wait_until(lambda: site.api("GET", "/api/ingress").status_code == 200)
        wait_until(lambda: door(site, port)["passed"] > 0)
        wait_until(lambda: state(site, "killed") == "live")
        wait_until_dropped(site, port, lambda: send_from(far.namespace, (far.here, port), 50))


def test_listeners_reach_nobody_of_themselves(site: SiteProcess, far: Neighbour) -> None:
    before = site.api("GET", "/api/ingress").json()["kept_inside"]
    send_from(f"ab-{site.name}-.in", (far.there, 53), 10)
    wait_until(lambda: site.api("GET", "/api/ingress").json()["kept_inside"] >= before + 10)
    devices = subprocess.run(
        ["ip", "-n", f"ab-{site.name}-.in", "-o", "link"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = [line.split()[1].partition("@")[0] for line in devices.stdout.splitlines()]
    assert names == ["lo:", LISTENERS_DEVICE]


def test_the_rtmp_port_is_held_while_the_site_is_up(site: SiteProcess) -> None:
    port = int(site.settings["PORTS__RTMP"])
    with (
        closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as other,
        pytest.raises(OSError, match="in use"),
    ):
        other.bind(("0.0.0.0", port))


def test_without_an_ingress_listeners_are_met_directly() -> None:
    with running_site(ingress__enabled="false", test_channels="1") as site:
        assert site.api("GET", "/api/ingress").status_code == 404
        publish, _ = add_channel(site, "direct", "srt")
        with feeding(*picture("red"), *SRT_OUTPUT, publish["OBS server"]):
            wait_until(lambda: state(site, "direct") == "live")
        assert not Path(f"/run/netns/ab-{site.name}-.in").exists()


def test_nothing_is_left_of_an_ingress() -> None:
    with running_site(ingress__enabled="true", test_channels="1") as site:
        assert Path(f"/run/netns/ab-{site.name}-.in").exists()
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True)
        assert f"anabranch_{site.name}_in" in tables.stdout
        site.kill()
        site.command("down")
        left = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True)
        assert f"anabranch_{site.name}_in" not in left.stdout
        assert not Path(f"/run/netns/ab-{site.name}-.in").exists()
        assert f"ab{tag_of(site.name):04x}-in" not in dict(socket.if_nameindex()).values()
