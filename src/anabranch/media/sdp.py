"""Session descriptions (RFC 8866): a viewer's offer, understood, and what all offers share.

The answers themselves are made in :mod:`anabranch.media.sdp_answer` and, for a Janus that makes
offers of its own, in :mod:`anabranch.media.janus_sdp`. Publishers' offers and answers are in
:mod:`anabranch.media.publish_answer`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from anabranch.media.leaf import OfferError

MAX_SDP = 64 * 1024
_MAX_SECTIONS = 32
_REQUIRED = {
    # RFC 8839 sections 5.4 and 4.1.1, RFC 8122 section 5
    "ice-ufrag": re.compile(r"[A-Za-z0-9+/]{4,256}"),
    "ice-pwd": re.compile(r"[A-Za-z0-9+/]{22,256}"),
    "fingerprint": re.compile(
        r"sha-(?:1|224|256|384|512) (?:[0-9A-Fa-f]{2}:){19,63}[0-9A-Fa-f]{2}"
    ),
}
# Over DTLS-SRTP; the two short ones are what older stacks call it (RFC 5764 section 8).
_PROTOCOLS = ("UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "RTP/SAVPF", "RTP/SAVP")
_DIRECTIONS = ("sendrecv", "recvonly", "sendonly", "inactive")


@dataclass(frozen=True, slots=True)
class Section:
    """The lines of the session part (``kind`` is ``""``) or of one ``m=`` section."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    lines: tuple[str, ...]

    def values(self, name: str) -> Iterator[str]:
        """Yield the value of every ``a=name`` or ``a=name:value`` line, ``""`` for a flag."""
        for line in self.lines:
            key, _, value = line.partition(":")
            if key == f"a={name}":
                yield value

    def value(self, name: str) -> str | None:
        return next(self.values(name), None)

    def has(self, name: str) -> bool:
        return self.value(name) is not None


@dataclass(frozen=True, slots=True)
class Codec:
    """A payload type of an offer: ``parameters`` is the text of its ``a=fmtp``."""

    payload_type: int
    name: str
    parameters: str


@dataclass(frozen=True, slots=True)
class FarEnd:
    """What the one who offers says of its transport: ICE's words and its certificate's hash."""

    ufrag: str
    pwd: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A viewer's offer, understood."""

    session: Section
    media: tuple[Section, ...]
    video: int
    audio: int | None
    video_codec: Codec
    audio_codec: Codec | None
    ice_ufrag: str
    ice_pwd: str
    fingerprint: str

    @property
    def accepted(self) -> tuple[int, ...]:
        """The places of the sections that get media, in the offer's order."""
        return (self.video,) if self.audio is None else tuple(sorted((self.video, self.audio)))


def split(text: str) -> tuple[Section, tuple[Section, ...]]:
    """Cut a description into its session part and media sections.

    Raises:
        OfferError: it is too long, is not SDP, or has too many sections.
    """
    if len(text) > MAX_SDP:
        raise OfferError(f"the SDP is longer than {MAX_SDP} bytes")
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line]
    if not lines or lines[0] != "v=0":
        raise OfferError("the body is not SDP: it does not begin with v=0")
    blocks: list[list[str]] = [[]]
    for number, line in enumerate(lines, 1):
        if len(line) < 2 or line[1] != "=" or not line[0].isalpha() or not line.isprintable():
            raise OfferError(f"line {number} of the SDP is malformed")
        if line.startswith("m="):
            blocks.append([])
        blocks[-1].append(line)
    if len(blocks) > _MAX_SECTIONS:
        raise OfferError(f"the SDP has more than {_MAX_SECTIONS} media sections")
    session, *media = blocks
    return Section("", 0, "", (), tuple(session)), tuple(_media_section(block) for block in media)


