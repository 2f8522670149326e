"""The layers of a publisher's picture (simulcast, RFC 8853): which of them can be taken. Pure.

They can be a channel's renditions, without being decoded, only where every viewer may decode them:
H.264 of constrained baseline in packetization mode 1. Their sizes and bitrates are told by the
stream alone; the gate looks at those.
"""

import re
from collections.abc import Iterable, Mapping

from anabranch.media.answer_parts import RID, Extension
from anabranch.media.sdp import Codec, Section

MAX_LAYERS = 4
_PROFILE = re.compile(
    r"(?:^|;)\s*profile-level-id=42([0-9a-f]{2})[0-9a-f]{2}\s*(?:;|$)", re.IGNORECASE
)
_CONSTRAINED = 0x40
"""``constraint_set1_flag`` (RFC 6184 section 8.1)."""
_MODE = re.compile(r"(?:^|;)\s*packetization-mode=1\s*(?:;|$)")
_RID = re.compile(r"([A-Za-z0-9_-]{1,16}) send(?: (\S+))?")
"""RFC 8851 section 10; a header extension in the one-byte form has 16 bytes at most."""
_SEND = re.compile(r"(?:^|\s)send\s+(\S+)")


def constrained_baseline(codecs: Iterable[Codec]) -> Codec | None:
    """Return the first codec that all viewers can decode, and that is sent to them as it is."""
    for codec in codecs:
        profile = _PROFILE.search(codec.parameters)
        if (
            codec.name == "h264/90000"
            and _MODE.search(codec.parameters)
            and profile is not None
            and int(profile[1], 16) & _CONSTRAINED
        ):
            return codec
    return None


def layers_of(
    section: Section, extensions: Mapping[str, Extension], codec: Codec
) -> tuple[str, ...]:
    """Return the rids of the layers that a section offers to send in a codec, at most four.

    Of alternatives (RFC 8853 section 5.1) the first that is described is meant. Packets must name
    their layer, since the descriptions of browsers name no SSRCs.
    """
    if RID not in extensions:
        return ()
    described: set[str] = set()
    for value in section.values("rid"):
        match = _RID.fullmatch(value)
        if match is not None and _allows(match[2] or "", codec.payload_type):
            described.add(match[1])
    sent = _SEND.search(section.value("simulcast") or "")
    streams = sent[1].split(";") if sent is not None else []
    found: dict[str, None] = {}
    for stream in streams:
        # What begins with "~" is paused for the time being.
        names = (name.removeprefix("~") for name in stream.split(","))
        first = next((name for name in names if name in described), None)
        if first is not None:
            found[first] = None
    return tuple(found)[:MAX_LAYERS]


def _allows(restrictions: str, payload_type: int) -> bool:
    """Return whether a layer may have this payload type (RFC 8851 section 4)."""
    for restriction in restrictions.split(";"):
        name, _, value = restriction.partition("=")
        if name == "pt":
            return str(payload_type) in value.split(",")
    return True
