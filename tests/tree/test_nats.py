"""The tree over a real NATS server: joining, coming back, and all who lie about who they are."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from tests.tree.nats_server import NatsServer, nats_server
from tests.tree.realm import Node, Realm, realm
from tests.waiting import until

from anabranch.core.errors import UnavailableError, UsageError
from anabranch.tree.certificates import CertificateError, Credentials, client_context
from anabranch.tree.events import Deliver, Introduced, Joined, Left, Moved, Target
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity
from anabranch.tree.soleil.codec import MAX_BYTES, decode, encode
from anabranch.tree.soleil.messages import (
    ROOT,
    Endpoint,
    Error,
    Fault,
    Hello,
    Message,
    ReqFullStats,
    Stats,
)
from anabranch.tree.transport.channel import Channel
from anabranch.tree.transport.nats import Bus, Session
from anabranch.tree.transport.subjects import Subject, server_configuration

SITE = "demo"
ROLES = {
    "root": Role.ROOT,
    "relay": Role.RELAY,
    "leaf": Role.LEAF,
    "thief": Role.LEAF,
}


class BusSite:
    """A site whose nodes have nothing but the bus: every address is one where nobody listens."""

    def __init__(self, realm: Realm, server: NatsServer) -> None:
        self.realm = realm
        self.server = server
        self.buses: dict[str, Bus] = {}
        self.configure(ROLES)

    def configure(self, roles: dict[str, Role]) -> None:
        root = self.realm.certify("root", Role.ROOT)
        at = Endpoint("127.0.0.1", self.server.port)
        text = server_configuration(SITE, roles, at, credentials=root)
        self.server.configuration.write_text(text)

    @property
    def url(self) -> str:
        return f"tls://127.0.0.1:{self.server.port}"

    def bus(self, name: str, credentials: Credentials) -> Bus:
        self.buses[name] = bus = Bus(self.url, SITE, Identity(name, ROLES[name]), credentials)
        bus.start()
        return bus

    async def root(self) -> Node:
        bus = self.bus("root", self.realm.certify("root", Role.ROOT))
        made = await self.realm.root(ways=[bus])
        bus.listen(made.node.arriving)
        await bus._up.wait()
        self.realm.root_at = Endpoint("127.0.0.1", 1)
        return made

    async def branch(self, name: str) -> Node:
        credentials = self.realm.certify(name, ROLES[name])
        bus = self.bus(name, credentials)
        made = await self.realm.branch(name, ROLES[name], credentials=credentials, ways=[bus])
        made.node.member.server = Endpoint("127.0.0.1", 1)
        if ROLES[name] is Role.RELAY:
            bus.listen(made.node.arriving)
        return made

    @asynccontextmanager
    async def wire(self, name: str) -> AsyncIterator["Wire"]:
        """Somebody with a node's certificate who says what he likes."""
        credentials = self.realm.certify(name, ROLES[name])
        client, complaints = Client(), []

        async def complain(error: Exception) -> None:
            complaints.append(str(error))

        await client.connect(
            self.url,
            tls=client_context(credentials),
            allow_reconnect=False,
            error_cb=complain,
        )
        try:
            yield Wire(client, Identity(name, ROLES[name]), complaints)
        finally:
            await client.close()


class Wire:
    """A node that speaks by hand."""

    def __init__(self, client: Client, who: Identity, complaints: list[str]) -> None:
        self.client = client
        self.who = who
        self.complaints = complaints
        self.session = secrets.token_hex(16)
        self.heard: list[tuple[str, bytes]] = []

    async def hear(self) -> None:
        async def cb(message) -> None:
            self.heard.append((message.subject.rsplit(".", 1)[1], message.data))

        await self.client.subscribe(f"soleil.{SITE}.from.*.*.to.{self.who.name}.>", cb=cb)

    async def say(self, number: int, payload: bytes = b"", *, who: Identity | None = None) -> None:
        subject = Subject(SITE, who or self.who, ROOT, self.session, number)
        await self.client.publish(str(subject), payload)
        await self.client.flush()

    @property
    def faults(self) -> list[Fault]:
        bodies = [decode(data).body for number, data in self.heard if number not in ("0", "end")]
        return [body.fault for body in bodies if isinstance(body, Error)]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[BusSite]:
    with nats_server(tmp_path) as server:
        made = None
        try:
            async with realm(tmp_path) as behind:
                made = BusSite(behind, server)
                server.start()
                yield made
        finally:
            for bus in made.buses.values() if made else ():
                await bus.close()


def hello(name: str = "leaf") -> bytes:
    return encode(Message(Hello(name, ROLES[name]), 1, to=ROOT, sender=name))


def stats(drawn: str) -> bytes:
    return encode(Message(Stats(), 1, sender="leaf", id=drawn))


