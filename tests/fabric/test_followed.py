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
from anabranch.fabric.pathlogic.logic import Path
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
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.paths = FollowedPaths(Fussy(), self.events.append)

    def want(self, *paths: Path) -> None:
        with self.paths.trying(paths, LINE):
            pass

    def told(self) -> list[tuple[str, str]]:
        told = [(event.kind, event.subject) for event in self.events]
        self.events.clear()
        return told


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_without_paths_intents_are_left_as_they_are(bench: Bench) -> None:
    intents = Intents((OTHER,), (TAP,))
    assert bench.paths.complete(intents, CUT) is intents
    bench.want(NEWS)
    bench.want()
    assert bench.paths.complete(intents, CUT) is intents
    assert bench.told() == []


def test_intents_are_completed_by_a_flow_for_each_path(bench: Bench) -> None:
    bench.want(NEWS, SPORT)
    full = bench.paths.complete(Intents((OTHER,), (TAP,)), WITH_VM)
    assert [flow.name for flow in full.flows] == ["other", "news", "sport"]
    assert full.taps == (TAP,)
    assert full.flows[1].through == (Service(VM, VM),)
    assert bench.paths.complete(Intents(), LINE).flows[0].through == ()


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
        assert bench.paths.complete(Intents((OTHER,)), CUT).flows == (OTHER,)
    (first, second) = bench.events
    assert first.data == {"reason": "path news: no way at all"}
    assert second.data == {"reason": "path sport: no way at all"}
    assert bench.told() == [("path.impossible", "news"), ("path.impossible", "sport")]
    for _ in range(2):
        assert len(bench.paths.complete(Intents(), LINE).flows) == 2
    assert bench.told() == [("path.possible", "news"), ("path.possible", "sport")]
    bench.paths.complete(Intents(), CUT)
    assert len(bench.told()) == 2, "told anew when it happens anew"
    bench.want()
    assert bench.paths.complete(Intents((OTHER,)), CUT).flows == (OTHER,)
    assert bench.told() == [], "what nobody wants any more has not become possible"


def test_rules_are_named_while_there_is_a_way(bench: Bench) -> None:
    with pytest.raises(NoPathError, match="'news'"):
        bench.paths.named_rules("news", None, LINE)
    bench.want(NEWS)
    tree = Compiler().compile(bench.paths.complete(Intents(), WITH_VM), WITH_VM).trees["news"]
    rules = bench.paths.named_rules("news", tree, WITH_VM)
    assert [(rule.name, rule.switch, rule.in_port, rule.out_port) for rule in rules] == [
        ("RTP_PASSTHROUGH0000000000000001", "s0", 1, 11),
        ("RTP_TOVNET4_0000000000000002", "s1", None, 4),
        ("RTP_FROMVNET4_0000000000000002", "s1", 4, 12),
        ("RTP_PASSTHROUGH0000000000000003", "s2", None, 2),
    ]
    assert bench.paths.named_rules("news", None, WITH_VM) == (), "not compiled yet"
    bench.paths.complete(Intents(), CUT)
    assert bench.paths.named_rules("news", tree, CUT) == ()
