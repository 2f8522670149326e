"""Reads the SOURCE that an operator writes. Any text gives a source or a :class:`SourceError`."""

import re
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from anabranch.media.errors import SourceError
from anabranch.media.source import (
    RTP_CODECS,
    URL_KINDS,
    FileSource,
    RtmpSource,
    RtpSource,
    Source,
    SrtSource,
    TestSource,
    UrlSource,
    WhipSource,
    query_of,
)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_EXPECTED = (
    "expected test, test:N, a file's absolute path, rtmp, whip, srt[:PORT], rtp[:PORT] or a URL of "
    + ", ".join(sorted({*URL_KINDS, "rtp"}))
)


def parse_source(text: str, *, loop: bool = True) -> Source:
    """Return the source that ``text`` names; files are played over and over unless ``loop`` is off.

    ``test``, ``test:N``, ``/path`` or ``file:/path``, ``rtmp``, ``whip``, ``srt``,
    ``srt:PORT``, ``srt://:PORT?passphrase=...&latency=MS``, ``rtp``, ``rtp:PORT``,
    ``rtp://[HOST]:PORT?codec=h264|h265|vp8|mp2t&pt=96&audio_port=N&audio_pt=111&from=ADDRESS``,
    or a URL of an allowed protocol. Sources that listen and were given no port have ``port`` None.
    Whether a file is there is not looked at: that is the source's ``check``.

    Raises:
        SourceError: it is anything else; the message says why, and has no secrets.
    """
    text = text.strip()
    if not text:
        raise SourceError(f"the source is empty: {_EXPECTED}")
    if len(text) > 2048:
        raise SourceError("the source is longer than 2048 characters")
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise SourceError("the source has control characters")
    if text.startswith("/"):
        return _file(text, loop)
    plain: dict[str, Source] = {
        "test": TestSource(),
        "rtmp": RtmpSource(),
        "whip": WhipSource(),
        "srt": SrtSource(),
        "rtp": RtpSource(),
    }
    if text in plain:
        return plain[text]
    matched = _SCHEME.match(text)
    if matched is None:
        raise SourceError(f"not a source: {_EXPECTED}")
    scheme, rest = matched[1].lower(), text[matched.end() :]
    if scheme == "file":
        path = rest.removeprefix("//") if rest.startswith("///") else rest
        return _file(path, loop)
    if scheme == "test":
        return TestSource(_number(rest, "the test picture", 0, 999))
    if scheme in ("rtp", "srt") and not rest.startswith("//"):
        port = _number(rest, "the port", 1, 65535)
        return RtpSource(port) if scheme == "rtp" else SrtSource(port)
    return _url(text, scheme)


def _url(text: str, scheme: str) -> Source:
    if scheme not in URL_KINDS and scheme != "rtp":
        raise SourceError(f"the protocol {scheme!r} is not allowed: {_EXPECTED}")
    if any(char.isspace() for char in text):
        raise SourceError("the URL has spaces in it")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise SourceError(f"not a URL that can be read ({scheme})") from error
    if not parts.netloc and (scheme not in ("rtp", "srt") or parts.path):
        raise SourceError(f"the URL names no host: {scheme}://HOST/...")
    if scheme == "rtp":
        return _rtp(parts, host, port)
    if scheme == "srt" and host in ("", "0.0.0.0", "::"):
        return _srt(parts, host, port)
    if scheme == "udp":
        if port is None:
            raise SourceError("udp needs a port: udp://HOST:PORT or udp://:PORT")
    elif not host:
        raise SourceError(f"the URL names no host: {scheme}://HOST/...")
    if scheme in ("srt", "tcp") and port is None:
        raise SourceError(f"{scheme} needs a port: {scheme}://HOST:PORT")
    return UrlSource(text)


def _file(path: str, loop: bool) -> FileSource:
    if not path.startswith("/"):
        raise SourceError("a file is named by its absolute path")
    return FileSource(Path(path), once=not loop)


def _rtp(parts: SplitResult, host: str, port: int | None) -> RtpSource:
    query = _known(parts, {"codec", "pt", "audio_port", "audio_pt", "from"})
    if not re.fullmatch(r"[0-9A-Fa-f:.]*", host):
        raise SourceError("rtp listens: the host must be empty or an address of this machine")
    codec = query.get("codec", "h264").lower()
    if codec not in RTP_CODECS:
        raise SourceError(f"the codec must be one of {', '.join(RTP_CODECS)}")
    default = "33" if codec == "mp2t" else "96"
    audio_port = None
    if "audio_port" in query:
        audio_port = _number(query["audio_port"], "audio_port", 1, 65535)
        if audio_port == port or codec == "mp2t":
            raise SourceError("audio_port must be another port than the picture's, and not of mp2t")
    return RtpSource(
        port or None,
        host,
        codec,
        _number(query.get("pt", default), "pt", 0, 127),
        audio_port,
        _number(query.get("audio_pt", "111"), "audio_pt", 0, 127),
        _address(query.get("from", "")),
    )


def _address(text: str) -> str:
    try:
        return str(IPv4Address(text)) if text else ""
    except ValueError as error:
        raise SourceError("from must be the IPv4 address of whoever sends") from error


def _srt(parts: SplitResult, host: str, port: int | None) -> SrtSource:
    query = _known(parts, {"mode", "passphrase", "pbkeylen", "latency"})
    if query.get("mode", "listener") != "listener":
        raise SourceError("srt without a host can only listen")
    key_bytes = _number(query.get("pbkeylen", "16"), "pbkeylen", 16, 32)
    if key_bytes not in (16, 24, 32):
        raise SourceError("pbkeylen must be 16, 24 or 32")
    return SrtSource(
        port or None,
        host,
        check_passphrase(query.get("passphrase", "")),
        key_bytes,
        _number(query.get("latency", "120"), "latency (ms)", 0, 10_000),
    )


def check_passphrase(passphrase: str) -> str:
    """Return ``passphrase`` if SRT can carry it: empty, or 10 to 79 characters.

    Raises:
        SourceError: it cannot.
    """
    if passphrase and not 10 <= len(passphrase.encode()) <= 79:
        raise SourceError("an SRT passphrase has 10 to 79 characters")
    return passphrase


def _known(parts: SplitResult, names: set[str]) -> dict[str, str]:
    query = query_of(parts.query)
    unknown = sorted(set(query) - names)
    if unknown:
        raise SourceError(
            f"{parts.scheme}: unknown option {unknown[0][:40]!r}; known: {', '.join(sorted(names))}"
        )
    return query


def _number(text: str, what: str, low: int, high: int) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not low <= int(text) <= high:
        raise SourceError(f"{what} must be a number from {low} to {high}")
    return int(text)
