"""Ways in: ports are filled in or refused, and producers are told what really works."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.channels.definitions import Definition
from anabranch.channels.ways_in import (
    check_once,
    has_key,
    ports_of,
    publish_hints,
    ready_source,
    settle,
)
from anabranch.core.errors import ConflictError, UsageError
from anabranch.media.source import RtmpSource, SrtSource, TestSource
from anabranch.media.source_text import parse_source

SRT, RTP = (9000, 9002), (5004, 5009)
KEY = "abcdefghij0123456789"


def defined(name: str, source: str, *, once: bool = False) -> Definition:
    return Definition(name, f"Title of {name}", source, once, KEY, 3)


def settled(text: str, *others: str, is_free: Callable[[int], bool] = lambda _port: True) -> str:
    taken = [defined(f"c{number}", source) for number, source in enumerate(others)]
    return settle(text, taken, srt=SRT, rtp=RTP, is_free=is_free)


@pytest.mark.parametrize(
    ("text", "others", "result"),
    [
        ("test", (), "test"),
        (" rtmp ", (), "rtmp"),
        ("whip", ("whip",), "whip"),
        ("srt", (), "srt:9000"),
        ("srt", ("srt:9000", "srt://:9001"), "srt:9002"),
        ("rtp", (), "rtp:5004"),
        ("rtp", ("rtp:5004",), "rtp:5006"),
        ("rtp", ("rtp:5005",), "rtp:5008"),  # 5005 and its RTCP on 5006
        ("rtp", ("rtp:6000", "srt:5005"), "rtp:5006"),
        (
            "srt://?passphrase=0123456789&latency=50",
            (),
            "srt://:9000?passphrase=0123456789&latency=50",
        ),
        ("srt://0.0.0.0:0", (), "srt://0.0.0.0:9000"),
        ("rtp://?codec=vp8", (), "rtp://:5004?codec=vp8"),
        ("rtp://127.0.0.1?codec=vp8", (), "rtp://127.0.0.1:5004?codec=vp8"),  # not on all addresses
        ("rtp://[::1]:0", ("rtp:5004",), "rtp://[::1]:5006"),
        (
            "rtp://?audio_port=5005",
            (),
            "rtp://:5008?audio_port=5005",
        ),  # clear of the sound and its RTCP
        ("rtp://:#?codec=none", (), "rtp://:5004"),
        ("rtp:7000", (), "rtp:7000"),
    ],
)
def test_a_port_is_filled_in_where_one_is_needed(
    text: str, others: tuple[str, ...], result: str
) -> None:
    assert settled(text, *others) == result


@pytest.mark.parametrize(
    ("text", "others", "words"),
    [
        ("srt:9000", ("srt:9000",), "port 9000 belongs to the channel c0"),
        ("rtp:5003", ("test", "rtp:5004"), "port 5004 belongs to the channel c1"),
        ("rtp://:6000?audio_port=7000", ("srt:7001",), "port 7001 belongs"),
        ("srt", ("srt:9000", "srt:9001", "srt:9002"), "no port of 9000 to 9002 is free"),
        ("rtp:65535", (), "too high"),
        ("rtp://:5004?audio_port=65535", (), "too high"),
        ("rtp://:5004?audio_port=5005", (), "collide"),
        ("/no/such/film.mp4", (), "there is no file"),
        ("/", (), "not a regular file"),
        ("", (), "empty"),
    ],
)
def test_a_port_or_file_that_cannot_be_had_is_refused(
    text: str, others: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        settled(text, *others)


def test_ports_of_other_programs_are_left_to_them() -> None:
    assert settled("srt", is_free=lambda port: port != 9000) == "srt:9001"
    assert settled("rtp", is_free=lambda port: port != 5005) == "rtp:5006"
    with pytest.raises(ConflictError, match="port 5005 is taken by another program"):
        settled("rtp:5004", is_free=lambda port: port != 5005)
    with pytest.raises(ConflictError, match="no port"):
        settled("rtp", is_free=lambda _port: False)


def test_a_channel_whose_file_has_gone_is_in_nobodys_way(tmp_path: Path) -> None:
    assert settled("srt", str(tmp_path / "gone.mp4")) == "srt:9000"
    source = ready_source(defined("film", str(tmp_path / "gone.mp4")), 1935, 1)
    assert source.describe() == str(tmp_path / "gone.mp4")


SCHEMES = st.sampled_from(
    ["test", "rtmp", "whip", "srt", "rtp", "file", "udp", "http", "rtsp", "x"]
)
PIECES = st.sampled_from(
    ["/", "//", ":", "0", "1", "9000", "65535", "?", "#", "&", "@", "[", "]", "::1", "127.0.0.1",
     "codec=", "vp8", "passphrase=", "0123456789", "audio_port=", "latency=1", " ", "%41", "\0"]
)  # fmt: skip
SOURCES = st.one_of(
    st.text(max_size=60),
    st.builds(lambda scheme, rest: scheme + "".join(rest), SCHEMES, st.lists(PIECES, max_size=9)),
)


@given(SOURCES, st.lists(SOURCES, max_size=3))
def test_any_text_is_settled_for_good_or_refused(text: str, earlier: list[str]) -> None:
    """What is settled is a source, has its ports, shares them with none, and settles to itself."""
    others: list[str] = []
    for each in [*earlier, text]:
        try:
            result = settled(each, *others)
        except UsageError:
            continue
        source = parse_source(result)
        assert getattr(source, "port", 1) is not None or isinstance(source, RtmpSource)
        assert all(0 < port < 65536 for port in ports_of(source))
        assert not any(ports_of(source) & ports_of(parse_source(other)) for other in others)
        assert settled(result, *others) == result
        ready_source(defined("again", result), 1935, 1)
        others.append(result)


@pytest.mark.parametrize(
    ("text", "hints", "keyed"),
    [
        (
            "rtmp",
            {
                "OBS server": "rtmp://studio:1936/live",
                "OBS stream key": KEY,
                "ffmpeg": "ffmpeg -re -i FILE -c:v libx264 -c:a aac -f flv"
                f" rtmp://studio:1936/live/{KEY}",
            },
            True,
        ),
        (
            "srt:9000",
            {
                "OBS server": f"srt://studio:9000?mode=caller&passphrase={KEY}",
                "ffmpeg": "ffmpeg -re -i FILE -c:v libx264 -c:a aac -f mpegts"
                f" 'srt://studio:9000?mode=caller&passphrase={KEY}'",
            },
            True,
        ),
        (
            "rtp://:5004?codec=mp2t",
            {"ffmpeg": "ffmpeg -re -i FILE -f rtp_mpegts rtp://studio:5004"},
            False,
        ),
        (
            "rtp://:5004?audio_port=5006",
            {
                "ffmpeg": "ffmpeg -re -i FILE -map 0:v -an -c:v libx264 -f rtp"
                " 'rtp://studio:5004?pkt_size=1200'"
                " -map 0:a -vn -c:a libopus -payload_type 111 -f rtp rtp://studio:5006"
            },
            False,
        ),
        ("test", {}, False),
        ("http://host/live.m3u8", {}, False),
        ("/film.mp4", {}, False),
    ],
)
def test_a_producer_is_told_what_to_enter(text: str, hints: dict[str, str], keyed: bool) -> None:
    definition = defined("news", text)
    source = ready_source(definition, 1936, 1)
    assert publish_hints(source, definition, "studio", "http://studio:8080") == hints
    assert has_key(source) is keyed


def test_hints_leave_out_the_usual_port_and_escape_a_passphrase() -> None:
    news = defined("news", "any")
    hints = publish_hints(RtmpSource("news", 1935), news, "studio", "")
    assert hints["OBS server"] == "rtmp://studio/live"
    hints = publish_hints(SrtSource(9000, passphrase="all & 'sorts'?"), news, "studio", "")
    assert "passphrase=all%20%26%20%27sorts%27%3F" in hints["OBS server"]
    plain = publish_hints(parse_source("rtp:5004"), news, "studio", "")["ffmpeg"]
    assert plain.endswith("-f rtp 'rtp://studio:5004?pkt_size=1200'")


def test_whip_is_told_with_the_page_for_cameras() -> None:
    definition = defined("stage", "whip")
    source = ready_source(definition, 1935, 1)
    hints = publish_hints(source, definition, "studio", "http://studio:8080")
    assert hints["OBS server"] == "http://studio:8080/whip/stage"
    assert hints["OBS bearer token"] == KEY
    # Without HTTPS a browser gives cameras to pages of its own machine only.
    page = f"http://localhost:8080/publish?channel=stage#key={KEY}"
    assert hints["browser (this machine)"] == page
    hints = publish_hints(source, definition, "studio", "https://studio:8443")
    assert hints["browser"] == f"https://studio:8443/publish?channel=stage#key={KEY}"
    assert has_key(source)
    assert "whip-endpoint=https://studio:8443/whip/stage" in hints["GStreamer"]


def test_what_is_missing_is_filled_in_from_the_definition() -> None:
    test = ready_source(defined("news", "test"), 1935, 7)
    assert isinstance(test, TestSource)
    assert (test.number, test.label) == (7, "Title of news")
    assert ready_source(defined("news", "test:4"), 1935, 7).describe() == "test:4"
    own = ready_source(defined("news", "srt://:9000?passphrase=my-own-words"), 1935, 7)
    assert isinstance(own, SrtSource)
    assert own.passphrase == "my-own-words"
    film = ready_source(defined("news", "/film.mp4", once=True), 1935, 7)
    assert film.once


def test_only_a_file_ends() -> None:
    check_once(parse_source("/film.mp4"), once=True)
    for text in ("test", "rtmp", "rtp", "http://host/film.mp4"):
        with pytest.raises(UsageError, match="only a file"):
            check_once(parse_source(text), once=True)
