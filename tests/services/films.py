"""Short films, made by ffmpeg."""

import json
import subprocess
from pathlib import Path


def make_film(
    path: Path,
    seconds: float = 1.0,
    *,
    size: str = "160x120",
    rate: int = 10,
    sound: bool = True,
    more: tuple[str, ...] = ("-movflags", "+faststart"),
) -> Path:
    source = ["-f", "lavfi", "-i", f"testsrc=s={size}:r={rate}:d={seconds}"]
    if sound:
        source += ["-f", "lavfi", "-i", f"sine=d={seconds}"]
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", *source, "-c:v", "libx264", "-preset", "ultrafast",
         "-pix_fmt", "yuv420p", "-c:a", "aac", *more, str(path)],
        check=True, timeout=60,
    )  # fmt: skip
    return path


def probed(path: Path) -> dict:
    """Return what ffprobe says: format and streams."""
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-of", "json", "-count_frames", "-show_format",
         "-show_streams", str(path)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return json.loads(done.stdout)


def duration(path: Path) -> float:
    return float(probed(path)["format"]["duration"])
