"""Overload Control, the sending entity at the edge (seed 003, 7.4; RFC 7339, RFC 7415).

It stands between user agents and a SIP server, and lets through as many requests a second as the
server's side says; the excess is answered here, with 503. It asks for its rate itself, from where
it runs: the server's side (:mod:`~anabranch.services.modules.overload.provider`) need not know it.

Properties:
    feedback: ``ADDRESS:PORT`` of the server's side, UDP. Without it the rate never changes.
    key: its public key, an OpenSSH line, by which it signs what it says.
    token: what reports to it have to contain.
    rate: requests a second until it has said something (default: no limit).
    validity: seconds for which ``rate`` holds (default 10; 0: for good).
    retry-after: seconds that a 503 asks for (default 5; 0: it does not).
"""

import json
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from typing import ClassVar, NamedTuple

import numpy as np

from anabranch.services.batch import Batch
from anabranch.services.blocks import sip
from anabranch.services.errors import KeyFileError, SignatureError
from anabranch.services.frames import UDP
from anabranch.services.keys import PublicKey
from anabranch.services.module import Context, Module, Status

PURPOSE = "overload-feedback"
REPORT_S = 0.5
_HEAR_S = 0.05
_REMEMBER_S = 32.0  # 64 T1: as long as a request is retransmitted (RFC 3261, 17.1)
_MOST_REMEMBERED = 65_536
_FREE = frozenset({b"ACK", b"CANCEL"})  # they end what was let in, and have no 503 (RFC 3261, 9.1)
_MAX_DATAGRAM = 1400


@dataclass(frozen=True, slots=True)
class Report:
    """What a sending entity says, each :data:`REPORT_S`, as one JSON object.

    Attributes:
        id: of the instance, drawn when it started.
        token: from its properties: who does not know it is nobody's instance.
        cookie: of the last feedback, which shows that it can be answered.
        offered, admitted, shed: requests since it started.
    """

    id: str
    token: str
    cookie: str
    offered: int
    admitted: int
    shed: int

    def encode(self) -> bytes:
        return json.dumps(
            [self.id, self.token, self.cookie, self.offered, self.admitted, self.shed]
        ).encode()

    @classmethod
    def parse(cls, data: bytes) -> "Report":
        """Read one. Raises ValueError."""
        match _json(data):
            case [str(name), str(token), str(cookie), int(offered), int(admitted), int(shed)] if (
                0 < len(name) <= 32 and min(offered, admitted, shed) >= 0
            ):
                return cls(name, token, cookie, offered, admitted, shed)
        raise ValueError("no report")


@dataclass(frozen=True, slots=True)
class Feedback:
    """What the server's side answers: the fields are those of RFC 7339, section 4.

    Attributes:
        id: of the instance that it is for.
        seq: grows with each; an older one is no news.
        rate: ``oc``: requests a second that may pass; None: no limit.
        validity: ``oc-validity``: seconds.
        cookie: for the next report.
    """

    id: str
    seq: int
    rate: float | None
    validity: float
    cookie: str

    def encode(self, sign: Callable[[str, bytes], bytes]) -> bytes:
        said = json.dumps([self.id, self.seq, self.rate, self.validity, self.cookie]).encode()
        return sign(PURPOSE, said).hex().encode() + b"\n" + said

    @classmethod
    def parse(cls, data: bytes, key: PublicKey) -> "Feedback":
        """Read one that ``key`` has signed. Raises ValueError."""
        signature, _, said = data.partition(b"\n")
        try:
            key.verify(PURPOSE, said, bytes.fromhex(signature.decode("ascii")))
        except SignatureError as error:
            raise ValueError(str(error)) from None
        match _json(said):
            case [str(name), int(seq), (None | int() | float()) as rate,
                  (int() | float()) as validity, str(cookie)] if (
                (rate is None or 0 <= rate < 1e9) and 0 < validity < 3600
            ):  # fmt: skip
                return cls(name, seq, rate, float(validity), cookie)
        raise ValueError("no feedback")


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None


class Kind(Enum):
    """How dearly a request is let in."""

    NEW = "new"
    PREFERRED = "preferred"
    """Within a dialog, or a call for help (RFC 7339, 5.10.1)."""


