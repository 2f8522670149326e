"""The services as a whole: the rules they stand on, and frames of any bytes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fabric.host_services.line import (
    A_AT,
    A_IP,
    B_AT,
    B_IP,
    C_AT,
    C_IP,
    EVERYBODY,
    HOST_A,
    HOST_B,
    SERVER,
    SERVER_AT,
    SERVER_IP,
    SETTINGS,
    A,
    B,
    C,
    Dhcp,
    ping,
)
from tests.fabric.host_services.soft_line import SoftLine

from anabranch.fabric import frames
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.host_services import HostServices, Settings, Unicast
from anabranch.fabric.host_services.rules import PACKET_IN_METER, UNICAST_MISS_COOKIE
from anabranch.fabric.model import Network, PortInfo, PortRef
from anabranch.fabric.moves import PROBE_MAC
from anabranch.fabric.openflow.actions import PORT_LOCAL, Output
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pipeline import FLOWS
from anabranch.fabric.tables import COOKIE_MASK, INTENT_COOKIE, Rule, difference

FRAMES = (
    frames.arp_request(A, A_IP, B_IP),
    frames.arp_reply(B, B_IP, A, A_IP),
    Dhcp(1).from_client(),
    Dhcp(5, op=2, yiaddr=A_IP).from_server(),
    ping(A, B),
)
PORTS = st.sampled_from([A_AT, B_AT, SERVER_AT, PortRef("s2", 8), PortRef("gone", 3)])


@pytest.mark.parametrize("unicast", Unicast)
@pytest.mark.parametrize("rate", [None, 100])
def test_base_rules_are_well_formed(unicast, rate):
    settings = replace(SETTINGS, unicast=unicast, packet_in_rate=rate, edge=frozenset({A_AT, B_AT}))
    services = HostServices(settings)
    base, meters = services.base_rules(EVERYBODY), services.meters(EVERYBODY)
    assert base.keys() == EVERYBODY.switches.keys()
    for switch, rules in base.items():
        assert len(difference((), rules).add) == len(rules)
        assert all(rule.cookie & COOKIE_MASK == INTENT_COOKIE for rule in rules)
        metered = {rule.meter for rule in rules} - {None}
        assert metered == {spec.meter_id for spec in meters.get(switch, ())}
        assert metered == (set() if rate is None else {PACKET_IN_METER})
        special = [rule for rule in rules if rule.cookie == UNICAST_MISS_COOKIE]
        assert len(special) == (unicast is Unicast.ANY)


def test_the_network_alone_says_which_switches_have_rules():
    assert HostServices(SETTINGS).base_rules(Network()) == {}
    assert HostServices(SETTINGS).meters(Network()) == {}


def test_discovery_from_a_declared_edge_port_is_dropped():
    line = SoftLine(settings=replace(SETTINGS, edge=frozenset({A_AT})))
    forged = frames.ethernet("01:80:c2:00:00:0e", A, frames.ETH_LLDP, bytes(40))
    assert line.send(A_AT, forged) == {}
    assert line.lldp == []
    line.send(C_AT, forged)
    assert line.lldp == [C_AT]


def test_a_flood_stops_at_the_switchs_meter():
    """Also that of another service; the next second is another one."""
    line = SoftLine(HOST_A, HOST_B, settings=replace(SETTINGS, packet_in_rate=10))
    for _ in range(50):
        line.send(A_AT, frames.arp_request(A, A_IP, B_IP))
    assert len(line.asked) == 10
    assert line.send(B_AT, frames.arp_request(B, B_IP, A_IP)) != {}  # another switch
    for _ in range(20):
        line.send(B_AT, frames.arp_request(B, B_IP, A_IP))
    asked = len(line.asked)
    line.send(B_AT, frames.arp_reply(B, B_IP, PROBE_MAC, "0.0.0.0"))
    assert len(line.asked) == asked + 1  # answers to the controller pass
    line.wait(1)
    assert line.send(A_AT, frames.arp_request(A, A_IP, B_IP)) != {}


def test_a_server_at_a_bridges_internal_port_is_a_host_like_others():
    """As the seed's DHCP server (7.1.3): it gives a lease, and then is asked for and pinged."""
    local = PortRef("s1", PORT_LOCAL)
    ports = {**EVERYBODY.ports, local: PortInfo("br1")}
    known = replace(EVERYBODY, ports=ports, hosts={})
    line = SoftLine(settings=replace(SETTINGS, dhcp_server=local), known=known)
    question = Dhcp(3).from_client()
    assert line.send(B_AT, question) == {local: [question]}
    answer = Dhcp(5, op=2, yiaddr=A_IP).from_server()
    assert line.send(local, answer) == {B_AT: [answer]}
    (reply,) = line.send(B_AT, frames.arp_request(A, A_IP, SERVER_IP))[B_AT]
    assert frames.parse(reply).mac("arp_sha") == SERVER
    request = ping(A, SERVER, A_IP, SERVER_IP)
    assert line.send(B_AT, request) == {local: [request]}
    assert line.send(local, frames.icmp_echo_reply(request)) == {
        B_AT: [frames.icmp_echo_reply(request)]
    }


