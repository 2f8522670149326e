"""What strangers, viewers, streams and controllers do to the leaf server: nothing others notice."""

import random
import socket
import struct
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from tests.lab.leaf_peer import (
    AUDIO,
    PORT,
    VIDEO,
    VIDEO_PORT,
    VIEWERS,
    Control,
    Peer,
    World,
    a_world,
    add_viewer,
    check,
)
from tests.waiting import wait_until

from anabranch.app.bench.viewers_sdp import Credentials

pytestmark = pytest.mark.lab
SIZES = {
    # H.264 sequence parameter sets, constrained baseline.
    (640, 360): "6742c01eda0280bfe540",
    (320, 180): "6742c00dda0505de8408400000fa40003a9803c60ca8",
}
SPS = bytes.fromhex(SIZES[640, 360])
IDR, SLICE = b"\x65\x88\x84" + bytes(200), b"\x41\x9a\x24" + bytes(200)
NOBODY = "sha-256 " + ":".join(["AB"] * 32)


@pytest.fixture
def world() -> Iterator[World]:
    with a_world() as made:
        yield made


def rtp(sequence: int, timestamp: int, payload: bytes, ssrc: int = 7, marker: bool = True) -> bytes:
    kind = 96 | marker << 7
    head = struct.pack("!BBHII", 0x80, kind, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc)
    return head + payload


def nack(ssrc: int, first: int, count: int) -> bytes:
    """Ask for 17 packets with each of ``count`` entries."""
    body = b"".join(
        struct.pack("!HH", (first + 17 * number) & 0xFFFF, 0xFFFF) for number in range(count)
    )
    return struct.pack("!BBHII", 0x81, 205, 2 + count, 1, ssrc) + body


def pli(ssrc: int) -> bytes:
    return struct.pack("!BBHII", 0x81, 206, 2, 1, ssrc)


def spoilt(rng: random.Random, real: list[bytes]) -> bytes:
    """Something that is none, or nearly one of what is expected."""
    what = rng.randrange(4)
    if what == 0:
        return rng.randbytes(rng.randrange(1, 1500))
    if what == 1:  # the right beginning
        return bytes([rng.choice((0, 1, 20, 22, 128, 144)), *rng.randbytes(rng.randrange(1, 200))])
    bytes_of = bytearray(rng.choice(real))
    if what == 2:
        return bytes(bytes_of[: rng.randrange(1, len(bytes_of))])
    bytes_of[rng.randrange(len(bytes_of))] ^= 1 << rng.randrange(8)
    return bytes(bytes_of)


def flood(sender: socket.socket, packets: list[bytes], seconds: float, rate: int) -> int:
    """Send packets again and again, so many a second."""
    count, began = 0, time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        while count < passed * rate:
            sender.sendto(packets[count % len(packets)], VIEWERS)
            count += 1
        time.sleep(0.002)
    return count


# --- the viewers' port -------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_a_flood_of_nonsense_is_counted_and_disturbs_nobody(threads: int) -> None:
    with a_world(threads=threads) as world:
        flood_with_nonsense(world)


def flood_with_nonsense(world: World) -> None:
    rng = random.Random(1)
    one = world.peer("one")
    one.connect()
    report = struct.pack("!BBHI", 0x80, 201, 1, 1)
    one.send(one.protected(report))
    real = [*one.sent, report, rtp(1, 2, SLICE), pli(one.leaf["video_ssrc"])]
    packets = [spoilt(rng, real) for _ in range(5000)]
    before = world.totals()
    stranger = world.socket("127.0.0.66")
    with world.undisturbed():
        sent = flood(stranger, packets, 2.0, 10_000)
        # From the viewer's own address, too: what is not authentic there changes nothing.
        sent += flood(one.socket, packets, 1.0, 5_000)
    after = world.totals()
    names = ("alien_datagrams", "refused_checks", "refused_rtcp", "handshake_datagrams_dropped")
    counted = sum(after[name] - before[name] for name in names)
    assert all(after[name] > before[name] for name in names[:3])
    # What looks like DTLS at the viewer's address goes to its connection, which is not disturbed.
    assert counted > sent / 2, (counted, sent)
    one.check()
    one.drain()
    time.sleep(0.3)
    assert one.drain() > 10
    assert after["handshakes_failed"] == before["handshakes_failed"]


