"""Receivers of plain seats: players that decode, each picture told by its colour."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_SIDE = 16
_FRAME = _SIDE * _SIDE * 3
COLOURS = {"red": (0xE0, 0x10, 0x10), "green": (0x10, 0xC0, 0x10), "blue": (0x10, 0x10, 0xE0)}


def make_film(directory: Path, colour: str) -> Path:
    """Make two seconds of one colour and a tone, to be played in a loop."""
    path = directory / f"{colour}.mkv"
    red, green, blue = COLOURS[colour]
    subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i"),
            f"color=0x{red:02x}{green:02x}{blue:02x}:size=640x360:rate=25",
            *("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"),
            *("-t", "2", "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "flac", str(path)),
        ],
        check=True,
    )
    return path


def colour_of(frame: bytes) -> str:
    """Return what colour a picture has; ``other`` for a mixture, or the slate."""
    mean = mean_of_rgb(frame) if len(frame) == _FRAME else mean_of_i420(frame)
    for name, wanted in COLOURS.items():
        if all(abs(one - other) < 48 for one, other in zip(mean, wanted, strict=True)):
            return name
    return "other"


def mean_of_rgb(frame: bytes) -> list[float]:
    return [sum(frame[part::3]) / (len(frame) // 3) for part in range(3)]


def mean_of_i420(frame: bytes) -> list[float]:
    """Some points of each plane, as RGB (ITU-R BT.601)."""
    size = len(frame) * 2 // 3
    planes = frame[:size:997], frame[size : size * 5 // 4 : 499], frame[size * 5 // 4 :: 499]
    y, u, v = (sum(plane) / len(plane) for plane in planes)
    y, u, v = 1.164 * (y - 16), u - 128, v - 128
    return [y + 1.596 * v, y - 0.392 * u - 0.813 * v, y + 2.017 * u]


class Player:
    """A program that writes decoded pictures to its standard output.

    They are 16 by 16 in RGB, or 640 by 360 in I420 (``raw``). Attributes: ``seen``: when each
    came, and its colour.
    """

    def __init__(
        self, argv: Sequence[str], netns: str | None = None, *, user: int = 0, raw: bool = False
    ) -> None:
        self._size = 640 * 360 * 3 // 2 if raw else _FRAME
        inside = [] if netns is None else ["ip", "netns", "exec", netns]
        self.seen: list[tuple[float, str]] = []
        pictures, out = os.pipe()
        os.fchown(out, user, user)  # who has this name of it may open it once more
        self._pictures = open(pictures, "rb")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*inside, *argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.DEVNULL,
            user=user or None,
            group=user or None,
            env=os.environ | ({"HOME": "/nonexistent"} if user else {}),
        )
        os.close(out)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while len(frame := self._pictures.read(self._size)) == self._size:
            self.seen.append((time.time(), colour_of(frame)))

    @property
    def colours(self) -> list[str]:
        """The colours in the order of their first picture in a row; mixtures are left out."""
        found: list[str] = []
        for _, colour in list(self.seen):
            if colour != "other" and found[-1:] != [colour]:
                found.append(colour)
        return found

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self._pictures.close()


def ffmpeg(source: str) -> list[str]:
    """Return ffmpeg's command for a URL or a session description."""
    return [
        *("ffmpeg", "-v", "error", "-protocol_whitelist", "file,udp,rtp"),
        # Until the first key frame nothing is known of the picture.
        *("-fflags", "nobuffer", "-probesize", "1000000", "-analyzeduration", "3000000"),
        # Another channel's sequence numbers may be lower: to ffmpeg these are late packets.
        *(("-reorder_queue_size", "0") if source.endswith(".sdp") else ()),
        *("-i", source, "-an", "-vf", f"scale={_SIDE}:{_SIDE}", "-fps_mode", "passthrough"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-flush_packets", "1", "-"),
    ]


_TO_STDOUT = (
    f"! videoconvert ! videoscale ! video/x-raw,format=RGB,width={_SIDE},height={_SIDE}"
    " ! fdsink fd=1 sync=false"
)


def gstreamer(port: int) -> list[str]:
    """Return GStreamer's command for a transport stream at a port."""
    text = (
        f"udpsrc port={port} caps=video/mpegts,systemstream=true,packetsize=188"
        f" ! tsdemux ! h264parse ! openh264dec {_TO_STDOUT}"
    )
    return ["gst-launch-1.0", "-q", *text.split()]


def gstreamer_rtp(port: int) -> list[str]:
    """Return GStreamer's command for the picture of an RTP seat."""
    text = (
        f"udpsrc port={port}"
        " caps=application/x-rtp,media=video,clock-rate=90000,encoding-name=H264"
        f" ! rtph264depay ! h264parse ! openh264dec {_TO_STDOUT}"
    )
    return ["gst-launch-1.0", "-q", *text.split()]


def vlc(port: int) -> list[str]:
    """Return VLC's command for a transport stream at a port; it writes whole pictures."""
    return [
        *("cvlc", "-q", "--network-caching=300", "--no-audio", "--vout=yuv"),
        *("--yuv-file=/proc/self/fd/1", "--yuv-chroma=I420", f"udp://@:{port}"),
    ]


@contextmanager
def playing(argv: Sequence[str], netns: str | None = None, *, user: int = 0) -> Iterator[Player]:
    """Give a player that runs, and end it afterwards."""
    player = Player(argv, netns, user=user, raw=argv[0] == "cvlc")
    try:
        yield player
    finally:
        player.kill()


NOBODY = 65534
"""VLC does not run as root."""
