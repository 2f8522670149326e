"""What the root makes of the reports: signs, questions, diagnoses, and actions, one at a time."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from anabranch.core.errors import AnabranchError
from anabranch.core.events import Event
from anabranch.site.picture import Picture, without
from anabranch.site.rules import TreeRules
from anabranch.tree.actions import (
    Action,
    AddLeaf,
    AddRelay,
    InsertLevel,
    LowerRendition,
    RestoreRendition,
    SwitchOff,
    event_of,
)
from anabranch.tree.metrics import MACHINES
from anabranch.tree.soleil.messages import StreamStats
from anabranch.tree.state import SiteState
from anabranch.tree.trouble import Ask, Diagnosis, Sign, Watch

_BARRED_S = 60.0
_LONGEST_S = 3600.0
_HISTORY = 500


@dataclass(frozen=True, slots=True)
class Deed:
    """One action in the history.

    Attributes:
        event: the action's.
        outcome: ``done``, ``told`` where the site only tells, or what went wrong.
    """

    event: Event
    outcome: str

    def concerns(self, node: str) -> bool:
        """Say whether a node is acted on, or named as a parent, child or neighbour."""
        data = self.event.data
        others = str(data.get("children", "")).split()
        return node in {self.event.subject, data.get("parent"), data.get("near"), *others}


@dataclass(slots=True)
class _Bar:
    """An action that failed is not tried again until monotonic ``until``."""

    until: float
    hold_s: float


@dataclass(frozen=True)
class Hands:
    """How the root reaches the site.

    Attributes:
        state: returns the site's state at a monotonic time.
        ask: sends a node REQFULLSTATS about a stream; whether it arrives is not known.
        act: carries an action out; raises AnabranchError if that cannot be.
        lowest: says whether there is nothing lower than a stream.
        on_event: takes an event.
    """

    state: Callable[[float], SiteState]
    ask: Callable[[str, str], None]
    act: Callable[[Action], Awaitable[None]]
    lowest: Callable[[str], bool]
    on_event: Callable[[Event], None]


@dataclass
class Reaction:
    """Judges each round.

    Attributes:
        history: what was done, or would have been, the newest last.
        counts: how often, by kind of action and outcome: done, told or failed.
    """

    rules: TreeRules
    picture: Picture
    hands: Hands
    history: deque[Deed] = field(default_factory=lambda: deque(maxlen=_HISTORY))
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._policy = self.rules.make_policy()
        self._watch = Watch(
            thresholds=self.rules.reporting.thresholds, sensitivity=self.rules.sensitivity
        )
        self._subtrees: set[str] = set()
        self._barred: dict[tuple[str, str], _Bar] = {}
        self._pause_until = float("-inf")
        self._acting: asyncio.Task[None] | None = None

    @property
    def diagnoses(self) -> tuple[Diagnosis, ...]:
        """What is known of all troubles that last."""
        return self._watch.diagnoses()

    async def stop(self) -> None:
        """Leave off, also in the middle of an action."""
        if self._acting is not None:
            self._acting.cancel()
            await asyncio.gather(self._acting, return_exceptions=True)

    def round(self, reports: Mapping[str, Sequence[StreamStats]], now: float) -> None:
        """Judge a round.

        Args:
            reports: by child of the root, its last report; the root's own, too.
            now: monotonic seconds.
        """
        for gone in self._subtrees - reports.keys():
            self._tell(self._watch.forget(gone))
        self._subtrees = set(reports)
        for subtree, containers in reports.items():
            self._tell(self._watch.take(subtree, containers, now))
        if self._acting is not None and not self._acting.done():
            return
        actions = self.decide(now)
        if actions:
            self._acting = asyncio.create_task(self._carry_out(actions), name="act on the tree")

    def answered(self, node: str, containers: Sequence[StreamStats], below: Container[str]) -> None:
        """Take a node's FULLSTATS; ``below`` are its descendants."""
        self._tell(self._watch.answer(node, containers, below))

    def decide(self, now: float) -> list[Action]:
        """Return what is to be done in this round: at most one node comes or goes.

        What would follow upon that is decided anew when it has been done.
        """
        state = self.hands.state(now)
        barred = {key for key, bar in self._barred.items() if bar.until > now}
        idle = {node for kind, node in barred if kind in _STARTS}
        diagnoses = [each for each in self.diagnoses if not self._is_hopeless(each)]
        decided = self._policy.decide(without(state, idle), diagnoses, now)
        self.picture.waiting = 0
        found: list[Action] = []
        for action in decided:
            if (action.kind, _subject(action)) in barred:
                continue
            if isinstance(action, _STRUCTURAL):
                if now < self._pause_until:
                    break
                found.append(action)
                if not isinstance(action, AddRelay):  # which is for what comes next
                    break
                continue
            found.append(action)
        return found

    def _is_hopeless(self, diagnosis: Diagnosis) -> bool:
        """Say whether a lower rendition is no remedy, because there is none."""
        return diagnosis.stream != MACHINES and self.hands.lowest(diagnosis.stream)

    def _tell(self, found: Iterable[Sign | Ask | Diagnosis]) -> None:
        for each in found:
            match each:
                case Ask(node, stream):
                    self.hands.ask(node, stream)
                case Sign(subtree, stream, metric, severity):
                    data = {"stream": stream, "metric": metric, "severity": severity.name.lower()}
                    self.hands.on_event(Event("tree.sign", subtree, data))
                case Diagnosis(node, stream, metric, share, severity, scope):
                    data = {
                        "stream": stream,
                        "metric": metric,
                        "severity": severity.name.lower(),
                        "suffer": str(scope),
                    }
                    event = Event("tree.diagnosis", node, {**data, "share": round(share, 3)})
                    self.hands.on_event(event)

    async def _carry_out(self, actions: Sequence[Action]) -> None:
        """Do one after the other; after one that fails the others are decided anew."""
        for action in actions:
            event = event_of(action)
            if not self.rules.act:
                self._told(event, action)
                continue
            self.picture.note(action, time.monotonic())
            try:
                await self.hands.act(action)
            except AnabranchError as error:
                self._failed(action, event, str(error))
                return
            finally:
                if isinstance(action, _STRUCTURAL):
                    self._pause_until = time.monotonic() + self.rules.pause_s
            self._barred.pop((action.kind, _subject(action)), None)
            self._record(event, "done")
            self.hands.on_event(event)

    def _told(self, event: Event, action: Action) -> None:
        """Tell what would be done, once in a while as long as it would."""
        self._bar(action)
        data = {**event.data, "action": event.kind.removeprefix("tree.")}
        self._record(event, "told")
        self.hands.on_event(replace(event, kind="tree.advice", data=data))

    def _failed(self, action: Action, event: Event, error: str) -> None:
        self._bar(action)
        data = {**event.data, "action": event.kind.removeprefix("tree."), "error": error}
        self._record(event, "failed", error)
        self.hands.on_event(replace(event, kind="tree.action-failed", data=data))

    def _record(self, event: Event, outcome: str, error: str | None = None) -> None:
        self.counts[event.kind.removeprefix("tree."), outcome] += 1
        self.history.append(Deed(event, error or outcome))

    def _bar(self, action: Action) -> None:
        """Keep an action from being tried again at once: twice as long each time."""
        key = action.kind, _subject(action)
        last = self._barred.get(key)
        hold = _BARRED_S if last is None else min(2 * last.hold_s, _LONGEST_S)
        self._barred[key] = _Bar(time.monotonic() + hold, hold)


_STRUCTURAL = AddLeaf | AddRelay | InsertLevel | SwitchOff
_STARTS = frozenset(each.kind for each in (AddLeaf, AddRelay, InsertLevel))


def _subject(action: Action) -> str:
    """Return what tells an action from others of its kind."""
    if isinstance(action, LowerRendition | RestoreRendition):
        return f"{action.subtree} {action.stream}"
    return action.node
