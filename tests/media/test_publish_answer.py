"""Answers to publishers: to offers as WebRTC stacks write them, and to damaged ones."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.media.damage import damaged
from tests.media.publish_offers import AIORTC, CHROMIUM, GSTREAMER, OBS, STACKS

from anabranch.media.answer_parts import Candidate, NearEnd
from anabranch.media.leaf import OfferError
from anabranch.media.publish_answer import PublishOffer, Track, answer, understand
from anabranch.media.sdp import MAX_SDP, Section, split

NEAR = NearEnd(
    session_id=4711,
    ufrag="ourfrag1",
    pwd="ourpassword0123456789ab",
    fingerprint="sha-256 AB:CD",
    candidates=[Candidate("203.0.113.7", 8189), Candidate("2001:db8::1", 8189)],
)


def answered(text: str) -> tuple[Section, dict[str, Section]]:
    session, sections = split(answer(understand(text), NEAR))
    return session, {section.kind: section for section in sections}


def track(offer: PublishOffer, kind: str) -> Track:
    return next(each for each in offer.tracks if each.kind == kind)


@pytest.mark.parametrize(("text", "video", "rtx", "audio"), STACKS.values(), ids=STACKS.keys())
def test_every_stack_gets_an_answer_in_its_own_numbers(
    text: str, video: int, rtx: int | None, audio: int
) -> None:
    offer = understand(text)
    session, sections = answered(text)
    assert session.has("ice-lite")
    assert list(sections) == [section.kind for section in offer.media]
    types = [video] if rtx is None else [video, rtx]
    assert sections["video"].formats == tuple(map(str, types))
    assert sections["audio"].formats == (str(audio),)
    mids = [section.value("mid") for section in offer.media]
    assert session.value("group") == f"BUNDLE {' '.join(map(str, mids))}"
    assert [section.value("mid") for section in sections.values()] == mids
    for section in sections.values():
        assert (section.port, section.protocol) == (8189, "UDP/TLS/RTP/SAVPF")
        assert section.has("recvonly")
        assert section.has("rtcp-mux")
        assert not section.has("ssrc")
        assert not section.has("msid")
        assert section.value("setup") == "passive"
        assert section.value("ice-ufrag") == "ourfrag1"
        assert section.value("ice-pwd") == "ourpassword0123456789ab"
        assert section.value("fingerprint") == "sha-256 AB:CD"
    first, second = sections.values()
    assert list(first.values("candidate")) == [
        "1 1 udp 2130706431 203.0.113.7 8189 typ host",
        "2 1 udp 2130706175 2001:db8::1 8189 typ host",
    ]
    assert first.has("end-of-candidates")
    assert not second.has("candidate")


def test_what_chromium_offers_is_used() -> None:
    offer = understand(CHROMIUM)
    video, audio = track(offer, "video"), track(offer, "audio")
    assert (video.encoding, video.clock, audio.encoding, audio.clock) == (
        *("h264", 90000),
        *("opus", 48000),
    )
    assert video.ssrcs == (2231627014, 632943048)
    assert audio.ssrcs == (1403264122,)
    assert video.feedback == ("nack", "nack pli", "goog-remb")
    assert audio.feedback == ()
    _, sections = answered(CHROMIUM)
    assert list(sections["video"].values("rtpmap")) == ["103 H264/90000", "104 rtx/90000"]
    assert list(sections["video"].values("fmtp")) == [
        "103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f",
        "104 apt=103",
    ]
    # No transport-cc, which would have to be sent; no orientation, so it turns the picture itself.
    assert list(sections["video"].values("rtcp-fb")) == [
        "103 nack", "103 nack pli", "103 goog-remb"
    ]  # fmt: skip
    for section in sections.values():
        assert list(section.values("extmap")) == ["9 urn:ietf:params:rtp-hdrext:sdes:mid"]
        assert section.has("rtcp-rsize")
    assert list(sections["audio"].values("fmtp")) == ["111 minptime=10;useinbandfec=1;stereo=1"]


def test_obs_says_its_transport_once_for_all() -> None:
    offer = understand(OBS)
    assert (offer.far_end.ufrag, offer.far_end.pwd) == ("nxcM", "ezjAjgSSLLvbRhUA1zc6Se")
    video = track(offer, "video")
    assert (video.rtx, video.extensions, video.ssrcs) == (None, {}, (3388068601,))
    assert [each.kind for each in offer.tracks] == ["audio", "video"]


def test_vp8_is_taken_where_there_is_no_h264() -> None:
    for text in (
        re.sub("H264/90000", "H265/90000", CHROMIUM),
        CHROMIUM.replace("packetization-mode=1", "packetization-mode=0"),
    ):
        offer = understand(text)
        assert (track(offer, "video").encoding, track(offer, "video").rtx) == ("vp8", 97)
        _, sections = answered(text)
        assert list(sections["video"].values("rtpmap")) == ["96 VP8/90000", "97 rtx/90000"]
        assert list(sections["video"].values("fmtp")) == ["97 apt=96"]


def test_simulcast_is_declined() -> None:
    layers = "a=rid:h send\na=rid:l send\na=simulcast:send h;l\nm=audio"
    _, sections = answered(CHROMIUM.replace("m=audio", layers))
    assert sections["video"].port == 8189
    assert not sections["video"].has("simulcast")
    assert not sections["video"].has("rid")


def test_one_of_each_kind_is_taken_and_the_rest_refused_in_its_place() -> None:
    extra = (
        CHROMIUM[CHROMIUM.index("m=video") : CHROMIUM.index("m=audio")].replace("mid:0", "mid:2")
        + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\nc=IN IP4 0.0.0.0\na=mid:3\n"
    )
    text = CHROMIUM.replace("BUNDLE 0 1", "BUNDLE 0 1 2 3") + extra
    session, sections = split(answer(understand(text), NEAR))
    assert session.value("group") == "BUNDLE 0 1"
    assert [section.port for section in sections] == [8189, 8189, 0, 0]
    assert [section.value("mid") for section in sections] == ["0", "1", "2", "3"]
    assert sections[2].has("inactive")


def test_a_section_that_cannot_be_taken_leaves_its_place_to_the_next() -> None:
    head, _, tail = CHROMIUM.partition("m=audio")
    odd = "m=video 9 UDP/TLS/RTP/SAVPF 45\nc=IN IP4 0.0.0.0\na=mid:9\na=rtpmap:45 AV1/90000\n"
    offer = understand(head.replace("m=video", odd + "m=video", 1) + "m=audio" + tail)
    assert [each.place for each in offer.tracks] == [1, 2]


def test_picture_or_sound_alone() -> None:
    video = CHROMIUM[: CHROMIUM.index("m=audio")]
    session, sections = answered(video)
    assert session.value("group") == "BUNDLE 0"
    assert list(sections) == ["video"]
    session, sections = answered(CHROMIUM.replace("a=sendonly", "a=inactive", 1))
    assert session.value("group") == "BUNDLE 1"
    assert (sections["video"].port, sections["audio"].port) == (0, 8189)
    assert sections["audio"].has("candidate")


def test_without_nack_nothing_is_sent_again() -> None:
    offer = understand(CHROMIUM.replace("a=rtcp-fb:103 nack\n", ""))
    assert track(offer, "video").rtx is None


def test_a_number_means_one_thing_in_all_sections() -> None:
    head, _, tail = CHROMIUM.partition("m=audio")
    offer = understand(head + "m=audio" + tail.replace("extmap:9", "extmap:5"))
    assert [each.extensions for each in offer.tracks] == [{}, {}]
    assert track(understand(OBS), "video").extensions == {}


def test_an_extension_of_one_direction_is_answered_by_its_mirror() -> None:
    _, sections = answered(CHROMIUM.replace("extmap:9 ", "extmap:9/sendonly "))
    assert sections["video"].value("extmap") == "9/recvonly urn:ietf:params:rtp-hdrext:sdes:mid"
    offer = understand(CHROMIUM.replace("extmap:9 ", "extmap:9/recvonly "))
    assert track(offer, "video").extensions == {}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "v=0"),
        (CHROMIUM.replace("sendonly", "recvonly"), r"\(it sends nothing\)"),
        (re.sub("H264|VP8|opus", "X", CHROMIUM), r"neither.*\(it sends video, audio\)"),
        (CHROMIUM.replace("a=group:BUNDLE 0 1\n", ""), "bundle"),
        (CHROMIUM.replace("a=rtcp-mux\n", ""), "rtcp-mux"),
        (CHROMIUM.replace("setup:actpass", "setup:passive"), "DTLS client"),
        (CHROMIUM.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), "'RTP/AVP', not UDP/TLS/RTP/SAVPF"),
        (CHROMIUM.replace("a=mid:1", "a=mid:0"), "same a=mid"),
        (CHROMIUM.replace("111", "103"), "payload type 103 for both"),
        (CHROMIUM.replace("111", "104"), "payload type 104 for both"),
        (CHROMIUM.replace("ice-pwd:", "ice-pwd:%"), "malformed"),
        (CHROMIUM + "a=y\n" * MAX_SDP, "longer"),
        (GSTREAMER.replace("a=fingerprint:", "a=print:"), "no a=fingerprint"),
    ],
)
def test_what_cannot_be_answered_says_why(text: str, word: str) -> None:
    with pytest.raises(OfferError, match=word):
        understand(text)


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_an_offer_or_an_offer_error(text: str) -> None:
    for candidate in (text, "v=0\n" + text):
        with suppress(OfferError):
            understand(candidate)


@given(st.data(), st.sampled_from([CHROMIUM, OBS, GSTREAMER, AIORTC]))
def test_a_damaged_offer_is_answered_or_refused(data: st.DataObject, text: str) -> None:
    try:
        offer = understand(damaged(data, text))
    except OfferError:
        return
    session, sections = split(answer(offer, NEAR))
    assert [section.kind for section in sections] == [section.kind for section in offer.media]
    assert [bool(section.port) for section in sections] == [
        place in {each.place for each in offer.tracks} for place in range(len(sections))
    ]
    assert sum(section.has("candidate") for section in sections) == 1
    kinds = [each.kind for each in offer.tracks]
    assert len(kinds) == len(set(kinds)) > 0
    types = [
        n for each in offer.tracks for n in (each.codec.payload_type, each.rtx) if n is not None
    ]
    assert len(types) == len(set(types))
    assert all(number < 64 or 96 <= number < 128 for number in types)
    if len(offer.tracks) > 1:
        mids = [each.mid for each in offer.tracks]
        assert sorted((session.value("group") or "").split()[1:]) == sorted(mids)
    numbers = {each.id for track in offer.tracks for each in track.extensions.values()}
    assert len(numbers) <= 1
    assert all(1 <= number <= 14 for number in numbers)
    assert all(0 < ssrc < 2**32 for each in offer.tracks for ssrc in each.ssrcs)
