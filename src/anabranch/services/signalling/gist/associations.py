"""Messaging associations: connections between two nodes, shared by all their sessions.

Connection mode of RFC 5971, sections 4.4 and 5.7. The querying node opens one when a message does
not fit a datagram; one that carried nothing for the hold time is closed, and opened again when
needed.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from anabranch.services.signalling.gist.events import Close, Connect, Datagram, Output, Segment
from anabranch.services.signalling.gist.objects import GistError, Transport
from anabranch.services.signalling.gist.sessions import Peer
from anabranch.services.signalling.gist.wire import (
    HEADER_BYTES,
    MAGIC,
    GistMessage,
    MessageType,
    length_of,
    parse,
)

DATAGRAM_LIMIT = 1200  # bytes of a message that fit any path's datagram
MAX_STREAM_MESSAGE = 64 * 1024
HOLD_TIME = 90.0  # seconds
MAX_ASSOCIATIONS = 4096


@dataclass(slots=True)
class Association:
    """One connection.

    Attributes:
        peer: None: not known yet who connected to us.
        opened: it can carry; until then messages wait.
    """

    number: int
    peer: Peer | None
    used: float
    opened: bool = False
    buffer: bytearray = field(default_factory=bytearray)


class Associations:
    """All connections of a node, and what is to be sent by which way."""

    def __init__(
        self, outputs: deque[Output], *, tls: bool = False, hold_time: float = HOLD_TIME
    ) -> None:
        """Put what is to be sent into ``outputs``; ``tls``: we speak that, and nothing else."""
        self._outputs = outputs
        self._tls = tls
        self._hold_time = hold_time
        self._open: dict[int, Association] = {}
        self._number = 0
        self._sweep: float | None = None

    def __len__(self) -> int:
        return len(self._open)

    def send(self, peer: Peer, message: GistMessage, now: float) -> None:
        """Send over the connection to ``peer``; without one, over a new one if it is large.

        Where the peer takes no connections a large message goes as datagram, and IP fragments it.
        """
        data = message.encode()
        association = self._open.get(peer.association) if peer.association is not None else None
        if association is not None and association.opened:
            association.used = now
            self._outputs.append(Segment(association.number, data))
        elif association is not None or (len(data) > DATAGRAM_LIMIT and self._connect(peer, now)):
            peer.waiting.append(data)
        else:
            self._outputs.append(Datagram(MAGIC + data, (peer.address, peer.port)))

    def _connect(self, peer: Peer, now: float) -> bool:
        stack = peer.stack
        if stack is None or not stack.profiles or not stack.port:
            return False
        tls = any(Transport.TLS in profile for profile in stack.profiles)
        if tls != self._tls or len(self._open) >= MAX_ASSOCIATIONS:
            return False
        association = self._add(peer, now)
        peer.association = association.number
        self._outputs.append(Connect(association.number, peer.address, stack.port, tls))
        return True

    def accept(self, now: float) -> int | None:
        """Return a number for a connection that somebody opened to us; None: there are too many."""
        if len(self._open) >= MAX_ASSOCIATIONS:
            return None
        association = self._add(None, now)
        association.opened = True
        return association.number

    def opened(self, number: int, now: float) -> None:
        """The connection asked for by :class:`Connect` is there."""
        association = self._open.get(number)
        if association is None or association.peer is None:
            return
        association.opened = True
        association.used = now
        waiting, association.peer.waiting = association.peer.waiting, []
        self._outputs.extend(Segment(number, data) for data in waiting)

    def closed(self, number: int) -> None:
        """The connection is gone, or could not be opened: what waits for it goes as datagrams."""
        association = self._open.pop(number, None)
        if association is None or association.peer is None:
            return
        peer = association.peer
        if peer.association == number:
            peer.association = None
        waiting, peer.waiting = peer.waiting, []
        where = (peer.address, peer.port)
        self._outputs.extend(Datagram(MAGIC + data, where) for data in waiting)

    def bind(self, number: int, peer: Peer) -> None:
        """It is ``peer`` who opened that connection; its sessions use it from now on."""
        association = self._open.get(number)
        if association is not None:
            association.peer = peer
            peer.association = number

    def peer(self, number: int) -> Peer | None:
        """Return who is at the other end."""
        association = self._open.get(number)
        return association.peer if association else None

    def receive(self, number: int, data: bytes, now: float) -> Iterator[GistMessage]:
        """Yield the whole messages in what the connection brought.

        Raises:
            GistError: they make no sense; the connection is closed.
        """
        association = self._open.get(number)
        if association is None:
            return
        association.used = now
        buffer = association.buffer
        buffer += data
        try:
            while len(buffer) >= HEADER_BYTES:
                length = length_of(bytes(buffer[:HEADER_BYTES]))
                if length > MAX_STREAM_MESSAGE:
                    raise GistError(f"a message of {length} bytes")
                if len(buffer) < length:
                    break
                message = parse(bytes(buffer[:length]))
                del buffer[:length]
                if message.type is not MessageType.HELLO:
                    yield message
                elif message.reply:
                    hello = GistMessage(MessageType.HELLO, hello_id=message.hello_id)
                    self._outputs.append(Segment(number, hello.encode()))
        except GistError:
            self._close(number)
            raise

    def _add(self, peer: Peer | None, now: float) -> Association:
        self._number += 1
        self._open[self._number] = association = Association(self._number, peer, now)
        if self._sweep is None:
            self._sweep = now + self._hold_time
        return association

    def _close(self, number: int) -> None:
        self.closed(number)
        self._outputs.append(Close(number))

    def next_timer(self) -> float | None:
        return self._sweep

    def handle_timer(self, now: float) -> None:
        """Close what carried nothing for the hold time."""
        if self._sweep is None or now < self._sweep:
            return
        limit = now - self._hold_time
        for number in [number for number, one in self._open.items() if one.used <= limit]:
            self._close(number)
        self._sweep = min((one.used for one in self._open.values()), default=None)
        if self._sweep is not None:
            self._sweep += self._hold_time
