"""Publishers at the leaf server: what they send arrives as plain RTP, losses are repaired."""

import asyncio
import itertools
import random
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiortc.rtp import RtcpPacket, RtcpSrPacket
from tests.lab.leaf_peer import Control, World, a_world
from tests.lab.page import BrowserThread
from tests.lab.publisher import (
    Address,
    Publisher,
    Relay,
    answer_to,
    described,
    is_rtp,
    publisher,
)
from tests.waiting import until, wait_until

from anabranch.media.leaf_binary import find_server

pytestmark = pytest.mark.lab
ALL = ["nack", "pli", "remb"]


@dataclass(frozen=True)
class Packet:
    """Of plain RTP without anything around the payload."""

    kind: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes

    @classmethod
    def read(cls, data: bytes) -> "Packet":
        first, second, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", data)
        assert first == 0x80, "padding, extension or contributing sources"
        return cls(second & 127, bool(second & 128), sequence, timestamp, ssrc, data[12:])


class Target:
    """Where a track's packets and reports arrive."""

    def __init__(self) -> None:
        self._sockets = _pair()
        self.port = self._sockets[0].getsockname()[1]
        self.to = f"127.0.0.1:{self.port}"
        self.packets: list[Packet] = []
        self.reports: list[RtcpSrPacket] = []

    def read(self) -> "Target":
        """Take what has come so far."""
        self.packets += map(Packet.read, _waiting(self._sockets[0]))
        for data in _waiting(self._sockets[1]):
            parts = RtcpPacket.parse(data)
            self.reports += [it for it in parts if isinstance(it, RtcpSrPacket)]
        return self

    def numbers(self) -> list[int]:
        """The sequence numbers so far, without wraps."""
        found: list[int] = []
        for packet in self.packets:
            before = found[-1] if found else packet.sequence
            step = (packet.sequence - before + 0x8000) % 0x10000 - 0x8000
            found.append(before + step)
        return found

    def close(self) -> None:
        for made in self._sockets:
            made.close()


def _pair() -> list[socket.socket]:
    """Two sockets at ports that follow each other."""
    while True:
        first = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        first.bind(("127.0.0.1", 0))
        second = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            second.bind(("127.0.0.1", first.getsockname()[1] + 1))
        except (OSError, OverflowError):
            first.close()
            second.close()
            continue
        for made in (first, second):
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        return [first, second]


