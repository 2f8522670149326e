"""The client's side of one connection to a database server, without any I/O.

Source: RFC 7047, section 4 (JSON-RPC 1.0 without delimiters between the messages).
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.ovsdb.values import Row, decode_row

MAX_MESSAGE = 64 * 1024 * 1024
_MAX_DEPTH = 64
_OUTSIDE = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'["\\]')
_BLANK = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the request ``id``: ``error`` is None, or else there is no result."""

    id: int
    result: Any
    error: Any


@dataclass(frozen=True, slots=True)
class RowUpdate:
    """What happened to a row: both are set when it changed; ``old`` has changed columns only."""

    table: str
    uuid: str
    old: Row | None
    new: Row | None


@dataclass(frozen=True, slots=True)
class Update:
    """Changes under the monitor of that name."""

    monitor: str
    rows: tuple[RowUpdate, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """The server went silent: close the connection."""

    reason: str


SessionEvent = Reply | Update | Lost


class Framer:
    """Cuts a stream of JSON objects into single ones; looks at every byte once."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._looked = 0
        self._depth = 0
        self._in_string = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the objects that ``data`` completes.

        Raises:
            ProtocolError: something else than an object, or one too long or too deep.
        """
        self._buffer += data
        complete = []
        while (end := self._end()) is not None:
            complete.append(bytes(self._buffer[:end]))
            del self._buffer[:end]
            self._looked = 0
        if len(self._buffer) > MAX_MESSAGE:
            raise ProtocolError(f"a message of more than {MAX_MESSAGE} bytes")
        return complete

    def _end(self) -> int | None:
        """Go on to the end of the first object; None if it is not there yet."""
        if self._depth == 0:
            start = len(self._buffer) - len(self._buffer.lstrip(_BLANK))
            del self._buffer[:start]
            if self._buffer and self._buffer[0] != ord("{"):
                raise ProtocolError(f"not a JSON object: {bytes(self._buffer[:40])!r}")
        while True:
            pattern = _INSIDE if self._in_string else _OUTSIDE
            found = pattern.search(self._buffer, self._looked)
            if found is None:
                self._looked = len(self._buffer)
                return None
            self._looked = found.end()
            match found[0]:
                case b"\\":
                    if self._looked == len(self._buffer):  # what it escapes is still to come
                        self._looked -= 1
                        return None
                    self._looked += 1
                case b'"':
                    self._in_string = not self._in_string
                case b"{" | b"[":
                    self._depth += 1
                    if self._depth > _MAX_DEPTH:
                        raise ProtocolError(f"JSON nested deeper than {_MAX_DEPTH}")
                case _:
                    self._depth -= 1
                    if self._depth == 0:
                        return self._looked


class Session:
    """One connection from its first byte to its last.

    Args:
        now: monotonic seconds.
        silence: seconds without a message after which an echo is asked for.
        lost_after: seconds without a message after which the server counts as lost.
    """

    def __init__(self, now: float, *, silence: float = 5.0, lost_after: float = 15.0) -> None:
        self._silence = silence
        self._lost_after = lost_after
        self._heard = now
        self._echoed = now
        self._framer = Framer()
        self._out = bytearray()
        self._id = 0
        self._echoes: set[int] = set()
        self._closed = False

    def request(self, method: str, params: list[Any]) -> int:
        """Queue a request and return its id; a :class:`Reply` with it follows.

        Raises:
            MisuseError: the parameters are no JSON, or the session is closed.
        """
        if self._closed:
            raise MisuseError("the session with this database is closed")
        self._id += 1
        self._send({"method": method, "params": params, "id": self._id})
        return self._id

    def data_to_send(self) -> bytes:
        """Return, once, the bytes to be sent now."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes, now: float) -> list[SessionEvent]:
        """Take bytes from the server and return what they mean.

        Raises:
            ProtocolError: the server broke the protocol: close; later bytes are ignored.
        """
        if self._closed:
            return []
        events: list[SessionEvent] = []
        try:
            for raw in self._framer.feed(data):
                self._heard = now
                events += self._handle(_parse(raw))
        except ProtocolError:
            self._closed = True
            raise
        return events

    def next_timer(self) -> float | None:
        """Return when ``handle_timer`` is due, in monotonic seconds; None for never."""
        if self._closed:
            return None
        return min(max(self._heard, self._echoed) + self._silence, self._heard + self._lost_after)

    def handle_timer(self, now: float) -> list[SessionEvent]:
        """Do what is due at ``now``: ask for an echo or give the server up."""
        due = self.next_timer()
        if due is None or now < due:
            return []
        if now - self._heard >= self._lost_after:
            self._closed = True
            return [Lost(f"the database was silent for {now - self._heard:.1f} s")]
        self._echoed = now
        self._echoes.add(self.request("echo", []))
        return []

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._out += json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise MisuseError(f"not to be said in JSON: {error}") from error

    def _handle(self, message: dict[str, Any]) -> list[SessionEvent]:
        match message:
            case {"method": "echo", "params": list(params), "id": id_} if id_ is not None:
                self._send({"result": params, "error": None, "id": id_})
                return []
            case {"method": "update", "params": [str(monitor), updates]}:
                return [Update(monitor, row_updates(updates))]
            case {"method": str(), "params": list()}:
                return []  # a notification that is not for us, as that of a lock
            # ovsdb-server leaves out the result beside an error, which the RFC does not allow.
            case {"id": int(id_)} if message.keys() & {"result", "error"}:
                if id_ in self._echoes:
                    self._echoes.discard(id_)
                    return []
                return [Reply(id_, message.get("result"), message.get("error"))]
        raise ProtocolError(f"neither request nor reply: {str(message)[:80]}")


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        message = json.loads(raw, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from error
    assert isinstance(message, dict)  # the framer saw to that
    return message


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large")
    return number


def row_updates(raw: object) -> tuple[RowUpdate, ...]:
    """Return what a ``table-updates`` object says (RFC 7047, section 4.1.6).

    Raises:
        ProtocolError: it is none.
    """
    if not isinstance(raw, dict) or not all(isinstance(rows, dict) for rows in raw.values()):
        raise ProtocolError(f"not the changes of tables: {str(raw)[:80]}")
    return tuple(
        _row_update(table, uuid, change)
        for table, rows in raw.items()
        for uuid, change in rows.items()
    )


def _row_update(table: str, uuid: str, raw: object) -> RowUpdate:
    if not isinstance(raw, dict) or not raw.keys() & {"old", "new"}:
        raise ProtocolError(f"not the change of a row: {str(raw)[:80]}")
    old = decode_row(raw["old"]) if "old" in raw else None
    new = decode_row(raw["new"]) if "new" in raw else None
    return RowUpdate(table, uuid, old, new)


def results(raw: object, count: int) -> list[dict[str, Any]]:
    """Return the results of a transaction of ``count`` operations (RFC 7047, section 4.1.3).

    Raises:
        MisuseError: the database refused an operation, which is the whole transaction.
        ProtocolError: this is no such answer.
    """
    if not isinstance(raw, list) or len(raw) < count:
        raise ProtocolError(f"not the answer to a transaction: {str(raw)[:80]}")
    for number, result in enumerate(raw):
        if isinstance(result, dict) and "error" in result:
            what = f"operation {number + 1}" if number < count else "the transaction"
            details = str(result.get("details", ""))[:300]
            raise MisuseError(f"the database refused {what}: {result['error']} {details}".strip())
    if not all(isinstance(result, dict) for result in raw[:count]):
        raise ProtocolError(f"not the results of operations: {str(raw)[:80]}")
    return raw[:count]


def result_rows(result: dict[str, Any]) -> list[Row]:
    """Return the rows that a ``select`` found."""
    rows = result.get("rows")
    if not isinstance(rows, list):
        raise ProtocolError(f"not the answer to a select: {str(result)[:80]}")
    return [decode_row(row) for row in rows]
