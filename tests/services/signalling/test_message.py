"""The text of requests and responses; any bytes are a message or the one error."""

import contextlib
from base64 import b64encode
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.services.errors import MessageError, SignatureError
from anabranch.services.keys import PrivateKey
from anabranch.services.signalling import message as text
from anabranch.services.signalling import request as requests
from anabranch.services.signalling import response as responses
from anabranch.services.signalling import values
from anabranch.services.signalling.compose import Author, compose, setup_headers
from anabranch.services.signalling.message import Message, Method
from anabranch.services.signalling.replay import ReplayError, ReplayWindow, TooManyRequestsError
from anabranch.services.signalling.request import Probed
from anabranch.services.signalling.response import Hop, Response
from anabranch.services.signalling.values import Dependency, Filter

KEY = PrivateKey.generate()
JANE = Author("janedoe", KEY)
NONCE = bytes(range(16))
SEED_FIGURE = b"""SETUP NetServ.apps.NetMonitor_1.0.0 NETSERV/0.1
dependencies:
filter-port:5060
filter-proto:udp
notification:
properties:visualizer_ip=1.2.3.4,visualizer_port=5678
ttl:3600
user:janedoe
url:http://content-provider.com/modules/netmonitor.jar
signature:4Z+HvDEm2WhHJrg9UKovwmbsA71FTMFykVa0YxGclG8o

"""


def setup(**more) -> bytes:
    headers = setup_headers("https://example.net/m.zip", bytes(32), 60) | more
    return compose(JANE, Method.SETUP, "Mod_1.0", headers, wall_time=1000.9, nonce=NONCE)


def test_the_figure_of_the_seed_reads_as_a_message_and_lacks_what_makes_it_safe() -> None:
    message = text.parse(SEED_FIGURE)
    assert message.get("filter-port") == "5060"
    assert message.get("dependencies") is None
    assert values.pairs(message.get("properties")) == {
        "visualizer_ip": "1.2.3.4",
        "visualizer_port": "5678",
    }
    with pytest.raises(MessageError, match="needs the header time"):
        requests.parse(SEED_FIGURE)


def test_a_whole_setup() -> None:
    headers = setup_headers(
        "https://example.net/m.zip",
        bytes(range(32)),
        60,
        filter_dst="192.0.2.0/24",
        filter_proto="udp",
        filter_ports=[5062, 5060],
        dependencies=["a.b_1.2", "c_d", "e"],
        properties={"k": "a,b=c%d é", "empty": ""},
        notification="http://192.0.2.1/rpc",
        node_id="edge-1",
        password="p" * 16,
    )
    data = compose(JANE, Method.SETUP, "Mod_1.0", headers, wall_time=1000.9, nonce=NONCE)
    request = requests.parse(data)
    request.verify(KEY.public)
    assert (request.user, request.time, request.nonce, request.ttl) == ("janedoe", 1000, NONCE, 60)
    assert request.filter == Filter(ip_network("192.0.2.0/24"), 17, (5060, 5062))
    assert request.dependencies == (Dependency("a.b", "1.2"), Dependency("c_d"), Dependency("e"))
    assert request.properties == {"k": "a,b=c%d é", "empty": ""}
    assert (request.node_id, request.password) == ("edge-1", "p" * 16)
    assert request.digest == bytes(range(32))


def test_the_signature_covers_every_header_whatever_the_line_ends() -> None:
    data = setup()
    requests.parse(data.replace(b"\n", b"\r\n")).verify(KEY.public)
    requests.parse(data.replace(b"ttl:60", b"notification: \nttl :  60 ")).verify(KEY.public)
    for old, new in [(b"ttl:60", b"ttl:61"), (b"Mod_1.0", b"Mod_1.1"), (b"ttl", b"x-a:b\nttl")]:
        with pytest.raises(SignatureError, match="janedoe"):
            requests.parse(data.replace(old, new)).verify(KEY.public)
    moved = data.replace(b"ttl:60\n", b"").replace(b"user:", b"ttl:60\nuser:")
    with pytest.raises(SignatureError):
        requests.parse(moved).verify(KEY.public)


