"""A publisher's offer (RFC 9725), understood, and its answer. Pure.

One picture and one sound are taken, whatever else is offered. Simulcast (RFC 8853) is taken where
its layers may be the channel's renditions as they are (:mod:`anabranch.media.layers`); else it is
left out of the answer, so that one layer is sent (section 5.3 there).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from anabranch.media.answer_parts import (
    MID,
    MID_URI,
    NAMING,
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
from anabranch.media.layers import constrained_baseline, layers_of
from anabranch.media.leaf import OfferError
from anabranch.media.sdp import (
    Codec,
    FarEnd,
    Section,
    check_mids,
    codec_lines,
    codecs_of,
    far_end_of,
    goes,
    is_offered,
    offered_feedback,
    pick_opus,
    split,
)

Kind = Literal["video", "audio"]
_FEEDBACK = ("nack", "nack pli", "goog-remb")
_SSRC = re.compile(r"([0-9]{1,10}) ")
_MAX_SSRCS = 16
_URIS = {name: uri for uri, name in NAMING.items()}


@dataclass(frozen=True, slots=True)
class Track:
    """What is received in one section of the offer.

    Attributes:
        place: of the section.
        rtx: payload type of retransmissions (RFC 4588); None: they are sent as they were.
        mid: empty if the offer has none.
        ssrcs: sources that the offer names, those of retransmissions among them; often none.
        feedback: what may be asked of the publisher by RTCP (RFC 4585).
        extensions: header extensions by their short names.
        reduced_size: RTCP packets need not be compound (RFC 5506).
        rids: its layers, in the offer's order; empty: it is sent in one.
    """

    place: int
    kind: Kind
    codec: Codec
    rtx: int | None = None
    mid: str = ""
    ssrcs: tuple[int, ...] = ()
    feedback: tuple[str, ...] = ()
    extensions: Mapping[str, Extension] = field(default_factory=dict)
    reduced_size: bool = False
    rids: tuple[str, ...] = ()

    @property
    def encoding(self) -> str:
        """The codec's name alone: ``h264``, ``vp8`` or ``opus``."""
        return self.codec.name.partition("/")[0]

    @property
    def clock(self) -> int:
        """Ticks of RTP time in a second."""
        return 48000 if self.kind == "audio" else 90000


@dataclass(frozen=True, slots=True)
class PublishOffer:
    """An offer, and what is taken of it: at most one track of each kind, in the offer's order."""

    session: Section
    media: tuple[Section, ...]
    tracks: tuple[Track, ...]
    far_end: FarEnd

    @property
    def has_layers(self) -> bool:
        return any(track.rids for track in self.tracks)


def understand(text: str, renditions: int | None = None) -> PublishOffer:
    """Understand a publisher's offer.

    The first sections are taken that send H.264 in packetization mode 1 (else VP8), and Opus.

    Args:
        renditions: of the channel; of a picture that is offered in at least as many layers these
            are taken. None: one layer is.

    Raises:
        OfferError: it is malformed, or has nothing that can be taken; the message says what is
            wrong.
    """
    session, media = split(text)
    check_mids(media)
    sending = [
        (place, section)
        for place, section in enumerate(media)
        if is_offered(section) and goes(session, section, "sendonly")
    ]
    picture = next(_tracks(sending, "video"), None)
    if picture is not None and renditions is not None:
        picture = _in_layers(media[picture.place], picture, renditions)
    sound = next(_tracks(sending, "audio"), None)
    if picture is None and sound is None:
        kinds = ", ".join(dict.fromkeys(section.kind for _, section in sending))
        raise OfferError(
            "the offer sends neither H.264 (packetization-mode=1) nor VP8 nor Opus"
            f" (it sends {kinds[:80] or 'nothing'})"
        )
    if picture is not None and sound is not None:
        number = sound.codec.payload_type
        if number in (picture.codec.payload_type, picture.rtx):
            raise OfferError(f"the offer has payload type {number} for both picture and sound")
    found = [track for track in (picture, sound) if track is not None]
    if len({track.extensions.get(MID) for track in found}) > 1:
        # One number means one thing in all bundled sections (RFC 9143 section 10).
        found = [replace(track, extensions=_but_mid(track)) for track in found]
    tracks = tuple(sorted(found, key=lambda track: track.place))
    chosen = [media[track.place] for track in tracks]
    if not any(section.has("rtcp-mux") for section in chosen):
        raise OfferError("the offer must have RTP and RTCP on one port (a=rtcp-mux)")
    return PublishOffer(session, media, tracks, far_end_of(session, chosen))


