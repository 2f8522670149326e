"""Understands what ffmpeg prints: what it reads, how far it is, and why it ended. Pure."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from anabranch.media.publisher_figures import SourcePicture

_REASONS: tuple[tuple[str, str], ...] = (
    # The first that matches any line wins, so the cause stands before its consequences.
    (r"[Aa]ddress already in use|bind failed", "the port is taken by another program"),
    (r"[Tt]oo many packets buffered", "a stream was announced but nothing of it arrives"),
    (r"401|[Uu]nauthorized|authorization failed", "unauthorised: user or password are wrong"),
    (r"403 Forbidden|access denied", "the server forbids it"),
    (r"404 Not Found|Server returned 404|StreamNotFound", "the server does not know it"),
    (r"Server returned 5\d\d|5XX Server", "the server has an error of its own"),
    (r"Failed to resolve|Name or service not known", "the host's name is unknown"),
    (r"Connection refused", "the connection was refused"),
    (r"No route to host|Network is unreachable", "the host cannot be reached"),
    (r"Connection timed out|Operation timed out|Connection .*time-?out", "no answer in time"),
    (r"Permission denied", "permission denied"),
    (r"No such file or directory", "there is no such file"),
    (r"not on whitelist", "it leads to a protocol that is not allowed"),
    (r"Protocol not found", "this ffmpeg does not know the protocol"),
    (
        r"Decoder \(codec .*\) not found|[Uu]nsupported codec|Unknown decoder|codec none"
        r"|no decoder found|Could not find codec parameters",
        "its codec is not supported",
    ),
    (
        r"does not contain any stream|matches no streams",
        "it has neither a picture nor sound",
    ),
    (r"Invalid data found|could not find corresponding|moov atom", "it is not readable media"),
    (r"Connection reset", "the connection was cut"),
    (r"Input/output error|I/O error", "the connection broke"),
)
_STREAM = re.compile(r"Stream #0:\d+.*?: (Video|Audio): (\w+)(.*)")
_HELD_UP = re.compile(r"buffered for output stream \d+:(\d+)")
"""The stream that came; the picture, if there is one, is number 0."""
_SIZE = re.compile(r"\b(\d{2,5})x(\d{2,5})\b")
_FRAMERATE = re.compile(r" (\d{1,4}(?:\.\d{1,3})?) fps\b")
_BITRATE = re.compile(r" (\d{1,9}) kb/s\b")


def printable(text: str, limit: int = 160) -> str:
    """Return ``text`` without control characters and not longer than ``limit`` characters."""
    return "".join(char if char.isprintable() else "?" for char in text)[:limit]


@dataclass(slots=True)
class LogReader:
    """Follows one life of ffmpeg.

    Attributes:
        output: path of the feed's socket, to tell trouble there from trouble at the source.
        running: the output was opened, so media flows.
        streams: what is read, ``h264 640x360``.
        picture: the first of them that is one, as it was when reading began.
        announced_kbps: the sum of the bitrates that the streams are said to have; 0: none is.
        media_s: seconds of output so far.
    """

    output: str
    running: bool = False
    streams: list[str] = field(default_factory=list)
    picture: SourcePicture | None = None
    announced_kbps: int = 0
    media_s: float = 0.0
    frames: int = 0
    _rank: int = len(_REASONS)
    _feed_lost: bool = False
    _last: str = ""
    _in_input: bool = True
    _held_up: str = ""

    def summary(self) -> dict[str, Any]:
        """Return what is known of the source, as JSON; see :meth:`restore`."""
        return {
            "streams": self.streams,
            "picture": None if self.picture is None else asdict(self.picture),
            "announced_kbps": self.announced_kbps,
        }

    def restore(self, summary: Mapping[str, Any]) -> None:
        """Go on with one that runs, of which another reader knows this."""
        self.running, self._in_input = True, False
        self.streams = list(summary["streams"])
        if (picture := summary["picture"]) is not None:
            self.picture = SourcePicture(**picture)
        self.announced_kbps = summary["announced_kbps"]

    def read(self, stream: str, line: str) -> None:
        """Take one line of ``stdout`` (progress) or ``stderr`` (log, ``[level] text``)."""
        if stream == "stdout":
            self._progress(line)
            return
        text = line.strip()
        if "Stream mapping:" in text:
            self._in_input = False
        elif "Output #0" in text:
            self._in_input = False
            self.running = True
        elif self._in_input and (found := _STREAM.search(text)) and len(self.streams) < 2:
            self._take_stream(*found.groups())
        level = re.search(r"\[(warning|error|fatal|panic)\]", text)
        if level is None:
            return
        if held_up := _HELD_UP.search(text):
            self._held_up = held_up[1]
        if self.output in text or "Broken pipe" in text:
            self._feed_lost = True
        elif level[1] != "warning":
            self._last = text
        for rank, (pattern, _) in enumerate(_REASONS[: self._rank]):
            # A warning is worth a look only where ffmpeg warns of what then stops it.
            if (level[1] != "warning" or rank < 3) and re.search(pattern, text):
                if self.output not in text:
                    self._rank = rank
                break

    def _take_stream(self, kind: str, codec: str, rest: str) -> None:
        size = _SIZE.search(rest)
        self.streams.append(f"{codec} {size[0]}" if size else codec)
        if bitrate := _BITRATE.search(rest):
            self.announced_kbps += int(bitrate[1])
        if kind == "Video" and self.picture is None:
            rate = _FRAMERATE.search(rest)
            width, height = (int(size[1]), int(size[2])) if size else (None, None)
            self.picture = SourcePicture(codec, width, height, float(rate[1]) if rate else None)

    def _progress(self, line: str) -> None:
        name, _, value = line.partition("=")
        if name == "out_time_us" and re.fullmatch(r"\d{1,18}", value):
            self.media_s = int(value) / 1e6
        elif name == "frame" and re.fullmatch(r"\d{1,18}", value):
            self.frames = int(value)

    @property
    def announced_only(self) -> bool:
        """Whether it gave up since one of the announced streams never came."""
        return self._rank < len(_REASONS) and _REASONS[self._rank][0].startswith("[Tt]oo many")

    @property
    def picture_missing(self) -> bool:
        """Whether the stream that never came was the picture, while there was sound."""
        return self.announced_only and self._held_up == "1"

    def reason(self, code: int) -> str:
        """Return in plain words why ffmpeg ended with exit code ``code``."""
        if self._feed_lost:
            return "the encoder closed the feed"
        if code == 0:
            return "the source ended"
        if self._rank < len(_REASONS):
            return _REASONS[self._rank][1]
        if self.running:
            return "the source broke off"
        text = re.sub(r"\[[^\]]*\] ?", "", self._last)
        return printable(text) if text else f"ffmpeg ended with code {code}"