class Bucket:
    """The leaky bucket of RFC 7415, section 3.5: it fills with each request, and leaks at the rate.

    A new request needs more room in it than a preferred one; so when there is room for some only,
    it is for preferred ones.
    """

    tolerance: ClassVar = {Kind.NEW: 0.05, Kind.PREFERRED: 0.25}
    """Seconds of the rate's worth that may come at once (TAU1 and TAU2)."""

    def __init__(self, rate: float | None, now: float) -> None:
        self._rate = rate
        self._level = 0.0  # in requests
        self._at = now

    @property
    def rate(self) -> float | None:
        return self._rate

    def set_rate(self, rate: float | None, now: float) -> None:
        self._leak(now)
        self._rate = rate
        if rate is None:
            self._level = 0.0

    def admits(self, kind: Kind, now: float) -> bool:
        """Say whether there is room for a request, and take it."""
        if self._rate is None:
            return True
        self._leak(now)
        # Into an empty bucket one fits, however low the rate.
        if self._rate == 0 or self._level > self._rate * self.tolerance[kind] + 1e-9:
            return False
        self._level += 1
        return True

    def _leak(self, now: float) -> None:
        self._level = max(0.0, self._level - (now - self._at) * (self._rate or 0.0))
        self._at = now


class Recent:
    """The transactions that were let in lately: their retransmissions belong to them."""

    def __init__(self) -> None:
        self._since: dict[bytes, float] = {}

    def add(self, transaction: bytes, now: float) -> None:
        self._since[transaction] = now
        for first in list(islice(self._since, 2)):
            if self._since[first] < now - _REMEMBER_S or len(self._since) > _MOST_REMEMBERED:
                del self._since[first]

    def __contains__(self, transaction: bytes) -> bool:
        return transaction in self._since


class Answer(NamedTuple):
    """What is sent instead of a request, and to which port of its sender."""

    data: bytes
    port: int


class Admission:
    """Decides about one datagram after the other. Pure: time is passed in."""

    def __init__(self, bucket: Bucket, key: bytes, retry_after: int) -> None:
        self.bucket = bucket
        self.key = key
        self._headers = [(b"Retry-After", b"%d" % retry_after)] if retry_after else []
        self._recent = Recent()
        self.offered = self.admitted = self.shed = self.malformed = 0

    def decide(self, data: bytes, source: tuple[bytes, int], now: float) -> "Answer | bool":
        """Return True: let it pass; False: drop it; else how to answer it."""
        if not data.strip(b"\r\n\0") or data.startswith(b"SIP/2.0 "):
            return True  # keeps a NAT's binding open (RFC 5626, 3.5.1), or is a response
        try:
            request = sip.parse(data)
        except sip.SipError:
            self.malformed += 1
            return self._let_in(Kind.NEW, now)
        if sip.is_ack_to(request, self.key):
            return False  # to a 503 of ours: the server knows nothing of it
        if request.method in _FREE:
            return True
        transaction = request.transaction
        if transaction in self._recent:
            return True
        kind = Kind.PREFERRED if is_preferred(request) else Kind.NEW
        if self._let_in(kind, now):
            self._recent.add(transaction, now)
            return True
        tag = sip.stateless_tag(request, self.key)
        said = sip.respond(
            request, 503, b"Service Unavailable",
            to_tag=tag, source=source, headers=self._headers,
        )  # fmt: skip
        return Answer(said, sip.response_port(request, source[1]))

    def _let_in(self, kind: Kind, now: float) -> bool:
        self.offered += 1
        admitted = self.bucket.admits(kind, now)
        self.admitted += admitted
        self.shed += not admitted
        return admitted


def is_preferred(request: sip.Message) -> bool:
    """Say whether a request goes on with what was begun, or calls for help (RFC 5031)."""
    return bool(request.to_tag) or request.uri.lower().startswith(b"urn:service:sos")


