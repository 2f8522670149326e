"""What the RTMP server says of its publishers: the page of nginx-rtmp's ``rtmp_stat``. Pure."""

from xml.etree import ElementTree

from anabranch.media.errors import RtmpError
from anabranch.media.publisher_figures import Reception, SourcePicture

MAX_PAGE = 2**20
"""Bytes of it."""
_DIGITS = 15


def read_stat(page: bytes) -> dict[str, Reception]:
    """Return what has come of each publisher, by the server's number of its connection.

    Raises:
        RtmpError: it is no such page.
    """
    if len(page) > MAX_PAGE:
        raise RtmpError("the RTMP server's figures are too long")
    try:
        # Our own server's words, in which what publishers say is escaped.
        root = ElementTree.fromstring(page)  # noqa: S314
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise RtmpError("the RTMP server's figures cannot be read") from error
    return {
        name: Reception(octets=octets, picture=_picture(stream.find("meta/video")))
        for stream in root.iterfind("server/application/live/stream")
        for client in stream.iterfind("client")
        if client.find("publishing") is not None
        and (name := client.findtext("id"))
        and (octets := _number(stream.findtext("bytes_in"))) is not None
    }


def _picture(said: ElementTree.Element | None) -> SourcePicture | None:
    if said is None:
        return None
    codec = said.findtext("codec") or ""
    return SourcePicture(
        codec.lower() if codec.isascii() and codec.isalnum() else None,
        _number(said.findtext("width")) or None,
        _number(said.findtext("height")) or None,
        _number(said.findtext("frame_rate")) or None,
    )


def _number(text: str | None) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > _DIGITS:
        return None
    return int(text)
