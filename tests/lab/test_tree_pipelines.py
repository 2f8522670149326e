"""Pipelines of a node with the real GStreamer, RTP on loopback."""

import asyncio
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import psutil
import pytest
from tests.media.rtp_receiver import RtpReceiver
from tests.waiting import until

from anabranch.host.process import SYSTEM_PYTHON, end_marked, find_marked
from anabranch.tree.pipelines.elements import ELEMENTS, OUTLET, SOURCE, OneOf, Whole
from anabranch.tree.pipelines.handler import PipelineHandler
from anabranch.tree.pipelines.overlay import Overlay
from anabranch.tree.pipelines.run import WORKER
from anabranch.tree.soleil.messages import (
    Endpoint,
    Error,
    Fault,
    Message,
    PipeDef,
    PipeDefInfo,
    PipelineState,
    PlayPipeline,
    RemovePipeline,
    RoutePipeline,
    StopPipeline,
)

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        not Path(SYSTEM_PYTHON).exists()
        or subprocess.run([SYSTEM_PYTHON, "-c", "import gi"], capture_output=True).returncode != 0,
        reason="needs GStreamer's Python bindings",
    ),
]

TWO_OUTLETS = (
    "anabranchsrc stream=news ! tee name=t"
    "  t. ! queue ! anabranchsink name=a  t. ! queue ! anabranchsink name=b"
)
CAMERA = (
    "videotestsrc pattern=ball ! video/x-raw,width=320,height=180,framerate=25/1"
    " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 threads=1"
    " ! rtph264pay mtu=1200 config-interval=-1 ! anabranchsink name=out"
)
LOWER = (
    "anabranchsrc stream=news ! tee name=t  t. ! queue ! anabranchsink name=full"
    "  t. ! queue ! rtph264depay ! h264parse ! openh264dec ! videoscale ! videoconvert"
    " ! video/x-raw, width=160, height=90 ! x264enc tune=zerolatency speed-preset=ultrafast"
    " key-int-max=25 bitrate=100 threads=1 ! rtph264pay mtu=1200 config-interval=-1"
    " ! anabranchsink name=low"
)


class Node:
    """A pipeline handler, what it told unasked, and a word for each command."""

    def __init__(self, address: str, run_id: str, netns: str | None = None, **options) -> None:
        self.changes: list[PipeDefInfo] = []
        overlay = Overlay(address, range(19000, 19100), (ip_network("127.0.0.0/8"),), netns=netns)
        self.handler = PipelineHandler(overlay, run_id, self.changes.append, **options)

    async def obey(self, command):
        return await self.handler.handle(Message(command, 0, sender="^", id="m-1"))

    async def play(self, name: str, description: str, **routes: RtpReceiver) -> PipeDefInfo:
        await self.obey(PipeDef(name, description))
        for outlet, receiver in routes.items():
            await self.route(name, outlet, receiver)
        info = await self.obey(PlayPipeline(name))
        assert (info.state, info.error) == (PipelineState.PLAYING, None)
        return info

    async def route(self, name: str, outlet: str, *receivers: RtpReceiver) -> PipeDefInfo:
        to = tuple(Endpoint(*receiver.target) for receiver in receivers)
        info = await self.obey(RoutePipeline(name, outlet, to))
        assert info.outlets[outlet] == to
        return info

    def port(self, name: str, stream: str) -> int:
        return self.handler._definitions.named(name).ports[stream]


@asynccontextmanager
async def running(*addresses, **options):
    run_id = f"t{secrets.token_hex(4)}"
    nodes = [Node(address, run_id, **options) for address in addresses]
    try:
        yield nodes[0] if len(nodes) == 1 else nodes
    finally:
        for node in nodes:
            await node.handler.stop()
        left = end_marked(run_id)
    assert left == 0, f"{left} processes were left running"


