"""The gate, against a process with a real control socket that a test can have say anything."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.media.control_server import ControlServer, refusal
from tests.media.publish_offers import CHROMIUM, OBS
from tests.media.test_layers import TWO
from tests.waiting import until

from anabranch.core.names import new_id
from anabranch.media import leaf_binary
from anabranch.media.gate import Gate, LayerNews, Passing, PublisherNews, StreamTarget
from anabranch.media.leaf import LeafPlace, LeafUnavailableError
from anabranch.media.publish_answer import understand
from anabranch.media.sdp import split
from anabranch.media.source import RtpStream

PICTURE, SOUND = RtpStream("h264", 23000, 103), RtpStream("opus", 23002, 111)


class Both:
    """A gate, and the server in this process that it is led to."""

    def __init__(self, directory: Path) -> None:
        self.server = ControlServer(directory / "control.sock")
        self.news: list[PublisherNews] = []
        self.layers: list[LayerNews] = []
        place = LeafPlace(
            *("whip", directory, new_id(), None),
            media_addresses=("192.0.2.9", "127.0.0.1"),
            public_addresses=("203.0.113.1",),
            media_ports=(8189, 8189),
            inlet_interface="127.0.0.1",
            inlet_ports=(23000, 23999),
        )
        self.gate = Gate(place, self.news.append, self.layers.append)


@pytest.fixture
def directory() -> Any:
    made = Path(tempfile.mkdtemp(prefix="ab", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def both(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Both]:
    path = directory / "server"
    path.write_text(f'#!/bin/sh\nprintf "%s " "$@" > {directory}/argv\nexec sleep 1000\n')
    path.chmod(0o755)
    monkeypatch.setenv(leaf_binary.VARIABLE, str(path))
    made = Both(directory)
    await made.server.start()
    await made.gate.start()
    yield made
    await made.gate.stop()
    await made.server.stop()


def in_memory(server: ControlServer) -> dict[str, Any]:
    """Have the server keep publishers, as the real one does."""
    there: dict[str, Any] = {}

    def add(request: dict[str, Any]) -> dict[str, Any]:
        there[request["publisher"]] = {"state": "connecting"}
        return {"ok": {"ufrag": "ours", "pwd": "p" * 24, "setup": "passive"}}

    def close(request: dict[str, Any]) -> dict[str, Any]:
        return {"ok": {}} if there.pop(request["publisher"], None) else refusal("unknown")

    server.answers["publisher.add"] = add
    server.answers["publisher.close"] = close
    server.answers["publisher.statistics"] = lambda _request: {"ok": {"publishers": there}}
    return there


async def test_a_publisher_is_answered_by_what_the_server_says(both: Both, directory: Path) -> None:
    in_memory(both.server)
    answer = await both.gate.admit("one", understand(CHROMIUM), (PICTURE, SOUND), 4000)
    (added,) = both.server.asked("publisher.add")
    assert added == {
        "publisher": "one",
        "remote": {
            "ufrag": "abcd",
            "pwd": "abcdefghijklmnopqrstuvwx",
            "fingerprint": "sha-256 " + ":".join(["AB"] * 32),
            "setup": "actpass",
        },
        "kbps": 4000,
        "tracks": [
            {
                "mid": "0",
                "kind": "video",
                "clock": 90000,
                "payload_types": [103],
                "rtx": {"104": 103},
                "ssrcs": [2231627014, 632943048],
                "extensions": {"mid": 9},
                "feedback": ["nack", "pli", "remb"],
                "to": "127.0.0.1:23000",
            },
            {
                "mid": "1",
                "kind": "audio",
                "clock": 48000,
                "payload_types": [111],
                "rtx": {},
                "ssrcs": [1403264122],
                "extensions": {"mid": 9},
                "feedback": [],
                "to": "127.0.0.1:23002",
            },
        ],
    }
    _, (video, _) = split(answer)
    assert (video.value("ice-ufrag"), video.value("ice-pwd")) == ("ours", "p" * 24)
    assert video.value("fingerprint") == "sha-256 AB:CD"
    assert [each.split()[4:6] for each in video.values("candidate")] == [
        ["203.0.113.1", "8189"],
        ["192.0.2.9", "8189"],
        ["127.0.0.1", "8189"],
    ]
    words = (directory / "argv").read_text().split()
    assert words[0] == "serve"
    assert [words[at + 1] for at, word in enumerate(words) if word == "--listen"] == [
        "192.0.2.9:8189",
        "127.0.0.1:8189",
    ]


async def test_tracks_go_where_they_are_sent_in_the_offers_order(both: Both) -> None:
    in_memory(both.server)
    streams = (replace(SOUND, port=1), replace(PICTURE, port=3))
    await both.gate.admit("one", understand(OBS), streams, 1)
    (added,) = both.server.asked("publisher.add")
    assert [(each["kind"], each["to"]) for each in added["tracks"]] == [
        ("audio", "127.0.0.1:1"),
        ("video", "127.0.0.1:3"),
    ]


async def test_news_and_requests_are_of_those_that_are_there(both: Both) -> None:
    there = in_memory(both.server)
    await both.gate.admit("one", understand(CHROMIUM), (PICTURE, SOUND), 1)
    up = {"event": "publisher.up", "publisher": "one", "address": "192.0.2.1:5"}
    gone = {"event": "publisher.gone", "publisher": "one", "why": "silent"}
    both.server.say({**up, "publisher": "two"}, {"event": "publisher.up", "publisher": 7}, up)
    await until(lambda: len(both.news) == 1)
    await both.gate.ask_key_frame("one")
    await both.gate.ask_key_frame("two")
    assert both.server.asked("publisher.key_frame") == [{"publisher": "one"}]
    there["one"] = {"rtt_ms": 2.5, "tracks": {"0": {"bytes": 7}, "1": {"bytes": 1}}}
    assert (await both.gate.statistics())["one"].octets == 8
    both.server.say(gone, gone)
    await until(lambda: len(both.news) == 2)
    assert both.news == [
        PublisherNews("one", "up", "192.0.2.1:5"),
        PublisherNews("one", "gone", "silent"),
    ]
    await both.gate.close("one")
    assert both.server.asked("publisher.close") == []


async def test_layers_go_where_they_are_renditions_or_decoded(both: Both) -> None:
    in_memory(both.server)
    plan = Passing(
        1234,
        (StreamTarget("high", 7, 96, 1000, 23010), StreamTarget("low", 8, 96, 300, 23012)),
        StreamTarget("audio", 9, 111, 64, 23014),
    )
    answer = await both.gate.admit("one", understand(TWO, 2), (PICTURE, SOUND), 1, plan)
    assert "a=simulcast:recv r0;r1\r\n" in answer
    (added,) = both.server.asked("publisher.add")
    tracks = [(it["mid"], it.get("rid"), it["extensions"], it["to"]) for it in added["tracks"]]
    names = {"mid": 9, "rid": 10, "repaired_rid": 11}
    assert tracks == [
        ("0", "r0", names, "127.0.0.1:23000"),
        ("0", "r1", names, "127.0.0.1:23000"),
        ("1", None, {"mid": 9}, "127.0.0.1:23002"),
    ]
    high = {"name": "high", "ssrc": 7, "payload_type": 96, "kbps": 1000, "to": "127.0.0.1:23010"}
    assert added["passing"]["renditions"][0] == high
    assert added["passing"]["sound"]["to"] == "127.0.0.1:23014"
    assert added["passing"]["epoch_ms"] == 1234

    said = {"event": "publisher.passing", "publisher": "one"}
    shown: dict[str, Any] = {"high": "r0", "low": None}
    both.server.say(
        {**said, "renditions": 7},
        {**said, "publisher": "two", "renditions": shown},
        {**said, "renditions": {}, "unfit": 5},
        {**said, "renditions": shown},
        {**said, "renditions": {"high": None}, "unfit": "too much"},
    )
    await until(lambda: len(both.layers) == 2)
    assert both.layers == [
        LayerNews("one", {"high": "r0", "low": None}),
        LayerNews("one", {"high": None}, "too much"),
    ]
    await both.gate.ask_key_frame("one", "low")
    (asked,) = both.server.asked("publisher.key_frame")
    assert asked == {"publisher": "one", "rendition": "low"}


async def test_a_refused_publisher_leaves_nothing(both: Both) -> None:
    in_memory(both.server)
    both.server.answers["publisher.add"] = lambda _request: refusal("busy")
    with pytest.raises(LeafUnavailableError, match="it is busy"):
        await both.gate.admit("one", understand(CHROMIUM), (PICTURE, SOUND), 1)
    both.server.answers["publisher.add"] = lambda _request: {"ok": {"ufrag": "no more"}}
    with pytest.raises(LeafUnavailableError, match="'pwd'"):
        await both.gate.admit("two", understand(CHROMIUM), (PICTURE, SOUND), 1)
    await until(lambda: len(both.server.asked("publisher.close")) == 2)
    assert both.news == []


async def test_a_cut_connection_costs_nothing_that_is_still_there(both: Both) -> None:
    there = in_memory(both.server)
    for name in ("one", "two"):
        await both.gate.admit(name, understand(CHROMIUM), (PICTURE, SOUND), 1)
    del there["two"]
    there["stranger"] = {}
    both.server.cut()
    await until(lambda: both.server.connections == 2 and both.gate.ready)
    assert both.news == [PublisherNews("two", "gone", "lost")]
    assert both.server.asked("publisher.close") == [{"publisher": "stranger"}]


async def test_publishers_end_with_the_process(both: Both) -> None:
    in_memory(both.server)
    await both.gate.admit("one", understand(CHROMIUM), (PICTURE, SOUND), 1)
    child = both.gate.child
    assert child is not None
    child.kill()
    await until(lambda: both.news == [PublisherNews("one", "gone", "lost")])
    await until(lambda: both.gate.ready)  # a fresh one
    await both.gate.admit("one", understand(CHROMIUM), (PICTURE, SOUND), 1)
