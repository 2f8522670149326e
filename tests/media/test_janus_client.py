"""The client against a Janus that says anything, late, or nothing at all."""

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.media import janus_client
from anabranch.media.janus_client import JanusClient, JanusError, Message
from anabranch.media.leaf import LeafUnavailableError

Reply = Callable[[Message], list[bytes] | None]
CREATED = {"janus": "success", "data": {"id": 42}}


def say(request: Message, *answers: Any) -> list[bytes]:
    return [json.dumps({**a, "transaction": request["transaction"]}).encode() for a in answers]


class FakeJanus:
    """Answers each request with what ``reply`` makes of it; None closes the connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[Message] = []
        self.reply: Reply = lambda request: say(request, CREATED)
        self.events: list[Message] = []
        self.lost = 0
        self.peer: socket.socket | None = None

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.setblocking(False)
            listener.bind(str(self.path))
            listener.listen()
            self.peer, _ = await loop.sock_accept(listener)
            with self.peer:
                while raw := await loop.sock_recv(self.peer, 65536):
                    self.requests.append(json.loads(raw))
                    answers = self.reply(self.requests[-1])
                    if answers is None:
                        return
                    for answer in answers:
                        await loop.sock_sendall(self.peer, answer)

    def _lose(self) -> None:
        self.lost += 1

    def client(self) -> JanusClient:
        return JanusClient(self.path, on_event=self.events.append, on_lost=self._lose)


@asynccontextmanager
async def fake() -> AsyncIterator[FakeJanus]:
    with tempfile.TemporaryDirectory(prefix="ab", dir="/tmp") as directory:
        made = FakeJanus(Path(directory) / "api.sock")
        serving = asyncio.create_task(made.serve())
        await asyncio.sleep(0)
        try:
            yield made
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


@asynccontextmanager
async def connected(janus: FakeJanus) -> AsyncIterator[JanusClient]:
    client = janus.client()
    try:
        await client.connect(session=True)
        yield client
    finally:
        await client.close()


async def test_a_request_is_answered_after_its_ack_in_its_session() -> None:
    async with fake() as janus, connected(janus) as client:
        janus.reply = lambda r: say(
            r, {"janus": "ack"}, {"janus": "event", "plugindata": {"data": {"streaming": "ok"}}}
        )
        answer = await client.plugin(7, {"request": "list"}, {"type": "answer", "sdp": "v=0"})
        assert answer["plugindata"]["data"] == {"streaming": "ok"}
        sent = janus.requests[-1]
        assert (sent["session_id"], sent["handle_id"], sent["jsep"]["sdp"]) == (42, 7, "v=0")
        assert janus.requests[0]["janus"] == "create"


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ({"janus": "error", "error": {"code": 458, "reason": "No session"}}, 458, "No session"),
        ({"janus": "error", "error": "no"}, 0, "unknown error"),
        ({"janus": "error"}, 0, "unknown error"),
        ({"janus": "event", "plugindata": {"data": {"error_code": 4, "error": "off"}}}, 4, "off"),
        ({"janus": "event", "plugindata": {"data": {"error_code": 1}}}, 1, "unknown error"),
    ],
)  # fmt: skip
async def test_a_refusal_has_its_code_and_words(answer: Message, code: int, words: str) -> None:
    async with fake() as janus, connected(janus) as client:
        janus.reply = lambda r: say(r, answer)
        with pytest.raises(JanusError, match=words) as raised:
            await client.plugin(7, {})
        assert raised.value.code == code


GARBAGE = [
    *(b"x", b"\xff\xfe\0", b"[]", b"3", b"null", b'"event"', b'{"janus": []}', b"{" * 5000),
    *(b"[" * 60_000, b'{"transaction": ["1"]}', b'{"transaction": {}, "janus": 7}'),
]


async def test_garbage_before_the_answer_is_passed_over() -> None:
    async with fake() as janus, connected(janus) as client:
        janus.reply = lambda r: [*GARBAGE, *say(r, {"janus": "success", "data": {"n": 1}})]
        assert (await client.request(janus="info"))["data"] == {"n": 1}
        assert janus.lost == 0


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.binary(max_size=5))
@settings(max_examples=25, deadline=None)
def test_any_bytes_leave_the_client_working(noise: list[bytes], tail: bytes) -> None:
    async def play() -> None:
        async with fake() as janus, connected(janus) as client:
            janus.reply = lambda r: [*noise, b"{" + tail, *say(r, {"janus": "success"})]
            assert (await client.request(janus="info"))["janus"] == "success"

    asyncio.run(play())


@pytest.mark.parametrize("data", [{}, {"data": 3}, {"data": {"id": None}}, {"data": []}])
async def test_a_session_without_a_number_is_no_session(data: Message) -> None:
    async with fake() as janus:
        janus.reply = lambda r: say(r, {"janus": "success", **data})
        with pytest.raises(LeafUnavailableError, match="no number"):
            async with connected(janus):
                pass


async def test_what_comes_late_is_nobodys_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake() as janus, connected(janus) as client:
        monkeypatch.setattr(janus_client, "_TIMEOUT", 0.1)
        janus.reply = lambda _r: []
        with pytest.raises(LeafUnavailableError, match="in time"):
            await client.request(janus="slow")
        late = janus.requests[-1]
        janus.reply = lambda r: say(late, {"janus": "late"}) + say(r, {"janus": "success"})
        assert (await client.request(janus="info"))["janus"] == "success"


async def test_what_janus_says_unasked_is_an_event() -> None:
    async with fake() as janus, connected(janus) as client:
        event = {"janus": "webrtcup", "sender": 7}
        janus.reply = lambda r: [json.dumps(event).encode(), *say(r, {"janus": "success"})]
        await client.request(janus="info")
        assert janus.events == [event]


async def test_a_janus_that_goes_is_told_once_and_answers_nobody() -> None:
    async with fake() as janus, connected(janus) as client:
        janus.reply = lambda _r: None if len(janus.requests) == 4 else []
        waiting = [asyncio.ensure_future(client.request(janus="info")) for _ in range(3)]
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, LeafUnavailableError)
        await asyncio.sleep(0)
        assert janus.lost == 1
        assert client.session is None
        with pytest.raises(LeafUnavailableError, match="not connected"):
            await client.request(janus="info")


async def test_closing_frees_who_waits_and_tells_nobody() -> None:
    async with fake() as janus, connected(janus) as client:
        janus.reply = lambda _r: []
        waiting = asyncio.ensure_future(client.request(janus="info"))
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(LeafUnavailableError):
            await waiting
        assert janus.lost == 0


async def test_a_janus_that_is_not_there_does_not_answer(tmp_path: Path) -> None:
    client = FakeJanus(tmp_path / "none.sock").client()
    with pytest.raises(LeafUnavailableError, match="does not answer"):
        await client.connect(session=True)
    await client.close()
