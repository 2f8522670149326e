"""Hosts by what they send, VMs by their ports; floods and thefts of addresses contained."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.hosts import HostRules, Hosts, Vms
from anabranch.fabric.model import Host, PortInfo, PortRef

A, B, C = (PortRef(name, 1) for name in "abc")
MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
TAP = "fe:54:00:00:00:01"


class Told:
    """Remembers what was emitted."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str, dict[str, Any]]] = []

    def __call__(self, kind: str, subject: str, data: Mapping[str, Any]) -> None:
        self.all.append((kind, subject, dict(data)))

    def kinds(self) -> list[str]:
        """Return, once, the kinds of all events."""
        kinds = [kind for kind, _, _ in self.all]
        self.all.clear()
        return kinds


@pytest.fixture
def told() -> Told:
    return Told()


def hosts(told: Told, **rules: Any) -> Hosts:
    return Hosts(told, HostRules(**rules))


def move(known: Hosts, mac: str, at: PortRef, now: float, ipv4: str | None = None) -> None:
    """Let a host be seen elsewhere and not answer at its old place."""
    known.seen(mac, at, ipv4, now, vm=False)
    for quarter in range(4):
        known.handle_timer(now + quarter / 4)


def mac(number: int) -> str:
    return (0x020000000000 + number).to_bytes(6, "big").hex(":")


def test_a_host_comes_moves_and_ages(told: Told) -> None:
    known = hosts(told)
    known.seen(MAC, A, "10.0.0.1", 0.0, vm=False)
    move(known, MAC, B, 99.25)
    assert known.copy() == {MAC: Host(MAC, B, "10.0.0.1")}
    assert [(known.at(A), known.at(B))] == [(frozenset(), {MAC})]
    assert told.all[0] == (
        "host.added",
        MAC,
        {"switch": "a", "port_no": 1, "ipv4": "10.0.0.1", "vm": False},
    )
    assert told.all[1][2]["from_switch"] == "a"
    assert told.kinds() == ["host.added", "host.moved"]
    assert known.next_timer() == 400.0
    known.handle_timer(399.9)
    assert told.kinds() == []
    known.handle_timer(400.0)
    assert told.kinds() == ["host.removed"]
    assert (known.copy(), known.next_timer()) == ({}, None)


def test_being_seen_again_changes_nothing_but_the_age(told: Told) -> None:
    known = hosts(told)
    known.seen(MAC, A, "10.0.0.1", 0.0, vm=False)
    before, version = known.copy(), known.version
    known.seen(MAC.upper(), A, None, 200.0, vm=False)
    known.seen(MAC, A, "0.0.0.0", 200.0, vm=False)
    assert known.copy() is before
    assert known.next_timer() == 500.0
    known.seen(MAC, A, "10.0.0.9", 200.0, vm=False)
    assert known.copy()[MAC].ipv4 == "10.0.0.9"
    assert before[MAC].ipv4 == "10.0.0.1"
    assert known.version == version


