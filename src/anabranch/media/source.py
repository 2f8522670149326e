"""Sources: what a channel is fed from, and how ffmpeg is told to read it. Pure but ``check``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from anabranch.media.clock import clock_filter
from anabranch.media.errors import SourceError
from anabranch.media.rendition import Picture

TIMEOUT_US = 5_000_000
"""Microseconds after which a silent server counts as dead."""
SDP_NAME = "source.sdp"

LIVE_PROBE = ("-analyzeduration", "1000000", "-probesize", "1000000", "-thread_type", "slice")
"""Short probing, and no frame-parallel decoding, which would hold frames back."""
RTMP_PROBE_S = (3, 15)
"""Seconds of probing RTMP, at first and if that was too short. A stream is joined in its middle:
sound comes at once, the picture with the next key frame, at most 2 s later from most encoders, 10 s
from OBS left at its defaults. One without sound is probed for as long."""
LOOPBACK = "127.0.0.1"
REPAIR_US = 200_000
"""Microseconds that a publisher's lost packet is waited for."""
WHIP_PROBE = (
    *("-analyzeduration", "3000000", "-probesize", "5000000", "-fpsprobesize", "0"),
    *("-thread_type", "slice"),
)
"""Probing ends with the first key frame: no frames are counted, since the rate is made constant."""
SECRET_QUERY = re.compile(r"pass|key|token|secret|auth|sig|pwd|streamid", re.IGNORECASE)

RTP_CODECS: Mapping[str, str] = {
    "h264": "H264/90000",
    "h265": "H265/90000",
    "vp8": "VP8/90000",
    "mp2t": "MP2T/90000",
}


@dataclass(frozen=True, slots=True)
class TestSource:
    """A test picture with the readable clock, and a tone; every ``number`` looks another way.

    ``label`` is drawn if the machine has a font (``has_font``).
    """

    __test__ = False  # not a test, whatever a collector takes the name for

    number: int = 0
    label: str = ""
    has_font: bool = False
    listens = False
    once = False
    secrets: tuple[str, ...] = ()

    def check(self) -> None:
        """Nothing can be wrong with it."""

    def files(self) -> dict[str, str]:
        return {}

    def describe(self) -> str:
        return f"test:{self.number}"

    def input_args(self, picture: Picture, directory: Path) -> list[str]:
        """Return ffmpeg's input arguments; the picture has its final size at once."""
        width, height, rate = picture.width, picture.height, picture.framerate
        hue = max(0, self.number - 1) * 77 % 360
        background = f"testsrc2=s={width}x{height}:r={rate}" + (f",hue=h={hue}" if hue else "")
        if self.has_font:
            label = re.sub(r"[^A-Za-z0-9 -]", "", self.label) or f"test {self.number}"
            background += (
                f",drawtext=font=Sans:text='{label}':fontsize=h/12:fontcolor=white"
                f":x=(w-tw)/2:y=h*0.45-th/2:box=1:boxcolor=black@0.6:boxborderw={height // 36}"
            )
        tone = round(220 * 2 ** (self.number % 24 / 12))
        graph = (
            f"{background}[back];{clock_filter(width, height, rate)}[clock];"
            "[back][clock]overlay=0:0,format=yuv420p[out0];"
            f"sine=f={tone}:r=48000:beep_factor=4:samples_per_frame=480,arealtime,"
            "aformat=channel_layouts=stereo:sample_fmts=s16[out1]"
        )
        return ["-f", "lavfi", "-i", graph]


