"""Media Relay, the SIP server's side (seed 003, 7.3): a relay near each user agent that registers.

User agents of one prefix share a relay. Where one registers from a prefix that has none yet, the
nodes on the way to it are asked who they are, the module is installed on the one nearest to it, and
its status says where it serves and its half of the key exchange.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from anabranch.services.blocks.turn import credential
from anabranch.services.errors import ServicesError
from anabranch.services.modules.mediarelay.mediarelay import shared_secret
from anabranch.services.node.sending import Signaller
from anabranch.services.provider import Offer, Path
from anabranch.services.signalling.compose import Author
from anabranch.services.signalling.gist.objects import Address
from anabranch.services.signalling.values import Network

_POLL_S = 1.0
_log = structlog.get_logger("anabranch.services.relay")


class RelayError(ServicesError):
    """A relay that does not say what it must."""


class Registrar(Protocol):
    """The SIP server, as :class:`~anabranch.services.modules.overload.kamailio.Kamailio` is."""

    async def callers(self, most: int) -> list[Address]:
        """Return where user agents have registered from lately. Raises ServicesError."""
        ...


class Edge(Protocol):
    """Where relays can be had."""

    async def install(self, towards: Address, properties: Mapping[str, str]) -> Mapping[str, str]:
        """Have a relay near a user agent, or renew it; return its status. Raises ServicesError."""
        ...

    async def remove(self, towards: Address) -> None:
        """Have it no longer. Raises ServicesError."""
        ...


class SignalledEdge:
    """Implements :class:`Edge` by messages along the path."""

    def __init__(self, signaller: Signaller, author: Author, offer: Offer) -> None:
        self._signaller = signaller
        self._author = author
        self._offer = offer
        self._paths: dict[Address, Path] = {}

    async def install(self, towards: Address, properties: Mapping[str, str]) -> Mapping[str, str]:
        path = self._paths.get(towards) or Path(self._signaller, self._author, towards)
        nearest = (await path.probe())[-1].node_id
        await path.install(self._offer, properties=properties, node_id=nearest)
        self._paths[towards] = path
        hops = await path.probe("address,status", name=self._offer.name, node_id=nearest)
        return hops[-1].details

    async def remove(self, towards: Address) -> None:
        path = self._paths.pop(towards, None)
        if path is not None:
            await path.remove(self._offer)


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay that serves.

    Attributes:
        place: ``ADDRESS:PORT``.
        secret: shared with it.
        since: when it was installed or renewed, monotonic seconds.
    """

    place: str
    secret: bytes = field(repr=False)
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a user agent is given, as TURN REST servers write it.

    Attributes:
        username, password: of a long-term credential.
        ttl: seconds for which it is valid.
        uris: ``turn:ADDRESS:PORT?transport=udp`` (RFC 7065).
    """

    username: str
    password: str = field(repr=False)
    ttl: int
    uris: tuple[str, ...]


class Relays:
    """Which prefix has which relay. Pure.

    Args:
        prefix_4, prefix_6: lengths; user agents alike in so many bits share a relay.
    """

    def __init__(self, prefix_4: int = 24, prefix_6: int = 56) -> None:
        self._lengths = {4: prefix_4, 6: prefix_6}
        self._relays: dict[Network, Relay] = {}

    def __len__(self) -> int:
        return len(self._relays)

    def prefix_of(self, address: Address) -> Network:
        return ip_network(f"{address}/{self._lengths[address.version]}", strict=False)

    def put(self, address: Address, relay: Relay) -> None:
        self._relays[self.prefix_of(address)] = relay

    def drop(self, address: Address) -> None:
        self._relays.pop(self.prefix_of(address), None)

    def credentials(self, address: Address, user: str, wall: float, ttl: int) -> Credentials | None:
        """Return what a user agent at an address may use; None: it has no relay."""
        relay = self._relays.get(self.prefix_of(address))
        if relay is None:
            return None
        username, password = credential(relay.secret, user, wall + ttl)
        return Credentials(username, password, ttl, (f"turn:{relay.place}?transport=udp",))


def relay_of(status: Mapping[str, str], own: X25519PrivateKey, now: float) -> Relay:
    """Read a relay from its status. Raises RelayError."""
    try:
        return Relay(status["turn"], shared_secret(own, bytes.fromhex(status["key"])), now)
    except (KeyError, ValueError) as error:
        raise RelayError(f"the relay says neither where it serves nor its key: {error}") from error


class RelayProvider:
    """Has relays where user agents register.

    Args:
        registrar: who has registered.
        edge: where modules can be had.
        renewal: seconds after which a relay is asked for anew; less than its ttl.
    """

    def __init__(self, registrar: Registrar, edge: Edge, *, renewal: float = 30.0) -> None:
        self._registrar = registrar
        self._edge = edge
        self._renewal = renewal
        self._private = X25519PrivateKey.generate()
        self._towards: dict[Network, tuple[Address, float]] = {}
        self.relays = Relays()

    async def run(self) -> None:
        """Run until it is cancelled; then remove the modules."""
        try:
            while True:
                await self.turn()
                await asyncio.sleep(_POLL_S)
        finally:
            for address, _ in self._towards.values():
                with suppress(ServicesError):
                    await self._edge.remove(address)

    async def turn(self) -> None:
        """Look once who has registered, and see to their relays."""
        now = time.monotonic()
        try:
            registered = await self._registrar.callers(1000)
        except ServicesError as error:
            _log.warning("registrar.silent", error=str(error))
            return
        for address in registered:
            self._towards.setdefault(self.relays.prefix_of(address), (address, float("-inf")))
        due = [a for a, at in self._towards.values() if now - at >= self._renewal]
        await asyncio.gather(*map(self._have, due))

    async def _have(self, address: Address) -> None:
        prefix, now = self.relays.prefix_of(address), time.monotonic()
        properties = {"key": self._private.public_key().public_bytes_raw().hex()}
        try:
            status = await self._edge.install(address, properties)
            self.relays.put(address, relay_of(status, self._private, now))
        except ServicesError as error:
            _log.warning("relay.refused", towards=str(address), error=str(error))
            self.relays.drop(address)
        self._towards[prefix] = address, now
