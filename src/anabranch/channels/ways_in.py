"""Ways in: settling a source's ports, and telling a producer where to send. Pure."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

from anabranch.channels.definitions import Definition
from anabranch.core.errors import ConflictError, UsageError
from anabranch.media.errors import SourceError
from anabranch.media.source import (
    FileSource,
    RtmpSource,
    RtpSource,
    Source,
    SrtSource,
    TestSource,
    UrlSource,
    WhipSource,
)
from anabranch.media.source_text import parse_source

Span = tuple[int, int]
Way = Literal["whip", "rtmp", "srt", "rtp", "url", "file", "test"]
_LAST_PORT = 65535
_FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")


def ports_of(source: Source) -> frozenset[int]:
    """Return the UDP ports that a source listens on; RTP has its RTCP port above each."""
    if isinstance(source, SrtSource) and source.port is not None:
        return frozenset({source.port})
    if isinstance(source, RtpSource) and source.port is not None:
        media = {source.port} | ({source.audio_port} if source.audio_port is not None else set())
        return frozenset(media | {port + 1 for port in media})
    return frozenset()


def settle(
    text: str,
    others: Collection[Definition],
    *,
    srt: Span,
    rtp: Span,
    is_free: Callable[[int], bool],
) -> str:
    """Return ``text`` as it is kept: checked, and with a port filled in if it listens.

    Args:
        text: the source as the operator wrote it.
        others: the channels there are, whose ports are taken.
        srt, rtp: where a port is chosen from, first and last.
        is_free: whether nobody else on this machine has a UDP port.

    Raises:
        SourceError: it is no source, its ports cannot be, or its file cannot be read.
        ConflictError: its port belongs to another channel or program, or none is left.
    """
    text = text.strip()
    source = parse_source(text)
    taken = {port: other.name for other in others for port in ports_of(parse_source(other.source))}
    if isinstance(source, (SrtSource, RtpSource)) and source.port is None:
        span, step = (srt, 1) if isinstance(source, SrtSource) else (rtp, 2)
        for port in range(span[0], span[1] + 1, step):
            needed = ports_of(replace(source, port=port))
            if _overlap(replace(source, port=port)) or max(needed) > _LAST_PORT:
                continue
            if not needed & taken.keys() and all(is_free(number) for number in needed):
                return _with_port(text, port)
        raise ConflictError(f"no port of {span[0]} to {span[1]} is free")
    if _overlap(source):
        raise SourceError("a port and the one above it are RTP and RTCP: picture and sound collide")
    for port in sorted(ports_of(source)):
        if port > _LAST_PORT:
            raise SourceError(f"rtp needs the port above for RTCP: {port - 1} is too high")
        if port in taken:
            raise ConflictError(f"port {port} belongs to the channel {taken[port]}")
        if not is_free(port):
            raise ConflictError(f"port {port} is taken by another program")
    if not is_published(source):
        source.check()
    return text


def _with_port(text: str, port: int) -> str:
    if "://" not in text:
        return f"{text.partition(':')[0]}:{port}"
    parts = urlsplit(text)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{port}{'?' if parts.query else ''}{parts.query}"


def _overlap(source: Source) -> bool:
    """Return whether the RTP port of picture or sound is the RTCP port of the other."""
    if not isinstance(source, RtpSource) or source.port is None or source.audio_port is None:
        return False
    return abs(source.port - source.audio_port) <= 1


def ready_source(definition: Definition, rtmp_port: int, number: int) -> Source:
    """Return a definition's source with everything filled in that it needs to be read.

    Raises:
        SourceError: the definition's text is no source (any more).
    """
    source = parse_source(definition.source, loop=not definition.once)
    if isinstance(source, TestSource):
        return replace(
            source,
            number=source.number or number,
            label=definition.title,
            has_font=_FONT.is_file(),
        )
    if isinstance(source, SrtSource) and not source.passphrase:
        return replace(source, passphrase=definition.key)
    if isinstance(source, RtmpSource):
        return replace(source, channel=definition.name, port=rtmp_port)
    return source


def way_of(source: Source) -> Way:
    """Return by which way a channel is fed."""
    match source:
        case WhipSource():
            return "whip"
        case RtmpSource():
            return "rtmp"
        case SrtSource():
            return "srt"
        case RtpSource():
            return "rtp"
        case UrlSource():
            return "url"
        case FileSource():
            return "file"
        case TestSource():
            return "test"


def has_key(source: Source) -> bool:
    """Return whether a publisher needs the channel's key."""
    return isinstance(source, (RtmpSource, SrtSource, WhipSource))


