"""Forwarding to a gateway on the real kernel, and the kernel's table of connections."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.lab.inside import socket_in

from anabranch.core.errors import ConflictError
from anabranch.host import gateway, network
from anabranch.host.addresses import local_addresses
from anabranch.host.gateway import Protocol, Way
from anabranch.host.journal import TABLE_PREFIX, Journal
from anabranch.host.network import Port

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:078F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: FE00610A:078F 0A0200C0:C350 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0
   2: FE00610A:078F 0B0200C0:C351 06 00000000:00000000 00:00000000 00000000     0        0 3 1 0
   3: FE00610A:1F90 0C0200C0:C352 01 00000000:00000000 00:00000000 00000000     0        0 4 1 0
"""


def test_who_is_connected_is_read_from_the_kernels_table() -> None:
    assert gateway.parse_tcp_table(TABLE, 1935) == {("192.0.2.10", 50000)}
    assert gateway.parse_tcp_table(TABLE, 8080) == {("192.0.2.12", 50002)}
    assert gateway.parse_tcp_table("", 1935) == frozenset()


def test_who_is_connected_to_this_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()
            assert gateway.tcp_peers(os.getpid(), port) <= {client.getsockname()}
    assert gateway.tcp_peers(2**22 + 1, port) == frozenset()


@given(st.text(alphabet="0123456789ABCDEF: \n", max_size=300))
def test_any_table_is_read(text: str) -> None:
    gateway.parse_tcp_table("head\n" + text, 1935)


@pytest.mark.parametrize("protocol", Protocol)
def test_a_held_port_is_nobody_elses(protocol: Protocol) -> None:
    with closing(gateway.hold(Way(protocol, 0))) as free:
        way = Way(protocol, free.getsockname()[1])
        with pytest.raises(ConflictError, match=f"port {way.port} is taken"):
            gateway.hold(way)
    gateway.hold(way).close()


@dataclass
class Place:
    """A gateway that is a namespace behind a cable."""

    table: str
    namespace: str
    outer: IPv4Address

    def listen(self, port: int) -> socket.socket:
        listener = network.socket_inside(self.namespace, socket.SOCK_DGRAM)
        listener.bind(("0.0.0.0", port))
        listener.settimeout(2.0)
        return listener


def arp_listener() -> socket.socket:
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
    listener.bind(("in0", 0x0806))
    listener.settimeout(2.0)
    return listener


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    tag = secrets.token_hex(2)
    number = secrets.randbelow(200)
    directory = tmp_path / "run"
    directory.mkdir()
    journal = Journal(directory)
    device, namespace, table = f"abg{tag}", f"abg-{tag}", f"{TABLE_PREFIX}{tag}_in"
    outer, inner = (IPv4Interface(f"10.99.{number}.{last}/30") for last in (1, 2))
    try:
        journal.record("netns", namespace)
        network.make_namespace(namespace)
        journal.record("link", device)
        network.make_link(Port(device, None, address=outer), Port("in0", namespace, address=inner))
        network.add_route(namespace, "default", device="in0", via=str(outer.ip))
        journal.record("nft", table)
        gateway.make_forwarding(table, device, inner.ip)
        yield Place(table, namespace, outer.ip)
    finally:
        journal.undo()


@needs_root
@pytest.mark.lab
def test_what_comes_to_a_way_goes_to_the_gateway_and_its_answer_back(place: Place) -> None:
    with closing(gateway.hold(Way(Protocol.UDP, 0))) as held:
        port = held.getsockname()[1]
        with (
            closing(place.listen(port)) as inside,
            closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender,
        ):
            sender.settimeout(2.0)
            gateway.forward_ways(place.table, {Way(Protocol.UDP, port)})
            sender.sendto(b"question", ("127.0.0.1", port))
            data, source = inside.recvfrom(100)
            assert (data, source[0]) == (b"question", str(place.outer))
            inside.sendto(b"answer", source)
            assert sender.recvfrom(100) == (b"answer", ("127.0.0.1", port))


@needs_root
@pytest.mark.lab
def test_arp_asks_in_the_name_of_the_cables_end(place: Place) -> None:
    local = next(each for each in local_addresses() if each != place.outer)
    with closing(gateway.hold(Way(Protocol.UDP, 0))) as held:
        way = Way(Protocol.UDP, held.getsockname()[1])
        gateway.forward_ways(place.table, {way})
        with closing(socket_in(place.namespace, arp_listener)) as cable:
            with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
                sender.bind((str(local), 0))
                sender.sendto(b"first", (str(local), way.port))
            frame = cable.recv(100)
    assert IPv4Address(frame[28:32]) == place.outer


@needs_root
@pytest.mark.lab
def test_one_that_has_sent_since_before_is_looked_at_anew(place: Place) -> None:
    with closing(gateway.hold(Way(Protocol.UDP, 0))) as held:
        way = Way(Protocol.UDP, held.getsockname()[1])
        with (
            closing(place.listen(way.port)) as inside,
            closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender,
        ):
            sender.sendto(b"early", ("127.0.0.1", way.port))
            gateway.forward_ways(place.table, {way})
            gateway.forget_senders([way])
            sender.sendto(b"late", ("127.0.0.1", way.port))
            assert inside.recvfrom(100)[0] == b"late"
            gateway.forward_ways(place.table, set())


@needs_root
@pytest.mark.lab
async def test_nothing_is_dropped_at_first(place: Place) -> None:
    assert await gateway.dropped_newcomers(place.table) == 0