def test_a_signature_can_be_made_by_openssl_alone(tmp_path) -> None:
    import subprocess

    KEY.store(tmp_path / "key.pem")
    bare = b"REMOVE Mod_1.0 NETSERV/0.1\nuser:janedoe\ntime:5\nnonce:AAAAAAAAAAAAAAAA\n"
    (tmp_path / "signed").write_bytes(b"netserv-message\0" + bare)
    signature = subprocess.run(
        ("openssl", "pkeyutl", "-sign", "-rawin", "-inkey", str(tmp_path / "key.pem"),
         "-in", str(tmp_path / "signed")), capture_output=True, check=True,
    ).stdout  # fmt: skip
    data = bare + b"signature:" + b64encode(signature) + b"\n\n"
    requests.parse(data).verify(KEY.public)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"ttl": "0"}, "ttl"),
        ({"ttl": "9999999"}, "ttl"),
        ({"ttl": None}, "needs the header ttl"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://[::1/x"}, "url"),
        ({"digest": "sha-1=AAAA"}, "digest"),
        ({"digest": "sha-256=AAAA"}, "digest"),
        ({"filter-port": "5060"}, "filter-proto"),
        ({"filter-port": "0", "filter-proto": "udp"}, "65535"),
        ({"filter-port": "1-5", "filter-proto": "udp"}, "65535"),
        ({"filter-port": "5060", "filter-proto": "icmp"}, "filter-proto"),
        ({"filter-proto": "carrier-pigeon"}, "no protocol"),
        ({"filter-proto": "256"}, "255"),
        ({"filter-dst": "192.0.2.1/24"}, "prefix"),
        ({"dependencies": "a,,b"}, "dependencies"),
        ({"properties": "novalue"}, "properties"),
        ({"properties": "a=1,a=2"}, "properties"),
        ({"password": "short"}, "password"),
        ({"node-id": "a b"}, "node-id"),
        ({"probe": "status"}, "does not belong into a SETUP"),
        ({"filter-prot": "udp"}, "filter-prot is unknown"),
        ({"notification": "gopher://x"}, "notification"),
        ({"user": "jane"}, "twice"),
    ],
)
def test_what_a_node_would_refuse_is_not_even_sent(wrong: dict, complaint: str) -> None:
    with pytest.raises(MessageError, match=complaint):
        setup(**wrong)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"SETUP Mod NETSERV/0.2\n\n",
        b"INSTALL Mod NETSERV/0.1\n\n",
        b"SETUP Mod\n\n",
        b"SETUP ../etc NETSERV/0.1\n\n",
        b"SETUP Mod NETSERV/0.1\nuser:a\n",
        b"SETUP Mod NETSERV/0.1\nuser:a\n\nmore",
        b"SETUP Mod NETSERV/0.1\nuser\n\n",
        b"SETUP Mod NETSERV/0.1\nuser:a\x00b\n\n",
        b"SETUP Mod NETSERV/0.1\nuser:a\nuser:b\n\n",
        b"SETUP Mod NETSERV/0.1\n" + b"x-a:" + b"b" * 17000 + b"\n\n",
        b"SETUP Mod NETSERV/0.1\n" + b"".join(b"x-%d:b\n" % n for n in range(70)) + b"\n",
    ],
)
def test_no_message(data: bytes) -> None:
    with pytest.raises(MessageError):
        text.parse(data)


def test_probe_and_trigger() -> None:
    probe = {"probe": "status, address,status"}
    data = compose(JANE, Method.PROBE, "*", probe, wall_time=1, nonce=NONCE)
    assert requests.parse(data).probed == (Probed.STATUS, Probed.ADDRESS)
    with pytest.raises(MessageError, match="node-id, address"):
        compose(JANE, Method.PROBE, "*", {"probe": "uptime"}, wall_time=1, nonce=NONCE)
    with pytest.raises(MessageError, match="names a module"):
        compose(JANE, Method.REMOVE, "*", {}, wall_time=1, nonce=NONCE)
    inner = {"message": b64encode(data).decode()}
    trigger = compose(JANE, Method.TRIGGER, "*", inner, wall_time=1, nonce=NONCE)
    assert requests.parse(trigger).inner == data