def _but_mid(track: Track) -> dict[str, Extension]:
    return {name: each for name, each in track.extensions.items() if name != MID}


def _in_layers(section: Section, picture: Track, renditions: int) -> Track:
    """Return the picture in its layers if they can be renditions, else as it was."""
    extensions = extensions_of(section, NAMING, "sendonly")
    codec = constrained_baseline(codecs_of(section))
    rids = layers_of(section, extensions, codec) if codec is not None else ()
    if codec is None or len(rids) < renditions:
        return picture
    made = _track(picture.place, "video", section, codec)
    return replace(made, extensions=extensions, ssrcs=(), rids=rids)


def _tracks(sending: list[tuple[int, Section]], kind: Kind) -> Iterator[Track]:
    for place, section in sending:
        if section.kind == kind:
            codec = _pick_video(section) if kind == "video" else pick_opus(section)
            if codec is not None:
                yield _track(place, kind, section, codec)


def _pick_video(section: Section) -> Codec | None:
    offered = list(codecs_of(section))
    for codec in offered:
        if codec.name == "h264/90000" and "packetization-mode=1" in codec.parameters:
            return codec
    return next((codec for codec in offered if codec.name == "vp8/90000"), None)


def _track(place: int, kind: Kind, section: Section, codec: Codec) -> Track:
    offered = offered_feedback(section, codec) if kind == "video" else frozenset()
    found = (_SSRC.match(value) for value in section.values("ssrc"))
    ssrcs = dict.fromkeys(int(match[1]) for match in found if match is not None)
    return Track(
        place,
        kind,
        codec,
        rtx_of(section, codec, {codec.payload_type}) if "nack" in offered else None,
        section.value("mid") or "",
        tuple(ssrc for ssrc in ssrcs if 0 < ssrc < 2**32)[:_MAX_SSRCS],
        tuple(name for name in _FEEDBACK if name in offered),
        extensions_of(section, {MID_URI: MID}, "sendonly"),
        section.has("rtcp-rsize"),
    )


def answer(offer: PublishOffer, near: NearEnd) -> str:
    """Return the answer to the publisher, section by section."""
    tracks = {track.place: track for track in offer.tracks}
    mids = bundle_of(offer.session, [track.mid for track in offer.tracks])
    lines = head_lines(near, mids)
    for place, section in enumerate(offer.media):
        track = tracks.get(place)
        if track is None:
            lines += refused_lines(section, near)
            continue
        lines += _section_lines(section, track, near)
        if not mids or track.mid == mids[0]:  # the others share its transport
            lines += candidate_lines(near.candidates)
    return "\r\n".join(lines) + "\r\n"


def _section_lines(section: Section, track: Track, near: NearEnd) -> list[str]:
    types = [track.codec.payload_type, *([track.rtx] if track.rtx is not None else [])]
    lines = [
        *section_lines(section, types, near, track.mid),
        *(
            f"a=extmap:{extension.id}{'/recvonly' if extension.directed else ''} {_URIS[name]}"
            for name, extension in track.extensions.items()
        ),
        *(f"a=rid:{rid} recv" for rid in track.rids),
        *([f"a=simulcast:recv {';'.join(track.rids)}"] if track.rids else []),
        "a=recvonly",
        "a=rtcp-mux",
        *(["a=rtcp-rsize"] if track.reduced_size else []),
        *codec_lines(track.codec, track.feedback),
        *rtx_lines(track.rtx, track.codec),
    ]
    if track.kind == "audio":
        # What it may send (RFC 7587 section 7.1): browsers send mono unless told so.
        fmtp = f"a=fmtp:{track.codec.payload_type} "
        lines = [f"{line};stereo=1" if line.startswith(fmtp) else line for line in lines]
    return lines
