"""Requests along a whole path: sender, nodes a and b, and what lies between."""

from base64 import b64encode
from ipaddress import ip_address

import pytest
from tests.services.signalling.path import DESTINATION, NET, STACK, Path, jane

from anabranch.services.controller.controller import NotProvedError
from anabranch.services.controller.runtime import RuntimeRefusedError
from anabranch.services.keys import PrivateKey
from anabranch.services.signalling import message as text
from anabranch.services.signalling import response as responses
from anabranch.services.signalling.compose import Author
from anabranch.services.signalling.gist.objects import Flow, PeerInfo
from anabranch.services.signalling.gist.sessions import Peer, Shares
from anabranch.services.signalling.gist.wire import MAGIC, GistMessage, MessageType, parse
from anabranch.services.signalling.message import Method
from anabranch.services.signalling.sender import Result

S, R, P, T = Method.SETUP, Method.REMOVE, Method.PROBE, Method.TRIGGER


def stack(result: Result) -> list[tuple[str, int]]:
    assert result.response, result.reason
    return [(hop.node_id, hop.status) for hop in result.response.hops]


def test_every_node_on_the_path_installs_and_the_stack_lists_them_in_order() -> None:
    path = Path("abc")
    result = path.ask(path.message(S))
    assert stack(result) == [("a", 200), ("b", 200), ("c", 200)]
    assert result.response
    assert result.response.hops[0].details == {"ttl": "600", "listens": "80"}
    for name in "abc":
        assert path.nodes[name].runtime.calls == [f"install {NET}"]
        assert len(path.nodes[name].gist) == 1


def test_remove_and_probe() -> None:
    path = Path()
    path.ask(path.message(S))
    probe = path.message(P, probe="status,address,node-id,building-blocks,policy,capabilities")
    hops = path.ask(probe).response.hops
    assert [hop.details["address"] for hop in hops] == ["203.0.113.1", "203.0.113.2"]
    assert hops[0].details == {
        "expires-in": "600",
        "state": "running",
        "address": "203.0.113.1",
        "id": "a",
        "building-blocks": "netserv.timers_1.2",
        "planes": "memory",
        "filter-prefixes": "192.0.2.0/24",
        "listen-ports": "none",
        "max-modules": "16",
        "max-ttl": "604800",
        "transcodings": "0",
        "routability-check": "yes",
    }
    assert stack(path.ask(path.message(R))) == [("a", 200), ("b", 200)]
    assert stack(path.ask(path.message(R))) == [("a", 404), ("b", 404)]
    assert path.ask(path.message(P, probe="status")).response.hops[1].details == {"state": "absent"}
    path.run(500)
    assert [len(path.nodes[name].gist) for name in "sab"] == [0, 0, 0]


def test_a_module_goes_when_its_ttl_is_over_unless_it_is_renewed() -> None:
    path = Path()
    message = path.message(S, ttl="100")
    session = path.ask(message).session
    path.run(80)
    assert stack(path.ask(message, session=session)) == [("a", 200), ("b", 200)]
    path.run(80)  # an identical message is a renewal, and so is a new one that asks for the same
    assert stack(path.ask(path.message(S, ttl="100"), session=session)) == [("a", 200), ("b", 200)]
    path.run(80)
    assert path.nodes["a"].runtime.calls == [f"install {NET}"]
    path.run(30)
    assert path.nodes["a"].runtime.calls == [f"install {NET}", f"remove {NET}"]
    path.run(600)
    assert len(path.nodes["a"].gist) == 0


@pytest.mark.parametrize("method", [S, R, P])
def test_a_replay_is_refused_by_the_first_node_and_goes_no_further(method: Method) -> None:
    path = Path()
    path.ask(path.message(S))
    message = path.message(method, **({"probe": "status"} if method is P else {}))
    path.ask(message)
    calls = list(path.nodes["b"].runtime.calls)
    assert stack(path.ask(message)) == [("a", 409)]
    path.run(400)
    assert stack(path.ask(message)) == [("a", 409)], "too old by now"
    assert path.nodes["b"].runtime.calls == calls


