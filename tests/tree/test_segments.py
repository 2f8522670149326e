"""Streams over a network that loses, doubles and overtakes; and headers of any kind."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.tree.transport.segments import (
    MAX_SEGMENT,
    Segment,
    SegmentError,
    Stream,
    segment_of,
)
from anabranch.tree.transport.subjects import parse


@given(
    st.lists(st.binary(max_size=300), max_size=12),
    st.lists(st.binary(max_size=300), max_size=12),
    st.integers(),
)
def test_what_is_written_comes_out_once_and_in_order(
    up: list[bytes], down: list[bytes], seed: int
) -> None:
    draw = Random(seed)
    near, far = Stream(), Stream()
    came: dict[Stream, bytes] = {near: b"", far: b""}
    left = {near: list(up), far: list(down)}
    replays: list[tuple[Stream, Segment]] = []
    patience = 10_000
    while not (near.peer_ended and far.peer_ended):
        patience -= 1
        assert patience, "they do not come to an end"
        one, other = (near, far) if draw.random() < 0.5 else (far, near)
        if left[one]:
            one.write(left[one].pop(0))
        else:
            one.end()
        said = (other, one.segment() if draw.random() < 0.8 else one.acknowledgment())
        replays.append(said)
        if draw.random() < 0.4:
            said = draw.choice(replays)  # lost; or an old one comes once more
        to, segment = said
        came[to] += to.receive(segment)
    assert (came[far], came[near]) == (b"".join(up), b"".join(down))


def test_a_segment_has_a_limit_and_the_end_is_with_the_last() -> None:
    near, far = Stream(), Stream()
    near.write(b"x" * (MAX_SEGMENT + 1))
    near.end()
    first = near.segment()
    assert (len(first.data), first.end) == (MAX_SEGMENT, False)
    far.receive(first)
    near.receive(far.acknowledgment())
    assert near.segment() == Segment(MAX_SEGMENT, 0, b"x", end=True)
    assert far.receive(near.segment()) == b"x"
    assert far.peer_ended
    assert far.receive(near.segment()) == b""


@pytest.mark.parametrize(
    "segment", [Segment(1, 0, b"x"), Segment(0, 1), Segment(5, 0), Segment(0, 10**14, b"y")]
)
def test_a_gap_or_a_false_acknowledgment_is_refused(segment: Segment) -> None:
    with pytest.raises(SegmentError):
        Stream().receive(segment)


def test_nothing_comes_after_the_end() -> None:
    stream = Stream()
    stream.receive(Segment(0, 0, b"a", end=True))
    with pytest.raises(SegmentError):
        stream.receive(Segment(1, 0, b"b"))


segments = st.builds(
    Segment, st.integers(0, 10**15 - 1), st.integers(0, 10**15 - 1), st.binary(), st.booleans()
)


@given(segments)
def test_a_segment_is_read_as_it_was_written(segment: Segment) -> None:
    assert segment_of(segment.headers(), segment.data) == segment


@given(
    st.dictionaries(
        st.sampled_from(["soleil-sequence", "soleil-acknowledgment", "soleil-end"]),
        st.one_of(st.text(), st.integers().map(str)),
    ),
    st.binary(),
)
def test_any_headers_give_a_segment_or_its_error(headers: dict[str, str], body: bytes) -> None:
    stream = Stream()
    try:
        stream.receive(segment_of(headers, body))
    except SegmentError:
        return
    assert stream.unacknowledged == 0


def test_a_body_has_a_limit() -> None:
    with pytest.raises(SegmentError, match="are allowed"):
        segment_of(Segment(0, 0).headers(), b"x" * (MAX_SEGMENT + 1))


SESSION = "0123456789abcdef" * 2


@given(
    st.one_of(
        st.text(),
        st.from_regex(
            r"soleil\.[a-z]+\.from\.(root|leaf|x)\.[a-z]+\.to\.[a-z^]+\.[0-9a-f]{32}\..*"
        ),
    )
)
def test_any_subject_is_one_of_ours_or_none(text: str) -> None:
    subject = parse(text)
    assert subject is None or parse(str(subject)) == subject


@pytest.mark.parametrize(
    "text",
    [
        f"soleil.demo.from.leaf.l.to.^.{SESSION}",
        f"soleil.demo.from.leaf.l.to.^.{SESSION}.-1",
        f"soleil.demo.from.leaf.l.to.>.{SESSION}.1",
        f"soleil.demo.from.leaf.l.to.*.{SESSION}.1",
        f"soleil.demo.from.boss.l.to.^.{SESSION}.1",
        f"soleil.demo.from.leaf.l.m.to.^.{SESSION}.1",
        "soleil.demo.from.leaf.l.to.^.*.1",
    ],
)
def test_a_subject_of_another_form_is_none_of_ours(text: str) -> None:
    assert parse(text) is None
