"""Members over a network that delays, cuts and parts: at rest the root's picture is the truth."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tree.network import ROOT_NAME, Network

from anabranch.tree.branch import BranchMember
from anabranch.tree.events import (
    Attached,
    Close,
    Connect,
    Deliver,
    Detached,
    Forgotten,
    Left,
    Moved,
    Send,
    Stopped,
    Target,
)
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity
from anabranch.tree.root import RootMember
from anabranch.tree.soleil.messages import (
    EVERYBODY,
    ROOT,
    ChildsUpdate,
    Descendant,
    Endpoint,
    Error,
    Fault,
    Hello,
    Kill,
    Message,
    PipeDef,
    PlayPipeline,
    Redirect,
    Stats,
)

RELAYS = ["ra", "rb", "rc", "rd"]
LEAVES = ["la", "lb", "lc", "ld", "le", "lf"]
PLAN = {"rb": "ra", "rd": "rb", "la": "ra", "lb": "rb", "lc": "rc", "ld": "rd", "le": "rd"}


def planned(hello: Hello, root: RootMember) -> str:
    return hello.features.get("parent") or PLAN.get(hello.name, root.name)


def site(seed: int = 0) -> Network:
    network = Network(seed, place=planned)
    for name in RELAYS:
        network.add(name, Role.RELAY)
        network.run(1.0)
    for name in LEAVES:
        network.add(name, Role.LEAF)
    network.run(2.0)
    return network


def at_rest(network: Network) -> None:
    for name in network.hosts:
        network.heal(name)
        network.start(name)
    network.run(90.0)
    check(network)


def check(network: Network) -> None:
    parents = network.parents()
    assert parents.keys() == network.hosts.keys() - {ROOT_NAME}
    assert network.picture() == parents
    for name in parents:
        at, steps = name, 0
        while at != ROOT_NAME:
            at, steps = parents[at], steps + 1
            assert steps < len(network.hosts)
    for name, place in network.root.registry.nodes.items():
        assert place.hello is not None
        assert place.hello.boot == network.hosts[name].member.boot
    for host in network.hosts.values():
        assert all(count == 1 for count in host.handled.values())


def reach_all(network: Network) -> None:
    """Everybody hears the root once, the root everybody, and any node any other."""
    for host in network.hosts.values():
        host.events.clear()
    network.send(ROOT_NAME, PlayPipeline("p"), EVERYBODY)
    for name in network.hosts.keys() - {ROOT_NAME}:
        network.send(name, Stats(), "^")
        network.send(ROOT_NAME, PipeDef(name, ""), name)
    network.run(2.0)
    for host in network.hosts.values():
        bodies = [event.message.body for event in host.events if isinstance(event, Deliver)]
        if host.name == ROOT_NAME:
            assert bodies == [Stats()] * (len(network.hosts) - 1)
        else:
            assert sorted(map(str, bodies)) == sorted(
                map(str, [PlayPipeline("p"), PipeDef(host.name, "")])
            )


def test_a_planned_tree_comes_up_and_everybody_is_reached() -> None:
    network = site()
    check(network)
    assert network.picture() == {name: PLAN.get(name, ROOT_NAME) for name in RELAYS + LEAVES}
    reach_all(network)
    assert network.blames == []


ACTIONS = st.one_of(
    st.tuples(st.just("crash"), st.sampled_from([ROOT_NAME, *RELAYS, *LEAVES])),
    st.tuples(st.just("start"), st.sampled_from([ROOT_NAME, *RELAYS, *LEAVES])),
    st.tuples(st.just("cut"), st.sampled_from([*RELAYS, *LEAVES])),
    st.tuples(st.just("silence"), st.sampled_from([ROOT_NAME, *RELAYS, *LEAVES])),
    st.tuples(st.just("part"), st.sampled_from([ROOT_NAME, *RELAYS, *LEAVES])),
    st.tuples(st.just("heal"), st.sampled_from([ROOT_NAME, *RELAYS, *LEAVES])),
    st.tuples(
        st.just("redirect"),
        st.sampled_from([*RELAYS, *LEAVES]),
        st.sampled_from([ROOT_NAME, *RELAYS]),
    ),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.1, 1.0, 5.0, 20.0])),
    st.tuples(st.just("broadcast")),
)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 1000), st.lists(ACTIONS, max_size=25))
def test_whatever_happens_the_picture_is_the_truth_at_rest(seed: int, actions: list) -> None:
    network = site(seed)
    for action in actions:
        match action:
            case ("crash", name):
                network.crash(name)
            case ("start", name):
                network.start(name)
            case ("cut", name):
                network.cut(name, silent=False)
            case ("silence", name):
                network.cut(name, silent=True)
            case ("part", name):
                network.part(name)
            case ("heal", name):
                network.heal(name)
            case ("redirect", name, parent):
                if network.hosts[ROOT_NAME].member is not None:
                    network.redirect(name, parent)
            case ("wait", seconds):
                network.run(seconds)
            case ("broadcast",):
                network.send(ROOT_NAME, PlayPipeline("p"), EVERYBODY)
                network.run(0.02)
    at_rest(network)
    reach_all(network)


NAMES = st.sampled_from([ROOT_NAME, *RELAYS, *LEAVES, "made-up"])
LIES = st.lists(st.builds(Descendant, NAMES, st.sampled_from(Role), NAMES), max_size=8)


def say_as(network: Network, name: str, *bodies: object) -> None:
    """Have a child of the root's say something that its member never would."""
    for number, body in enumerate(bodies):
        link = network.root._subtree.children[name]
        message = Message(body, 0, sender=name, id=f"lie-{network.now}-{number}")
        network.do(ROOT_NAME, network.root.receive(link, message, network.now))


