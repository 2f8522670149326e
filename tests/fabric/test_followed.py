"""Paths past virtual machines: as wanted as ever whatever fails, and never half."""

from dataclasses import replace

import pytest
from tests.fabric.worlds import network_of, without

from anabranch.core.events import Event
from anabranch.fabric.compiler import Compiler
from anabranch.fabric.errors import MisuseError, NoPathError
from anabranch.fabric.followed import FollowedPaths
from anabranch.fabric.intents import Egress, Flow, Intents, Service, Tap
from anabranch.fabric.model import Host, Network, PortRef
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pathlogic.logic import Path, PathLogic
from anabranch.fabric.pathlogic.soleil import Soleil

LINE = network_of(3, [(0, 1, False), (1, 2, False)])
CUT = without(LINE, *LINE.links)
VM = PortRef("s1", 4)
HOST = Host("02:00:00:00:00:04", VM, "10.0.0.4", vm=True)
WITH_VM = replace(LINE, hosts={HOST.mac: HOST})
NEWS = Path("news", PortRef("s0", 1), PortRef("s2", 2), "192.168.1.181", Match(eth_type=0x0800))
SPORT = replace(NEWS, name="sport", match=Match(eth_type=0x0800, ip_proto=17))
OTHER = Flow("other", Match(eth_type=0x0806), PortRef("s0", 1), frozenset({Egress(NEWS.exit)}))
TAP = Tap("tap", Match(eth_type=0x88CC))


class Fussy(Soleil):
    """A logic that refuses what the network as it is has no way for."""

    def flow(self, path: Path, network: Network) -> Flow:
        if not any(info.up for info in network.links.values()):
            raise MisuseError(f"path {path.name}: no way at all")
        return super().flow(path, network)


class Bench:
    def __init__(self, logic: PathLogic | None = None) -> None:
        self.events: list[Event] = []
        self.paths = FollowedPaths(logic or Fussy(), self.events.append)

    def want(self, *paths: Path) -> None:
        with self.paths.trying(paths, LINE):
            pass

    def complete(self, intents: Intents, network: Network) -> Intents:
        completed = self.paths.complete(intents, network)
        self.paths.settle(completed)
        return completed.intents

    def told(self) -> list[tuple[str, str]]:
        told = [(event.kind, event.subject) for event in self.events]
        self.events.clear()
        return told


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_without_paths_intents_are_left_as_they_are(bench: Bench) -> None:
    intents = Intents((OTHER,), (TAP,))
    assert bench.complete(intents, CUT) is intents
    bench.want(NEWS)
    bench.want()
    assert bench.complete(intents, CUT) is intents
    assert bench.told() == []


def test_intents_are_completed_by_a_flow_for_each_path(bench: Bench) -> None:
    bench.want(NEWS, SPORT)
    full = bench.complete(Intents((OTHER,), (TAP,)), WITH_VM)
    assert [flow.name for flow in full.flows] == ["other", "news", "sport"]
    assert full.taps == (TAP,)
    assert full.flows[1].through == (Service(VM, VM),)
    assert bench.complete(Intents(), LINE).flows[0].through == ()


def test_what_fails_in_the_block_changes_nothing(bench: Bench) -> None:
    bench.want(NEWS)

    def fail() -> None:
        assert bench.paths.wanted == {"sport": SPORT}, "what is tried is seen in the block"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), bench.paths.trying([SPORT], LINE):
        fail()
    assert bench.paths.wanted == {"news": NEWS}


def test_what_cannot_be_is_not_even_tried(bench: Bench) -> None:
    bench.want(NEWS)
    arp = replace(SPORT, match=Match(eth_type=0x0806))
    for paths, network, words in (
        ([SPORT, SPORT], LINE, "the same name"),
        ([NEWS, arp], LINE, "path sport"),
        ([SPORT], CUT, "no way at all"),
    ):
        with pytest.raises(MisuseError, match=words), bench.paths.trying(paths, network):
            pytest.fail("it was tried")
    assert bench.paths.wanted == {"news": NEWS}
    assert bench.told() == []


def test_what_is_wanted_cannot_be_changed_from_outside(bench: Bench) -> None:
    bench.want(NEWS)
    bench.paths.wanted.pop("news")  # type: ignore[attr-defined]
    assert bench.paths.wanted == {"news": NEWS}


