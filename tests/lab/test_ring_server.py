"""Packets lost above the leaf: asked for once, repaired, and no viewer notices."""

import json
import random
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.lab.leaf_peer import Control, Message, World, a_world, is_listening
from tests.lab.test_leaf_bad_input import nack, rtp, spoilt
from tests.waiting import wait_until

from anabranch.app.bench.viewers_load import find_program
from anabranch.core.errors import UnavailableError
from anabranch.media.leaf import LeafUnavailableError
from anabranch.media.leaf_binary import find_server


def _is_built() -> bool:
    try:
        return bool(find_server() and find_program())
    except (LeafUnavailableError, UnavailableError):
        return False


pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not _is_built(), reason="the leaf server is not built"),
]
STREAM, AT_LEAF = 3, 21010
GROUP = "other"
ASKED_AT = 5900
HERE = "127.0.0.0/8"


class Ring(Control):
    """A ring server in the world's namespace, at a port of its own."""

    def __init__(self, path: Path, process: "subprocess.Popen[bytes]", port: int) -> None:
        super().__init__(path)
        self.process = process
        self.parent = f"127.0.0.1:{port}"
        self.arrives = ("127.0.0.1", 21100 + port - ASKED_AT)

    def add_stream(self, parent: str | None = None) -> None:
        answer = self.ask(
            "stream.add",
            stream=STREAM,
            kind="video",
            port=self.arrives[1],
            address="127.0.0.1",
            name="ring",
            group=GROUP,
            clock=90_000,
            kbps=600,
            max_bytes=2**18,
            **({} if parent is None else {"parent": parent}),
        )
        assert answer == {}, answer

    def figures(self) -> Message:
        return self.ask("statistics")["streams"][str(STREAM)]

    def totals(self) -> dict[str, int]:
        return self.ask("statistics")["totals"]


@contextmanager
def ring(world: World, port: int = ASKED_AT, may_ask: str = HERE) -> Iterator[Ring]:
    directory = Path(tempfile.mkdtemp(prefix="ab", dir="/tmp"))
    path = directory / "control.sock"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        process = subprocess.Popen(
            (
                *("nsenter", f"--net=/run/netns/{world.netns}", "--", str(find_server())),
                *("serve", "--control", str(path), "--repair", f"127.0.0.1:{port}"),
                *("--repair-for", may_ask),
            ),
            stderr=subprocess.DEVNULL,
        )
        stack.enter_context(process)
        stack.callback(process.terminate)
        wait_until(lambda: is_listening(path))
        made = Ring(path, process, port)
        stack.callback(made.close)
        yield made


class Line(threading.Thread):
    """Hands a source's packets on: all of them to who is near, and what is not lost to the far."""

    def __init__(
        self, world: World, near: Sequence[tuple[str, int]], far: Sequence[tuple[str, int]]
    ) -> None:
        super().__init__()
        self.loss = 0.0
        self.lost = 0
        self._near, self._far = near, far
        self._socket = world.socket()
        self._socket.settimeout(0.2)
        self._rng = random.Random(1)
        self._is_over = False
        self.address = "{}:{}".format(*self._socket.getsockname())

    def run(self) -> None:
        while not self._is_over:
            try:
                packet = self._socket.recv(2048)
            except TimeoutError:
                continue
            is_lost = self._rng.random() < self.loss
            self.lost += is_lost
            for to in (*self._near, *(() if is_lost else self._far)):
                self._socket.sendto(packet, to)

    def end(self) -> None:
        self._is_over = True
        self.join()


@contextmanager
def line(
    world: World, near: Sequence[tuple[str, int]], far: Sequence[tuple[str, int]]
) -> Iterator[Line]:
    """A stream on its way, and its source."""
    made = Line(world, near, far)
    made.start()
    with ExitStack() as stack:
        stack.callback(made.end)
        source = subprocess.Popen(
            (
                *("nsenter", f"--net=/run/netns/{world.netns}", "--", find_program(), "source"),
                *("--to", made.address, "--ssrc", str(STREAM), "--gop", "1"),
            ),
            stdout=subprocess.DEVNULL,
        )
        stack.enter_context(source)
        stack.callback(source.terminate)
        yield made