class Sender:
    """Sends RTP to 127.0.0.1, never more than 32 packets ahead of a receiver that gets them all."""

    def __init__(self, port: int) -> None:
        self._to = "127.0.0.1", port
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._start = 0x12345678
        self.sent = 0

    def send(self, count: int = 1, *, lost: int = 0) -> None:
        self.sent += lost
        for _ in range(count):
            header = struct.pack(
                "!BBHII", 0x80, 96, self.sent, self._start + 450 * self.sent, 0xABCD
            )
            self._socket.sendto(header + bytes(100), self._to)
            self.sent += 1

    async def keep_to(self, receiver: RtpReceiver, lost: int = 0) -> None:
        behind = self.sent - lost
        await until(lambda: len(receiver.packets) > behind - 32, "a packet is missing", limit_s=20)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def sender():
    made = []

    def make(port):
        made.append(Sender(port))
        return made[-1]

    yield make
    for each in made:
        each.close()


async def test_routes_change_without_a_packet_lost_where_one_stays(sender):
    async with (
        running("127.0.0.1") as node,
        RtpReceiver() as stays,
        RtpReceiver() as other,
        RtpReceiver() as comes,
    ):
        await node.play("relay", TWO_OUTLETS, a=stays, b=other)
        source = sender(node.port("relay", "news"))
        for turn in range(100):
            source.send(20)
            await source.keep_to(stays)
            await node.route("relay", "a", *([comes, stays] if turn % 2 else [stays]))
            await node.route("relay", "b", *([other] if turn % 2 else []))
        await until(lambda: len(stays.packets) == source.sent, "all packets", limit_s=20)
        assert not stays.gaps()
        assert 0 < len(comes.packets) < source.sent
        assert 0 < len(other.packets) < source.sent
        assert all(len(packet.payload) == 100 for packet in stays.packets)


async def test_loss_and_counters_are_reported_and_outlive_a_destination(sender):
    async with running("127.0.0.1") as node, RtpReceiver() as receiver:
        await node.play("relay", TWO_OUTLETS, a=receiver)
        source = sender(node.port("relay", "news"))
        source.send(20)
        source.send(20, lost=3)
        await until(lambda: len(receiver.packets) == 40, "all packets", limit_s=20)
        await node.route("relay", "a")

        def report():
            return node.handler.reports()["relay"]

        await until(
            lambda: report().sources and report().sources["news"].packets == 40, "", limit_s=20
        )
        received = report().sources["news"]
        assert (received.octets, received.lost) == (4000, 3)
        assert report().outlets["a"].packets == 40
        assert report().outlets["a"].octets == 40 * 112
        assert report().outlets["b"].packets == 0
        assert (report().state, report().lives) == (PipelineState.PLAYING, 1)


async def test_a_relay_makes_a_lower_rendition_of_a_real_picture():
    async with (
        running("127.0.0.2", "127.0.0.1") as (camera, relay),
        RtpReceiver() as full,
        RtpReceiver() as low,
    ):
        await relay.play("relay", LOWER, full=full, low=low)
        await camera.obey(PipeDef("camera", CAMERA))
        to = (Endpoint("127.0.0.1", relay.port("relay", "news")),)
        await camera.obey(RoutePipeline("camera", "out", to))
        await camera.obey(PlayPipeline("camera"))
        await until(lambda: len(low.pictures()) > 30, "pictures", limit_s=60)
        sizes = {(frame.width, frame.height) for frame in full.decode()}
        assert sizes == {(320, 180)}
        assert {(frame.width, frame.height) for frame in low.decode()} == {(160, 90)}


async def test_a_killed_worker_plays_again_where_it_was_routed(sender):
    async with running("127.0.0.1") as node, RtpReceiver() as first, RtpReceiver() as later:
        await node.play("relay", TWO_OUTLETS, a=first)
        await node.route("relay", "a", later)
        pid = node.handler.pid("relay")
        os.kill(pid, 9)
        await until(lambda: len(node.changes) >= 2, "two changes", limit_s=30)
        failed, playing = node.changes[:2]
        assert (failed.state, failed.restarts) == (PipelineState.FAILED, 1)
        assert failed.error == "the worker ended by signal 9"
        assert (playing.state, playing.restarts) == (PipelineState.PLAYING, 1)
        assert node.handler.pid("relay") not in (pid, None)
        sender(node.port("relay", "news")).send(10)
        await until(lambda: len(later.packets) == 10, "packets", limit_s=20)
        assert not first.packets
        assert node.handler.reports()["relay"].lives == 2