def truth(network: Network) -> dict[str, str]:
    return {name: PLAN.get(name, ROOT_NAME) for name in RELAYS + LEAVES if name != "lc"}


@settings(deadline=None, max_examples=100)
@given(st.lists(LIES, max_size=8))
def test_who_lies_about_others_is_not_believed(updates: list) -> None:
    network = site()
    for number, lies in enumerate(updates):
        say_as(network, "rc", ChildsUpdate(10**9 + number, tuple(lies)))
        network.run(0.5)
        for name, parent in truth(network).items():
            assert network.picture()[name] == parent
    assert network.dropped == site().dropped


def test_a_liar_that_a_new_root_hears_first_is_found_out() -> None:
    network = site()
    network.crash(ROOT_NAME)
    network.start(ROOT_NAME)
    while "rc" not in network.root._subtree.children:
        network.run(0.05)
    stolen = (Descendant("ld", Role.LEAF, "rc"), Descendant("rd", Role.RELAY, "rc"))
    for number in range(20):
        if "rc" in network.root._subtree.children:
            say_as(network, "rc", ChildsUpdate(10**9 + number, stolen))
        network.run(1.0)
    for name, parent in truth(network).items():
        assert network.picture()[name] == parent


def test_a_new_root_tells_the_nodes_that_stay_where_they_are_that_it_knows_none() -> None:
    network = site()
    network.crash(ROOT_NAME)
    network.hosts["le"].events.clear()
    network.start(ROOT_NAME)
    network.run(15.0)
    check(network)
    assert network.parents()["le"] == "rd"
    told = network.hosts["le"].events
    assert Forgotten() in told
    assert not any(isinstance(event, Attached) for event in told)


def test_what_does_not_belong_below_a_node_is_refused_and_changes_nothing() -> None:
    network = site()
    network.root._subtree._belongs = lambda _name, child: child != "rc"
    network.crash("lf")
    network.run(20.0)
    before, dropped = network.picture(), list(network.dropped)
    assert "lf" not in before
    for name in (ROOT_NAME, "rc"):
        network.hosts[name].events.clear()
    stolen = (Descendant("lf", Role.LEAF, "rc"), Descendant("le", Role.LEAF, "rc"))
    for number in range(20):
        told = (Descendant("lc", Role.LEAF, "rc"), *stolen[number % 2 :])
        say_as(network, "rc", ChildsUpdate(10**9 + number, told))
        network.run(0.5)
    assert network.picture() == before
    assert network.hosts[ROOT_NAME].events == []
    refusals = [event.message.body for event in network.hosts["rc"].events]
    assert refusals[0].fault is Fault.CONFLICT
    assert (refusals[0].regarding, refusals[0].text) == ("childsupdate", "not below you: le, lf")
    assert network.dropped == dropped


def test_a_redirect_is_make_before_break() -> None:
    network = site()
    network.hosts["lb"].events.clear()
    network.redirect("lb", "rc")
    network.run(1.0)
    told = network.hosts["lb"].events
    assert told == [Attached("rc")]
    assert Moved("lb", "rc", "rb") in network.hosts[ROOT_NAME].events
    network.hosts["ra"].cut_off = True  # nobody new reaches it
    network.redirect("lb", "ra")
    network.run(1.0)
    assert told == [Attached("rc")]
    assert network.picture()["lb"] == "rc"
    (refusal,) = [
        event.message.body
        for event in network.hosts[ROOT_NAME].events
        if isinstance(event, Deliver)
    ]
    assert (refusal.fault, refusal.regarding) == (Fault.FAILED, "redirect")


def test_a_circle_is_refused_at_every_level() -> None:
    network = site()
    before = network.picture()
    for name, parent in (("ra", "rd"), ("rb", "rd"), ("ra", "la"), ("ra", "nobody")):
        network.redirect(name, parent)
    network.run(2.0)
    assert network.picture() == before
    order = Message(Redirect("rd", (Endpoint("rd", 1),)), 0, "rb", ROOT, "forged-1")
    link = network.branch("rb")._parent.link
    network.do("rb", network.branch("rb").receive(link, order, network.now))
    network.run(2.0)
    assert network.picture() == network.parents() == before


