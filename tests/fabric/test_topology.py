"""The topology against a world of cables: every frame it sends goes where a cable leads."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from anabranch.core.events import Event
from anabranch.fabric import frames
from anabranch.fabric.damping import DampingRules
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.lldp import Authenticator
from anabranch.fabric.model import Host, Link, LinkInfo, Network, PortInfo, PortRef
from anabranch.fabric.openflow.actions import PORT_LOCAL
from anabranch.fabric.openflow.messages import Port, PortStats
from anabranch.fabric.topology import Topology, TopologyRules

KEY = bytes(range(32))
NO_DAMPING = TopologyRules(damping=DampingRules(penalty=1e-9))
MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"


def ref(text: str) -> PortRef:
    """Return ``"a1"`` as port 1 of switch a."""
    return PortRef(text[0], int(text[1:]))


def both(a: str, b: str) -> set[Link]:
    return {Link(ref(a), ref(b)), Link(ref(b), ref(a))}


def port(number: int, name: str | None = None, *, up: bool = True, **more: Any) -> Port:
    name = name or f"eth{number}"
    hw_addr = more.pop("hw_addr", f"02:00:00:00:00:{number & 0xFF:02x}")
    return Port(number, hw_addr, name, state=int(not up), **more)


class World:
    """Switches with ports 1 to 3 and the cables between them, and the topology that watches."""

    def __init__(self, *cables: tuple[str, str], **options: Any) -> None:
        self.topology = Topology(key=KEY, **options)
        self.now = 0.0
        self.cables: dict[PortRef, PortRef] = {}
        self.connected: set[str] = set()
        self.deaf: set[PortRef] = set()
        self.delivered: list[tuple[PortRef, bytes]] = []
        self.told: list[Event] = []
        for a, b in cables:
            self.plug(ref(a), ref(b))

    def plug(self, a: PortRef, b: PortRef) -> None:
        for end in (a, b):
            self.unplug(end)
        self.cables |= {a: b, b: a}

    def unplug(self, a: PortRef) -> None:
        b = self.cables.pop(a, None)
        if b is not None:
            del self.cables[b]

    def up(self, *names: str, ports: Iterable[Port] | None = None) -> None:
        for name in names:
            given = list(ports) if ports is not None else [port(number) for number in (1, 2, 3)]
            self.connected.add(name)
            by_number = {one.port_no: one for one in given}
            self.topology.switch_up(name, ord(name), by_number, self.now)
        self.deliver()

    def lose(self, name: str) -> None:
        self.connected.discard(name)
        self.topology.switch_lost(name, self.now)

    def change(self, where: str, **state: Any) -> None:
        at = ref(where)
        self.topology.port_changed(at.switch, port(at.port_no, **state), at.port_no, self.now)
        self.deliver()

    def delete(self, where: str) -> None:
        at = ref(where)
        self.topology.port_changed(at.switch, None, at.port_no, self.now)

    def deliver(self) -> None:
        while found := self.topology.frames_to_send():
            for sender, data in found:
                assert sender.switch in self.connected, "a frame for a switch that is away"
                far = self.cables.get(sender)
                if far is not None and far.switch in self.connected and far not in self.deaf:
                    self.delivered.append((far, data))
                    self.topology.frame(far.switch, far.port_no, data, self.now)

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.topology.next_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            self.topology.handle_timer(self.now)
            self.deliver()
        self.now = end

    def links(self) -> set[Link]:
        return {link for link, info in self.topology.snapshot().links.items() if info.up}

    def last_resorts(self) -> set[Link]:
        return {link for link, info in self.topology.snapshot().links.items() if info.last_resort}

    def known(self) -> set[Link]:
        return set(self.topology.snapshot().links)

    def kinds(self) -> list[str]:
        """Return, once, the kinds of the events since the last call."""
        events = self.topology.events()
        self.told += events
        return [event.kind for event in events]


def linked(**options: Any) -> World:
    """Return switches a and b, and a cable from a1 to b2 that is discovered."""
    world = World(("a1", "b2"), **options)
    world.up("a", "b")
    assert world.links() == both("a1", "b2")
    assert world.kinds() == ["link.added", "link.up"]
    return world


# discovery


def test_a_cable_is_a_link_as_soon_as_both_switches_are_there() -> None:
    world = linked()
    event = world.told[-1]
    assert event.subject == "a:1-b:2"
    assert event.data == {"src": "a", "src_port": 1, "dst": "b", "dst_port": 2, "declared": False}


def test_several_cables_between_two_switches_are_several_links() -> None:
    world = World(("a1", "b1"), ("a2", "b2"))
    world.up("a", "b")
    assert world.links() == both("a1", "b1") | both("a2", "b2")


def test_a_link_stays_while_frames_come() -> None:
    world = linked()
    world.wait(600)
    assert world.links() == both("a1", "b2")
    assert world.kinds() == []


def test_a_silent_link_ages_out_after_three_misses() -> None:
    world = linked()
    world.wait(30)
    world.unplug(ref("a1"))
    world.wait(14.9)
    assert world.links() == both("a1", "b2")
    world.wait(5.2)
    assert world.known() == set()
    assert world.kinds() == ["link.down", "link.removed"]


def test_a_link_that_works_one_way_only_is_down_but_known() -> None:
    world = linked()
    world.deaf = {ref("a1")}
    world.wait(30)
    assert (world.links(), world.known()) == (set(), both("a1", "b2"))
    assert world.kinds() == ["link.down"]
    assert world.topology.events() == []
    world.deaf.clear()
    world.wait(6)
    assert world.kinds() == ["link.up"]


def test_one_direction_alone_never_makes_a_link() -> None:
    world = World(("a1", "b2"))
    world.deaf = {ref("a1")}
    world.up("a", "b")
    world.wait(60)
    assert world.known() == set()


def test_a_port_that_goes_down_takes_the_link_down_at_once_and_back_at_once() -> None:
    world = linked()
    world.change("a1", up=False)
    assert (world.links(), world.known()) == (set(), both("a1", "b2"))
    world.change("a1")
    assert world.links() == both("a1", "b2")
    assert world.kinds() == ["link.down", "link.up"]


def test_a_port_that_is_deleted_takes_the_link_away() -> None:
    world = linked()
    world.delete("b2")
    assert world.known() == set()
    assert ref("b2") not in world.topology.snapshot().ports
    assert world.kinds() == ["link.down", "link.removed"]


def test_a_cable_that_is_moved_makes_the_new_link_and_ends_the_old() -> None:
    world = linked()
    world.change("a1", up=False)
    world.plug(ref("a1"), ref("b3"))
    world.change("a1")
    assert world.links() == both("a1", "b3")
    assert world.known() == both("a1", "b3")


def test_another_port_under_the_same_number_must_be_discovered_anew() -> None:
    world = linked()
    world.cables.clear()
    world.change("a1", name="other")
    assert world.known() == set()


def test_a_loop_at_one_switch_is_no_link() -> None:
    world = World(("a1", "a2"))
    world.up("a")
    world.wait(20)
    assert world.known() == set()


def test_bfd_takes_a_link_down_and_up_whatever_discovery_says() -> None:
    world = linked()
    world.topology.port_health(ref("b2"), False, world.now)
    assert world.links() == set()
    world.wait(20)
    assert (world.links(), world.known()) == (set(), both("a1", "b2"))
    world.topology.port_health(ref("b2"), True, world.now)
    assert world.links() == both("a1", "b2")
    assert world.kinds() == ["link.down", "link.up"]
    assert world.told[2].data["reason"] == "BFD down"


def test_a_link_that_bfd_alone_denies_is_a_last_resort() -> None:
    world = linked()
    before = world.topology.version
    world.topology.port_health(ref("b2"), False, world.now)
    assert (world.links(), world.last_resorts()) == (set(), both("a1", "b2"))
    assert world.topology.version > before
    world.change("a1", up=False)
    assert world.last_resorts() == set(), "a port is down besides"
    world.change("a1")
    assert world.last_resorts() == both("a1", "b2")
    world.cables.clear()
    world.wait(21)
    assert world.last_resorts() == set(), "discovery does not get through either"
    world.topology.declare(declared("a1", "b2"))
    assert world.last_resorts() == both("a1", "b2")
    world.topology.declare(declared("a1", "b2", up=False))
    assert world.last_resorts() == set(), "out of service is the administrator's word"


def test_ports_of_one_switch_do_not_all_send_at_the_same_moment() -> None:
    topology = Topology(key=KEY)
    topology.switch_up("a", 1, {number: port(number) for number in range(1, 101)}, 0.0)
    assert len(topology.frames_to_send()) == 100
    sizes = []
    for _ in range(100):
        due = topology.next_timer()
        assert due is not None
        assert 2.5 <= due <= 5.0
        topology.handle_timer(due)
        sizes.append(len(topology.frames_to_send()))
    assert max(sizes) < 5


# what must not make a link


def test_a_forged_frame_makes_no_link_and_is_told_once_a_minute() -> None:
    world = World()
    world.up("a", "b")
    forger = Authenticator(bytes(32))
    for number in range(100):
        world.now = float(number)
        frame = forger.probe(ref("a1"), ord("a"), world.now).frame("02:00:00:00:00:01", 20)
        assert world.topology.frame("b", 1, frame, world.now)
    assert world.known() == set()
    assert world.topology.counts["forged"] == 100
    events = world.topology.events()
    assert [event.kind for event in events] == ["topology.forged"] * 2
    assert [event.data["count"] for event in events] == [1, 60]
    assert (events[0].subject, events[0].data["port_no"]) == ("b", 1)


def test_a_replayed_frame_neither_makes_nor_keeps_a_link() -> None:
    world = linked()
    world.unplug(ref("a1"))
    for far, data in world.delivered:
        world.topology.frame(far.switch, far.port_no, data, world.now)
    world.wait(18)
    for far, data in world.delivered:
        world.topology.frame(far.switch, far.port_no, data, world.now)
        world.topology.frame("b", 3, data, world.now)
    world.wait(2.1)
    assert world.known() == set()
    assert world.topology.counts["forged"] >= 4


def test_an_edge_port_neither_sends_nor_is_believed() -> None:
    world = World(("a1", "b2"), edge=frozenset({ref("a1")}))
    world.up("a", "b")
    world.wait(20)
    assert world.known() == set()
    assert not any(far == ref("b2") for far, _ in world.delivered)
    assert world.topology.counts["forged"] > 0


def test_a_frame_under_way_when_its_port_becomes_an_edge_port_is_not_believed() -> None:
    world = World()
    world.up("b")
    world.topology.switch_up("a", ord("a"), {1: port(1)}, world.now)
    ((sender, frame),) = world.topology.frames_to_send()
    world.topology.set_edge(frozenset({sender}))
    assert world.topology.frame("b", 2, frame, world.now)
    assert world.topology.counts["forged"] == 1


def test_a_relay_between_ports_with_hosts_makes_no_link() -> None:
    """The attack: hosts at a1 and b2 carry genuine frames between these ports."""
    world = World()
    world.up("a", "b")
    world.wait(3)
    world.topology.host_seen(MAC, ref("a1"), "10.0.0.1", world.now)
    world.plug(ref("a1"), ref("b2"))
    world.wait(60)
    assert world.known() == set()


def test_a_frame_carried_elsewhere_does_not_take_a_link_away() -> None:
    world = World(("a1", "b2"))
    world.up("a", "b", "c")
    (frame,) = [data for far, data in world.delivered if far == ref("b2")][-1:]
    world.topology.frame("c", 3, frame, world.now)
    world.deliver()
    assert world.known() == both("a1", "b2")
    assert world.kinds()[-1] == "topology.conflict"


def test_hosts_seen_while_a_network_is_taken_over_do_not_hinder_discovery() -> None:
    world = World(("a1", "b2"))
    world.up("a")
    world.topology.host_seen(MAC, ref("a1"), None, world.now)
    world.up("b")
    assert world.links() == both("a1", "b2")
    assert world.topology.snapshot().hosts == {}
    world.topology.host_seen(MAC, ref("a1"), None, world.now)
    assert world.topology.snapshot().hosts == {}


@pytest.mark.parametrize(
    ("frame", "lldp", "counted"),
    [
        (bytes(12) + b"\x08\x06" + bytes(28), False, None),
        (b"", False, None),
        (bytes(12) + b"\x88\xcc", True, "malformed"),
        (bytes(12) + b"\x88\xcc\x02\x02\x07a\x04\x02\x07b\x06\x02\0\x14\0\0", True, "foreign"),
    ],
)
def test_lldp_is_consumed_whatever_is_in_it(frame: bytes, lldp: bool, counted: str | None) -> None:
    world = World()
    world.up("a")
    assert world.topology.frame("a", 1, frame, 0.0) == lldp
    assert world.topology.counts == ({counted: 1} if counted else {})


def test_a_port_that_becomes_an_edge_port_loses_its_link() -> None:
    world = linked()
    world.topology.set_edge(frozenset({ref("b2")}))
    assert world.known() == set()
    world.wait(20)
    assert world.known() == set()
    world.topology.set_edge(frozenset())
    world.wait(10)
    assert world.links() == both("a1", "b2")


# declared links


def declared(a: str, b: str, **info: Any) -> dict[Link, LinkInfo]:
    return {Link(ref(a), ref(b)): LinkInfo(**info)}


def test_a_declared_link_needs_no_discovery_but_both_switches_and_ports() -> None:
    world = World()
    world.topology.declare(declared("b2", "a1", capacity_mbit=100.0, redundant=True))
    world.up("a")
    assert world.known() == set()
    world.up("b", ports=[port(2, up=False)])
    assert (world.links(), world.known()) == (set(), both("a1", "b2"))
    world.change("b2")
    info = LinkInfo(up=True, capacity_mbit=100.0, redundant=True)
    assert world.topology.snapshot().links == dict.fromkeys(both("a1", "b2"), info)
    world.wait(100)
    assert world.links() == both("a1", "b2")
    assert world.kinds() == ["link.added", "link.up"]


def test_a_declared_link_whose_port_is_missing_is_known_and_down() -> None:
    world = World()
    world.topology.declare(declared("a9", "b9"))
    world.up("a", "b")
    assert (world.links(), world.known()) == (set(), both("a9", "b9"))


def test_directions_may_be_declared_apart() -> None:
    world = World()
    world.up("a", "b")
    world.topology.declare(
        declared("a1", "b2", capacity_mbit=100.0) | declared("b2", "a1", capacity_mbit=10.0)
    )
    links = world.topology.snapshot().links
    assert links[Link(ref("a1"), ref("b2"))].capacity_mbit == 100.0
    assert links[Link(ref("b2"), ref("a1"))].capacity_mbit == 10.0


def test_a_declaration_replaces_the_earlier_one_and_is_no_flap() -> None:
    world = World()
    world.up("a", "b")
    for _ in range(5):
        world.topology.declare(declared("a1", "b2"))
        assert world.links() == both("a1", "b2")
        world.topology.declare(declared("a1", "b3"))
        assert world.links() == both("a1", "b3")
    world.topology.declare(declared("a1", "b3", up=False))
    assert (world.links(), world.known()) == (set(), both("a1", "b3"))
    world.topology.declare({})
    assert world.known() == set()
    assert "link.damped" not in world.kinds()


def test_the_administrators_word_ends_a_discovered_link_and_is_doubted_aloud() -> None:
    world = linked()
    world.topology.declare(declared("a1", "b3"))
    assert world.known() == both("a1", "b3")
    world.wait(10)
    assert world.known() == both("a1", "b3")
    assert (
        world.kinds()
        == ["link.down", "link.removed", "link.added", "link.up"] + ["topology.conflict"] * 2
    )


def test_a_discovered_link_outlives_its_declaration() -> None:
    world = linked()
    world.topology.declare(declared("a1", "b2", redundant=True))
    world.topology.declare({})
    assert world.links() == both("a1", "b2")
    assert world.kinds() == []


@pytest.mark.parametrize(
    "links",
    [
        declared("a1", "b2") | declared("a1", "c2"),
        declared("a1", "b2") | declared("c1", "b2"),
        declared("a1", "a2"),
        declared("a3", "b2"),
        declared("a0", "b2"),
        declared("a4294967041", "b2"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused_whole(links: dict[Link, LinkInfo]) -> None:
    world = World(edge=frozenset({ref("a3")}))
    world.up("a", "b", "c")
    world.topology.declare(declared("c1", "b1"))
    with pytest.raises(MisuseError):
        world.topology.declare(links)
    assert world.links() == both("c1", "b1")
    with pytest.raises(MisuseError):
        world.topology.set_edge(frozenset({ref("b1")}))


# switches that go


def test_a_lost_switch_keeps_everything_for_its_grace() -> None:
    world = linked()
    world.wait(20)
    before, version = world.topology.snapshot(), world.topology.version
    world.lose("a")
    world.wait(9.9)
    assert world.topology.snapshot() is before
    world.up("a")
    assert world.topology.snapshot() == before
    assert world.topology.version == version
    world.wait(30)
    assert world.links() == both("a1", "b2")
    assert world.kinds() == []


def test_after_its_grace_nothing_of_a_lost_switch_is_left() -> None:
    world = linked()
    world.topology.host_seen(MAC, ref("a3"), None, 5.0)
    world.lose("a")
    world.wait(10)
    network = world.topology.snapshot()
    assert set(network.switches) == {"b"}
    assert {at.switch for at in network.ports} == {"b"}
    assert (network.links, network.hosts) == ({}, {})
    assert sorted(world.kinds()) == ["host.added", "host.removed", "link.down", "link.removed"]
    world.up("a")
    assert world.links() == both("a1", "b2")


def test_a_long_absence_does_not_age_links_before_the_grace_ends() -> None:
    world = linked(rules=TopologyRules(grace=100.0))
    world.lose("a")
    world.wait(99)
    assert world.links() == both("a1", "b2")
    world.up("a")
    world.wait(60)
    assert world.links() == both("a1", "b2")


def test_what_changed_in_its_absence_is_seen_on_its_return() -> None:
    world = linked()
    world.lose("a")
    world.wait(3)
    world.up("a", ports=[port(1, up=False), port(7)])
    assert world.links() == set()
    assert world.topology.snapshot().ports.keys() == {
        *(PortRef("b", number) for number in (1, 2, 3)),
        ref("a1"),
        ref("a7"),
    }


def test_another_switch_under_the_same_name_starts_from_nothing() -> None:
    world = linked()
    world.cables.clear()
    world.topology.switch_up("a", 0xAA, {1: port(1)}, world.now)
    assert world.topology.snapshot().switches == {"a": 0xAA, "b": ord("b")}
    assert world.known() == set()


def test_bfd_is_remembered_over_an_absence_but_not_over_another_port() -> None:
    world = World()
    world.topology.declare(declared("a1", "b2"))
    world.up("a", "b")
    world.topology.port_health(ref("a1"), False, world.now)
    world.lose("a")
    world.wait(20)
    world.up("a")
    assert world.links() == set()
    world.delete("a1")
    world.change("a1")
    assert world.links() == both("a1", "b2")


def test_ports_are_limited_and_reserved_ones_ignored() -> None:
    world = World(rules=TopologyRules(max_ports=10))
    ports = [port(number) for number in range(1, 31)]
    world.up("a", ports=[*ports, port(0xFFFFFFFD), port(0)])
    assert len(world.topology.snapshot().ports) == 10
    assert world.topology.counts["ports"] == 20


def test_the_local_port_is_there_but_no_end_of_a_link() -> None:
    world = World()
    world.up("a", ports=[port(PORT_LOCAL, "br0")])
    assert world.topology.snapshot().ports[PortRef("a", PORT_LOCAL)] == PortInfo(
        "br0", "02:00:00:00:00:fe"
    )
    world.wait(20)
    assert world.topology.frames_to_send() == []


# flapping


def flap(world: World, times: int) -> None:
    for _ in range(times):
        world.change("a1", up=False)
        world.change("a1")
        world.wait(0.1)


def test_a_flapping_link_is_held_down_until_it_is_quiet() -> None:
    world = linked()
    flap(world, 6)
    assert world.links() == set()
    assert world.known() == world.last_resorts() == both("a1", "b2")
    assert world.kinds() == ["link.down", "link.up"] * 2 + ["link.down", "link.damped"]
    world.wait(40)
    assert world.links() == set()
    world.wait(15)
    assert world.links() == both("a1", "b2")
    assert world.last_resorts() == set()
    assert world.kinds() == ["link.undamped", "link.up"]
    world.wait(300)
    flap(world, 1)
    assert world.kinds() == ["link.down", "link.up"]


def test_a_damped_link_that_is_broken_when_its_time_is_over_stays_down() -> None:
    world = linked()
    flap(world, 3)
    world.change("a1", up=False)
    assert world.last_resorts() == set()
    world.kinds()
    world.wait(120)
    assert world.kinds() == ["link.removed", "link.undamped"]
    world.change("a1")
    assert world.kinds() == ["link.added", "link.up"]


def test_damping_outlives_the_link() -> None:
    world = linked()
    for _ in range(4):
        world.delete("a1")
        world.change("a1")
    assert (world.links(), world.known()) == (set(), both("a1", "b2"))


def test_a_switch_that_is_away_and_comes_back_is_no_flap_of_its_links() -> None:
    world = linked()
    for _ in range(6):
        world.lose("a")
        world.topology.port_health(ref("b2"), False, world.now)  # its peer hears nothing
        assert world.last_resorts() == both("a1", "b2")
        world.topology.port_health(ref("a1"), False, world.now)  # as in BFD's slow start
        world.up("a", ports=[port(1, up=False), port(2)])
        world.change("a1")
        assert world.last_resorts() == both("a1", "b2")
        for end in ("a1", "b2"):
            world.topology.port_health(ref(end), True, world.now)
        assert world.links() == both("a1", "b2")
    for _ in range(6):
        world.lose("a")
        world.up("a", ports=[])
        world.up("a")
        world.lose("a")
        world.wait(GRACE + 1)
        assert world.known() == set()
        world.up("a")
        assert world.links() == both("a1", "b2")
    assert "link.damped" not in world.kinds()


def test_what_happens_to_a_link_after_its_switch_came_back_is_a_flap() -> None:
    world = linked()
    world.lose("a")
    world.up("a")
    flap(world, 3)
    assert world.last_resorts() == both("a1", "b2")


# hosts and VMs


def test_hosts_are_in_the_snapshot_and_go_with_their_port() -> None:
    world = World()
    world.up("a")
    version = world.topology.version
    world.topology.host_seen(MAC, ref("a1"), "10.0.0.1", 1.0)
    assert world.topology.snapshot().hosts == {MAC: Host(MAC, ref("a1"), "10.0.0.1")}
    assert world.topology.version > version
    world.topology.host_seen(MAC, ref("a9"), None, 1.0)
    world.topology.host_seen(MAC, ref("z1"), None, 1.0)
    world.delete("a1")
    assert world.topology.snapshot().hosts == {}
    assert world.kinds() == ["host.added", "host.removed"]


def test_a_host_seen_elsewhere_is_asked_where_it_was() -> None:
    world = World()
    world.up("a")
    world.topology.host_seen(MAC, ref("a1"), "10.0.0.1", world.now)
    world.topology.host_seen(OTHER, ref("a1"), None, world.now)
    for mac in (MAC, OTHER):
        world.topology.host_seen(mac, ref("a2"), None, world.now)
    world.topology.handle_timer(world.now)
    ((at, frame),) = world.topology.questions()  # who has no IPv4 address cannot be asked
    asked = frames.parse(frame)
    assert at == ref("a1")
    assert (asked.mac("eth_dst"), asked.get("arp_op")) == (MAC, frames.ARP_REQUEST)
    assert (asked.ipv4("arp_spa"), asked.ipv4("arp_tpa")) == ("0.0.0.0", "10.0.0.1")
    world.wait(1)
    hosts = world.topology.snapshot().hosts
    assert {hosts[mac].at for mac in (MAC, OTHER)} == {ref("a2")}


@pytest.mark.parametrize("how", ["port down", "port gone", "switch away"])
def test_a_host_whose_old_port_is_dead_has_moved_at_once(how: str) -> None:
    world = World()
    world.up("a")
    world.up("b")
    world.topology.host_seen(MAC, ref("a1"), "10.0.0.1", world.now)
    if how == "port down":
        world.change("a1", up=False)
    elif how == "port gone":
        world.delete("a1")
    else:
        world.lose("a")
    world.topology.host_seen(MAC, ref("b1"), None, world.now)
    assert world.topology.snapshot().hosts[MAC].at == ref("b1")


def test_a_vms_own_port_says_where_it_is() -> None:
    world = World()
    world.up("a", ports=[port(1), port(6, "vnet0", hw_addr="fe:54:00:00:00:01")])
    world.topology.host_seen("52:54:00:00:00:01", ref("a1"), "10.0.0.1", world.now)  # forged
    world.topology.host_seen("52:54:00:00:00:01", ref("a6"), None, world.now)
    assert world.topology.snapshot().hosts["52:54:00:00:00:01"].at == ref("a6")


def test_a_vm_comes_and_goes_with_its_port_and_keeps_its_address() -> None:
    world = World()
    world.up("a", ports=[port(1), port(6, "vnet0")])
    world.topology.host_seen(MAC, ref("a6"), None, world.now)
    assert world.topology.snapshot().hosts[MAC].vm
    world.topology.host_seen(MAC, ref("a1"), None, world.now)
    assert world.topology.snapshot().hosts[MAC].at == ref("a6")
    world.wait(1000)
    assert MAC in world.topology.snapshot().hosts
    world.change("a6", name="vnet0", up=False)
    assert world.kinds() == [
        "vm.added",
        "host.added",
        "topology.forged",
        "vm.removed",
        "host.removed",
    ]


def test_a_vm_that_migrates_has_moved() -> None:
    world = World()
    world.up("a", ports=[port(6, "vnet0")])
    world.up("b", ports=[])
    world.delete("a6")
    world.wait(2)
    world.change("b6", name="vnet3")
    assert world.kinds() == ["vm.added", "vm.removed", "vm.added", "vm.moved"]


def test_a_vms_port_makes_no_link_unless_it_is_declared() -> None:
    world = World(("a6", "b1"))
    world.up("a", ports=[port(6, "tap0")])
    world.up("b")
    world.wait(20)
    assert world.known() == set()
    world.topology.declare(declared("a6", "b1"))
    assert world.links() == both("a6", "b1")
    world.topology.declare({})
    events = [kind for kind in world.kinds() if kind.startswith("vm.")]
    assert events == ["vm.added", "vm.removed", "vm.added"]


# load


def counted(number: int, rx: int, tx: int, age: float) -> PortStats:
    return PortStats(number, 0, 0, rx, tx, 0, 0, 0, 0, 0, 0, 0, 0, age)


def test_load_is_per_direction_and_no_new_version() -> None:
    world = World(("a1", "b2"))
    world.up("a", ports=[port(1, curr_speed=1_000_000)])
    world.up("b", ports=[port(2, curr_speed=100_000)])
    version = world.topology.version
    world.topology.counters("a", [counted(1, 0, 0, 1), counted(9, 0, 0, 1)], 10.0)
    world.topology.counters("a", [counted(1, 250_000, 1_250_000, 2)], 11.0)
    before = world.topology.snapshot()
    assert before.links[Link(ref("a1"), ref("b2"))] == LinkInfo(True, 100.0, 10.0)
    world.topology.counters("b", [counted(2, 0, 0, 1)], 10.0)
    world.topology.counters("b", [counted(2, 1_250_000, 250_000, 2)], 11.0)
    links = world.topology.snapshot().links
    assert links[Link(ref("b2"), ref("a1"))] == LinkInfo(True, 100.0, 2.0)
    assert world.topology.version == version
    world.topology.counters("b", [counted(2, 2_500_000, 500_000, 3)], 12.0)
    assert world.topology.snapshot().links is links


def test_a_snapshot_cannot_be_changed_and_does_not_change() -> None:
    world = linked()
    before = world.topology.snapshot()
    assert world.topology.snapshot() is before
    with pytest.raises(TypeError):
        before.switches["z"] = 1  # type: ignore[index]
    copy = Network(*(dict(part) for part in parts(before)))
    world.delete("a1")
    world.topology.host_seen(MAC, ref("b3"), None, 1.0)
    assert parts(copy) == parts(before)
    assert world.topology.snapshot() != before


def parts(network: Network) -> tuple[Mapping[Any, Any], ...]:
    return network.switches, network.ports, network.links, network.hosts


NAMES = "abc"
ENDS = [PortRef(name, number) for name in NAMES for number in (1, 2, 3)]
ends = st.sampled_from(ENDS)
names = st.sampled_from(NAMES)
GRACE = 10.0


class Watched(RuleBasedStateMachine):
    """Anything may happen in a world of three switches; the model is the world itself."""

    given: TopologyRules = NO_DAMPING

    def __init__(self) -> None:
        super().__init__()
        self.world = World(rules=self.given)
        self.ports: dict[PortRef, bool] = {}  # there, up: as told when the switch is connected
        self.lost: dict[str, float] = {}
        self.sick: set[PortRef] = set()
        self.word: set[tuple[PortRef, PortRef]] = set()
        self.seen_up: set[str] = set()
        self.announced: dict[str, bool] = {}
        self.damped: set[str] = set()
        self.last = (self.world.topology.version, self.paths())

    def paths(self) -> tuple[Any, ...]:
        network = self.world.topology.snapshot()
        return (
            dict(network.switches),
            {at: info.up for at, info in network.ports.items()},
            {
                link: (info.up, info.redundant, info.last_resort)
                for link, info in network.links.items()
            },
            {mac: host.at for mac, host in network.hosts.items()},
        )

    @rule(name=names, state=st.tuples(*[st.sampled_from([True, True, True, False, None])] * 3))
    def connect(self, name: str, state: tuple[bool | None, ...]) -> None:
        for number, up in enumerate(state, 1):
            self.ports.pop(PortRef(name, number), None)
            if up is None:
                self.sick.discard(PortRef(name, number))
            else:
                self.ports[PortRef(name, number)] = up
        self.lost.pop(name, None)
        given = [port(number, up=up) for number, up in enumerate(state, 1) if up is not None]
        self.world.up(name, ports=given)

    @rule(name=names)
    def lose(self, name: str) -> None:
        if name in self.world.connected:
            self.lost[name] = self.world.now
        self.world.lose(name)

    @rule(at=ends, up=st.booleans())
    def turn(self, at: PortRef, up: bool) -> None:
        if at.switch in self.world.connected:
            self.ports[at] = up
            self.world.change(f"{at.switch}{at.port_no}", up=up)

    @rule(at=ends)
    def delete(self, at: PortRef) -> None:
        if self.ports.pop(at, None) is not None and at.switch in self.world.connected:
            self.sick.discard(at)
            self.world.delete(f"{at.switch}{at.port_no}")
        elif at.switch in self.lost:
            self.ports.pop(at, None)

    @rule(a=ends, b=ends)
    def plug(self, a: PortRef, b: PortRef) -> None:
        if a.switch != b.switch:
            self.world.plug(a, b)

    @rule(a=ends)
    def unplug(self, a: PortRef) -> None:
        self.world.unplug(a)

    @rule(at=ends, up=st.booleans())
    def bfd(self, at: PortRef, up: bool) -> None:
        if at in self.ports and at.switch in self.world.connected:
            (self.sick.discard if up else self.sick.add)(at)
            self.world.topology.port_health(at, up, self.world.now)

    @rule(pairs=st.lists(st.tuples(ends, ends), max_size=3))
    def declare(self, pairs: list[tuple[PortRef, PortRef]]) -> None:
        links = {Link(a, b): LinkInfo(redundant=3 in (a.port_no, b.port_no)) for a, b in pairs}
        busy = [end for pair in {frozenset(pair) for pair in pairs} for end in pair]
        fine = all(a.switch != b.switch for a, b in pairs) and len(busy) == len(set(busy))
        if not fine:
            with pytest.raises(MisuseError):
                self.world.topology.declare(links)
            return
        self.word = {(min(pair), max(pair)) for pair in pairs}
        self.world.topology.declare(links)

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 9.0, 25.0]))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule(data=st.data(), at=ends)
    def replay(self, data: st.DataObject, at: PortRef) -> None:
        if self.world.delivered:
            _, frame = data.draw(st.sampled_from(self.world.delivered[-20:]))
            before = self.world.links()
            heard = [far for far, known in self.world.delivered if known == frame]
            if at in heard:
                self.world.topology.frame(at.switch, at.port_no, frame, self.world.now)
                assert self.world.links() == before

    def present(self, name: str) -> bool:
        if name in self.world.connected:
            return True
        return name in self.lost and self.world.now < self.lost[name] + GRACE

    @invariant()
    def switches_and_ports_are_those_of_the_world(self) -> None:
        network = self.world.topology.snapshot()
        assert set(network.switches) == {name for name in NAMES if self.present(name)}
        connected = {at: up for at, up in self.ports.items() if at.switch in self.world.connected}
        told = {at: info.up for at, info in network.ports.items()}
        assert {at: up for at, up in told.items() if at.switch in self.world.connected} == connected
        assert all(at.switch in network.switches for at in told)

    @invariant()
    def links_have_two_ends_that_agree(self) -> None:
        network = self.world.topology.snapshot()
        peers = {link.src: link.dst for link in network.links}
        assert len(peers) == len(network.links)
        for link, info in network.links.items():
            back = network.links[link.reverse]
            assert back == info
            assert {link.src.switch, link.dst.switch} <= network.switches.keys()
            ports = [network.ports.get(at) for at in (link.src, link.dst)]
            ready = all(info is not None and info.up for info in ports)
            if info.up:
                assert ready
                assert link.src not in self.sick
                assert not info.last_resort
            elif (
                info.last_resort or (min(link.src, link.dst), max(link.src, link.dst)) in self.word
            ):
                assert info.last_resort == ready

    @invariant()
    def declared_links_are_known(self) -> None:
        network = self.world.topology.snapshot()
        for a, b in self.word:
            there = self.present(a.switch) and self.present(b.switch)
            assert (Link(a, b) in network.links) == there

    @invariant()
    def events_tell_all_of_it(self) -> None:
        for event in self.world.topology.events():
            what = event.kind.removeprefix("link.")
            known = event.subject in self.announced
            match what:
                case "added":
                    assert not known
                    self.announced[event.subject] = False
                case "removed":
                    assert self.announced.pop(event.subject) is False
                case "up" | "down":
                    assert self.announced[event.subject] is (what == "down")
                    self.announced[event.subject] = what == "up"
                case "damped":
                    assert event.subject not in self.damped
                    self.damped.add(event.subject)
                case "undamped":
                    self.damped.remove(event.subject)
        network = self.world.topology.snapshot()
        told = {f"{link.src}-{link.dst}": info.up for link, info in network.links.items()}
        assert {
            subject: up for subject, up in told.items() if subject in self.announced
        } == self.announced
        assert len(told) == 2 * len(self.announced)
        assert not any(self.announced.get(subject) for subject in self.damped)

    @invariant()
    def the_version_tells_of_every_change_and_snapshots_are_cached(self) -> None:
        topology = self.world.topology
        version, paths = topology.version, self.paths()
        assert version >= self.last[0]
        assert (version > self.last[0]) or paths == self.last[1]
        self.last = version, paths
        assert topology.snapshot() is topology.snapshot()

    def works(self, at: PortRef) -> bool:
        connected = at.switch in self.world.connected
        return connected and self.ports.get(at, False) and at not in self.sick

    @rule()
    def rest(self) -> None:
        """After two minutes of quiet the links are exactly those of the world."""
        self.world.wait(120)
        self.events_tell_all_of_it()
        assert not self.damped
        taken = {end for pair in self.word for end in pair}
        pairs = set(self.word)
        for a, b in self.world.cables.items():
            if a < b and not {a, b} & taken:
                pairs.add((a, b))
        expected = {pair for pair in pairs if all(map(self.works, pair))}
        up = {(link.src, link.dst) for link in self.world.links() if link.src < link.dst}
        assert up == expected


class Damped(Watched):
    """The same with damping: what is damped is down, and everything is up in the end."""

    given = TopologyRules()


# Without the phase that explains, which traces every line and takes minutes.
PHASES = [phase for phase in Phase if phase is not Phase.explain]
TestWatched = Watched.TestCase
TestWatched.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, phases=PHASES
)
TestDamped = Damped.TestCase
TestDamped.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, phases=PHASES
)
