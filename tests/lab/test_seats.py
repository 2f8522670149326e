"""Plain seats: real players are sent UDP by the sort switch, and only what they watch."""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import httpx
import pytest
from tests.lab.computer import Computer
from tests.lab.inside import socket_in
from tests.lab.machines import Machines, machines
from tests.lab.receivers import (
    NOBODY,
    ffmpeg,
    gstreamer,
    gstreamer_rtp,
    make_film,
    playing,
    vlc,
)
from tests.lab.test_site_watch import link_packets, until_quiet
from tests.waiting import wait_until

from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.host.addresses import free_udp_port

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("films")
    return {colour: make_film(directory, colour) for colour in ("red", "green", "blue")}


@pytest.fixture(scope="module")
def dial(films: dict[str, Path]) -> Iterator[SiteProcess]:
    """A site with one channel of each colour."""
    with running_site(TEST_CHANNELS="0") as site:
        add_channels(site, films)
        yield site


def add_channels(site: SiteProcess, films: dict[str, Path]) -> None:
    for colour, film in films.items():
        body = {"name": colour, "source": str(film)}
        site.api("POST", "/api/channels", json=body).raise_for_status()
    wait_until(
        lambda: all(
            channel["state"] == "live"
            for channel in site.api("GET", "/api/channels").json()["channels"]
        )
    )


def a_port() -> int:
    return free_udp_port(("0.0.0.0",), range(30000, 40000, 4))


def take(site: SiteProcess, channel: str, to: str, **more: object) -> dict[str, str]:
    answer = site.api("POST", "/api/seats", json={"channel": channel, "to": to, **more})
    assert answer.status_code == 201, answer.text
    seat: dict[str, str] = answer.json()
    return seat


def plain(site: SiteProcess) -> list[str]:
    seats = site.api("GET", "/api/seats").json()
    return [seat["id"] for seat in seats if seat["kind"] == "plain"]


def players() -> list[object]:
    missing = subprocess.run(["which", "cvlc"], capture_output=True, check=False).returncode != 0
    return [
        pytest.param(lambda port: (ffmpeg(f"udp://0.0.0.0:{port}"), 0), id="ffmpeg"),
        pytest.param(lambda port: (gstreamer(port), 0), id="gstreamer"),
        pytest.param(
            lambda port: (vlc(port), NOBODY),
            id="vlc",
            marks=pytest.mark.skipif(missing, reason="needs VLC"),
        ),
    ]


@pytest.mark.parametrize("player", players())
def test_a_player_sees_its_channel_and_after_a_change_the_other(dial: SiteProcess, player) -> None:
    port = a_port()
    argv, user = player(port)
    with playing(argv, user=user) as seen:
        seat = take(dial, "red", f"udp://127.0.0.1:{port}")
        wait_until(lambda: seen.colours == ["red"], "no red picture")
        for colour in ("blue", "green", "red"):
            # Anybody who knows the seat may change it.
            changed = httpx.patch(dial.url + seat["url"], json={"channel": colour})
            assert changed.json()["channel"] == colour
            wait_until(lambda colour=colour: seen.colours[-1] == colour, f"no {colour} picture")
        assert seen.colours == ["red", "blue", "green", "red"]
        assert httpx.delete(dial.url + seat["url"]).status_code == 204
        assert httpx.get(dial.url + seat["url"]).status_code == 404
    assert plain(dial) == []


@pytest.mark.parametrize("kind", ["ffmpeg", "gstreamer"])
def test_a_player_of_rtp_sees_its_channel_and_after_a_change_the_other(
    dial: SiteProcess, kind: str, tmp_path: Path
) -> None:
    port = a_port()
    seat = take(dial, "green", f"rtp://127.0.0.1:{port}", rendition="low")
    session = httpx.get(f"{dial.url}{seat['url']}.sdp")
    assert session.headers["content-type"].startswith("application/sdp")
    described = tmp_path / "seat.sdp"
    described.write_text(session.text)
    argv = ffmpeg(str(described)) if kind == "ffmpeg" else gstreamer_rtp(port)
    with playing(argv) as seen:
        wait_until(lambda: seen.colours == ["green"], "no green picture")
        changed = httpx.patch(dial.url + seat["url"], json={"channel": "blue"})
        assert changed.status_code == 200, changed.text
        wait_until(lambda: seen.colours[-1] == "blue", "no blue picture")
        assert seen.colours == ["green", "blue"]
        assert httpx.delete(dial.url + seat["url"]).status_code == 204


