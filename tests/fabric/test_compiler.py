"""Plans, by what soft switches that hold their tables do to packets."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fabric.worlds import (
    FIRST_LINK_PORT,
    MACS,
    World,
    doubted,
    frame_of,
    intents_of,
    match_of,
    network_of,
    networks,
    some_of,
    wanted_copies,
    without,
)

from anabranch.fabric import frames
from anabranch.fabric.compiler import Compiler, Plan
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.flow_rules import cookie_of
from anabranch.fabric.intents import Egress, Flow, Intents, Policy, Service, Tap
from anabranch.fabric.model import Link, LinkInfo, Network, PortInfo, PortRef
from anabranch.fabric.openflow.actions import PORT_LOCAL, Output
from anabranch.fabric.openflow.messages import GroupType
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pipeline import EDGE, FLOWS, HOST_SERVICE_PRIORITY
from anabranch.fabric.tables import Rule, check

RING = network_of(4, [(0, 1, False), (1, 2, False), (2, 3, False), (3, 0, False)])
LINE = network_of(3, [(0, 1, False), (1, 2, False)])


def expect_all(world: World, intents: Intents, plan: Plan) -> None:
    """Every flow reaches every egress it can, once and nothing else; no link carries twice."""
    for flow in intents.flows:
        frame = frame_of(int(flow.name.removeprefix("flow")))
        missing = plan.unreachable.get(flow.name, frozenset())
        found = world.deliver(flow, frame)
        wanted = wanted_copies(flow, frame, missing)
        if wanted:
            assert found == wanted, flow
        else:
            assert not found
        assert world.soft.looped == 0
        assert all(count == 1 for count in world.carried.values()), "a link carried it twice"


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_every_egress_gets_one_copy_with_and_without_any_link(data: st.DataObject) -> None:
    network = data.draw(networks())
    intents = data.draw(intents_of(network))
    compiler = Compiler()
    plan = compiler.compile(intents, network)
    for tables in plan.tables.values():
        check(tables)
    world = World(network)
    world.load(plan.tables)
    expect_all(world, intents, plan)
    used = {link for tree in plan.trees.values() for link in tree.links} - plan.unprotected
    for link in sorted(used):
        world.soft.set_link(link.src, up=False)
        # The other direction may be used as well, and not be protected.
        whole = tuple(
            flow
            for flow in intents.flows
            if {link, link.reverse}.isdisjoint(plan.trees[flow.name].links)
            or (flow.protected and {link, link.reverse}.isdisjoint(plan.unprotected))
        )
        expect_all(world, Intents(whole), plan)
        again = compiler.compile(intents, without(network, link))
        world.load(again.tables)
        expect_all(world, intents, again)
        world.soft.set_link(link.src, up=True)
        plan = compiler.compile(intents, network)
        world.load(plan.tables)
    expect_all(world, intents, plan)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_history_leaves_no_trace(data: st.DataObject) -> None:
    network = data.draw(networks())
    compiler = Compiler()
    for _ in range(data.draw(st.integers(1, 5))):
        intents = data.draw(intents_of(network))
        lost = data.draw(some_of(network))
        now = without(doubted(network, *data.draw(some_of(network))), *lost)
        if data.draw(st.booleans()) and lost:  # not only down, but forgotten
            gone = {way for link in lost for way in (link, link.reverse)}
            now = replace(
                now, links={link: info for link, info in now.links.items() if link not in gone}
            )
        plan = compiler.compile(intents, now)
        fresh = Compiler().compile(intents, now)
        assert plan.tables == fresh.tables
        assert plan.trees == fresh.trees
        assert plan.unreachable == fresh.unreachable
        assert plan.unprotected == fresh.unprotected
        assert plan.bypasses == fresh.bypasses
        last = {link for link, info in now.links.items() if info.last_resort}
        ways = {*plan.bypasses, *(link for path in plan.bypasses.values() for link in path)}
        assert not last & ways, "a group would not try what is not live"


@settings(deadline=None, max_examples=20)
@given(st.randoms(use_true_random=False))
def test_links_that_go_and_come_leave_no_trace(random: Random) -> None:
    edges = [tuple(random.sample(range(12), 2)) for _ in range(20)]
    network = network_of(12, [(left, right, random.random() < 0.1) for left, right in edges])
    flows = tuple(
        flow_to(
            f"flow{number}",
            match_of(number),
            PortRef(f"s{random.randrange(12)}", 1 + number),
            *(PortRef(f"s{random.randrange(12)}", 9) for _ in range(random.randint(1, 4))),
        )
        for number in range(8)
    )
    compiler, intents = Compiler(), Intents(flows)
    lost: set[Link] = set()
    doubtful: set[Link] = set()
    for link in random.choices(sorted(network.links), k=20):
        random.choice((lost, doubtful)).symmetric_difference_update({link})
        now = without(doubted(network, *doubtful), *lost)
        plan, fresh = compiler.compile(intents, now), Compiler().compile(intents, now)
        assert plan.trees == fresh.trees
        assert plan.tables == fresh.tables


@settings(deadline=None)
@given(st.data())
def test_equal_input_gives_the_same_objects(data: st.DataObject) -> None:
    network = data.draw(networks())
    intents = data.draw(intents_of(network))
    compiler = Compiler()
    first = compiler.compile(intents, network)
    again = compiler.compile(
        Intents(tuple(replace(flow) for flow in intents.flows)),
        replace(network, links=dict(network.links)),
    )
    assert all(again.tables[name] is first.tables[name] for name in first.tables)
    assert again.order == first.order


def test_nothing_is_carried_that_nobody_asked_for() -> None:
    flow = Flow("flow0", match_of(0), PortRef("s0", 1), frozenset({Egress(PortRef("s2", 1))}))
    plan = Compiler().compile(Intents((flow,)), LINE)
    world = World(LINE)
    world.load(plan.tables)
    assert not world.send(PortRef("s0", 2), frame_of(0)), "another port"
    assert not world.send(PortRef("s0", 1), frame_of(1)), "another group"
    assert not world.send(PortRef("s1", 1), frame_of(0)), "an inner switch"
    tagged = frames.push_vlan(frame_of(0))
    assert not world.send(PortRef("s0", 1), tagged), "another VLAN"
    idle = Compiler().compile(Intents((replace(flow, egress=frozenset()),)), LINE)
    assert not [rule for rule in idle.tables["s0"].rules if rule.table == FLOWS and rule.priority]


def test_a_flow_may_wear_a_vlan_of_its_own() -> None:
    match = replace(match_of(0), vlan_vid=0x1000 | 7)
    flow = Flow("flow0", match, PortRef("s0", 1), frozenset({Egress(PortRef("s1", 1))}))
    frame = frames.rewrite(frames.push_vlan(frame_of(0)), "vlan_vid", 0x1007)
    world = World(RING)
    plan = Compiler().compile(Intents((flow,)), RING)
    world.load(plan.tables)
    assert world.send(flow.ingress, frame) == Counter({(PortRef("s1", 1), frame): 1})
    (link,) = plan.trees["flow0"].links
    world.soft.set_link(link.src, up=False)
    assert world.send(flow.ingress, frame) == Counter({(PortRef("s1", 1), frame): 1})
    assert not world.send(flow.ingress, frame_of(0))
    any_vlan = replace(flow, match=replace(match, vlan_vid=(0x1000, 0x1000)))
    with pytest.raises(MisuseError, match="flow0: a VLAN"):
        Compiler().compile(Intents((any_vlan,)), RING)


def test_a_service_at_a_stub_is_reached_and_left_by_one_link() -> None:
    service = Service(PortRef("s1", 4), PortRef("s1", 5))
    star = network_of(3, [(0, 1, False), (0, 2, False)])
    flow = Flow(
        "flow0",
        match_of(0),
        PortRef("s2", 1),
        frozenset({Egress(PortRef("s2", 2)), Egress(PortRef("s0", 2), MACS[0])}),
        (service,),
    )
    plan = Compiler().compile(Intents((flow,)), star)
    assert [segment.tagged for segment in plan.trees["flow0"].segments] == [False, True]
    world = World(star)
    world.load(plan.tables)
    expect_all(world, Intents((flow,)), plan)
    # What the service sends of its own goes to the host services like any host's.
    (entry,) = [rule for rule in plan.tables["s1"].rules if rule.match == Match(in_port=5)]
    assert entry.goto_table == EDGE


def test_a_flow_with_a_vlan_cannot_wear_another_tag() -> None:
    flow = Flow(
        "flow0",
        replace(match_of(0), vlan_vid=0x1000 | 7),
        PortRef("s2", 1),
        frozenset({Egress(PortRef("s0", 2))}),
        (Service(PortRef("s0", 4), PortRef("s0", 4)),),
    )
    there_and_back = replace(flow, egress=frozenset({Egress(PortRef("s2", 2))}))
    compiler = Compiler()
    assert not compiler.compile(Intents((flow,)), LINE).unreachable
    plan = compiler.compile(Intents((there_and_back,)), LINE)
    assert plan.unreachable == {"flow0": there_and_back.egress}


def test_many_copies_at_one_switch_are_made_by_a_group() -> None:
    egress = frozenset(
        Egress(PortRef("s0", port_no), mac, udp_dst=6000 + number)
        for port_no in (1, 2, 3)
        for mac in MACS
        for number in range(125)
    )
    flow = Flow("flow0", match_of(0), PortRef("s0", 1), egress)
    plan = Compiler().compile(Intents((flow,)), LINE)
    (group,) = plan.tables["s0"].groups
    assert (group.type, len(group.buckets)) == (GroupType.ALL, 750)
    world = World(LINE)
    world.load(plan.tables)
    assert world.send(flow.ingress, frame_of(0)) == wanted_copies(flow, frame_of(0))
    assert plan.warnings == ()


def sorted_flow(number: int, *egress: Egress) -> Flow:
    """A flow that is sorted at the end of the line."""
    return Flow(
        f"flow{number}",
        match_of(number),
        PortRef("s0", number + 1),
        frozenset(egress),
        sort=frozenset({"s2"}),
    )


def test_a_copy_moves_between_sorted_flows_and_no_rule_changes() -> None:
    mover = Egress(PortRef("s2", 1), MACS[0], "10.0.0.7", 6000)
    other = Egress(PortRef("s2", 1), MACS[0], "10.0.0.8", 6000)
    compiler, world = Compiler(), World(LINE)
    before = Intents((sorted_flow(0, mover, other), sorted_flow(1)))
    after = Intents((sorted_flow(0, other), sorted_flow(1, mover)))
    rules = []
    for intents in (before, after, before):
        plan = compiler.compile(intents, LINE)
        world.load(plan.tables)
        expect_all(world, intents, plan)
        rules.append({name: tables.rules for name, tables in plan.tables.items()})
        buckets = sorted(len(group.buckets) for group in plan.tables["s2"].groups)
        assert buckets == sorted(len(flow.egress) for flow in intents.flows)
    assert rules[0] == rules[1] == rules[2]


def test_a_sorted_flow_is_brought_to_its_switch_and_goes_nowhere_from_there() -> None:
    compiler, world = Compiler(), World(LINE)
    plan = compiler.compile(Intents((sorted_flow(0),)), LINE)
    world.load(plan.tables)
    assert world.send(PortRef("s0", 1), frame_of(0)) == Counter()
    assert {port.switch for port, _ in world.carried} == {"s0", "s1"}
    world.carried.clear()
    world.load(compiler.compile(Intents((replace(sorted_flow(0), sort=frozenset()),)), LINE).tables)
    assert world.send(PortRef("s0", 1), frame_of(0)) == Counter()
    assert not world.carried


def flow_to(name: str, match: Match, ingress: PortRef, *at: PortRef, priority: int = 100) -> Flow:
    return Flow(name, match, ingress, frozenset(map(Egress, at)), priority=priority)


def test_flows_that_nothing_tells_apart_are_refused_and_nothing_changes() -> None:
    one = flow_to("one", match_of(0), PortRef("s0", 1), PortRef("s1", 2))
    wide = Match(eth_type=0x0800, ipv4_dst="239.0.0.0/8")
    compiler = Compiler()
    before = compiler.compile(Intents((one,)), LINE)
    for other in (
        flow_to("two", match_of(0), PortRef("s2", 1), PortRef("s1", 3)),
        flow_to("two", wide, PortRef("s2", 1), PortRef("s1", 3)),
        flow_to("two", wide, PortRef("s0", 1), PortRef("s0", 3)),
    ):
        with pytest.raises(MisuseError, match="flows one and two"):
            compiler.compile(Intents((one, other)), LINE)
        after = compiler.compile(Intents((one,)), LINE)
        assert all(after.tables[name] is before.tables[name] for name in before.tables)
    for other in (
        flow_to("two", wide, PortRef("s2", 1), PortRef("s1", 3), priority=99),
        flow_to("two", match_of(0), PortRef("s0", 2), PortRef("s0", 3)),  # never leaves s0
        flow_to("two", replace(wide, ipv4_dst="238.0.0.0/8"), PortRef("s0", 1), PortRef("s1", 3)),
        flow_to("two", match_of(0), PortRef("s0", 1)),  # wanted by nobody
    ):
        assert compiler.compile(Intents((one, other)), LINE) is not None
    swapped = replace(one, name="other")
    compiler.compile(Intents((swapped,)), LINE)


IMPOSSIBLE = (
    Flow("flow0", Match(), PortRef("s0", 0), frozenset({Egress(PortRef("s0", 1))})),
    Flow("flow0", Match(), PortRef("s0", 1), frozenset({Egress(PortRef("s0", 0))})),
    Flow("flow0", Match(), PortRef("s0", 1), frozenset({Egress(PortRef("s0", 1), "nonsense")})),
    Flow("flow0", Match(), PortRef("s0", 1), frozenset({Egress(PortRef("s0", 1), udp_dst=6)})),
    Flow("flow0", Match(), PortRef("s0", 1), rate_kbps=0),
    Flow(
        "flow0", Match(), PortRef("s0", 1), through=(Service(PortRef("s0", 1), PortRef("s0", 1)),)
    ),
)


@pytest.mark.parametrize("flow", IMPOSSIBLE, ids=range(len(IMPOSSIBLE)))
def test_what_no_table_can_express_is_misuse(flow: Flow) -> None:
    with pytest.raises(MisuseError, match="flow flow0: "):
        Compiler().compile(Intents((flow,)), LINE)


@pytest.mark.parametrize(
    ("match", "words"),
    [
        (Match(udp_dst=5004), "udp_dst needs ip_proto 17"),
        (Match(eth_type=0x0800, arp_op=1), "arp_op needs eth_type 0x0806"),
        (Match(vlan_vid=7), "vlan_vid 7 is none"),
        (Match(vlan_vid=0x1FFF), "vlan_vid 8191 is none"),
    ],
)
def test_a_match_that_no_switch_would_take_is_misuse(match: Match, words: str) -> None:
    compiler = Compiler()
    flow = flow_to("flow0", match, PortRef("s0", 1), PortRef("s1", 1))
    with pytest.raises(MisuseError, match=f"flow flow0: {words}"):
        compiler.compile(Intents((flow,)), LINE)
    with pytest.raises(MisuseError, match=f"tap tap: {words}"):
        compiler.compile(Intents(taps=(Tap("tap", match),)), LINE)


def test_an_unreachable_egress_is_reported_and_served_when_it_can_be() -> None:
    near, far = Egress(PortRef("s1", 1)), Egress(PortRef("s2", 1))
    flow = Flow("flow0", match_of(0), PortRef("s0", 1), frozenset({near, far}))
    lost = next(link for link in LINE.links if link.dst.switch == "s2")
    compiler, world = Compiler(), World(LINE)
    for network, missing in ((without(LINE, lost), {far}), (LINE, set()), (Network(), {near, far})):
        plan = compiler.compile(Intents((flow,)), network)
        assert plan.unreachable.get("flow0", frozenset()) == missing
        world.load(plan.tables)
    plan = compiler.compile(Intents((flow,)), LINE)
    world.load(plan.tables)
    expect_all(world, Intents((flow,)), plan)


def test_a_rate_is_metered_at_the_ingress_only() -> None:
    flow = replace(flow_to("flow0", match_of(0), PortRef("s0", 1), PortRef("s1", 1)), rate_kbps=8)
    plan = Compiler().compile(Intents((flow,)), LINE)
    (meter,) = plan.tables["s0"].meters
    assert [band.rate for band in meter.bands] == [8]
    assert [rule.meter for rule in plan.tables["s0"].rules if rule.meter] == [meter.meter_id]
    assert not plan.tables["s1"].meters


def test_a_tap_copies_once_where_packets_enter_and_a_diversion_keeps_them() -> None:
    flow = flow_to("flow0", match_of(0), PortRef("s0", 1), PortRef("s2", 1))
    world = World(LINE)
    leaves = {(PortRef("s2", 1), frame_of(0)): 1}
    for tap, wanted in (
        (Tap("tap", match_of(0), to=3), leaves | {(PortRef("s0", 3), frame_of(0)): 1}),
        (
            Tap("tap", match_of(0), frozenset({"s1"}), to=3),
            leaves | {(PortRef("s1", 3), frame_of(0)): 1},
        ),
        (
            Tap("tap", match_of(0), frozenset({"s1"}), to=3, divert=True),
            {(PortRef("s1", 3), frame_of(0)): 1},
        ),
        (Tap("tap", match_of(1), to=3, divert=True), leaves),
    ):
        plan = Compiler().compile(Intents((flow,), (tap,)), LINE)
        world.load(plan.tables)
        assert world.send(flow.ingress, frame_of(0)) == Counter(wanted)


def test_a_tap_to_the_director_is_known_by_its_cookie() -> None:
    tap = Tap("handshakes", Match(eth_type=0x0800, ip_proto=6, tcp_flags=(2, 2)))
    plan = Compiler().compile(Intents(taps=(tap,)), LINE)
    for tables in plan.tables.values():
        (rule,) = [rule for rule in tables.rules if rule.cookie == cookie_of("handshakes")]
        assert (rule.actions, rule.goto_table) == ((Output(0xFFFFFFFD, 0xFFFF),), FLOWS)


def test_overlapping_taps_are_refused() -> None:
    one = Tap("one", match_of(0), frozenset({"s0"}), to=3)
    for other in (
        Tap("two", Match(eth_type=0x0800)),
        Tap("two", Match(), frozenset({"s0", "s1"})),
    ):
        with pytest.raises(MisuseError, match="taps one and two"):
            Compiler().compile(Intents(taps=(one, other)), LINE)
    others = (
        Tap("two", Match(), frozenset({"s1"})),
        Tap("three", Match(), frozenset({"s0"}), priority=99),
    )
    Compiler().compile(Intents(taps=(one, *others)), LINE)
    for wrong in (
        Tap("one", Match(metadata=1)),
        Tap("one", Match(), to=0),
        Tap("one", Match(), priority=0),
    ):
        with pytest.raises(MisuseError, match="tap one: "):
            Compiler().compile(Intents(taps=(wrong,)), LINE)


def test_extra_rules_are_merged_in_and_go() -> None:
    rule = Rule(EDGE, HOST_SERVICE_PRIORITY, Match(eth_type=0x0806), (Output(0xFFFFFFFD, 128),))
    compiler = Compiler()
    plan = compiler.compile(Intents(), LINE, {"s1": (rule,)})
    assert rule in plan.tables["s1"].rules
    assert rule not in plan.tables["s0"].rules
    assert rule not in compiler.compile(Intents(), LINE).tables["s1"].rules


def test_order_leads_downstream() -> None:
    flow = flow_to("flow0", match_of(0), PortRef("s2", 1), PortRef("s0", 1), PortRef("s1", 1))
    compiler = Compiler()
    assert compiler.compile(Intents((flow,)), LINE).order == ("s2", "s1", "s0")


def widths(network: Network, **mbit: float) -> Network:
    links = {
        link: replace(
            info, capacity_mbit=mbit["_".join(sorted((link.src.switch, link.dst.switch)))]
        )
        for link, info in network.links.items()
    }
    return replace(network, links=links)


def test_the_widest_way_is_kept_while_only_loads_change() -> None:
    wide = widths(RING, s0_s1=10, s1_s2=10, s2_s3=100, s0_s3=100)
    flow = replace(
        flow_to("flow0", match_of(0), PortRef("s0", 1), PortRef("s1", 1), PortRef("s2", 1)),
        policy=Policy.WIDEST,
    )
    compiler = Compiler()

    def way(network: Network) -> list[str]:
        tree = compiler.compile(Intents((flow,)), network).trees["flow0"]
        return sorted(f"{link.src.switch}>{link.dst.switch}" for link in tree.links)

    assert way(wide) == ["s0>s1", "s0>s3", "s3>s2"]
    loaded = {
        link: replace(info, load_mbit=99.0) if info.capacity_mbit == 100 else info
        for link, info in wide.links.items()
    }
    assert way(replace(wide, links=loaded)) == ["s0>s1", "s0>s3", "s3>s2"]
    lost = next(link for link in RING.links if (link.src.switch, link.dst.switch) == ("s0", "s3"))
    assert way(without(wide, lost)) == ["s0>s1", "s1>s2"]


def test_redundant_links_carry_flows_only_where_no_other_way_is_left() -> None:
    network = network_of(4, [(0, 1, False), (1, 2, False), (2, 3, False), (0, 3, True)])
    flow = flow_to("flow0", match_of(0), PortRef("s0", 1), PortRef("s3", 1))
    compiler = Compiler()
    plan = compiler.compile(Intents((flow,)), network)
    assert len(plan.trees["flow0"].links) == 3
    assert not plan.unprotected, "the reserve backs up every link"
    lost = next(link for link in network.links if link.dst.switch == "s2")
    (only,) = compiler.compile(Intents((flow,)), without(network, lost)).trees["flow0"].links
    assert network.links[only].redundant
    assert len(compiler.compile(Intents((flow,)), network).trees["flow0"].links) == 3


def test_links_of_last_resort_are_tried_plainly_and_only_where_no_other_way_is_left() -> None:
    network = network_of(4, [(0, 1, False), (1, 2, False), (2, 3, False), (0, 3, True)])
    flow = flow_to("flow0", match_of(0), PortRef("s0", 1), PortRef("s3", 1))
    compiler, world = Compiler(), World(network)
    first = next(link for link in network.links if link.dst.switch == "s1")
    middle = next(link for link in network.links if link.dst.switch == "s2")
    spare = next(link for link, info in network.links.items() if info.redundant)

    def way(now: Network) -> set[str]:
        plan = compiler.compile(Intents((flow,)), now)
        tree = plan.trees["flow0"]
        doubtful = {link for link in tree.links if now.links[link].last_resort}
        assert doubtful <= plan.unprotected
        for link in doubtful:
            ports = [
                action.port_no
                for rule in plan.tables[link.src.switch].rules
                for action in rule.actions
                if isinstance(action, Output)
            ]
            assert link.src.port_no in ports
        world.load(plan.tables)
        expect_all(world, Intents((flow,)), plan)
        return {link.dst.switch for link in tree.links}

    line, short = {"s1", "s2", "s3"}, {"s3"}
    assert way(network) == line
    assert way(doubted(network, middle)) == short, "rather the reserve"
    assert way(doubted(without(network, spare), first, middle)) == line, "there is no other"
    assert way(doubted(network, middle, spare)) == line, "rather one that is no reserve"
    assert way(doubted(network, first, middle, spare)) == short, "rather one than two"
    assert way(network) == line


def test_one_port_leads_to_one_place() -> None:
    twice = dict(LINE.links)
    link = next(link for link in LINE.links if link.dst.switch == "s2")
    twice[Link(link.src, PortRef("s9", 1))] = LinkInfo()
    network = replace(LINE, links=twice)
    flow = flow_to("flow0", match_of(0), PortRef("s0", 1), PortRef("s2", 1), PortRef("s9", 2))
    plan = Compiler().compile(Intents((flow,)), network)
    assert {egress.at.switch for egress in plan.unreachable["flow0"]} == {"s9"}


# ports that are no way in or out

LINK_PORTS = range(FIRST_LINK_PORT, FIRST_LINK_PORT + 4)


@st.composite
def careless_intents(draw: st.DrawFn, network: Network) -> Intents:
    """Draw flows and a tap that ask for any ports, inner ones included."""
    switches = st.sampled_from(sorted(network.switches))
    ports = st.builds(PortRef, switches, st.sampled_from((1, 2, *LINK_PORTS)))
    flows = [
        Flow(
            f"flow{number}",
            match_of(number),
            draw(ports),
            draw(st.frozensets(st.builds(Egress, ports), min_size=1, max_size=4)),
            draw(st.builds(lambda *found: found, st.builds(Service, ports, ports)) | st.just(())),
            protected=draw(st.booleans()),
        )
        for number in range(2)
    ]
    taps = st.builds(
        Tap,
        st.just("tap"),
        st.just(match_of(0)),
        st.frozensets(switches),
        st.sampled_from((1, *LINK_PORTS)),
        st.booleans(),
    )
    apart = (flow for flow in flows if flow.ingress not in {one.back for one in flow.through})
    return Intents(tuple(apart), tuple(draw(st.lists(taps, max_size=1))))


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_nothing_goes_round_whatever_ports_are_asked_for(data: st.DataObject) -> None:
    network = data.draw(networks(max_switches=4))
    intents = data.draw(careless_intents(network))
    down = [link for link in sorted(network.links) if data.draw(st.booleans())]
    known = without(network, *down)
    if data.draw(st.booleans()):  # the links appear after the flows
        compiler = Compiler()
        compiler.compile(intents, replace(network, links={}))
        plan = compiler.compile(intents, known)
    else:
        plan = Compiler().compile(intents, known)
    world = World(network)
    world.load(plan.tables)
    assert plan.tables == Compiler().compile(intents, known).tables
    for flow in intents.flows:
        frame = frame_of(int(flow.name.removeprefix("flow")))
        for at in {flow.ingress, *(service.back for service in flow.through)}:
            world.send(at, frame)
        inner = {end.src for end in network.links}
        assert {e for e in flow.egress if e.at in inner} <= plan.unreachable.get(
            flow.name, frozenset()
        )
    assert world.soft.looped == 0


def test_an_inner_port_is_no_egress_and_as_an_entrance_or_service_ends_the_flow() -> None:
    inner, edge = PortRef("s1", 11), PortRef("s0", 1)
    near, far, wrong = (Egress(at) for at in (PortRef("s1", 2), PortRef("s2", 1), inner))
    flow = Flow("flow0", match_of(0), edge, frozenset({near, far, wrong}))
    compiler, world = Compiler(), World(LINE)
    plan = compiler.compile(Intents((flow,)), LINE)
    assert plan.unreachable == {"flow0": {wrong}}
    world.load(plan.tables)
    expect_all(world, Intents((flow,)), plan)
    spoilt = (
        replace(flow, ingress=inner),
        replace(flow, through=(Service(inner, PortRef("s1", 4)),)),
        replace(flow, through=(Service(PortRef("s1", 4), inner),)),
    )
    for one in spoilt:
        for network in (LINE, without(LINE, *LINE.links)):
            plan = compiler.compile(Intents((one,)), network)
            assert plan.unreachable == {"flow0": flow.egress}
            assert not plan.trees["flow0"].segments


def test_a_port_that_its_switch_does_not_have_is_unreachable_until_it_comes() -> None:
    edge, late, local = PortRef("s0", 1), PortRef("s2", 1), PortRef("s2", PORT_LOCAL)
    flow = flow_to("flow0", match_of(0), edge, late, local)
    ports = {end: PortInfo(str(end)) for link in LINE.links for end in (link.src, link.dst)}
    compiler = Compiler()

    def missing(*there: PortRef) -> set[PortRef]:
        network = replace(LINE, ports=ports | {at: PortInfo("edge") for at in there})
        plan = compiler.compile(Intents((flow,)), network)
        assert plan.tables == Compiler().compile(Intents((flow,)), network).tables
        return {egress.at for egress in plan.unreachable.get("flow0", ())}

    assert missing(edge) == {late}
    assert missing(edge, late) == set()
    assert missing(late) == {late, local}
    assert missing(edge, late) == set()
    plan = compiler.compile(Intents((flow,)), LINE)
    assert not plan.unreachable, "nobody has said which ports there are"


def test_a_tap_to_an_inner_port_copies_nothing_there_and_says_so() -> None:
    flow = flow_to("flow0", match_of(0), PortRef("s0", 1), PortRef("s2", 1))
    tap = Tap("tap", match_of(0), frozenset({"s1"}), to=11)
    compiler, world = Compiler(), World(LINE)
    for divert, leaves in ((False, Counter({(PortRef("s2", 1), frame_of(0)): 1})), (True, {})):
        plan = compiler.compile(Intents((flow,), (replace(tap, divert=divert),)), LINE)
        assert plan.warnings == (
            "tap tap: s1:11 is inside the fabric or does not exist; nothing goes there",
        )
        world.load(plan.tables)
        assert world.send(flow.ingress, frame_of(0)) == leaves
    assert world.soft.looped == 0
