"""Our own answer to a viewer's offer, for the leaf server of our own.

What all answers share is in :mod:`anabranch.media.answer_parts`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from anabranch.media.answer_parts import (
    MID,
    MID_URI,
    Extension,
    NearEnd,
    bundle_of,
    candidate_lines,
    extensions_of,
    head_lines,
    refused_lines,
    rtx_lines,
    rtx_of,
    section_lines,
)
from anabranch.media.leaf import OfferError
from anabranch.media.sdp import Codec, Offer, Section, codec_lines, offered_feedback

ABS_SEND_TIME = "abs-send-time"
PLAYOUT_DELAY = "playout-delay"
_URIS = {
    ABS_SEND_TIME: "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    PLAYOUT_DELAY: "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
    MID: MID_URI,
}
_NAMES = {uri: name for name, uri in _URIS.items()}
_FEEDBACK = ("nack", "nack pli", "ccm fir", "goog-remb")
_STREAM = "anabranch"


@dataclass(frozen=True, slots=True)
class Medium:
    """What is sent in one section.

    Attributes:
        rtx: payload type of retransmissions (RFC 4588); None: they are sent as they were.
        mid: empty if the offer has none.
        feedback: what the viewer may ask by RTCP (RFC 4585).
        extensions: header extensions by their short names.
        reduced_size: RTCP packets need not be compound (RFC 5506).
    """

    codec: Codec
    rtx: int | None = None
    mid: str = ""
    feedback: tuple[str, ...] = ()
    extensions: Mapping[str, Extension] = field(default_factory=dict)
    reduced_size: bool = False


@dataclass(frozen=True, slots=True)
class Agreement:
    """What an offer and this server have in common."""

    video: Medium
    audio: Medium | None


@dataclass(frozen=True, slots=True)
class ServerEnd(NearEnd):
    """The server's end of a viewer's connection; ``cname`` is what RTCP calls the sender."""

    cname: str
    video_ssrc: int
    rtx_ssrc: int | None = None
    audio_ssrc: int | None = None


def agree(offer: Offer) -> Agreement:
    """Return what can be sent to a viewer.

    Raises:
        OfferError: its RTP and RTCP are to have ports of their own.
    """
    sections = [offer.media[index] for index in offer.accepted]
    if not any(section.has("rtcp-mux") for section in sections):
        raise OfferError("the offer must have RTP and RTCP on one port (a=rtcp-mux)")
    section = offer.media[offer.video]
    offered = offered_feedback(section, offer.video_codec)
    codecs = (offer.video_codec, offer.audio_codec)
    taken = {codec.payload_type for codec in codecs if codec is not None}
    rtx = rtx_of(section, offer.video_codec, taken) if "nack" in offered else None
    feedback = tuple(kind for kind in _FEEDBACK if kind in offered)
    extensions = _extensions(section)
    if rtx is None or "goog-remb" not in offered:
        # Without a stream of its own a retransmission must be the very packet, which a later time
        # of sending would change: and AES-GCM must not see two texts under one index (RFC 7714).
        extensions.pop(ABS_SEND_TIME, None)
    if rtx is None:
        extensions.pop(PLAYOUT_DELAY, None)
    video = Medium(
        offer.video_codec,
        rtx,
        section.value("mid") or "",
        feedback,
        extensions,
        section.has("rtcp-rsize"),
    )
    return Agreement(video, _agree_on_sound(offer, video))


def _agree_on_sound(offer: Offer, video: Medium) -> Medium | None:
    if offer.audio is None or offer.audio_codec is None:
        return None
    section = offer.media[offer.audio]
    mid = _extensions(section).get(MID)
    # One number means one thing in all bundled sections (RFC 9143 section 10).
    others = {each.id for name, each in video.extensions.items() if name != MID}
    extensions = {MID: mid} if mid is not None and mid.id not in others else {}
    return Medium(
        offer.audio_codec,
        mid=section.value("mid") or "",
        extensions=extensions,
        reduced_size=section.has("rtcp-rsize"),
    )


def _extensions(section: Section) -> dict[str, Extension]:
    return extensions_of(section, _NAMES, "recvonly")


def answer(offer: Offer, agreement: Agreement, server: ServerEnd) -> str:
    """Return the answer to the viewer, section by section."""
    mids = bundle_of(
        offer.session, [offer.media[index].value("mid") or "" for index in offer.accepted]
    )
    lines = [*head_lines(server, mids), f"a=msid-semantic: WMS {_STREAM}"]
    for index, section in enumerate(offer.media):
        medium = agreement.video if index == offer.video else agreement.audio
        if index not in offer.accepted or medium is None:
            lines += refused_lines(section, server)
            continue
        lines += _section_lines(section, medium, server)
        if not mids or medium.mid == mids[0]:  # the others share its transport
            lines += candidate_lines(server.candidates)
    return "\r\n".join(lines) + "\r\n"


def _section_lines(section: Section, medium: Medium, server: ServerEnd) -> list[str]:
    types = [medium.codec.payload_type, *([medium.rtx] if medium.rtx is not None else [])]
    return [
        *section_lines(section, types, server, medium.mid),
        *(
            f"a=extmap:{extension.id}{'/sendonly' if extension.directed else ''} {_URIS[name]}"
            for name, extension in medium.extensions.items()
        ),
        "a=sendonly",
        f"a=msid:{_STREAM} {section.kind}",
        "a=rtcp-mux",
        *(["a=rtcp-rsize"] if medium.reduced_size else []),
        *codec_lines(medium.codec, medium.feedback),
        *rtx_lines(medium.rtx, medium.codec),
        *_source_lines(section.kind, medium, server),
    ]


def _source_lines(kind: str, medium: Medium, server: ServerEnd) -> list[str]:
    """Return who sends what (RFC 5576)."""
    ssrc = server.video_ssrc if kind == "video" else server.audio_ssrc
    sources = [ssrc] if ssrc is not None else []
    lines = []
    if medium.rtx is not None and server.rtx_ssrc is not None:
        sources.append(server.rtx_ssrc)
        lines.append(f"a=ssrc-group:FID {ssrc} {server.rtx_ssrc}")
    return lines + [f"a=ssrc:{source} cname:{server.cname}" for source in sources]
