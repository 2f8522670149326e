"""The client against a server that says anything, late, or nothing at all."""

import asyncio
import json
import tempfile
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.media.control_server import HELLO, ControlServer, Message, refusal

from anabranch.media import leaf_client
from anabranch.media.leaf import LeafUnavailableError
from anabranch.media.leaf_client import LeafClient
from anabranch.media.leaf_protocol import (
    LeafEvent,
    LeafProtocolError,
    RefusedError,
    Reply,
    read_key_frame,
    read_line,
    write_request,
)


class Both:
    def __init__(self, path: Path) -> None:
        self.server = ControlServer(path)
        self.events: list[Message] = []
        self.lost: list[bool] = []
        self.client = LeafClient(
            path, on_event=lambda event: self.events.append(event.fields), on_lost=self.lost.append
        )


@asynccontextmanager
async def both() -> AsyncIterator[Both]:
    with tempfile.TemporaryDirectory(prefix="ab", dir="/tmp") as directory:
        made = Both(Path(directory) / "control.sock")
        await made.server.start()
        try:
            yield made
        finally:
            await made.client.close()
            await made.server.stop()


async def test_it_is_greeted_and_asks() -> None:
    async with both() as it:
        hello = await it.client.connect()
        assert (hello.pid, hello.fingerprint, hello.threads) == (4711, "sha-256 AB:CD", 1)
        assert await it.client.request("state") == {"streams": [], "viewers": []}
        assert it.server.requests == [{"do": "state", "id": 1}]


async def test_requests_arrive_in_the_order_in_which_they_are_made() -> None:
    async with both() as it:
        await it.client.connect()
        it.server.answers["one"] = lambda _: {"ok": {"n": 1}}
        it.server.answers["two"] = lambda _: {"ok": {"n": 2}}
        first, second = it.client.request("one", a=[1]), it.client.request("two")
        assert await second == {"n": 2}  # whoever waits first
        assert await first == {"n": 1}
        assert [each["do"] for each in it.server.requests] == ["one", "two"]


async def test_a_refusal_has_its_code_and_words() -> None:
    async with both() as it:
        await it.client.connect()
        it.server.answers["viewer.add"] = lambda _: refusal("busy")
        with pytest.raises(RefusedError, match="it is busy") as raised:
            await it.client.request("viewer.add")
        assert raised.value.code == "busy"


async def test_an_answer_is_had_before_what_is_said_after_it() -> None:
    """What has happened since must not be taken for what was before."""
    async with both() as it:
        await it.client.connect()
        order: list[str] = []
        it.client._on_event = lambda event: order.append(event.kind)

        def answer(request: Message) -> None:
            it.server.say({"id": request["id"], "ok": {}}, {"event": "viewer.stream"})

        it.server.answers["viewer.change"] = answer
        await it.client.request("viewer.change")
        order.append("answer")
        await asyncio.sleep(0.05)
        assert order == ["answer", "viewer.stream"]


GARBAGE = [
    *(b"x", b"\xff\xfe\0", b"[]", b"3", b"null", b'"event"', b"{}", b'{"event": 7}', b'{"ok": {}}'),
    *(b'{"id": 1}', b'{"id": true, "ok": {}}', b'{"id": "1", "ok": {}}', b'{"id": 1, "ok": 3}'),
    *(b'{"id": 1, "error": 3}', b"[" * 60_000, b'{"id": 999, "ok": {}}', b""),
]


async def test_garbage_is_passed_over_and_told_once() -> None:
    async with both() as it:
        await it.client.connect()
        with capture_logs() as logs:
            it.server.say(*GARBAGE)
            assert await it.client.request("state") == {"streams": [], "viewers": []}
        assert [each["event"] for each in logs] == ["leaf.nonsense"]
        assert it.lost == []


@given(st.lists(st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"")), max_size=5))
@settings(max_examples=25, deadline=None)
def test_any_bytes_leave_the_client_working(noise: list[bytes]) -> None:
    async def play() -> None:
        async with both() as it:
            await it.client.connect()
            it.server.say(*noise)
            assert await it.client.request("state") == {"streams": [], "viewers": []}

    asyncio.run(play())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "ok", "error", "event", "code", "detail"]), inner, max_size=4
        )
    ),
)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(
    st.fixed_dictionaries(
        {"annex_b": VALUES | st.binary().map(lambda raw: b64encode(raw).decode()), "age_ms": VALUES}
    )
)
def test_what_is_said_of_a_key_frame_is_understood_or_refused(reply: Message) -> None:
    try:
        found = read_key_frame(reply)
    except LeafProtocolError:
        return
    assert found is not None
    assert found.annex_b == b64decode(reply["annex_b"])
    assert found.age_s == reply["age_ms"] / 1000