def test_the_root_may_end_a_node_for_good() -> None:
    network = site()
    network.do(ROOT_NAME, network.root.kill("rd", "over", network.now))
    network.run(0.5)
    assert Stopped("over") in network.hosts["rd"].events
    assert Left("rd", "over") in network.hosts[ROOT_NAME].events
    network.crash("rd")
    network.run(30.0)
    assert network.picture()["ld"] == network.parents()["ld"] == ROOT_NAME
    network.redirect("rc", "rb")
    network.run(1.0)
    relay = network.branch("rb")
    relay.accepted(999, Identity("rd", Role.RELAY))  # its certificate is still good
    out = relay.receive(999, Message(Hello("rd", Role.RELAY), 0, ROOT), network.now)
    assert [each.message.body.fault for each in out if isinstance(each, Send)] == [Fault.FORBIDDEN]
    assert Close in map(type, out)


def test_a_node_that_leaves_is_gone_at_once() -> None:
    network = site()
    network.do("ld", network.branch("ld").leave("done"))
    network.run(0.5)
    assert Left("ld", "done") in network.hosts[ROOT_NAME].events
    assert "ld" not in network.root.registry.nodes


def test_after_a_partition_nobody_is_there_twice() -> None:
    network = site()
    network.part("rb")
    network.run(12.0)
    assert network.parents()["lb"] == ROOT_NAME
    network.heal("rb")
    network.run(15.0)
    check(network)


@pytest.mark.parametrize("sender", [None, "la", "lb", ROOT])
def test_commands_of_others_than_the_root_are_refused_below_too(sender: str | None) -> None:
    relay = BranchMember("ra", Role.RELAY, (Endpoint("root", 1),), server=Endpoint("ra", 1))
    relay.start()
    relay.dialled(1, Target(None, ()), Identity("root", Role.ROOT), 0.0)
    relay.receive(1, Message(Hello("root", Role.ROOT), 0), 0.0)
    relay.accepted(2, Identity("la", Role.LEAF))
    relay.receive(2, Message(Hello("la", Role.LEAF), 0, ROOT, "la"), 0.0)
    out = relay.receive(2, Message(Kill(), 0, "ra", sender, "k"), 1.0)
    errors = [each.message.body for each in out if isinstance(each, Send)]
    assert [error.fault for error in errors if isinstance(error, Error)] == [Fault.FORBIDDEN]
    assert not any(isinstance(each, Stopped | Deliver) for each in out)


def test_a_node_dials_its_last_parent_then_the_root_and_waits_longer_each_time() -> None:
    leaf = BranchMember("la", Role.LEAF, (Endpoint("root", 1),))
    root, relay = Target(None, (Endpoint("root", 1),)), Target("ra", (Endpoint("ra", 1),))
    assert leaf.start() == [Connect((root,))]
    leaf.dialled(1, root, Identity("root", Role.ROOT), 0.0)
    out = leaf.receive(1, Message(Redirect("ra", relay.at), 0), 0.0)
    assert out[-1] == Connect((relay,))
    leaf.dialled(2, relay, Identity("ra", Role.RELAY), 0.0)
    assert Attached("ra") in leaf.receive(2, Message(Hello("ra", Role.RELAY), 0), 0.0)
    detached, connect = leaf.lost(2, "cut", 100.0)
    assert (detached, connect) == (Detached("cut"), Connect((relay, root)))
    waits = []
    for _ in range(12):
        (connect,) = leaf.failed(100.0)
        assert connect.targets == (root, relay)
        waits.append(connect.after)
    assert max(waits) <= 10.0
    (hello, _) = leaf.dialled(3, root, Identity("root", Role.ROOT), 0.0), None
    assert hello[0].message.body.features == {"unreachable": "ra"}


@pytest.mark.parametrize(
    ("target", "identity"),
    [
        (Target(None, ()), Identity("ra", Role.RELAY)),
        (Target(None, ()), None),
        (Target("ra", ()), Identity("rb", Role.RELAY)),
        (Target("ra", ()), Identity("ra", Role.LEAF)),
    ],
)
def test_another_than_the_one_dialled_is_not_greeted(
    target: Target, identity: Identity | None
) -> None:
    leaf = BranchMember("la", Role.LEAF, (Endpoint("root", 1),))
    leaf.start()
    out = leaf.dialled(1, target, identity, 0.0)
    assert [type(each) for each in out] == [Close, Connect]


@pytest.mark.parametrize(
    "body",
    [
        Hello("other", Role.ROOT),
        Error(Fault.FORBIDDEN, "no"),
        Redirect("root", ()),
        Stats(),
    ],
)
def test_a_strange_answer_makes_a_node_try_again(body: object) -> None:
    leaf = BranchMember("la", Role.LEAF, (Endpoint("root", 1),))
    leaf.start()
    leaf.dialled(1, Target(None, ()), Identity("root", Role.ROOT), 0.0)
    out = leaf.receive(1, Message(body, 0), 0.0)
    assert [type(each) for each in out] == [Close, Connect]
    assert leaf.lost(1, "closed", 0.1) == []
