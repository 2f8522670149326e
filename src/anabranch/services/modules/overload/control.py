"""Overload Control, the receiving entity: how much may come, and how it is shared out. Pure.

It needs no figure for what the server can do: while a queue stands before it, the server is busy
all the time, so what it serves then is what it can. A queue that passes says nothing: what counts
is the shortest delay of a while, as in CoDel (RFC 8289, 3.2).
"""

import hmac
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from anabranch.services.modules.overload.overload import Feedback, Report

_SMOOTHING = 0.3
_GROWTH = {"first": 1.5, "later": 1.15}  # a second: to find the capacity, to follow it
_LEAST_SHARE = 0.3  # of what is served: so much may come even while a long queue drains
_RESUMED = 0.9  # of the capacity, once a queue is gone
_WINDOW = 4  # measurements
_GONE_S = 3.0
_MOST = 1000  # sending entities


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When the server is overloaded.

    Attributes:
        delay: seconds that requests may wait before control begins; the user agents send theirs
            again after 0.5 (T1).
        target: seconds that they may wait under control.
        capacity: requests a second that are always too many; None: only the delay counts.
        calm: seconds without delay and without anything shed, after which control ends.
        least: requests a second that may come in any case.
    """

    delay: float = 0.2
    target: float = 0.1
    capacity: float | None = None
    calm: float = 30.0
    least: float = 1.0


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured.

    Attributes:
        served: requests that the server took up, each second; ACK and CANCEL do not count.
        delay: seconds that a request waits there now.
    """

    served: float
    delay: float


class RateController:
    """The control loop. Attribute ``rate``: requests a second that may come; None: no limit."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._is = thresholds
        self.rate: float | None = None
        self._most = float("inf") if thresholds.capacity is None else thresholds.capacity
        self._capacity, self._growth, self._resumed = 0.0, _GROWTH["first"], False
        self._delays: deque[float] = deque(maxlen=_WINDOW)
        self._at: float | None = None
        self._busy_at = 0.0

    def update(self, load: Load, *, shedding: bool, now: float) -> None:
        """Take a measurement; ``shedding``: whether something was turned away since the last."""
        since = 0.0 if self._at is None else now - self._at
        self._at = now
        self._delays.append(load.delay)
        standing = min(self._delays)
        if standing > self._is.target or shedding or load.served > self._most:
            self._busy_at = now
        if self.rate is None:
            before = self._delays[-2] if len(self._delays) > 1 else 0.0
            begins = min(load.delay, before) > self._is.delay or load.delay > 2 * self._is.delay
            if begins or load.served > self._most:
                self._busy_at = now
                self._capacity, self._growth, self._resumed = load.served, _GROWTH["first"], False
                self._set(load.served)
        elif now - self._busy_at > self._is.calm:
            self.rate = None
        elif standing > self._is.target:
            if self._resumed:
                self._growth = _GROWTH["later"]
            self._capacity += _SMOOTHING * (load.served - self._capacity)
            late = standing - self._is.target
            self._set(self._capacity * max(1.0 - late, _LEAST_SHARE))
        elif self.rate < self._capacity * _RESUMED:
            self._resumed = True
            self._set(self._capacity * _RESUMED)  # the queue is gone
        elif shedding:
            self._set(self.rate * self._growth**since)

    def _set(self, rate: float) -> None:
        self.rate = max(min(rate, self._most), self._is.least)


@dataclass(slots=True)
class _Entity:
    """A sending entity, as its last report shows it."""

    report: Report
    at: float
    demand: float = 0.0
    shed: int = 0


class Entities:
    """The sending entities that report, and what each may send.

    Args:
        secret: for the cookies, by which a report shows that its sender is where it says.
        token: that instances were told; a report without it is nobody's.
    """

    def __init__(self, secret: bytes, token: str) -> None:
        self._secret = secret
        self._token = token
        self._known: dict[str, _Entity] = {}
        self._shed = 0

    def __len__(self) -> int:
        return len(self._known)

    def take(self, report: Report, source: tuple[str, int], now: float) -> None:
        """Take a report; one without the right cookie counts for nothing."""
        if not _same(report.cookie, self.cookie(source)):
            return
        known = self._known.get(report.id)
        if known is None and len(self._known) >= _MOST:
            return
        if known is None:
            self._known[report.id] = _Entity(report, now)
            return
        passed = now - known.at
        if passed <= 0.05:
            return
        offered = report.offered - known.report.offered
        shed = report.shed - known.report.shed
        if offered >= 0 and shed >= 0:  # else it began anew
            known.demand = offered / passed
            self._shed += shed
        known.report, known.at = report, now

    def knows(self, report: Report) -> bool:
        """Say whether a report is from an instance of ours."""
        return _same(report.token, self._token)

    def took_shed(self) -> bool:
        """Say whether anything was turned away since this was asked last."""
        shed, self._shed = self._shed, 0
        return shed > 0

    def forget_silent(self, now: float) -> None:
        """Forget those that have not reported lately."""
        self._known = {k: v for k, v in self._known.items() if now - v.at < _GONE_S}

    def answer(
        self, report: Report, source: tuple[str, int], rate: float | None, seq: int, validity: float
    ) -> Feedback:
        """Return the feedback for a report: its share of the rate."""
        share = rate
        if rate is not None:
            demands = {name: entity.demand for name, entity in self._known.items()}
            demands.setdefault(report.id, 0.0)
            share = round(shares(rate, demands)[report.id], 3)
        return Feedback(report.id, seq, share, validity, self.cookie(source))

    def cookie(self, source: tuple[str, int]) -> str:
        return hmac.digest(self._secret, f"{source[0]} {source[1]}".encode(), "sha256")[:12].hex()


def _same(one: str, other: str) -> bool:
    # JSON can name halves of characters.
    return hmac.compare_digest(one.encode(errors="surrogatepass"), other.encode())


def shares(rate: float, demands: Mapping[str, float]) -> dict[str, float]:
    """Share a rate out so that the smallest shares are as large as can be (max-min fairness).

    What nobody asks for is given to all alike: a demand is always of the past.
    """
    given: dict[str, float] = {}
    left, waiting = rate, sorted(demands.items(), key=lambda each: each[1])
    for number, (name, demand) in enumerate(waiting):
        given[name] = min(demand, left / (len(waiting) - number))
        left -= given[name]
    return {name: share + left / len(given) for name, share in given.items()}
