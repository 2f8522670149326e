"""Nodes over real TLS on loopback: joining, commanding, renewing, and all who may not."""

import asyncio
import datetime
import gc
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.tree.realm import Realm, realm
from tests.waiting import until

from anabranch.core.errors import ConflictError, UnavailableError, UsageError
from anabranch.tree.admission import Admission
from anabranch.tree.certificates import (
    Authority,
    CertificateError,
    Credentials,
    client_context,
    requested_key,
    stranger_context,
)
from anabranch.tree.events import (
    Attached,
    Certified,
    Deliver,
    Introduced,
    Joined,
    Left,
    Moved,
    Stopped,
)
from anabranch.tree.joining import join
from anabranch.tree.model import Role
from anabranch.tree.soleil.codec import decode, encode
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
    PlayPipeline,
    ReqFullStats,
    Stats,
)
from anabranch.tree.tokens import parse_token
from anabranch.tree.transport import listener
from anabranch.tree.transport.dialler import Nearby

QUICK = {"greeting": 0.5, "silence": 0.1, "lost_after": 0.4}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Realm]:
    async with realm(tmp_path) as made:
        yield made


class Wire:
    """A peer that speaks frames by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, site: Realm, credentials: Credentials | None) -> "Wire":
        context = stranger_context() if credentials is None else client_context(credentials)
        at = site.root_at
        return cls(
            *await asyncio.open_connection(at.host, at.port, ssl=context, server_hostname="")
        )

    def say(self, body, to: str | None = None, sender: str | None = None, drawn=None) -> None:
        self.raw(encode(Message(body, 1, to=to, sender=sender, id=drawn)))

    def raw(self, document: bytes) -> None:
        self.writer.write(len(document).to_bytes(4, "big") + document)

    async def hear(self) -> Message:
        length = int.from_bytes(await self.reader.readexactly(4), "big")
        return decode(await self.reader.readexactly(length))

    async def hear_error(self) -> Fault:
        while True:
            message = await self.hear()
            if isinstance(message.body, Error):
                return message.body.fault

    async def end(self) -> bytes:
        """Return what is left once the peer has hung up."""
        try:
            return await self.reader.read()
        except (ConnectionError, ssl.SSLError):
            return b""
        finally:
            await self.close()

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


async def test_nodes_join_are_commanded_and_leave(site: Realm) -> None:
    root = await site.root()
    relay = await site.branch("relay", Role.RELAY)
    leaf = await site.branch("leaf", Role.LEAF)
    await until(lambda: len(root.told(Introduced)) == 2)
    assert {(each.name, each.parent) for each in root.told(Joined)} == {
        ("relay", "root"),
        ("leaf", "root"),
    }
    root.node.redirect("leaf", "relay", "a test")
    await until(lambda: root.told(Moved) == [Moved("leaf", "relay", "root")])
    await until(lambda: leaf.parent == "relay")
    root.node.send(ReqFullStats("p"), "leaf")
    root.node.send(PlayPipeline("p"), EVERYBODY)
    leaf.node.send(Stats())
    await until(lambda: len(leaf.told(Deliver)) == 2 and len(relay.told(Deliver)) == 2)
    bodies = [event.message.body for event in leaf.told(Deliver)]
    assert bodies == [ReqFullStats("p"), PlayPipeline("p")]
    heard = {type(event.message.body) for event in relay.told(Deliver)}
    assert heard == {PlayPipeline, Stats}
    with pytest.raises(UnavailableError):
        root.node.send(Kill(), "nobody")
    with pytest.raises(ConflictError):
        root.node.redirect("relay", "leaf", "a leaf has no children")
    await site.end(leaf)
    await until(lambda: root.told(Left) == [Left("leaf", "stopped")])


async def test_a_relay_that_dies_gives_its_children_to_the_root(site: Realm) -> None:
    root = await site.root(grace=0.3)
    relay = await site.branch("relay", Role.RELAY)
    leaf = await site.branch("leaf", Role.LEAF)
    await until(lambda: len(root.told(Introduced)) == 2)
    root.node.redirect("leaf", "relay", "a test")
    await until(lambda: leaf.parent == "relay")
    await site.crash(relay)
    await until(lambda: leaf.parent == "root")
    await until(lambda: "relay" in [event.name for event in root.told(Left)])
    await until(lambda: root.node.member.registry.is_present("leaf"))
    assert root.node.member.registry.nodes["leaf"].parent == "root"


async def test_a_root_that_restarts_finds_its_tree(site: Realm) -> None:
    root = await site.root()
    await site.branch("relay", Role.RELAY)
    leaf = await site.branch("leaf", Role.LEAF)
    await until(lambda: len(root.told(Introduced)) == 2)
    root.node.redirect("leaf", "relay", "a test")
    await until(lambda: len(root.told(Moved)) == 1)
    before = len(leaf.told(Attached))
    await site.end(root)
    again = await site.root(port=root.port)
    await until(lambda: len(again.told(Introduced)) == 2)
    assert {(each.name, each.parent) for each in again.told(Joined)} == {
        ("relay", "root"),
        ("leaf", "relay"),
    }
    assert len(leaf.told(Attached)) == before


async def test_a_token_becomes_a_certificate_once(site: Realm) -> None:
    root = await site.root()
    token = site.admission.issue("leaf", Role.LEAF)
    assert token.secret not in repr(token)
    credentials = site.credentials("leaf")
    for _ in range(2):  # the answer may get lost: the same key may ask again
        identity = await join((site.root_at,), parse_token(token.reveal()), credentials)
        assert (identity.name, identity.role) == ("leaf", Role.LEAF)
    with pytest.raises(UsageError, match="used already"):
        await join((site.root_at,), token, site.credentials("thief"))
    await site.branch("leaf", Role.LEAF, credentials=credentials)
    await until(lambda: len(root.told(Introduced)) == 1)
    site.admission.save()
    kept = (site.path / "nodes.json").read_text()
    assert token.secret not in kept
    assert (site.path / "nodes.json").stat().st_mode & 0o777 == 0o600
    assert Admission(site.authority, site.path / "nodes.json").records["leaf"].key is not None


async def test_tokens_that_are_forged_late_or_of_another_site_are_refused(
    site: Realm, tmp_path: Path
) -> None:
    await site.root()
    token = site.admission.issue("leaf", Role.LEAF)
    forged = parse_token(f"anabranch1.leaf.{'x' * 43}.{site.authority.fingerprint}")
    with pytest.raises(UsageError, match="no such token"):
        await join((site.root_at,), forged, site.credentials("a"))
    late = site.admission.issue("other", Role.LEAF, lifetime_s=-1)
    with pytest.raises(UsageError, match="expired"):
        await join((site.root_at,), late, site.credentials("b"))
    other = Admission(Authority.open(tmp_path / "other.pem"), None).issue("leaf", Role.LEAF)
    with pytest.raises(CertificateError, match="another authority"):
        await join((site.root_at,), other, site.credentials("c"))
    site.admission.remove("leaf")
    with pytest.raises(UsageError, match="no such token"):
        await join((site.root_at,), token, site.credentials("d"))


async def test_a_token_is_not_shown_to_a_relay_or_a_stranger(site: Realm) -> None:
    await site.root()
    relay = await site.branch("relay", Role.RELAY)
    token = site.admission.issue("leaf", Role.LEAF)
    with pytest.raises((UsageError, UnavailableError, OSError)):
        await join(
            (relay.node.member.server,), token, site.credentials("leaf")
        )  # asks for a certificate at once
    assert site.admission.records["leaf"].token_key is None


async def test_a_wrong_authority_or_an_expired_certificate_ends_the_handshake(
    site: Realm, tmp_path: Path
) -> None:
    root = await site.root()
    (tmp_path / "stranger").mkdir()
    foreign = Realm(tmp_path / "stranger").certify("leaf", Role.LEAF)
    expired = site.credentials("late")
    at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=31)
    key = requested_key(expired.request("late"))
    expired.store(site.authority.issue("late", Role.LEAF, key, at=at), site.authority.fingerprint)
    site.admission.adopt("late", Role.LEAF)
    for credentials in (foreign, expired):
        context = client_context(credentials)
        context.verify_mode = ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", root.port, ssl=context, server_hostname=""
        )
        wire = Wire(reader, writer)
        wire.say(Hello("leaf", Role.LEAF), ROOT)
        assert await wire.end() == b""
    assert root.events == []


async def test_clocks_may_be_hours_off(site: Realm) -> None:
    root = await site.root()
    credentials = site.credentials("leaf")
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=12)
    key = requested_key(credentials.request("leaf"))
    credentials.store(
        site.authority.issue("leaf", Role.LEAF, key, at=at), site.authority.fingerprint
    )
    site.admission.adopt("leaf", Role.LEAF)
    await site.branch("leaf", Role.LEAF, credentials=credentials)
    await until(lambda: len(root.told(Introduced)) == 1)


async def test_a_node_may_only_be_itself(site: Realm) -> None:
    root = await site.root()
    leaf = site.certify("leaf", Role.LEAF)
    for hello in (
        Hello("other", Role.LEAF),
        Hello("leaf", Role.RELAY),
        Hello("root", Role.ROOT),
    ):
        wire = await Wire.open(site, leaf)
        wire.say(hello, ROOT)
        assert await wire.hear_error() is Fault.FORBIDDEN
        assert await wire.end() == b""
    wire = await Wire.open(site, None)
    wire.say(Hello("leaf", Role.LEAF, token="x" * 43), ROOT)
    assert await wire.hear_error() is Fault.FORBIDDEN
    await wire.end()
    wire = await Wire.open(site, None)
    wire.say(Stats())
    assert await wire.hear_error() is Fault.FORBIDDEN
    await wire.end()
    assert root.events == []


async def test_lies_and_commands_of_a_stolen_relay_are_contained(site: Realm) -> None:
    root = await site.root()
    leaf = await site.branch("leaf", Role.LEAF)
    site.admission.adopt("other", Role.LEAF)
    wire = await Wire.open(site, site.certify("relay", Role.RELAY))
    wire.say(Hello("relay", Role.RELAY), ROOT)
    assert (await wire.hear()).body.name == "root"
    await until(lambda: len(root.told(Introduced)) == 2)

    def claim(number: int, *below: Descendant) -> None:
        wire.say(ChildsUpdate(number, below))

    claim(1, Descendant("leaf", Role.LEAF, "relay"))  # alive elsewhere
    assert await wire.hear_error() is Fault.CONFLICT
    claim(2, Descendant("root", Role.RELAY, "relay"), Descendant("x", Role.LEAF, "root"))
    assert await wire.hear_error() is Fault.CONFLICT
    claim(3, *(Descendant(f"n{n}", Role.LEAF, "relay") for n in range(900)))  # made up
    assert await wire.hear_error() is Fault.CONFLICT
    claim(4, *(Descendant(f"n{n}", Role.LEAF, "relay") for n in range(1001)))
    assert await wire.hear_error() is Fault.CONFLICT
    claim(5, Descendant("other", Role.LEAF, "relay"), Descendant("o2", Role.LEAF, "other"))
    assert await wire.hear_error() is Fault.CONFLICT
    for to, sender in (("leaf", ROOT), ("leaf", "root"), ("leaf", "leaf"), (EVERYBODY, "relay")):
        wire.say(Kill("mine"), to, sender)
        assert await wire.hear_error() is Fault.FORBIDDEN
    assert root.node.member.registry.nodes.keys() == {"leaf", "relay", "other"}
    assert root.node.member.registry.nodes["leaf"].parent == "root"
    assert leaf.told(Stopped) == []
    for _ in range(20):
        wire.say(Kill(), "leaf", ROOT)
    await wire.end()  # too many: dropped
    await until(lambda: not root.node.member.registry.is_present("relay"))


async def test_a_node_begins_anew_by_a_new_connection_only(site: Realm) -> None:
    root = await site.root()
    wire = await Wire.open(site, site.certify("leaf", Role.LEAF))
    for boot in ("b0", "b0", "b1"):
        wire.say(Hello("leaf", Role.LEAF, boot=boot), ROOT)
    assert await wire.hear_error() is Fault.CONFLICT
    assert len(root.told(Joined)) == len(root.told(Introduced)) == 1
    for number in range(20):
        wire.say(Hello("leaf", Role.LEAF, boot=f"c{number}"), ROOT)
    await wire.end()  # too many: dropped
    assert len(root.told(Joined)) == len(root.told(Introduced)) == 1


async def test_a_handshake_that_fails_holds_no_memory(site: Realm) -> None:
    await site.root()
    gc.collect()
    gc.disable()  # counts what goes without it
    try:
        for _ in range(20):
            _, writer = await asyncio.open_connection(site.root_at.host, site.root_at.port)
            writer.write(b"no handshake")
            await asyncio.sleep(0)
            writer.close()
        await until(lambda: not any(isinstance(each, SSLProtocol) for each in gc.get_objects()))
    finally:
        gc.enable()


async def test_half_open_connections_of_one_address_take_little_memory(
    site: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_HANDSHAKES", 5)
    await site.root()
    gc.collect()
    writers = []
    for _ in range(20):
        _, writer = await asyncio.open_connection(site.root_at.host, site.root_at.port)
        writers.append(writer)

    def handshakes() -> int:
        return sum(isinstance(each, SSLProtocol) for each in gc.get_objects())

    await until(lambda: handshakes() == 5)
    for writer in writers[:10]:
        writer.close()
    await until(lambda: handshakes() == 5)  # those that waited have their turn
    for writer in writers:
        writer.close()
    wire = await Wire.open(site, site.certify("leaf", Role.LEAF))
    wire.say(Hello("leaf", Role.LEAF), ROOT)
    assert isinstance((await wire.hear()).body, Hello)


async def test_replays_are_handled_once(site: Realm) -> None:
    root = await site.root()
    wire = await Wire.open(site, site.certify("leaf", Role.LEAF))
    wire.say(Hello("leaf", Role.LEAF), ROOT)
    await wire.hear()
    for _ in range(3):
        wire.say(Stats(), None, "leaf", "a-1")
        wire.say(Stats(), None, None, None)
    wire.say(Stats(), None, "leaf", "a-2")
    await until(lambda: len(root.told(Deliver)) == 3)
    await asyncio.sleep(0.05)
    assert len(root.told(Deliver)) == 3
    await wire.close()


async def test_bad_frames_are_answered_and_then_the_session_dropped(site: Realm) -> None:
    await site.root()
    wire = await Wire.open(site, site.certify("leaf", Role.LEAF))
    wire.say(Hello("leaf", Role.LEAF), ROOT)
    await wire.hear()
    wire.raw(b"<message type='party' time='1'/>")
    assert await wire.hear_error() is Fault.UNKNOWN_TYPE
    wire.raw(b"\xff\xfe not xml")
    assert await wire.hear_error() is Fault.MALFORMED
    wire.writer.write((300 * 1024).to_bytes(4, "big"))
    assert await wire.hear_error() is Fault.TOO_LARGE
    assert await wire.end() == b""


async def test_half_messages_and_silence_do_not_hold_a_place(site: Realm) -> None:
    root = await site.root(timing=QUICK)
    leaf = site.certify("leaf", Role.LEAF)
    wire = await Wire.open(site, leaf)
    wire.writer.write(b"\0\0\1\0<mess")  # and no more
    await wire.end()
    wire = await Wire.open(site, leaf)
    wire.say(Hello("leaf", Role.LEAF), ROOT)
    await wire.hear()
    await until(lambda: len(root.told(Joined)) == 1)
    dribbling = asyncio.create_task(_dribble(wire))
    await until(lambda: root.node.member.registry.nodes["leaf"].lost is not None)
    dribbling.cancel()
    await asyncio.gather(dribbling, return_exceptions=True)
    await wire.end()


async def _dribble(wire: Wire) -> None:
    wire.writer.write((1000).to_bytes(4, "big"))
    while True:
        wire.writer.write(b"x")
        await asyncio.sleep(0.05)


async def test_one_address_has_so_many_connections_handshake_or_not(site: Realm) -> None:
    root = await site.root(limits={"per_address": 3})
    held = [socket.create_connection(("127.0.0.1", root.port)) for _ in range(3)]
    listener = root.node._listeners[0]
    await until(lambda: listener._open == 3)
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await Wire.open(site, None)
    for each in held:
        each.close()
    await until(lambda: listener._open == 0)
    wire = await Wire.open(site, None)
    await wire.close()


async def test_a_killed_node_stays_away(site: Realm) -> None:
    root = await site.root()
    relay = await site.branch("relay", Role.RELAY)
    leaf = await site.branch("leaf", Role.LEAF)
    await until(lambda: len(root.told(Introduced)) == 2)
    root.node.redirect("leaf", "relay", "a test")
    await until(lambda: len(root.told(Moved)) == 1)
    root.node.kill("leaf", "stolen")
    await until(lambda: leaf.told(Stopped) == [Stopped("stolen")])
    await until(lambda: len(root.told(Left)) == 1)
    for at in (site.root_at, relay.node.member.server):
        site.root_at, before = at, site.root_at
        wire = await Wire.open(site, site.credentials("leaf"))
        wire.say(Hello("leaf", Role.LEAF), ROOT)
        assert await wire.hear_error() is Fault.FORBIDDEN
        await wire.end()
        site.root_at = before


async def test_a_certificate_is_renewed_by_way_of_the_relay(site: Realm) -> None:
    root = await site.root()
    await site.branch("relay", Role.RELAY)
    token = site.admission.issue("leaf", Role.LEAF)
    credentials = site.credentials("leaf")
    await join((site.root_at,), token, credentials)
    before = credentials.chain.read_text()
    leaf = await site.branch("leaf", Role.LEAF, credentials=credentials)
    await until(lambda: len(root.told(Introduced)) == 2)
    root.node.redirect("leaf", "relay", "a test")
    await until(lambda: leaf.parent == "relay" and len(root.told(Moved)) == 1)
    leaf.node._renew()
    await until(lambda: len(leaf.told(Certified)) == 1)
    assert credentials.chain.read_text() != before
    before = site.credentials("root").chain.read_text()
    root.node._renew()
    assert site.credentials("root").chain.read_text() != before
    await site.end(leaf)
    leaf = await site.branch("leaf", Role.LEAF, credentials=credentials)
    await until(lambda: leaf.parent == "root")
    thief = site.credentials("thief").request("leaf")
    leaf.node._do(leaf.node.member.request_certificate(thief, 0.0))
    await until(lambda: any(isinstance(e.message.body, Error) for e in leaf.told(Deliver)))


async def test_nodes_of_one_machine_need_no_certificates(site: Realm, tmp_path: Path) -> None:
    nearby = Nearby(tmp_path, "root")
    root = await site.root(nearby=nearby)
    await site.branch("relay", Role.RELAY, nearby=nearby)
    leaf = await site.branch("leaf", Role.LEAF, nearby=nearby)
    await until(lambda: len(root.told(Introduced)) == 2)
    assert (tmp_path / "root.sock").stat().st_mode & 0o777 == 0o600
    root.node.redirect("leaf", "relay", "a test")
    await until(lambda: leaf.parent == "relay")


async def test_an_address_that_cannot_be_is_one_where_nobody_answers(site: Realm) -> None:
    await site.root()
    token = site.admission.issue("leaf", Role.LEAF)
    for at in (Endpoint("x" * 64 + ".invalid", 1), Endpoint("127.0.0.1", 1)):
        with pytest.raises(UnavailableError):
            await join((at,), token, site.credentials("leaf"))
        await join((at, site.root_at), token, site.credentials("leaf"))


async def test_the_root_learns_both_addresses_of_a_node(site: Realm) -> None:
    root = await site.root()
    relay = await site.branch("relay", Role.RELAY)
    await until(lambda: len(root.told(Introduced)) == 1)
    hello = root.told(Introduced)[0].hello
    assert hello.server == Endpoint("127.0.0.1", relay.port)
    assert hello.client is not None
    assert hello.client.host == "127.0.0.1"
