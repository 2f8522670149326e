"""What the next director must know of publishers by WHIP, and nobody else could tell it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from anabranch.host import holdings
from anabranch.media.publisher_figures import Connection
from anabranch.media.source import RtpStream

_NOTE = "publishers:whip"


@dataclass(frozen=True, slots=True)
class NotedPublisher:
    """A publisher that was let in.

    Attributes:
        channel: by name.
        streams: how ffmpeg reads it.
        connection: None: it was not connected yet.
        ports: at which its layers arrive as streams of the channel; None: it has none, or they
            did not fit.
        layers: by rendition the layer that is sent as it.
    """

    id: str
    channel: str
    streams: tuple[RtpStream, ...]
    connection: Connection | None = None
    ports: Mapping[str, int] | None = None
    layers: Mapping[str, str | None] = field(default_factory=dict)


def note_publishers(run_id: str, publishers: Iterable[NotedPublisher]) -> None:
    """Note exactly these for the next director."""
    holdings.note(run_id, _NOTE, [asdict(each) for each in publishers] or None)


def noted_publishers(run_id: str) -> list[NotedPublisher]:
    """Return those that an earlier director has noted."""
    return [
        NotedPublisher(
            said["id"],
            said["channel"],
            tuple(RtpStream(**stream) for stream in said["streams"]),
            None if said["connection"] is None else Connection(**said["connection"]),
            said["ports"],
            said["layers"],
        )
        for said in holdings.noted(run_id, _NOTE) or ()
    ]
