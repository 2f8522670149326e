"""Signs of trouble in the figures that arrive at the root, and who suffers: most or a few.

A sign (a subtree's figure has crossed a threshold) makes the root ask that subtree's node
(REQFULLSTATS) and go down to where the trouble is; nobody else is asked (seed 000, 1.2.3).
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from anabranch.core.errors import UsageError
from anabranch.tree.metrics import (
    MACHINES,
    THRESHOLDS,
    Severity,
    Threshold,
    share,
    weight_of,
)
from anabranch.tree.soleil.messages import StreamStats


class Scope(StrEnum):
    """Whom a trouble concerns."""

    FEW = "few"
    MOST = "most"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Sign:
    """A figure of a subtree has become that bad; ``NONE``: its trouble has ended."""

    subtree: str
    stream: str
    metric: str
    severity: Severity


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a REQFULLSTATS about ``stream`` to ``node``."""

    node: str
    stream: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Where a trouble is.

    Attributes:
        node: the lowest node whose subtree has all of it.
        share: of the viewers below ``node``, or of its machines, 0 to 1.
        scope: ``NODE`` where the figure is about machines.
    """

    node: str
    stream: str
    metric: str
    share: float
    severity: Severity
    scope: Scope


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """When figures are a sign.

    Attributes:
        notice: share of viewers in trouble from which on there is a sign, whatever the mean.
        most: share from which on most suffer.
        rounds: successive rounds that a figure has to be bad: a failure that the switches mend
            within a second shows in two.
        calm_s: seconds that it has to be good for the trouble to be over.
        patience_s: seconds after which a node that has not answered is asked again.
        review_s: seconds after which a diagnosis is made anew while the trouble lasts.
        widest: bad children of one node that are asked at a time, the worst first.

    Raises:
        UsageError: a share is not within 0 to 1, a number too small.
    """

    notice: float = 0.1
    most: float = 0.5
    rounds: int = 3
    calm_s: float = 30.0
    patience_s: float = 5.0
    review_s: float = 30.0
    widest: int = 8

    def __post_init__(self) -> None:
        for name in ("notice", "most"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(f"the sensitivity {name} is a share, above 0 and at most 1")
        for name in ("rounds", "widest"):
            if getattr(self, name) < 1:
                raise UsageError(f"the sensitivity {name} needs to be 1 or more")
        for name in ("calm_s", "patience_s", "review_s"):
            if not 0 <= getattr(self, name) < inf:
                raise UsageError(f"the sensitivity {name} needs to be 0 or more")


def severity_of(
    stats: StreamStats, metric: str, threshold: Threshold, notice: float, *, ease: float = 1.0
) -> Severity:
    """Return how bad a container's figure is: by its mean, or by the share of those in trouble.

    Args:
        stats: the container.
        metric: name of a level.
        threshold: of that level.
        notice: share from which on those in trouble count.
        ease: what the thresholds, and ``notice``, are multiplied by.
    """
    found = threshold.severity(stats.values.get(metric, 0.0), ease)
    for severity in (Severity.DANGER, Severity.WARNING):
        part = share(stats, metric, severity)
        if part is not None and part >= notice * ease and part > 0:
            return max(found, severity)
    return found


@dataclass(slots=True)
class _Hysteresis:
    """How bad one figure counts as: up after ``rounds`` rounds, down after ``calm_s`` seconds."""

    severity: Severity = Severity.NONE
    _rising: list[Severity] = field(default_factory=list)
    _falling: Severity = Severity.NONE
    _calm_since: float | None = None

    def step(self, up: Severity, hold: Severity, now: float, sensitivity: Sensitivity) -> bool:
        """Take a round; say whether the severity has changed.

        Args:
            up: how bad the figure is by the thresholds.
            hold: how bad it is by the lower bounds; never better than ``up``.
            now: monotonic seconds.
            sensitivity: how long is long enough.
        """
        before = self.severity
        self._rising = [*self._rising, up][-sensitivity.rounds :]
        if len(self._rising) == sensitivity.rounds:
            self.severity = max(before, min(self._rising))
        if hold >= self.severity:
            self._calm_since = None
            return self.severity is not before
        if self._calm_since is None:
            self._calm_since, self._falling = now, hold
        self._falling = max(self._falling, hold)
        if now - self._calm_since >= sensitivity.calm_s:
            self.severity, self._calm_since = self._falling, None
        return self.severity is not before


@dataclass(slots=True)
class _Case:
    """What is known of one sign, and the way down from its subtree to where the trouble is."""

    sign: Sign
    began: float = -inf
    waiting: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    finding: dict[str, Diagnosis] = field(default_factory=dict)
    found: dict[str, Diagnosis] = field(default_factory=dict)


_Key = tuple[str, str, str]


class Watch:
    """Looks for signs in each round's figures; sans-IO.

    Args:
        thresholds: by name of the level.
        sensitivity: when figures are a sign.
    """

    def __init__(
        self,
        *,
        thresholds: Mapping[str, Threshold] = THRESHOLDS,
        sensitivity: Sensitivity | None = None,
    ) -> None:
        self._thresholds = thresholds
        self._sensitivity = sensitivity or Sensitivity()
        self._levels: dict[_Key, _Hysteresis] = {}
        self._cases: dict[_Key, _Case] = {}

    def diagnoses(self) -> tuple[Diagnosis, ...]:
        """Return what is known of all troubles that last."""
        return tuple(
            dict.fromkeys(found for case in self._cases.values() for found in case.found.values())
        )

    def take(self, subtree: str, containers: Iterable[StreamStats], now: float) -> list[Sign | Ask]:
        """Take a child's report; return what has changed and whom to ask.

        Args:
            subtree: the child's name.
            containers: of its whole last report: a stream that is not among them is well.
            now: monotonic seconds.
        """
        by_stream = {container.stream: container for container in containers}
        known = {key for key in self._levels if key[0] == subtree}
        known |= {
            (subtree, stream, metric)
            for stream, container in by_stream.items()
            for metric in self._thresholds.keys() & container.values.keys()
        }
        found: list[Sign | Ask] = []
        for key in sorted(known):
            found += self._step(key, by_stream.get(key[1]), now)
        return found

    def forget(self, subtree: str) -> list[Sign | Ask]:
        """Drop a child that has left; its troubles are over."""
        for key in [key for key in self._levels if key[0] == subtree]:
            del self._levels[key]
        gone = [key for key in self._cases if key[0] == subtree]
        return [self._end(key) for key in gone]

    def answer(
        self, node: str, containers: Sequence[StreamStats], below: Container[str]
    ) -> list[Ask | Diagnosis]:
        """Take a FULLSTATS; return whom to ask next, or what has come out.

        Args:
            node: who answers.
            containers: what it says of itself and of its children.
            below: its descendants; what it says of others is passed over.
        """
        found: list[Ask | Diagnosis] = []
        for case in self._cases.values():
            if node not in case.waiting:
                continue
            case.waiting.discard(node)
            about = [
                each
                for each in containers
                if each.stream == case.sign.stream
                and (each.node is None or each.node == node or each.node in below)
            ]
            for step in self._descend(case.sign, node, about):
                if isinstance(step, Diagnosis):
                    case.finding[step.node] = step
                elif step.node not in case.asked:
                    case.asked.add(step.node)
                    case.waiting.add(step.node)
                    found.append(step)
            if not case.waiting:
                found += [each for each in case.finding.values() if each not in self.diagnoses()]
                case.found = case.finding
        return list(dict.fromkeys(found))

    def _step(self, key: _Key, stats: StreamStats | None, now: float) -> list[Sign | Ask]:
        level = self._levels.setdefault(key, _Hysteresis())
        up = hold = Severity.NONE
        if stats is not None:
            threshold, notice = self._thresholds[key[2]], self._sensitivity.notice
            up = severity_of(stats, key[2], threshold, notice)
            hold = max(up, severity_of(stats, key[2], threshold, notice, ease=threshold.ease))
        if level.step(up, hold, now, self._sensitivity):
            if level.severity is Severity.NONE:
                del self._levels[key]
                return [self._end(key)]
            case = self._cases.setdefault(key, _Case(Sign(*key, level.severity)))
            case.sign, case.began = Sign(*key, level.severity), -inf
            return [case.sign, *self._ask(case, now)]
        if level.severity is not Severity.NONE:
            return list(self._ask(self._cases[key], now))
        if stats is None:
            del self._levels[key]
        return []

    def _end(self, key: _Key) -> Sign:
        del self._cases[key]
        return Sign(*key, Severity.NONE)

    def _ask(self, case: _Case, now: float) -> list[Ask]:
        """Begin at the subtree's node: at first, when somebody did not answer, and for a review."""
        rules = self._sensitivity
        if now - case.began < (rules.patience_s if case.waiting else rules.review_s):
            return []
        at = case.sign.subtree
        case.began, case.waiting, case.asked, case.finding = now, {at}, {at}, {}
        return [Ask(at, case.sign.stream)]

    def _descend(
        self, sign: Sign, node: str, containers: Sequence[StreamStats]
    ) -> list[Ask | Diagnosis]:
        """Return where to look next, or where the trouble is; nothing, if it has passed."""
        bad = [
            (each, suffering)
            for each in containers
            if (suffering := self._suffering(sign, each)) is not None
        ]
        bad.sort(key=lambda pair: pair[1], reverse=True)
        parts = [(each.node, each, part) for each, part in bad if each.node is not None]
        below = [(name, each, part) for name, each, part in parts if name != node]
        if sign.stream == MACHINES:
            return [
                Ask(name, sign.stream)
                if name != node and each.children
                else Diagnosis(name, sign.stream, sign.metric, part, sign.severity, Scope.NODE)
                for name, each, part in parts[: self._sensitivity.widest]
            ]
        whole = next(((each, part) for each, part in bad if each.node is None), None)
        if below and not (whole and self._is_common(whole[0], [(e, p) for _, e, p in below])):
            return [Ask(name, sign.stream) for name, _, _ in below[: self._sensitivity.widest]]
        if whole is None:
            return []
        scope = Scope.MOST if whole[1] >= self._sensitivity.most else Scope.FEW
        return [Diagnosis(node, sign.stream, sign.metric, whole[1], sign.severity, scope)]

    def _is_common(self, whole: StreamStats, bad: Sequence[tuple[StreamStats, float]]) -> bool:
        """Say whether most children, with most viewers, suffer: then the cause is above them."""
        most = self._sensitivity.most
        hit = [each for each, part in bad if part >= most]
        return len(hit) >= max(2.0, most * whole.children) and sum(
            map(weight_of, hit)
        ) >= most * weight_of(whole)

    def _suffering(self, sign: Sign, stats: StreamStats) -> float | None:
        """Return the share in trouble, 0 to 1; None: this container is well.

        Where nobody has counted, a bad mean stands for all.
        """
        threshold, notice = self._thresholds[sign.metric], self._sensitivity.notice
        found = severity_of(stats, sign.metric, threshold, notice, ease=threshold.ease)
        if found is Severity.NONE:
            return None
        part = share(stats, sign.metric, min(found, sign.severity))
        return 1.0 if part is None else part
