"""Callbacks: events of the fabric, posted to whoever asked (the seed's observer, section 6.4.2).

Every subscription has a queue and a task of its own, so that a receiver that is slow or gone delays
nobody else. Requests are signed as Standard Webhooks say, and tried again with growing pauses.
"""

import asyncio
import base64
import binascii
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Protocol
from urllib.parse import urlsplit

import httpx
import structlog
from sqlalchemy import delete, select
from standardwebhooks.webhooks import Webhook
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
)

import anabranch
from anabranch.core.errors import ConflictError, NotFoundError, TooManyError, UnavailableError
from anabranch.core.events import Event
from anabranch.core.names import new_id
from anabranch.core.tasks import end_task
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.notices import Encoding, body_of, kind_wanted
from anabranch.store.database import CallbackRow, Database

MAX_SUBSCRIPTIONS = 64
_MAX_URL = 2000
_ANSWER_LIMIT = 4096
_PREFIX = "whsec_"
_GONE = 410
_log = structlog.get_logger("anabranch.fabric")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a receiver is waited for; seconds.

    Attributes:
        timeout: for one request, from the name's resolution to the status line.
        queue: requests that wait for one receiver; beyond them the oldest is dropped.
        first_delay, max_delay: pauses double from the one to the other, plus up to ``jitter``.
        attempts, give_up_after: whichever is first ends the attempts for one request, and so does
            the answer 410. The subscription is then failing: each request is tried once,
            ``max_delay`` apart, until one arrives.
    """

    timeout: float = 5.0
    queue: int = 256
    first_delay: float = 1.0
    max_delay: float = 300.0
    jitter: float = 1.0
    attempts: int = 50
    give_up_after: float = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Subscription:
    """Somebody who wants to be told.

    Attributes:
        kinds: of events, such as ``vm.added`` or ``link.*``; none: all.
        secret: ``whsec_`` and base64 of 24 to 64 bytes.
    """

    id: str
    url: str
    secret: str = field(repr=False)
    encoding: Encoding = Encoding.JSON
    kinds: frozenset[str] = frozenset()
    created: float = 0.0

    def wants(self, event: Event) -> bool:
        """Say whether ``event`` is of a kind that was asked for, and not about this one itself."""
        if event.kind.startswith("callback.") and event.subject == self.id:
            return False
        return kind_wanted(event.kind, self.kinds)


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """A subscription and how it goes: requests delivered, dropped and waiting."""

    subscription: Subscription
    failing: bool
    delivered: int
    dropped: int
    waiting: int
    last_error: str | None


class SubscriptionStore(Protocol):
    """Where subscriptions outlive the process."""

    async def load(self) -> list[Subscription]: ...

    async def save(self, subscription: Subscription) -> None: ...

    async def remove(self, subscription_id: str) -> None: ...


class MemorySubscriptions:
    """Subscriptions that end with the process."""

    def __init__(self) -> None:
        self._kept: dict[str, Subscription] = {}

    async def load(self) -> list[Subscription]:
        return list(self._kept.values())

    async def save(self, subscription: Subscription) -> None:
        self._kept[subscription.id] = subscription

    async def remove(self, subscription_id: str) -> None:
        self._kept.pop(subscription_id, None)


class StoredSubscriptions:
    """Subscriptions in the site's store. All methods raise ``StoreError`` if it fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> list[Subscription]:
        async with self._database.transaction() as session:
            rows = await session.scalars(select(CallbackRow).order_by(CallbackRow.created))
            return [
                Subscription(
                    row.id,
                    row.url,
                    row.secret,
                    Encoding(row.encoding),
                    frozenset(row.kinds),
                    row.created,
                )
                for row in rows
            ]

    async def save(self, subscription: Subscription) -> None:
        async with self._database.transaction() as session:
            row = CallbackRow(
                id=subscription.id,
                url=subscription.url,
                secret=subscription.secret,
                encoding=subscription.encoding.value,
                kinds=sorted(subscription.kinds),
                created=subscription.created,
            )
            await session.merge(row)

    async def remove(self, subscription_id: str) -> None:
        async with self._database.transaction() as session:
            await session.execute(delete(CallbackRow).where(CallbackRow.id == subscription_id))


@dataclass(frozen=True, slots=True)
class _Notice:
    id: str
    body: bytes = field(repr=False)


class _UndeliveredError(Exception):
    """The receiver could not be reached or did not answer with 2xx; ``gone``: it said 410."""

    def __init__(self, reason: str, *, gone: bool = False) -> None:
        super().__init__(reason)
        self.gone = gone


@dataclass(slots=True)
class _Subscriber:
    subscription: Subscription
    queue: deque[_Notice] = field(default_factory=deque)
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    failing: bool = False
    delivered: int = 0
    dropped: int = 0
    last_error: str | None = None


