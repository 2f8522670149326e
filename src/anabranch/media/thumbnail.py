"""A small JPEG of one key frame, made by a short-lived ffmpeg."""

import asyncio
import os

from anabranch.host.process import RUN_MARK, end_process
from anabranch.media.errors import ThumbnailError

MAX_WIDTH = 320
"""Pixels."""
MAX_KEY_FRAME = 4 * 2**20
"""Bytes of a key frame that is looked at."""
_LIMIT_S = 5.0
"""Seconds that ffmpeg has: it takes 0.1 when nothing else runs."""
# Whoever watches comes first: this one waits for the processor.
_COMMAND = (
    *("nice", "-n", "10", "ffmpeg", "-hide_banner", "-loglevel", "error", "-threads", "1"),
    *("-f", "h264", "-i", "pipe:0", "-frames:v", "1"),
    *("-vf", f"scale=w='min({MAX_WIDTH},iw)':h=-2:flags=area"),
    *("-threads", "1", "-q:v", "4", "-f", "mjpeg", "pipe:1"),
)


async def jpeg_of(annex_b: bytes, run_id: str) -> bytes:
    """Return a key frame as a JPEG at most :data:`MAX_WIDTH` wide, its proportions kept.

    Args:
        annex_b: H.264 byte stream with parameter sets.
        run_id: mark of the site's children.

    Raises:
        ThumbnailError: it cannot be decoded, or not in time; or there is no ffmpeg.
    """
    if len(annex_b) > MAX_KEY_FRAME:
        raise ThumbnailError(f"a key frame of {len(annex_b)} bytes")
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env={**os.environ, RUN_MARK: run_id},
            start_new_session=True,
        )
    except OSError as error:
        raise ThumbnailError(f"cannot run {_COMMAND[0]}: {error.strerror or error}") from error
    try:
        async with asyncio.timeout(_LIMIT_S):
            jpeg, words = await process.communicate(annex_b)
    except TimeoutError:
        raise ThumbnailError(f"no picture within {_LIMIT_S:g} s") from None
    finally:
        await end_process(process, 0.2)
    if process.returncode != 0 or not jpeg:
        lines = words.decode(errors="replace").strip().splitlines()
        raise ThumbnailError(lines[-1][:200] if lines else "there is no picture in it")
    return jpeg