async def grown(site: BusSite) -> tuple[Node, Node, Node]:
    root = await site.root()
    relay, leaf = await site.branch("relay"), await site.branch("leaf")
    await until(lambda: len(root.told(Introduced)) == 2)
    root.node.redirect("leaf", "relay", "a test")
    await until(lambda: root.told(Moved) == [Moved("leaf", "relay", "root")])
    await until(lambda: leaf.parent == "relay")
    return root, relay, leaf


async def test_nodes_join_are_commanded_report_and_leave(site: BusSite) -> None:
    root, relay, leaf = await grown(site)
    root.node.send(ReqFullStats("p"), "leaf")
    leaf.node.send(Stats())
    await until(lambda: len(leaf.told(Deliver)) == 1 and len(relay.told(Deliver)) == 1)
    assert leaf.told(Deliver)[0].message.body == ReqFullStats("p")
    assert relay.told(Deliver)[0].message.sender == "leaf"
    for node in (root, relay, leaf):
        transports = [channel._transport for channel in node.node._numbers]
        assert transports
        assert all(isinstance(each, Session) for each in transports)
    await site.realm.end(leaf)
    await until(lambda: root.told(Left) == [Left("leaf", "stopped")])


async def test_after_a_restart_of_the_server_all_are_back_and_nothing_comes_twice(
    site: BusSite,
) -> None:
    root, relay, leaf = await grown(site)
    site.server.kill()
    await until(lambda: leaf.parent is None and relay.parent is None)
    with pytest.raises(UnavailableError):
        leaf.node.send(Stats())
    site.server.start()
    await until(lambda: leaf.parent is not None and relay.parent is not None)
    await until(lambda: all(root.node.member.registry.is_present(n) for n in ("leaf", "relay")))
    root.node.send(ReqFullStats("p"), "leaf")
    await until(lambda: len(leaf.told(Deliver)) == 1)
    assert root.told(Left) == []
    assert len(root.told(Joined)) == 2


async def test_a_root_that_restarts_knows_no_session_and_says_so(site: BusSite) -> None:
    root, _, leaf = await grown(site)
    site.realm.running.remove(root)
    await site.buses["root"].close()  # without a word to anybody
    await root.node.stop()
    again = await site.root()
    await until(lambda: len(again.told(Introduced)) == 2)
    assert leaf.parent == "relay"


async def test_nobody_speaks_or_hears_for_another(site: BusSite) -> None:
    root, relay, leaf = await grown(site)
    async with site.wire("thief") as wire:
        for who in (Identity("leaf", Role.LEAF), Identity("thief", Role.ROOT)):
            await wire.say(0, who=who)
        await wire.client.subscribe(f"soleil.{SITE}.from.*.*.to.leaf.>")
        await wire.client.subscribe("soleil.>")
        await wire.client.flush()
        await until(lambda: len(wire.complaints) == 4)
        assert all("permissions violation" in each.lower() for each in wire.complaints)
        await wire.hear()
        await wire.say(0)
        await wire.say(1, hello("leaf"))
        await until(lambda: wire.faults == [Fault.FORBIDDEN])
        await until(lambda: wire.heard[-1][0] == "end")
    assert root.told(Left) == []
    assert (leaf.parent, relay.parent) == ("relay", "root")


async def test_a_replayed_message_is_handled_once_and_a_missing_one_ends_the_session(
    site: BusSite,
) -> None:
    root = await site.root()
    async with site.wire("leaf") as wire:
        await wire.hear()
        for number, payload in ((0, b""), (1, hello()), (2, stats("a")), (2, stats("b"))):
            await wire.say(number, payload)
        await wire.say(0)
        await wire.say(3, stats("a"))
        await wire.say(4, stats("c"))
        await until(lambda: len(root.told(Deliver)) == 2)
        assert [event.message.id for event in root.told(Deliver)] == ["a", "c"]
        await wire.say(6, stats("d"))
        await until(lambda: wire.heard[-1] == ("end", b"messages were lost"))
        await wire.say(7, stats("e"))
        await until(lambda: wire.heard[-1] == ("end", b"there is no such session"))
        assert len(root.told(Deliver)) == 2


async def test_what_is_too_large_is_answered_and_ends_the_session(site: BusSite) -> None:
    root = await site.root()
    async with site.wire("leaf") as wire:
        await wire.hear()
        await wire.say(0)
        await wire.say(1, b"<" + b"x" * 40_000)  # more than a greeting may have
        await until(lambda: wire.faults == [Fault.TOO_LARGE])
        wire.session = secrets.token_hex(16)
        wire.heard.clear()
        await wire.say(0)
        await wire.say(1, hello())
        await until(lambda: len(root.told(Introduced)) == 1)
        await wire.say(2, b"x" * (MAX_BYTES + 1))
        await until(lambda: wire.faults == [Fault.TOO_LARGE])
        await until(lambda: wire.heard[-1][0] == "end")