def test_a_response_and_its_stack() -> None:
    response = Response("Mod_1.0", "ref", (), b"inner")
    for name in "cba":
        response = response.pushed(Hop(name, 200, "it's, well = 100 %", {"k": "v\u00fc"}))
    again = responses.read(text.parse(response.encode()))
    assert again == response
    assert [hop.node_id for hop in again.hops] == ["a", "b", "c"]
    for _ in range(100):
        response = response.pushed(Hop("x", 500, ""))
    assert len(responses.read(text.parse(response.encode())).hops) == 48


def test_a_nonce_counts_once_for_each_user_and_only_near_its_time() -> None:
    window = ReplayWindow(0.0, window=300, capacity=3)
    data = setup()
    request = requests.parse(data)
    window.admit(request, 1000.0)
    for wall_time in (1000.0, 1299.0, 701.0):
        with pytest.raises(ReplayError, match="before"):
            window.admit(request, wall_time)
    for wall_time in (1301.0, 699.0):
        with pytest.raises(ReplayError, match="clock"):
            window.admit(request, wall_time)
    headers = setup_headers("http://x/", bytes(32), 1)
    for nonce in range(1, 3):
        data = compose(JANE, Method.SETUP, "M", headers, wall_time=1000, nonce=bytes([nonce] * 12))
        window.admit(requests.parse(data), 1000.0)
    other = Author("other", KEY)
    window.admit(requests.parse(compose(other, Method.SETUP, "M", headers, wall_time=1000,
                                        nonce=NONCE)), 1000.0)  # fmt: skip
    more = compose(JANE, Method.SETUP, "M", headers, wall_time=1000, nonce=bytes(12))
    with pytest.raises(TooManyRequestsError):
        window.admit(requests.parse(more), 1000.0)
    late = compose(JANE, Method.SETUP, "M", headers, wall_time=1400, nonce=bytes(12))
    window.admit(requests.parse(late), 1400.0)
    assert len(window) == 2, "what is refused by its time need not be remembered"


def test_what_was_made_before_the_node_started_may_have_been_seen() -> None:
    window = ReplayWindow(1001.5)
    with pytest.raises(ReplayError, match="before this node started"):
        window.admit(requests.parse(setup()), 1002.0)


LINES = st.sampled_from([*SEED_FIGURE.split(b"\n"), *setup().split(b"\n"), b"", b"hop:node-id=a"])


@given(st.binary() | st.lists(LINES | st.binary(max_size=20)).map(b"\n".join))
def test_any_bytes_are_a_message_or_the_error(data: bytes) -> None:
    try:
        message = text.parse(data)
    except MessageError:
        return
    assert text.parse(message.encode()) == message
    for read in (lambda: requests.read(message, data), lambda: responses.read(message)):
        with contextlib.suppress(MessageError):
            read()


def undecodable(value: str) -> bool:
    return value.encode(errors="replace").decode() != value


@given(st.dictionaries(st.from_regex(r"[a-z_.-]{1,9}", fullmatch=True), st.text(max_size=20)))
def test_properties_come_back(given_: dict[str, str]) -> None:
    try:
        written = values.write_pairs(given_)
    except MessageError:
        assert len(given_) > 64 or any(map(undecodable, given_.values()))
        return
    assert values.pairs(written) == given_
    if written:
        assert Message(Method.PROBE, "*", (("properties", written),)).encode()


@given(st.text(), st.sampled_from(sorted(requests._READERS)))
def test_any_value_of_a_header_is_read_or_refused(value: str, name: str) -> None:
    with contextlib.suppress(MessageError):
        requests._READERS[name][1](value)
