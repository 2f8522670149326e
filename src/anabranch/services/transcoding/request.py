"""What a sandbox asks of the transcoder, and the answers: JSON, one a packet, descriptors beside.

The socket is a SOCK_SEQPACKET pair that the node opened; see docs/protocols/transcoding.md. What
is to be read and written comes as descriptors of regular files, so there are no names. Pure.
"""

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from anabranch.services.errors import ServicesError

MAX_MESSAGE = 4096
MAX_DESCRIPTORS = 3
LATEST_S = 24 * 3600.0
"""No clip is inserted later than this."""
_MAX_NUMBER = 2**53


class TranscodingError(ServicesError):
    """A job that was refused or has failed; the message says why."""


class Verb(StrEnum):
    """What can be done, and with how many descriptors to read."""

    DESCRIBE = "describe"
    CONVERT = "convert"
    INSERT = "insert"
    CANCEL = "cancel"

    @property
    def inputs(self) -> int:
        return {"describe": 1, "convert": 1, "insert": 2, "cancel": 0}[self.value]

    @property
    def writes(self) -> bool:
        return self in {Verb.CONVERT, Verb.INSERT}


class Container(StrEnum):
    """Of what is written: MP4 in fragments (ISO/IEC 14496-12), or MPEG-TS (ISO/IEC 13818-1)."""

    MP4 = "mp4"
    TS = "ts"


@dataclass(frozen=True, slots=True)
class Request:
    """One job, or the end of one.

    Attributes:
        number: names the job; of CANCEL: the one that is meant.
        container: of what is written.
        at: seconds of the first input before which the second is inserted.
    """

    number: int
    verb: Verb
    container: Container = Container.MP4
    at: float = 0.0

    @property
    def descriptors(self) -> int:
        return self.verb.inputs + self.verb.writes

    def encode(self) -> bytes:
        return json.dumps(
            {"job": self.number, "do": self.verb, "container": self.container, "at": self.at}
        ).encode()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a request. Raises TranscodingError."""
        message = _object(data)
        try:
            verb = Verb(str(message.get("do")))
            container = Container(str(message.get("container", "mp4")))
        except ValueError as error:
            raise TranscodingError(f"{error}") from None
        at = message.get("at", 0.0)
        if isinstance(at, bool) or not isinstance(at, int | float):
            raise TranscodingError("at: no number")
        if not math.isfinite(at) or not 0 <= at <= LATEST_S:
            raise TranscodingError(f"at: 0 to {LATEST_S:g} seconds")
        return cls(_number(message), verb, container, float(at))


@dataclass(frozen=True, slots=True)
class Answer:
    """How a job ended.

    Attributes:
        error: empty if it was done.
        seconds: how long it took.
        facts: of DESCRIBE.
    """

    number: int
    error: str = ""
    seconds: float = 0.0
    facts: "Facts | None" = None

    def encode(self) -> bytes:
        message: dict[str, Any] = {"job": self.number, "seconds": round(self.seconds, 3)}
        if self.error:
            message["error"] = self.error[:500]
        if self.facts is not None:
            message["facts"] = self.facts.to_message()
        return json.dumps(message).encode()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an answer. Raises TranscodingError."""
        message = _object(data)
        facts = message.get("facts")
        try:
            return cls(
                _number(message),
                str(message.get("error", "")),
                float(message.get("seconds", 0.0)),
                None if facts is None else Facts(**facts),
            )
        except (TypeError, ValueError) as error:
            raise TranscodingError(f"no answer: {error}") from None


@dataclass(frozen=True, slots=True)
class Facts:
    """What ffprobe finds in a file.

    Attributes:
        kind: demuxer, such as ``mov``.
        duration: seconds; 0: unknown.
        width, height: pixels, of the first picture; 0: it has none.
        rate: pictures a second; 0: unknown.
        sound: whether it has any.
    """

    kind: str
    duration: float = 0.0
    width: int = 0
    height: int = 0
    rate: float = 0.0
    sound: bool = False

    def to_message(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "duration": self.duration, "width": self.width,
            "height": self.height, "rate": self.rate, "sound": self.sound,
        }  # fmt: skip


def _object(data: bytes) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        raise TranscodingError("no JSON") from None
    if not isinstance(message, dict):
        raise TranscodingError("no object")
    return message


def _number(message: dict[str, Any]) -> int:
    number = message.get("job")
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < _MAX_NUMBER:
        raise TranscodingError("job: no number")
    return number