@dataclass(frozen=True, slots=True)
class FileSource:
    """A media file on this machine, read at its own speed, over and over or ``once``."""

    path: Path
    once: bool = False
    listens = False
    secrets: tuple[str, ...] = ()

    def check(self) -> None:
        """See that the file is there.

        Raises:
            SourceError: it is missing, unreadable or no regular file.
        """
        try:
            is_file = self.path.is_file()
            exists = is_file or self.path.exists()
            if is_file:
                with self.path.open("rb"):
                    return
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SourceError(f"cannot read {self.path}: {reason}") from error
        raise SourceError(
            f"{self.path} is not a regular file" if exists else f"there is no file {self.path}"
        )

    def files(self) -> dict[str, str]:
        return {}

    def describe(self) -> str:
        return f"{self.path}{' (once)' if self.once else ''}"

    def input_args(self, picture: Picture, directory: Path) -> list[str]:
        loop = [] if self.once else ["-stream_loop", "-1"]
        # A playlist may name other files, but nothing of the network.
        allowed = ["-protocol_whitelist", "file,crypto"]
        return ["-re", *loop, *allowed, "-i", f"file:{self.path}"]


URL_ARGS: Mapping[str, tuple[str, ...]] = {
    "rtsp": (
        "-rtsp_transport",
        "tcp",
        "-timeout",
        str(TIMEOUT_US),
        "-protocol_whitelist",
        "rtsp,rtp,udp,tcp,tls,srtp",
        *LIVE_PROBE,
    ),
    # -re: a playlist or file arrives faster than it plays; a live stream is not slowed by it.
    "http": (
        "-rw_timeout",
        str(TIMEOUT_US),
        "-protocol_whitelist",
        "http,https,httpproxy,tls,tcp,crypto,hls",
        "-re",
    ),
    "udp": ("-protocol_whitelist", "udp,rtp", *LIVE_PROBE),
    "tcp": ("-rw_timeout", str(TIMEOUT_US), "-protocol_whitelist", "tcp", *LIVE_PROBE),
    "rtmp": (
        "-rw_timeout",
        str(TIMEOUT_US),
        "-protocol_whitelist",
        "rtmp,rtmps,tcp,tls",
        "-rtmp_live",
        "live",
        "-thread_type",
        "slice",
    ),
    "srt": ("-timeout", str(TIMEOUT_US), "-protocol_whitelist", "srt,udp", *LIVE_PROBE),
    "mmsh": ("-rw_timeout", str(TIMEOUT_US), "-protocol_whitelist", "mmsh,mmst,http,tcp"),
}
URL_KINDS: Mapping[str, str] = {
    **{kind: kind for kind in URL_ARGS},
    "rtsps": "rtsp",
    "https": "http",
    "rtmps": "rtmp",
    "mmst": "mmsh",
    "mms": "mmsh",
}
"""The protocols that may be read, and whose arguments each takes."""


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A stream that is fetched from (or, for UDP, received at) an address."""

    url: str
    once = False

    @property
    def listens(self) -> bool:
        return self.url.lower().startswith("udp:") or "listen=1" in self.url

    @property
    def secrets(self) -> tuple[str, ...]:
        """Password, keys and tokens of the URL, as written and decoded."""
        parts = urlsplit(self.url)
        found: list[str] = []
        if "@" in parts.netloc:
            user = parts.netloc.rpartition("@")[0]
            found += [user, user.partition(":")[2] or user]
        for pair in parts.query.split("&"):
            name, _, value = pair.partition("=")
            if SECRET_QUERY.search(name):
                found.append(value)
        if parts.scheme.lower() in ("rtmp", "rtmps"):
            found.append(parts.path.rpartition("/")[2])  # by custom the stream key
        return tuple(dict.fromkeys(s for text in found for s in (text, unquote(text)) if s))

    def check(self) -> None:
        """Only the attempt shows whether it works."""

    def files(self) -> dict[str, str]:
        return {}

    def describe(self) -> str:
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        user = "***@" if "@" in parts.netloc else ""
        path = parts.path
        if parts.scheme.lower() in ("rtmp", "rtmps"):
            path = path.rpartition("/")[0] + "/***"
        hidden = "?***" if parts.query else ""
        return f"{parts.scheme.lower()}://{user}{host}{path}{hidden}"

    def input_args(self, picture: Picture, directory: Path) -> list[str]:
        scheme, _, rest = self.url.partition(":")
        url = f"{scheme.lower()}:{rest}"
        if scheme.lower() == "udp":
            url += ("&" if "?" in url else "?") + "fifo_size=20000&overrun_nonfatal=1"
        return [*URL_ARGS[URL_KINDS[scheme.lower()]], "-i", url]


@dataclass(frozen=True, slots=True)
class RtpSource:
    """RTP that somebody sends to a port of this machine; ``port`` None: still to be chosen.

    ``sender`` is the one address that it may come from; empty: any.
    """

    port: int | None = None
    host: str = ""
    codec: str = "h264"
    payload_type: int = 96
    audio_port: int | None = None
    audio_payload_type: int = 111
    sender: str = ""
    listens = True
    once = False
    secrets: tuple[str, ...] = ()

    def check(self) -> None:
        """See that the port is known.

        Raises:
            SourceError: it is not.
        """
        _need_port(self.port)

    def files(self) -> dict[str, str]:
        """Return the session description (RFC 8866) by which ffmpeg knows what it receives."""
        lines = _session(self.host or "0.0.0.0")
        if self.sender:  # RFC 4570
            lines.append(f"a=source-filter: incl IN IP4 * {self.sender}")
        lines += _stream(self.codec, _need_port(self.port), self.payload_type)
        if self.audio_port is not None:
            lines += _stream("opus", self.audio_port, self.audio_payload_type)
        return {SDP_NAME: "\r\n".join(lines) + "\r\n"}

    def describe(self) -> str:
        audio = f", audio port {self.audio_port}" if self.audio_port is not None else ""
        sender = f", from {self.sender}" if self.sender else ""
        return f"rtp:{self.port} ({self.codec}{audio}{sender})"

    def input_args(self, picture: Picture, directory: Path) -> list[str]:
        return [
            *("-protocol_whitelist", "file,rtp,udp", "-buffer_size", "2000000"),
            # With a queue, one forged packet far ahead makes all that follow "too late" for good.
            *("-reorder_queue_size", "0", *LIVE_PROBE),
            *("-f", "sdp", "-i", str(directory / SDP_NAME)),
        ]


@dataclass(frozen=True, slots=True)
class SrtSource:
    """An SRT listener; who connects without the passphrase is refused by the protocol.

    Attributes:
        passphrase: 10 to 79 characters, or empty: then anybody may publish.
        key_bytes: 16, 24 or 32.
    """

    port: int | None = None
    host: str = ""
    passphrase: str = ""
    key_bytes: int = 16
    latency_ms: int = 120
    listens = True
    once = False

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(s for s in (self.passphrase, quote(self.passphrase, safe="")) if s)
        )

    def check(self) -> None:
        """See that the port is known.

        Raises:
            SourceError: it is not.
        """
        _need_port(self.port)

    def files(self) -> dict[str, str]:
        return {}

    def describe(self) -> str:
        return f"srt:{self.port}{'' if self.passphrase else ' (no passphrase)'}"

    def input_args(self, picture: Picture, directory: Path) -> list[str]:
        host = f"[{self.host}]" if ":" in self.host else self.host or "0.0.0.0"
        url = (
            f"srt://{host}:{_need_port(self.port)}?mode=listener&latency={self.latency_ms * 1000}"
            f"&timeout={TIMEOUT_US}&listen_timeout=-1"
        )
        if self.passphrase:
            url += f"&passphrase={quote(self.passphrase, safe='')}&pbkeylen={self.key_bytes}"
        return ["-protocol_whitelist", "srt,udp", *LIVE_PROBE, "-i", url]


@dataclass(frozen=True, slots=True)
class RtmpSource:
    """A publisher of the site's RTMP server, found there under the channel's name.

    Attributes:
        channel: name the server gives the stream once its key was accepted.
        port: the server's port on this machine; None: still to be told.
        patient: probe for longer, since the picture came late.
    """

    channel: str = ""
    port: int | None = None
    patient: bool = False
    listens = False
    once = False
    secrets: tuple[str, ...] = ()

    def check(self) -> None:
        """See that it is known where to pull from.

        Raises:
            SourceError: channel or port is missing.
        """
        _need_port(self.port)
        if not self.channel:
            raise SourceError("the RTMP source does not know its channel")

    def files(self) -> dict[str, str]:
        return {}

    def describe(self) -> str:
        return "rtmp"

    def input_args(self, picture: Picture, directory: Path) -> list[str]:
        url = f"rtmp://127.0.0.1:{_need_port(self.port)}/live/{self.channel}"
        span = RTMP_PROBE_S[self.patient]
        probe = ["-analyzeduration", str(span * 1_000_000), "-probesize", "50000000"]
        return [*URL_ARGS["rtmp"], *probe, "-i", url]


@dataclass(frozen=True, slots=True)
class RtpStream:
    """One RTP stream on its way from the gate to ffmpeg: RTP at ``port``, RTCP above it.

    Attributes:
        codec: ``h264``, ``vp8`` or ``opus``.
        port: of the loopback address.
    """

    codec: str
    port: int
    payload_type: int


@dataclass(frozen=True, slots=True)
class WhipSource:
    """A publisher by WHIP, whose media the gate hands on as plain RTP.

    Attributes:
        streams: what the publisher sends; empty: nobody publishes.
    """

    streams: tuple[RtpStream, ...] = ()
    listens = True
    once = False
    secrets: tuple[str, ...] = ()

    def check(self) -> None:
        """See that somebody publishes.

        Raises:
            SourceError: nobody does.
        """
        if not self.streams:
            raise SourceError("nobody publishes by WHIP")

    def files(self) -> dict[str, str]:
        """Return the session description (RFC 8866) by which ffmpeg knows what it receives."""
        # The filter (RFC 4570) keeps others out: ffmpeg listens on every address of the machine.
        lines = [*_session(LOOPBACK), f"a=source-filter: incl IN IP4 {LOOPBACK} {LOOPBACK}"]
        for stream in self.streams:
            lines += _stream(stream.codec, stream.port, stream.payload_type)
        return {SDP_NAME: "\r\n".join(lines) + "\r\n"}

    def describe(self) -> str:
        return "whip"

    def input_args(self, picture: Picture, directory: Path) -> list[str]:
        self.check()
        return [
            *("-protocol_whitelist", "file,rtp,udp", "-buffer_size", "2000000"),
            # What was lost comes again by the gate's doing, late and out of order; nobody else can
            # get a packet in.
            *("-reorder_queue_size", "1000", "-max_delay", str(REPAIR_US)),
            *WHIP_PROBE,
            *("-f", "sdp", "-i", str(directory / SDP_NAME)),
        ]


Source = TestSource | FileSource | UrlSource | RtpSource | SrtSource | RtmpSource | WhipSource


def _session(address: str) -> list[str]:
    family = "IP6" if ":" in address else "IP4"
    return [
        "v=0",
        f"o=- 0 0 IN {family} {address}",
        "s=anabranch",
        f"c=IN {family} {address}",
        "t=0 0",
    ]


def _stream(codec: str, port: int, payload_type: int) -> list[str]:
    kind = "audio" if codec == "opus" else "video"
    lines = [
        f"m={kind} {port} RTP/AVP {payload_type}",
        f"a=rtpmap:{payload_type} {RTP_CODECS.get(codec, 'opus/48000/2')}",
    ]
    return [*lines, f"a=fmtp:{payload_type} packetization-mode=1"] if codec == "h264" else lines


def _need_port(port: int | None) -> int:
    if port is None:
        raise SourceError("the source needs a port")
    return port


def query_of(text: str) -> dict[str, str]:
    """Return the query of a URL as a mapping; the last of equal names counts."""
    return dict(parse_qsl(text, keep_blank_values=True))
