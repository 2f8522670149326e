"""Callbacks, delivered over real connections to receivers that behave in every way."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook
from structlog.testing import capture_logs
from tests.waiting import until

from anabranch.core.errors import ConflictError, NotFoundError, TooManyError, UnavailableError
from anabranch.core.events import Event, EventData
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.notices import Encoding
from anabranch.fabric.notify import (
    MAX_SUBSCRIPTIONS,
    MemorySubscriptions,
    Notifier,
    Patience,
    StoredSubscriptions,
    Subscription,
    check_secret,
    check_url,
    new_secret,
    signed,
)
from anabranch.store.database import Database

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


class Receiver:
    """An HTTP server that keeps what it gets; gives ``answers`` one by one, then ``usual``."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[bytes] = []
        self.usual = OK
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def got(self, count: int) -> None:
        await until(lambda: len(self.requests) >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append((first, headers, body))
                answer = self.answers.pop(0) if self.answers else self.usual
                if not answer:
                    continue  # hang
                writer.write(answer)
                await writer.drain()
        writer.close()


class Naps:
    """Pauses that are noted, not waited for."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def notifier(**options: object) -> AsyncIterator[tuple[Notifier, list[Event], Naps]]:
    events: list[Event] = []
    naps = Naps()
    options.setdefault("sleep", naps)
    made = Notifier(events.append, dpids=lambda: {"relay": 10}, **options)  # type: ignore[arg-type]
    await made.open()
    try:
        yield made, events, naps
    finally:
        await made.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def other() -> AsyncIterator[Receiver]:
    made = Receiver()
    await made.start()
    yield made
    await made.stop()


def vm(number: int = 6) -> Event:
    data: EventData = {
        "switch": "00:00:00:00:00:00:00:0a",
        "vnet": f"vnet0/{number}",
        "port_no": number,
    }
    return Event("vm.added", "relay", data)


async def test_an_event_is_posted_and_signed(receiver: Receiver) -> None:
    async with notifier() as (telling, _, _):
        made = await telling.subscribe(receiver.url)
        telling.publish(vm())
        await receiver.got(1)
        first, headers, body = receiver.requests[0]
        assert first == "POST /events HTTP/1.1"
        assert headers["content-type"] == "application/json"
        record = Webhook(made.secret).verify(body, headers)
        assert (record["type"], record["op"], record["kind"]) == ("VM", "ADD", "vm.added")
        await until(lambda: telling.subscription(made.id).delivered == 1)


async def test_the_form_of_the_seed_is_signed_too(receiver: Receiver) -> None:
    async with notifier() as (telling, _, _):
        made = await telling.subscribe(receiver.url, encoding=Encoding.FORM)
        telling.publish(Event("port.down", "relay", {"port_no": 1}))  # not of the seed's
        telling.publish(vm())
        await receiver.got(1)
        _, headers, body = receiver.requests[0]
        assert headers["content-type"] == "application/x-www-form-urlencoded"
        assert body.startswith(b'data={"type":"VM","switch":"00:00:00:00:00:00:00:0a"')
        Webhook(made.secret).verify(body, headers, json_parse=False)


async def test_only_what_was_asked_for_is_sent(receiver: Receiver) -> None:
    async with notifier() as (telling, _, _):
        made = await telling.subscribe(receiver.url, kinds=frozenset({"vm.added", "link.*"}))
        for kind in ("vm.added", "vm.removed", "link.up", "linked.up", "switch.lost"):
            telling.publish(Event(kind, "relay"))
        await receiver.got(2)
        changed = await telling.change(
            made.id, encoding=Encoding.JSON, kinds=frozenset({"switch.*"})
        )
        assert changed.subscription.secret == made.secret
        telling.publish(vm())
        telling.publish(Event("switch.lost", "relay"))
        await receiver.got(3)
        kinds = [Webhook(made.secret).verify(b, h)["kind"] for _, h, b in receiver.requests]
        assert kinds == ["vm.added", "link.up", "switch.lost"]


async def test_one_connection_serves_many_events_in_order(receiver: Receiver) -> None:
    async with notifier() as (telling, _, _):
        await telling.subscribe(receiver.url, encoding=Encoding.FORM)
        for number in range(20):
            telling.publish(vm(number))
        await receiver.got(20)
    assert [f'vnet0/{n}"'.encode() in body for n, (_, _, body) in enumerate(receiver.requests)] == [
        True
    ] * 20
    assert receiver.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 There\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_a_refused_request_is_tried_again_with_growing_pauses(
    receiver: Receiver, answer: bytes
) -> None:
    receiver.answers = [answer] * 4
    async with notifier(patience=Patience(jitter=0.5)) as (telling, events, naps):
        made = await telling.subscribe(receiver.url)
        telling.publish(vm())
        await until(lambda: telling.subscription(made.id).delivered == 1)
        ids = {headers["webhook-id"] for _, headers, _ in receiver.requests}
        assert (len(receiver.requests), len(ids)) == (5, 1)  # the same message, told five times
        for pause, least in zip(naps.taken, (1, 2, 4, 8), strict=True):
            assert least <= pause <= least + 0.5
        assert events == []


async def test_it_gives_up_says_so_once_and_recovers(receiver: Receiver) -> None:
    receiver.usual = b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n"
    patience = Patience(attempts=3, max_delay=60)
    async with notifier(patience=patience) as (telling, events, naps):
        made = await telling.subscribe(receiver.url)
        for number in range(4):
            telling.publish(vm(number))
        # Three attempts for the first; failing, one each for the others.
        await receiver.got(6)
        await until(lambda: telling.subscription(made.id).dropped == 4)
        assert telling.subscription(made.id).failing
        assert telling.subscription(made.id).last_error == "answered 503"
        assert naps.taken.count(60) == 4
        assert [(e.kind, e.subject) for e in events] == [("callback.failing", made.id)]
        receiver.usual = OK
        telling.publish(vm())
        await until(lambda: not telling.subscription(made.id).failing)
        assert [e.kind for e in events] == ["callback.failing", "callback.recovered"]


async def test_gone_means_gone(receiver: Receiver) -> None:
    receiver.answers = [b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"]
    async with notifier() as (telling, events, naps):
        await telling.subscribe(receiver.url)
        telling.publish(vm())
        await until(lambda: bool(events))
        assert len(receiver.requests) == 1
        assert naps.taken == [300.0]


async def test_nobody_waits_for_one_that_hangs(receiver: Receiver, other: Receiver) -> None:
    receiver.usual = b""
    async with notifier(patience=Patience(queue=5)) as (telling, _, _):
        dead = await telling.subscribe("http://127.0.0.1:9/nobody")
        slow = await telling.subscribe(receiver.url)
        await telling.subscribe(other.url, encoding=Encoding.FORM)
        telling.publish(vm(0))
        await receiver.got(1)
        for number in range(1, 31):
            telling.publish(vm(number))
            await other.got(number + 1)
        state = telling.subscription(slow.id)
        assert (state.waiting, state.dropped, state.delivered) == (5, 25, 0)
        assert telling.subscription(dead.id).last_error == "ConnectError"


async def test_a_request_that_hangs_ends_and_is_tried_again(receiver: Receiver) -> None:
    receiver.answers = [b""]
    async with notifier(patience=Patience(timeout=0.05)) as (telling, _, _):
        made = await telling.subscribe(receiver.url)
        telling.publish(vm())
        await until(lambda: telling.subscription(made.id).delivered == 1)
        assert len(receiver.requests) == 2


async def test_an_endless_answer_is_not_read(receiver: Receiver) -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 10_000
    receiver.answers = [endless, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nslow"]
    async with notifier(patience=Patience(timeout=0.2)) as (telling, _, _):
        made = await telling.subscribe(receiver.url)
        telling.publish(vm(1))
        telling.publish(vm(2))  # its answer never ends, but its status is there
        await until(lambda: telling.subscription(made.id).delivered == 2)
        assert len(receiver.requests) == 2


async def test_cookies_are_not_kept(receiver: Receiver) -> None:
    receiver.answers = [b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"]
    async with notifier() as (telling, _, _):
        await telling.subscribe(receiver.url)
        telling.publish(vm())
        telling.publish(vm())
        await receiver.got(2)
    assert "cookie" not in receiver.requests[1][1]


async def test_after_unsubscribing_nothing_is_sent(receiver: Receiver, other: Receiver) -> None:
    async with notifier() as (telling, _, _):
        made = await telling.subscribe(receiver.url)
        await telling.subscribe(other.url)
        await telling.unsubscribe(made.id)
        telling.publish(vm())
        await other.got(1)
        assert receiver.requests == []
        with pytest.raises(NotFoundError):
            await telling.unsubscribe(made.id)
        assert [s.subscription.url for s in telling.subscriptions()] == [other.url]


async def test_an_event_about_a_callback_is_not_told_to_itself(receiver: Receiver) -> None:
    async with notifier() as (telling, _, _):
        made = await telling.subscribe(receiver.url)
        telling.publish(Event("callback.failing", made.id))
        telling.publish(Event("callback.failing", "another"))
        await receiver.got(1)
        assert b"another" in receiver.requests[0][2]


async def test_the_same_url_and_too_many_are_refused() -> None:
    store = MemorySubscriptions()
    async with notifier(store=store) as (telling, _, _):
        for number in range(MAX_SUBSCRIPTIONS):
            await telling.subscribe(f"http://127.0.0.1:9/{number}")
        with pytest.raises(ConflictError):
            await telling.subscribe("http://127.0.0.1:9/0")
        with pytest.raises(TooManyError):
            await telling.subscribe("http://127.0.0.1:9/more")
        assert len(await store.load()) == MAX_SUBSCRIPTIONS


async def test_nothing_is_taken_before_it_is_open() -> None:
    with pytest.raises(UnavailableError):
        await Notifier(lambda _: None).subscribe("http://127.0.0.1:9/")


async def test_subscriptions_outlive_the_process(tmp_path: Path, receiver: Receiver) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/store.db")
    await database.open()
    try:
        async with notifier(store=StoredSubscriptions(database)) as (telling, _, _):
            made = await telling.subscribe(receiver.url, kinds=frozenset({"vm.*"}))
            brief = await telling.subscribe("http://127.0.0.1:9/")
            await telling.change(made.id, encoding=Encoding.FORM, kinds=made.kinds)
            await telling.unsubscribe(brief.id)
        async with notifier(store=StoredSubscriptions(database)) as (telling, _, _):
            (state,) = telling.subscriptions()
            assert state.subscription == Subscription(
                made.id, made.url, made.secret, Encoding.FORM, made.kinds, made.created
            )
            telling.publish(vm())
            await receiver.got(1)
            _, headers, body = receiver.requests[0]
            Webhook(made.secret).verify(body, headers, json_parse=False)
    finally:
        await database.close()


async def test_no_secret_is_logged_or_shown() -> None:
    patience = Patience(attempts=1)
    with capture_logs() as logs:
        async with notifier(patience=patience) as (telling, events, _):
            made = await telling.subscribe("http://127.0.0.1:9/?token=hidden")
            telling.publish(vm())
            await until(lambda: bool(events))
            shown = f"{logs}{events}{telling.subscription(made.id).last_error}"
    assert "callback.failing" in shown
    for hidden in ("hidden", made.secret, made.secret.removeprefix("whsec_")):
        assert hidden not in shown
    assert made.secret not in repr(made)


@pytest.mark.parametrize(
    "url",
    [
        *("", "events", "//host/", "ftp://host/", "file:///etc/passwd", "http:///path", "http://"),
        *("http://user@host/", "http://user:word@host/", "http://host/#part", "http://host:port/"),
        *("http://ho st/", "http://host/\n", "http://[::1/", "gopher://host/", "unix:///run/x"),
        "http://host/" + "x" * 2000,
    ],
)
async def test_what_is_no_address_for_callbacks(url: str) -> None:
    with pytest.raises(MisuseError):
        check_url(url)


@pytest.mark.parametrize(
    "url", ["http://localhost:8081/VPM/VPMEventListener", "https://[::1]/?a=b"]
)
def test_what_is_one(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "plain", "whsec_!!!!", "whsec_" + base64.b64encode(b"x" * 23).decode()]
)
def test_a_weak_or_malformed_secret_is_refused(secret: str) -> None:
    with pytest.raises(MisuseError):
        check_secret(secret)
    check_secret(new_secret())


def test_the_example_of_the_specification() -> None:
    """Of the reference libraries' tests: id, time, payload, secret and signature."""
    subscription = Subscription("x", "http://host/", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    headers = signed(subscription, "msg_p5jXN8AQM9LWM0D4loKWxJek", body, 1614265330.9)
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_signatures_are_of_now() -> None:
    subscription = Subscription("x", "http://host/", new_secret())
    headers = signed(subscription, "msg_1", b"{}", time.time())
    assert Webhook(subscription.secret).verify(b"{}", headers) == {}
