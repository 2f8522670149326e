"""Which layers of an offer are taken, and how the answer says so."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.media.publish_offers import AIORTC, CHROMIUM, OBS
from tests.media.test_publish_answer import NEAR

from anabranch.media.answer_parts import NAMING, extensions_of
from anabranch.media.layers import MAX_LAYERS, constrained_baseline, layers_of
from anabranch.media.leaf import OfferError
from anabranch.media.publish_answer import answer, understand
from anabranch.media.sdp import Codec, codecs_of, split

MAIN = "packetization-mode=1;profile-level-id=4d001f"


def offer(*lines: str, but: str = "a=ssrc") -> str:
    """Chromium's offer with these lines in its picture; with layers it names no SSRCs."""
    kept = [line for line in CHROMIUM.splitlines() if not line.startswith(but)]
    place = kept.index("a=sendonly")
    return "\r\n".join([*kept[:place], *lines, *kept[place:], ""])


TWO = offer("a=rid:r0 send", "a=rid:r1 send", "a=simulcast:send r0;r1")


def rids(*lines: str, but: str = "a=ssrc") -> tuple[str, ...]:
    (track, *_) = understand(offer(*lines, but=but), 1).tracks
    return track.rids


def test_layers_are_taken_in_the_profile_that_all_viewers_decode() -> None:
    wanted = understand(TWO, 2)
    picture, sound = wanted.tracks
    assert (picture.rids, sound.rids, wanted.has_layers) == (("r0", "r1"), (), True)
    assert (picture.codec.payload_type, picture.rtx) == (109, 114)
    assert {name: each.id for name, each in picture.extensions.items()} == {
        "mid": 9,
        "rid": 10,
        "repaired_rid": 11,
    }
    _, (video, audio) = split(answer(wanted, NEAR))
    assert list(video.values("rid")) == ["r0 recv", "r1 recv"]
    assert video.value("simulcast") == "recv r0;r1"
    assert [value.split()[0] for value in video.values("extmap")] == ["9", "10", "11"]
    assert video.formats == ("109", "114")
    assert not audio.has("simulcast")
    assert not audio.has("rid")


def test_fewer_layers_than_renditions_are_one() -> None:
    for renditions in (3, None):
        wanted = understand(TWO, renditions)
        assert not wanted.has_layers
        (picture, _) = wanted.tracks
        assert picture.codec.payload_type == 103  # the first, of any profile
        assert "simulcast" not in answer(wanted, NEAR)
        assert "rtp-stream-id" not in answer(wanted, NEAR)


@pytest.mark.parametrize("text", [OBS, AIORTC, CHROMIUM])
def test_offers_without_layers_are_as_they_were(text: str) -> None:
    assert understand(text, 1) == understand(text)


def test_alternatives_restrictions_and_pauses() -> None:
    a, b, c = ("a=rid:a send", "a=rid:b send pt=109,103", "a=rid:c send max-width=640;pt=96")
    assert rids(a, b, c, "a=simulcast:send x,b,a;~a;c") == ("b", "a")
    assert rids(a, b, "a=simulcast:recv a;b") == ()
    assert rids(a, b, "a=simulcast:recv q send a;b") == ("a", "b")
    assert rids(a, "a=rid:b recv", "a=simulcast:send a;b;a") == ("a",)


def test_hostile_names_are_none() -> None:
    names = ["é", "a b", "x" * 17, "", "a;b", "a,b", "../..", "%s", "~"]
    lines = [f"a=rid:{name} send" for name in names]
    assert rids(*lines, f"a=simulcast:send {';'.join(names)}") == ()
    assert rids("a=rid:a send", "a=simulcast:send") == ()
    assert rids("a=rid:a send", "a=simulcast:send ;;,,;~;") == ()


def test_of_many_layers_four_are_taken() -> None:
    many = [f"r{number}" for number in range(50)]
    lines = [f"a=rid:{name} send" for name in many]
    assert rids(*lines, f"a=simulcast:send {';'.join(many)}") == tuple(many[:MAX_LAYERS])


def test_packets_must_name_their_layer() -> None:
    lines = ("a=rid:a send", "a=rid:b send", "a=simulcast:send a;b")
    assert rids(*lines) == ("a", "b")
    assert rids(*lines, but="a=extmap:10") == ()


@pytest.mark.parametrize(
    ("parameters", "fits"),
    [
        ("packetization-mode=1;profile-level-id=42e01f", True),
        ("profile-level-id=42C00D; packetization-mode=1", True),
        ("packetization-mode=1;profile-level-id=42001f", False),
        ("packetization-mode=0;profile-level-id=42e01f", False),
        ("packetization-mode=1", False),
        (MAIN, False),
        ("packetization-mode=11;profile-level-id=42e01f", False),
    ],
)
def test_the_profile(parameters: str, fits: bool) -> None:
    codec = Codec(96, "h264/90000", parameters)
    assert constrained_baseline([Codec(97, "vp8/90000", ""), codec]) == (codec if fits else None)


LINE = st.one_of(
    st.text(alphabet="abr01;,~ =sendcvpt", max_size=30).map("a=simulcast:send ".__add__),
    st.text(alphabet="abr01;,~ =sendcvpt", max_size=30).map("a=rid:".__add__),
    st.from_regex(r"a=rid:[a-c] send( pt=[0-9]{1,3})?", fullmatch=True),
    st.from_regex(r"a=simulcast:send [a-c](;[a-c]){0,2}", fullmatch=True),
    st.text(max_size=20),
)


@given(st.lists(LINE, max_size=8), st.integers(1, 3))
def test_any_lines_give_names_that_can_be_answered_or_are_refused(
    lines: list[str], renditions: int
) -> None:
    text = offer(*lines)
    with suppress(OfferError):
        wanted = understand(text, renditions)
        for track in wanted.tracks:
            assert len(track.rids) <= MAX_LAYERS
            assert len(set(track.rids)) == len(track.rids)
            assert all(re.fullmatch("[A-Za-z0-9_-]{1,16}", rid) for rid in track.rids)
        split(answer(wanted, NEAR))


def test_a_section_alone() -> None:
    _, (video, _) = split(TWO)
    codec = next(codecs_of(video))
    assert layers_of(video, {}, codec) == ()
    assert layers_of(video, extensions_of(video, NAMING, "sendonly"), codec) == ("r0", "r1")
