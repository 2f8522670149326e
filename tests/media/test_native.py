"""The adapter of our own leaf server, against a process with a real control socket."""

import asyncio
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.media.control_server import ControlServer, Message, refusal
from tests.media.offers import CHROMIUM_WHOLE, GSTREAMER
from tests.waiting import until

from anabranch.core.names import new_id
from anabranch.host.holdings import Holdings, keeping
from anabranch.host.process import RUN_MARK
from anabranch.media import inlets, leaf_binary, native_process, native_streams
from anabranch.media.leaf import (
    Feed,
    KeyFrame,
    LeafBusyError,
    LeafPlace,
    LeafUnavailableError,
    OfferError,
    Rung,
    ViewerStatistics,
)
from anabranch.media.leaf_binary import find_server
from anabranch.media.native import NativeLeaf
from anabranch.media.native_figures import Repairs, read_figures
from anabranch.media.native_log import relay
from anabranch.media.sdp import split

HIGH, LOW, OTHER = Feed("test1", "high"), Feed("test1", "low"), Feed("test2", "high")
LADDER = [Rung(HIGH, 1000), Rung(LOW, 300)]
FIGURES = ViewerStatistics(1000, 8, 2, 3, 1.5, None)


class Both:
    """A leaf, and the server in this process that it is led to."""

    def __init__(self, directory: Path) -> None:
        self.server = ControlServer(directory / "control.sock")
        self.leaf = NativeLeaf(place(directory))
        self.states: list[tuple[str, str]] = []
        self.shown: list[tuple[str, Feed]] = []
        self.key_frames: list[Feed] = []
        self.opened: list[set[Feed]] = []
        self.leaf.on_viewing = lambda viewing, state: self.states.append((viewing, state))
        self.leaf.on_shown = lambda viewing, feed: self.shown.append((viewing, feed))
        self.leaf.on_key_frame = self.key_frames.append
        self.leaf.on_inlets = lambda: self.opened.append(self.feeds())

    def feeds(self) -> set[Feed]:
        return {inlet.feed for inlet in self.leaf.inlets()}

    def stream(self, feed: Feed) -> int:
        """The number of a feed's picture, as the server knows it."""
        name = f"{feed.rendition}@{feed.channel}"
        (number,) = {
            each["stream"] for each in self.server.asked("stream.add") if each["name"] == name
        }
        return int(number)


def place(directory: Path, run_id: str = "") -> LeafPlace:
    return LeafPlace(
        name="leaf1",
        directory=directory,
        run_id=run_id or new_id(),
        netns=None,
        media_addresses=("10.97.0.2", "fd00::2"),
        public_addresses=("192.0.2.1",),
        media_ports=(20000, 20499),
        inlet_interface="127.0.0.1",
        inlet_ports=(21000, 21099),
        inner_addresses=("fd00:1::2",),  # which no answer tells
    )


@pytest.fixture
def directory() -> Any:
    made = Path(tempfile.mkdtemp(prefix="ab", dir="/tmp"))
    yield made
    shutil.rmtree(made)


