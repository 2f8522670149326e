"""The parts of ``bench viewers`` that decide and describe: a wrong one would measure nothing."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.app.bench.viewers import Capacity, Step, results, search
from anabranch.app.bench.viewers_load import find_program
from anabranch.app.bench.viewers_sdp import AUDIO, RTX, VIDEO, Credentials, offer, read_answer
from anabranch.core.errors import UnavailableError
from anabranch.media.answer_parts import Candidate
from anabranch.media.leaf import OfferError
from anabranch.media.sdp import parse_offer
from anabranch.media.sdp_answer import ServerEnd, agree, answer

FINGERPRINT = "sha-256 " + ":".join(["AB"] * 32)
GOOD = Step(
    viewers=400,
    p50_ms=1.0,
    p99_ms=19.0,
    samples=1000,
    loss=0.0005,
    skipped=0.01,
    leaf_cpu=50.0,
    core=70.0,
    client_cpu=30.0,
    overflows=0,
    lost_viewers=0,
    rss_kb=1e5,
)


@given(st.integers(0, 7000), st.lists(st.integers(1, 6000), min_size=1, unique=True).map(sorted))
def test_the_search_comes_within_5_percent(capacity: int, steps: list[int]) -> None:
    asked = []

    async def holds(viewers: int) -> bool:
        asked.append(viewers)
        return viewers <= capacity

    found = asyncio.run(search(holds, steps))
    assert found <= capacity
    assert len(asked) <= len(steps) + 13
    if capacity < steps[0]:
        assert found == 0
    else:
        assert capacity - found <= max(found // 20, 1) or found == steps[-1]


def test_a_step_is_held_or_not_for_a_reason() -> None:
    assert GOOD.trouble() is None
    for change, word in (
        ({"lost_viewers": 1}, "cut off"),
        ({"overflows": 1}, "has not taken 1"),
        ({"loss": 0.0011}, "0.11 % lost"),
        ({"skipped": 0.03}, "3 % not sent"),
        ({"p99_ms": 20.1}, "p99 20.1 ms"),
        ({"core": 97.1}, "full"),
    ):
        trouble = replace(GOOD, **change).trouble()
        assert trouble is not None
        assert word in trouble


def test_both_leaf_servers_make_a_ratio() -> None:
    found = {
        "anabranch": Capacity(GOOD, 50.0),
        "janus": Capacity(replace(GOOD, viewers=100), None),
    }
    rows = {row.metric: row for row in results(found)}
    assert rows["viewers_ratio_janus"].value == 4.0
    assert rows["viewers_per_core_600k"].value == 400
    peer = rows["viewers_per_core_600k"].peer
    assert peer is not None
    assert peer.value == 100
    assert rows["viewers_per_core_600k_janus"].value == 100
    assert "memory_per_viewer_kb_janus" not in rows
    alone = {row.metric for row in results({"anabranch": Capacity(GOOD, 50.0)})}
    assert alone == {name for name in rows if "janus" not in name}


def test_our_leaf_server_understands_the_offer_and_is_understood() -> None:
    own, server = Credentials.random(), Credentials.random()
    wanted = parse_offer(offer(own, FINGERPRINT))
    assert (wanted.ice_ufrag, wanted.ice_pwd) == (own.ufrag, own.pwd)
    assert wanted.video_codec.payload_type == VIDEO
    assert wanted.audio_codec is not None
    assert wanted.audio_codec.payload_type == AUDIO
    agreement = agree(wanted)
    assert agreement.video.rtx == RTX
    end = ServerEnd(
        session_id=1,
        ufrag=server.ufrag,
        pwd=server.pwd,
        fingerprint=FINGERPRINT,
        candidates=[Candidate("10.0.0.1", 4000), Candidate("10.0.0.2", 4000)],
        cname="c",
        video_ssrc=1,
        rtx_ssrc=2,
        audio_ssrc=3,
    )
    read = read_answer(answer(wanted, agreement, end))
    assert (read.address, read.credentials) == ("10.0.0.1:4000", server)
    assert (read.fingerprint, read.rtx) == (FINGERPRINT, True)


def test_an_answer_of_no_use_is_an_error() -> None:
    own = Credentials.random()
    with pytest.raises(OfferError):
        read_answer("nonsense")
    with pytest.raises(UnavailableError, match="no picture"):
        read_answer("v=0\r\nm=video 0 UDP/TLS/RTP/SAVPF 102\r\n")
    with pytest.raises(UnavailableError, match="no candidate"):
        read_answer(offer(own, FINGERPRINT))
    candidate = "a=candidate:1 1 udp 1 ::1 4000 typ host\r\n"
    without = offer(own, FINGERPRINT).replace(f"a=ice-pwd:{own.pwd}\r\n", candidate)
    with pytest.raises(UnavailableError, match="no ice-pwd"):
        read_answer(without)


def test_a_program_named_by_the_environment_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANABRANCH_LEAF_LOAD", "/bin/true")
    assert find_program() == "/bin/true"
