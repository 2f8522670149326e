"""A TURN server for UDP over IPv4 (RFC 8656). Sans-IO.

What comes in is given to :meth:`TurnServer.receive` (from clients) and :meth:`TurnServer.relay`
(from peers); both return what is to be sent. Sockets of relayed addresses are opened and closed as
:attr:`TurnServer.opened` and :attr:`TurnServer.closed` say.
"""

import hmac
import json
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from typing import NamedTuple

from anabranch.services.blocks import stun
from anabranch.services.blocks.stun import Attribute, Kind, Message, Method, Place, StunError

PERMISSION_S = 300.0
CHANNEL_S = 600.0
_CHANNELS = range(0x4000, 0x7FFF)  # RFC 5766's; RFC 8656 clients use those below 0x5000
_LIFETIME = 600, 3600  # seconds: usual, most
_NONCE_S = 3600.0
_RESERVATION_S = 30.0
_UDP = 17
_NEVER = float("-inf")


class Sent(NamedTuple):
    """A datagram that is to go out.

    Attributes:
        port: from which relayed port; None: from where clients are served.
    """

    port: int | None
    to: Place
    data: bytes


@dataclass(slots=True)
class Allocation:
    """One client's relayed address."""

    client: Place
    port: int
    username: str
    key: bytes
    expires: float
    transaction: bytes
    reservation: bytes = b""
    permissions: dict[str, float] = field(default_factory=dict)
    channels: dict[int, tuple[Place, float]] = field(default_factory=dict)
    by_peer: dict[Place, int] = field(default_factory=dict)


