"""ARP on a line of three switches: answered where it is asked, never flooded."""

from collections import Counter
from dataclasses import replace

import pytest
from tests.fabric.host_services.line import (
    A_AT,
    A_IP,
    B_AT,
    B_IP,
    C_AT,
    C_IP,
    EVERYBODY,
    FREE_AT,
    HOST_A,
    HOST_B,
    HOST_C,
    SERVER,
    SERVER_AT,
    SERVER_IP,
    SETTINGS,
    A,
    B,
    C,
    network,
)

from anabranch.fabric import frames
from anabranch.fabric.host_services import HostSeen, HostServices, SendPacket
from anabranch.fabric.host_services.arp import ASK_AGAIN, PENDING
from anabranch.fabric.model import Host, Network, PortInfo, PortRef
from anabranch.fabric.moves import probe_frame

STRANGER = "02:00:00:00:00:66"
NOBODY_IP = "10.0.0.99"


class Line:
    """The services, the network they know, and what they did last."""

    def __init__(self, known: Network = EVERYBODY, **settings) -> None:
        self.services = HostServices(replace(SETTINGS, **settings))
        self.network = known
        self.now = 1000.0
        self.seen: list[HostSeen] = []

    @property
    def counters(self) -> Counter[str]:
        return self.services.counters

    def receive(self, at: PortRef, frame: bytes) -> dict[PortRef, bytes]:
        """Return which frame is sent out of which port; hosts seen become known."""
        acts = self.services.packet_in(at.switch, at.port_no, frame, self.network, self.now)
        sent = [act for act in acts if isinstance(act, SendPacket)]
        self.seen = [act for act in acts if isinstance(act, HostSeen)]
        assert len(sent) + len(self.seen) == len(acts)
        for act in self.seen:
            known = self.network.hosts.get(act.mac)
            ipv4 = act.ipv4 or (known.ipv4 if known else None)
            hosts = {**self.network.hosts, act.mac: Host(act.mac, act.at, ipv4)}
            self.network = replace(self.network, hosts=hosts)
        ports = {PortRef(act.switch, act.port_no): act.data for act in sent}
        assert len(ports) == len(sent)
        return ports


def test_a_known_host_is_answered_for_where_it_is_asked_for():
    line = Line()
    reply = frames.arp_reply(B, B_IP, A, A_IP)
    assert line.receive(A_AT, frames.arp_request(A, A_IP, B_IP)) == {A_AT: reply}
    assert line.seen == [HostSeen(A, A_AT, A_IP)]
    assert line.counters == {"arp_answered": 1}


def test_a_probe_of_an_address_in_use_is_answered():
    """RFC 5227: who probes has no address yet."""
    line = Line()
    sent = line.receive(FREE_AT, frames.arp_request(STRANGER, "0.0.0.0", B_IP))
    assert sent == {FREE_AT: frames.arp_reply(B, B_IP, STRANGER, "0.0.0.0")}
    assert line.seen == [HostSeen(STRANGER, FREE_AT)]


def test_a_host_that_asks_for_itself_is_not_told_of_a_conflict():
    line = Line()
    assert line.receive(A_AT, frames.arp_request(A, "0.0.0.0", A_IP)) == {}
    assert line.receive(A_AT, frames.arp_request(A, A_IP, A_IP)) == {}
    assert line.counters == {}


@pytest.mark.parametrize(
    "announcement",
    [frames.arp_request(A, A_IP, A_IP), frames.arp_reply(A, A_IP, frames.BROADCAST, A_IP)],
)
def test_announcements_teach(announcement):
    line = Line(network())
    assert line.receive(A_AT, announcement) == {}
    assert line.seen == [HostSeen(A, A_AT, A_IP)]


def test_an_unknown_host_is_searched_at_the_edge_only():
    line = Line(network(HOST_A))
    question = frames.arp_request(A, A_IP, C_IP)
    edge = {PortRef(s, n) for s in ("s1", "s2", "s3") for n in (1, 2)} - {A_AT}
    assert line.receive(A_AT, question) == dict.fromkeys(edge, question)
    # It answers to the asker, and so to the controller: both get to know each other.
    line.now += 0.01
    reply = frames.arp_reply(C, C_IP, A, A_IP)
    assert line.receive(C_AT, reply) == {A_AT: reply}
    assert line.seen == [HostSeen(C, C_AT, C_IP)]
    assert line.receive(C_AT, reply) == {}  # once is enough
    assert line.receive(A_AT, question) == {A_AT: reply}
    assert line.counters == {"arp_asked": 1, "arp_answered": 2}