@contextmanager
def losing(world: World, condition: str, percent: int) -> Iterator[None]:
    """Lose some of what arrives in the world and fulfils a condition of nft."""
    enter = ["nsenter", f"--net=/run/netns/{world.netns}", "--"]
    rules = f"""
    table inet lossy {{
      chain in {{
        type filter hook input priority 0;
        {condition} numgen random mod 100 < {percent} drop
      }}
    }}
    """
    subprocess.run([*enter, "nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*enter, "nft", "delete", "table", "inet", "lossy"], check=True)


def shown(world: World, name: str = "one") -> None:
    """Have a viewer of the stream."""
    world.watcher(name)
    wait_until(lambda: world.stream(STREAM)["key_frame_age_ms"] is not None)
    world.load.ask("await", viewer=name, stream=STREAM)
    world.control.ask(
        "viewer.change", viewer=name, group=GROUP, ladder=[{"stream": STREAM, "kbps": 600}]
    )
    wait_until(lambda: world.load.told("viewer.arrived", viewer=name))


def tell(figures: Message) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")


def watched(world: World) -> dict[str, int]:
    return world.load.ask("statistics")["totals"]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_viewer_notices_nothing_of_what_its_leaf_gets_repaired(threads: int) -> None:
    leaf = ("127.0.0.1", AT_LEAF)
    with (
        a_world(watchers=0, threads=threads) as world,
        ring(world) as parent,
        line(world, [parent.arrives], [leaf]) as way,
    ):
        parent.add_stream()
        world.add_stream(STREAM, AT_LEAF, group=GROUP)
        shown(world)
        way.loss = 0.05
        before, lost = watched(world), way.lost
        time.sleep(5)
        without = watched(world)["nacks"] - before["nacks"]
        # A viewer asks in vain for what nobody here has.
        assert without >= (way.lost - lost) / 2 > 0
        assert world.stream(STREAM)["lost"] >= way.lost - 2

        assert world.control.ask("stream.parent", stream=STREAM, parent=parent.parent) == {}
        time.sleep(1)  # the first answer tells how long one takes
        world.load.ask("statistics", reset=True)
        before, lost, began = watched(world), way.lost, world.stream(STREAM)
        trips = []
        for _ in range(20):
            time.sleep(0.4)
            trips.append(world.stream(STREAM)["repair_ms"])
        way.loss = 0.0
        lost = way.lost - lost
        time.sleep(0.5)
        after, stream = watched(world), world.stream(STREAM)
        figures = {
            "lost": lost,
            "asked": stream["asked"] - began["asked"],
            "repaired": stream["repaired"] - began["repaired"],
            "repair_ms_p50": statistics.median(trips),
            "nacks_without": without,
            "nacks": after["nacks"] - before["nacks"],
            "delay_us": world.load.ask("statistics")["delay_us"],
        }
        tell(figures)
        assert lost > 10
        assert figures["repaired"] >= lost - 2  # one or two were on their way when we began
        assert stream["given_up"] == 0
        assert stream["lost"] == began["lost"] or stream["lost"] <= began["lost"]
        # Most are repaired before anybody could have missed them.
        assert figures["nacks"] <= max(2, lost / 3), figures
        assert after["lost"] - before["lost"] <= 0
        assert after["duplicates"] == before["duplicates"]
        totals = parent.totals()
        assert totals["repairs_sent"] <= figures["asked"] + began["asked"] + 3


def test_a_loss_above_is_repaired_once_however_many_are_below() -> None:
    leaf = ("127.0.0.1", AT_LEAF)
    with (
        a_world(watchers=0) as world,
        ring(world) as root,
        ring(world, ASKED_AT + 1) as relay,
        ring(world, ASKED_AT + 2) as other,  # stands for a second leaf
        line(world, [root.arrives], [relay.arrives, other.arrives, leaf]) as way,
    ):
        root.add_stream()
        relay.add_stream(root.parent)
        other.add_stream(relay.parent)
        world.add_stream(STREAM, AT_LEAF, group=GROUP, parent=relay.parent)
        for name in ("one", "two", "three"):
            shown(world, name)
        way.loss = 0.05
        time.sleep(8)
        way.loss = 0.0
        time.sleep(0.5)
        assert way.lost > 10
        for stream in (relay.figures(), other.figures(), world.stream(STREAM)):
            assert (stream["asked"], stream["repaired"]) == (way.lost, way.lost), stream
            assert (stream["lost"], stream["given_up"]) == (0, 0)
        at_root, at_relay = root.totals(), relay.totals()
        # A question that was late is answered once more at the most.
        assert way.lost <= at_root["repairs_sent"] <= way.lost * 1.1
        assert 2 * way.lost <= at_relay["repairs_sent"] <= 2 * way.lost * 1.1
        assert (at_root["repairs_refused"], at_relay["repairs_unknown"]) == (0, 0)
        tell({"lost": way.lost, "root": at_root["repairs_sent"], "relay": at_relay["repairs_sent"]})


def test_questions_and_repairs_may_be_lost_too() -> None:
    leaf = ("127.0.0.1", AT_LEAF)
    with (
        a_world(watchers=0) as world,
        ring(world) as parent,
        line(world, [parent.arrives], [leaf]) as way,
    ):
        parent.add_stream()
        world.add_stream(STREAM, AT_LEAF, group=GROUP, parent=parent.parent)
        wait_until(lambda: world.stream(STREAM)["packets"] > 20)
        with losing(world, f"udp dport {ASKED_AT}", 25):
            way.loss = 0.1
            time.sleep(6)
            way.loss = 0.0
        time.sleep(0.5)
        stream = world.stream(STREAM)
        assert stream["asked"] == way.lost > 10
        assert stream["repaired"] >= 0.9 * way.lost
        assert stream["given_up"] == stream["lost"] == way.lost - stream["repaired"]


def test_without_its_parent_a_leaf_goes_on_as_if_it_had_none() -> None:
    leaf = ("127.0.0.1", AT_LEAF)
    with a_world(watchers=0) as world, ExitStack() as stack:
        parent = stack.enter_context(ring(world))
        way = stack.enter_context(line(world, [parent.arrives], [leaf]))
        parent.add_stream()
        world.add_stream(STREAM, AT_LEAF, group=GROUP, parent=parent.parent)
        shown(world)
        parent.process.kill()
        way.loss = 0.1
        time.sleep(3)
        stream = world.stream(STREAM)
        assert stream["given_up"] > 0 == stream["repaired"]
        assert world.load.ask("statistics")["up"] == 1
        # One that comes in its place is asked as well, as soon as it has something.
        parent.process.wait()
        again = stack.enter_context(ring(world))
        again.add_stream()
        wait_until(lambda: world.stream(STREAM)["repaired"] > 3)
        way.loss = 0.0
        assert world.control.ask("stream.parent", stream=STREAM, parent=None) == {}
        asked = world.totals()["packets_asked"]
        way.loss = 0.1
        time.sleep(1)
        assert world.totals()["packets_asked"] == asked > 0


def test_a_parent_that_cannot_be_is_refused() -> None:
    with a_world(watchers=0) as world:
        world.add_stream(STREAM, AT_LEAF, group=GROUP)
        for parent in ("0.0.0.0:5900", "[::1]:5900", "239.1.1.1:5900", "127.0.0.1:0"):
            for do in ("stream.parent", "stream.add"):
                members = {"kind": "video", "address": "127.0.0.1", "port": 21050, "name": "s",
                           "group": GROUP, "clock": 90_000, "kbps": 600}  # fmt: skip
                answer = world.control.ask(do, stream=STREAM, parent=parent, **members)
                assert answer["code"] == "invalid", (do, parent, answer)
        assert world.control.ask("stream.parent", stream=99)["code"] == "unknown"


# --- who asks ----------------------------------------------------------------------------------


def a_stream(to: tuple[str, int], sender: socket.socket, count: int) -> None:
    for number in range(count):
        sender.sendto(rtp(number, number * 3600, b"\x41" + bytes(1000), ssrc=STREAM), to)


def answers(one: socket.socket) -> list[bytes]:
    one.settimeout(0.3)
    found = []
    try:
        while True:
            found.append(one.recv(2048))
    except TimeoutError:
        return found


def test_who_asks_gets_the_very_packets_and_a_stranger_gets_nothing() -> None:
    with a_world(watchers=0) as world, ring(world, may_ask="127.0.0.1/32") as parent:
        parent.add_stream()
        one, stranger = world.socket(), world.socket("127.0.0.2")
        a_stream(parent.arrives, one, 100)
        wait_until(lambda: parent.figures()["packets"] == 100)
        for each in (one, stranger):
            each.sendto(nack(STREAM, 40, 1), ("127.0.0.1", ASKED_AT))
        found = answers(one)
        assert sorted(found) == [
            rtp(number, number * 3600, b"\x41" + bytes(1000), ssrc=STREAM)
            for number in range(40, 57)
        ]
        assert answers(stranger) == []
        totals = parent.totals()
        assert (totals["repairs_sent"], totals["repair_strangers"]) == (17, 1)
        assert parent.ask("viewer.add", viewer="v")["code"] == "invalid"


def test_an_asker_that_wants_everything_all_the_time_gets_little() -> None:
    with a_world(watchers=0) as world, ring(world) as parent:
        parent.add_stream()
        one = world.socket()
        a_stream(parent.arrives, one, 200)
        wait_until(lambda: parent.figures()["packets"] == 200)
        began = time.monotonic()
        while time.monotonic() < began + 2:
            one.sendto(nack(STREAM, 0, 10), ("127.0.0.1", ASKED_AT))
            time.sleep(0.002)
        time.sleep(0.3)
        totals = parent.totals()
        # A burst of 77 kB, and then 600 kbit/s.
        assert totals["repairs_sent"] * 1001 < 77_000 + 3 * 75_000
        assert totals["repairs_refused"] > 10_000


def test_nonsense_at_the_port_for_questions_stops_nobody() -> None:
    rng = random.Random(1)
    with a_world(watchers=0) as world, ring(world) as parent:
        parent.add_stream()
        one, other = world.socket(), world.socket()
        a_stream(parent.arrives, one, 100)
        real = [nack(STREAM, 40, 3), struct.pack("!BBHI", 0x80, 201, 1, 1)]
        for number in range(5000):
            other.sendto(spoilt(rng, real), ("127.0.0.1", ASKED_AT))
            if number % 50 == 0:
                time.sleep(0.005)
        one.sendto(nack(STREAM, 60, 1), ("127.0.0.1", ASKED_AT))
        assert len(answers(one)) == 17
        totals = parent.totals()
        assert totals["repair_malformed"] > 100
        assert parent.process.poll() is None