def is_published(source: Source) -> bool:
    """Return whether it is read only while a server of the site has a publisher for it."""
    return isinstance(source, (RtmpSource, WhipSource))


def publish_hints(
    source: Source, definition: Definition, host: str, console: str
) -> dict[str, str]:
    """Return what a producer enters, by the names that OBS and ffmpeg use; empty if nobody sends.

    Args:
        source: the channel's, settled.
        definition: the channel's, with its name and key.
        host: the address by which producers reach this machine.
        console: URL of the console there.
    """
    name, key = definition.name, definition.key
    match source:
        case WhipSource():
            url = f"{console}/whip/{name}"
            return {
                "OBS server": url,
                "OBS bearer token": key,
                **_camera_page(name, key, console),
                "GStreamer": f"... ! whipclientsink signaller::whip-endpoint={url}"
                f" signaller::auth-token={key}",
            }
        case RtmpSource(port=port):
            server = f"rtmp://{host}/live" if port in (None, 1935) else f"rtmp://{host}:{port}/live"
            return {
                "OBS server": server,
                "OBS stream key": key,
                "ffmpeg": f"ffmpeg -re -i FILE -c:v libx264 -c:a aac -f flv {server}/{key}",
            }
        case SrtSource(port=port, passphrase=passphrase):
            url = f"srt://{host}:{port}?mode=caller&passphrase={quote(passphrase, safe='')}"
            return {
                "OBS server": url,
                "ffmpeg": f"ffmpeg -re -i FILE -c:v libx264 -c:a aac -f mpegts '{url}'",
            }
        case RtpSource(port=port, codec="mp2t"):
            return {"ffmpeg": f"ffmpeg -re -i FILE -f rtp_mpegts rtp://{host}:{port}"}
        case RtpSource(port=port, audio_port=int(audio_port), audio_payload_type=number):
            picture = f"-map 0:v -an -c:v libx264 -f rtp 'rtp://{host}:{port}?pkt_size=1200'"
            # ffmpeg's own choice for sound would be 97.
            sound = f"-map 0:a -vn -c:a libopus -payload_type {number} -f rtp"
            return {"ffmpeg": f"ffmpeg -re -i FILE {picture} {sound} rtp://{host}:{audio_port}"}
        case RtpSource(port=port):
            return {
                "ffmpeg": f"ffmpeg -re -i FILE -an -c:v libx264 -f rtp 'rtp://{host}:{port}?pkt_size=1200'"
            }
    return {}


def _camera_page(name: str, key: str, console: str) -> dict[str, str]:
    """Return the page's address; the key is in the fragment, which no server ever sees."""
    page = f"/publish?channel={name}#key={key}"
    if console.startswith("https:"):
        return {"browser": console + page}
    # Browsers give cameras to HTTPS and to this machine only.
    port = urlsplit(console).port
    at = f"http://localhost{f':{port}' if port else ''}"
    return {"browser (this machine)": at + page}


def check_once(source: Source, *, once: bool) -> None:
    """See that ``once`` is asked of a file only.

    Raises:
        UsageError: it is asked of something that has no end.
    """
    if once and not hasattr(source, "path"):
        raise UsageError("only a file can be played once")
