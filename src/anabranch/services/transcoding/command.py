"""The command lines of ffmpeg and ffprobe, and what is read from files before they are. Pure.

Nothing on a command line comes from a sandbox but numbers that were read as such: demuxers are
chosen by a file's first bytes, inputs are ``pipe:`` and a descriptor's number, and ``pipe`` is the
only protocol. So no playlist, reference or URL within a file leads anywhere.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from anabranch.services.transcoding.request import Container, Facts, TranscodingError

FIRST_DESCRIPTOR = 3
"""Of the child: inputs from here on, the output after them."""
_MOST_RATE, _USUAL_RATE = 60.0, 25.0
_MOST_PIXELS = 4096 * 2304
_USUAL_SIZE = (1280, 720)
_TS_PACKET = 188
_SNIFF_BYTES = 4 * _TS_PACKET
_MOST_BOXES = 64
_SOUND = "aresample=48000:async=1,aformat=sample_fmts=fltp:channel_layouts=stereo"

Read = Callable[[int, int], bytes]
"""``read(offset, count)`` of a file."""


@dataclass(frozen=True, slots=True)
class Source:
    """An input, looked at."""

    kind: str
    facts: Facts


def kind_of(read: Read) -> str:
    """Return the demuxer for a file, by its first bytes: MP4, MPEG-TS, or Matroska and WebM.

    Raises:
        TranscodingError: it is something else; or an MP4 that can only be read by seeking.
    """
    head = read(0, _SNIFF_BYTES)
    if head[4:8] == b"ftyp":
        _check_index_first(read)
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if len(head) >= _TS_PACKET and not head[::_TS_PACKET].strip(b"\x47"):
        return "mpegts"
    raise TranscodingError("it is no MP4, MPEG-TS, Matroska or WebM")


def _check_index_first(read: Read) -> None:
    """Refuse an MP4 whose index comes after its media: ffmpeg reads it as it comes."""
    offset = 0
    for _ in range(_MOST_BOXES):
        head = read(offset, 16)
        if len(head) < 8:
            break
        size, name = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if name in {b"moov", b"moof"}:
            return
        if name == b"mdat" or size < 8:
            break
        offset += size
    raise TranscodingError(
        "its index is not at its beginning: ffmpeg -i IN -c copy -movflags +faststart OUT"
    )


def describing(kind: str) -> list[str]:
    """Return the command that describes the file at the first descriptor."""
    return [
        "ffprobe", "-v", "error", "-protocol_whitelist", "pipe", "-max_pixels", str(_MOST_PIXELS),
        "-of", "json", "-show_entries",
        "format=duration:stream=codec_type,width,height,avg_frame_rate,r_frame_rate",
        "-f", kind, "-i", f"pipe:{FIRST_DESCRIPTOR}",
    ]  # fmt: skip


def facts_of(kind: str, said: bytes) -> Facts:
    """Read what ffprobe printed. Raises TranscodingError."""
    try:
        found = json.loads(said)
        streams = [each for each in found.get("streams", []) if isinstance(each, dict)]
        pictures = [each for each in streams if each.get("codec_type") == "video"]
        picture: dict[str, Any] = pictures[0] if pictures else {}
        return Facts(
            kind=kind,
            duration=max(_float(found.get("format", {}).get("duration")), 0.0),
            width=int(picture.get("width", 0)),
            height=int(picture.get("height", 0)),
            rate=_rate(picture),
            sound=any(each.get("codec_type") == "audio" for each in streams),
        )
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise TranscodingError(f"ffprobe says nothing of use: {error}") from None


def converting(source: Source, container: Container) -> list[str]:
    """Return the command that makes the input H.264 and AAC in a container."""
    width, height, rate = _format(source.facts)
    graph = ";".join(_uniform(0, source.facts, width, height, rate))
    return _command([source], f"{graph};[v0][a0]concat=n=1:v=1:a=1[v][a]", container)


def inserting(main: Source, clip: Source, at: float, container: Container) -> list[str]:
    """Return the command that puts a clip into an input: before it, or before its second ``at``.

    What comes out has size and rate of the input.
    """
    width, height, rate = _format(main.facts)
    parts = [
        *_uniform(0, main.facts, width, height, rate),
        *_uniform(1, clip.facts, width, height, rate),
    ]
    if at <= 0 or (main.facts.duration and at >= main.facts.duration):
        order = "[v1][a1][v0][a0]" if at <= 0 else "[v0][a0][v1][a1]"
        parts.append(f"{order}concat=n=2:v=1:a=1[v][a]")
    else:
        parts += [
            "[v0]split[vb][vc]", "[a0]asplit[ab][ac]",
            f"[vb]trim=end={at:.3f}[vd]", f"[ab]atrim=end={at:.3f}[ad]",
            f"[vc]trim=start={at:.3f},setpts=PTS-STARTPTS[ve]",
            f"[ac]atrim=start={at:.3f},asetpts=PTS-STARTPTS[ae]",
            "[vd][ad][v1][a1][ve][ae]concat=n=3:v=1:a=1[v][a]",
        ]  # fmt: skip
    return _command([main, clip], ";".join(parts), container)


def _uniform(number: int, facts: Facts, width: int, height: int, rate: float) -> list[str]:
    """Return filters that give input ``number`` one size, one rate, and sound, as [vN] and [aN]."""
    if not facts.width or not facts.height:
        raise TranscodingError("it has no picture")
    video = (
        f"[{number}:v:0]scale={width}:{height}:force_original_aspect_ratio=decrease,"
        f"pad={width}:{height}:-1:-1,setsar=1,fps={rate:g},format=yuv420p[v{number}]"
    )
    if facts.sound:
        return [video, f"[{number}:a:0]{_SOUND}[a{number}]"]
    if not facts.duration:
        raise TranscodingError("it has neither sound nor a duration")
    silence = f"anullsrc=r=48000:cl=stereo,atrim=duration={facts.duration:.3f},{_SOUND}"
    return [video, f"{silence}[a{number}]"]


def _command(sources: Sequence[Source], graph: str, container: Container) -> list[str]:
    inputs = []
    for number, source in enumerate(sources):
        where = f"pipe:{FIRST_DESCRIPTOR + number}"
        inputs += ["-max_pixels", str(_MOST_PIXELS), "-f", source.kind, "-i", where]
    output = {
        Container.MP4: ["-f", "mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof"],
        Container.TS: ["-f", "mpegts"],
    }[container]
    return [
        "ffmpeg", "-hide_banner", "-nostdin", "-v", "error", "-protocol_whitelist", "pipe",
        *inputs, "-filter_complex", graph, "-map", "[v]", "-map", "[a]",
        "-map_metadata", "-1", "-c:v", "libx264", "-preset", "veryfast", "-threads", "1",
        "-g", "250", "-c:a", "aac", "-b:a", "128k",
        *output, "-y", f"pipe:{FIRST_DESCRIPTOR + len(sources)}",
    ]  # fmt: skip


def _format(facts: Facts) -> tuple[int, int, float]:
    """Return the size and rate of what comes out: the input's, made even and within reason."""
    width, height = facts.width or _USUAL_SIZE[0], facts.height or _USUAL_SIZE[1]
    if not 16 <= width <= 4096 or not 16 <= height <= 4096:
        raise TranscodingError(f"a picture of {width} x {height} is none that is taken")
    rate = facts.rate if facts.rate >= 1 else _USUAL_RATE
    return width // 2 * 2, height // 2 * 2, min(rate, _MOST_RATE)


def _rate(stream: dict[str, Any]) -> float:
    for name in ("avg_frame_rate", "r_frame_rate"):
        above, _, below = str(stream.get(name, "")).partition("/")
        if _float(above) > 0 and _float(below or "1") > 0:
            return round(_float(above) / _float(below or "1"), 3)
    return 0.0


def _float(text: Any) -> float:
    try:
        found = float(text)
    except (TypeError, ValueError):
        return 0.0
    return found if abs(found) < 1e9 else 0.0