def _media_section(lines: list[str]) -> Section:
    words = lines[0][2:].split()
    port = words[1].partition("/")[0] if len(words) >= 4 else ""
    if not re.fullmatch("[0-9]{1,5}", port):
        raise OfferError(f"the SDP's line {lines[0][:40]!r} is malformed")
    return Section(words[0], int(port), words[2], tuple(words[3:]), tuple(lines))


def parse_offer(text: str) -> Offer:
    """Understand a viewer's offer: it must receive H.264 and may receive Opus.

    Raises:
        OfferError: it is malformed or no such offer; the message says what is wrong.
    """
    session, media = split(text)
    check_mids(media)
    video = _receiver(session, media, "video")
    if video is None:
        raise OfferError("the offer has no m=video section that receives")
    audio = _receiver(session, media, "audio")
    video_codec = _pick_h264(media[video])
    audio_codec = pick_opus(media[audio]) if audio is not None else None
    if audio_codec is None:
        audio = None
    elif audio_codec.payload_type == video_codec.payload_type:
        raise OfferError(
            f"the offer has payload type {video_codec.payload_type} for both picture and sound"
        )
    far_end = far_end_of(session, [media[index] for index in (video, audio) if index is not None])
    return Offer(
        session=session,
        media=media,
        video=video,
        audio=audio,
        video_codec=video_codec,
        audio_codec=audio_codec,
        ice_ufrag=far_end.ufrag,
        ice_pwd=far_end.pwd,
        fingerprint=far_end.fingerprint,
    )


def check_mids(media: Iterable[Section]) -> None:
    """See that every section has an ``a=mid`` of its own, if any. Raises OfferError."""
    mids = [mid for section in media if (mid := section.value("mid"))]
    if len(mids) > len(set(mids)):
        raise OfferError("two sections of the offer have the same a=mid")


def far_end_of(session: Section, chosen: Sequence[Section]) -> FarEnd:
    """Return the one transport that the sections which get media share.

    Raises:
        OfferError: they are not bundled, or it is not DTLS-SRTP over ICE with its sender as client.
    """
    if len(chosen) > 1 and not _bundled(session, *chosen):
        raise OfferError("the offer must bundle its sections (a=group:BUNDLE, RFC 9143)")
    for section in chosen:
        _check_transport(session, section)

    def required(name: str) -> str:
        # A bundle-only section leaves the transport to the one that it is bundled with.
        found = (section.value(name) for section in (*chosen, session))
        value = next(filter(None, found), None)
        if not value:
            raise OfferError(f"the offer has no a={name}")
        if not _REQUIRED[name].fullmatch(value):
            raise OfferError(f"the offer's a={name} is malformed")
        return value

    return FarEnd(required("ice-ufrag"), required("ice-pwd"), required("fingerprint"))


def _receiver(session: Section, media: tuple[Section, ...], kind: str) -> int | None:
    for index, section in enumerate(media):
        if section.kind == kind and is_offered(section) and goes(session, section, "recvonly"):
            return index
    return None


def is_offered(section: Section) -> bool:
    """Return whether a section is there to be accepted."""
    # Port 0 is a section that is not offered (RFC 3264 section 5.1), or bundled with another.
    return section.port != 0 or section.has("bundle-only")


def goes(session: Section, section: Section, way: Literal["sendonly", "recvonly"]) -> bool:
    """Return whether who offers a section would send, or receive, there."""
    # A section without a direction has the session's (RFC 8866 section 6.7), else goes both ways.
    part = section if any(map(section.has, _DIRECTIONS)) else session
    other = "recvonly" if way == "sendonly" else "sendonly"
    return not (part.has(other) or part.has("inactive"))


def _check_transport(session: Section, section: Section) -> None:
    if section.protocol not in _PROTOCOLS:
        raise OfferError(
            f"the offer's m={section.kind} has the protocol {section.protocol[:40]!r},"
            f" not {_PROTOCOLS[0]}"
        )
    setup = section.value("setup") or session.value("setup") or "active"
    if setup not in {"actpass", "active"}:
        raise OfferError(
            f"the offer has a=setup:{setup[:40]}: its sender must be able to be the DTLS client"
            " (a=setup:actpass)"
        )