async def test_a_worker_that_hangs_is_ended_and_plays_again():
    async with running("127.0.0.1", silence=3.0) as node:
        await node.play("relay", TWO_OUTLETS)
        os.kill(node.handler.pid("relay"), signal.SIGSTOP)
        await until(lambda: len(node.changes) >= 2, "two changes", limit_s=60)
        assert node.changes[0].error == "the worker said nothing for 3 s"
        assert node.changes[1].state is PipelineState.PLAYING


async def test_stopped_it_stays_defined_removed_it_is_gone():
    async with running("127.0.0.1") as node:
        await node.play("relay", TWO_OUTLETS)
        pid = node.handler.pid("relay")
        again = await node.obey(PlayPipeline("relay"))
        assert (again.state, node.handler.pid("relay")) == (PipelineState.PLAYING, pid)
        assert (await node.obey(StopPipeline("relay"))).state is PipelineState.STOPPED
        assert not psutil.pid_exists(pid)
        assert (await node.obey(PlayPipeline("relay"))).state is PipelineState.PLAYING
        pid = node.handler.pid("relay")
        assert node.handler.pipelines == ("relay",)
        gone = await node.obey(RemovePipeline("relay"))
        assert gone == PipeDefInfo("relay", PipelineState.STOPPED)
        assert not psutil.pid_exists(pid)
        assert node.handler.pipelines == ()
        answer = await node.obey(PlayPipeline("relay"))
        assert answer == Error(Fault.NOT_FOUND, "there is no pipeline relay", "playpipeline", "m-1")
        assert node.changes == []


async def test_the_same_definition_again_is_not_touched_another_ends_the_old_one():
    async with running("127.0.0.1") as node:
        info = await node.play("relay", TWO_OUTLETS)
        pid = node.handler.pid("relay")
        for same in (TWO_OUTLETS, info.description):
            assert await node.obey(PipeDef("relay", same)) == info
        refused = await node.obey(PipeDef("relay", "filesrc ! anabranchsink name=a"))
        assert (refused.fault, refused.regarding) == (Fault.FORBIDDEN, "pipedef")
        assert node.handler.pid("relay") == pid
        other = await node.obey(PipeDef("relay", TWO_OUTLETS.replace("name=b", "name=c")))
        assert other.state is PipelineState.DEFINED
        assert set(other.outlets) == {"a", "c"}
        assert not psutil.pid_exists(pid)


async def test_commands_sent_at_once_are_obeyed_in_order():
    async with running("127.0.0.1") as node:
        commands = [
            PipeDef("relay", TWO_OUTLETS),
            PlayPipeline("relay"),
            StopPipeline("relay"),
            RemovePipeline("relay"),
            PipeDef("relay", TWO_OUTLETS),
            PlayPipeline("relay"),
        ]
        answers = await asyncio.gather(*(node.obey(command) for command in commands))
        assert [answer.state.value for answer in answers] == [
            "defined", "playing", "stopped", "stopped", "defined", "playing",
        ]  # fmt: skip


async def test_what_does_not_fit_together_fails_with_the_reason_and_can_be_stopped():
    async with running("127.0.0.1") as node:
        await node.obey(
            PipeDef("odd", "anabranchsrc stream=x ! videoconvert name=v ! anabranchsink name=o")
        )
        info = await node.obey(PlayPipeline("odd"))
        assert info.state is PipelineState.FAILED
        assert info.error == "anabranchsrc0 and v do not fit together"
        assert (await node.obey(StopPipeline("odd"))).state is PipelineState.STOPPED


async def test_a_taken_port_fails_until_it_is_free():
    async with running("127.0.0.1") as node:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 19000))
            await node.obey(PipeDef("relay", TWO_OUTLETS))
            info = await node.obey(PlayPipeline("relay"))
            assert info.state is PipelineState.FAILED
            assert "Address already in use" in info.error
        await until(
            lambda: PipelineState.PLAYING in {c.state for c in node.changes}, "plays", limit_s=30
        )


