"""JPEGs of key frames, by the real ffmpeg."""

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.media.key_frames import jpeg_size, key_frame

from anabranch.media import thumbnail
from anabranch.media.errors import ThumbnailError
from anabranch.media.thumbnail import jpeg_of

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 360), (320, 180)), ((160, 90), (160, 90)), ((360, 640), (320, 568))],
)
async def test_a_picture_is_small_and_keeps_its_proportions(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    jpeg = await jpeg_of(key_frame(*size), "run")
    width, height = jpeg_size(jpeg)
    assert width == expected[0]
    assert abs(height - expected[1]) <= 2
    assert len(jpeg) < 100_000


async def test_other_pictures_are_other_pictures() -> None:
    one = await jpeg_of(key_frame(), "run")
    assert one != await jpeg_of(key_frame(pattern="smptebars"), "run")


@pytest.mark.parametrize(
    "raw", [b"", b"hello", b"\0\0\0\1", b"\0\0\1\x65" + b"\xff" * 999, bytes(10_000)]
)
async def test_what_is_no_key_frame_is_refused(raw: bytes) -> None:
    with pytest.raises(ThumbnailError):
        await jpeg_of(raw, "run")


async def test_one_of_many_megabytes_is_not_looked_at() -> None:
    with pytest.raises(ThumbnailError, match="bytes"):
        await jpeg_of(bytes(thumbnail.MAX_KEY_FRAME + 1), "run")


async def test_a_decoder_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnail, "_COMMAND", ("sleep", "100"))
    monkeypatch.setattr(thumbnail, "_LIMIT_S", 0.2)
    with pytest.raises(ThumbnailError, match=r"within 0\.2 s"):
        await jpeg_of(key_frame(), "run")


async def test_without_a_decoder_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnail, "_COMMAND", ("/nowhere/ffmpeg",))
    with pytest.raises(ThumbnailError, match="No such file"):
        await jpeg_of(key_frame(), "run")


@given(st.binary(max_size=400), st.integers(0, 3000))
@settings(max_examples=12, deadline=None)
async def test_any_bytes_make_a_jpeg_or_one_error(noise: bytes, at: int) -> None:
    good = key_frame()
    try:
        jpeg = await jpeg_of(good[:at] + noise + good[at + len(noise) :], "run")
    except ThumbnailError:
        return
    assert jpeg_size(jpeg)[0] <= 320