def _bundled(session: Section, *sections: Section) -> bool:
    groups = [set(value.split()[1:]) for value in session.values("group") if value[:6] == "BUNDLE"]
    mids = {section.value("mid") or "" for section in sections}
    return any(mids <= group for group in groups)


def codecs_of(section: Section) -> Iterator[Codec]:
    """Yield the payload types of a section that can be used, in its order."""
    parameters = dict(value.partition(" ")[::2] for value in section.values("fmtp"))
    names = dict(value.partition(" ")[::2] for value in section.values("rtpmap"))
    for format_ in section.formats:
        number = int(format_) if re.fullmatch("[0-9]{1,3}", format_) else 128
        # 64 to 95 would be taken for RTCP, which comes to the same port (RFC 5761 section 4).
        if format_ in names and (number < 64 or 96 <= number < 128):
            yield Codec(number, names[format_].lower(), parameters.get(format_, ""))


def _pick_h264(section: Section) -> Codec:
    """Choose constrained baseline if it is offered, else any H.264 in packetization mode 1."""
    candidates = [
        codec
        for codec in codecs_of(section)
        if codec.name == "h264/90000" and "packetization-mode=1" in codec.parameters
    ]
    if not candidates:
        offered = ", ".join(sorted({codec.name.split("/")[0] for codec in codecs_of(section)}))
        raise OfferError(
            "the offer has no H.264 with packetization-mode=1, the only video of this site"
            f" (it has {offered[:120] or 'none'})"
        )
    ranked = ("profile-level-id=42e0", "profile-level-id=4200", "")
    return min(candidates, key=lambda c: next(i for i, p in enumerate(ranked) if p in c.parameters))


def pick_opus(section: Section) -> Codec | None:
    """Return a section's first Opus."""
    # It always has two channels (RFC 7587 section 7); GStreamer leaves their number out.
    names = ("opus/48000/2", "opus/48000")
    return next((codec for codec in codecs_of(section) if codec.name in names), None)


def transport_lines(ufrag: str, pwd: str, fingerprint: str) -> list[str]:
    """Return what an answer says of its transport in every section, bundled or not.

    Some stacks look for it there. GStreamer's takes no answer in which a section, be it a refused
    one, has none.
    """
    return [
        f"a=ice-ufrag:{ufrag}",
        f"a=ice-pwd:{pwd}",
        f"a=fingerprint:{fingerprint}",
        "a=setup:passive",
    ]


def rejected(section: Section) -> list[str]:
    """Return the lines of an answer that refuse a section (RFC 3264 section 6)."""
    mid = section.value("mid")
    return [
        f"m={section.kind} 0 {section.protocol} {' '.join(section.formats)}",
        "c=IN IP4 0.0.0.0",
        "a=inactive",
        *([f"a=mid:{mid}"] if mid else []),
    ]


def offered_feedback(section: Section, codec: Codec) -> frozenset[str]:
    """Return the RTCP feedback that a section offers for a codec, ``nack pli`` for example."""
    of = {"*", str(codec.payload_type)}
    entries = (value.partition(" ") for value in section.values("rtcp-fb"))
    return frozenset(kind for whose, _, kind in entries if whose in of)


def codec_lines(codec: Codec, feedback: Iterable[str]) -> list[str]:
    """Return what an answer says of a codec; ``feedback`` is left out for sound."""
    number = codec.payload_type
    if codec.name.startswith("opus"):
        return [
            f"a=rtpmap:{number} opus/48000/2",
            f"a=fmtp:{number} minptime=10;useinbandfec=1",
        ]
    name, _, clock = codec.name.partition("/")
    return [
        f"a=rtpmap:{number} {name.upper()}/{clock}",
        *([f"a=fmtp:{number} {codec.parameters}"] if codec.parameters else []),
        *(f"a=rtcp-fb:{number} {kind}" for kind in feedback),
    ]
