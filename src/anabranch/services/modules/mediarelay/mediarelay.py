"""Media Relay: a TURN server where the user agents are (seed 003, 7.3; RFC 8656).

Whoever gives out credentials and this relay share a secret that never travels: each has a key
pair, and tells the other the public half (X25519, RFC 7748). This relay's is in its status.

Properties:
    key: the provider's public key, X25519, hexadecimal.
    port: where clients are served (default 3478).
    relayed: ``FIRST-LAST``, the relayed ports.
    realm: of the credentials (default ``anabranch``).
    each: allocations that one user may have at a time (default 8).
"""

import selectors
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from os import urandom

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from anabranch.services.blocks.turn import Options, Sent, TurnServer, checked_password
from anabranch.services.module import Context, Module, Status

_PURPOSE = b"anabranch turn credentials"
_EXPIRE_S = 1.0
_KEY_BYTES = 32
_AT_ONCE = 64
_ROOM = 2048
_BUFFER = 4 << 20


def shared_secret(own: X25519PrivateKey, other: bytes) -> bytes:
    """Return what both ends' credentials hang on. Raises ValueError for a bad key."""
    exchanged = own.exchange(X25519PublicKey.from_public_bytes(other))
    return HKDF(hashes.SHA256(), 32, None, _PURPOSE).derive(exchanged)


class MediaRelay(Module):
    """The adapter: sockets in a thread of their own around :class:`TurnServer`."""

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()
        self._sockets: dict[int | None, socket.socket] = {}
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._restored = b"[]"
        self._relayed = 0

    def configure(self, context: Context) -> None:
        given = context.properties
        if context.address is None:
            raise ValueError("a relay needs an address of its own")
        self._address = context.address
        self._port = int(given.get("port", "3478"))
        first, _, last = given.get("relayed", "49152-49213").partition("-")
        ports = range(int(first), int(last) + 1)
        for port in (self._port, ports[0], ports[-1]):
            if not 0 < port < 65536:
                raise ValueError(f"{port} is no port")
        try:
            self._provider = bytes.fromhex(given["key"])
            shared_secret(self._private, self._provider)
        except (KeyError, ValueError):
            raise ValueError("key: 32 bytes of X25519 in hexadecimal") from None
        self._options = Options(
            context.address, tuple(ports), given.get("realm", "anabranch"),
            int(given.get("each", "8")),
        )  # fmt: skip
        self._log = context.log

    def take_state(self) -> bytes:
        """Return the private key and all allocations: clients notice nothing."""
        self.stop()
        return self._private.private_bytes_raw() + self._restored

    def restore_state(self, state: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(state[:_KEY_BYTES])
        self._restored = state[_KEY_BYTES:]

    def start(self) -> None:
        secret = shared_secret(self._private, self._provider)
        password = partial(checked_password, secret)
        self._server = TurnServer(self._options, password, urandom)
        self._selector = selectors.DefaultSelector()
        self._server.restore(self._restored, time.monotonic())
        self._open(None, self._port)
        self._follow()
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._restored = self._server.state(time.monotonic())

    def status(self) -> Status:
        return {
            "key": self._private.public_key().public_bytes_raw().hex(),
            "turn": f"{self._address}:{self._port}",
            "allocations": self._server.allocations,
            "relayed": self._relayed,
            "refused": self._server.refused,
        }

    def _open(self, name: int | None, port: int) -> None:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        opened.bind((self._address, port))
        self._sockets[name] = opened
        self._selector.register(opened, selectors.EVENT_READ, name)

    def _close(self, name: int | None) -> None:
        opened = self._sockets.pop(name)
        self._selector.unregister(opened)
        opened.close()

    def _run(self) -> None:
        expire_at = 0.0
        while not self._ending.is_set():
            for key, _ in self._selector.select(0.2):
                self._take(key.data)
            now = time.monotonic()
            if now >= expire_at:
                expire_at = now + _EXPIRE_S
                self._server.expire(now)
                self._follow()
        for name in list(self._sockets):
            self._close(name)
        self._selector.close()

    def _take(self, name: int | None) -> None:
        """Relay what waits at one socket, not all at once: others wait, too."""
        source = self._sockets.get(name)
        if source is None:
            return  # closed since it was found to be readable
        server, now, wall = self._server, time.monotonic(), time.time()
        for _ in range(_AT_ONCE):
            try:
                data, place = source.recvfrom(_ROOM)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error: somebody has gone
            if name is None:
                for sent in server.receive(data, place, wall, now):
                    self._send(sent)
                if server.opened or server.closed:
                    self._follow()
            elif (sent_back := server.relay(data, name, place, now)) is not None:
                self._send(sent_back)

    def _send(self, sent: Sent) -> None:
        target = self._sockets.get(sent.port)
        if target is None:
            return  # its port could not be opened
        with suppress(OSError):  # a full buffer, an unreachable peer: as any network does
            target.sendto(sent.data, sent.to)
            self._relayed += 1

    def _follow(self) -> None:
        """Have the sockets that the server wants."""
        for port in self._server.closed:
            if port in self._sockets:
                self._close(port)
        self._server.closed.clear()
        for port in self._server.opened:
            try:
                self._open(port, port)
            except OSError as error:
                self._log.warning("port %d: %s", port, error.strerror)
        self._server.opened.clear()