def _waiting(made: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield made.recv(2048)
        except BlockingIOError:
            return


@dataclass
class Gate:
    """A leaf server of this test's, and its controller."""

    control: Control
    path: Path
    address: Address
    closers: list[Callable[[], None]] = field(default_factory=list)

    def target(self) -> Target:
        made = Target()
        self.closers.append(made.close)
        return made

    async def relay(self) -> Relay:
        made = Relay(self.address)
        await made.start()
        self.closers.append(made.stop)
        return made

    async def publish(
        self,
        one: Publisher,
        name: str,
        video: str,
        audio: str,
        through: Address | None = None,
        feedback: list[str] = ALL,
        **other: Any,
    ) -> None:
        """Connect a publisher, and wait until it is up."""
        wanted = await one.offer(video, audio, feedback)
        ok = self.control.ask("publisher.add", publisher=name, **wanted, **other)
        fingerprint = self.control.told("hello")[0]["fingerprint"]
        await one.answer(ok, fingerprint, through or self.address)
        await until(lambda: self.control.told("publisher.up", publisher=name))

    def figures(self, name: str) -> dict[str, Any]:
        return self.control.ask("publisher.statistics", publisher=name)["publishers"][name]


@pytest.fixture
async def gate(request: pytest.FixtureRequest) -> AsyncIterator[Gate]:
    """A leaf server of one worker thread, or as many as told."""
    threads = str(getattr(request, "param", 1))
    directory = Path(tempfile.mkdtemp(prefix="ab", dir="/tmp"))
    path = directory / "control.sock"
    argv = [str(find_server()), "serve", "--control", str(path), "--listen", "127.0.0.1:0"]
    server = subprocess.Popen([*argv, "--log-level", "warning", "--threads", threads])
    try:
        wait_until(path.exists)
        control = Control(path)
        host, _, port = control.told("hello")[0]["listen"][0].rpartition(":")
        made = Gate(control, path, (host, int(port)))
        yield made
        for close in made.closers:
            close()
        made.control.close()
        assert server.poll() is None, "the leaf server has ended"
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(directory)


async def test_what_is_published_arrives_as_plain_rtp(gate: Gate) -> None:
    video, audio = gate.target(), gate.target()
    async with publisher() as one:
        await gate.publish(one, "one", video.to, audio.to)
        await until(lambda: len(video.read().packets) > 150)
        await until(lambda: video.read().reports and audio.read().reports)
        for target in (video.read(), audio.read()):
            numbers = target.numbers()
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert len({(it.kind, it.ssrc) for it in target.packets}) == 1
            # What is reported is on the line of the timestamps.
            report, last = target.reports[-1], target.packets[-1]
            assert report.ssrc == last.ssrc
            assert abs(report.sender_info.rtp_timestamp - last.timestamp) < 10 * 90_000
        first = video.packets[0]
        assert (first.payload[0] & 31) in (7, 24, 28), "a key frame begins it"
        figures = gate.figures("one")
        assert figures["state"] == "up"
        assert figures["strangers"] == 0
        tracks = figures["tracks"]
        assert {it["lost"] for it in tracks.values()} == {0}
        assert tracks["0"]["packets"] >= len(video.packets)
        assert tracks["1"]["bytes"] >= sum(len(it.payload) for it in audio.packets)
        [entry] = gate.control.ask("state")["publishers"]
        assert (entry["publisher"], entry["state"]) == ("one", "up")
        assert [it["to"] for it in entry["tracks"]] == [video.to, audio.to]
    await until(lambda: gate.control.told("publisher.gone", publisher="one", why="closed"))
    assert gate.control.ask("state")["publishers"] == []


async def test_ffmpeg_decodes_what_is_passed_on(gate: Gate, tmp_path: Path) -> None:
    ports = [_free_port(), _free_port()]
    places = [f"127.0.0.1:{port}" for port in ports]
    async with publisher() as one:
        wanted = await one.offer(places[0], places[1], ALL)
        kinds = [track["payload_types"][0] for track in wanted["tracks"]]
        description = tmp_path / "published.sdp"
        description.write_text(
            "v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\n"
            f"m=video {ports[0]} RTP/AVP {kinds[0]}\na=rtpmap:{kinds[0]} H264/90000\n"
            f"a=fmtp:{kinds[0]} packetization-mode=1\n"
            f"m=audio {ports[1]} RTP/AVP {kinds[1]}\na=rtpmap:{kinds[1]} opus/48000/2\n"
        )
        reader = await asyncio.create_subprocess_exec(
            *("ffmpeg", "-v", "error", "-protocol_whitelist", "file,udp,rtp"),
            *("-i", str(description), "-map", "0:v", "-map", "0:a"),
            *("-frames:v", "50", "-frames:a", "50", "-f", "framecrc", "-"),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            ok = gate.control.ask("publisher.add", publisher="one", **wanted)
            hello = gate.control.told("hello")[0]
            await one.answer(ok, hello["fingerprint"], gate.address)
            out, _ = await asyncio.wait_for(reader.communicate(), 30.0)
        except TimeoutError:
            reader.kill()
            await reader.wait()
            raise
        lines = [line for line in out.decode().splitlines() if not line.startswith("#")]
        frames = [[line for line in lines if line.startswith(f"{it},")] for it in (0, 1)]
        assert len(frames[0]) == 50
        assert len({line.split(",")[-1] for line in frames[0]}) > 40, "it moves"
        assert len(frames[1]) > 40


async def test_lost_packets_are_asked_for_and_leave_as_themselves(gate: Gate) -> None:
    rng = random.Random(3)
    relay, video, audio = await gate.relay(), gate.target(), gate.target()
    async with publisher() as one:
        await gate.publish(one, "one", video.to, audio.to, relay.address)
        await until(lambda: len(video.read().packets) > 50)
        relay.loses = lambda datagram: is_rtp(datagram) and rng.random() < 0.1
        await asyncio.sleep(6.0)
        relay.loses = lambda datagram: False
        await asyncio.sleep(1.0)
        figures = gate.figures("one")
        track, numbers = figures["tracks"]["0"], sorted(video.read().numbers())
    assert relay.lost > 30
    assert track["repaired"] > 20
    assert track["lost"] == 0
    assert numbers == list(range(numbers[0], numbers[-1] + 1)), "each once, none is missing"
    assert len({(it.kind, it.ssrc) for it in video.packets}) == 1
    assert track["repaired"] <= track["nacks"] <= 5 * relay.lost
    assert figures["rtt_ms"] < 500
    assert figures["tracks"]["1"]["lost"] > 0, "nobody asks for sound again"
    assert figures["tracks"]["1"]["nacks"] == 0


async def test_what_cannot_be_repaired_ends_in_a_key_frame(gate: Gate) -> None:
    relay, video, audio = await gate.relay(), gate.target(), gate.target()
    async with publisher() as one:
        # Without NACK, so that nothing is repaired.
        await gate.publish(one, "one", video.to, audio.to, relay.address, ["pli"])
        await until(lambda: len(video.read().packets) > 50)
        assert gate.figures("one")["tracks"]["0"]["plis"] == 0
        known = len(video.packets)
        losses = itertools.chain([True] * 20, itertools.repeat(False))
        kind = video.packets[0].kind
        relay.loses = lambda it: is_rtp(it) and it[1] & 127 == kind and next(losses)
        await until(lambda: gate.figures("one")["tracks"]["0"]["plis"] > 0)
        await until(lambda: any(_is_key(it) for it in video.read().packets[known:]))
        track = gate.figures("one")["tracks"]["0"]
        assert track["lost"] >= 1
        assert track["nacks"] == 0

        await asyncio.sleep(1.2)
        before = gate.figures("one")["tracks"]["0"]["plis"]
        for _ in range(10):
            assert gate.control.ask("publisher.key_frame", publisher="one") == {}
        await asyncio.sleep(0.5)
        assert gate.figures("one")["tracks"]["0"]["plis"] == before + 1


async def test_the_bitrate_follows_what_it_is_told(gate: Gate) -> None:
    rng = random.Random(5)
    relay, video, audio = await gate.relay(), gate.target(), gate.target()
    async with publisher() as one:
        await gate.publish(one, "one", video.to, audio.to, relay.address, kbps=700)
        sender = one.connection.getSenders()[0]

        def told() -> int:
            encoder = sender._RTCRtpSender__encoder
            return 0 if encoder is None else encoder.target_bitrate

        await until(lambda: 690_000 < told() <= 700_000)
        relay.loses = lambda datagram: is_rtp(datagram) and rng.random() < 0.4
        await until(lambda: 0 < told() < 650_000)
        relay.loses = lambda datagram: False
        await until(lambda: 690_000 < told() <= 700_000, limit_s=20.0)


@pytest.mark.parametrize("gate", [1, 3], indirect=True)
async def test_two_publishers_and_a_controller_that_comes_back(gate: Gate) -> None:
    targets = [[gate.target(), gate.target()] for _ in range(2)]
    async with publisher() as first, publisher() as second:
        for name, one, (video, audio) in zip("ab", (first, second), targets, strict=True):
            await gate.publish(one, name, video.to, audio.to)
        gate.control.close()
        for pair in targets:
            pair[0].read().packets.clear()
        gate.control = Control(gate.path)
        state = gate.control.ask("state")["publishers"]
        assert sorted(it["publisher"] for it in state) == ["a", "b"]
        for pair in targets:
            await until(lambda pair=pair: len(pair[0].read().packets) > 50)
        ssrcs = [{it.ssrc for it in pair[0].packets} for pair in targets]
        assert len(ssrcs[0]) == len(ssrcs[1]) == 1
        assert ssrcs[0] != ssrcs[1]
        assert gate.control.ask("publisher.close", publisher="a") == {}
        assert gate.control.ask("publisher.close", publisher="a")["code"] == "unknown"
        await until(lambda: gate.control.told("publisher.gone", publisher="a", why="dropped"))
        targets[0][0].read().packets.clear()
        known = len(targets[1][0].read().packets)
        await until(lambda: len(targets[1][0].read().packets) > known + 25)
        assert not targets[0][0].read().packets
        await until(lambda: first.connection.connectionState == "closed")


BROWSER = """async () => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [640, 360];
  const ink = canvas.getContext("2d");
  let turn = 0;
  setInterval(() => {
    for (let spot = 0; spot < 60; spot++) {
      ink.fillStyle = `hsl(${(turn * 7 + spot * 31) % 360} 80% 50%)`;
      ink.fillRect((spot * 97 + turn * 5) % 640, (spot * 53) % 360, 60, 40);
    }
    turn++;
  }, 40);
  const sound = new AudioContext();
  const tone = sound.createOscillator();
  const out = sound.createMediaStreamDestination();
  tone.connect(out);
  tone.start();
  const connection = window.connection = new RTCPeerConnection();
  const picture = canvas.captureStream(25).getVideoTracks()[0];
  const video = connection.addTransceiver(picture, {direction: "sendonly"});
  connection.addTransceiver(out.stream.getAudioTracks()[0], {direction: "sendonly"});
  const codecs = RTCRtpSender.getCapabilities("video").codecs;
  video.setCodecPreferences(codecs.filter((codec) =>
    codec.mimeType === "video/rtx" || (codec.mimeType === "video/H264" &&
      codec.sdpFmtpLine.includes("packetization-mode=1") &&
      codec.sdpFmtpLine.includes("42e01f"))));
  await connection.setLocalDescription();
  return connection.localDescription.sdp;
}"""
ANSWER = """(sdp) => window.connection.setRemoteDescription({type: "answer", sdp})"""
RATES = """async () => {
  const found = [...(await window.connection.getStats()).values()];
  const pair = found.find((it) => it.type === "candidate-pair" && it.nominated);
  const remote = found.find((it) => it.type === "remote-inbound-rtp" && it.kind === "video");
  return [pair?.availableOutgoingBitrate ?? 0, remote?.packetsLost ?? -1];
}"""


async def test_a_browser_publishes_over_a_bad_path(gate: Gate) -> None:
    rng = random.Random(7)
    relay, video, audio = await gate.relay(), gate.target(), gate.target()
    browser = await asyncio.to_thread(BrowserThread)

    async def run(script: str, argument: str | None = None) -> Any:
        return await asyncio.to_thread(browser.do, lambda: page.evaluate(script, argument))

    try:
        page = await asyncio.to_thread(browser.do, lambda: browser.browser.new_page())
        offer = await run(BROWSER)
        wanted = described(offer, video.to, audio.to, ALL)
        ok = gate.control.ask("publisher.add", publisher="page", kbps=2500, **wanted)
        hello = gate.control.told("hello")[0]
        await run(ANSWER, answer_to(offer, ok, hello["fingerprint"], relay.address))
        await until(lambda: gate.control.told("publisher.up", publisher="page"))
        await until(lambda: len(video.read().packets) > 100)
        await until(lambda: len(audio.read().packets) > 50)
        reached = 0
        for _ in range(20):  # within 10 s
            if (reached := (await run(RATES))[0]) > 2_000_000:
                break
            await asyncio.sleep(0.5)
        assert 2_000_000 < reached <= 2_500_000, "as much as it is told, not what it starts with"
        await asyncio.sleep(4.0)
        assert (await run(RATES))[0] > 2_000_000
        relay.loses = lambda datagram: is_rtp(datagram) and rng.random() < 0.05
        await asyncio.sleep(5.0)
        relay.loses = lambda datagram: False
        await asyncio.sleep(1.5)
        _, lost = await run(RATES)
        figures, numbers = gate.figures("page"), sorted(video.read().numbers())
    finally:
        await asyncio.to_thread(browser.close)
    track = figures["tracks"]["0"]
    assert track["repaired"] > 5
    assert track["lost"] == 0
    assert numbers == list(range(numbers[0], numbers[-1] + 1)), "each once, none is missing"
    assert len({(it.kind, it.ssrc) for it in video.packets}) == 1
    assert figures["strangers"] == 0
    assert lost > 5, "it is told what the path lost"
    await until(lambda: gate.control.told("publisher.gone", publisher="page"))


def _is_key(packet: Packet) -> bool:
    kind = packet.payload[0] & 31
    if kind == 24:  # several in one: the first of them
        return packet.payload[3] & 31 in (5, 7)
    return kind in (5, 7) or (kind == 28 and packet.payload[1] & 0x9F == 0x85)


def _free_port() -> int:
    first, second = _pair()
    port = first.getsockname()[1]
    first.close()
    second.close()
    return int(port)


# --- publishers that do what they like --------------------------------------------------------


@pytest.fixture
def world() -> Iterator[World]:
    with a_world() as made:
        yield made


def rtp(kind: int, ssrc: int, sequence: int, payload: bytes, marker: bool = True) -> bytes:
    second = kind | marker << 7
    return struct.pack("!BBHII", 0x80, second, sequence & 0xFFFF, sequence * 3000, ssrc) + payload


def strange(rng: random.Random, sequence: int) -> bytes:
    """A packet that is authentic, and hardly one that belongs anywhere."""
    kind = rng.choice((0, 96, 102, 103, 111, 127))
    packet = bytearray(rtp(kind, 1, sequence, rng.randbytes(rng.randrange(0, 1200))))
    packet[8:12] = rng.choice((1, 2, 3, rng.randrange(20, 30))).to_bytes(4, "big")
    if rng.random() < 0.3:  # an extension of whatever form, with whatever in it
        profile = rng.choice((b"\xbe\xde", b"\x10\x00", rng.randbytes(2)))
        words = rng.randrange(5)
        packet[0] |= 0x10
        packet[12:12] = profile + words.to_bytes(2, "big") + rng.randbytes(4 * words)
    if rng.random() < 0.1:  # padding, perhaps more than there is
        packet[0] |= 0x20
    return bytes(packet)


def test_a_publisher_that_sends_nonsense_under_its_keys_disturbs_nobody(world: World) -> None:
    rng = random.Random(11)
    one, other = world.publisher("one"), world.publisher("other")
    one.connect()
    other.connect()
    wait_until(lambda: len(world.control.told("publisher.up")) == 2)
    with world.undisturbed(growth_mb=20.0):
        sequence = 0
        for _ in range(100):
            for _ in range(100):
                sequence += 3000 if rng.random() < 0.01 else rng.choice((1, 1, 1, 2, 40))
                one.send_once(one.protected_rtp(strange(rng, sequence)))
                if rng.random() < 0.01:
                    one.send_once(one.protected(rtcp_noise(rng)))
            one.check()
            time.sleep(0.01)
    figures = world.control.ask("publisher.statistics")["publishers"]
    assert figures["one"]["strangers"] > 500
    tracks = figures["one"]["tracks"]
    assert tracks["0"]["packets"] > 20
    assert tracks["0"]["nacks"] > 0
    assert tracks["0"]["plis"] <= 10
    assert figures["other"]["strangers"] == 0
    # It can go on properly.
    before = tracks["1"]["packets"]
    time.sleep(0.6)
    for number in range(50):
        one.send(one.protected_rtp(rtp(111, 4, number, b"opus")))
    wait_until(lambda: packets_of(world, "one", "1") >= before + 50)


def test_nonsense_at_a_publishers_address_is_counted(world: World) -> None:
    rng = random.Random(12)
    one = world.publisher("one")
    one.connect()
    before = world.totals()
    with world.undisturbed():
        for number in range(3000):
            one.send_once(bytes([0x80, 102]) + rng.randbytes(rng.randrange(1, 1400)))
            one.send_once(bytes([rng.randrange(20, 64)]) + rng.randbytes(200))
            one.send_once(bytes([0x80, 200]) + rng.randbytes(100))
            one.send_once(one.protected_rtp(rtp(102, 1, number, b"x" * 100)))
            if number % 50 == 0:
                time.sleep(0.01)
            after = world.totals()
    assert after["refused_srtp"] - before["refused_srtp"] > 2500
    assert after["refused_rtcp"] - before["refused_rtcp"] > 2500
    assert packets_of(world, "one", "0") > 2500


def test_who_says_nothing_is_let_go(world: World) -> None:
    world.publisher("never")
    silent, lively = world.publisher("silent"), world.publisher("lively")
    for one in (silent, lively):
        one.connect()
    wait_until(lambda: len(world.control.told("publisher.up")) == 2)
    began = time.monotonic()
    silent.send(silent.protected_rtp(rtp(102, 1, 1, b"x")))
    numbers = itertools.count()

    def alive() -> None:
        lively.send(lively.protected_rtp(rtp(111, 1, next(numbers), b"x")))

    def gone(name: str, why: str) -> bool:
        alive()
        return bool(world.control.told("publisher.gone", publisher=name, why=why))

    wait_until(lambda: gone("silent", "silent"))
    assert time.monotonic() - began > 4.5
    wait_until(lambda: gone("never", "never"))
    assert not world.control.told("publisher.gone", publisher="lively")
    again = world.control.ask("publisher.key_frame", publisher="silent")
    assert again["code"] == "unknown"


def rtcp_noise(rng: random.Random) -> bytes:
    words = rng.randrange(1, 30)
    kind = rng.choice((200, 201, 202, 203, 205, 206, 207))
    head = struct.pack("!BBHI", 0x80 | rng.randrange(32), kind, words, rng.randrange(1, 4))
    return head + rng.randbytes(4 * (words - 1))


def packets_of(world: World, name: str, mid: str) -> int:
    figures = world.control.ask("publisher.statistics", publisher=name)["publishers"][name]
    return int(figures["tracks"][mid]["packets"])
