"""Our own answers, to offers as WebRTC stacks write them, and to damaged ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.media.damage import damaged
from tests.media.offers import CHROMIUM_WHOLE, FIREFOX, GSTREAMER, PION, SAFARI, STACKS

from anabranch.media.answer_parts import Candidate
from anabranch.media.leaf import OfferError
from anabranch.media.sdp import Section, parse_offer, split
from anabranch.media.sdp_answer import Agreement, ServerEnd, agree, answer

CANDIDATES = [Candidate("203.0.113.7", 20000), Candidate("10.97.0.2", 20000)]


def end(agreement: Agreement, candidates: list[Candidate] = CANDIDATES) -> ServerEnd:
    """The server's end, as the leaf server would tell it for what was agreed on."""
    return ServerEnd(
        session_id=4711,
        ufrag="ourfrag1",
        pwd="ourpassword0123456789ab",
        fingerprint="sha-256 AB:CD",
        candidates=candidates,
        cname="us",
        video_ssrc=1001,
        rtx_ssrc=1002 if agreement.video.rtx is not None else None,
        audio_ssrc=1003 if agreement.audio is not None else None,
    )


def answered(text: str) -> tuple[Section, dict[str, Section]]:
    offer = parse_offer(text)
    agreement = agree(offer)
    session, sections = split(answer(offer, agreement, end(agreement)))
    return session, {section.kind: section for section in sections}


@pytest.mark.parametrize(("text", "video", "audio"), STACKS.values(), ids=STACKS.keys())
def test_every_stack_gets_an_answer_in_its_own_numbers(text: str, video: int, audio: int) -> None:
    offer = parse_offer(text)
    session, sections = answered(text)
    assert session.has("ice-lite")
    assert list(sections) == [section.kind for section in offer.media]
    assert sections["video"].formats[0] == str(video)
    assert sections["audio"].formats == (str(audio),)
    mids = [section.value("mid") for section in offer.media]
    assert session.value("group") == f"BUNDLE {' '.join(mids)}"
    assert [section.value("mid") for section in sections.values()] == mids
    for section in sections.values():
        assert (section.port, section.protocol) == (20000, "UDP/TLS/RTP/SAVPF")
        assert section.lines[1] == "c=IN IP4 203.0.113.7"
        assert section.has("sendonly")
        assert section.has("rtcp-mux")
        assert section.value("setup") == "passive"
        assert section.value("ice-ufrag") == "ourfrag1"
        assert section.value("ice-pwd") == "ourpassword0123456789ab"
        assert section.value("fingerprint") == "sha-256 AB:CD"
    assert list(sections["audio"].values("ssrc")) == ["1003 cname:us"]


def test_candidates_are_in_the_first_bundled_section_alone() -> None:
    for text, first in ((CHROMIUM_WHOLE, "video"), (SAFARI, "audio")):
        _, sections = answered(text)
        for kind, section in sections.items():
            assert list(section.values("candidate")) == (
                [
                    "1 1 udp 2130706431 203.0.113.7 20000 typ host",
                    "2 1 udp 2130706175 10.97.0.2 20000 typ host",
                ]
                if kind == first
                else []
            )
            assert section.has("end-of-candidates") == (kind == first)


def test_a_candidate_may_be_of_ipv6() -> None:
    offer = parse_offer(CHROMIUM_WHOLE)
    agreement = agree(offer)
    _, (video, _) = split(answer(offer, agreement, end(agreement, [Candidate("2001:db8::1", 7)])))
    assert video.lines[1] == "c=IN IP6 2001:db8::1"
    assert video.value("candidate") == "1 1 udp 2130706431 2001:db8::1 7 typ host"


def test_what_chromium_offers_is_used() -> None:
    _, sections = answered(CHROMIUM_WHOLE)
    video, audio = sections["video"], sections["audio"]
    assert video.formats == ("106", "107")
    assert list(video.values("rtpmap")) == ["106 H264/90000", "107 rtx/90000"]
    assert "107 apt=106" in list(video.values("fmtp"))
    assert list(video.values("rtcp-fb")) == [
        "106 nack", "106 nack pli", "106 ccm fir", "106 goog-remb"
    ]  # fmt: skip
    assert sorted(video.values("extmap")) == [
        "2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
        "5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
        "9 urn:ietf:params:rtp-hdrext:sdes:mid",
    ]
    assert list(audio.values("extmap")) == ["9 urn:ietf:params:rtp-hdrext:sdes:mid"]
    assert list(video.values("ssrc-group")) == ["FID 1001 1002"]
    assert list(video.values("ssrc")) == ["1001 cname:us", "1002 cname:us"]
    assert video.has("rtcp-rsize")
    assert video.value("msid") == "anabranch video"
    assert not audio.has("rtcp-fb")


def test_a_refused_section_has_a_transport_all_the_same() -> None:
    _, sections = answered(GSTREAMER.replace("OPUS/48000/2", "PCMU/8000"))
    assert [section.port for section in sections.values()] == [20000, 0]
    assert sections["audio"].has("inactive")
    for name in ("ice-ufrag", "ice-pwd", "fingerprint", "setup"):  # GStreamer asks for them
        assert sections["audio"].value(name) == sections["video"].value(name) is not None


def test_gstreamers_opus_has_no_number_of_channels() -> None:
    _, sections = answered(GSTREAMER.replace("OPUS/48000/2", "OPUS/48000"))
    assert list(sections["audio"].values("rtpmap")) == ["97 opus/48000/2"]


