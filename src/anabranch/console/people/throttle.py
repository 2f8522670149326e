"""How often somebody may fail to say who they are. Sans-IO: time is passed in.

Token buckets (a failure takes one token, time brings them back): one for each account as seen from
strangers, one for each client. A client that has signed in to an account before has a bucket of its
own there, so that nobody locks the owner of an account out by failing in its name.
"""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

_MOST = 20_000
"""Buckets that are kept; the ones that were longest not used go first."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


@dataclass(frozen=True, slots=True)
class Limit:
    """``burst`` failures at once, and one more every ``every_s`` seconds."""

    burst: int
    every_s: float


BY_ACCOUNT = Limit(10, 30.0)
BY_CLIENT = Limit(20, 10.0)


def network_of(client: str) -> str:
    """Return whom an address stands for: an IPv6 client has all of its /64."""
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return client[:64]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> 64 << 64))
    return str(address)


class Throttle:
    """Counts failures, by account and by client."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[tuple[str, ...], _Bucket] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def begin(self, account: str | None, client: str, now: float) -> float:
        """Take a try for a client; return 0, or the seconds until it may try again.

        A try that is under way counts as failed until :meth:`succeeded`, or many at once would
        all be let through. ``account`` None: what is tried is no account's.
        """
        wait = max((self._wait(key, limit, now) for key, limit in self._keys(account, client)))
        if wait <= 0:
            for key, limit in self._keys(account, client):
                self._refilled(key, limit, now).tokens -= 1
        return wait

    def succeeded(self, account: str | None, client: str, now: float) -> None:
        """Give the try back: it was none of a stranger."""
        for key, limit in self._keys(account, client):
            bucket = self._refilled(key, limit, now)
            bucket.tokens = min(bucket.tokens + 1, limit.burst)
        if account is not None:
            pair = (account, network_of(client))
            self._known[pair] = None
            self._known.move_to_end(pair)
            if len(self._known) > _MOST:
                self._known.popitem(last=False)

    def forget(self, account: str) -> None:
        """Have nobody be known to an account any more."""
        for pair in [pair for pair in self._known if pair[0] == account]:
            del self._known[pair]

    def _keys(self, account: str | None, client: str) -> list[tuple[tuple[str, ...], Limit]]:
        network = network_of(client)
        keys: list[tuple[tuple[str, ...], Limit]] = [(("client", network), BY_CLIENT)]
        if account is None:
            return keys
        if (account, network) in self._known:
            return [*keys, (("known", account, network), BY_ACCOUNT)]
        return [*keys, (("account", account), BY_ACCOUNT)]

    def _wait(self, key: tuple[str, ...], limit: Limit, now: float) -> float:
        tokens = self._refilled(key, limit, now).tokens
        return 0.0 if tokens >= 1 else (1 - tokens) * limit.every_s

    def _refilled(self, key: tuple[str, ...], limit: Limit, now: float) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(limit.burst, now)
            if len(self._buckets) > _MOST:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        gained = max(0.0, now - bucket.at) / limit.every_s
        bucket.tokens, bucket.at = min(limit.burst, bucket.tokens + gained), max(now, bucket.at)
        return bucket