def test_ping_with_arp_first():
    """As a real host does it: ask, ping, answer; nobody else hears anything."""
    line = SoftLine(HOST_A, HOST_B)
    (reply,) = line.send(A_AT, frames.arp_request(A, A_IP, B_IP))[A_AT]
    target = frames.parse(reply).mac("arp_sha")
    request = ping(A, target)
    assert line.send(A_AT, request) == {B_AT: [request]}
    answer = frames.icmp_echo_reply(request)
    assert line.send(B_AT, answer) == {A_AT: [answer]}


OUTSIDE = pytest.mark.parametrize(
    "frame",
    [
        frames.arp_request(C, C_IP, B_IP),
        frames.arp_reply(C, B_IP, A, A_IP),
        Dhcp(1, C).from_client(),
        Dhcp(5, op=2, yiaddr=A_IP).from_server(),
        ping(C, B),
    ],
    ids=["question", "answer", "client", "server", "ping"],
)


@OUTSIDE
@pytest.mark.parametrize("unicast", Unicast)
def test_what_comes_from_outside_goes_nowhere(frame, unicast):
    settings = replace(SETTINGS, outside=frozenset({C_AT}), unicast=unicast)
    line = SoftLine(HOST_A, HOST_B, settings=settings)
    assert line.send(C_AT, frame) == {}
    assert line.asked == []
    assert line.network.hosts.keys() == {A, B}
    if unicast is not Unicast.NONE:  # nor by a rule that exists
        line.send(A_AT, ping(A, B))
        assert line.send(A_AT, ping(A, B)) == {B_AT: [ping(A, B)]}
        assert line.send(C_AT, ping(A, B)) == {}


@OUTSIDE
def test_what_came_from_outside_before_the_rules_is_not_heeded(frame):
    services = HostServices(replace(SETTINGS, outside=frozenset({C_AT})))
    assert services.packet_in(C_AT.switch, C_AT.port_no, frame, EVERYBODY, 0.0) == []
    assert services.counters == {"outside": 1}


def test_nobody_is_searched_outside():
    line = SoftLine(HOST_A, settings=replace(SETTINGS, outside=frozenset({C_AT})))
    asked = line.send(A_AT, frames.arp_request(A, A_IP, B_IP))
    assert B_AT in asked
    assert C_AT not in asked


def test_discovery_from_outside_is_dropped_and_a_flow_may_begin_there():
    line = SoftLine(settings=replace(SETTINGS, outside=frozenset({C_AT})))
    line.send(C_AT, frames.ethernet("01:80:c2:00:00:0e", A, frames.ETH_LLDP, bytes(40)))
    assert line.lldp == []
    stream = frames.ipv4_udp(B, C, C_IP, B_IP, 4000, 5004, b"x")
    flow = Rule(FLOWS, 1000, Match(in_port=C_AT.port_no, eth_type=0x0800), (Output(2),))
    line.switches["s2"].flow_mod(flow.add(), line.now)
    assert line.send(C_AT, stream) == {PortRef("s2", 2): [stream]}


@pytest.mark.parametrize("eth_type", [0x86DD, 0x88CC, 0x0842, 0x0001])
def test_other_protocols_are_ignored(eth_type):
    services = HostServices(SETTINGS)
    frame = frames.ethernet(B, A, eth_type, bytes(46))
    assert services.packet_in("s1", 1, frame, EVERYBODY, 0.0) == []
    assert services.counters == {"ignored": 1}


@given(PORTS, st.binary(max_size=100))
def test_any_bytes_do_no_harm(at, frame):
    HostServices(SETTINGS).packet_in(at.switch, at.port_no, frame, EVERYBODY, 0.0)


@given(st.data())
def test_broken_frames_do_no_harm(data):
    """Each in turn at one instance, so that states follow each other that nobody thought of."""
    services = HostServices(replace(SETTINGS, unicast=Unicast.ANY))
    now = 0.0
    for _ in range(6):
        frame = bytearray(data.draw(st.sampled_from(FRAMES)))
        for _ in range(data.draw(st.integers(0, 3))):
            frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
        frame = (
            frame[: data.draw(st.integers(0, len(frame)))] if data.draw(st.booleans()) else frame
        )
        at = data.draw(PORTS)
        now += data.draw(st.floats(0, 400))
        services.packet_in(at.switch, at.port_no, bytes(frame), EVERYBODY, now)


@pytest.mark.parametrize(
    "wrong",
    [{"idle_timeout": 0}, {"idle_timeout": 65536}, {"packet_in_rate": 0}, {"unicast": "all"}],
)
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(MisuseError):
        Settings(**wrong)