def test_a_search_is_shared_and_repeated_only_after_a_while():
    line = Line(network(HOST_A, HOST_B))
    assert line.receive(A_AT, frames.arp_request(A, A_IP, C_IP))
    assert line.receive(A_AT, frames.arp_request(A, A_IP, C_IP)) == {}
    assert line.receive(B_AT, frames.arp_request(B, B_IP, C_IP)) == {}
    line.now += 0.5
    sent = line.receive(C_AT, frames.arp_reply(C, C_IP, A, A_IP))
    assert sent == {
        A_AT: frames.arp_reply(C, C_IP, A, A_IP),
        B_AT: frames.arp_reply(C, C_IP, B, B_IP),
    }
    assert line.receive(A_AT, frames.arp_request(A, A_IP, NOBODY_IP))
    line.now += ASK_AGAIN
    assert line.receive(A_AT, frames.arp_request(A, A_IP, NOBODY_IP))


def test_whoever_waited_too_long_is_not_answered():
    line = Line(network(HOST_A))
    line.receive(A_AT, frames.arp_request(A, A_IP, C_IP))
    line.now += PENDING + 0.1
    assert line.receive(C_AT, frames.arp_request(C, C_IP, C_IP)) == {}


def test_searches_of_one_port_are_limited_and_others_are_not_affected():
    line = Line(network(HOST_A, HOST_B))
    for n in range(1, 41):
        line.receive(A_AT, frames.arp_request(A, A_IP, f"10.0.1.{n}"))
    assert line.counters == {"arp_asked": 20, "arp_limited": 20}
    assert line.receive(B_AT, frames.arp_request(B, B_IP, NOBODY_IP))
    line.now += 1.0
    for n in range(41, 81):
        line.receive(A_AT, frames.arp_request(A, A_IP, f"10.0.1.{n}"))
    assert line.counters["arp_asked"] == 20 + 1 + 10


def test_a_search_can_be_forbidden_or_confined():
    line = Line(network(HOST_A), ask_unknown=False)
    assert line.receive(A_AT, frames.arp_request(A, A_IP, C_IP)) == {}
    assert line.counters == {"arp_unknown": 1}
    line = Line(network(HOST_A), edge=frozenset({A_AT, C_AT}))
    assert line.receive(A_AT, frames.arp_request(A, A_IP, C_IP)).keys() == {C_AT}


@pytest.mark.parametrize("address", ["224.0.0.1", "255.255.255.255", "127.0.0.1"])
def test_addresses_that_no_host_has_are_not_searched_for(address):
    line = Line(network(HOST_A))
    assert line.receive(A_AT, frames.arp_request(A, A_IP, address)) == {}


def test_a_port_that_is_down_is_not_searched():
    known = network(HOST_A)
    ports = {at: replace(port, up=at != C_AT) for at, port in known.ports.items()}
    line = Line(replace(known, ports=ports))
    assert C_AT not in line.receive(A_AT, frames.arp_request(A, A_IP, B_IP))


def test_a_search_that_comes_back_by_a_link_not_known_yet_moves_nobody():
    """Before discovery a port to another switch looks as if hosts were behind it."""
    line = Line(replace(network(HOST_A), links={}))
    question = frames.arp_request(A, A_IP, C_IP)
    assert PortRef("s1", 9) in line.receive(A_AT, question)
    assert line.receive(PortRef("s2", 8), question) == {}
    assert line.network.hosts[A].at == A_AT


@pytest.mark.parametrize("frame", [*range(3)])
def test_who_is_known_elsewhere_is_told_nothing_until_he_is_there(frame):
    line = Line()
    questions = (
        frames.arp_request(B, B_IP, B_IP),
        frames.arp_request(B, B_IP, A_IP),
        frames.arp_reply(B, B_IP, A, A_IP),
    )
    assert line.receive(FREE_AT, questions[frame]) == {}
    assert line.seen == [HostSeen(B, FREE_AT, B_IP)]
    assert line.counters == {"arp_moving": 1}
    assert line.receive(FREE_AT, questions[1]).keys() == {FREE_AT}  # he is there now


def test_where_no_packet_passes_nobody_is_any_more():
    ports = {**EVERYBODY.ports, B_AT: PortInfo("s3-1", up=False)}
    line = Line(replace(EVERYBODY, ports=ports))
    assert line.receive(FREE_AT, frames.arp_request(B, B_IP, A_IP)).keys() == {FREE_AT}


def test_the_servers_port_says_for_certain_who_is_there():
    line = Line(network(HOST_A, Host(SERVER, FREE_AT, SERVER_IP)))  # a thief was faster
    assert line.receive(SERVER_AT, frames.arp_request(SERVER, SERVER_IP, A_IP)) != {}
    assert line.seen == [HostSeen(SERVER, SERVER_AT, SERVER_IP, certain=True)]


def test_a_question_of_the_controllers_that_comes_back_is_nobodys():
    line = Line(replace(network(HOST_A), links={}))
    assert line.receive(PortRef("s2", 8), probe_frame(A, A_IP)) == {}
    assert (line.seen, line.counters) == ([], {})


# Poisoning


def claims_to_be(mac: str, ipv4: str) -> tuple[bytes, ...]:
    return (
        frames.arp_request(mac, ipv4, ipv4),
        frames.arp_reply(mac, ipv4, A, A_IP),
        frames.arp_request(mac, ipv4, C_IP),
    )