def test_a_setup_is_no_renewal_once_its_module_was_removed() -> None:
    path = Path()
    message = path.message(S)
    session = path.ask(message).session
    path.ask(path.message(R))
    path.run(70)
    assert stack(path.ask(message, session=session)) == [("a", 409)]


def test_a_wrong_signature_an_unknown_user_and_nonsense() -> None:
    path = Path(users={"a": {}})
    other = Author("janedoe", PrivateKey.generate())
    assert stack(path.ask(path.message(S))) == [("a", 403), ("b", 200)]
    assert stack(path.ask(path.message(S, author=other))) == [("a", 403), ("b", 401)]
    data = path.message(R).replace(b"NetMonitor_1.0.0", b"NetMonitor_1.0.1")
    assert stack(path.ask(data)) == [("a", 403), ("b", 401)]
    assert stack(path.ask(b"SETUP x NETSERV/0.1\nuser:janedoe\n\n")) == [("a", 400)]
    assert stack(path.ask(b"\xff\xfe")) == [("a", 400)]
    refusals = [(one.user, one.hop.status) for one in path.nodes["a"].relay.refusals]
    assert refusals == [("janedoe", 403)] * 3 + [("", 400)] * 2


def test_node_id_aims_a_request_at_one_node() -> None:
    path = Path("abc")
    assert stack(path.ask(path.message(S, node_id="b"))) == [("b", 200)]
    assert [len(path.nodes[name].runtime.calls) for name in "abc"] == [0, 1, 0]
    assert stack(path.ask(path.message(P, probe="node-id", node_id="elsewhere"))) == []


def test_dependencies_decide_where_a_module_is_installed() -> None:
    path = Path()
    path.nodes["b"].runtime.building_blocks = {}
    message = path.message(S, dependencies="netserv.timers_1.10")
    assert stack(path.ask(message)) == [("a", 424), ("b", 424)]
    message = path.message(S, dependencies="netserv.timers_1.2")
    assert stack(path.ask(message)) == [("a", 200), ("b", 424)]
    own = path.message(S, name="Other_1.0", dependencies="NetServ.apps.NetMonitor_1.0.0")
    assert stack(path.ask(own)) == [("a", 200), ("b", 424)]


def test_a_filter_needs_a_prefix_or_the_routability_check() -> None:
    path = Path()
    udp = {"filter_proto": "udp", "filter_port": "5060"}
    assert stack(path.ask(path.message(S, **udp))) == [("a", 200), ("b", 200)]
    installed = path.nodes["a"].runtime.installed["janedoe", NET]
    assert str(installed.filter.destination) == "192.0.2.1/32", "the signalling source"
    assert stack(path.ask(path.message(S, filter_dst="192.0.2.128/25", **udp)))[0] == ("a", 200)
    for dst in ("192.0.0.0/16", "198.51.100.1", "::1"):
        refused = path.ask(path.message(S, filter_dst=dst, **udp))
        assert stack(refused) == [("a", 403), ("b", 403)]
    secret = {"password": "one time password", **udp}
    assert stack(path.ask(path.message(S, filter_dst="198.51.100.1", **secret)))[1] == ("b", 200)
    assert path.nodes["b"].world.proved == [("198.51.100.1", "b")]
    for dst in ("127.0.0.1", "198.51.100.0/24", "169.254.0.1", "224.0.0.1"):
        assert stack(path.ask(path.message(S, filter_dst=dst, **secret)))[0] == ("a", 403)
    path.nodes["a"].world.unprovable = NotProvedError("no answer")
    assert stack(path.ask(path.message(S, filter_dst="198.51.100.2", **secret))) == [
        ("a", 403),
        ("b", 200),
    ]


def test_what_the_runtime_refuses_is_told_and_the_old_module_stays() -> None:
    path = Path()
    path.ask(path.message(S))
    path.nodes["a"].runtime.refuses = RuntimeRefusedError("its signature does not fit", 403)
    result = path.ask(path.message(S, properties="k=v"))
    assert stack(result) == [("a", 403), ("b", 200)]
    assert result.response.hops[1].reason == "replaced"
    assert path.nodes["a"].controller.modules.get("janedoe", NET).properties == {}
    assert stack(path.ask(path.message(R)))[0] == ("a", 403)
    path.nodes["a"].runtime.refuses = None
    path.run(700)
    assert len(path.nodes["a"].controller.modules) == 0