class _RefusedError(Exception):
    """A request gets an error response."""

    def __init__(
        self, code: int, reason: str, attributes: Iterable[tuple[int, bytes]] = ()
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.attributes = tuple(attributes)


@dataclass(frozen=True, slots=True)
class Options:
    """What a server offers.

    Attributes:
        address: under which relayed ports are reached.
        ports: the relayed ports.
        realm: of the credentials.
        allocations_each: how many one user may have at a time.
    """

    address: str
    ports: tuple[int, ...]
    realm: str = "anabranch"
    allocations_each: int = 8


class TurnServer:
    """The state of all allocations.

    Args:
        options: what is offered.
        password: returns the password of a user name, or None for one that is not valid.
        random: ``random(n)`` returns n random bytes.

    Attributes:
        opened, closed: relayed ports whose sockets are to be opened and closed; the caller takes
            them out.
        refused: datagrams that were not relayed, for want of a permission.
    """

    def __init__(
        self,
        options: Options,
        password: Callable[[str, float], str | None],
        random: Callable[[int], bytes],
    ) -> None:
        self._options = options
        self._password = password
        self._random = random
        self._secret = random(16)
        self._by_client: dict[Place, Allocation] = {}
        self._by_port: dict[int, Allocation] = {}
        self._free = list(reversed(options.ports))
        self._reserved: dict[bytes, tuple[int, float]] = {}
        self.opened: list[int] = []
        self.closed: list[int] = []
        self.refused = 0

    @property
    def allocations(self) -> int:
        return len(self._by_client)

    # From clients

    def receive(self, data: bytes, client: Place, wall: float, now: float) -> list[Sent]:
        """Take what a client sent.

        Args:
            data: the datagram.
            client: where it came from.
            wall: seconds since the epoch, for credentials.
            now: monotonic seconds.
        """
        if data and data[0] & 0xC0 == 0x40:
            sent = self._channel_data(data, client, now)
            return [] if sent is None else [sent]
        try:
            message = stun.parse(data)
        except StunError:
            return []
        if message.kind is Kind.INDICATION:
            return self._send_indication(message, client, now)
        if message.kind is not Kind.REQUEST:
            return []
        return [Sent(None, client, self._answer(message, client, wall, now))]

    def _channel_data(self, data: bytes, client: Place, now: float) -> Sent | None:
        allocation = self._by_client.get(client)
        if allocation is None or len(data) < 4:
            return None
        bound = allocation.channels.get(data[0] << 8 | data[1])
        length = data[2] << 8 | data[3]
        if bound is None or length > len(data) - 4 or bound[1] < now:
            self.refused += 1
            return None
        if allocation.permissions.get(bound[0][0], _NEVER) < now:
            self.refused += 1
            return None
        return Sent(allocation.port, bound[0], data[4 : 4 + length])

    def _send_indication(self, message: Message, client: Place, now: float) -> list[Sent]:
        allocation = self._by_client.get(client)
        value, data = message.get(Attribute.XOR_PEER_ADDRESS), message.get(Attribute.DATA)
        if message.method != Method.SEND or allocation is None or value is None or data is None:
            return []
        if message.unknown():
            return []
        try:
            peer = stun.read_address(value, message.transaction)
        except StunError:
            return []
        if allocation.permissions.get(peer[0], _NEVER) < now:
            self.refused += 1
            return []
        return [Sent(allocation.port, peer, data)]

    def _answer(self, message: Message, client: Place, wall: float, now: float) -> bytes:
        key = None
        try:
            if message.method == Method.BINDING:
                self._check_known(message)
                return stun.answer(message, [_mapped(client, message)])
            username, key = self._authenticate(message, client, wall, now)
            self._check_known(message)
            match message.method:
                case Method.ALLOCATE:
                    return self._allocate(message, client, username, key, now)
                case Method.REFRESH:
                    return self._refresh(message, client, username, key, now)
                case Method.CREATE_PERMISSION:
                    return self._permit(message, client, username, key, now)
                case Method.CHANNEL_BIND:
                    return self._bind(message, client, username, key, now)
            raise _RefusedError(400, "Bad Request")
        except _RefusedError as refused:
            return stun.refusal(message, refused.code, str(refused), refused.attributes, key)
        except StunError as error:
            return stun.refusal(message, 400, str(error), key=key)

    def _check_known(self, message: Message) -> None:
        unknown = message.unknown()
        if unknown:
            listed = b"".join(number.to_bytes(2) for number in unknown)
            raise _RefusedError(
                420, "Unknown Attribute", [(int(Attribute.UNKNOWN_ATTRIBUTES), listed)]
            )

    def _authenticate(
        self, message: Message, client: Place, wall: float, now: float
    ) -> tuple[str, bytes]:
        """Check the long-term credential (RFC 8489, 9.2.4); return user name and key."""
        realm = self._options.realm
        fresh = [
            (int(Attribute.REALM), realm.encode()),
            (int(Attribute.NONCE), self._nonce(client, now + _NONCE_S)),
        ]
        if message.signed is None:
            raise _RefusedError(401, "Unauthorized", fresh)
        username, nonce = message.text(Attribute.USERNAME), message.get(Attribute.NONCE)
        if username is None or nonce is None or message.get(Attribute.REALM) is None:
            raise _RefusedError(400, "Bad Request")
        if not self._is_fresh(nonce, client, now):
            raise _RefusedError(438, "Stale Nonce", fresh)
        password = self._password(username, wall)
        key = stun.long_term_key(username, realm, password or "")
        if password is None or not message.is_signed_by(key):
            raise _RefusedError(401, "Unauthorized", fresh)
        return username, key

    def _nonce(self, client: Place, until: float) -> bytes:
        expires = b"%012x" % int(until)
        text = expires + f" {client[0]} {client[1]}".encode()
        return expires + hmac.digest(self._secret, text, "sha256")[:12].hex().encode()

    def _is_fresh(self, nonce: bytes, client: Place, now: float) -> bool:
        try:
            until = int(nonce[:12], 16)
        except ValueError:
            return False
        return until > now and hmac.compare_digest(nonce, self._nonce(client, until))

    def _allocate(
        self, message: Message, client: Place, username: str, key: bytes, now: float
    ) -> bytes:
        existing = self._by_client.get(client)
        if existing is not None:
            if existing.transaction == message.transaction:
                return self._allocated(message, existing, now)  # its answer was lost
            raise _RefusedError(437, "Allocation Mismatch")
        transport = message.get(Attribute.REQUESTED_TRANSPORT)
        if transport is None or len(transport) != 4:
            raise _RefusedError(400, "Bad Request")
        if transport[0] != _UDP:
            raise _RefusedError(442, "Unsupported Transport Protocol")
        family = message.get(Attribute.REQUESTED_ADDRESS_FAMILY)
        if family is not None and family[:1] != b"\x01":
            raise _RefusedError(440, "Address Family not Supported")
        mine = sum(each.username == username for each in self._by_client.values())
        if mine >= self._options.allocations_each:
            raise _RefusedError(486, "Allocation Quota Reached")
        port, token = self._take_port(message, now)
        allocation = Allocation(
            client, port, username, key, now + _lifetime(message), message.transaction, token
        )
        self._by_client[client] = self._by_port[port] = allocation
        self.opened.append(port)
        return self._allocated(message, allocation, now)

    def _take_port(self, message: Message, now: float) -> tuple[int, bytes]:
        """Return a port, and the token of the one above it if that was to be reserved."""
        even, token = message.get(Attribute.EVEN_PORT), message.get(Attribute.RESERVATION_TOKEN)
        if token is not None:
            if even is not None:
                raise _RefusedError(400, "Bad Request")
            port, until = self._reserved.pop(token, (0, _NEVER))
            if until < now:
                if port:
                    self._free.insert(0, port)
                raise _RefusedError(508, "Insufficient Capacity")
            return port, b""
        want_next = even is not None and bool(even[:1]) and even[0] & 0x80 != 0
        free = set(self._free)
        for port in reversed(self._free):
            if (even is None or port % 2 == 0) and (not want_next or port + 1 in free):
                self._free.remove(port)
                if not want_next:
                    return port, b""
                self._free.remove(port + 1)
                token = self._random(8)
                self._reserved[token] = (port + 1, now + _RESERVATION_S)
                return port, token
        raise _RefusedError(508, "Insufficient Capacity")

    def _allocated(self, message: Message, allocation: Allocation, now: float) -> bytes:
        relayed = stun.address((self._options.address, allocation.port), message.transaction)
        attributes = [
            (int(Attribute.XOR_RELAYED_ADDRESS), relayed),
            _mapped(allocation.client, message),
            (int(Attribute.LIFETIME), max(0, round(allocation.expires - now)).to_bytes(4)),
        ]
        if allocation.reservation:
            attributes.append((int(Attribute.RESERVATION_TOKEN), allocation.reservation))
        return stun.answer(message, attributes, allocation.key)

    def _own(self, client: Place, username: str) -> Allocation:
        allocation = self._by_client.get(client)
        if allocation is None:
            raise _RefusedError(437, "Allocation Mismatch")
        if allocation.username != username:
            raise _RefusedError(441, "Wrong Credentials")
        return allocation

    def _refresh(
        self, message: Message, client: Place, username: str, key: bytes, now: float
    ) -> bytes:
        seconds = _lifetime(message)
        if message.number(Attribute.LIFETIME) == 0 and client not in self._by_client:
            return stun.answer(message, [(int(Attribute.LIFETIME), bytes(4))], key)
        allocation = self._own(client, username)
        if message.number(Attribute.LIFETIME) == 0:
            seconds = 0
            self._forget(allocation)
        allocation.expires = now + seconds
        return stun.answer(message, [(int(Attribute.LIFETIME), seconds.to_bytes(4))], key)

    def _permit(
        self, message: Message, client: Place, username: str, key: bytes, now: float
    ) -> bytes:
        allocation = self._own(client, username)
        values = message.all(Attribute.XOR_PEER_ADDRESS)
        if not values:
            raise _RefusedError(400, "Bad Request")
        peers = [_peer(value, message) for value in values]
        for peer in peers:  # all or none (RFC 8656, 10.2)
            allocation.permissions[peer[0]] = now + PERMISSION_S
        return stun.answer(message, [], key)

    def _bind(
        self, message: Message, client: Place, username: str, key: bytes, now: float
    ) -> bytes:
        allocation = self._own(client, username)
        number = message.number(Attribute.CHANNEL_NUMBER)
        value = message.get(Attribute.XOR_PEER_ADDRESS)
        if number is None or value is None or number >> 16 not in _CHANNELS:
            raise _RefusedError(400, "Bad Request")
        channel, peer = number >> 16, _peer(value, message)
        bound = allocation.channels.get(channel)
        if (bound is not None and bound[0] != peer) or (
            allocation.by_peer.get(peer, channel) != channel
        ):
            raise _RefusedError(400, "Bad Request")
        allocation.channels[channel] = peer, now + CHANNEL_S
        allocation.by_peer[peer] = channel
        allocation.permissions[peer[0]] = now + PERMISSION_S
        return stun.answer(message, [], key)

    # From peers

    def relay(self, data: bytes, port: int, peer: Place, now: float) -> Sent | None:
        """Take what a peer sent to a relayed port; return what the client gets, if anything."""
        allocation = self._by_port.get(port)
        if allocation is None or allocation.permissions.get(peer[0], _NEVER) < now:
            self.refused += 1
            return None
        channel = allocation.by_peer.get(peer)
        if channel is not None:
            head = channel.to_bytes(2) + len(data).to_bytes(2)
            return Sent(None, allocation.client, head + data)
        transaction = self._random(12)
        attributes = [
            (int(Attribute.XOR_PEER_ADDRESS), stun.address(peer, transaction)),
            (int(Attribute.DATA), data),
        ]
        message = stun.encode(Method.DATA, Kind.INDICATION, transaction, attributes)
        return Sent(None, allocation.client, message)

    # Another server goes on

    def state(self, now: float) -> bytes:
        """Return all allocations, for :meth:`restore` of a server with the same ports."""
        return json.dumps([
            {
                "client": each.client, "port": each.port, "username": each.username,
                "key": each.key.hex(), "left": each.expires - now,
                "permissions": {host: until - now for host, until in each.permissions.items()},
                "channels": [[n, peer, until - now] for n, (peer, until) in each.channels.items()],
            }
            for each in self._by_client.values()
        ]).encode()  # fmt: skip

    def restore(self, state: bytes, now: float) -> None:
        """Go on with the allocations of another server; those on other ports are left out."""
        for each in json.loads(state):
            if each["port"] not in self._free:
                continue
            host, port = each["client"]
            one = Allocation(
                (host, port), each["port"], each["username"], bytes.fromhex(each["key"]),
                now + each["left"], b"",
            )  # fmt: skip
            one.permissions = {host: now + left for host, left in each["permissions"].items()}
            for number, (host, port), left in each["channels"]:
                one.channels[number] = (host, port), now + left
                one.by_peer[host, port] = number
            self._free.remove(one.port)
            self._by_client[one.client] = self._by_port[one.port] = one
            self.opened.append(one.port)

    # Time

    def expire(self, now: float) -> None:
        """Forget what is over. Call it every few seconds."""
        for allocation in list(self._by_client.values()):
            if allocation.expires <= now:
                self._forget(allocation)
                continue
            for channel, (peer, until) in list(allocation.channels.items()):
                if until <= now:
                    del allocation.channels[channel], allocation.by_peer[peer]
            for host, until in list(allocation.permissions.items()):
                if until <= now:
                    del allocation.permissions[host]
        for token, (port, until) in list(self._reserved.items()):
            if until <= now:
                del self._reserved[token]
                self._free.insert(0, port)

    def _forget(self, allocation: Allocation) -> None:
        del self._by_client[allocation.client], self._by_port[allocation.port]
        self._free.insert(0, allocation.port)
        self.closed.append(allocation.port)


def _mapped(client: Place, message: Message) -> tuple[int, bytes]:
    return int(Attribute.XOR_MAPPED_ADDRESS), stun.address(client, message.transaction)


def _lifetime(message: Message) -> int:
    usual, most = _LIFETIME
    asked = message.number(Attribute.LIFETIME)
    return usual if asked is None else min(max(asked, usual), most)


def _peer(value: bytes, message: Message) -> Place:
    """Read a peer's address, and refuse those that no peer has (RFC 8656, 5)."""
    peer = stun.read_address(value, message.transaction)
    host = ip_address(peer[0])
    if not isinstance(host, IPv4Address):
        raise _RefusedError(443, "Peer Address Family Mismatch")
    if (
        host.is_loopback or host.is_multicast or host.is_unspecified or host.is_link_local
        or host.is_reserved
    ):  # fmt: skip
        raise _RefusedError(403, "Forbidden")
    return peer


# Time-limited credentials, as TURN REST servers give them out: the name says until when, and the
# password is a keyed hash of the name, so that no list of users need be kept.


def credential(secret: bytes, user: str, expires: float) -> tuple[str, str]:
    """Return user name and password, valid until ``expires`` (seconds since the epoch)."""
    username = f"{int(expires)}:{user}"
    return username, password_of(secret, username)


def password_of(secret: bytes, username: str) -> str:
    return b64encode(hmac.digest(secret, username.encode(), "sha1")).decode()


def checked_password(secret: bytes, username: str, wall: float) -> str | None:
    """Return the password of a user name that is still valid; else None."""
    expires, colon, _ = username.partition(":")
    if not colon or not (expires.isascii() and expires.isdigit()) or len(expires) > 12:
        return None
    return password_of(secret, username) if int(expires) > wall else None
