"""Real key frames for tests, and the size of a JPEG."""

import subprocess
from functools import cache


@cache
def key_frame(width: int = 640, height: int = 360, pattern: str = "testsrc2") -> bytes:
    """Return one H.264 key frame of a test picture as a byte stream."""
    made = subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"{pattern}=s={width}x{height}",
         "-frames:v", "1", "-pix_fmt", "yuv420p", "-c:v", "libx264", "-threads", "1",
         "-f", "h264", "pipe:1"],
        capture_output=True,
        check=True,
        timeout=60,
    )  # fmt: skip
    return made.stdout


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Return width and height: those of the baseline frame header (ITU-T T.81 section B.2.2)."""
    assert jpeg[:2] == b"\xff\xd8"
    assert jpeg[-2:] == b"\xff\xd9"
    at = 2
    while jpeg[at + 1] != 0xC0:
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    height, width = (int.from_bytes(jpeg[at + i : at + i + 2], "big") for i in (5, 7))
    return width, height
