"""KeepAlive Responder: answers SIP keep-alives in the server's name (seed 003, section 7.2).

A user agent behind a NAT sends ``NOTIFY`` with ``Event: keep-alive`` every few seconds. The answer
is what a stateless server answers (RFC 3261, sections 8.2.6 and 8.2.7): 200, with the request's
Via, From, To, Call-ID and CSeq. The request goes no further. All else is forwarded.
"""

import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anabranch.services.batch import Batch
from anabranch.services.frames import UDP
from anabranch.services.module import Module, Status

_METHOD = b"NOTIFY "
_EVENT = b"keep-alive"
_LINE_FEED = 10
_STATUS_LINE = b"SIP/2.0 200 OK\r\n"
_END = b"Content-Length: 0\r\n\r\n"
_COMPACT = {b"v": b"via", b"f": b"from", b"t": b"to", b"i": b"call-id", b"o": b"event"}
_COPIED = {b"via", b"from", b"to", b"call-id", b"cseq"}
_ONCE = _COPIED - {b"via"}
_TAG = b";tag="
_SHORTEST, _LONGEST = 60, 1400
_PLANS_PER_LENGTH = 4
_LENGTHS = 64
_FEW = 4

Piece = bytes | tuple[int, int]
"""Of an answer: these bytes, or those of the request from one place to another."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to answer all requests that are laid out like one: without reading them again.

    Attributes:
        request: that one.
        free: where another may have another byte, but no line feed.
        to: where the value of To is, in which a tag is added, or is already.
        tagged: whether it is already.
        pieces: the answer.
    """

    request: NDArray[np.uint8]
    free: NDArray[np.bool_]
    to: tuple[int, int]
    tagged: bool
    pieces: tuple[Piece, ...]

    def fits(self, requests: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Say which of some requests, (requests, bytes), are laid out like this one."""
        alike = requests != _LINE_FEED
        alike &= self.free
        alike |= requests == self.request
        fitting: NDArray[np.bool_] = alike.all(axis=1)
        fitting &= _has_tag(requests[:, self.to[0] : self.to[1]]) == self.tagged
        return fitting

    def answer(self, request: bytes) -> bytes:
        """Return the answer to the request itself."""
        return b"".join(
            piece if isinstance(piece, bytes) else request[piece[0] : piece[1]]
            for piece in self.pieces
        )

    def answers(self, requests: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the answers to such requests, a row each."""
        parts = [
            np.broadcast_to(np.frombuffer(piece, np.uint8), (len(requests), len(piece)))
            if isinstance(piece, bytes)
            else requests[:, piece[0] : piece[1]]
            for piece in self.pieces
        ]
        return np.concatenate(parts, axis=1)


def plan_for(request: bytes, tag: bytes) -> Plan | None:
    """Read a request; None: it is no keep-alive, or not of the plain form that is answered.

    Args:
        tag: of To in the answer, if the request has none there.
    """
    if not request.startswith(_METHOD) or b"\r\n\r\n" not in request:
        return None
    if _EVENT not in request.lower():
        return None  # said at once, and true of most others
    head = request[: request.index(b"\r\n\r\n") + 2]
    fixed = bytearray(len(request))
    fixed[: len(_METHOD)] = b"\xff" * len(_METHOD)
    pieces: list[Piece] = [_STATUS_LINE]
    seen: dict[bytes, tuple[int, int]] = {}
    at = head.index(b"\r\n") + 2
    fixed[at - 2 : at] = b"\xff\xff"
    while at < len(head):
        end = head.index(b"\r\n", at) + 2
        colon = head.find(b":", at, end)
        if colon < 0 or head[at : at + 1] in b" \t":
            return None  # folded lines are rare, and the server can read them
        name = head[at:colon].strip().lower()
        name = _COMPACT.get(name, name)
        fixed[at : colon + 1] = b"\xff" * (colon + 1 - at)
        fixed[end - 2 : end] = b"\xff\xff"
        if name == b"event":
            fixed[at:end] = b"\xff" * (end - at)
        if name in _ONCE and name in seen:
            return None
        seen[name] = (colon + 1, end - 2)
        if name in _COPIED:
            pieces.append((at, end))
        if name == b"to" and _TAG not in head[colon:end].lower():
            pieces[-1:] = [(at, end - 2), _TAG + tag + b"\r\n"]
        at = end
    fixed[at : at + 2] = b"\xff\xff"
    start, stop = seen.get(b"event", (0, 0))
    if request[start:stop].strip().lower() != _EVENT or not seen.keys() >= _COPIED:
        return None
    bytes_ = np.frombuffer(request, np.uint8)
    to = seen[b"to"]
    tagged = bool(_has_tag(bytes_[None, to[0] : to[1]])[0])
    if tagged != (_TAG in head[to[0] : to[1]].lower()):
        return None  # something that only looks like a letter
    return Plan(
        request=bytes_,
        free=np.frombuffer(bytes(fixed), np.uint8) == 0,
        to=to,
        tagged=tagged,
        pieces=(*pieces, _END),
    )


def _has_tag(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Say which rows have ``;tag=`` somewhere, in whatever case."""
    width = values.shape[1] - len(_TAG) + 1
    if width <= 0:
        return np.zeros(len(values), np.bool_)
    found = values[:, :width] == _TAG[0]
    if not bool(found.any()):
        return np.zeros(len(values), np.bool_)
    lower = values | 0x20  # of the letters; ";" and "=" have that bit already
    for offset in range(1, len(_TAG)):
        found &= lower[:, offset : offset + width] == _TAG[offset]
    tagged: NDArray[np.bool_] = found.any(axis=1)
    return tagged


class KeepAliveResponder(Module):
    """Answers by plans: requests of one layout, which those of one kind of phone are, together."""

    def __init__(self) -> None:
        self._plans: dict[int, list[Plan]] = {}
        self._tag = secrets.token_hex(6).encode()
        self._answered = 0

    def process(self, batch: Batch) -> None:
        if len(batch) <= _FEW:
            self._answer_few(batch)
            return
        lengths = batch.payload_length
        chosen = (batch.protocol == UDP) & ~batch.fragment
        chosen &= (lengths >= _SHORTEST) & (lengths <= _LONGEST)
        shapes = np.where(chosen, (batch.payload_start << 16) | lengths, 0)
        for shape in sorted(set(shapes.tolist())):
            if shape:
                rows = np.flatnonzero(shapes == shape)
                self._answer(batch, rows, shape >> 16, shape & 0xFFFF)

    def _answer_few(self, batch: Batch) -> None:
        """As for many, one by one: for so few, arrays take longer."""
        for index in range(len(batch)):
            request = batch.udp_payload(index)
            if request is None or not _SHORTEST <= len(request) <= _LONGEST:
                continue
            plan = plan_for(request, self._tag)
            if plan is not None:
                batch.reply(index, plan.answer(request))
                self._answered += 1

    def _answer(self, batch: Batch, rows: NDArray[np.intp], start: int, length: int) -> None:
        """Answer what is a keep-alive among packets of one length."""
        packets = batch.packets if len(rows) == len(batch) else batch.packets[rows]
        requests = packets[:, start : start + length]
        open_ = (requests[:, : len(_METHOD)] == np.frombuffer(_METHOD, np.uint8)).all(axis=1)
        plans = self._plans.setdefault(length, [])
        for plan in plans:
            if not bool(open_.any()):
                break
            self._use(plan, batch, rows, requests, open_)
        for index in np.flatnonzero(open_).tolist():
            made = plan_for(requests[index].tobytes(), self._tag) if open_[index] else None
            if made is not None:
                self._use(made, batch, rows, requests, open_)
                plans[:] = [made, *plans][:_PLANS_PER_LENGTH]
        if len(self._plans) > _LENGTHS:
            self._plans.pop(next(iter(self._plans)))

    def _use(
        self,
        plan: Plan,
        batch: Batch,
        rows: NDArray[np.intp],
        requests: NDArray[np.uint8],
        open_: NDArray[np.bool_],
    ) -> None:
        fitting = plan.fits(requests) & open_
        if bool(fitting.all()):
            batch.reply(rows, plan.answers(requests))
        elif bool(fitting.any()):
            batch.reply(rows[fitting], plan.answers(requests[fitting]))
        self._answered += int(fitting.sum())
        open_[fitting] = False

    def status(self) -> Status:
        return {"answered": self._answered}

    def take_state(self) -> bytes:
        return self._tag + b" %d" % self._answered

    def restore_state(self, state: bytes) -> None:
        tag, _, answered = state.partition(b" ")
        self._tag, self._answered = tag, int(answered)