def test_a_check_that_was_overheard_or_forged_moves_no_viewer(world: World) -> None:
    one, thief = world.peer("one"), world.socket("127.0.0.66")
    one.connect()
    overheard = [data for data in one.sent if data[0] < 4]
    forged = bytes(check(one.own, one.leaf, pwd="x" * 24))
    before = world.totals()["refused_checks"]
    with world.undisturbed():
        assert flood(thief, [*overheard, forged], 1.0, 2_000) > 1000
        time.sleep(0.2)
    assert world.totals()["refused_checks"] - before > 1000
    figures = world.control.ask("viewer.statistics", viewer="one")["viewers"]["one"]
    assert figures["address"] == f"127.0.0.1:{one.socket.getsockname()[1]}"
    one.drain()
    time.sleep(0.3)
    assert one.drain() > 10


def test_a_viewer_takes_no_address_of_another_one(world: World) -> None:
    one, other = world.peer("one"), world.peer("other")
    one.connect()
    wait_until(lambda: world.control.told("viewer.up", viewer="one"))  # the other end, too
    # As if it came from there: this is what an address that is not one's own would look like.
    one.socket.sendto(bytes(check(other.own, other.leaf)), VIEWERS)
    time.sleep(0.1)
    packets = world.control.ask("viewer.statistics", viewer="one")["viewers"]["one"]["nacks"]
    one.send(one.protected(nack(one.leaf["video_ssrc"], 0, 1)))
    wait_until(
        lambda: (
            world.control.ask("viewer.statistics", viewer="one")["viewers"]["one"]["nacks"]
            > packets
        )
    )


def test_who_never_connects_and_half_open_handshakes(world: World) -> None:
    size = world.process.memory_info().rss
    began = time.monotonic()
    with world.undisturbed(growth_mb=120.0):
        numbers = [
            world.control.send(
                "viewer.add",
                viewer=f"never{number}",
                group="test",
                remote={
                    "ufrag": "abcd",
                    "pwd": "x" * 24,
                    "fingerprint": NOBODY,
                    "setup": "actpass",
                },
                video={"payload_type": 102, "mid": "0"},
                ladder=[{"stream": VIDEO, "kbps": 600}],
                cname="leaf",
            )
            for number in range(1000)
        ]
        assert all("ok" in world.control.reply(number) for number in numbers)
        halves = [world.peer(f"half{number}") for number in range(100)]
        hellos = []
        for half in halves:
            half.check()
            hellos.append(half.hello())
        for _ in range(100):  # 10,000 of them
            for half, hello in zip(halves, hellos, strict=True):
                half.socket.sendto(hello, VIEWERS)
            time.sleep(0.01)
        before = world.totals()["alien_datagrams"]
        sent = flood(world.socket("127.0.0.66"), hellos, 1.0, 5_000)
        assert world.totals()["alien_datagrams"] - before == sent
        wait_until(lambda: len(world.control.told("viewer.gone")) == 1100, limit_s=20.0)
    assert time.monotonic() - began > 15
    for gone in world.control.told("viewer.gone"):
        assert gone["why"] in {"never", "failed"}, gone
    assert len(world.control.told("viewer.gone", why="never")) >= 1000
    assert len(world.control.ask("state")["viewers"]) == 4
    assert world.process.memory_info().rss - size < 120 * 2**20


def _busy(one: Peer, rtcp: bytes, seconds: float, rate: int) -> None:
    count, began = 0, time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        while count < passed * rate:
            one.socket.sendto(one.protected(rtcp), VIEWERS)
            count += 1
        one.drain()
        time.sleep(0.002)


def test_a_viewer_that_asks_for_everything_all_the_time(world: World) -> None:
    one = world.peer("one")
    one.connect()
    ssrc = one.leaf["video_ssrc"]
    time.sleep(0.5)
    with world.undisturbed():
        _busy(one, nack(ssrc, 0, 300), 2.0, 2_000)
        _busy(one, pli(ssrc), 2.0, 2_000)
    totals = world.totals()
    figures = world.control.ask("viewer.statistics", viewer="one")["viewers"]["one"]
    assert totals["excess_rtcp"] > 6_000
    assert figures["plis"] < 500
    # As much as the stream itself, and a frame or two at once.
    assert figures["retransmitted"] < 4 * 70 + 2 * 64
    # One key frame of 1 s each half second at most, and what is watched.
    assert figures["packets"] < 6 * 3 * 150