def program(directory: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Have the leaf start this command as its server."""
    path = directory / "server"
    path.write_text(f'#!/bin/sh\nprintf "%s " "$@" > {directory}/argv\nexec {" ".join(words)}\n')
    path.chmod(0o755)
    monkeypatch.setenv(leaf_binary.VARIABLE, str(path))


@pytest.fixture
async def both(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Both]:
    """The process sleeps: its socket is served here, where a test can have it say anything."""
    program(directory, monkeypatch, "sleep", "1000")
    made = Both(directory)
    await made.server.start()
    await made.leaf.start()
    yield made
    await made.leaf.stop()
    await made.server.stop()


async def test_a_viewer_is_answered_by_what_the_server_says(both: Both) -> None:
    viewing = await both.leaf.watch(HIGH, CHROMIUM_WHOLE, ladder=LADDER)
    (added,) = both.server.asked("viewer.add")
    assert added["viewer"] == viewing.id
    assert added["group"] == "test1"
    assert added["remote"] == {
        "ufrag": "abcd",
        "pwd": "abcdefghijklmnopqrstuvwx",
        "fingerprint": "sha-256 " + ":".join(["AB"] * 32),
        "setup": "actpass",
    }
    assert added["video"] == {
        "payload_type": 106,
        "rtx_payload_type": 107,
        "mid": "0",
        "extensions": {"abs-send-time": 2, "playout-delay": 5, "mid": 9},
    }
    assert added["audio"] == {"payload_type": 111, "mid": "1", "extensions": {"mid": 9}}
    assert [rung["kbps"] for rung in added["ladder"]] == [1000, 300]
    assert (added["start"], added["pinned"]) == (0, False)

    high, sound = both.server.asked("stream.add")
    assert added["ladder"][0]["stream"] == high["stream"]
    assert added["sound"] == sound["stream"]
    assert (high["kind"], high["clock"], high["kbps"], high["group"]) == (
        "video",
        90000,
        1000,
        "test1",
    )
    assert (sound["kind"], sound["clock"], sound["address"]) == ("audio", 48000, "127.0.0.1")
    (inlet,) = both.leaf.inlets()
    assert (inlet.feed, inlet.video_port, inlet.audio_port) == (HIGH, high["port"], sound["port"])

    _, (video, _) = split(viewing.answer)
    assert video.value("ice-pwd") == "ourpassword0123456789ab"
    assert video.value("fingerprint") == "sha-256 AB:CD"
    assert list(video.values("ssrc")) == [f"{n} cname:{added['cname']}" for n in (1, 2)]
    at = [value.split()[4:6] for value in video.values("candidate")]
    assert at == [["192.0.2.1", "20000"], ["10.97.0.2", "20000"], ["fd00::2", "20000"]]


async def test_a_viewer_without_a_mid_or_sound_is_taken(both: Both) -> None:
    text = CHROMIUM_WHOLE[: CHROMIUM_WHOLE.index("m=audio")]
    text = text.replace("a=mid:0\n", "").replace("a=group:BUNDLE 0 1\n", "")
    await both.leaf.watch(HIGH, text, ladder=LADDER[::-1])  # in whatever order
    (added,) = both.server.asked("viewer.add")
    assert "audio" not in added
    assert "mid" not in added["video"]["extensions"]
    assert [rung["kbps"] for rung in added["ladder"]] == [1000, 300]


async def test_a_stream_is_asked_for_before_its_viewer(both: Both) -> None:
    await both.leaf.watch(HIGH, CHROMIUM_WHOLE, ladder=LADDER)
    done = [each["do"] for each in both.server.requests]
    assert done == ["state", "stream.add", "stream.add", "viewer.add"]
    await both.leaf.watch(HIGH, GSTREAMER)  # other payload types, the same streams
    assert [each["do"] for each in both.server.requests][4:] == ["viewer.add"]
    second = both.server.asked("viewer.add")[1]
    assert "rtx_payload_type" not in second["video"]
    assert second["ladder"] == [{"stream": both.stream(HIGH), "kbps": 1}]


async def test_a_viewer_comes_and_goes(both: Both) -> None:
    viewing = await both.leaf.watch(HIGH, CHROMIUM_WHOLE, ladder=LADDER, pinned=True)
    assert both.server.asked("viewer.add")[0]["pinned"] is True
    both.server.say({"event": "viewer.up", "viewer": viewing.id, "address": "192.0.2.9:5"})
    await until(lambda: both.states == [(viewing.id, "up")])
    assert await both.leaf.statistics(viewing.id) == FIGURES
    both.server.say({"event": "viewer.gone", "viewer": viewing.id, "why": "silent"})
    await until(lambda: both.states[-1] == (viewing.id, "gone"))
    assert await both.leaf.statistics(viewing.id) is None
    with pytest.raises(LeafUnavailableError, match="no such viewer"):
        await both.leaf.change(viewing.id, LOW)
    await both.leaf.close(viewing.id)
    assert both.server.asked("viewer.close") == []


async def test_an_inlet_outlives_its_last_viewer_by_a_moment(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inlets, "HOLD_S", 0.2)
    viewing = await both.leaf.watch(HIGH, CHROMIUM_WHOLE, ladder=LADDER)
    await both.leaf.close(viewing.id)
    assert both.server.viewers == {}
    assert both.feeds() == {HIGH}
    await until(lambda: both.server.streams == {})
    assert both.opened == [{HIGH}, set()]


async def test_a_key_frame_is_asked_for_where_it_arrives(both: Both) -> None:
    assert await both.leaf.key_frame(HIGH) is None  # nobody watches
    await both.leaf.watch(HIGH, CHROMIUM_WHOLE, ladder=LADDER)
    both.server.answers["stream.key_frame"] = lambda _: {
        "ok": {"annex_b": "AAAAAWU=", "age_ms": 40}
    }
    assert await both.leaf.key_frame(HIGH) == KeyFrame(b"\0\0\0\1\x65", 0.04)
    assert both.server.asked("stream.key_frame") == [{"stream": both.stream(HIGH)}]
    assert await both.leaf.key_frame(LOW) is None
    for answer in ({"ok": None}, {"ok": {"annex_b": "?", "age_ms": 40}}, refusal("unknown")):
        both.server.answers["stream.key_frame"] = lambda _, answer=answer: answer
        assert await both.leaf.key_frame(HIGH) is None


async def test_a_change_is_one_request(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inlets, "HOLD_S", 0.1)
    viewing = await both.leaf.watch(HIGH, CHROMIUM_WHOLE, ladder=LADDER)
    assert not await both.leaf.change(viewing.id, OTHER, ladder=[Rung(OTHER, 1000)], pinned=True)
    (changed,) = both.server.asked("viewer.change")
    assert changed["viewer"] == viewing.id
    assert changed["group"] == "test2"
    assert changed["ladder"] == [{"stream": both.stream(OTHER), "kbps": 1000}]
    assert changed["sound"] in both.server.streams
    assert (changed["start"], changed["pinned"]) == (0, True)
    await until(lambda: both.feeds() == {OTHER})
    assert both.shown == []  # whoever asked for it knows

    both.server.answers["viewer.change"] = lambda _: {"ok": {"waits": True}}
    assert await both.leaf.change(viewing.id, HIGH, ladder=LADDER)


@pytest.mark.parametrize(
    ("code", "error"), [("busy", LeafBusyError), ("unknown", LeafUnavailableError)]
)
async def test_a_change_that_is_refused_changes_nothing(
    both: Both, code: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inlets, "HOLD_S", 0.1)
    viewing = await both.leaf.watch(HIGH, CHROMIUM_WHOLE, ladder=LADDER)
    both.server.answers["viewer.change"] = lambda _: refusal(code)
    with pytest.raises(error, match=code):
        await both.leaf.change(viewing.id, OTHER)
    await until(lambda: both.feeds() == {HIGH})


async def test_the_server_changes_the_rendition_by_itself(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inlets, "HOLD_S", 0.1)
    viewing = await both.leaf.watch(HIGH, CHROMIUM_WHOLE, ladder=LADDER)
    low = both.server.asked("viewer.add")[0]["ladder"][1]["stream"]
    both.server.say({"event": "stream.wanted", "stream": low})
    await until(lambda: both.feeds() == {HIGH, LOW})
    both.server.say(
        {"event": "key_frame.wanted", "stream": low},
        {"event": "viewer.stream", "viewer": viewing.id, "stream": low, "why": "estimate"},
        {"event": "viewer.stream", "viewer": viewing.id, "stream": low, "why": "estimate"},
        {"event": "viewer.stream", "viewer": viewing.id, "stream": 4711, "why": "estimate"},
        {"event": "viewer.stream", "viewer": "nobody", "stream": low, "why": "estimate"},
    )
    await until(lambda: both.feeds() == {LOW})
    assert both.key_frames == [LOW]
    assert both.shown == [(viewing.id, LOW)]


async def test_what_was_said_of_the_new_channel_is_not_undone_by_the_answer(both: Both) -> None:
    viewing = await both.leaf.watch(HIGH, CHROMIUM_WHOLE, ladder=LADDER)
    ladder = [Rung(OTHER, 1000), Rung(Feed("test2", "low"), 300)]

    def answer(request: Message) -> None:
        low = request["ladder"][1]["stream"]
        both.server.say(
            {"id": request["id"], "ok": {"waits": False}},
            {"event": "viewer.stream", "viewer": viewing.id, "stream": low, "why": "estimate"},
        )

    both.server.answers["viewer.change"] = answer
    await both.leaf.change(viewing.id, OTHER, ladder=ladder)
    await until(lambda: both.shown == [(viewing.id, Feed("test2", "low"))])
    assert both.leaf._viewers[viewing.id].feed == Feed("test2", "low")


async def test_nonsense_from_the_server_is_told_and_changes_nothing(both: Both) -> None:
    viewing = await both.leaf.watch(HIGH, CHROMIUM_WHOLE, ladder=LADDER)
    with capture_logs() as logs:
        both.server.say(
            {"event": "viewer.up"},
            {"event": "viewer.gone", "viewer": 7},
            {"event": "viewer.stream", "viewer": viewing.id, "stream": "high"},
            {"event": "stream.wanted", "stream": None},
            {"event": "what.is.new"},
        )
        await both.leaf.change(viewing.id, HIGH)
        await until(lambda: len(logs) == 4)
    assert {each["event"] for each in logs} == {"leaf.nonsense"}
    assert both.states == []


async def test_figures_asked_for_at_once_are_one_question(both: Both) -> None:
    ids = [(await both.leaf.watch(HIGH, CHROMIUM_WHOLE)).id for _ in range(5)]
    assert await asyncio.gather(*map(both.leaf.statistics, ids)) == [FIGURES] * 5
    assert both.server.asked("viewer.statistics") == [{}]
    assert await asyncio.gather(*map(both.leaf.statistics, ids[:2])) == [FIGURES] * 2
    assert len(both.server.asked("viewer.statistics")) == 3
    both.server.answers["viewer.statistics"] = lambda _: refusal("unknown")
    assert await both.leaf.statistics(ids[0]) is None


@pytest.mark.parametrize(
    "reply", [refusal("busy"), {"ok": {}}, {"ok": {"ufrag": "a\r\nb"}}, {"ok": {"ufrag": 1}}]
)
async def test_a_viewer_that_the_server_does_not_take_leaves_nothing(
    both: Both, reply: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inlets, "HOLD_S", 0.1)
    both.server.answers["viewer.add"] = lambda _: reply
    with pytest.raises(LeafUnavailableError):
        await both.leaf.watch(HIGH, CHROMIUM_WHOLE)
    await until(lambda: not both.leaf.inlets())
    await until(lambda: both.server.asked("viewer.close") != [])  # it may have been taken


async def test_a_server_is_told_whom_to_ask_for_lost_packets(both: Both) -> None:
    await both.leaf.watch(HIGH, CHROMIUM_WHOLE)
    assert all("parent" not in each for each in both.server.asked("stream.add"))

    def parents() -> set[Any]:
        return {each.get("parent") for each in both.server.streams.values()}

    both.leaf.ask("10.98.0.2:21999")
    await until(lambda: parents() == {"10.98.0.2:21999"})
    await both.leaf.watch(OTHER, CHROMIUM_WHOLE)
    await until(lambda: len(both.server.streams) == 4)
    assert parents() == {"10.98.0.2:21999"}
    assert len(both.server.asked("stream.parent")) == 2  # the others were added with it

    both.server.cut()  # what changes meanwhile is told afterwards
    both.leaf.ask("10.98.0.1:21999")
    await until(lambda: parents() == {"10.98.0.1:21999"})
    both.leaf.ask(None)
    await until(lambda: parents() == {None})


async def test_the_figures_of_repairs_are_the_servers(both: Both) -> None:
    totals = {"packets_asked": 5, "packets_repaired": 3, "packets_given_up": 1}
    both.server.answers["statistics"] = lambda _: {"ok": {"totals": totals}}
    assert await both.leaf.repairs() == Repairs(asked=5, repaired=3, given_up=1, answered=0)
    both.server.answers["statistics"] = lambda _: {"ok": {"totals": [1]}}
    assert await both.leaf.repairs() == Repairs()


async def test_bad_offers_never_reach_the_server(both: Both) -> None:
    for bad in ("", "hello", CHROMIUM_WHOLE.replace("a=rtcp-mux\n", "")):
        with pytest.raises(OfferError):
            await both.leaf.watch(HIGH, bad)
    assert both.server.requests == [{"do": "state", "id": 1}]


async def test_a_port_that_is_taken_is_left_for_another(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_streams, "_AGAIN_S", 0.05)
    taken: list[int] = []

    def add(request: Message) -> Message:
        if not taken or request["port"] in taken:
            taken.append(request["port"])
            return refusal("failed")
        return both.server._answer(request)

    both.server.answers["stream.add"] = add
    with pytest.raises(LeafUnavailableError, match="failed"):
        await both.leaf.watch(HIGH, CHROMIUM_WHOLE)
    await both.leaf.watch(HIGH, CHROMIUM_WHOLE)
    await until(lambda: len(both.server.streams) == 2)
    (inlet,) = both.leaf.inlets()
    assert inlet.video_port not in taken
    assert {each["port"] for each in both.server.streams.values()} == {
        inlet.video_port,
        inlet.audio_port,
    }


async def test_warm_channels_are_added_and_survive_the_server(both: Both) -> None:
    both.leaf.keep_warm(LADDER)
    await until(lambda: len(both.server.streams) == 3)
    assert both.opened == [{HIGH, LOW}]
    assert {each["kbps"] for each in both.server.streams.values()} == {1000, 300, 1}
    both.server.streams.clear()
    both.leaf.child.kill()
    await until(lambda: both.leaf.ready and len(both.server.streams) == 3)
    assert both.feeds() == {HIGH, LOW}
    both.leaf.keep_warm(())
    await until(lambda: both.server.streams == {})


async def test_a_connection_that_breaks_costs_nobody_anything(both: Both) -> None:
    stays = await both.leaf.watch(HIGH, CHROMIUM_WHOLE, ladder=LADDER)
    went = await both.leaf.watch(OTHER, CHROMIUM_WHOLE)
    del both.server.viewers[went.id]
    both.server.viewers[stays.id]["start"] = 1  # lowered meanwhile
    both.server.viewers["stranger"] = {**both.server.viewers[stays.id]}
    both.server.streams[999] = {"stream": 999}
    both.server.cut()
    await until(lambda: both.server.connections == 2 and both.leaf.ready)
    assert both.states == [(went.id, "gone")]
    assert both.shown == [(stays.id, LOW)]
    assert set(both.server.viewers) == {stays.id}
    await until(lambda: 999 not in both.server.streams)
    assert LOW in both.feeds()


FIRST = """
import asyncio, os, sys
from pathlib import Path
from anabranch.host.holdings import Holdings, keeping
from anabranch.host.process import RUN_MARK
from anabranch.media.native import NativeLeaf
from tests.media.offers import CHROMIUM_WHOLE
from tests.media.test_native import HIGH, LADDER, OTHER, place

async def main(directory, run_id):
    kept = Holdings(directory / "holder.sock", {**os.environ, RUN_MARK: run_id})
    with keeping(run_id, kept):
        leaf = NativeLeaf(place(directory, run_id))
        await leaf.start()
        viewings = [await leaf.watch(HIGH, CHROMIUM_WHOLE, ladder=LADDER)]
        viewings.append(await leaf.watch(OTHER, CHROMIUM_WHOLE))
        print(leaf.child.pid, *(viewing.id for viewing in viewings), flush=True)
        os.kill(os.getpid(), 9)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


async def test_another_director_goes_on_with_the_server_and_its_viewers(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(directory, monkeypatch, "sleep", "1000")
    both, run_id = Both(directory), new_id()
    await both.server.start()
    first = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FIRST, str(directory), run_id), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await first.communicate()
    pid, stays, went = said.decode().split()
    streams = dict(both.server.streams)
    del both.server.viewers[went]
    both.server.viewers["stranger"] = {**both.server.viewers[stays]}
    both.server.requests.clear()

    kept = Holdings(directory / "holder.sock", {**os.environ, RUN_MARK: run_id})
    assert await kept.find()
    with keeping(run_id, kept):
        leaf = NativeLeaf(place(directory, run_id))
        leaf.on_viewing = lambda viewing, state: both.states.append((viewing, state))
        leaf.recall({stays: HIGH, went: OTHER})
        await leaf.start()
        assert leaf.child is not None
        assert leaf.child.pid == int(pid)
        assert both.states == [(went, "gone"), (stays, "up")]
        assert set(both.server.viewers) == {stays}
        assert both.server.asked("stream.add") == []
        assert {inlet.feed for inlet in leaf.inlets()} == {HIGH, OTHER}  # the other a moment yet
        assert {inlet.video_port for inlet in leaf.inlets()} <= {
            each["port"] for each in streams.values()
        }
        await leaf.change(stays, LOW, ladder=LADDER)
        (added,) = both.server.asked("stream.add")
        assert added["stream"] not in streams
        await leaf.stop()
        await kept.close()
    await both.server.stop()


async def test_a_killed_server_comes_back_without_its_viewers(both: Both) -> None:
    viewing = await both.leaf.watch(HIGH, CHROMIUM_WHOLE)
    pid = both.leaf.child.pid
    both.server.viewers.clear()
    both.server.streams.clear()
    both.leaf.child.kill()
    await until(lambda: both.states == [(viewing.id, "gone")])
    assert both.leaf.inlets() == frozenset()
    await until(lambda: both.leaf.ready and both.leaf.child.pid not in (pid, None))
    assert both.leaf.child.restarts == 1
    await both.leaf.watch(HIGH, CHROMIUM_WHOLE)


async def test_one_that_hangs_is_replaced(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_process, "_HANGS_AFTER_S", 1.5)
    monkeypatch.setenv("HANG", str(directory / "hung"))
    program(directory, monkeypatch, sys.executable, "-m", "tests.media.control_server", '"$@"')
    leaf = NativeLeaf(place(directory), threads=2)
    await leaf.start()  # the second one, as the first says nothing
    try:
        assert leaf.child.restarts == 1
        assert (directory / "argv").read_text().split() == [
            *("serve", "--control", str(directory / "control.sock")),
            *("--listen", "10.97.0.2:20000", "--listen", "[fd00::2]:20000"),
            *("--listen", "[fd00:1::2]:20000"),
            *("--threads", "2", "--identity", str(directory / "identity.pem")),
        ]
        assert (await leaf.watch(HIGH, CHROMIUM_WHOLE)).feed == HIGH
    finally:
        await leaf.stop()
    assert not leaf.ready
    assert leaf.inlets() == frozenset()


async def test_one_that_does_not_come_up_says_why(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_process, "_START_S", 0.5)
    program(directory, monkeypatch, "sh", "-c", "'echo no such luck >&2; exit 2'")
    leaf = NativeLeaf(place(directory))
    with pytest.raises(LeafUnavailableError, match="no such luck"):
        await leaf.start()
    await leaf.stop()


def test_the_program_is_found_or_missed_in_words(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaf_binary, "_PACKAGED", directory / "packaged")
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.delenv(leaf_binary.VARIABLE, raising=False)
    with pytest.raises(LeafUnavailableError, match="scripts/up"):
        find_server()
    order = [directory / "anabranch-leaf", directory / "packaged", directory / "named"]
    for path in order:
        path.touch(mode=0o755)
        monkeypatch.setenv(leaf_binary.VARIABLE, str(path) if path.name == "named" else "")
        assert find_server() == path
    order[-1].chmod(stat.S_IRUSR)
    monkeypatch.setenv(leaf_binary.VARIABLE, os.devnull)
    with pytest.raises(LeafUnavailableError, match="cannot be executed"):
        find_server()


def test_what_the_server_logs_is_in_our_log() -> None:
    def said(line: str) -> list[tuple[str, str]]:
        with capture_logs() as logs:
            relay("leaf1", line)
        return [(each["log_level"], each["event"]) for each in logs]

    line = {"event": "send.failed", "level": "error", "timestamp": "x", "errors": 3}
    assert said(json.dumps(line)) == [("warning", "leaf.says")]
    assert said(json.dumps({**line, "level": "info"})) == [("debug", "leaf.says")]
    for other in ("thread panicked", "[]", "{}", "null", "[" * 60_000):
        assert said(other) == [("warning", "leaf.printed")]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
NAMES = st.sampled_from(["bytes", "packets", "lost", "nacks", "jitter_ms", "rtt_ms"])


@given(st.dictionaries(NAMES, SCALARS | st.lists(SCALARS, max_size=2)))
def test_any_json_gives_figures_or_none(given_: Message) -> None:
    found = read_figures(given_)
    counts = (found.bytes_sent, found.packets_sent, found.packets_lost, found.nacks)
    assert all(isinstance(count, int) for count in counts)
    for delay in (found.jitter_ms, found.rtt_ms):
        assert delay is None or abs(delay) < 2**53
