"""Session descriptions: just enough of RFC 8866 to answer a viewer for a server that offers.

Debian's Janus (1.1.2) insists on making the offer itself, while WHEP has the viewer offer. Both
offers describe the same session, so each side is given an answer made from the other's offer.
Payload types are the viewer's: a mountpoint is created with them. The ICE roles agree because
the server is ICE-lite (RFC 8445 section 6.1.1: the full agent controls), the DTLS roles because
both answers make the viewer the client.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
_FEEDBACK = ("nack", "nack pli", "ccm fir")


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
    mids = [mid for section in media if (mid := section.value("mid"))]
    if len(mids) > len(set(mids)):
        raise OfferError("two sections of the offer have the same a=mid")
    video = _receiver(session, media, "video")
    if video is None:
        raise OfferError("the offer has no m=video section that receives")
    audio = _receiver(session, media, "audio")
    video_codec = _pick_h264(media[video])
    audio_codec = _pick_opus(media[audio]) if audio is not None else None
    if audio_codec is None:
        audio = None
    elif audio_codec.payload_type == video_codec.payload_type:
        raise OfferError(
            f"the offer has payload type {video_codec.payload_type} for both picture and sound"
        )
    chosen = [media[index] for index in (video, audio) if index is not None]
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

    return Offer(
        session=session,
        media=media,
        video=video,
        audio=audio,
        video_codec=video_codec,
        audio_codec=audio_codec,
        ice_ufrag=required("ice-ufrag"),
        ice_pwd=required("ice-pwd"),
        fingerprint=required("fingerprint"),
    )


def _receiver(session: Section, media: tuple[Section, ...], kind: str) -> int | None:
    for index, section in enumerate(media):
        # Port 0 is a section that is not offered (RFC 3264 section 5.1), or bundled with another.
        offered = section.port != 0 or section.has("bundle-only")
        if section.kind == kind and offered and _receives(session, section):
            return index
    return None


def _receives(session: Section, section: Section) -> bool:
    # A section without a direction has the session's (RFC 8866 section 6.7), else sends too.
    part = section if any(map(section.has, _DIRECTIONS)) else session
    return not (part.has("sendonly") or part.has("inactive"))


def _check_transport(session: Section, section: Section) -> None:
    if section.protocol not in _PROTOCOLS:
        raise OfferError(
            f"the offer's m={section.kind} has the protocol {section.protocol[:40]!r},"
            f" not {_PROTOCOLS[0]}"
        )
    setup = section.value("setup") or session.value("setup") or "active"
    if setup not in {"actpass", "active"}:
        raise OfferError(
            f"the offer has a=setup:{setup[:40]}: the viewer must be able to be the DTLS client"
            " (a=setup:actpass)"
        )


def _bundled(session: Section, *sections: Section) -> bool:
    groups = [set(value.split()[1:]) for value in session.values("group") if value[:6] == "BUNDLE"]
    mids = {section.value("mid") or "" for section in sections}
    return any(mids <= group for group in groups)


def _codecs(section: Section) -> Iterator[Codec]:
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
        for codec in _codecs(section)
        if codec.name == "h264/90000" and "packetization-mode=1" in codec.parameters
    ]
    if not candidates:
        offered = ", ".join(sorted({codec.name.split("/")[0] for codec in _codecs(section)}))
        raise OfferError(
            "the offer has no H.264 with packetization-mode=1, the only video of this site"
            f" (it has {offered[:120] or 'none'})"
        )
    ranked = ("profile-level-id=42e0", "profile-level-id=4200", "")
    return min(candidates, key=lambda c: next(i for i, p in enumerate(ranked) if p in c.parameters))


def _pick_opus(section: Section) -> Codec | None:
    return next((codec for codec in _codecs(section) if codec.name == "opus/48000/2"), None)


def media_port(server_offer: str) -> int | None:
    """Return the UDP port at which the server waits for this viewer: its first candidate's."""
    _, media = split(server_offer)
    for section in media:
        for candidate in section.values("candidate"):
            words = candidate.split()
            if len(words) > 5 and words[5].isascii() and words[5].isdigit():
                return int(words[5])
    return None