def test_a_viewer_that_changes_all_the_time(world: World) -> None:
    assert world.add_stream(8, 21008, group="other") == {}
    one = world.peer("one")
    one.connect()
    with world.undisturbed():
        answers = []
        for number in range(600):
            answers.append(world.change("one", (VIDEO, 8)[number % 2], AUDIO))
            time.sleep(0.005)
    busy = [answer for answer in answers if answer.get("code") == "busy"]
    assert len(busy) > 400
    assert len(world.control.told("key_frame.wanted", stream=8)) <= 6


# --- streams -----------------------------------------------------------------------------------


def test_strangers_on_the_port_of_a_stream(world: World) -> None:
    rng = random.Random(2)
    sender = world.socket("127.0.0.66")
    before = world.totals()
    with world.undisturbed():
        for number in range(3000):
            other = rtp(rng.randrange(2**16), number, IDR, ssrc=1000 + number)
            same = rtp(rng.randrange(2**16), rng.randrange(2**32), IDR, ssrc=VIDEO)
            for data in (
                other,
                same if number % 100 == 0 else other,
                rng.randbytes(rng.randrange(1, 1400)),
                rtp(number, number, bytes(1461)),
                rtp(number, number, bytes(8000)),
                rtp(number, number, b""),
            ):
                sender.sendto(data, ("127.0.0.1", VIDEO_PORT))
            time.sleep(0.0005)
    figures = world.stream(VIDEO)
    assert figures["strangers"] > 3000
    assert figures["restarts"] == 0
    assert world.totals()["refused_rtp"] - before["refused_rtp"] > 9000


def test_the_longest_packets_that_are_kept_arrive(world: World) -> None:
    assert world.add_stream(8, 21008, group="other") == {}
    one, sender = world.peer("one"), world.socket()
    one.connect()
    world.change("one", 8)
    one.drain()
    before = world.control.ask("viewer.statistics", viewer="one")["viewers"]["one"]["packets"]
    for number in range(50):
        sender.sendto(rtp(number, number * 3600, IDR[:3] + bytes(1457)), ("127.0.0.1", 21008))
        time.sleep(0.01)
    time.sleep(0.2)
    figures = world.control.ask("viewer.statistics", viewer="one")["viewers"]["one"]
    assert figures["packets"] - before == 50
    assert one.drain() >= 50


def test_a_source_that_changes_its_size_all_the_time(world: World) -> None:
    assert world.add_stream(8, 21008, group="other") == {}
    sender = world.socket()
    with world.undisturbed():
        for number in range(400):
            sps = bytes.fromhex(list(SIZES.values())[number % 2])
            for part, payload in enumerate((sps, IDR)):
                data = rtp(2 * number + part, number * 3600, payload)
                sender.sendto(data, ("127.0.0.1", 21008))
            time.sleep(0.005)
        for number in range(400, 405):  # and stays
            data = rtp(2 * number, number * 3600, SPS)
            sender.sendto(data, ("127.0.0.1", 21008))
        time.sleep(1.1)
    told = world.control.told("stream.state", stream=8)
    assert 2 <= len(told) < 15, len(told)
    assert told[-1]["size"] == [640, 360]
    assert told[-1]["receiving"] is True


