"""Renditions: the encodings of one channel, and the form in which they are sent."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from anabranch.core.errors import UsageError
from anabranch.core.names import check_name
from anabranch.media.errors import RenditionError

AUDIO = "audio"
"""Name of a channel's one sound stream, beside its renditions."""


_TRANSPORT = ".ts"


def transport_of(rendition: str) -> str:
    """Return the name of the MPEG transport stream of a rendition; no rendition has a dot."""
    return rendition + _TRANSPORT


def is_transport(stream: str) -> bool:
    """Say whether a stream of this name is a transport stream."""
    return stream.endswith(_TRANSPORT)


@dataclass(frozen=True, slots=True)
class Rendition:
    """One encoding of a channel's picture.

    Attributes:
        name: unique in its channel, ``high``.
        width, height: pixels, even.
        bitrate_kbps: kbit/s, constant over about one GOP.
        framerate: frames per second, at most the format's.

    Raises:
        RenditionError: a value cannot be encoded.
    """

    name: str
    width: int
    height: int
    bitrate_kbps: int
    framerate: int = 25

    def __post_init__(self) -> None:
        if self.name == AUDIO:
            raise RenditionError(f"a rendition cannot be named {AUDIO!r}: that is the sound")
        try:
            check_name(self.name)
        except UsageError as error:
            raise RenditionError(str(error)) from error
        for label, size in (("width", self.width), ("height", self.height)):
            if size % 2 or not 16 <= size <= 4096:
                raise RenditionError(
                    f"rendition {self.name}: the {label} {size} is not an even number of 16 to 4096"
                )
        if not 20 <= self.bitrate_kbps <= 50_000:
            raise RenditionError(
                f"rendition {self.name}: {self.bitrate_kbps} kbit/s is not within 20 to 50000"
            )
        if not 1 <= self.framerate <= 60:
            raise RenditionError(
                f"rendition {self.name}: {self.framerate} frames a second is not within 1 to 60"
            )


@dataclass(frozen=True, slots=True)
class Format:
    """What all renditions of a site have in common.

    Attributes:
        framerate: frames per second of the raw picture, 5 to 60.
        gop_s: seconds between key frames, above 0 and at most 4: it bounds the wait of a viewer
            who joins, and what a leaf must keep.
        video_payload_type, audio_payload_type: RTP payload types, 96 to 127.
        audio_bitrate_kbps: Opus, kbit/s.
        mtu: bytes of RTP packet, header included.

    Raises:
        RenditionError: a value cannot be sent.
    """

    framerate: int = 25
    gop_s: float = 1.0
    video_payload_type: int = 96
    audio_payload_type: int = 111
    audio_bitrate_kbps: int = 64
    mtu: int = 1200

    def __post_init__(self) -> None:
        if not 5 <= self.framerate <= 60:
            raise RenditionError(f"{self.framerate} frames a second is not within 5 to 60")
        if not 0 < self.gop_s <= 4:
            raise RenditionError(f"a key frame every {self.gop_s} s: it must be at most 4 s")
        types = self.video_payload_type, self.audio_payload_type
        if types[0] == types[1] or not all(96 <= number <= 127 for number in types):
            raise RenditionError(
                f"the payload types {types[0]} and {types[1]} must differ and be within 96 to 127"
            )
        if not 6 <= self.audio_bitrate_kbps <= 256:
            raise RenditionError(f"{self.audio_bitrate_kbps} kbit/s of sound: 6 to 256 is possible")
        if not 400 <= self.mtu <= 1460:
            raise RenditionError(f"an RTP packet of {self.mtu} bytes: 400 to 1460 is possible")

    def gop_frames(self, framerate: int) -> int:
        """Return the GOP of a rendition in frames, at least 1."""
        return max(1, round(self.gop_s * framerate))


@dataclass(frozen=True, slots=True)
class Picture:
    """Size and rate of the raw picture between ingest and encoder."""

    width: int
    height: int
    framerate: int


DEFAULT_LADDER = (
    Rendition("high", 640, 360, 1000),
    Rendition("low", 320, 180, 300),
)


def check_ladder(ladder: Sequence[Rendition], form: Format) -> Picture:
    """Return the raw picture of which every rendition of ``ladder`` is made: the largest one.

    Raises:
        RenditionError: no rendition, a name twice, a rate above the format's, or a largest
            picture whose rows do not fill whole 8 bytes.
    """
    if not ladder:
        raise RenditionError("a channel needs at least one rendition")
    names = [rendition.name for rendition in ladder]
    for name in names:
        if names.count(name) > 1:
            raise RenditionError(f"two renditions are named {name!r}")
    for rendition in ladder:
        if rendition.framerate > form.framerate:
            raise RenditionError(
                f"rendition {rendition.name}: {rendition.framerate} frames a second is more than"
                f" the format's {form.framerate}"
            )
    top = max(ladder, key=lambda rendition: (rendition.width * rendition.height, rendition.width))
    if top.width % 8:
        # The two ends pad rows to multiples of 4 bytes, chroma too, or not at all: then they agree.
        raise RenditionError(
            f"rendition {top.name}: the largest rendition's width must be a multiple of 8,"
            f" not {top.width}"
        )
    return Picture(top.width, top.height, form.framerate)


def draw_ssrcs(
    streams: Iterable[str],
    used: Iterable[int] = (),
    *,
    draw: Callable[[int], int] = secrets.randbits,
) -> dict[str, int]:
    """Draw an SSRC (1 to 2**32 - 1) for every stream: distinct, and none of ``used``.

    Every life of an encoder needs new ones: a receiver takes a jump of the sequence numbers under
    the same SSRC for a storm of loss, and stalls. ``draw(bits)`` returns a random integer.
    """
    taken = {0, *used}
    result: dict[str, int] = {}
    for stream in streams:
        ssrc = 0
        while ssrc in taken:
            ssrc = draw(32)
        taken.add(ssrc)
        result[stream] = ssrc
    return result
