"""Signs of trouble: who is asked, where the trouble is found, and that nothing flutters."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.core.errors import UsageError
from anabranch.tree.metrics import CPU, JITTER, MACHINES, Severity, Threshold, summary
from anabranch.tree.soleil.messages import StreamStats
from anabranch.tree.statistics import Collector
from anabranch.tree.trouble import Ask, Diagnosis, Scope, Sensitivity, Sign, Watch

STREAM = "news-high"
GOOD, BAD, WORST = 5.0, 50.0, 200.0


@dataclass
class Site:
    """Collectors of a whole tree, the root's watch, and the jitter of each leaf's viewers."""

    tree: dict[str, str]  # parent by node, parents first
    viewers: dict[str, list[float]]
    cpu: dict[str, float] = field(default_factory=dict)
    watch: Watch = field(default_factory=lambda: Watch(sensitivity=Sensitivity(rounds=2)))
    now: float = 0.0
    asked: list[str] = field(default_factory=list)
    signs: list[Sign] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.collectors = {name: Collector(0.0) for name in ("root", *self.tree)}

    def own(self, name: str) -> list[StreamStats]:
        jitters = self.viewers.get(name)
        own = [summary(MACHINES, (0, 1), {CPU: [self.cpu.get(name, 10.0)]})]
        if jitters is not None:
            own.append(summary(STREAM, (0, 1), {JITTER: jitters}, members=len(jitters)))
        return own

    def below(self, name: str) -> set[str]:
        found = {child for child, parent in self.tree.items() if parent == name}
        return found.union(*(self.below(child) for child in found))

    def turn(self, seconds: float = 5.0) -> list[Diagnosis]:
        """Let a round of statistics pass, and everybody answer who is asked."""
        self.now += seconds
        pending, found = [], []
        whole = {}
        for name in reversed(self.tree):
            whole[name] = self.collectors[name].aggregate(self.now, self.own(name))
            self.collectors[self.tree[name]].take(name, whole[name])
        for name, containers in self.collectors["root"].last().items():
            pending += self.watch.take(name, containers, self.now)
        for step in pending:
            if isinstance(step, Sign):
                self.signs.append(step)
            elif isinstance(step, Ask):
                self.asked.append(step.node)
                details = self.collectors[step.node].details(
                    step.node, whole[step.node], self.own(step.node), step.stream
                )
                pending += self.watch.answer(step.node, details, self.below(step.node))
            else:
                found.append(step)
        return found


def site(**viewers: list[float]) -> Site:
    """Two relays below the root, a relay below the second, two leaves below each of the lowest."""
    tree = {"r1": "root", "r2": "root", "r3": "r2"}
    tree |= {"leaf1": "r1", "leaf2": "r1", "leaf3": "r3", "leaf4": "r3"}
    return Site(tree, {f"leaf{n}": [GOOD] * 10 for n in range(1, 5)} | viewers)


def test_nobody_is_asked_while_all_is_well() -> None:
    quiet = site()
    for _ in range(10):
        assert quiet.turn() == []
    assert (quiet.asked, quiet.signs, quiet.watch.diagnoses()) == ([], [], ())


def test_one_bad_round_is_no_sign() -> None:
    flutter = site()
    for turn in range(10):
        flutter.viewers["leaf3"] = [WORST if turn % 2 else GOOD] * 10
        assert flutter.turn() == []
    assert flutter.asked == []


def test_most_viewers_of_one_leaf() -> None:
    found = site(leaf3=[WORST] * 9 + [GOOD])
    assert found.turn() == []
    (diagnosis,) = found.turn()
    assert diagnosis == Diagnosis("leaf3", STREAM, JITTER, 0.9, Severity.DANGER, Scope.MOST)
    assert found.asked == ["r2", "r3", "leaf3"]
    assert found.signs == [Sign("r2", STREAM, JITTER, Severity.DANGER)]
    assert found.watch.diagnoses() == (diagnosis,)
    assert found.turn() == []  # nothing new, and nobody is asked again so soon
    assert len(found.asked) == 3


def test_a_few_viewers() -> None:
    found = site(leaf1=[WORST] * 3 + [GOOD] * 7)
    found.turn()
    assert found.turn() == [Diagnosis("leaf1", STREAM, JITTER, 0.3, Severity.DANGER, Scope.FEW)]
    assert found.asked == ["r1", "leaf1"]


def test_a_trouble_of_all_leaves_is_the_relays() -> None:
    found = site(leaf3=[WORST] * 10, leaf4=[WORST] * 10)
    found.turn()
    assert found.turn() == [Diagnosis("r3", STREAM, JITTER, 1.0, Severity.DANGER, Scope.MOST)]
    assert found.asked == ["r2", "r3"]


def test_one_big_leaf_does_not_speak_for_its_sister() -> None:
    found = site(leaf3=[BAD] * 90, leaf4=[GOOD] * 10)
    found.turn()
    assert found.turn() == [Diagnosis("leaf3", STREAM, JITTER, 1.0, Severity.WARNING, Scope.MOST)]


def test_a_machine_in_danger() -> None:
    for node, way in (("leaf4", ["r2", "r3"]), ("r3", ["r2", "r3"]), ("r1", ["r1"])):
        found = site()
        found.cpu[node] = 97.0
        found.turn()
        assert found.turn() == [Diagnosis(node, MACHINES, CPU, 1.0, Severity.DANGER, Scope.NODE)]
        assert found.asked == way


def test_it_is_over_only_when_it_has_been_well_below_for_a_while() -> None:
    found = site(leaf1=[BAD] * 10, leaf2=[BAD] * 10)
    for _ in range(2):
        found.turn()
    for _ in range(20):  # below the threshold, above its lower bound
        found.viewers |= {"leaf1": [26.0] * 10, "leaf2": [26.0] * 10}
        found.turn()
    assert found.signs == [Sign("r1", STREAM, JITTER, Severity.WARNING)]
    found.viewers |= {"leaf1": [GOOD] * 10, "leaf2": [GOOD] * 10}
    for _ in range(6):
        found.turn()
        assert found.signs[1:] == []
    found.turn()
    assert found.signs[1:] == [Sign("r1", STREAM, JITTER, Severity.NONE)]
    assert found.watch.diagnoses() == ()


def test_worse_is_told_at_once_and_better_later() -> None:
    found = site(leaf1=[BAD] * 10)
    for level in (BAD, BAD, WORST, WORST, *[BAD] * 10, *[GOOD] * 10):
        found.viewers["leaf1"] = [level] * 10
        found.turn()
    assert [sign.severity.name for sign in found.signs] == ["WARNING", "DANGER", "WARNING", "NONE"]


def test_a_trouble_that_moves_is_found_where_it_is_now() -> None:
    found = site(leaf1=[WORST] * 10)
    for _ in range(3):
        found.turn()
    found.viewers |= {"leaf1": [GOOD] * 10, "leaf2": [WORST] * 10}
    diagnoses = [each for _ in range(8) for each in found.turn()]
    assert [each.node for each in diagnoses] == ["leaf2"]
    assert [each.node for each in found.watch.diagnoses()] == ["leaf2"]


def test_who_does_not_answer_is_asked_again_and_who_has_left_is_not() -> None:
    watch = Watch(sensitivity=Sensitivity(rounds=1, patience_s=5.0))
    bad = (summary(STREAM, (0, 1), {JITTER: [WORST]}),)
    sign, ask = watch.take("r1", bad, 0.0)
    assert ask == Ask("r1", STREAM)
    assert watch.take("r1", bad, 4.0) == []
    assert watch.take("r1", bad, 5.0) == [ask]
    assert watch.forget("r1") == [Sign("r1", STREAM, JITTER, Severity.NONE)]
    assert watch.answer("r1", bad, ()) == []
    assert isinstance(sign, Sign)


def test_a_stream_that_has_ended_has_no_trouble() -> None:
    watch = Watch(sensitivity=Sensitivity(rounds=1, calm_s=10.0))
    watch.take("r1", (summary(STREAM, (0, 1), {JITTER: [WORST]}),), 0.0)
    assert watch.take("r1", (), 5.0) == [Ask("r1", STREAM)]
    assert watch.take("r1", (), 15.0) == [Sign("r1", STREAM, JITTER, Severity.NONE)]
    assert watch.take("r1", (), 20.0) == []


def test_nodes_that_accuse_each_other_or_strangers_are_not_followed() -> None:
    watch = Watch(sensitivity=Sensitivity(rounds=1))
    bad = StreamStats(STREAM, 0, 1, 2, {JITTER: WORST}, 10.0)
    watch.take("a", (bad,), 0.0)

    def accuse(name: str) -> list[StreamStats]:
        return [StreamStats(STREAM, 0, 1, 2, {JITTER: WORST}, 5.0, name)]

    assert watch.answer("a", accuse("b"), {"b"}) == [Ask("b", STREAM)]
    assert watch.answer("b", accuse("a"), {"a"}) == []
    watch.take("a", (bad,), 100.0)
    assert watch.answer("a", accuse("stranger"), {"b"}) == []
    assert watch.diagnoses() == ()


def test_the_seeds_nodes_which_count_nobody_are_judged_by_their_mean() -> None:
    watch = Watch(sensitivity=Sensitivity(rounds=1))
    bad = StreamStats(STREAM, 0, 1, 0, {JITTER: 255.3})
    watch.take("leaf", (bad,), 0.0)
    assert watch.answer("leaf", (bad,), ()) == [
        Diagnosis("leaf", STREAM, JITTER, 1.0, Severity.DANGER, Scope.MOST)
    ]


def test_thresholds_that_cannot_be() -> None:
    for warning, danger, ease in ((2.0, 1.0, 0.8), (0.0, 1.0, 0.8), (1.0, 2.0, 1.2)):
        with pytest.raises(UsageError, match="thresholds"):
            Threshold(warning, danger, ease)


@pytest.mark.parametrize(
    "wrong",
    [
        {"notice": 0.0},
        {"notice": 1.5},
        {"most": float("nan")},
        {"rounds": 0},
        {"widest": 0},
        {"calm_s": -1.0},
        {"review_s": float("inf")},
    ],
)
def test_a_sensitivity_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Sensitivity(**wrong)


@given(st.data())
def test_in_any_tree_only_the_way_to_the_trouble_is_asked(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 12))
    tree = {"n1": "root"}
    for number in range(2, count + 1):
        tree[f"n{number}"] = data.draw(st.sampled_from(["root", *tree]))
    leaves = sorted(tree.keys() - tree.values())
    sick = data.draw(st.sampled_from(leaves))
    share = data.draw(st.integers(3, 10))
    # So many leaves that a few bad viewers are still noticed at the top.
    viewers = {leaf: [GOOD] for leaf in leaves}
    viewers[sick] = [WORST] * share + [GOOD] * (10 - share)
    found = Site(tree, viewers)
    (diagnosis,) = found.turn() + found.turn()
    way, at = [sick], sick
    while tree[at] != "root":
        at = tree[at]
        way.insert(0, at)
    assert found.asked == way
    scope = Scope.MOST if share >= 5 else Scope.FEW
    assert diagnosis == Diagnosis(sick, STREAM, JITTER, share / 10, Severity.DANGER, scope)


@given(st.lists(st.floats(0, 300), min_size=1, max_size=60))
def test_a_sign_always_ends_and_never_follows_another_of_the_same(levels: list[float]) -> None:
    found = site()
    for level in [*levels, *[GOOD] * 16]:
        found.viewers["leaf1"] = [level] * 10
        found.turn()
    severities = [sign.severity for sign in found.signs]
    assert all(a is not b for a, b in pairwise(severities))
    assert severities[-1:] in ([], [Severity.NONE])
    assert found.watch.diagnoses() == ()
