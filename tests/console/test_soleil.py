"""The tree by HTTP alone: a real uvicorn, nodes that know no other way, and posts by hand."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from tests.tree.realm import Node, Realm, realm
from tests.waiting import until

from anabranch.app.serving import listen, serve
from anabranch.console import problems, soleil
from anabranch.core.errors import UnavailableError, UsageError
from anabranch.tree.certificates import stranger_context
from anabranch.tree.events import Attached, Deliver, Introduced, Left, Target
from anabranch.tree.joining import join
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity
from anabranch.tree.soleil.messages import Endpoint, ReqFullStats, Stats
from anabranch.tree.transport.channel import Channel
from anabranch.tree.transport.http import Portal
from anabranch.tree.transport.segments import MAX_SEGMENT, Segment
from anabranch.tree.transport.tunnels import Tunnels

NOWHERE = Endpoint("127.0.0.1", 1)


class Door:
    """The HTTP server of a site; ``lose`` answers are lost after they were made."""

    def __init__(
        self,
        at: Endpoint,
        port: int = 0,
        most: int = 1000,
        pair: tuple[Path, Path] | None = None,
    ) -> None:
        self.pair = pair
        self.tunnels = Tunnels(at, most=most)
        self.port = port
        self.posts = 0
        self.lose = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Door"]:
        app = FastAPI()
        problems.install(app)
        app.include_router(soleil.make_router(self.tunnels))

        @app.middleware("http")
        async def lossy(request, handle):
            self.posts += 1
            answer = await handle(request)
            if self.lose:
                self.lose -= 1
                return gateway_timeout()
            return answer

        with listen("127.0.0.1", self.port) as listener:
            self.port = listener.getsockname()[1]
            serving = asyncio.create_task(serve(app, listener, self.pair))
            try:
                yield self
            finally:
                await self.tunnels.close()
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)

    @property
    def url(self) -> str:
        scheme = "http" if self.pair is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}/soleil"


def gateway_timeout():
    return problems.problem(504, "a proxy on the way gave up")


class Outside:
    """A site with a root that is reached by HTTP only."""

    def __init__(self, behind: Realm, root: Node, door: Door) -> None:
        self.realm = behind
        self.root = root
        self.door = door
        self.portals: list[Portal] = []

    def portal(self) -> Portal:
        self.portals.append(Portal(self.door.url))
        return self.portals[-1]

    async def branch(self, name: str = "leaf", role: Role = Role.LEAF) -> Node:
        self.realm.root_at = NOWHERE
        return await self.realm.branch(name, role, ways=[self.portal()])


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Outside]:
    async with realm(tmp_path) as behind:
        root = await behind.root()
        async with Door(behind.root_at).open() as door:
            made = Outside(behind, root, door)
            yield made
            for node in reversed(behind.running.copy()):
                await behind.end(node)
            for portal in made.portals:
                await portal.close()


async def test_a_node_joins_with_a_token_is_commanded_reports_and_leaves(site: Outside) -> None:
    token = site.realm.admission.issue("leaf", Role.LEAF)
    credentials = site.realm.credentials("leaf")
    await join((NOWHERE,), token, credentials, [site.portal()])
    thief = site.realm.credentials("thief")
    with pytest.raises(UsageError, match="used already"):
        await join((NOWHERE,), token, thief, [site.portal()])
    leaf = await site.realm.branch("leaf", Role.LEAF, credentials=credentials, ways=[site.portal()])
    await until(lambda: leaf.parent == "root")
    site.root.node.send(ReqFullStats("p"), "leaf")
    leaf.node.send(Stats())
    await until(lambda: len(leaf.told(Deliver)) == 1 and len(site.root.told(Deliver)) == 1)
    await site.realm.end(leaf)
    await until(lambda: site.root.told(Left) == [Left("leaf", "stopped")])
    await until(lambda: not site.door.tunnels._sessions)


async def test_children_of_a_relay_that_has_only_http_are_told_to_the_root(site: Outside) -> None:
    relay = await site.branch("relay", Role.RELAY)
    await until(lambda: relay.parent == "root")
    site.realm.root_at = Endpoint("127.0.0.1", site.root.port)
    leaf = await site.realm.branch("leaf", Role.LEAF)
    await until(lambda: len(site.root.told(Introduced)) == 2)
    site.root.node.redirect("leaf", "relay", "a test")
    registry = site.root.node.member.registry
    await until(lambda: registry.nodes["leaf"].parent == "relay" and leaf.parent == "relay")


async def test_a_node_that_is_sent_to_a_relay_it_cannot_reach_stays_at_the_root(
    site: Outside,
) -> None:
    await site.branch("relay", Role.RELAY)
    leaf = await site.branch()
    await until(lambda: len(site.root.told(Introduced)) == 2)
    site.root.node.member.registry.nodes["relay"].hello = None  # no address at all
    site.root.node.redirect("leaf", "relay", "a test")
    registry = site.root.node.member.registry
    await until(lambda: "leaf" not in site.root.node.member._orders)
    assert (leaf.parent, registry.nodes["leaf"].parent) == ("root", "root")


async def test_lost_answers_are_asked_for_again_and_nothing_comes_twice(site: Outside) -> None:
    leaf = await site.branch()
    await until(lambda: leaf.parent == "root" and len(site.root.told(Introduced)) == 1)
    for number in range(20):
        site.door.lose += number % 2
        leaf.node.send(Stats())
        site.root.node.send(ReqFullStats(str(number)), "leaf")
    await until(lambda: len(site.root.told(Deliver)) == 20 and len(leaf.told(Deliver)) == 20)
    wanted = [event.message.body.pipeline for event in leaf.told(Deliver)]
    assert wanted == [str(number) for number in range(20)]
    await until(lambda: not site.door.lose)
    assert site.root.told(Left) == []


async def test_after_a_restart_of_the_server_the_node_is_back(tmp_path: Path) -> None:
    async with realm(tmp_path) as behind:
        root = await behind.root()
        at, behind.root_at = behind.root_at, NOWHERE
        async with Door(at).open() as door:
            portal = Portal(door.url)
            leaf = await behind.branch("leaf", Role.LEAF, ways=[portal])
            await until(lambda: leaf.parent == "root")
        async with Door(at, door.port).open():
            await until(lambda: len(leaf.told(Attached)) == 2)
            await until(lambda: root.node.member.registry.is_present("leaf"))
            await behind.end(leaf)
            await portal.close()


async def test_a_post_that_comes_twice_counts_once(tmp_path: Path) -> None:
    """The tunnel leads to a plain listener here, which shows what arrives."""
    arrived = bytearray()

    async def listener(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            arrived.extend(data)
            writer.write(data.upper())
        writer.close()

    server = await asyncio.start_server(listener, "127.0.0.1", 0)
    at = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
    async with server, Door(at).open() as door, httpx.AsyncClient() as client:
        name = secrets.token_hex(16)

        async def post(segment: Segment, wait: str = "0", session: str = name) -> httpx.Response:
            headers = {**segment.headers(), "soleil-session": session, "soleil-wait": wait}
            return await client.post(door.url, content=segment.data, headers=headers)

        for segment in (Segment(0, 0, b"one"), Segment(0, 0, b"one"), Segment(0, 0, b"one two")):
            answer = await post(segment)
            assert answer.status_code == 200
        assert answer.headers["soleil-acknowledgment"] == "7"
        await until(lambda: bytes(arrived) == b"one two")
        heard = b""
        while heard != b"ONE TWO":  # and as long as it is not acknowledged, it comes again
            heard = (await post(Segment(7, 0), "25")).content
        before = door.posts
        first = asyncio.create_task(post(Segment(7, 7), "25"))
        await until(lambda: door.posts > before)
        second = asyncio.create_task(post(Segment(7, 7), "25"))
        assert (await first).content == b""  # it gave way to the second
        await post(Segment(7, 7, b"!"))
        assert (await second).content == b"!"
        for segment in (Segment(20, 7, b"gap"), Segment(8, 99, b"ack")):
            assert (await post(segment)).status_code == 422
        assert (await post(Segment(0, 0, b"x"), "nan")).status_code == 422
        assert (await post(Segment(0, 0, b"x"), session="../x")).status_code == 422
        large = await post(Segment(8, 8, b"x" * (MAX_SEGMENT + 1)))
        assert large.status_code == 422
        other = secrets.token_hex(16)
        for segment in (Segment(0, 0), Segment(5, 0, b"x")):
            assert (await post(segment, session=other)).status_code == 404
        assert (await post(Segment(8, 8, end=True))).status_code == 200
        assert (await post(Segment(8, 8), "25")).status_code == 404
        assert bytes(arrived) == b"one two!"


async def test_there_are_so_many_tunnels_and_one_that_leads_nowhere_is_none(site: Outside) -> None:
    portal = Portal("http://127.0.0.1:1/soleil")
    token = site.realm.admission.issue("a", Role.LEAF)
    with pytest.raises(UnavailableError):
        await join((), token, site.realm.credentials("a"), [portal])
    for door in (Door(NOWHERE), Door(site.realm.root_at, most=0)):
        async with door.open(), httpx.AsyncClient() as client:
            headers = {**Segment(0, 0).headers(), "soleil-session": "0" * 32}
            answer = await client.post(door.url, content=b"x", headers=headers)
            assert answer.status_code in (429, 503)
            assert not door.tunnels._sessions


async def test_only_the_root_is_reached_by_http() -> None:
    with pytest.raises(UnavailableError, match="the root only"):
        await Portal("http://127.0.0.1:1").connect(Target("relay", ()), pytest.fail, None)


async def test_a_node_is_who_its_certificate_says(site: Outside) -> None:
    leaf = site.realm.certify("leaf", Role.LEAF)
    site.realm.root_at = NOWHERE
    site.realm.admission.adopt("other", Role.LEAF)
    other = await site.realm.branch("other", Role.LEAF, credentials=leaf, ways=[site.portal()])
    await until(lambda: other.node.member._attempts > 1)
    assert site.root.events == []


async def test_https_through_a_proxy(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        asked.append(request.split(b"\r\n")[0])
        host, port = asked[-1].split()[1].decode().split(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    async with realm(tmp_path) as behind:
        root = await behind.root()
        own = behind.credentials("root")
        async with (
            Door(behind.root_at, pair=(own.chain, own.key)).open() as door,
            await asyncio.start_server(proxy, "127.0.0.1", 0) as server,
        ):
            behind.root_at = NOWHERE
            at = server.sockets[0].getsockname()[1]
            portal = Portal(door.url, verify=False, proxy=f"http://127.0.0.1:{at}")
            leaf = await behind.branch("leaf", Role.LEAF, ways=[portal])
            await until(lambda: leaf.parent == "root" and len(root.told(Introduced)) == 1)
            await behind.end(leaf)
            await portal.close()
            assert set(asked) == {f"CONNECT 127.0.0.1:{door.port} HTTP/1.1".encode()}
            strict = Portal(door.url)  # no public authority has signed for the pages
            token, fresh = behind.admission.issue("a", Role.LEAF), behind.credentials("a")
            with pytest.raises(UnavailableError):
                await join((), token, fresh, [strict])


async def test_a_connection_that_is_given_up_at_once_leaves_nothing(site: Outside) -> None:
    def refuse(_: Identity | None) -> Channel:
        raise UsageError("not now")

    with pytest.raises(UsageError):
        await site.portal().connect(Target(None, ()), refuse, stranger_context())
    assert not site.door.tunnels._sessions


async def test_what_a_stranger_posts_holds_no_place_for_long(tmp_path: Path) -> None:
    async with realm(tmp_path) as behind:
        quick = {"greeting": 0.3, "silence": 0.1, "lost_after": 0.4}
        root = await behind.root(timing=quick)
        async with Door(behind.root_at).open() as door, httpx.AsyncClient() as client:
            headers = {**Segment(0, 0).headers(), "soleil-session": "0" * 32}
            forged = b"<message type='kill' time='1'/>"
            await client.post(door.url, content=forged, headers=headers)
            headers |= {**Segment(len(forged), 0).headers(), "soleil-wait": "25"}
            while "soleil-end" not in (await client.post(door.url, headers=headers)).headers:
                pass
        assert root.events == []