@pytest.mark.parametrize("source", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00"])
def test_what_cannot_be_a_source_is_no_host(told: Told, source: str) -> None:
    known = hosts(told)
    assert known.seen(source, A, None, 0.0, vm=False)
    assert (known.copy(), known.counts["invalid"]) == ({}, 1)


@pytest.mark.parametrize(("source", "ipv4"), [("nonsense", None), (MAC, "10.0.0.256")])
def test_what_is_no_address_is_misuse(told: Told, source: str, ipv4: str | None) -> None:
    with pytest.raises(MisuseError):
        hosts(told).seen(source, A, ipv4, 0.0, vm=False)


def test_the_most_silent_at_a_full_port_is_forgotten(told: Told) -> None:
    known = hosts(told, per_port=3)
    for number in range(3):
        known.seen(mac(number), A, None, number, vm=False)
    known.seen(mac(0), A, None, 5.0, vm=False)
    known.seen(mac(3), A, None, 6.0, vm=False)
    assert known.at(A) == {mac(0), mac(2), mac(3)}
    assert known.counts["forgotten"] == 1


def test_a_host_that_moves_to_a_full_port_displaces_the_most_silent_there(told: Told) -> None:
    seen = hosts(told, per_port=2)
    for number, port in ((0, A), (1, A), (2, B)):
        seen.seen(mac(number), port, None, float(number), vm=False)
    move(seen, mac(2), A, 3.0)
    assert seen.at(A) == {mac(1), mac(2)}
    assert seen.at(B) == frozenset()


def test_the_most_silent_of_all_goes_when_the_whole_is_full_but_no_vm(told: Told) -> None:
    known = hosts(told, total=3)
    known.seen(MAC, C, None, 0.0, vm=True)
    known.seen(mac(1), A, None, 1.0, vm=False)
    known.seen(mac(2), B, None, 2.0, vm=False)
    known.seen(mac(3), A, None, 3.0, vm=False)
    assert set(known.copy()) == {MAC, mac(2), mac(3)}


def test_ever_new_addresses_are_heeded_at_a_bounded_rate(told: Told) -> None:
    known = hosts(told, per_port=4, burst=4, per_second=10.0)
    for number in range(10_000):
        known.seen(mac(number), A, None, number / 10_000, vm=False)
    assert len(told.all) <= 2 * (4 + 10)
    assert known.counts["excess"] >= 10_000 - 4 - 10
    known.seen(MAC, B, None, 1.0, vm=False)  # another port does not suffer
    assert MAC in known.copy()


def test_an_address_that_flaps_between_two_ports_is_bounded_too(told: Told) -> None:
    known = hosts(told, burst=5, per_second=1.0)
    for number in range(1000):
        known.seen(MAC, (A, B)[number % 2], None, number / 1000, vm=False)
    assert len(told.all) <= 12


# moves


def test_who_is_seen_elsewhere_is_asked_at_the_old_place_first(told: Told) -> None:
    known = hosts(told)
    known.seen(MAC, A, "10.0.0.1", 0.0, vm=False)
    told.all.clear()
    version = known.version
    known.seen(MAC, B, "10.0.0.9", 1.0, vm=False)
    asked = []
    while (due := known.next_timer()) is not None and due < 2.0:
        assert (known.copy()[MAC].at, known.version, told.all) == (A, version, [])
        known.handle_timer(due)
        asked += [(due, *known.questions())]
    host = Host(MAC, A, "10.0.0.1")
    assert asked == [(1.0, host), (1.25, host), (1.5, host), (1.75,)]
    assert known.copy() == {MAC: Host(MAC, B, "10.0.0.9")}
    assert known.version > version
    assert told.kinds() == ["host.moved"]


def test_who_answers_at_the_old_place_stays_and_the_other_is_told_of_once(told: Told) -> None:
    known = hosts(told)
    known.seen(MAC, A, "10.0.0.1", 0.0, vm=False)
    told.all.clear()
    questions = 0
    for tenth in range(600):
        now = 1 + tenth / 10
        known.seen(MAC, B, "10.0.0.1", now, vm=False)
        known.handle_timer(now)
        if known.questions():
            questions += 1
            known.seen(MAC, A, "10.0.0.1", now + 0.01, vm=False)
    assert known.copy()[MAC].at == A
    assert questions == 6  # every ten seconds
    assert told.all == [
        (
            "host.conflict",
            MAC,
            {
                "switch": "a",
                "port_no": 1,
                "by_switch": "b",
                "by_port_no": 1,
                "ipv4": "10.0.0.1",
                "vm": False,
            },
        )
    ]
    for later in (200.0, 400.0):  # who comes back after a while is news
        known.seen(MAC, A, None, later, vm=False)
        known.seen(MAC, B, None, later, vm=False)
        known.handle_timer(later)
        known.seen(MAC, A, None, later, vm=False)
    assert told.kinds() == ["host.conflict"] * 3


def test_where_no_packet_passes_nobody_is_asked(told: Told) -> None:
    down: set[PortRef] = set()
    known = Hosts(told, HostRules(), lambda port: port not in down)
    known.seen(MAC, A, "10.0.0.1", 0.0, vm=False)
    down.add(A)
    known.seen(MAC, B, None, 1.0, vm=False)
    assert known.copy() == {MAC: Host(MAC, B, "10.0.0.1")}
    known.handle_timer(1.0)
    assert known.questions() == []


def test_who_is_certain_to_be_there_is_asked_nowhere_else(told: Told) -> None:
    known = hosts(told)
    known.seen(MAC, A, "10.0.0.1", 0.0, vm=False)
    known.seen(MAC, B, None, 1.0, vm=False)
    known.seen(MAC, C, None, 1.1, vm=False, certain=True)
    assert known.copy()[MAC].at == C
    known.handle_timer(2.0)
    assert known.copy()[MAC].at == C


@pytest.mark.parametrize(
    ("gone", "left"), [(A, {MAC: B}), (B, {MAC: A})], ids=["the old port", "the new port"]
)
def test_a_port_that_goes_meanwhile_decides(
    told: Told, gone: PortRef, left: dict[str, PortRef]
) -> None:
    known = hosts(told)
    known.seen(MAC, A, "10.0.0.1", 0.0, vm=False)
    known.seen(MAC, B, None, 1.0, vm=False)
    known.port_gone(gone, 1.1)
    assert {mac: host.at for mac, host in known.copy().items()} == left
    known.handle_timer(2.0)
    assert {mac: host.at for mac, host in known.copy().items()} == left


def test_a_port_that_is_none_of_hosts_decides_nothing(told: Told) -> None:
    known = hosts(told)
    known.seen(MAC, A, "10.0.0.1", 0.0, vm=False)
    known.seen(MAC, B, None, 1.0, vm=False)
    known.port_gone(A, None)
    assert known.copy() == {}


def test_who_ages_while_asked_for_is_forgotten(told: Told) -> None:
    known = hosts(told, max_age=10.0)
    known.seen(MAC, A, None, 0.0, vm=False)
    known.seen(MAC, B, None, 9.5, vm=False)
    known.handle_timer(10.0)
    known.handle_timer(10.0)
    assert known.copy() == {}
    assert known.next_timer() is None


steps = st.tuples(st.sampled_from([A, B, C]), st.floats(0.0, 30.0), st.floats(0.0, 0.2))


@given(st.lists(steps, max_size=40))
def test_who_always_answers_never_moves(seen: list[tuple[PortRef, float, float]]) -> None:
    told = Told()
    known = Hosts(told, HostRules(max_age=1e9))
    now = 0.0
    known.seen(MAC, A, "10.0.0.1", now, vm=False)

    def wait(until: float, delay: float) -> None:
        while (due := known.next_timer()) is not None and due <= until:
            known.handle_timer(due)
            for host in known.questions():
                known.seen(MAC, host.at, host.ipv4, due + delay, vm=False)

    for at, later, delay in seen:
        wait(now + later, delay)
        now += later
        known.seen(MAC, at, None, now, vm=False)
    wait(now + 10, 0.0)
    assert known.copy()[MAC].at == A
    assert set(told.kinds()) <= {"host.added", "host.conflict"}


# VMs' addresses


def test_nobody_takes_the_address_of_a_vm(told: Told) -> None:
    known = hosts(told)
    known.seen(MAC, A, None, 0.0, vm=True)
    assert not known.seen(MAC, B, None, 1.0, vm=False)
    assert known.copy()[MAC] == Host(MAC, A, None, vm=True)
    assert known.counts["refused"] == 1
    assert told.kinds() == ["host.added"]
    assert known.next_timer() is None  # a VM does not age
    known.port_gone(A, 2.0)
    assert told.kinds() == ["host.removed"]
    assert known.seen(MAC, B, None, 3.0, vm=False)


def test_without_port_security_the_last_one_wins(told: Told) -> None:
    known = hosts(told, port_security=False)
    known.seen(MAC, A, None, 0.0, vm=True)
    assert known.seen(MAC, B, None, 1.0, vm=False)
    assert known.copy()[MAC].at == B


def test_a_vm_that_spoke_there_before_it_left_here_is_there(told: Told) -> None:
    known = hosts(told)
    known.seen(MAC, A, "10.0.0.1", 0.0, vm=True)
    assert not known.seen(MAC, B, "10.0.0.1", 5.0, vm=True)
    known.port_gone(A, 6.0)
    assert known.copy() == {MAC: Host(MAC, B, "10.0.0.1", vm=True)}


@pytest.mark.parametrize("case", ["late", "gone", "no time"])
def test_a_claim_that_holds_no_more_is_dropped(told: Told, case: str) -> None:
    known = hosts(told)
    known.seen(MAC, A, None, 0.0, vm=True)
    known.seen(MAC, B, None, 5.0, vm=True)
    if case == "gone":
        known.port_gone(B, 5.5)
    known.port_gone(A, None if case == "no time" else 16.0 if case == "late" else 6.0)
    assert known.copy() == {}


def test_a_limit_below_one_is_misuse() -> None:
    with pytest.raises(MisuseError):
        HostRules(total=0)


sightings = st.tuples(
    st.integers(0, 6), st.sampled_from([A, B, C]), st.booleans(), st.floats(0.0, 120.0)
)


@given(st.lists(sightings, max_size=60), st.booleans())
def test_every_host_is_at_one_port_and_events_tell_all(
    seen: list[tuple[int, PortRef, bool, float]], security: bool
) -> None:
    told = Told()
    rules = HostRules(per_port=3, total=5, burst=10, port_security=security)
    known = Hosts(told, rules)
    now = 0.0
    for number, at, gone, later in seen:
        now += later
        known.handle_timer(now)
        for host in known.questions():
            assert known.copy()[host.mac].at == host.at
        if gone:
            known.port_gone(at, now)
            assert not known.any_at(at)
        else:
            known.seen(mac(number), at, None, now, vm=at is C)
        copy = known.copy()
        assert len(copy) <= 5
        for port in (A, B, C):
            assert known.at(port) == {host.mac for host in copy.values() if host.at == port}
            assert len(known.at(port)) <= 3
        replayed: dict[str, tuple[str, int]] = {}
        for kind, subject, data in told.all:
            if kind == "host.removed":
                del replayed[subject]
            elif kind != "host.conflict":
                assert (subject in replayed) == (kind == "host.moved")
                replayed[subject] = (data["switch"], data["port_no"])
        assert replayed == {host.mac: (host.at.switch, host.at.port_no) for host in copy.values()}
        plain = [host for host in copy.values() if not host.vm]
        assert known.next_timer() is None or plain
        assert (known.next_timer() is None) == (not plain)


def vms(told: Told) -> Vms:
    return Vms(told, HostRules())


def vm_port(name: str = "vnet0", hw_addr: str = TAP) -> PortInfo:
    return PortInfo(name, hw_addr)


def test_a_vm_is_told_as_in_the_seed(told: Told) -> None:
    known = vms(told)
    at = PortRef("leaf", 6)
    known.attach(at, 0x000082F26AF6154A, vm_port(), 0.0)
    known.attach(at, 0x000082F26AF6154A, vm_port(), 1.0)
    assert at in known
    ((kind, subject, data),) = told.all
    assert (kind, subject) == ("vm.added", "leaf")
    assert (data["switch"], data["vnet"]) == ("00:00:82:f2:6a:f6:15:4a", "vnet0/6")
    known.detach(at, frozenset(), 2.0)
    known.detach(at, frozenset(), 2.0)
    assert told.kinds() == ["vm.added", "vm.removed"]


def test_a_vm_that_leaves_here_and_comes_there_has_moved(told: Told) -> None:
    known = vms(told)
    known.attach(A, 1, vm_port("vnet0"), 0.0)
    known.detach(A, frozenset(), 100.0)
    known.attach(B, 2, vm_port("vnet7"), 105.0)
    assert told.all[-1][2] == {
        "switch": "00:00:00:00:00:00:00:02",
        "vnet": "vnet7/1",
        "name": "b",
        "port_no": 1,
        "from_switch": "00:00:00:00:00:00:00:01",
        "from_vnet": "vnet0/1",
        "from_name": "a",
        "from_port_no": 1,
    }
    assert told.kinds() == ["vm.added", "vm.removed", "vm.added", "vm.moved"]


def test_a_vm_that_comes_there_before_it_leaves_here_has_moved(told: Told) -> None:
    known = vms(told)
    known.attach(A, 1, vm_port("vnet0"), 0.0)
    known.attach(B, 2, vm_port("vnet7"), 100.0)
    known.detach(A, frozenset(), 105.0)
    assert told.kinds() == ["vm.added", "vm.added", "vm.removed", "vm.moved"]


def test_its_address_tells_a_vm_whose_port_does_not(told: Told) -> None:
    known = vms(told)
    known.attach(A, 1, vm_port("tap1", "36:11:22:33:44:55"), 0.0)
    known.detach(A, frozenset({MAC}), 100.0)
    known.attach(B, 2, vm_port("tap9", "8a:00:00:33:44:99"), 101.0)
    known.host_seen(OTHER, B, 102.0)
    assert told.kinds() == ["vm.added", "vm.removed", "vm.added"]
    known.host_seen(MAC, B, 103.0)
    known.host_seen(MAC, B, 104.0)
    assert told.kinds() == ["vm.moved"]


def test_a_stranger_a_latecomer_or_a_restart_is_no_move(told: Told) -> None:
    known = vms(told)
    known.attach(A, 1, vm_port(), 0.0)
    known.detach(A, frozenset({MAC}), 1.0)
    known.attach(A, 1, vm_port(), 2.0)  # the same place
    known.host_seen(MAC, A, 2.0)
    known.detach(A, frozenset(), 3.0)
    known.attach(B, 2, vm_port(hw_addr="fe:54:00:00:00:02"), 4.0)
    known.attach(C, 3, vm_port(), 13.5)  # the VM of A, too late
    assert "vm.moved" not in told.kinds()


def test_names_tell_vm_ports_apart() -> None:
    rules = HostRules()
    assert [rules.is_vm_port(name) for name in ("vnet0", "tap1", "vm-x", "eth0", "gre0")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert HostRules(vm_ports=("guest?",)).is_vm_port("guest1")