def listening(port: int, netns: str | None = None) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        made.bind(("0.0.0.0", port))
        made.settimeout(10)
        return made

    return make() if netns is None else socket_in(netns, make)


def test_a_channel_nobody_watches_does_not_enter_the_network(dial: SiteProcess) -> None:
    before = until_quiet(lambda: link_packets(dial))
    port = a_port()
    with closing(listening(port)) as receiver:
        seat = take(dial, "red", f"udp://127.0.0.1:{port}", leaf="leaf2")
        for _ in range(200):
            receiver.recv(2000)
        during = link_packets(dial)
        carried = {link for link, packets in during.items() if packets > before[link]}
        assert carried == {"root/to1", "relay/to3"}
        dial.api("DELETE", f"/api/seats/{seat['id']}")
    until_quiet(lambda: link_packets(dial))


def test_many_seats_cost_one_copy_on_every_link(dial: SiteProcess) -> None:
    before = until_quiet(lambda: link_packets(dial))
    ports = [a_port() + 100 + 4 * number for number in range(20)]
    with closing(listening(ports[0])) as first, closing(listening(ports[-1])) as last:
        seats = [take(dial, "red", f"udp://127.0.0.1:{port}", leaf="leaf1") for port in ports]
        count = sum(len(receiver.recv(2000)) > 0 for receiver in (first, last) for _ in range(300))
        during = link_packets(dial)
        for seat in seats:
            dial.api("DELETE", f"/api/seats/{seat['id']}")
    assert count == 600
    sent, passed = (during[link] - before[link] for link in ("root/to1", "relay/to2"))
    assert abs(sent - passed) < 50
    assert sent < 2 * (300 + 50 * 20)  # of twenty streams it would be twenty times as many
    assert during["relay/to3"] == before["relay/to3"]
    until_quiet(lambda: link_packets(dial))


@contextmanager
def overheard(device: str) -> Iterator[set[tuple[str, int]]]:
    """Give the UDP destinations of what comes in by a device."""
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    tap.bind((device, 0x0800))
    tap.settimeout(0.1)
    found: set[tuple[str, int]] = set()
    ended = threading.Event()

    def listen() -> None:
        while not ended.is_set():
            try:
                data, address = tap.recvfrom(2000)
            except TimeoutError:
                continue
            if data[9] == 17 and address[2] != socket.PACKET_OUTGOING:
                to = socket.inet_ntoa(data[16:20])
                found.add((to, int.from_bytes(data[22:24], "big")))

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        yield found
    finally:
        ended.set()
        listener.join()
        tap.close()