class OverloadControl(Module):
    """The adapter: packets to :class:`Admission`, reports and feedback over a socket."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._id = secrets.token_hex(8)
        self._seq = -1
        self._cookie = ""
        self._valid_until: float | None = None
        self._place: tuple[str, int] | None = None
        self._key: PublicKey | None = None
        self._socket: socket.socket | None = None
        self._report_at = 0.0

    def configure(self, context: Context) -> None:
        given = context.properties
        rate = _number(given, "rate", None, 0.0)
        validity = _number(given, "validity", 10.0, 0.0)
        retry_after = _number(given, "retry-after", 5.0, 0.0)
        assert validity is not None
        assert retry_after is not None
        self._log = context.log
        now = self._clock()
        self._token = given.get("token", "")
        if "feedback" in given:
            if context.address is None:
                raise ValueError("feedback: the sandbox has no address to ask from")
            self._place = _place(given["feedback"])
            try:
                self._key = PublicKey.parse(given.get("key", ""))
            except KeyFileError as error:
                raise ValueError(f"key: {error}") from None
            context.every(_HEAR_S, self._exchange)
        if rate is not None and validity:
            self._valid_until = now + validity
        self.admission = Admission(Bucket(rate, now), secrets.token_bytes(16), int(retry_after))

    def start(self) -> None:
        if self._place is not None:
            family = socket.AF_INET6 if ":" in self._place[0] else socket.AF_INET
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.connect(self._place)

    def stop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def process(self, batch: Batch) -> None:
        now = self._clock()
        room = min(batch.packets.shape[1] - 60, _MAX_DATAGRAM)
        judged = (batch.protocol == UDP) & (batch.destination_port != 0)
        drops: list[int] = []
        replies: list[int] = []
        answers: list[Answer] = []
        whole = judged & ~batch.fragment
        ports = batch.source_port
        for index in np.flatnonzero(judged).tolist():
            source = str(_source(batch, index)).encode(), int(ports[index])
            verdict = self.admission.decide(bytes(batch.payload(index)), source, now)
            if verdict is True:
                continue
            if verdict is False or len(verdict.data) > room or not whole[index]:
                drops.append(index)
            else:
                replies.append(index)
                answers.append(verdict)
        if drops:
            batch.drop(np.array(drops))
        if replies:
            batch.reply(np.array(replies), [answer.data for answer in answers])
            for index, answer in zip(replies, answers, strict=True):
                if answer.port != ports[index]:
                    batch.rewrite(index, destination_port=answer.port)

    def status(self) -> Status:
        one = self.admission
        rate = one.bucket.rate
        return {
            "rate": "unlimited" if rate is None else round(rate, 1),
            "offered": one.offered, "admitted": one.admitted, "shed": one.shed,
            "malformed": one.malformed,
        }  # fmt: skip

    def take_state(self) -> bytes:
        state = {"rate": self.admission.bucket.rate, "key": self.admission.key.hex()}
        return json.dumps(state).encode()

    def restore_state(self, state: bytes) -> None:
        known = json.loads(state)
        self.admission.key = bytes.fromhex(known["key"])
        if known["rate"] is not None:
            self.admission.bucket.set_rate(known["rate"], self._clock())
            self._valid_until = self._clock() + 10.0 if self._place is not None else None

    # The feedback loop

    def _exchange(self) -> None:
        """Hear what there is, and report if it is time."""
        now = self._clock()
        for data in self._heard():
            self.hear(data, now)
        if self._valid_until is not None and now >= self._valid_until:
            self._valid_until = None
            self.admission.bucket.set_rate(None, now)
            self._log.warning("the server's side is silent: everything passes")
        if now >= self._report_at and self._socket is not None:
            self._report_at = now + REPORT_S
            one = self.admission
            report = Report(
                self._id, self._token, self._cookie, one.offered, one.admitted, one.shed
            )
            try:
                self._socket.send(report.encode())
            except OSError as error:  # nobody listens, the way is broken: later again
                self._log.debug("no report: %s", error)

    def _heard(self) -> Iterable[bytes]:
        while self._socket is not None:
            try:
                yield self._socket.recv(_MAX_DATAGRAM)
            except OSError:  # there is nothing more; or nobody listens at the other end
                return

    def hear(self, data: bytes, now: float) -> None:
        """Take feedback; what is not signed, not for us or not new changes nothing."""
        assert self._key is not None
        try:
            feedback = Feedback.parse(data, self._key)
        except ValueError as error:
            self._log.debug("feedback refused: %s", error)
            return
        if feedback.id != self._id or feedback.seq <= self._seq:
            return
        self._seq, self._cookie = feedback.seq, feedback.cookie
        self._valid_until = now + feedback.validity
        if feedback.rate != self.admission.bucket.rate:
            self.admission.bucket.set_rate(feedback.rate, now)


def _number(given: Mapping[str, str], name: str, usual: float | None, least: float) -> float | None:
    text = given.get(name)
    if text is None:
        return usual
    value = float(text)
    if not least <= value < 1e9:
        raise ValueError(f"{name}: {text} is out of range")
    return value


def _place(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    host = ip_address(address.strip("[]"))
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"feedback: {text!r} is no ADDRESS:PORT")
    return str(host), int(port)


def _source(batch: Batch, index: int) -> IPv4Address | IPv6Address:
    if batch.version[index] == 4:
        return IPv4Address(int(batch.source[index]))
    return IPv6Address(batch.source6[index].tobytes())
