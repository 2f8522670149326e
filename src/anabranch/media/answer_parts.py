"""What answers to viewers and to publishers share (RFC 8829 section 5.3.1). Pure.

The server is ICE-lite (RFC 8445) and the DTLS server (RFC 8842). All goes over one transport:
sections are bundled (RFC 9143), RTP and RTCP multiplexed (RFC 5761). Nothing is answered that the
offer does not have.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from anabranch.media.sdp import Codec, Section, codecs_of, rejected, transport_lines

MID = "mid"
MID_URI = "urn:ietf:params:rtp-hdrext:sdes:mid"
RID = "rid"
REPAIRED_RID = "repaired_rid"
_SDES = "urn:ietf:params:rtp-hdrext:sdes:"
NAMING = {
    MID_URI: MID,
    f"{_SDES}rtp-stream-id": RID,
    f"{_SDES}repaired-rtp-stream-id": REPAIRED_RID,
}
"""Header extensions by which packets name their section and their layer (RFC 8852)."""
_EXTMAP = re.compile(r"([0-9]{1,5})(?:/(sendrecv|recvonly|sendonly|inactive))? (\S+)")
_APT = re.compile(r"(?:^|;)\s*apt=([0-9]{1,3})\s*(?:;|$)")
_MAX_MID = 16
"""Bytes of a header extension in the one-byte form, the only one that is sent (RFC 8285)."""


@dataclass(frozen=True, slots=True)
class Extension:
    """A header extension: its number, and whether the offer gave it a direction."""

    id: int
    directed: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """An address and UDP port at which the far end may reach the server."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class NearEnd:
    """The server's end of a connection.

    Attributes:
        session_id: of the description, 62 random bits (RFC 8829 section 5.2.1).
        fingerprint: with the name of its hash.
        candidates: the best one first, at least one.
    """

    session_id: int
    ufrag: str
    pwd: str
    fingerprint: str
    candidates: Sequence[Candidate]


def extensions_of(
    section: Section, known: Mapping[str, str], way: Literal["sendonly", "recvonly"]
) -> dict[str, Extension]:
    """Return the header extensions of a section that can be used, by their short names.

    Args:
        section: of the offer.
        known: short names by URI.
        way: what who offers does with packets there.
    """
    found: dict[str, Extension] = {}
    taken: set[int] = set()
    for value in section.values("extmap"):
        match = _EXTMAP.match(value)
        if match is None or match[2] not in (None, "sendrecv", way):
            continue
        if (number := int(match[1])) in taken:
            continue
        taken.add(number)
        name = known.get(match[3])
        if name is None or name in found or not 1 <= number <= 14:
            continue
        if name == MID and not 1 <= len((section.value("mid") or "").encode()) <= _MAX_MID:
            continue
        found[name] = Extension(number, match[2] is not None)
    return found


def rtx_of(section: Section, codec: Codec, taken: Collection[int]) -> int | None:
    """Return the payload type of a codec's retransmissions (RFC 4588); none of ``taken``."""
    for each in codecs_of(section):
        apt = _APT.search(each.parameters) if each.name == "rtx/90000" else None
        if apt is not None and int(apt[1]) == codec.payload_type and each.payload_type not in taken:
            return each.payload_type
    return None


def bundle_of(session: Section, accepted: Collection[str]) -> list[str]:
    """Return the mids of what is accepted, in the order of the offer's group."""
    wanted = set(accepted) - {""}
    for value in session.values("group"):
        semantics, *mids = value.split()
        if semantics == "BUNDLE" and wanted <= set(mids):
            return [mid for mid in dict.fromkeys(mids) if mid in wanted]
    return []


def head_lines(near: NearEnd, mids: Sequence[str]) -> list[str]:
    """Return an answer's session part, as far as all answers have it."""
    return [
        "v=0",
        f"o=- {near.session_id} 1 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        *(["a=group:BUNDLE " + " ".join(mids)] if mids else []),
        "a=ice-lite",
        "a=ice-options:ice2",
    ]


def section_lines(section: Section, types: Sequence[int], near: NearEnd, mid: str) -> list[str]:
    """Return the first lines of an accepted section."""
    default = near.candidates[0]
    return [
        f"m={section.kind} {default.port} {section.protocol} {' '.join(map(str, types))}",
        f"c=IN IP{ip_address(default.address).version} {default.address}",
        *transport_lines(near.ufrag, near.pwd, near.fingerprint),
        *([f"a=mid:{mid}"] if mid else []),
    ]


def refused_lines(section: Section, near: NearEnd) -> list[str]:
    """Return the lines of a section that is refused."""
    return [*rejected(section), *transport_lines(near.ufrag, near.pwd, near.fingerprint)]


def rtx_lines(rtx: int | None, codec: Codec) -> list[str]:
    """Return what an answer says of a codec's retransmissions."""
    if rtx is None:
        return []
    return [f"a=rtpmap:{rtx} rtx/90000", f"a=fmtp:{rtx} apt={codec.payload_type}"]


def candidate_lines(candidates: Sequence[Candidate]) -> list[str]:
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