def access_of(site: SiteProcess, leaf: str) -> tuple[str, str]:
    """Return this machine's end of a leaf's access link, and its address."""
    lines = subprocess.run(
        ["ip", "-n", f"ab-{site.name}-{leaf}", "route", "show", "default"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    gateway = lines[lines.index("via") + 1]
    shown = subprocess.run(
        ["ip", "-o", "addr", "show", "to", gateway], capture_output=True, text=True, check=True
    ).stdout.split()
    return shown[1], gateway


def test_nothing_but_a_seats_own_stream_leaves_a_leaf(dial: SiteProcess) -> None:
    port = a_port()
    device, gateway = access_of(dial, "leaf1")
    with closing(listening(port)) as receiver, overheard(device) as destinations:
        seat = take(dial, "red", f"udp://127.0.0.1:{port}", leaf="leaf1")
        data, sender = receiver.recvfrom(2000)
        assert data[0] == 0x47
        # Neither the encoder nor the root: the leaf.
        assert sender[0] not in {gateway, "127.0.0.1"}
        for colour in ("blue", "green"):
            dial.api("PATCH", f"/api/seats/{seat['id']}", json={"channel": colour})
            for _ in range(100):
                receiver.recv(2000)
        dial.api("DELETE", f"/api/seats/{seat['id']}")
        # What the switch still sent to the leaf's kernel would end there.
        assert destinations == {(gateway, port)}
        destinations.clear()
        time.sleep(1)
        assert destinations == set()


def test_the_seat_of_a_vanished_player_is_free_within_15_s(dial: SiteProcess) -> None:
    port = a_port()
    receiver = listening(port)
    with closing(receiver):
        take(dial, "red", f"udp://127.0.0.1:{port}")
        receiver.recv(2000)
        time.sleep(2)
        assert len(plain(dial)) == 1
    assert wait_until(lambda: plain(dial) == []) > 3


def test_a_seat_that_is_not_renewed_ends(dial: SiteProcess) -> None:
    port = a_port()
    with closing(listening(port)):
        seat = take(dial, "red", f"udp://127.0.0.1:{port}", ttl_s=5)
        for _ in range(4):
            time.sleep(2)
            renewed = dial.api("PATCH", f"/api/seats/{seat['id']}", json={})
            assert renewed.status_code == 200
        wait_until(lambda: plain(dial) == [])


def test_a_receiver_gets_one_stream_whoever_asks_twice(dial: SiteProcess) -> None:
    port = a_port()
    with closing(listening(port)):
        one = take(dial, "red", f"udp://127.0.0.1:{port}")
        other = take(dial, "blue", f"udp://127.0.0.1:{port}")
        assert plain(dial) == [other["id"]] != [one["id"]]
        dial.api("DELETE", f"/api/seats/{other['id']}")


def test_seats_are_there_again_after_a_restart(films: dict[str, Path]) -> None:
    port = a_port()
    site = SiteProcess(TEST_CHANNELS="0")
    try:
        site.start()
        add_channels(site, films)
        with playing(ffmpeg(f"udp://0.0.0.0:{port}")) as seen:
            seat = take(site, "blue", f"udp://127.0.0.1:{port}")
            wait_until(lambda: seen.colours == ["blue"], "no blue picture")
            site.stop()
            site.start()
            assert plain(site) == [seat["id"]]
            site.api("PATCH", f"/api/seats/{seat['id']}", json={"channel": "red"})
            wait_until(lambda: seen.colours[-1] == "red", "no red picture")
    finally:
        site.remove()


@pytest.fixture
def world() -> Iterator[Machines]:
    with machines() as made:
        yield made


def test_a_receiver_on_another_machine_sees_this_ones_address(
    films: dict[str, Path], world: Machines
) -> None:
    here, there = world.root_address, world.nat_address
    with running_site(TEST_CHANNELS="0", PUBLIC_ADDRESS=here) as site:
        add_channels(site, films)
        with playing(ffmpeg("udp://0.0.0.0:5600"), netns=world.internet) as seen:
            take(site, "red", f"udp://{there}:5600")
            wait_until(lambda: seen.colours == ["red"], "no red picture")
        wait_until(lambda: plain(site) == [], "a vanished player")
        with closing(listening(5602, world.internet)) as receiver:
            take(site, "red", f"udp://{there}:5602")
            assert receiver.recvfrom(2000)[1][0] == here
        # Nobody has this address.
        take(site, "red", f"udp://{IPv4Address(here) + 76}:5604")
        wait_until(lambda: plain(site) == [], "a machine that is not there", limit_s=20.0)


def test_the_command_line_takes_changes_lists_and_leaves(dial: SiteProcess) -> None:
    port = a_port()
    with closing(listening(port)) as receiver:
        made = dial.command("seat", "add", "red", f"udp://127.0.0.1:{port}", "--rendition", "low")
        assert made.returncode == 0, made.stderr
        seat = made.stdout.strip()
        assert plain(dial) == [seat]
        receiver.recv(2000)
        assert dial.command("seat", "change", seat, "blue").stdout.strip() == "blue, low"
        listed = dial.command("seat", "list").stdout
        assert seat in listed
        assert f"udp://127.0.0.1:{port}" in listed
        assert dial.command("seat", "change", seat, "nosuch").returncode == 1
        assert dial.command("seat", "leave", seat).returncode == 0
        assert dial.command("seat", "leave", seat).returncode == 1
        assert dial.command("seat", "leave", "../channels/red").returncode != 0
        assert "no such seat" in dial.command("seat", "list").stdout
    assert len(dial.api("GET", "/api/channels").json()["channels"]) == 3


_WITH_SORT_SWITCH = json.dumps(
    [
        {"name": "root", "role": "root"},
        {"name": "relay", "role": "relay", "parent": "root"},
        {"name": "leaf1", "role": "leaf", "parent": "relay"},
        {"name": "sort1", "role": "leaf", "parent": "relay", "server": "none"},
    ]
)


def devices() -> str:
    return subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout


def test_a_sort_switch_sends_by_a_port_of_its_own_to_who_is_behind_it() -> None:
    here, there = "10.77.0.1", "10.77.0.2"
    far = Computer(here, there, 24)
    try:
        shown = ["ip", "-n", far.name, "-j", "link", "show", "eth0"]
        text = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
        nodes = json.loads(_WITH_SORT_SWITCH)
        nodes[-1]["outlet"] = {
            "device": far.device,
            "networks": ["10.77.0.0/24"],
            "next_hop": json.loads(text)[0]["address"],
            "source": here,
        }
        with running_site(NODES=json.dumps(nodes)) as site:
            with closing(listening(5600, far.name)) as receiver:
                seat = take(site, "test1", f"udp://{there}:5600")
                assert seat["leaf"] == "sort1"  # the one that it is behind
                data, sender = receiver.recvfrom(2000)
                assert (data[0], sender[0]) == (0x47, here)
                for channel in ("test2", "test1"):
                    changed = site.api(
                        "PATCH", f"/api/seats/{seat['id']}", json={"channel": channel}
                    )
                    assert changed.status_code == 200
                    for _ in range(50):
                        receiver.recv(2000)
                port = a_port()
                with closing(listening(port)) as near:  # not behind it: as from any leaf
                    other = take(site, "test1", f"udp://127.0.0.1:{port}", leaf="sort1")
                    near.recv(2000)
                    site.api("DELETE", f"/api/seats/{other['id']}")
                site.api("DELETE", f"/api/seats/{seat['id']}")
            assert far.device not in devices()
        assert far.device in devices()  # given back
    finally:
        far.remove()


def test_a_leaf_may_be_a_sort_switch_and_nothing_else_and_neighbours_are_at_hand(
    films: dict[str, Path],
) -> None:
    settings = {"NODES": _WITH_SORT_SWITCH, "SEATS__NEIGHBOURS": "1", "SEATS__HOLD_S": "1"}
    with running_site(TEST_CHANNELS="0", **settings) as site:
        add_channels(site, films)
        assert "leaf:sort1" not in site.api("GET", "/api/site").json()["children"]
        port = a_port()
        with closing(listening(port)) as receiver:
            seat = take(site, "red", f"udp://127.0.0.1:{port}")
            assert seat["leaf"] in {"leaf1", "sort1"}
            other = take(site, "red", f"udp://127.0.0.1:{port + 4}", leaf="sort1")
            site.api("DELETE", f"/api/seats/{other['id']}")
            site.api("DELETE", f"/api/seats/{seat['id']}")
            seat = take(site, "red", f"udp://127.0.0.1:{port}", leaf="sort1")
            for _ in range(50):
                receiver.recv(2000)
            paths = site.api("GET", "/api/fabric/paths").json()["items"]
            assert {path["name"] for path in paths} >= {
                f"{colour}/high.ts" for colour in ("red", "green", "blue")
            }
            site.api("POST", "/api/nodes/sort1/drain").raise_for_status()
            wait_until(lambda: httpx.get(site.url + seat["url"]).json()["leaf"] == "leaf1")
            receiver.recv(2000)
            site.api("DELETE", f"/api/seats/{seat['id']}")
        until_quiet(lambda: link_packets(site))