async def test_leaving_ends_everything_also_what_is_being_started():
    async with running("127.0.0.1") as node:
        await node.play("one", TWO_OUTLETS)
        await node.obey(PipeDef("two", TWO_OUTLETS))
        starting = asyncio.create_task(node.obey(PlayPipeline("two")))
        await asyncio.sleep(0)
        await node.handler.stop()
        await starting
        assert node.handler.pipelines == ()
        assert not find_marked(node.handler._run_id)
        assert (await node.obey(PipeDef("three", TWO_OUTLETS))).fault is Fault.FAILED


async def test_a_worker_ends_with_whoever_started_it():
    process = await asyncio.create_subprocess_exec(
        SYSTEM_PYTHON,
        str(WORKER),
        stdin=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_a_worker_has_no_privileges_and_writes_no_file():
    async with running("127.0.0.1") as node:
        await node.play("relay", TWO_OUTLETS)
        worker = psutil.Process(node.handler.pid("relay"))
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert 0 not in worker.uids()
        assert 0 not in worker.gids()
        assert status["Groups"].strip() == ""
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapAmb")} == {0}
        assert status["NoNewPrivs"] == "1"
        limits = {
            line[:26].strip(): line[26:].split()[:2]
            for line in Path(f"/proc/{worker.pid}/limits").read_text().splitlines()
        }
        assert limits["Max file size"] == limits["Max core file size"] == ["0", "0"]
        assert all(int(most) <= 2 * 1024**3 for most in limits["Max address space"])
        assert worker.nice() > 0


@pytest.fixture
def netns():
    name = f"ab-t{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


async def test_a_worker_lives_in_the_overlays_namespace(netns):
    subprocess.run(["ip", "-n", netns, "link", "set", "lo", "up"], check=True)
    async with running("127.0.0.1", netns=netns) as node:
        await node.play("relay", TWO_OUTLETS)
        own = Path(f"/proc/{node.handler.pid('relay')}/ns/net").stat().st_ino
        assert own == Path(f"/run/netns/{netns}").stat().st_ino


INSPECT = """
import json, sys
import gi
gi.require_version("Gst", "1.0")
from gi.repository import GObject, Gst
Gst.init(None)
found = {}
for factory in json.load(sys.stdin):
    element = Gst.ElementFactory.make(factory)
    if element is None:
        continue
    found[factory] = {"klass": element.get_factory().get_metadata("klass"), "properties": {}}
    for spec in element.list_properties():
        words = None
        if hasattr(spec, "enum_class"):
            words = [each.value_nick for each in spec.enum_class.__enum_values__.values()]
        elif hasattr(spec, "flags_class"):
            words = [nick for each in spec.flags_class.__flags_values__.values()
                     for nick in each.value_nicks]
        span = [getattr(spec, "minimum", None), getattr(spec, "maximum", None)]
        writable = bool(spec.flags & GObject.ParamFlags.WRITABLE)
        found[factory]["properties"][spec.name] = [writable, words, span]
json.dump(found, sys.stdout)
"""
NOT_IN_EVERY_DEBIAN_INSTALLATION = {"avdec_h264"}


def test_the_allow_list_is_gstreamers_own():
    """Every element, property and value exists; none deals with files, networks or devices."""
    mine = [name for name in ELEMENTS if name not in (SOURCE, OUTLET)]
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", INSPECT], input=json.dumps(mine), capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    assert set(mine) - found.keys() <= NOT_IN_EVERY_DEBIAN_INSTALLATION, done.stderr
    for name in found:
        klass = set(found[name]["klass"].split("/"))
        assert not klass & {"File", "Device", "Sink", "Hardware", "URI"}, name
        assert "Network" not in klass or "RTP" in klass, name
        shape = ELEMENTS[name]
        for each, kind in {**shape.properties, **shape.fixed}.items():
            writable, words, span = found[name]["properties"][each]
            assert writable, (name, each)
            if isinstance(kind, OneOf) and words is not None:
                assert set(kind.words) <= set(words), (name, each)
            elif isinstance(kind, Whole):
                assert span[0] <= kind.low, (name, each)
                assert kind.high <= span[1], (name, each)