def test_an_impossible_path_is_left_out_and_named_once(bench: Bench) -> None:
    bench.want(NEWS, SPORT)
    for _ in range(2):
        assert bench.complete(Intents((OTHER,)), CUT).flows == (OTHER,)
    (first, second) = bench.events
    assert first.data == {"reason": "path news: no way at all"}
    assert second.data == {"reason": "path sport: no way at all"}
    assert bench.told() == [("path.impossible", "news"), ("path.impossible", "sport")]
    for _ in range(2):
        assert len(bench.complete(Intents(), LINE).flows) == 2
    assert bench.told() == [("path.possible", "news"), ("path.possible", "sport")]
    bench.complete(Intents(), CUT)
    assert len(bench.told()) == 2, "told anew when it happens anew"
    bench.want()
    assert bench.complete(Intents((OTHER,)), CUT).flows == (OTHER,)
    assert bench.told() == [], "what nobody wants any more has not become possible"


def test_rules_are_named_while_there_is_a_way(bench: Bench) -> None:
    with pytest.raises(NoPathError, match="'news'"):
        bench.paths.named_rules("news", None, LINE)
    bench.want(NEWS)
    tree = Compiler().compile(bench.complete(Intents(), WITH_VM), WITH_VM).trees["news"]
    rules = bench.paths.named_rules("news", tree, WITH_VM)
    assert [(rule.name, rule.switch, rule.in_port, rule.out_port) for rule in rules] == [
        ("RTP_PASSTHROUGH0000000000000001", "s0", 1, 11),
        ("RTP_TOVNET4_0000000000000002", "s1", None, 4),
        ("RTP_FROMVNET4_0000000000000002", "s1", 4, 12),
        ("RTP_PASSTHROUGH0000000000000003", "s2", None, 2),
    ]
    assert bench.paths.named_rules("news", None, WITH_VM) == (), "not compiled yet"
    bench.complete(Intents(), CUT)
    assert bench.paths.named_rules("news", tree, CUT) == ()


# Told apart by where they enter, but not once both come back from the same machine, or when one
# comes back by the port that a flow enters by.
NEAR = Path("near", PortRef("s1", 1), PortRef("s1", 2), "192.168.1.181", NEWS.match)
NEAR_TOO = replace(NEAR, name="near-too", ingress=PortRef("s1", 3))


class Through(Soleil):
    """A logic that leads every path through every machine, whatever its way."""

    def flow(self, path: Path, network: Network) -> Flow:
        services = tuple(Service(host.at, host.at) for host in network.hosts.values())
        return replace(super().flow(path, network), through=services)


@pytest.fixture
def near() -> Bench:
    bench = Bench(Through())
    bench.want(NEAR, NEAR_TOO)
    return bench


def test_of_two_paths_that_a_machine_makes_alike_the_older_stays(near: Bench) -> None:
    apart = near.paths.complete_apart
    assert apart(Intents((OTHER,)), LINE) == near.paths.complete(Intents((OTHER,)), LINE)
    for _ in range(2):
        left = apart(Intents((OTHER,), (TAP,)), WITH_VM)
        assert [flow.name for flow in left.intents.flows] == ["other", "near"]
        assert (left.intents.taps, left.rivals, left.intruders) == ((TAP,), {"near-too"}, set())
        Compiler().compile(left.intents, WITH_VM)
        near.paths.settle(left)
    (event,) = near.events
    assert "flows near and near-too match the same packets" in str(event.data["reason"])
    (failure,) = near.paths.failures()
    assert (failure.switch, failure.hit) == ("s1", {"near-too"})
    near.want(NEAR_TOO)
    near.paths.settle(apart(Intents(), WITH_VM))
    assert near.told() == [("path.impossible", "near-too"), ("path.possible", "near-too")]
    assert near.paths.failures() == []


def test_a_path_that_a_machine_makes_like_a_flow_is_the_one_to_go(near: Bench) -> None:
    flow = replace(OTHER, match=NEWS.match, ingress=VM)
    left = near.paths.complete_apart(Intents((flow,)), WITH_VM)
    assert left.intents.flows == (flow,)
    assert left.rivals == left.intruders == {"near", "near-too"}
    assert list(left.impossible) == ["near", "near-too"]
    left.blame(["news"])
    with pytest.raises(MisuseError, match="flows other and near match"):
        left.blame(["near"])
    with pytest.raises(MisuseError, match="flows other and more match"):
        near.paths.complete_apart(Intents((flow, replace(flow, name="more"))), WITH_VM)
    with pytest.raises(MisuseError, match="is no rate"):
        near.paths.complete_apart(Intents((replace(flow, rate_kbps=0),)), WITH_VM)
    assert near.paths.complete_apart(Intents(), WITH_VM).rivals == {"near-too"}


def test_a_path_that_no_table_can_express_now_is_left_out(near: Bench) -> None:
    high = replace(HOST, at=PortRef("s1", 70000))
    left = near.paths.complete_apart(Intents((OTHER,)), replace(LINE, hosts={high.mac: high}))
    assert left.intents.flows == (OTHER,)
    assert "too high a number" in left.impossible["near"]