def test_limits_of_a_user() -> None:
    users = {"janedoe": jane(max_modules=1, max_ttl=50)}
    path = Path("a", users={"a": users})
    result = path.ask(path.message(S))
    assert result.response.hops[0].details["ttl"] == "50"
    assert stack(path.ask(path.message(S, name="Another_1.0"))) == [("a", 429)]
    wrong = path.message(S, digest="sha-256=" + b64encode(bytes(32)).decode())
    assert stack(path.ask(wrong)) == [("a", 502)]


def test_notification() -> None:
    path = Path("a")
    path.ask(path.message(S, notification="http://192.0.2.1/rpc"))
    path.ask(path.message(R, notification="http://192.0.2.1/rpc"))
    events = [call["event"] for call in path.nodes["a"].world.notified]
    assert events == ["installed", "removed"]


def test_without_a_node_the_sender_is_told_at_once() -> None:
    path = Path("")
    began = path.now
    result = path.ask(path.message(S))
    assert result.response is None
    assert result.reason == "no node on the path"
    assert path.now - began < 0.2


def test_a_silent_destination_is_found_out_by_back_off() -> None:
    path = Path(unreachable=False)
    began = path.now
    assert stack(path.ask(path.message(S))) == [("a", 200), ("b", 200)]
    assert 3.4 < path.now - began < 4.5


@pytest.mark.parametrize("lost", range(1, 11))
def test_one_lost_datagram_anywhere_costs_time_only(lost: int) -> None:
    path = Path(loses=lambda number, datagram: number == lost)
    assert stack(path.ask(path.message(S))) == [("a", 200), ("b", 200)]
    assert path.nodes["b"].runtime.calls == [f"install {NET}"]


@pytest.mark.parametrize("seed", range(5))
def test_a_fifth_of_all_datagrams_lost(seed: int) -> None:
    path = Path()
    path.random.seed(seed)
    path.loses = lambda number, datagram: path.random.random() < 0.2
    assert stack(path.ask(path.message(S))) == [("a", 200), ("b", 200)]
    assert path.nodes["b"].runtime.calls == [f"install {NET}"]


def test_a_node_that_does_not_finish_is_named() -> None:
    path = Path()
    path.nodes["b"].acting = False
    result = path.ask(path.message(S))
    assert stack(result) == [("a", 200), ("b", 504)]


def test_a_node_that_dies_on_the_way() -> None:
    path = Path("abc")
    path.ask(path.message(S, ttl="3000"))
    path.cut.add("b")
    path.run(200)  # the refresh of a finds that c is next now
    assert stack(path.ask(path.message(R))) == [("a", 200), ("c", 200)]


def test_a_node_that_comes_gets_the_module_when_the_path_changes() -> None:
    path = Path("abc", refresh=30)
    path.cut.add("b")
    message = path.message(S, ttl="3000")
    assert stack(path.ask(message)) == [("a", 200), ("c", 200)]
    path.cut.clear()
    path.run(40)
    assert path.nodes["b"].runtime.calls == [f"install {NET}"]
    assert path.nodes["c"].runtime.calls == [f"install {NET}"], "renewed, not installed again"


def test_sessions_are_refreshed_while_a_module_is_there_and_no_longer() -> None:
    path = Path("ab", refresh=30)
    path.ask(path.message(S, ttl="300"))
    path.run(100)
    path.sent.clear()
    path.run(100)
    queries = [kind(datagram) for name, datagram in path.sent if name == "a"]
    assert 3 <= queries.count(MessageType.QUERY) <= 5
    path.run(400)
    path.sent.clear()
    path.run(100)
    assert path.sent == []


def kind(datagram) -> MessageType:
    return parse(datagram.data[len(MAGIC) :]).type


