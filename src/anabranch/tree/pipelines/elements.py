"""What a pipeline may be made of: elements, their properties, caps (docs/tree.md, Pipelines).

Whoever speaks for the root can have a node run any of this and nothing else. So: nothing that opens
files, devices, sockets, URIs or processes, and no property that makes an element do so.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

SOURCE = "anabranchsrc"
"""Receives a stream, RTP; the node binds it."""
OUTLET = "anabranchsink"
"""Sends RTP to where the outlet is routed."""
FILTER = "capsfilter"
PORTS = 1024, 65535
_WHOLE = re.compile(r"-?[0-9]{1,12}")
_CAPS_TYPE = re.compile(r"\((?:int|uint|string|fraction|boolean)\)")


class Kind(Protocol):
    """A kind of value."""

    def read(self, text: str) -> str:
        """Return the value as GStreamer writes it.

        Raises:
            ValueError: it is not allowed; the message says what is.
        """


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number."""

    low: int
    high: int

    def read(self, text: str) -> str:
        if not _WHOLE.fullmatch(text) or not self.low <= int(text) <= self.high:
            raise ValueError(str(self))
        return str(int(text))

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some words."""

    words: tuple[str, ...]

    def read(self, text: str) -> str:
        if text not in self.words:
            raise ValueError(str(self))
        return text

    def __str__(self) -> str:
        return ", ".join(self.words)


@dataclass(frozen=True, slots=True)
class Fraction:
    """``N/D`` or ``N``: a positive number."""

    high: int

    def read(self, text: str) -> str:
        above, _, below = text.partition("/")
        below = below or "1"
        if not (_WHOLE.fullmatch(above) and _WHOLE.fullmatch(below)):
            raise ValueError(str(self))
        if not (0 < int(below) <= 1001 and 0 < int(above) <= self.high * int(below)):
            raise ValueError(str(self))
        return f"{int(above)}/{int(below)}"

    def __str__(self) -> str:
        return f"above 0, up to {self.high}/1"


@dataclass(frozen=True, slots=True)
class Word:
    """A name of up to ``most`` characters of ``A-Z a-z 0-9`` and ``others``; a letter first."""

    most: int
    others: str = "_-"
    digit_first: bool = False

    def read(self, text: str) -> str:
        first = "A-Za-z0-9" if self.digit_first else "A-Za-z"
        others = re.escape(self.others)
        if not re.fullmatch(rf"[{first}][A-Za-z0-9{others}]{{0,{self.most - 1}}}", text):
            raise ValueError(str(self))
        return text

    def __str__(self) -> str:
        return f"a name of up to {self.most} letters, digits and {' '.join(self.others)}"


class Caps:
    """Media type and fields, each of one value: no lists, ranges, features or alternatives."""

    def read(self, text: str) -> str:
        media, *fields = (part.strip() for part in text.split(","))
        allowed = CAPS.get(media)
        if allowed is None:
            raise ValueError(str(self))
        read: dict[str, str] = {}
        for each in fields:
            name, _, value = (part.strip() for part in each.partition("="))
            if name not in allowed or name in read:
                raise ValueError(f"{media} with {', '.join(allowed) or 'no field'}, each once")
            try:
                read[name] = allowed[name].read(_CAPS_TYPE.sub("", value, 1).strip(' "'))
            except ValueError as error:
                raise ValueError(f"{media} with {name}: {error}") from None
        return ",".join([media, *(f"{name}={value}" for name, value in read.items())])

    def __str__(self) -> str:
        return f"caps of {', '.join(CAPS)}"


@dataclass(frozen=True, slots=True)
class Shape:
    """An element that is allowed.

    Attributes:
        properties: those that a description may set, beside ``name``.
        needed: those that it must set.
        fixed: what the node sets, whatever the description says.
        has_input, has_output: whether something comes in, goes out.
        branches: its output may be taken more than once.
    """

    properties: Mapping[str, Kind] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)
    has_input: bool = True
    has_output: bool = True
    branches: bool = False


NAME = Word(64)
FLAG = OneOf(("false", "true"))
_SECONDS_10_NS = Whole(1, 10_000_000_000)
_SSRC = Whole(0, 2**32 - 1)
_PAYLOAD_TYPE = Whole(0, 127)
_PARAMETER_SETS = Whole(-1, 3600)
_PAY: Mapping[str, Kind] = {"pt": _PAYLOAD_TYPE, "mtu": Whole(576, 1452), "ssrc": _SSRC}

CAPS: Mapping[str, Mapping[str, Kind]] = {
    "application/x-rtp": {
        "media": OneOf(("audio", "video", "application")),
        "clock-rate": Whole(1000, 192_000),
        "encoding-name": Word(32),
        "payload": _PAYLOAD_TYPE,
        "ssrc": _SSRC,
    },
    "audio/x-opus": {},
    "audio/x-raw": {
        "format": OneOf(("F32LE", "S16LE")),
        "rate": Whole(8000, 192_000),
        "channels": Whole(1, 8),
        "layout": OneOf(("interleaved",)),
    },
    "video/x-h264": {
        "profile": OneOf(("constrained-baseline", "baseline", "main", "high")),
        "stream-format": OneOf(("avc", "byte-stream")),
        "alignment": OneOf(("au", "nal")),
    },
    "video/x-raw": {
        "format": OneOf(("I420", "NV12")),
        "width": Whole(16, 3840),
        "height": Whole(16, 2160),
        "framerate": Fraction(120),
        "pixel-aspect-ratio": Fraction(4),
    },
    "video/x-vp8": {},
}
"""The media types a capsfilter may name, and their fields."""

ELEMENTS: Mapping[str, Shape] = {
    SOURCE: Shape(
        {"stream": Word(128, "._-", digit_first=True), "port": Whole(*PORTS), "caps": Caps()},
        needed=("stream",),
        has_input=False,
    ),
    OUTLET: Shape(needed=("name",), has_output=False),
    FILTER: Shape({"caps": Caps()}, needed=("caps",)),
    "tee": Shape(branches=True),
    "queue": Shape(
        {
            # never 0, which would be without limit
            "max-size-buffers": Whole(1, 10_000),
            "max-size-bytes": Whole(1, 32 * 1024 * 1024),
            "max-size-time": _SECONDS_10_NS,
            "leaky": OneOf(("no", "upstream", "downstream")),
        }
    ),
    "rtpjitterbuffer": Shape(
        {"latency": Whole(0, 5000), "drop-on-latency": FLAG, "do-lost": FLAG},
        fixed={"max-dropout-time": "5000"},
    ),
    "rtph264depay": Shape({"wait-for-keyframe": FLAG, "request-keyframe": FLAG}),
    "rtph264pay": Shape(
        {
            **_PAY,
            "config-interval": _PARAMETER_SETS,
            "aggregate-mode": OneOf(("none", "zero-latency", "max-stap")),
        }
    ),
    "rtpvp8depay": Shape({"wait-for-keyframe": FLAG, "request-keyframe": FLAG}),
    "rtpvp8pay": Shape({**_PAY, "picture-id-mode": OneOf(("none", "7-bit", "15-bit"))}),
    "rtpopusdepay": Shape(),
    "rtpopuspay": Shape({**_PAY, "dtx": FLAG}),
    "h264parse": Shape({"config-interval": _PARAMETER_SETS}),
    "avdec_h264": Shape(),
    "openh264dec": Shape(),
    "vp8dec": Shape(),
    "opusdec": Shape({"plc": FLAG, "use-inband-fec": FLAG}),
    "videoconvert": Shape(),
    "videoscale": Shape({"add-borders": FLAG}),
    "videorate": Shape({"drop-only": FLAG, "max-rate": Whole(1, 120)}),
    "audioconvert": Shape(),
    "audioresample": Shape(),
    # no option-string, no multipass-cache-file: both name files
    "x264enc": Shape(
        {
            "bitrate": Whole(16, 50_000),
            "key-int-max": Whole(1, 1000),
            "bframes": Whole(0, 4),
            "byte-stream": FLAG,
            "speed-preset": OneOf(
                ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium")
            ),
            "threads": Whole(1, 8),
            "tune": OneOf(("fastdecode", "zerolatency")),
            "vbv-buf-capacity": Whole(20, 10_000),
        }
    ),
    # no multipass-cache-file, as above
    "vp8enc": Shape(
        {
            "target-bitrate": Whole(16_000, 50_000_000),
            "keyframe-max-dist": Whole(1, 1000),
            "deadline": Whole(1, 1_000_000),
            "cpu-used": Whole(-16, 16),
            "threads": Whole(1, 8),
            "end-usage": OneOf(("vbr", "cbr")),
        }
    ),
    "opusenc": Shape(
        {
            "bitrate": Whole(6000, 510_000),
            "frame-size": OneOf(("2.5", "5", "10", "20", "40", "60")),
            "inband-fec": FLAG,
            "packet-loss-percentage": Whole(0, 100),
        }
    ),
    "videotestsrc": Shape(
        {"pattern": OneOf(("smpte", "snow", "black", "ball"))},
        fixed={"is-live": "true"},
        has_input=False,
    ),
    "audiotestsrc": Shape(
        {"wave": OneOf(("sine", "silence", "ticks")), "freq": Whole(20, 20_000)},
        fixed={"is-live": "true"},
        has_input=False,
    ),
}
"""Every element that a description may name."""