def test_a_source_without_key_frames_and_then_with_one_far_too_long_ago(world: World) -> None:
    added = world.add_stream(8, 21008, group="other", max_bytes=300_000)
    assert added == {}
    sender, one = world.socket(), world.peer("one")
    one.connect()
    numbers = iter(range(1, 2**16))

    def picture(payload: bytes) -> None:
        number = next(numbers)
        sender.sendto(rtp(number, number * 900, payload), ("127.0.0.1", 21008))
        time.sleep(0.002)

    with world.undisturbed():
        assert world.change("one", 8)["waits"]
        began = time.monotonic()
        while time.monotonic() < began + 2.5:
            picture(SLICE)
        wanted = world.control.times("key_frame.wanted")
        assert 2 <= len(wanted) <= 4
        assert all(later - at > 0.9 for at, later in pairwise(wanted))
        picture(IDR)
        wait_until(lambda: world.control.told("viewer.stream", viewer="one", stream=8))
        for _ in range(600):  # more than the ring has room for
            picture(SLICE)
        wait_until(lambda: world.control.told("stream.overflow", stream=8))
        # Who has lost the picture must wait now, and gets the next key frame.
        one.send(one.protected(pli(one.leaf["video_ssrc"])))
        for _ in range(50):
            picture(SLICE)
        wait_until(lambda: len(world.control.times("key_frame.wanted")) > len(wanted))
        one.drain()
        for payload in (IDR, *[SLICE] * 40):
            picture(payload)
        got = 0

        def all_here() -> bool:
            nonlocal got
            got += one.drain()
            return got >= 41

        wait_until(all_here)
    assert world.stream(8)["ring_bytes"] < 2 * 2**20


def test_a_stream_that_is_removed_and_added_again_goes_on(world: World) -> None:
    assert world.control.ask("stream.remove", stream=VIDEO) == {}
    before = world.load.ask("statistics")["totals"]
    time.sleep(0.3)
    assert world.add_stream(VIDEO, VIDEO_PORT) == {}
    time.sleep(2.0)
    after = world.load.ask("statistics")["totals"]
    assert after["key_frames"] - before["key_frames"] >= 4
    assert after["unreadable"] == after["duplicates"] == 0
    with world.undisturbed():
        time.sleep(1.0)


# --- the control socket --------------------------------------------------------------------------


def test_controllers_that_talk_nonsense(world: World) -> None:
    rng = random.Random(3)
    control = world.control
    with world.undisturbed():
        for line in (b"", b"\xff\xfe", b"{", b"[]", b"null", b'{"do": 1}', b'{"do":"state"}'):
            control.write(line + b"\n")
        control.write(b'{"a":' * 50_000 + b"\n")
        for _ in range(200):
            control.write(rng.randbytes(100).replace(b"\n", b"") + b"\n")
        assert control.ask("nothing")["code"] == "malformed"
        for members in ({}, {"viewer": 7}, {"viewer": "x", "ladder": []}, {"stream": -1}):
            for do in ("stream.add", "viewer.add", "viewer.change", "viewer.import", "log"):
                assert control.ask(do, **members)["code"] in {"invalid", "unknown"}
        assert control.ask("viewer.close", viewer="x")["code"] == "unknown"
        assert control.ask("viewer.import", state={}, jump=0, ladder=[])["code"] == "invalid"
        assert world.add_stream(VIDEO, VIDEO_PORT)["code"] == "exists"
        assert world.add_stream(9, PORT)["code"] == "failed"
        assert len(control.ask("state")["viewers"]) == 4


def test_a_line_without_end_and_a_controller_that_does_not_read(world: World) -> None:
    with world.undisturbed(growth_mb=60.0):
        endless = Control(world.control_path)
        try:
            for _ in range(64):
                endless.write(b"x" * 2**16)
        except OSError:
            pass
        wait_until(lambda: endless.is_over)
        assert endless.reply(None)["error"]["code"] == "malformed"
        endless.close()
        assert world.control.is_over, "the newest controller wins"

        deaf = socket.socket(socket.AF_UNIX)
        deaf.settimeout(1.0)
        deaf.connect(str(world.control_path))
        try:
            for number in range(200_000):
                deaf.sendall(b'{"do":"viewer.statistics","id":%d}\n' % number)
        except OSError:
            pass
        else:
            pytest.fail("it was listened to for ever")
        deaf.close()
        world.control.close()
        world.control = Control(world.control_path)
        assert len(world.control.ask("state")["viewers"]) == 4


def test_the_figures_of_very_many_viewers_are_one_line(world: World) -> None:
    own = Credentials.random()
    for number in range(4000):
        reply = add_viewer(world.control, f"viewer{number:0150}", own, NOBODY)
        assert "ufrag" in reply, reply
    figures = world.control.ask("viewer.statistics")
    assert len(figures["viewers"]) == 4004