@given(JSON)
def test_any_json_is_understood_or_refused(value: Any) -> None:
    try:
        message = read_line(json.dumps(value).encode())
    except LeafProtocolError:
        return
    assert isinstance(message, Reply | LeafEvent)


def test_a_request_is_a_line_that_is_not_too_long() -> None:
    assert write_request(7, "log", {"level": "a\nb"}) == b'{"do":"log","id":7,"level":"a\\nb"}\n'
    with pytest.raises(LeafProtocolError, match="bytes"):
        write_request(1, "x", {"y": "z" * 2**20})


@pytest.mark.parametrize(
    ("hello", "error"),
    [
        (b"hello", LeafProtocolError),
        ({"id": 1, "ok": {}}, LeafProtocolError),
        ({"event": "viewer.up"}, LeafProtocolError),
        ({**HELLO, "protocol": 2}, LeafProtocolError),
        ({**HELLO, "fingerprint": "a\nb"}, LeafProtocolError),
        ({**HELLO, "pid": None}, LeafProtocolError),
        (None, LeafUnavailableError),
    ],
)
async def test_who_does_not_greet_is_no_leaf_server(
    hello: Any, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaf_client, "_TIMEOUT_S", 0.2)
    async with both() as it:
        it.server.hello = hello
        with pytest.raises(error):
            await it.client.connect()
        with pytest.raises(LeafUnavailableError, match="not connected"):
            await it.client.request("state")


async def test_what_comes_late_is_nobodys_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both() as it:
        await it.client.connect()
        monkeypatch.setattr(leaf_client, "_TIMEOUT_S", 0.1)
        it.server.answers["slow"] = lambda _: None
        with pytest.raises(LeafUnavailableError, match="in time"):
            await it.client.request("slow")
        it.server.say({"id": 1, "ok": {"late": True}})
        assert await it.client.request("state") == {"streams": [], "viewers": []}


async def test_a_server_that_goes_is_told_once_and_answers_nobody() -> None:
    async with both() as it:
        await it.client.connect()
        it.server.answers["wait"] = lambda _: None
        waiting = [asyncio.create_task(it.client.request("wait")) for _ in range(3)]
        await asyncio.sleep(0.05)
        it.server.say({"event": "viewer.up", "viewer": "last"})
        it.server.cut()
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, LeafUnavailableError)
        await asyncio.sleep(0.05)
        assert it.lost == [False]
        assert [event["viewer"] for event in it.events] == ["last"]


async def test_a_server_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaf_client, "_LOOK_S", 0.05)
    monkeypatch.setattr(leaf_client, "_TIMEOUT_S", 0.2)
    async with both() as it:
        await it.client.connect()
        await asyncio.sleep(0.3)
        assert it.lost == []
        assert len(it.server.asked("statistics")) >= 3
        it.server.answers["statistics"] = lambda _: refusal("failed")
        await asyncio.sleep(0.2)
        assert it.lost == []  # a refusal is an answer
        it.server.answers["statistics"] = lambda _: None
        await asyncio.sleep(0.5)
        assert it.lost == [True]


async def test_closing_frees_who_waits_and_tells_nobody() -> None:
    async with both() as it:
        await it.client.connect()
        it.server.answers["wait"] = lambda _: None
        waiting = asyncio.create_task(it.client.request("wait"))
        await asyncio.sleep(0.05)
        it.server.say({"event": "viewer.up"})
        await it.client.close()
        with pytest.raises(LeafUnavailableError):
            await waiting
        await asyncio.sleep(0.05)
        assert it.lost == []
        assert it.events == []


async def test_a_server_that_is_not_there_does_not_answer(tmp_path: Path) -> None:
    client = Both(tmp_path / "none.sock").client
    with pytest.raises(LeafUnavailableError, match="does not answer"):
        await client.connect()
    await client.close()
