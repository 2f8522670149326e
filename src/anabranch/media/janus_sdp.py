"""Answers between a viewer and a server that both offer.

Debian's Janus (1.1.2) insists on making the offer itself, while WHEP has the viewer offer. Both
offers describe the same session, so each side is given an answer made from the other's offer.
Payload types are the viewer's: a mountpoint is created with them. The ICE roles agree because
the server is ICE-lite (RFC 8445 section 6.1.1: the full agent controls), the DTLS roles because
both answers make the viewer the client.
"""

from anabranch.media.sdp import (
    Offer,
    Section,
    codec_lines,
    offered_feedback,
    rejected,
    split,
    transport_lines,
)

_FEEDBACK = ("nack", "nack pli", "ccm fir")
_TRANSPORT = ("ice-ufrag", "ice-pwd", "fingerprint")


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
            lines += rejected(section)
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
            *codec_lines(codec, _FEEDBACK),
        ]
    return "\r\n".join(lines) + "\r\n"


def answer_for_viewer(offer: Offer, server_offer: str) -> str:
    """Return the server's side as an answer to the viewer's offer, section by section."""
    session, media = split(server_offer)
    sources = {section.kind: section for section in media}
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=Anabranch", "t=0 0", "a=ice-lite"]
    mids = [offer.media[index].value("mid") for index in offer.accepted]
    if all(mids):
        lines.append("a=group:BUNDLE " + " ".join(mid or "" for mid in mids))
    lines.append("a=msid-semantic: WMS *")
    refused = _transport(session, sources["video"])
    for index, section in enumerate(offer.media):
        if index not in offer.accepted:
            lines += [*rejected(section), *refused]
            continue
        source = sources[section.kind]
        codec = offer.video_codec if index == offer.video else offer.audio_codec
        assert codec is not None
        mid = section.value("mid")
        offered = offered_feedback(section, codec)
        lines += [
            f"m={section.kind} 9 {section.protocol} {codec.payload_type}",
            "c=IN IP4 0.0.0.0",
            "a=sendonly",
            *([f"a=mid:{mid}"] if mid else []),
            "a=rtcp-mux",
            *_transport(session, source),
            *codec_lines(codec, [kind for kind in _FEEDBACK if kind in offered]),
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


def _transport(session: Section, source: Section) -> list[str]:
    found = (source.value(name) or session.value(name) for name in _TRANSPORT)
    return transport_lines(*(value or "" for value in found))


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