def test_large_messages_go_by_a_connection_that_both_directions_share() -> None:
    path = Path("ab", stack=STACK)
    message = path.message(S, properties="k=" + "v" * 4000)
    assert stack(path.ask(message)) == [("a", 200), ("b", 200)]
    assert max(len(datagram.data) for _, datagram in path.sent) < 600
    assert [len(path.nodes[name].gist.associations) for name in "sab"] == [1, 2, 1]
    path.sent.clear()
    assert stack(path.ask(path.message(P, probe="status"))) == [("a", 200), ("b", 200)]
    kinds = {kind(datagram) for _, datagram in path.sent}
    assert kinds == {MessageType.QUERY, MessageType.RESPONSE}
    path.run(300)
    assert [len(path.nodes[name].gist.associations) for name in "sab"] == [0, 0, 0]


def test_where_no_connection_can_be_made_large_messages_go_as_datagrams() -> None:
    message = {"properties": "k=" + "v" * 4000}
    path = Path("a", stack=None)
    assert stack(path.ask(path.message(S, **message))) == [("a", 200)]
    path = Path("a", stack=STACK)
    path._connect = lambda node, number, address: node.gist.associations.closed(number)
    assert stack(path.ask(path.message(S, **message))) == [("a", 200)]


def test_a_trigger_sends_its_message_back_from_the_last_node() -> None:
    path = Path("abc")
    inner = path.message(S, filter_dst="192.0.2.1", filter_proto="udp", filter_port="5060")
    trigger = path.message(T, name="*", message=b64encode(inner).decode())
    result = path.ask(trigger)
    assert stack(result) == [("c", 200)]
    back = responses.read(text.parse(result.response.inner))
    assert [(hop.node_id, hop.status) for hop in back.hops] == [("c", 200), ("b", 200), ("a", 200)]
    assert path.nodes["a"].runtime.installed["janedoe", NET].filter.ports == (5060,)


def test_a_trigger_within_a_trigger_and_one_that_protects_nobody() -> None:
    path = Path()
    inner = path.message(T, name="*", message=b64encode(path.message(R)).decode())
    outer = path.message(T, name="*", message=b64encode(inner).decode())
    assert stack(path.ask(outer)) == [("a", 400)]
    inner = path.message(S, filter_proto="udp")
    assert stack(path.ask(path.message(T, name="*", message=b64encode(inner).decode()))) == [
        ("a", 400)
    ]
    forged = path.message(P, probe="status", author=Author("janedoe", PrivateKey.generate()))
    result = path.ask(path.message(T, name="*", message=b64encode(forged).decode()))
    assert stack(result) == [("b", 200)]
    back = responses.read(text.parse(result.response.inner))
    assert [(hop.node_id, hop.status) for hop in back.hops] == [("b", 401)]


def test_what_is_no_query_for_us_goes_on_unchanged() -> None:
    path = Path("a")
    gist = path.nodes["a"].gist
    there, here = (DESTINATION, 270), (path.nodes["s"].address, 40000)
    for data in (b"", b"something else on this port", MAGIC + bytes(20)):
        gist.receive_datagram(data, here, there, path.now, local=False, ttl=17)
        (output,) = gist.outputs
        assert (output.data, output.source, output.ttl) == (data, here, 16)
        assert output.destination == there
        gist.outputs.clear()
        gist.receive_datagram(data, here, there, path.now, local=False, ttl=1)
        gist.receive_datagram(data, here, there, path.now, local=True)
        assert not gist.outputs


def test_hosts_send_few_icmp_errors_so_one_counts_for_all_sessions_of_its_destination() -> None:
    path = Path("a")
    path.ask(path.message(S))
    path.unreachable = False
    began = path.now
    assert stack(path.ask(path.message(R))) == [("a", 200)]
    assert path.now - began < 1.0
    path.run(10)
    began = path.now
    assert stack(path.ask(path.message(P, probe="status"))) == [("a", 200)]
    assert path.now - began > 3.0


def test_an_icmp_error_counts_only_from_the_destination_and_with_our_cookie() -> None:
    path = Path("a", unreachable=False)
    gist = path.nodes["s"].gist
    path.begin(path.message(R))
    (query,) = gist.outputs
    gist.outputs.clear()
    for offender, quoted in [
        (path.nodes["a"].address, query.data),
        (DESTINATION, query.data[:60]),
        (DESTINATION, b"nonsense"),
    ]:
        gist.handle_unreachable(offender, quoted, path.now)
        assert not gist.events
    gist.handle_unreachable(DESTINATION, query.data, path.now)
    assert gist.events


