"""SOURCE as an operator writes it."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.core.errors import UsageError
from anabranch.media.errors import MediaError, SourceError
from anabranch.media.ingest import ingest_command
from anabranch.media.rendition import Picture
from anabranch.media.source import (
    SDP_NAME,
    FileSource,
    RtmpSource,
    RtpSource,
    RtpStream,
    SrtSource,
    TestSource,
    UrlSource,
    WhipSource,
)
from anabranch.media.source_text import parse_source

PICTURE = Picture(640, 360, 25)
PREFIXES = [
    "",
    "test:",
    "rtp:",
    "rtp://",
    "srt://",
    "srt:",
    "file:",
    "http://",
    "rtsp://",
    "udp://",
]


@given(st.sampled_from(PREFIXES), st.text(max_size=60))
def test_any_text_is_a_source_or_a_source_error(prefix, text):
    try:
        source = parse_source(prefix + text)
    except SourceError:
        return
    assert "\n" not in source.describe()
    assert all(isinstance(secret, str) and secret for secret in source.secrets)


def test_the_error_is_of_the_package_and_of_usage():
    with pytest.raises(MediaError):
        parse_source("nonsense")
    with pytest.raises(UsageError):
        parse_source("")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test", TestSource()),
        ("test:7", TestSource(7)),
        ("rtmp", RtmpSource()),
        ("whip", WhipSource()),
        ("rtp", RtpSource()),
        ("rtp:5004", RtpSource(5004)),
        ("rtp://:5004?codec=vp8&pt=97", RtpSource(5004, "", "vp8", 97)),
        ("rtp://:5004?from=192.0.2.1", RtpSource(5004, sender="192.0.2.1")),
        ("rtp://127.0.0.1:5004?codec=mp2t", RtpSource(5004, "127.0.0.1", "mp2t", 33)),
        ("rtp://[::1]:5004?audio_port=5006", RtpSource(5004, "::1", audio_port=5006)),
        ("srt", SrtSource()),
        ("srt:9000", SrtSource(9000)),
        (
            "srt://0.0.0.0:9000?mode=listener&passphrase=abc%20defghij&pbkeylen=32&latency=50",
            SrtSource(9000, "0.0.0.0", "abc defghij", 32, 50),
        ),
        ("srt://camera.example:9000", UrlSource("srt://camera.example:9000")),
        ("RTSP://camera.example/x", UrlSource("RTSP://camera.example/x")),
        ("udp://:1234", UrlSource("udp://:1234")),
    ],
)
def test_kinds(text, expected):
    assert parse_source(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("concat:/etc/passwd|/etc/hosts", "subfile:,,start,0,end,9,,:/etc/passwd", "data:,x"),
        *("pipe:0", "fd:0", "lavfi:testsrc", "ftp://host/x", "gopher://host/", "unix:/run/x"),
        *("crypto:/x", "cache:http://x/", "async:file:/x", "tee:/x", "-i", "relative.mp4"),
        *("test:", "test:x", "test:1000", "rtp:0", "rtp:65536", "rtp://host.example:5004"),
        *("rtp://:1?codec=mpeg1", "rtp://:1?pt=128", "rtp://:5004?audio_port=5004", "rtp://:1?x=1"),
        *("rtp://:1?from=studio", "rtp://:1?from=::1", "rtp://:1?from=192.0.2.0/24"),
        *("srt://:9000?passphrase=short", "srt://:1?pbkeylen=20", "srt://:1?mode=caller"),
        *("udp://host", "http:///x", "http://", "http://[::1", "http://a:b/", "http://a b/"),
        *("rtsp://host/\nx", "x" * 3000, "file:x", "srt://host", "  "),
    ],
)
def test_refused(text):
    with pytest.raises(SourceError):
        parse_source(text)


def test_file(tmp_path: Path):
    path = tmp_path / "a film: 1.mp4"
    path.write_bytes(b"x")
    assert parse_source(str(path)) == FileSource(path)
    assert parse_source(f"file:{path}", loop=False) == FileSource(path, once=True)
    assert parse_source(f"file://{path}") == FileSource(path)
    looped = FileSource(path).input_args(PICTURE, tmp_path)
    assert looped[:3] == ["-re", "-stream_loop", "-1"]
    assert looped[-1] == f"file:{path}"
    assert "-stream_loop" not in FileSource(path, once=True).input_args(PICTURE, tmp_path)
    path.unlink()
    assert parse_source(str(path)) == FileSource(path)  # what it is does not hang on the disk
    with pytest.raises(SourceError, match="no file"):
        FileSource(path).check()
    with pytest.raises(SourceError, match="not a regular file"):
        FileSource(tmp_path).check()


@pytest.mark.parametrize(
    ("text", "hidden", "shown"),
    [
        ("rtsp://me:p%40ss@cam.example/1?token=abc", ["p%40ss", "p@ss", "abc"], "cam.example"),
        ("rtmp://host.example/app/stream-key", ["stream-key"], "host.example"),
        ("srt://host.example:1?passphrase=0123456789", ["0123456789"], "host.example"),
        ("srt://:9000?passphrase=0123456789", ["0123456789"], "9000"),
    ],
)
def test_secrets_are_named_and_not_described(text, hidden, shown):
    source = parse_source(text)
    for secret in hidden:
        assert secret in source.secrets
        assert secret not in source.describe()
    assert shown in source.describe()


def test_a_port_must_be_chosen_before_the_start():
    for text in ("rtp", "srt", "rtmp", "whip"):
        with pytest.raises(SourceError):
            parse_source(text).check()
    replace(parse_source("rtp"), port=5004).check()
    replace(parse_source("rtmp"), port=1935, channel="one").check()


def test_session_description_of_rtp():
    source = RtpSource(5004, audio_port=5006)
    assert source.files()[SDP_NAME].split("\r\n")[3:-1] == [
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        "m=video 5004 RTP/AVP 96",
        "a=rtpmap:96 H264/90000",
        "a=fmtp:96 packetization-mode=1",
        "m=audio 5006 RTP/AVP 111",
        "a=rtpmap:111 opus/48000/2",
    ]


def test_session_description_of_rtp_from_one_address():
    (text,) = RtpSource(5004, sender="192.0.2.1").files().values()
    assert "a=source-filter: incl IN IP4 * 192.0.2.1" in text.split("\r\n")


def test_session_description_of_whip():
    source = WhipSource((RtpStream("opus", 23000, 111), RtpStream("vp8", 23002, 96)))
    source.check()
    assert source.files()[SDP_NAME].split("\r\n")[3:-1] == [
        "c=IN IP4 127.0.0.1",
        "t=0 0",
        "a=source-filter: incl IN IP4 127.0.0.1 127.0.0.1",
        "m=audio 23000 RTP/AVP 111",
        "a=rtpmap:111 opus/48000/2",
        "m=video 23002 RTP/AVP 96",
        "a=rtpmap:96 VP8/90000",
    ]


def test_commands_of_all_kinds(tmp_path: Path):
    sources = [
        TestSource(3, "it's; [bad]", has_font=True),
        UrlSource("udp://239.1.1.1:5000"),
        UrlSource("https://host.example/live.m3u8"),
        RtpSource(5004),
        SrtSource(9000, passphrase="a&b c?d=e%f"),
        RtmpSource("one", 1935),
        WhipSource((RtpStream("h264", 23000, 96),)),
    ]
    commands = [
        ingest_command(source, PICTURE, tmp_path / "feed.sock", tmp_path) for source in sources
    ]
    assert all(command[-1] == f"unix:{tmp_path}/feed.sock" for command in commands)
    assert "drawtext=font=Sans:text='its bad'" in " ".join(commands[0])
    assert "udp://239.1.1.1:5000?fifo_size=20000&overrun_nonfatal=1" in commands[1]
    assert "-re" in commands[2]
    assert "passphrase=a%26b%20c%3Fd%3De%25f&pbkeylen=16" in " ".join(commands[4])
    assert "rtmp://127.0.0.1:1935/live/one" in commands[5]
    for command in commands[1:]:
        allowed = command[command.index("-protocol_whitelist") + 1].split(",")
        assert not {"concat", "subfile", "data", "pipe", "fd"} & set(allowed)
