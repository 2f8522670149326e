"""What a node asks of web servers, against a real one on loopback."""

import asyncio
import hashlib
import http.server
import threading
import xmlrpc.client
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar

import pytest

from anabranch.services.controller import routability
from anabranch.services.controller.controller import NoArchiveError, NotProvedError
from anabranch.services.keys import PrivateKey
from anabranch.services.node import web as web_module
from anabranch.services.node.sending import proving
from anabranch.services.node.web import Web
from anabranch.services.signalling import request as requests
from anabranch.services.signalling.compose import Author, compose, setup_headers
from anabranch.services.signalling.message import Method

ARCHIVE = bytes(range(256)) * 40
DIGEST = hashlib.sha256(ARCHIVE).digest()
LOOPBACK = ip_address("127.0.0.1")


class Handler(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []
    bodies: ClassVar[list[bytes]] = []

    def do_GET(self) -> None:
        self.asked.append(f"{self.headers['Host']}{self.path}")
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/archive")
            self.end_headers()
            return
        if self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()
            threading.Event().wait(2.0)
            return
        self.send_response(200 if self.path == "/archive" else 404)
        self.end_headers()
        self.wfile.write(ARCHIVE)

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    Handler.asked.clear()
    Handler.bodies.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    async with Web(tmp_path / "cache", may_ask=lambda address: True) as made:
        yield made


async def test_an_archive_is_fetched_once_whoever_has_it(web: Web, port: int) -> None:
    path = await web.get(f"http://localhost:{port}/archive", DIGEST)
    assert path.read_bytes() == ARCHIVE
    assert await web.get("http://gone.invalid/", DIGEST) == path
    assert Handler.asked == [f"localhost:{port}/archive"]
    assert [file.name for file in path.parent.iterdir()] == [DIGEST.hex()]


@pytest.mark.parametrize(
    ("path", "complaint"),
    [("/absent", "404"), ("/elsewhere", "302"), ("/slow", "within")],
)
async def test_what_cannot_be_had(
    web: Web, port: int, path: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_module, "_FETCH_TIMEOUT", 0.4)
    with pytest.raises(NoArchiveError, match=complaint):
        await web.get(f"http://127.0.0.1:{port}{path}", DIGEST)


async def test_another_archive_or_one_that_is_too_large(
    web: Web, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoArchiveError, match="not the archive of that digest"):
        await web.get(f"http://127.0.0.1:{port}/archive", bytes(32))
    monkeypatch.setattr(web_module, "MAX_ARCHIVE", 1000)
    with pytest.raises(NoArchiveError, match="more than 1000 bytes"):
        await web.get(f"http://127.0.0.1:{port}/archive", DIGEST)
    with pytest.raises(NoArchiveError, match=r"gone\.invalid"):
        await web.get("http://gone.invalid/", DIGEST)
    with pytest.raises(NoArchiveError):
        await web.get("http://127.0.0.1:1/", DIGEST)
    assert list((tmp_path / "cache").iterdir()) == []


async def test_the_cache_lets_the_oldest_go(
    web: Web, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache" / "old").write_bytes(bytes(100))
    monkeypatch.setattr(web_module, "MAX_CACHE", len(ARCHIVE) + 50)
    path = await web.get(f"http://127.0.0.1:{port}/archive", DIGEST)
    assert list(path.parent.iterdir()) == [path]


async def test_nothing_is_asked_of_this_machine_or_its_link(tmp_path: Path, port: int) -> None:
    async with Web(tmp_path) as web:
        for host in ("127.0.0.1", "localhost", "169.254.169.254", "[::1]", "0.0.0.0"):
            with pytest.raises(NoArchiveError, match="of this machine or its link"):
                await web.get(f"http://{host}:{port}/archive", DIGEST)
        with pytest.raises(NotProvedError, match="of this machine"):
            await web.prove(LOOPBACK, "password", b"signature", "node")
    assert Handler.asked == []


async def test_routability_is_proved_for_one_message_and_one_node(tmp_path: Path) -> None:
    key = PrivateKey.generate()
    headers = setup_headers("http://x/", bytes(32), 1, password="a one-time password")
    data = compose(Author("jane", key), Method.SETUP, "M", headers, wall_time=1, nonce=bytes(12))
    request = requests.parse(data)
    port = 18027
    async with (
        Web(tmp_path, routability_port=port, may_ask=lambda address: True) as web,
        proving([request], "127.0.0.1", port),
    ):
        await web.prove(LOOPBACK, "a one-time password", request.signature, "node")
        for password, signature in [
            ("another password", request.signature),
            ("a one-time password", b"another signature"),
        ]:
            with pytest.raises(NotProvedError, match="no proof"):
                await web.prove(LOOPBACK, password, signature, "node")
        for nonsense in (b"GET\r\n\r\n", b"\xff\xfe //[ x\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(nonsense)
            assert (await reader.readline()).startswith(b"HTTP/1.1 404")
            writer.close()
    with pytest.raises(NotProvedError):
        async with Web(tmp_path, routability_port=port, may_ask=lambda address: True) as web:
            await web.prove(LOOPBACK, "a one-time password", request.signature, "node")


def test_a_proof_for_one_node_is_none_for_another() -> None:
    given = routability.proof("password", b"signature", "a")
    assert routability.genuine(given + "\n", "password", b"signature", "a")
    assert not routability.genuine(given, "password", b"signature", "b")
    assert not routability.genuine("né", "password", b"signature", "a")
    assert routability.answer({"message": "?"}, {}) is None


async def test_notification_is_an_xml_rpc_call(web: Web, port: int) -> None:
    web.notify(f"http://127.0.0.1:{port}/rpc", {"event": "installed", "user": "<jane>"})
    web.notify("http://127.0.0.1:1/rpc", {"event": "nobody listens"})
    while not Handler.bodies:
        await asyncio.sleep(0.01)
    (values,), method = xmlrpc.client.loads(Handler.bodies[0])
    assert method == "netserv.notify"
    assert values == {"event": "installed", "user": "<jane>"}