def test_a_session_with_two_modules_lives_as_long_as_either() -> None:
    path = Path("a", refresh=30)
    session = path.ask(path.message(S, ttl="1000")).session
    path.ask(path.message(S, name="Short_1.0", ttl="10"), session=session)
    path.run(20)
    assert path.nodes["a"].runtime.calls[-1] == "remove Short_1.0"
    path.run(300)
    assert len(path.nodes["a"].gist) == 1
    path.nodes["a"].controller.set_users({})
    path.run(1200)
    assert path.nodes["a"].runtime.installed == {}, "also of users who are gone"
    assert len(path.nodes["a"].gist) == 0


def test_a_request_that_keeps_coming_in_other_words_is_bounded(monkeypatch) -> None:
    from anabranch.services.signalling import relay

    monkeypatch.setattr(relay, "MAX_TRANSACTIONS", 2)
    path = Path("a")
    for data in (b"one", b"two"):
        assert stack(path.ask(data)) == [("a", 400)]
    path.begin(path.message(R))
    path.run(10)
    assert not path.nodes["s"].sender.results
    path.run(60)
    assert stack(path.ask(path.message(R))) == [("a", 404)], "when the first are over"


def test_a_message_in_a_loop_ends() -> None:
    path = Path("abc")
    sender = path.nodes["s"]
    session = sender.sender.open(path.nodes["s"].address, DESTINATION)
    sender.gist.send(session, path.message(S), path.now, upstream=False, hops=2)
    path.run(10)
    installed = [len(path.nodes[name].runtime.calls) for name in "abc"]
    assert installed == [1, 0, 0], "the second node would have been one too many"


def test_one_source_does_not_take_all_the_room() -> None:
    path = Path("a", max_per_source=2, max_sessions=4)

    def answered(address: str) -> bool:
        path.nodes["s"].address = ip_address(address)
        return path.ask(path.message(P, probe="status")).response is not None

    assert [answered("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert [answered("192.0.2.2") for _ in range(3)] == [True, True, False]
    assert not answered("192.0.2.3"), "it is full"
    path.run(600)
    shares = path.nodes["a"].gist.shares
    assert len(path.nodes["a"].gist) == len(shares) == 0
    assert answered("192.0.2.1")


def test_a_confirm_beyond_a_sources_share_leaves_nothing() -> None:
    """Cookies for more may be out already: it is the Confirm that counts."""
    path = Path("a", max_per_source=1)
    gist, source = path.nodes["a"].gist, (path.nodes["s"].address, 40000)
    confirms = []
    for number in range(3):
        sid, flow = bytes([number]) * 16, Flow(path.nodes["s"].address, DESTINATION)
        info = PeerInfo(b"s", source[0], 360_000)
        query = GistMessage(MessageType.QUERY, flow, sid, info, query_cookie=b"c" * 16)
        gist.receive_datagram(MAGIC + query.encode(), source, (DESTINATION, 270), 1.0, local=False)
        cookie = parse(gist.outputs.popleft().data[4:]).responder_cookie
        confirms.append(GistMessage(MessageType.CONFIRM, flow, sid, info, responder_cookie=cookie))
    for confirm in confirms:
        gist.receive_datagram(MAGIC + confirm.encode(), source, (source[0], 270), 1.0)
    assert len(gist) == 1


def test_addresses_of_one_ipv6_network_have_one_share() -> None:
    shares = Shares(10, 2)
    peers = [Peer(b"n", ip_address(f"2001:db8::{n}"), 270) for n in (1, 2)]
    for peer in peers:
        shares.move(None, peer)
    assert not shares.has_room(ip_address("2001:db8::3"), 2)
    assert shares.has_room(ip_address("2001:db8:0:1::1"), 2)
    assert not shares.has_room(ip_address("2001:db8:0:1::1"), 10)
    shares.move(peers[0], Peer(b"m", ip_address("2001:db8:0:1::1"), 270))
    assert shares.has_room(ip_address("2001:db8::3"), 2)
    assert len(shares) == 2
