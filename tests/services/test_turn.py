"""STUN messages, and a TURN server between a client and its peers, with time stepped by hand."""

import hashlib
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.services.blocks import stun, turn
from anabranch.services.blocks.stun import Attribute, Kind, Method, StunError
from anabranch.services.blocks.turn import Options, Sent, TurnServer

CLIENT, OTHER = ("192.0.2.1", 4000), ("192.0.2.2", 4000)
PEER = ("198.51.100.1", 6000)
SECRET = b"secret"
WALL = 1_000_000.0
NAME, PASSWORD = turn.credential(SECRET, "alice", WALL + 600)
UDP = (Attribute.REQUESTED_TRANSPORT, b"\x11\0\0\0")

# RFC 5769, 2.1: a request with its integrity and fingerprint.
SAMPLE = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74"
    "002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf"
)


_ENDS = (Attribute.FINGERPRINT, Attribute.MESSAGE_INTEGRITY, Attribute.NONCE)


class Numbers:
    """Random bytes that are not."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, size: int) -> bytes:
        self.drawn += 1
        return hashlib.sha256(b"%d" % self.drawn).digest()[:size]


def server(**options: object) -> TurnServer:
    given_options = {"address": "203.0.113.1", "ports": tuple(range(50000, 50004))} | options
    password = partial(turn.checked_password, SECRET)
    return TurnServer(Options(**given_options), password, Numbers())


class Client:
    """Asks as a client does: once without, then with the realm and nonce that it was given."""

    def __init__(self, at: TurnServer, place: stun.Place = CLIENT, name: str = NAME,
                 password: str = PASSWORD) -> None:  # fmt: skip
        self.at, self.place, self.name = at, place, name
        self.key = stun.long_term_key(name, "anabranch", password)
        self.nonce = b""
        self.asked = 0

    def ask(self, method: Method, *attributes: tuple[int, bytes], now: float = 0.0,
            transaction: bytes | None = None) -> stun.Message:  # fmt: skip
        self.asked += 1
        named = transaction or b"%012d" % self.asked
        more = [
            (Attribute.USERNAME, self.name.encode()), (Attribute.REALM, b"anabranch"),
            (Attribute.NONCE, self.nonce),
        ]  # fmt: skip
        data = stun.encode(method, Kind.REQUEST, named, [*attributes, *more], self.key)
        (sent,) = self.at.receive(data, self.place, WALL, now)
        assert sent.port is None
        assert sent.to == self.place
        answer = stun.parse(sent.data)
        assert answer.transaction == named
        if code(answer) in {401, 438} and answer.get(Attribute.NONCE) != self.nonce:
            again = not self.nonce or code(answer) == 438
            self.nonce = answer.get(Attribute.NONCE) or b""
            return self.ask(method, *attributes, now=now) if again else answer
        if answer.kind is Kind.SUCCESS and method != Method.BINDING:
            assert answer.is_signed_by(self.key)
        return answer

    def allocate(self, *more: tuple[int, bytes], now: float = 0.0, **keywords: bytes):
        return self.ask(Method.ALLOCATE, UDP, *more, now=now, **keywords)

    def peer(self, place: stun.Place = PEER) -> tuple[int, bytes]:
        return Attribute.XOR_PEER_ADDRESS, stun.address(place, b"%012d" % (self.asked + 1))

    def bind(self, number: int, place: stun.Place = PEER, now: float = 0.0) -> stun.Message:
        channel = (Attribute.CHANNEL_NUMBER, number.to_bytes(2) + b"\0\0")
        return self.ask(Method.CHANNEL_BIND, channel, self.peer(place), now=now)


def code(message: stun.Message) -> int:
    value = message.get(Attribute.ERROR_CODE)
    return 0 if value is None else value[2] * 100 + value[3]


def relayed(answer: stun.Message) -> stun.Place:
    return stun.read_address(answer.get(Attribute.XOR_RELAYED_ADDRESS), answer.transaction)


def indication(place: stun.Place, data: bytes) -> bytes:
    attributes = [
        (Attribute.XOR_PEER_ADDRESS, stun.address(place, b"t" * 12)), (Attribute.DATA, data)
    ]  # fmt: skip
    return stun.encode(Method.SEND, Kind.INDICATION, b"t" * 12, attributes)


def test_the_sample_of_rfc_5769() -> None:
    message = stun.parse(SAMPLE)
    assert message.text(Attribute.USERNAME) == "evtj:h6vY"
    assert message.is_signed_by(b"VOkJxbRl1RmTxUk/WvJxBt")
    assert not message.is_signed_by(b"another")
    assert message.unknown() == [0x0024]  # PRIORITY is ICE's
    damaged = bytearray(SAMPLE)
    damaged[-1] ^= 1
    with pytest.raises(StunError, match="fingerprint"):
        stun.parse(bytes(damaged))


@given(st.ip_addresses(), st.integers(0, 65535), st.binary(min_size=12, max_size=12))
def test_addresses_come_back(host: object, port: int, transaction: bytes) -> None:
    place = (str(host), port)
    assert stun.read_address(stun.address(place, transaction), transaction) == place


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    header = b"\x00\x03" + (len(data) - len(data) % 4).to_bytes(2) + stun.COOKIE.to_bytes(4)
    for given_bytes in (data, header + bytes(12) + data[: len(data) - len(data) % 4]):
        try:
            stun.parse(given_bytes)
        except StunError:
            continue
    one = server()
    one.receive(data, CLIENT, WALL, 0.0)
    one.receive(header + bytes(12) + data[: len(data) - len(data) % 4], CLIENT, WALL, 0.0)


@given(st.lists(st.tuples(st.sampled_from([*Attribute, 0x7777]), st.binary(max_size=20))),
       st.sampled_from(Method))  # fmt: skip
def test_any_attributes_of_a_known_user_are_answered(attributes: list, method: Method) -> None:
    client = Client(server())
    client.allocate()
    kept = [a for a in attributes if a[0] not in _ENDS]
    assert client.ask(method, *kept).kind in (Kind.SUCCESS, Kind.ERROR)


def test_binding_needs_no_credential() -> None:
    request = stun.encode(Method.BINDING, Kind.REQUEST, b"t" * 12, [])
    (sent,) = server().receive(request, CLIENT, WALL, 0.0)
    answer = stun.parse(sent.data)
    value = answer.get(Attribute.XOR_MAPPED_ADDRESS)
    assert stun.read_address(value, b"t" * 12) == CLIENT


def test_an_allocation_with_its_life() -> None:
    one = server()
    client = Client(one)
    answer = client.allocate()
    assert answer.number(Attribute.LIFETIME) == 600
    port = relayed(answer)[1]
    assert one.opened == [port]
    assert code(client.allocate()) == 437
    client.ask(Method.REFRESH, (Attribute.LIFETIME, (1000).to_bytes(4)), now=500.0)
    one.expire(1400.0)
    assert one.allocations == 1
    one.expire(1501.0)
    assert (one.allocations, one.closed) == (0, [port])


def test_a_lost_answer_is_given_again() -> None:
    client = Client(server())
    client.allocate()
    client.ask(Method.REFRESH, (Attribute.LIFETIME, bytes(4)))
    first = client.allocate(transaction=b"the same one")
    assert relayed(client.allocate(transaction=b"the same one")) == relayed(first)


def test_refresh_to_nothing_ends_it() -> None:
    one = server()
    client = Client(one)
    client.allocate()
    assert code(client.ask(Method.REFRESH, (Attribute.LIFETIME, bytes(4)))) == 0
    assert one.allocations == 0
    assert len(one.closed) == 1


def test_credentials_are_checked() -> None:
    one = server()
    assert code(Client(one, password="wrong").allocate()) == 401
    past = turn.credential(SECRET, "alice", WALL - 1)
    assert code(Client(one, OTHER, *past).allocate()) == 401
    assert code(Client(one, OTHER, "no-time", "x").allocate()) == 401
    client = Client(one)
    client.allocate()
    other = Client(one, CLIENT, *turn.credential(SECRET, "bob", WALL + 600))
    assert code(other.ask(Method.REFRESH)) == 441
    assert code(client.ask(Method.REFRESH, now=4000.0)) == 0  # after the stale nonce was renewed


def test_a_nonce_is_one_clients() -> None:
    one = server()
    client, other = Client(one), Client(one, OTHER)
    client.allocate()
    stolen = other.nonce = client.nonce
    assert code(other.allocate()) == 0
    assert other.nonce != stolen


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ([], 400),
        ([(Attribute.REQUESTED_TRANSPORT, b"\x06\0\0\0")], 442),
        ([UDP, (Attribute.REQUESTED_ADDRESS_FAMILY, b"\x02\0\0\0")], 440),
        ([UDP, (Attribute.RESERVATION_TOKEN, b"x" * 8)], 508),
        ([UDP, (Attribute.LIFETIME, b"x")], 400),
        ([UDP, (0x001A, b"")], 420),
    ],
)  # fmt: skip
def test_allocations_that_cannot_be(attributes: list, expected: int) -> None:
    client = Client(server())
    answer = client.ask(Method.ALLOCATE, *attributes)
    assert code(answer) == expected
    if expected == 420:
        assert answer.get(Attribute.UNKNOWN_ATTRIBUTES) == b"\x00\x1a"


def test_quota_and_ports_have_an_end() -> None:
    one = server(allocations_each=3)
    answers = [Client(one, ("192.0.2.1", 4000 + n)).allocate() for n in range(4)]
    assert [code(answer) for answer in answers] == [0, 0, 0, 486]
    rest = [
        Client(one, (*OTHER[:1], n), *turn.credential(SECRET, f"u{n}", WALL + 60)).allocate()
        for n in (1, 2)
    ]
    assert [code(answer) for answer in rest] == [0, 508]


def test_an_even_port_and_the_one_above_it() -> None:
    one = server()
    answer = Client(one).allocate((Attribute.EVEN_PORT, b"\x80"))
    port = relayed(answer)[1]
    assert port % 2 == 0
    token = answer.get(Attribute.RESERVATION_TOKEN)
    assert len(token) == 8
    second = Client(one, OTHER).allocate((Attribute.RESERVATION_TOKEN, token))
    assert relayed(second)[1] == port + 1


def test_nothing_passes_without_permission() -> None:
    one = server()
    client = Client(one)
    port = relayed(client.allocate())[1]
    assert one.receive(indication(PEER, b"x"), CLIENT, WALL, 0.0) == []
    assert one.relay(b"x", port, PEER, 0.0) is None
    assert one.refused == 2
    assert code(client.ask(Method.CREATE_PERMISSION, client.peer())) == 0
    assert one.receive(indication(PEER, b"x"), CLIENT, WALL, 0.0) == [Sent(port, PEER, b"x")]
    back = one.relay(b"y", port, (PEER[0], 7), 0.0)
    message = stun.parse(back.data)
    assert message.method == Method.DATA
    assert message.get(Attribute.DATA) == b"y"
    value = message.get(Attribute.XOR_PEER_ADDRESS)
    assert stun.read_address(value, message.transaction) == (PEER[0], 7)
    assert one.relay(b"y", port, PEER, 301.0) is None
    assert one.receive(indication(PEER, b"x"), OTHER, WALL, 0.0) == []


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", 403), ("224.0.0.1", 403), ("2001:db8::1", 443)]
)
def test_peers_that_are_none(host: str, expected: int) -> None:
    client = Client(server())
    client.allocate()
    assert code(client.ask(Method.CREATE_PERMISSION, client.peer((host, 1)))) == expected
    assert code(client.bind(0x4000, (host, 1))) == expected


def test_channels_carry_data_both_ways() -> None:
    one = server()
    client = Client(one)
    port = relayed(client.allocate())[1]
    assert code(client.bind(0x4001)) == 0
    data = b"\x40\x01\x00\x03abc\0"
    assert one.receive(data, CLIENT, WALL, 0.0) == [Sent(port, PEER, b"abc")]
    assert one.relay(b"abc", port, PEER, 0.0) == Sent(None, CLIENT, b"\x40\x01\x00\x03abc")
    assert one.receive(b"\x40\x01\x00\x09abc", CLIENT, WALL, 0.0) == []
    assert one.receive(b"\x40\x02\x00\x01a", CLIENT, WALL, 0.0) == []
    assert code(client.bind(0x4001, OTHER)) == 400
    assert code(client.bind(0x4002)) == 400
    assert code(client.bind(0x3FFF, OTHER)) == 400
    one.expire(599.0)
    assert one.relay(b"a", port, PEER, 599.0) is None  # the permission is over
    client.ask(Method.CREATE_PERMISSION, client.peer(), now=599.5)
    assert one.receive(data, CLIENT, WALL, 599.5) != []
    assert one.receive(data, CLIENT, WALL, 600.5) == []  # now the channel


def test_another_server_goes_on() -> None:
    one, other = server(), server()
    client = Client(one)
    port = relayed(client.allocate())[1]
    client.bind(0x4001)
    other.restore(one.state(100.0), 7100.0)
    assert other.opened == [port]
    assert other.receive(b"\x40\x01\x00\x01a", CLIENT, WALL, 7100.0) == [Sent(port, PEER, b"a")]
    assert other.relay(b"b", port, PEER, 7100.0) == Sent(None, CLIENT, b"\x40\x01\x00\x01b")
    client.at = other
    assert client.ask(Method.REFRESH, now=7100.0).number(Attribute.LIFETIME) == 600
    other.expire(7100.0 + 601.0)
    assert other.allocations == 0
    small = server(ports=(1,))
    small.restore(one.state(0.0), 0.0)
    assert small.allocations == 0
