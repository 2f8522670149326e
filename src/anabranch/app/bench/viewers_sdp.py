"""The two descriptions by which a scripted viewer and a leaf server agree (RFC 8829)."""

import secrets
from dataclasses import dataclass

from anabranch.core.errors import UnavailableError
from anabranch.media.sdp import Section, split

VIDEO, RTX, AUDIO = 102, 103, 111
"""Payload types of the offers."""
_URIS = {
    3: "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    4: "urn:ietf:params:rtp-hdrext:sdes:mid",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Of one end of an ICE session (RFC 8839 section 5.4)."""

    ufrag: str
    pwd: str

    @classmethod
    def random(cls) -> "Credentials":
        """Return fresh ones."""
        return cls(secrets.token_hex(4), secrets.token_hex(12))


@dataclass(frozen=True, slots=True)
class Server:
    """What a leaf server's answer says.

    Attributes:
        address: its first candidate, as ``ADDRESS:PORT``.
        rtx: whether retransmissions come in a stream of their own (RFC 4588).
    """

    address: str
    credentials: Credentials
    fingerprint: str
    rtx: bool


def offer(own: Credentials, fingerprint: str) -> str:
    """Return the offer of a viewer who wants picture and sound, as a browser would make it."""
    transport = (
        *("c=IN IP4 0.0.0.0", "a=recvonly", "a=rtcp-mux", "a=rtcp-rsize", "a=setup:actpass"),
        *(f"a=ice-ufrag:{own.ufrag}", f"a=ice-pwd:{own.pwd}", f"a=fingerprint:{fingerprint}"),
        *(f"a=extmap:{number} {uri}" for number, uri in _URIS.items()),
    )
    feedback = ("nack", "nack pli", "ccm fir", "goog-remb")
    lines = (
        *("v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0 1"),
        *(f"m=video 9 UDP/TLS/RTP/SAVPF {VIDEO} {RTX}", "a=mid:0", *transport),
        f"a=rtpmap:{VIDEO} H264/90000",
        f"a=fmtp:{VIDEO} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        *(f"a=rtcp-fb:{VIDEO} {kind}" for kind in feedback),
        *(f"a=rtpmap:{RTX} rtx/90000", f"a=fmtp:{RTX} apt={VIDEO}"),
        *(f"m=audio 9 UDP/TLS/RTP/SAVPF {AUDIO}", "a=mid:1", *transport),
        *(f"a=rtpmap:{AUDIO} opus/48000/2", f"a=fmtp:{AUDIO} minptime=10;useinbandfec=1"),
    )
    return "\r\n".join((*lines, ""))


def read_answer(text: str) -> Server:
    """Understand a leaf server's answer to :func:`offer`.

    Raises:
        OfferError: it is no description.
        UnavailableError: it has no picture, or lacks what is needed to connect.
    """
    session, media = split(text)
    video = next((section for section in media if section.kind == "video" and section.port), None)
    if video is None:
        raise UnavailableError("the leaf server sends no picture")

    def value(name: str) -> str:
        found = video.value(name) or session.value(name)
        if found is None:
            raise UnavailableError(f"the leaf server's answer has no {name}")
        return found

    return Server(
        _address(video),
        Credentials(value("ice-ufrag"), value("ice-pwd")),
        value("fingerprint"),
        str(RTX) in video.formats,
    )


def _address(section: Section) -> str:
    for candidate in section.values("candidate"):
        words = candidate.split()
        if len(words) >= 8 and words[2].lower() == "udp":
            host = f"[{words[4]}]" if ":" in words[4] else words[4]
            return f"{host}:{words[5]}"
    raise UnavailableError("the leaf server's answer has no candidate")