async def test_one_node_has_so_many_sessions(site: BusSite) -> None:
    await site.root()
    async with site.wire("leaf") as wire:
        await wire.hear()
        for _ in range(12):
            wire.session = secrets.token_hex(16)
            await wire.say(0)
        await until(lambda: len(wire.heard) == 12)
        assert [number for number, _ in wire.heard] == ["0"] * 8 + ["end"] * 4


async def test_who_is_taken_off_the_list_is_cut_off(site: BusSite) -> None:
    root, _, leaf = await grown(site)
    site.realm.admission.remove("leaf")
    site.configure({name: role for name, role in ROLES.items() if name != "leaf"})
    site.server.reload()
    await until(lambda: leaf.parent is None)
    await until(lambda: not site.buses["leaf"]._up.is_set())
    assert root.node.member.registry.is_present("relay")


async def test_the_server_must_be_the_roots(site: BusSite, tmp_path: Path) -> None:
    leaf = site.realm.certify("leaf", Role.LEAF)
    site.server.kill()
    at = Endpoint("127.0.0.1", site.server.port)
    plain = server_configuration(SITE, ROLES, at, passwords=dict.fromkeys(ROLES, "x"))
    imposter = server_configuration(
        SITE, ROLES, at, credentials=site.realm.certify("relay", Role.RELAY)
    )
    secret_url = site.url.replace("//", "//leaf:x@")
    for configuration, url in ((plain, secret_url), (imposter, site.url)):
        site.server.configuration.write_text(configuration)
        site.server.start()
        client = Client()
        bus = Bus(url, SITE, Identity("leaf", Role.LEAF), leaf)
        with pytest.raises(CertificateError, match="the bus"):
            await bus._connect(client, asyncio.get_running_loop().create_future())
        await client.close()
        site.server.kill()


async def test_passwords_do_where_there_is_no_tls(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        passwords = {name: secrets.token_urlsafe(32) for name in ROLES}
        at = Endpoint("127.0.0.1", server.port)
        server.configuration.write_text(server_configuration(SITE, ROLES, at, passwords=passwords))
        server.start()
        buses = {
            name: Bus(
                f"nats://{name}:{passwords[name]}@127.0.0.1:{server.port}",
                SITE,
                Identity(name, role),
            )
            for name, role in ROLES.items()
        }
        assert passwords["leaf"] not in buses["leaf"]._shown
        try:
            async with realm(tmp_path) as behind:
                for bus in buses.values():
                    bus.start()
                root = await behind.root(ways=[buses["root"]])
                buses["root"].listen(root.node.arriving)
                behind.root_at = Endpoint("127.0.0.1", 1)
                leaf = await behind.branch("leaf", Role.LEAF, ways=[buses["leaf"]])
                await until(lambda: leaf.parent == "root")
        finally:
            for bus in buses.values():
                await bus.close()


async def test_a_node_that_nobody_answers_for_is_away(site: BusSite) -> None:
    bus = site.bus("leaf", site.realm.certify("leaf", Role.LEAF))
    refused: Callable = pytest.fail
    with pytest.raises(UnavailableError, match="relay does not answer"):
        await bus.connect(Target("relay", ()), refused, None)


HEADS = st.builds(
    Subject,
    st.sampled_from([SITE, "other"]),
    st.builds(Identity, st.sampled_from(sorted(ROLES)), st.sampled_from(Role)),
    st.sampled_from([ROOT, "leaf"]),
    st.sampled_from(["0" * 32, "1" * 32]),
    st.integers(-1, 4),
).map(str)


@given(st.lists(st.tuples(HEADS | st.text(), st.binary(max_size=200)), max_size=20))
def test_any_messages_leave_the_bus_whole(messages: list[tuple[str, bytes]]) -> None:
    async def run() -> None:
        bus = Bus("nats://x", SITE, Identity("root", Role.ROOT))
        channels: list[Channel] = []

        def accept(_: Identity) -> Channel:
            channels.append(
                Channel(lambda _: None, lambda _, message: None, lambda _, reason: None)
            )
            return channels[-1]

        bus.listen(accept)
        for subject, payload in messages:
            bus.take(subject, payload)
        for session in list(bus._sessions.values()):
            session.close()
        for channel in channels:
            await channel.closed
        assert not bus._of_peer

    asyncio.run(run())


@pytest.mark.parametrize("url", ["http://x", "tls://", "nats://x:port", "x", "tls://[x"])
def test_a_url_that_is_no_buss_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a bus is"):
        Bus(url, SITE, Identity("leaf", Role.LEAF), Credentials(tmp_path))


def test_tls_needs_a_certificate() -> None:
    with pytest.raises(UsageError, match="needs a certificate"):
        Bus("tls://bus.example", SITE, Identity("leaf", Role.LEAF))