def test_a_direction_of_an_extension_is_answered_by_its_mirror() -> None:
    _, sections = answered(FIREFOX.replace("extmap:4 ", "extmap:4/recvonly "))
    found = list(sections["video"].values("extmap"))
    assert f"4/sendonly {ABS_SEND_TIME}" in found
    assert "3 urn:ietf:params:rtp-hdrext:sdes:mid" in found


def test_without_rtx_a_retransmission_must_be_the_same_packet() -> None:
    """Two packets under one index, and not the same: AES-GCM would give its key away."""
    for text in (
        GSTREAMER.replace("a=mid:video0", "a=mid:video0\na=extmap:3 " + ABS_SEND_TIME),
        CHROMIUM_WHOLE.replace("apt=106", "apt=96"),
        CHROMIUM_WHOLE.replace("a=rtcp-fb:106 nack\n", ""),  # nobody would ask for RTX
    ):
        agreement = agree(parse_offer(text))
        assert agreement.video.rtx is None
        assert set(agreement.video.extensions) <= {"mid"}
        _, sections = answered(text)
        assert not sections["video"].has("ssrc-group")
    with_rtx = agree(
        parse_offer(PION.replace(MID_LINE, MID_LINE + f"a=extmap:3 {ABS_SEND_TIME}\n"))
    )
    assert with_rtx.video.rtx == 107
    assert "abs-send-time" not in with_rtx.video.extensions  # nothing would be told from it


ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
MID_LINE = "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\n"


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("extmap:9 urn", "extmap:15 urn", {"abs-send-time", "playout-delay"}),
        ("extmap:9 urn", "extmap:0 urn", {"abs-send-time", "playout-delay"}),
        ("extmap:9 urn", "extmap:5 urn", {"abs-send-time", "playout-delay"}),  # 5 is taken
        ("extmap:9 urn", "extmap:99999999 urn", {"abs-send-time", "playout-delay"}),
        ("extmap:9 urn", "extmap:9/sendonly urn", {"abs-send-time", "playout-delay"}),
        ("a=mid:0\n", "", {"abs-send-time", "playout-delay"}),
        ("extmap:2 ", "extmap:2/inactive ", {"mid", "playout-delay"}),
        ("extmap:5 ", "extmap:5/sendonly ", {"abs-send-time", "mid"}),
    ],
)
def test_extensions_that_cannot_be_sent_are_left_out(old: str, new: str, names: set[str]) -> None:
    text = CHROMIUM_WHOLE[: CHROMIUM_WHOLE.index("m=audio")].replace(old, new)
    assert set(agree(parse_offer(text)).video.extensions) == names


def test_a_mid_that_is_too_long_for_an_extension_is_not_sent() -> None:
    name = "m" * 17
    text = CHROMIUM_WHOLE.replace("a=mid:0", f"a=mid:{name}").replace("BUNDLE 0", f"BUNDLE {name}")
    assert "mid" not in agree(parse_offer(text)).video.extensions
    session, sections = answered(text)
    assert session.value("group") == f"BUNDLE {name} 1"
    assert sections["video"].value("mid") == name


def test_a_number_means_one_thing_in_all_sections() -> None:
    """The sound's mid would be read as the time at which a picture was sent."""
    head, _, tail = CHROMIUM_WHOLE.partition("m=audio")
    tail = tail.replace(f"a=extmap:2 {ABS_SEND_TIME}\n", "").replace("extmap:9", "extmap:2")
    agreement = agree(parse_offer(head + "m=audio" + tail))
    assert agreement.audio is not None
    assert agreement.audio.extensions == {}


def test_what_is_not_taken_is_refused_in_its_place() -> None:
    extra = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\nc=IN IP4 0.0.0.0\na=mid:2\n"
    session, sections = answered(CHROMIUM_WHOLE.replace("BUNDLE 0 1", "BUNDLE 0 1 2") + extra)
    assert session.value("group") == "BUNDLE 0 1"
    assert sections["application"].port == 0
    assert not sections["application"].has("candidate")
    silent = CHROMIUM_WHOLE.replace("opus", "speex")
    assert agree(parse_offer(silent)).audio is None
    session, sections = answered(silent)
    assert session.value("group") == "BUNDLE 0"
    assert sections["audio"].port == 0


def test_one_section_without_a_mid_is_answered() -> None:
    alone = CHROMIUM_WHOLE[: CHROMIUM_WHOLE.index("m=audio")]
    text = alone.replace("a=mid:0\n", "").replace("a=group:BUNDLE 0 1\n", "")
    session, sections = answered(text)
    assert not session.has("group")
    assert not sections["video"].has("mid")
    assert sections["video"].has("candidate")


def test_rtp_and_rtcp_must_share_a_port() -> None:
    with pytest.raises(OfferError, match="rtcp-mux"):
        agree(parse_offer(CHROMIUM_WHOLE.replace("a=rtcp-mux\n", "")))


@given(st.data(), st.sampled_from([text for text, _, _ in STACKS.values()]))
def test_a_damaged_offer_is_answered_or_refused(data: st.DataObject, text: str) -> None:
    try:
        offer = parse_offer(damaged(data, text))
        agreement = agree(offer)
    except OfferError:
        return
    made = answer(offer, agreement, end(agreement))
    _, sections = split(made)
    assert [section.kind for section in sections] == [section.kind for section in offer.media]
    video = agreement.video
    types = [video.codec.payload_type, video.rtx]
    if agreement.audio is not None:
        types.append(agreement.audio.codec.payload_type)
    assert len(types) == len(set(types))
    for medium in filter(None, (agreement.video, agreement.audio)):
        numbers = [extension.id for extension in medium.extensions.values()]
        assert len(numbers) == len(set(numbers))
        assert all(1 <= number <= 14 for number in numbers)
    assert set(video.extensions) <= {"mid"} or video.rtx is not None
