"""Answers between a viewer and a Janus, which both offer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.media.offers import CHROMIUM, FIREFOX_LIKE, TRANSPORT

from anabranch.media.janus_sdp import answer_for_server, answer_for_viewer
from anabranch.media.leaf import OfferError
from anabranch.media.sdp import parse_offer, split

JANUS = """v=0
o=- 1795228157297790 1 IN IP4 203.0.113.7
s=Mountpoint 7
t=0 0
a=group:BUNDLE v a
a=fingerprint:sha-256 36:F1
a=ice-lite
m=video 9 UDP/TLS/RTP/SAVPF 109 110
c=IN IP4 203.0.113.7
a=sendonly
a=mid:v
a=rtcp-mux
a=ice-ufrag:1FPe
a=ice-pwd:CmmZNG1LhLYyRiUeMFv32E
a=setup:actpass
a=rtpmap:109 H264/90000
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=rtpmap:110 rtx/90000
a=ssrc-group:FID 2838931705 2893278490
a=ssrc:2838931705 cname:janus
a=ssrc:2893278490 cname:janus
a=candidate:1 1 udp 2015363327 203.0.113.7 20011 typ host
a=candidate:1 1 udp 2015363327 192.0.2.2 20011 typ host
a=end-of-candidates
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 203.0.113.7
a=sendonly
a=mid:a
a=rtcp-mux
a=ice-ufrag:1FPe
a=ice-pwd:CmmZNG1LhLYyRiUeMFv32E
a=setup:actpass
a=rtpmap:111 opus/48000/2
a=ssrc:1425584530 cname:janus
a=candidate:1 1 udp 2015363327 203.0.113.7 20011 typ host
a=end-of-candidates
"""


def test_the_viewer_is_answered_in_its_own_order_and_numbers() -> None:
    offer = parse_offer(CHROMIUM)
    assert offer.video_codec.payload_type == 109  # constrained baseline before plain baseline
    assert offer.audio_codec is not None
    assert offer.audio_codec.payload_type == 111

    session, (video, audio) = split(answer_for_viewer(offer, JANUS))
    assert session.has("ice-lite")
    assert session.value("group") == "BUNDLE 0 1"
    assert (video.kind, video.formats, video.value("mid")) == ("video", ("109",), "0")
    assert (audio.kind, audio.formats, audio.value("mid")) == ("audio", ("111",), "1")
    assert video.value("setup") == "passive"
    assert video.value("ice-pwd") == "CmmZNG1LhLYyRiUeMFv32E"
    assert video.value("fingerprint") == "sha-256 36:F1"
    assert list(video.values("ssrc")) == ["2838931705 cname:anabranch"]
    assert len(list(video.values("candidate"))) == 2
    assert video.has("sendonly")
    assert not video.has("extmap")


def test_the_server_is_answered_with_the_viewers_transport() -> None:
    _, (video, audio) = split(answer_for_server(parse_offer(CHROMIUM), JANUS))
    assert (video.value("mid"), audio.value("mid")) == ("v", "a")
    assert video.value("setup") == "active"
    assert video.value("ice-ufrag") == "abcd"
    assert video.value("fingerprint") == "sha-256 " + ":".join(["AB"] * 32)
    assert video.has("recvonly")


def test_other_orders_and_sections_are_answered_in_kind() -> None:
    offer = parse_offer(FIREFOX_LIKE)
    assert offer.video_codec.payload_type == 126
    session, sections = split(answer_for_viewer(offer, JANUS))
    assert [section.kind for section in sections] == ["audio", "video", "application"]
    assert session.value("group") == "BUNDLE 0 1"
    assert sections[2].lines[0] == "m=application 0 UDP/DTLS/SCTP webrtc-datachannel"
    for name in ("ice-ufrag", "ice-pwd", "fingerprint", "setup"):  # GStreamer asks for them
        assert sections[2].value(name) == sections[1].value(name) != ""


def test_an_offer_of_video_alone_is_answered_without_sound() -> None:
    offer = parse_offer(CHROMIUM[: CHROMIUM.index("m=audio")])
    assert offer.audio is None
    _, sections = split(answer_for_server(offer, JANUS))
    assert sections[1].lines[0] == "m=audio 0 UDP/TLS/RTP/SAVPF 111"


def test_what_is_refused_keeps_its_protocol_and_formats() -> None:
    offer = parse_offer(CHROMIUM.replace("opus", "speex"))
    assert offer.audio is None
    _, sections = split(answer_for_viewer(offer, JANUS))
    assert sections[1].lines[0] == "m=audio 0 UDP/TLS/RTP/SAVPF 111 63"


@pytest.mark.parametrize(
    "protocol", ["UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "RTP/SAVPF", "RTP/SAVP"]
)
def test_the_viewer_is_answered_in_its_own_protocol(protocol: str) -> None:
    offer = parse_offer(CHROMIUM.replace("UDP/TLS/RTP/SAVPF", protocol))
    _, sections = split(answer_for_viewer(offer, JANUS))
    assert [(s.port, s.protocol) for s in sections] == [(9, protocol)] * 2
    _, sections = split(answer_for_server(offer, JANUS))
    assert {section.protocol for section in sections} == {"UDP/TLS/RTP/SAVPF"}


AUDIO_AT_PORT_0 = CHROMIUM.replace("m=audio 9", "m=audio 0")


def test_a_section_at_port_0_is_not_offered_unless_it_is_bundled() -> None:
    offer = parse_offer(AUDIO_AT_PORT_0.replace("BUNDLE 0 1", "BUNDLE 0"))
    assert offer.audio is None
    _, sections = split(answer_for_viewer(offer, JANUS))
    assert [section.port for section in sections] == [9, 0]

    bundled = AUDIO_AT_PORT_0.replace("a=mid:1\n", "a=mid:1\na=bundle-only\n")
    assert parse_offer(bundled).audio == 1
    # It has the transport of the section that it is bundled with (RFC 9143 section 6).
    video_first = CHROMIUM.replace("m=video 9", "m=video 0").replace(
        f"{TRANSPORT}a=mid:0", "a=mid:0\na=bundle-only"
    )
    assert parse_offer(video_first).ice_ufrag == "abcd"


def test_feedback_is_accepted_only_where_it_is_offered() -> None:
    def accepted(*lines: str) -> list[str]:
        text = CHROMIUM.replace("m=audio", "".join(f"{line}\n" for line in lines) + "m=audio")
        _, (video, audio) = split(answer_for_viewer(parse_offer(text), JANUS))
        assert not audio.has("rtcp-fb")
        return list(video.values("rtcp-fb"))

    assert accepted() == []
    assert accepted("a=rtcp-fb:109 nack pli", "a=rtcp-fb:103 nack") == ["109 nack pli"]
    assert accepted("a=rtcp-fb:* nack", "a=rtcp-fb:109 goog-remb") == ["109 nack"]
    every = ["109 nack", "109 nack pli", "109 ccm fir"]
    assert accepted(*(f"a=rtcp-fb:{line}" for line in every[::-1])) == every


def test_every_candidate_has_its_own_foundation_and_priority() -> None:
    _, (video, audio) = split(answer_for_viewer(parse_offer(CHROMIUM), JANUS))
    assert list(video.values("candidate")) == [
        "1 1 udp 2015363327 203.0.113.7 20011 typ host",
        "2 1 udp 2015363326 192.0.2.2 20011 typ host",
    ]
    assert len(list(audio.values("candidate"))) == 1


@given(st.data())
def test_a_damaged_offer_is_answered_or_refused(data: st.DataObject) -> None:
    lines = CHROMIUM.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "repeat", "cut"])):
            case "drop":
                del lines[where]
            case "repeat":
                lines.insert(where, lines[where])
            case "cut":
                lines[where] = lines[where][: data.draw(st.integers(0, 20))]
    try:
        offer = parse_offer("\n".join(lines))
    except OfferError:
        return
    answer_for_viewer(offer, JANUS)
    answer_for_server(offer, JANUS)
