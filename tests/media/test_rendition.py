"""Ladders, formats and SSRCs."""

import random

import pytest

from anabranch.media.errors import RenditionError
from anabranch.media.rendition import (
    DEFAULT_LADDER,
    Format,
    Picture,
    Rendition,
    check_ladder,
    draw_ssrcs,
)


def test_the_default_ladder_is_made_of_its_largest_picture():
    assert check_ladder(DEFAULT_LADDER, Format()) == Picture(640, 360, 25)
    assert check_ladder(DEFAULT_LADDER[::-1], Format(framerate=50)) == Picture(640, 360, 50)


@pytest.mark.parametrize(
    "values",
    [
        ("high", 641, 360, 1000),
        ("high", 640, 359, 1000),
        ("high", 0, 360, 1000),
        ("high", 640, 360, 1),
        ("high", 640, 360, 1000, 0),
        ("High Quality", 640, 360, 1000),
        ("audio", 640, 360, 1000),
    ],
)
def test_impossible_renditions(values):
    with pytest.raises(RenditionError):
        Rendition(*values)


@pytest.mark.parametrize(
    "values",
    [
        {"gop_s": 4.1},
        {"gop_s": 0},
        {"framerate": 0},
        {"audio_payload_type": 96},
        {"video_payload_type": 95},
        {"mtu": 1500},
        {"audio_bitrate_kbps": 1},
    ],
)
def test_impossible_formats(values):
    with pytest.raises(RenditionError):
        Format(**values)


@pytest.mark.parametrize(
    ("ladder", "message"),
    [
        ((), "at least one"),
        ((DEFAULT_LADDER[0], DEFAULT_LADDER[0]), "two renditions"),
        ((Rendition("a", 640, 360, 900, 50),), "more than"),
        ((Rendition("a", 426, 240, 900),), "multiple of 8"),
    ],
)
def test_impossible_ladders(ladder, message):
    with pytest.raises(RenditionError, match=message):
        check_ladder(ladder, Format())


def test_gop_in_frames():
    assert Format(gop_s=1.0).gop_frames(25) == 25
    assert Format(gop_s=0.01).gop_frames(5) == 1


def test_ssrcs_are_new_and_distinct():
    draw = random.Random(1).getrandbits
    first = draw_ssrcs(["a", "b", "audio"], draw=draw)
    second = draw_ssrcs(first, first.values(), draw=draw)
    assert len({*first.values(), *second.values()}) == 6
    numbers = iter([0, 5, 5, 7, 9])
    assert draw_ssrcs(["a", "b"], [7], draw=lambda _bits: next(numbers)) == {"a": 5, "b": 9}