class Notifier:
    """Posts events to subscribers.

    Args:
        on_event: gets ``callback.failing`` and ``callback.recovered`` about a subscription by id,
            once for each change; must not block.
        dpids: returns the datapath ids of the switches by name, for the seed's records.
        store: where subscriptions are kept.
        sleep: waits between attempts; a test's own.
    """

    def __init__(
        self,
        on_event: Callable[[Event], None],
        *,
        dpids: Callable[[], Mapping[str, int]] = dict,
        store: SubscriptionStore | None = None,
        patience: Patience | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._on_event = on_event
        self._dpids = dpids
        self._store = store if store is not None else MemorySubscriptions()
        self._patience = patience or Patience()
        self._sleep = sleep
        self._subscribers: dict[str, _Subscriber] = {}
        self._changing = asyncio.Lock()
        self._client: httpx.AsyncClient | None = None

    async def open(self) -> None:
        """Take up the subscriptions that are kept.

        Raises:
            StoreError: they cannot be read.
        """
        # The environment's proxies and .netrc are not meant for these; nor are cookies kept.
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            timeout=self._patience.timeout,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=MAX_SUBSCRIPTIONS),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"User-Agent": f"anabranch/{anabranch.__version__}"},
        )
        for subscription in await self._store.load():
            self._begin(subscription)

    async def close(self) -> None:
        """End all deliveries; what waits is not sent. Safe to call twice."""
        tasks = [s.task for s in self._subscribers.values() if s.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._subscribers.clear()
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def subscribe(
        self,
        url: str,
        *,
        encoding: Encoding = Encoding.JSON,
        kinds: frozenset[str] = frozenset(),
        secret: str | None = None,
    ) -> Subscription:
        """Post events to ``url`` from now on; without ``secret`` one is drawn.

        Raises:
            MisuseError: not an http or https URL that can be posted to, or a bad secret.
            ConflictError: the URL is told already.
            TooManyError: 64 subscriptions are there.
            UnavailableError: :meth:`open` was not called yet.
            StoreError: it cannot be kept.
        """
        check_url(url)
        secret = new_secret() if secret is None else secret
        check_secret(secret)
        async with self._changing:
            if self._client is None:
                raise UnavailableError("callbacks cannot be taken before the fabric runs")
            if any(s.subscription.url == url for s in self._subscribers.values()):
                raise ConflictError("this URL is told already; remove its callback first")
            if len(self._subscribers) >= MAX_SUBSCRIPTIONS:
                raise TooManyError(f"there are {MAX_SUBSCRIPTIONS} callbacks; remove one first")
            made = Subscription(new_id(), url, secret, encoding, kinds, time.time())
            await self._store.save(made)
            self._begin(made)
        return made

    async def change(
        self, subscription_id: str, *, encoding: Encoding, kinds: frozenset[str]
    ) -> SubscriptionState:
        """Change what a subscription is told; what waits goes out as it is.

        Raises:
            NotFoundError: there is none with this id.
            StoreError: it cannot be kept.
        """
        async with self._changing:
            subscriber = self._subscriber(subscription_id)
            changed = replace(subscriber.subscription, encoding=encoding, kinds=kinds)
            await self._store.save(changed)
            subscriber.subscription = changed
        return _state(subscriber)

    async def unsubscribe(self, subscription_id: str) -> None:
        """End a subscription; what waits for it is not sent.

        Raises:
            NotFoundError: there is none with this id.
            StoreError: it cannot be forgotten.
        """
        async with self._changing:
            subscriber = self._subscriber(subscription_id)
            await self._store.remove(subscription_id)
            del self._subscribers[subscription_id]
        if subscriber.task is not None:
            await end_task(subscriber.task)

    def subscription(self, subscription_id: str) -> SubscriptionState:
        """Return one subscription.

        Raises:
            NotFoundError: there is none with this id.
        """
        return _state(self._subscriber(subscription_id))

    def subscriptions(self) -> list[SubscriptionState]:
        """Return all subscriptions, oldest first."""
        return [_state(subscriber) for subscriber in self._subscribers.values()]

    def publish(self, event: Event) -> None:
        """Tell every subscriber that wants ``event``; never blocks."""
        for subscriber in self._subscribers.values():
            if not subscriber.subscription.wants(event):
                continue
            body = body_of(event, subscriber.subscription.encoding, self._dpids())
            if body is None:
                continue
            if len(subscriber.queue) >= self._patience.queue:
                subscriber.queue.popleft()
                subscriber.dropped += 1
            subscriber.queue.append(_Notice(f"msg_{new_id()}", body))
            subscriber.filled.set()

    # inside

    def _subscriber(self, subscription_id: str) -> _Subscriber:
        try:
            return self._subscribers[subscription_id]
        except KeyError:
            raise NotFoundError(f"there is no callback {subscription_id[:40]!r}") from None

    def _begin(self, subscription: Subscription) -> None:
        subscriber = _Subscriber(subscription)
        subscriber.task = asyncio.create_task(
            self._deliver_all(subscriber), name=f"callback:{subscription.id}"
        )
        self._subscribers[subscription.id] = subscriber

    async def _deliver_all(self, subscriber: _Subscriber) -> None:
        while True:
            await subscriber.filled.wait()
            if not subscriber.queue:
                subscriber.filled.clear()
                continue
            notice = subscriber.queue.popleft()
            try:
                await self._deliver(subscriber, notice)
            except _UndeliveredError:
                subscriber.dropped += 1
                self._set_failing(subscriber, failing=True)
                await self._sleep(self._patience.max_delay)
            else:
                subscriber.delivered += 1
                subscriber.last_error = None
                self._set_failing(subscriber, failing=False)

    async def _deliver(self, subscriber: _Subscriber, notice: _Notice) -> None:
        patience = self._patience
        attempts = stop_after_attempt(1 if subscriber.failing else patience.attempts)
        async for attempt in AsyncRetrying(
            sleep=self._sleep,
            wait=wait_exponential_jitter(
                initial=patience.first_delay, max=patience.max_delay, jitter=patience.jitter
            ),
            stop=attempts | stop_after_delay(patience.give_up_after),
            retry=retry_if_exception(_is_passing),
            reraise=True,
        ):
            with attempt:
                try:
                    await self._post(subscriber.subscription, notice)
                except _UndeliveredError as error:
                    subscriber.last_error = str(error)
                    raise

    async def _post(self, subscription: Subscription, notice: _Notice) -> None:
        assert self._client is not None
        status: int | None = None
        headers = signed(subscription, notice.id, notice.body, time.time())
        try:
            async with (
                asyncio.timeout(self._patience.timeout),
                self._client.stream(
                    "POST", subscription.url, content=notice.body, headers=headers
                ) as response,
            ):
                status = response.status_code
                await _read_away(response)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:  # TimeoutError too
            if status is None:
                # Its own words may contain the URL, and the URL a secret.
                raise _UndeliveredError(type(error).__name__) from None
        if status is None or not 200 <= status < 300:
            raise _UndeliveredError(f"answered {status}", gone=status == _GONE)

    def _set_failing(self, subscriber: _Subscriber, *, failing: bool) -> None:
        if subscriber.failing == failing:
            return
        subscriber.failing = failing
        subscription = subscriber.subscription
        host = urlsplit(subscription.url).hostname or ""
        kind = "callback.failing" if failing else "callback.recovered"
        _log.warning(kind, callback=subscription.id, host=host, error=subscriber.last_error)
        self._on_event(Event(kind, subscription.id, {"host": host, "error": subscriber.last_error}))


def signed(subscription: Subscription, message_id: str, body: bytes, now: float) -> dict[str, str]:
    """Return the headers of a request (Standard Webhooks); ``now`` in seconds since the epoch."""
    moment = datetime.fromtimestamp(int(now), UTC)
    signature = Webhook(subscription.secret).sign(message_id, moment, body.decode())
    return {
        "Content-Type": subscription.encoding.content_type,
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": signature,
    }


def new_secret() -> str:
    """Draw a secret of 32 bytes."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def check_secret(secret: str) -> None:
    """Look at a secret that a subscriber brings.

    Raises:
        MisuseError: it is not ``whsec_`` and base64 of 24 to 64 bytes; it is not repeated here.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not 24 <= len(key) <= 64:
        raise MisuseError("a callback's secret is whsec_ and base64 of 24 to 64 bytes")


def check_url(url: str) -> None:
    """Look at a URL that a subscriber brings.

    Raises:
        MisuseError: it is no http or https URL with a host, has a user or password or a fragment,
            or is longer than 2000 characters.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # is parsed only when read
        good = bool(parts.hostname) and parts.scheme in ("http", "https")
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        good = False
    if not good or not url.isprintable() or " " in url or len(url) > _MAX_URL:
        raise MisuseError("a callback's URL begins with http:// or https:// and names a host")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise MisuseError("a callback's URL has no user, no password and no fragment")


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, _UndeliveredError) and not error.gone


async def _read_away(response: httpx.Response) -> None:
    """Take a short answer off the connection, so that it can be used again; a long one ends it."""
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > _ANSWER_LIMIT:
            return


def _state(subscriber: _Subscriber) -> SubscriptionState:
    return SubscriptionState(
        subscriber.subscription,
        subscriber.failing,
        subscriber.delivered,
        subscriber.dropped,
        len(subscriber.queue),
        subscriber.last_error,
    )
