"""What ffmpeg prints, in plain words; and the RTMP server's calls."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.media.errors import RtmpError
from anabranch.media.ffmpeg_log import LogReader
from anabranch.media.publisher_figures import SourcePicture
from anabranch.media.rtmp import RtmpCall, RtmpConfig, parse_call, rtmp_conf


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[error] rtsp://x: Connection refused", "the connection was refused"),
        ("[error] method DESCRIBE failed: 401 Unauthorized", "unauthorised"),
        ("[rtp @ 0x1] [error] bind failed: Address already in use", "the port is taken"),
        ("[fatal] Decoder (codec none) not found for input stream #0:0", "codec"),
        ("[error] /x: Invalid data found when processing input", "not readable media"),
        ("[error] something \x1b[1m quite new", "something ?"),
        ("[error] av_interleaved_write_frame(): Broken pipe", "the encoder closed the feed"),
        ("[error] unix:/run/f.sock: Connection refused", "the encoder closed the feed"),
        ("[warning] Connection refused once", "ffmpeg ended with code 1"),
    ],
)
def test_reasons(line, reason):
    reader = LogReader("/run/f.sock")
    reader.read("stderr", line)
    assert reason in reader.reason(1)


def test_a_life():
    reader = LogReader("/run/f.sock")
    for line in (
        "[info] Input #0, mov, from 'x':",
        "[info]   Stream #0:0[0x1](und): Video: h264 (High) (avc1), yuv420p, 640x360, 25 fps",
        "[info]   Stream #0:1[0x2](und): Audio: aac (LC), 48000 Hz, stereo",
        "[info] Stream mapping:",
        "[info] Output #0, matroska, to 'unix:/run/f.sock':",
        "[info]   Stream #0:0: Video: rawvideo, 640x360",
    ):
        reader.read("stderr", line)
    reader.read("stdout", "out_time_us=1500000")
    reader.read("stdout", "out_time_us=N/A")
    reader.read("stdout", "frame=38")
    assert reader.running
    assert reader.streams == ["h264 640x360", "aac"]
    assert (reader.media_s, reader.frames) == (1.5, 38)
    assert reader.reason(0) == "the source ended"
    assert reader.reason(1) == "the source broke off"


def test_another_reader_goes_on_with_a_life():
    first = LogReader("/run/f.sock")
    for line in (
        "Input #0, lavfi, from 'x':",
        "    Stream #0:0: Video: h264 (High), yuv420p, 640x360, 900 kb/s, 25 fps, 25 tbr",
        "Output #0, matroska, to 'unix:/run/f.sock':",
    ):
        first.read("stderr", f"[info] {line}")
    second = LogReader("/run/f.sock")
    second.restore(json.loads(json.dumps(first.summary())))
    assert second.running
    assert (second.streams, second.picture) == (["h264 640x360"], first.picture)
    assert second.announced_kbps == 900
    second.read("stderr", "[info]     Stream #0:0: Video: rawvideo (I420), 1280x720")
    second.read("stdout", "out_time_us=1500000")
    assert second.streams == first.streams
    assert second.media_s == 1.5


@pytest.mark.parametrize(
    ("line", "picture", "kbps"),
    [
        (
            "Stream #0:0[0x1](und): Video: h264 (High) (avc1 / 0x31637661), yuv420p(tv, bt709),"
            " 1280x720 [SAR 1:1 DAR 16:9], 2387 kb/s, 29.97 fps, 29.97 tbr, 90k tbn (default)",
            SourcePicture("h264", 1280, 720, 29.97),
            2387,
        ),
        (
            "Stream #0:0: Video: vp8, yuv420p, 640x360, 90k tbr, 90k tbn",
            SourcePicture("vp8", 640, 360),
            0,
        ),
        ("Stream #0:0: Video: h264, none, 90k tbr, 90k tbn", SourcePicture("h264"), 0),
        ("Stream #0:0: Audio: aac (LC), 48000 Hz, stereo, fltp, 128 kb/s", None, 128),
    ],
)
def test_what_is_said_of_the_picture(line, picture, kbps):
    reader = LogReader("/run/f.sock")
    reader.read("stderr", f"[info]   {line}")
    assert (reader.picture, reader.announced_kbps) == (picture, kbps)


@pytest.mark.parametrize(("number", "missing"), [(0, False), (1, True)])
def test_which_stream_never_came(number, missing):
    reader = LogReader("/run/f.sock")
    assert not reader.picture_missing
    reader.read("stderr", f"[error] Too many packets buffered for output stream 0:{number}.")
    assert reader.announced_only
    assert reader.picture_missing is missing


@given(st.sampled_from(["stdout", "stderr"]), st.text())
def test_any_line_is_read(stream, line):
    reader = LogReader("/run/f.sock")
    reader.read(stream, line)
    assert reader.reason(1).isprintable()


def test_calls_of_the_rtmp_server():
    body = b"app=live&flashver=&swfurl=&tcurl=x&pageurl=&addr=10.0.0.1&clientid=4&call=publish"
    call = parse_call(body + b"&name=a%20key&type=live")
    assert call == RtmpCall("publish", "live", "a key", "10.0.0.1", "4")


@given(st.binary(max_size=200))
def test_any_body_is_a_call_or_the_one_error(body):
    with suppress(RtmpError):
        parse_call(body)


def test_rtmp_configuration():
    text = rtmp_conf(RtmpConfig(Path("/run/x"), 1935, 8080))
    assert "listen 1935;" in text
    assert "on_publish http://127.0.0.1:8080/internal/rtmp/publish;" in text
    assert "listen unix:/run/x/stat.sock;" in text
    assert text.count("{") == text.count("}")
    with pytest.raises(RtmpError):
        rtmp_conf(RtmpConfig(Path("/run/a b;"), 1935, 8080))