@pytest.mark.parametrize("frame", claims_to_be(STRANGER, B_IP))
def test_the_address_of_a_live_host_is_not_given_away(frame):
    line = Line()
    assert line.receive(FREE_AT, frame) == {}
    assert line.seen == []
    assert line.counters == {"arp_refused": 1}
    sent = line.receive(A_AT, frames.arp_request(A, A_IP, B_IP))
    assert sent == {A_AT: frames.arp_reply(B, B_IP, A, A_IP)}


def test_the_address_of_a_host_silent_for_long_may_be_taken():
    line = Line(network(Host(STRANGER, FREE_AT), HOST_A, HOST_B), ageing=60.0)
    claim = frames.arp_request(STRANGER, B_IP, B_IP)
    line.receive(B_AT, frames.arp_request(B, B_IP, A_IP))
    line.now += 59
    line.receive(FREE_AT, claim)
    assert line.counters["arp_refused"] == 1
    line.now += 2
    line.receive(FREE_AT, claim)
    assert line.seen == [HostSeen(STRANGER, FREE_AT, B_IP)]
    sent = line.receive(A_AT, frames.arp_request(A, A_IP, B_IP))
    assert sent == {A_AT: frames.arp_reply(STRANGER, B_IP, A, A_IP)}


def test_the_silence_of_a_host_never_heard_here_counts_from_the_first_claim():
    line = Line(ageing=60.0)
    claim = frames.arp_request(STRANGER, B_IP, B_IP)
    for _ in range(2):
        line.receive(FREE_AT, claim)
        line.now += 60
    assert line.counters["arp_refused"] == 2
    line.now += 1
    line.receive(FREE_AT, claim)
    assert line.seen == [HostSeen(STRANGER, FREE_AT, B_IP)]


def test_a_host_may_move():
    line = Line()
    line.receive(FREE_AT, frames.arp_request(B, B_IP, B_IP))
    assert line.seen == [HostSeen(B, FREE_AT, B_IP)]


@pytest.mark.parametrize("mac", [SERVER, C])
def test_the_server_and_vms_do_not_move_and_keep_their_addresses(mac):
    """However long they were silent."""
    server = Host(SERVER, SERVER_AT, SERVER_IP)
    line = Line(network(HOST_A, HOST_B, replace(HOST_C, vm=True), server), ageing=1.0)
    ipv4 = {SERVER: SERVER_IP, C: C_IP}[mac]
    for _ in range(3):
        line.receive(FREE_AT, frames.arp_request(mac, ipv4, ipv4))
        line.receive(FREE_AT, frames.arp_request(STRANGER, ipv4, ipv4))
        assert line.seen == []
        line.now += 100
    assert line.counters["arp_refused"] == 6


@pytest.mark.parametrize(
    "frame",
    [
        frames.ethernet(B, STRANGER, 0x0806, frames.arp_reply(A, A_IP, B, B_IP)[14:]),
        frames.arp_request("03:00:00:00:00:01", C_IP, B_IP),
        frames.arp_request("00:00:00:00:00:00", C_IP, B_IP),
        frames.arp_request(STRANGER, "224.0.0.5", B_IP),
        frames.arp_request(STRANGER, "255.255.255.255", B_IP),
    ],
)
def test_forged_senders_are_refused(frame):
    line = Line()
    assert line.receive(FREE_AT, frame) == {}
    assert line.seen == []
    assert line.counters == {"arp_refused": 1}


def test_nothing_is_learned_at_a_link():
    line = Line()
    assert line.receive(PortRef("s2", 8), frames.arp_request(A, A_IP, B_IP)) == {}
    assert line.seen == []


@pytest.mark.parametrize("operation", [0, 3, 9])
def test_other_operations_are_counted(operation):
    frame = bytearray(frames.arp_request(A, A_IP, B_IP))
    frame[20:22] = operation.to_bytes(2, "big")
    line = Line()
    assert line.receive(A_AT, bytes(frame)) == {}
    assert line.receive(A_AT, bytes(frame[:30])) == {}
    assert line.counters == {"arp_malformed": 2}


def test_what_hides_behind_a_tag_is_not_heeded():
    line = Line()
    assert line.receive(A_AT, frames.push_vlan(frames.arp_request(A, A_IP, B_IP))) == {}
    assert line.counters == {"ignored": 1}


def test_the_number_of_searches_and_askers_is_bounded():
    line = Line(network())
    for n in range(3000):
        at = PortRef(f"x{n}", 1)
        mac = f"02:01:00:00:{n >> 8:02x}:{n & 255:02x}"
        acts = line.services.packet_in(
            *(at.switch, 1, frames.arp_request(mac, "0.0.0.0", f"10.1.{n >> 8}.{n & 255}")),
            *(line.network, line.now),
        )
        assert acts
    found = frames.arp_request(C, "10.1.0.0", "10.1.0.0")  # the first search is forgotten
    assert line.receive(C_AT, found) == {}
    latest = frames.arp_request(C, "10.1.11.183", "10.1.11.183")
    assert len(line.receive(C_AT, latest)) == 1