def answer_for_server(offer: Offer, server_offer: str) -> str:
    """Return the viewer's side as an answer to the server's own offer."""
    _, media = split(server_offer)
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0"]
    chosen = {"video": offer.video_codec, "audio": offer.audio_codec}
    mids = [s.value("mid") or "" for s in media if chosen.get(s.kind) is not None]
    lines.append("a=group:BUNDLE " + " ".join(mids))
    for section in media:
        codec = chosen.get(section.kind)
        if codec is None:
            lines += _rejected(section)
            continue
        lines += [
            f"m={section.kind} 9 {section.protocol} {codec.payload_type}",
            "c=IN IP4 0.0.0.0",
            "a=recvonly",
            f"a=mid:{section.value('mid')}",
            "a=rtcp-mux",
            f"a=ice-ufrag:{offer.ice_ufrag}",
            f"a=ice-pwd:{offer.ice_pwd}",
            f"a=fingerprint:{offer.fingerprint}",
            "a=setup:active",
            *_codec_lines(codec, _FEEDBACK),
        ]
    return "\r\n".join(lines) + "\r\n"


def answer_for_viewer(offer: Offer, server_offer: str) -> str:
    """Return the server's side as an answer to the viewer's offer, section by section."""
    session, media = split(server_offer)
    sources = {section.kind: section for section in media}
    accepted = [offer.video] if offer.audio is None else sorted((offer.video, offer.audio))
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=Anabranch", "t=0 0", "a=ice-lite"]
    mids = [offer.media[index].value("mid") for index in accepted]
    if all(mids):
        lines.append("a=group:BUNDLE " + " ".join(mid or "" for mid in mids))
    lines.append("a=msid-semantic: WMS *")
    for index, section in enumerate(offer.media):
        if index not in accepted:
            lines += _rejected(section)
            continue
        source = sources[section.kind]
        codec = offer.video_codec if index == offer.video else offer.audio_codec
        assert codec is not None
        mid = section.value("mid")
        offered = {
            value.partition(" ")[2]
            for value in section.values("rtcp-fb")
            if value.partition(" ")[0] in {"*", str(codec.payload_type)}
        }
        lines += [
            f"m={section.kind} 9 {section.protocol} {codec.payload_type}",
            "c=IN IP4 0.0.0.0",
            "a=sendonly",
            *([f"a=mid:{mid}"] if mid else []),
            "a=rtcp-mux",
            f"a=ice-ufrag:{source.value('ice-ufrag')}",
            f"a=ice-pwd:{source.value('ice-pwd')}",
            f"a=fingerprint:{source.value('fingerprint') or session.value('fingerprint')}",
            "a=setup:passive",
            *_codec_lines(codec, [kind for kind in _FEEDBACK if kind in offered]),
            f"a=msid:anabranch {section.kind}",
        ]
        # The first listed source is the media; a second one would be a retransmission stream,
        # which neither answer accepts: what is asked for again comes on the first.
        ssrc = (source.value("ssrc") or "").partition(" ")[0]
        if ssrc:
            lines.append(f"a=ssrc:{ssrc} cname:anabranch")
        lines += _candidates(source)
        lines.append("a=end-of-candidates")
    return "\r\n".join(lines) + "\r\n"


def _rejected(section: Section) -> list[str]:
    mid = section.value("mid")
    return [
        f"m={section.kind} 0 {section.protocol} {' '.join(section.formats)}",
        "c=IN IP4 0.0.0.0",
        "a=inactive",
        *([f"a=mid:{mid}"] if mid else []),
    ]


def _candidates(source: Section) -> list[str]:
    """Return the server's candidates, each with a foundation and priority of its own.

    Janus gives all of them the same, which would tell the viewer that they share an address and
    leave their order open (RFC 8445 sections 5.1.1.3 and 5.1.2).
    """
    lines = []
    for number, value in enumerate(source.values("candidate")):
        words = value.split()
        if len(words) >= 8 and words[3].isdecimal():
            words[0], words[3] = str(number + 1), str(max(1, int(words[3]) - number))
            lines.append("a=candidate:" + " ".join(words))
    return lines


def _codec_lines(codec: Codec, feedback: Sequence[str]) -> list[str]:
    number = codec.payload_type
    if codec.name.startswith("opus"):
        return [
            f"a=rtpmap:{number} opus/48000/2",
            f"a=fmtp:{number} minptime=10;useinbandfec=1",
        ]
    return [
        f"a=rtpmap:{number} H264/90000",
        f"a=fmtp:{number} {codec.parameters}",
        *(f"a=rtcp-fb:{number} {kind}" for kind in feedback),
    ]
