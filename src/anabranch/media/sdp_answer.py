"""Our own answer to a viewer's offer (RFC 8829 section 5.3.1), for the leaf server of our own.

The server is ICE-lite (RFC 8445) and the DTLS server (RFC 8842). All goes over one transport:
sections are bundled (RFC 9143), RTP and RTCP multiplexed (RFC 5761). Nothing is answered that the
offer does not have.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from anabranch.media.leaf import OfferError
from anabranch.media.sdp import (
    Codec,
    Offer,
    Section,
    codec_lines,
    codecs_of,
    offered_feedback,
    rejected,
    transport_lines,
)

ABS_SEND_TIME = "abs-send-time"
MID = "mid"
_URIS = {
    ABS_SEND_TIME: "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    MID: "urn:ietf:params:rtp-hdrext:sdes:mid",
}
_NAMES = {uri: name for name, uri in _URIS.items()}
_EXTMAP = re.compile(r"([0-9]{1,5})(/(?:sendrecv|recvonly))? (\S+)")
_APT = re.compile(r"(?:^|;)\s*apt=([0-9]{1,3})\s*(?:;|$)")
_FEEDBACK = ("nack", "nack pli", "ccm fir", "goog-remb")
_MAX_MID = 16
"""Bytes of a header extension in the one-byte form, the only one that is sent (RFC 8285)."""
_STREAM = "anabranch"


@dataclass(frozen=True, slots=True)
class Extension:
    """A header extension: its number, and whether the offer gave it a direction."""

    id: int
    directed: bool = False


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
class Candidate:
    """An address and UDP port at which the viewer may reach the server."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class ServerEnd:
    """The server's end of a connection.

    Attributes:
        session_id: of the description, 62 random bits (RFC 8829 section 5.2.1).
        fingerprint: with the name of its hash.
        candidates: the best one first, at least one.
        cname: what RTCP calls the sender (RFC 7022).
    """

    session_id: int
    ufrag: str
    pwd: str
    fingerprint: str
    candidates: Sequence[Candidate]
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
    rtx = _rtx_of(offer) if "nack" in offered else None
    feedback = tuple(kind for kind in _FEEDBACK if kind in offered)
    extensions = _extensions(section)
    if rtx is None or "goog-remb" not in offered:
        # Without a stream of its own a retransmission must be the very packet, which a later time
        # of sending would change: and AES-GCM must not see two texts under one index (RFC 7714).
        extensions.pop(ABS_SEND_TIME, None)
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


def _rtx_of(offer: Offer) -> int | None:
    taken = {codec.payload_type for codec in (offer.video_codec, offer.audio_codec) if codec}
    for codec in codecs_of(offer.media[offer.video]):
        apt = _APT.search(codec.parameters) if codec.name == "rtx/90000" else None
        if (
            apt is not None
            and int(apt[1]) == offer.video_codec.payload_type
            and codec.payload_type not in taken
        ):
            return codec.payload_type
    return None


def _extensions(section: Section) -> dict[str, Extension]:
    """Return the header extensions of a section that we know and the viewer would receive."""
    found: dict[str, Extension] = {}
    taken: set[int] = set()
    for value in section.values("extmap"):
        match = _EXTMAP.match(value)
        if match is None or (number := int(match[1])) in taken:
            continue
        taken.add(number)
        name = _NAMES.get(match[3])
        if name is None or name in found or not 1 <= number <= 14:
            continue
        if name == MID and not 1 <= len((section.value("mid") or "").encode()) <= _MAX_MID:
            continue
        found[name] = Extension(number, match[2] is not None)
    return found


def answer(offer: Offer, agreement: Agreement, server: ServerEnd) -> str:
    """Return the answer to the viewer, section by section."""
    mids = _bundle(offer)
    lines = [
        "v=0",
        f"o=- {server.session_id} 1 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        *(["a=group:BUNDLE " + " ".join(mids)] if mids else []),
        f"a=msid-semantic: WMS {_STREAM}",
        "a=ice-lite",
        "a=ice-options:ice2",
    ]
    for index, section in enumerate(offer.media):
        medium = agreement.video if index == offer.video else agreement.audio
        if index not in offer.accepted or medium is None:
            lines += [*rejected(section), *_transport(server)]
            continue
        lines += _section_lines(section, medium, server)
        if not mids or medium.mid == mids[0]:  # the others share its transport
            lines += _candidate_lines(server.candidates)
    return "\r\n".join(lines) + "\r\n"


def _bundle(offer: Offer) -> list[str]:
    """Return the mids of what is accepted, in the order of the offer's group."""
    accepted = {offer.media[index].value("mid") or "" for index in offer.accepted} - {""}
    for value in offer.session.values("group"):
        semantics, *mids = value.split()
        if semantics == "BUNDLE" and accepted <= set(mids):
            return [mid for mid in dict.fromkeys(mids) if mid in accepted]
    return []


def _section_lines(section: Section, medium: Medium, server: ServerEnd) -> list[str]:
    default = server.candidates[0]
    types = [medium.codec.payload_type, *([medium.rtx] if medium.rtx is not None else [])]
    return [
        f"m={section.kind} {default.port} {section.protocol} {' '.join(map(str, types))}",
        f"c=IN IP{ip_address(default.address).version} {default.address}",
        *_transport(server),
        *([f"a=mid:{medium.mid}"] if medium.mid else []),
        *(
            f"a=extmap:{extension.id}{'/sendonly' if extension.directed else ''} {_URIS[name]}"
            for name, extension in medium.extensions.items()
        ),
        "a=sendonly",
        f"a=msid:{_STREAM} {section.kind}",
        "a=rtcp-mux",
        *(["a=rtcp-rsize"] if medium.reduced_size else []),
        *codec_lines(medium.codec, medium.feedback),
        *_rtx_lines(medium),
        *_source_lines(section.kind, medium, server),
    ]


def _transport(server: ServerEnd) -> list[str]:
    return transport_lines(server.ufrag, server.pwd, server.fingerprint)


def _rtx_lines(medium: Medium) -> list[str]:
    if medium.rtx is None:
        return []
    return [
        f"a=rtpmap:{medium.rtx} rtx/90000",
        f"a=fmtp:{medium.rtx} apt={medium.codec.payload_type}",
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


def _candidate_lines(candidates: Sequence[Candidate]) -> list[str]:
    """Return host candidates, the only ones of an ICE-lite end, and that no more will come.

    Each has a foundation of its own and the priority of its place (RFC 8445 sections 5.1.1.3 and
    5.1.2.1).
    """
    lines = []
    for place, candidate in enumerate(candidates):
        priority = 126 << 24 | (0xFFFF - place) << 8 | 0xFF
        at = f"{candidate.address} {candidate.port}"
        lines.append(f"a=candidate:{place + 1} 1 udp {priority} {at} typ host")
    return [*lines, "a=end-of-candidates"]
