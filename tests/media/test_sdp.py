"""Offers as browsers and other stacks write them; and any text."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.media.offers import CHROMIUM, STACKS

from anabranch.media.leaf import OfferError
from anabranch.media.sdp import MAX_SDP, parse_offer


@pytest.mark.parametrize(("text", "video", "audio"), STACKS.values(), ids=STACKS.keys())
def test_every_stack_is_understood(text: str, video: int, audio: int) -> None:
    offer = parse_offer(text)
    assert offer.video_codec.payload_type == video
    assert offer.audio_codec is not None
    assert offer.audio_codec.payload_type == audio
    assert set(offer.accepted) == {offer.video, offer.audio}


def test_a_direction_of_the_session_holds_for_sections_without_one() -> None:
    silent = CHROMIUM.replace("a=recvonly\n", "")
    assert parse_offer(silent).audio == 1  # nothing at all means both ways
    for direction in ("sendonly", "inactive"):
        with pytest.raises(OfferError, match="receives"):
            parse_offer(silent.replace("t=0 0\n", f"t=0 0\na={direction}\n"))
        own = CHROMIUM.replace("t=0 0\n", f"t=0 0\na={direction}\n")
        assert parse_offer(own).audio == 1


def test_a_viewer_may_be_the_dtls_client_by_a_line_of_the_session() -> None:
    without = CHROMIUM.replace("a=setup:actpass\n", "")
    assert parse_offer(without).video == 0
    for setup in ("actpass", "active"):
        assert parse_offer(without.replace("t=0 0\n", f"t=0 0\na=setup:{setup}\n")).video == 0
    with pytest.raises(OfferError, match="DTLS client"):
        parse_offer(without.replace("t=0 0\n", "t=0 0\na=setup:passive\n"))


def test_payload_types_that_look_like_rtcp_are_not_chosen() -> None:
    for number, chosen in (("63", 63), ("64", 103), ("95", 103), ("35", 35), ("128", 103)):
        text = CHROMIUM.replace("111 63", "111").replace("a=rtpmap:63 red/48000/2\n", "")
        assert parse_offer(text.replace("109", number)).video_codec.payload_type == chosen


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "v=0"),
        ("{}", "v=0"),
        (CHROMIUM.replace("packetization-mode=1", "packetization-mode=0"), "packetization-mode"),
        (CHROMIUM.replace("H264", "AV1"), "vp8"),
        (CHROMIUM.replace("recvonly", "sendonly"), "receives"),
        (CHROMIUM.replace("a=group:BUNDLE 0 1\n", ""), "bundle"),
        (CHROMIUM.replace("ice-pwd:", "ice-pwd:%"), "malformed"),
        (CHROMIUM + "a=x\x00y\n", "malformed"),
        (CHROMIUM + "a=y\n" * MAX_SDP, "longer"),
        ("v=0\n" + "m=video 9 X 96\n" * 40, "sections"),
        ("v=0\nm=video x RTP/SAVPF 96\n", "malformed"),
        (CHROMIUM.replace("m=video 9", "m=video 0"), "receives"),
        (CHROMIUM.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), "'RTP/AVP', not UDP/TLS/RTP/SAVPF"),
        (CHROMIUM.replace("setup:actpass", "setup:passive"), "DTLS client"),
        (CHROMIUM.replace("a=mid:1", "a=mid:0"), "same a=mid"),
        (CHROMIUM.replace("111", "109"), "payload type 109 for both"),
    ],
)
def test_what_cannot_be_answered_says_why(text: str, word: str) -> None:
    with pytest.raises(OfferError, match=word):
        parse_offer(text)


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_an_offer_or_an_offer_error(text: str) -> None:
    for candidate in (text, "v=0\n" + text):
        with suppress(OfferError):
            parse_offer(candidate)
