"""The node's part in GIST: query, response, confirm, and the refresh of what they made.

RFC 5971, sections 4.3 and 6, sans-IO. A Query goes to the flow's destination; the next node on
the path takes it off, and answers with a cookie instead of keeping anything; the Confirm brings
the cookie back, proof that the querier is where it says, and with it the first message. Where no
node follows, the destination's ICMP "port unreachable" or silence says so.
"""

from collections import deque
from collections.abc import Callable
from hmac import compare_digest
from weakref import WeakValueDictionary

from anabranch.services.signalling.gist.associations import HOLD_TIME, Associations
from anabranch.services.signalling.gist.cookies import ResponderCookies
from anabranch.services.signalling.gist.events import (
    Datagram,
    GistEvent,
    LastNode,
    Output,
    PathChanged,
    Received,
    Undeliverable,
)
from anabranch.services.signalling.gist.objects import (
    Address,
    Flow,
    GistError,
    PeerInfo,
    Stack,
    Transport,
)
from anabranch.services.signalling.gist.options import GistOptions
from anabranch.services.signalling.gist.sessions import (
    Downstream,
    Peer,
    Session,
    Shares,
    Timers,
    key_of,
)
from anabranch.services.signalling.gist.wire import (
    MAGIC,
    NSLP_ID,
    ErrorCode,
    GistMessage,
    MessageType,
    parse,
    quoted_query,
)

_COOKIE_BYTES = 16
_END_FOR = 1.0
"""Seconds for which what a destination's ICMP said holds for other sessions: Linux sends one such
message a second. A node that comes meanwhile is found by those that begin later."""
_MAX_ENDS = 10_000


class Gist:
    """A node, or the end that a session begins at.

    Attributes:
        outputs: what to send, in order; the adapter takes it from there.
        events: what the layer above should know, in order.
        refused: messages that made no sense or came from the wrong side.
        shares: how many sessions each node before us has here.
    """

    def __init__(
        self,
        identity: bytes,
        options: GistOptions,
        *,
        address_towards: Callable[[Address], Address],
        random: Callable[[int], bytes],
        owns: Callable[[Address], bool] = lambda address: False,
        responder: bool = True,
    ) -> None:
        """Make one.

        Args:
            identity: 1 to 40 bytes, this node's own for good.
            options: see there.
            address_towards: returns our address that a peer at the given one reaches.
            random: returns that many bytes nobody can guess.
            owns: says whether an address is ours; nothing follows on the way to those.
            responder: it answers queries; False: it only sends them.
        """
        self._identity = identity
        self._options = options
        self._address_towards = address_towards
        self._random = random
        self._owns = owns
        self._responder = responder
        self._cookies = ResponderCookies(random(32))
        self._sessions: dict[bytes, Session] = {}
        self._peers: WeakValueDictionary[tuple[bytes, Address, int], Peer] = WeakValueDictionary()
        self.shares = Shares(options.max_sessions, options.max_per_source)
        self._timers = Timers()
        # destinations after which nothing follows, for a while: hosts send few ICMP errors
        self._ends: dict[Address, float] = {}
        self.outputs: deque[Output] = deque()
        self.events: deque[GistEvent] = deque()
        stack = options.stack or Stack((), hold_time=int(HOLD_TIME * 1000))
        tls = any(Transport.TLS in profile for profile in stack.profiles)
        hold_time = stack.hold_time / 1000
        self.associations = Associations(self.outputs, tls=tls, hold_time=hold_time)
        self.refused = 0

    def __len__(self) -> int:
        """Return how many sessions are held."""
        return len(self._sessions)

    def complete(self, now: float) -> int:
        """Return how many sessions are known both ways: the node before, and what follows."""
        return sum(
            session.upstream_until > now and session.state is not Downstream.UNKNOWN
            for session in self._sessions.values()
        )

    # What the layer above asks for

    def send(self, key: bytes, data: bytes, now: float, *, upstream: bool, hops: int = 64) -> None:
        """Send ``data`` to the next node, or ``upstream`` to the one before.

        ``key`` is that of :func:`key_of`; a session that is unknown begins here.
        """
        session = self._sessions.get(key)
        if upstream:
            if session is None or session.upstream is None:
                self.events.append(Undeliverable(key, data, "no way back is known"))
                return
            self._send_data(session, session.upstream, data, hops, now, upstream=True)
            return
        if session is None:
            session = self._sessions[key] = Session(key)
        if session.state is Downstream.LAST:
            self.events.append(LastNode(key, (data,)))
        elif session.downstream is not None:
            self._send_data(session, session.downstream, data, hops, now, upstream=False)
        else:
            session.pending = [*(session.pending or ()), (data, hops)]
            if session.cookie is None:
                self._begin_query(session, now)

    def hold(self, key: bytes, until: float, now: float) -> None:
        """Keep a session, and look for its next node in the background, until then.

        A time earlier than one given before counts, too: that is how a session is let go.
        """
        session = self._sessions.get(key)
        if session is not None:
            session.hold_until = until
            # a timer that comes within a refresh sees to it then
            soon = session.timer and session.timer <= now + self._options.refresh
            if session.cookie is None and not soon:
                self._set_timer(session, now)

    # What the adapter brings

    def receive_datagram(
        self,
        data: bytes,
        source: tuple[Address, int],
        destination: tuple[Address, int],
        now: float,
        *,
        local: bool = True,
        ttl: int = 64,
    ) -> None:
        """Take a datagram; ``local``: it was sent to us, not taken off the path.

        What was taken off and is none of our business goes on its way unchanged.
        """
        try:
            if not data.startswith(MAGIC):
                raise GistError("no magic number")
            message = parse(data[len(MAGIC) :])
        except GistError:
            self.refused += local
            self._forward(data, source, destination, ttl, local=local)
            return
        ours = self._responder and message.nslp_id == NSLP_ID
        if message.type is MessageType.QUERY and (ours or local):
            self._answer_query(message, source, now, ours=ours)
        elif not local:
            self._forward(data, source, destination, ttl, local=False)
        elif message.type is MessageType.RESPONSE:
            self._take_response(message, source, now)
        elif message.type is MessageType.CONFIRM:
            self._take_confirm(message, source[0], None, now)
        elif message.type is MessageType.DATA:
            self._take_data(message, source, None, now)
        elif message.type is MessageType.ERROR:
            self._take_error(message, source, now)

    def receive_segment(self, association: int, source: Address, data: bytes, now: float) -> None:
        """Take bytes of a connection from ``source``.

        Raises:
            GistError: they make no sense; a Close is among the outputs.
        """
        for message in self.associations.receive(association, data, now):
            if message.type is MessageType.CONFIRM:
                self._take_confirm(message, source, association, now)
            elif message.type is MessageType.DATA:
                self._take_data(message, None, association, now)
            else:
                self.refused += 1

    def handle_unreachable(self, offender: Address, quoted: bytes, now: float) -> None:
        """Take an ICMP "port unreachable".

        Args:
            offender: who says so; only the flow's destination is believed.
            quoted: the payload that it quotes, or its beginning.
            now: monotonic seconds.
        """
        found = quoted_query(quoted)
        if found is None or found[0].destination != offender:
            return
        session = self._sessions.get(key_of(*found))
        if session is not None and session.cookie is not None and session.cookie in quoted:
            if len(self._ends) >= _MAX_ENDS:
                self._ends.clear()
            self._ends[offender] = now + _END_FOR
            self._no_next_node(session, now)

    def next_timer(self) -> float | None:
        """Return when to call :meth:`handle_timer`."""
        times = (self._timers.next(), self.associations.next_timer())
        return min((time for time in times if time is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Repeat, refresh, give up and forget what is due."""
        self.associations.handle_timer(now)
        for session in self._timers.due(now):
            if session.cookie is not None and session.tries >= self._options.query_tries:
                self._no_next_node(session, now)
            elif session.cookie is not None:
                self._query(session, now)
            elif session.expires() <= now:
                self._sessions.pop(session.key, None)
                self.shares.move(session.upstream, None)
            elif session.hold_until > now:
                self._begin_query(session, now)
            else:
                self._set_timer(session, now)

    # Looking for the next node

    def _begin_query(self, session: Session, now: float) -> None:
        destination = session.flow.destination
        if self._owns(destination) or self._ends.get(destination, 0.0) > now:
            self._no_next_node(session, now)
            return
        session.cookie = self._random(_COOKIE_BYTES)
        session.tries = 0
        self._query(session, now)

    def _query(self, session: Session, now: float) -> None:
        assert session.cookie is not None
        flow = session.flow
        message = GistMessage(
            MessageType.QUERY,
            flow,
            session.sid,
            self._info(flow.destination),
            query_cookie=session.cookie,
            stack=self._options.stack,
            reply=True,
        )
        where = (flow.destination, self._options.destination_port)
        self.outputs.append(Datagram(MAGIC + message.encode(), where))
        self._timers.set(session, now + self._options.query_timeout * 2**session.tries)
        session.tries += 1

    def _take_response(self, message: GistMessage, source: tuple[Address, int], now: float) -> None:
        assert message.flow is not None
        assert message.info is not None
        session = self._sessions.get(key_of(message.flow, message.sid))
        if session is None or not _same(session.cookie, message.query_cookie):
            self.refused += 1
            return
        peer = self._peer(message.info.identity, *source)
        if message.stack is not None:
            peer.stack = message.stack
        before = session.downstream
        changed = session.state is not Downstream.UNKNOWN and (
            before is None or before.identity != peer.identity
        )
        session.downstream, session.state = peer, Downstream.FOUND
        session.cookie = None
        pending, session.pending = session.pending or [], None
        if message.reply:
            data, hops = pending.pop(0) if pending else (b"", 64)
            self._confirm(session, peer, message.responder_cookie, data, hops, now)
        for data, hops in pending:
            self._send_data(session, peer, data, hops, now, upstream=False)
        if changed:
            self.events.append(PathChanged(session.key))
        self._set_timer(session, now)

    def _confirm(
        self, session: Session, peer: Peer, cookie: bytes, data: bytes, hops: int, now: float
    ) -> None:
        info = self._info(peer.address)
        message = GistMessage(
            MessageType.CONFIRM,
            session.flow,
            session.sid,
            info,
            responder_cookie=cookie,
            data=data,
            hops=hops,
        )
        self.associations.send(peer, message, now)

    def _no_next_node(self, session: Session, now: float) -> None:
        before = session.state
        session.state, session.downstream, session.cookie = Downstream.LAST, None, None
        pending, session.pending = session.pending or [], None
        if before is Downstream.FOUND:
            self.events.append(PathChanged(session.key))
        if pending:
            self.events.append(LastNode(session.key, tuple(data for data, _ in pending)))
        self._set_timer(session, now)

    # Being the next node

    def _answer_query(
        self, message: GistMessage, source: tuple[Address, int], now: float, *, ours: bool
    ) -> None:
        assert message.flow is not None
        assert message.info is not None
        if message.info.identity == self._identity or message.flow.upstream:
            self.refused += 1
            return
        if not ours:
            self._error(message, ErrorCode.ENDPOINT_FOUND, source)
            return
        key = key_of(message.flow, message.sid)
        session = self._sessions.get(key)
        if session is None and not self.shares.has_room(source[0], len(self._sessions)):
            return
        before = session.upstream if session is not None else None
        known = before is not None and before.is_at(message.info.identity, source)
        answer = GistMessage(
            MessageType.RESPONSE,
            Flow(message.flow.source, message.flow.destination, upstream=True),
            message.sid,
            self._info(source[0]),
            query_cookie=message.query_cookie,
            stack=self._options.stack,
        )
        if known and session is not None:
            self._keep_upstream(session, message.info, now)
        else:
            answer.reply = True
            identity = message.info.identity
            answer.responder_cookie = self._cookies.issue(key, identity, source, now)
        self.outputs.append(Datagram(MAGIC + answer.encode(), source))

    def _take_confirm(
        self, message: GistMessage, address: Address, association: int | None, now: float
    ) -> None:
        assert message.flow is not None
        assert message.info is not None
        identity = message.info.identity
        key = key_of(message.flow, message.sid)
        port = self._cookies.port(message.responder_cookie, key, identity, address, now)
        if port is None or message.flow.upstream:
            self.refused += 1
            return
        session = self._sessions.get(key)
        if session is None:
            if not self.shares.has_room(address, len(self._sessions)):
                return
            session = self._sessions[key] = Session(key)
        before, peer = session.upstream, self._peer(identity, address, port)
        session.upstream = peer
        self.shares.move(before, peer)
        if association is not None:
            self.associations.bind(association, peer)
        self._keep_upstream(session, message.info, now)
        if message.data:
            self._deliver(session, message)

    def _keep_upstream(self, session: Session, info: PeerInfo, now: float) -> None:
        validity = min(info.validity / 1000, self._options.validity)
        session.upstream_until = now + validity
        if session.cookie is None and session.timer == 0.0:
            self._set_timer(session, now)

    # Messages

    def _send_data(
        self, session: Session, peer: Peer, data: bytes, hops: int, now: float, *, upstream: bool
    ) -> None:
        flow = session.flow
        message = GistMessage(
            MessageType.DATA,
            Flow(flow.source, flow.destination, upstream),
            session.sid,
            data=data,
            hops=hops,
        )
        self.associations.send(peer, message, now)

    def _take_data(
        self,
        message: GistMessage,
        source: tuple[Address, int] | None,
        association: int | None,
        now: float,
    ) -> None:
        assert message.flow is not None
        session = self._sessions.get(key_of(message.flow, message.sid))
        sender = None
        if session is not None:
            sender = session.downstream if message.flow.upstream else session.upstream
        if association is None:
            known = sender is not None and (sender.address, sender.port) == source
        else:
            peer = self.associations.peer(association)
            known = sender is not None and peer is not None and sender.identity == peer.identity
        if known and session is not None:
            self._deliver(session, message)
            return
        self.refused += 1
        if source is not None:
            self._error(message, ErrorCode.NO_ROUTING_STATE, source)

    def _deliver(self, session: Session, message: GistMessage) -> None:
        assert message.flow is not None
        data = message.data.rstrip(b"\0")  # the padding; NetServ's text has no zero bytes
        if message.hops <= 1:
            reason = "it has travelled too far: is there a loop?"
            self.events.append(Undeliverable(session.key, data, reason))
            return
        self.events.append(Received(session.key, message.flow, data, message.hops - 1))

    def _take_error(self, message: GistMessage, source: tuple[Address, int], now: float) -> None:
        if message.flow is None:
            return
        session = self._sessions.get(key_of(message.flow, message.sid))
        if session is None:
            return
        if message.error == ErrorCode.ENDPOINT_FOUND:
            if session.cookie is not None and source[0] == session.flow.destination:
                self._no_next_node(session, now)
        elif message.error == ErrorCode.NO_ROUTING_STATE:
            peer = session.downstream
            known = peer is not None and (peer.address, peer.port) == source
            if known and session.cookie is None:
                session.state, session.downstream = Downstream.UNKNOWN, None
                self._begin_query(session, now)

    def _error(
        self, message: GistMessage, code: ErrorCode, destination: tuple[Address, int]
    ) -> None:
        answer = GistMessage(MessageType.ERROR, message.flow, message.sid, error=code)
        self.outputs.append(Datagram(MAGIC + answer.encode(), destination))

    def _forward(
        self,
        data: bytes,
        source: tuple[Address, int],
        destination: tuple[Address, int],
        ttl: int,
        *,
        local: bool,
    ) -> None:
        if not local and ttl > 1:
            self.outputs.append(Datagram(data, destination, source, ttl - 1))

    # Bookkeeping

    def _set_timer(self, session: Session, now: float) -> None:
        """Refresh next if the session is held, else forget it when it has expired."""
        if session.hold_until > now:
            share = 1 - self._random(1)[0] / 1024  # 0.75 to 1, so that sessions spread
            self._timers.set(session, now + share * self._options.refresh)
        else:
            self._timers.set(session, max(session.expires(), now + 1.0))

    def _peer(self, identity: bytes, address: Address, port: int) -> Peer:
        key = (identity, address, port)
        peer = self._peers.get(key)
        if peer is None:
            self._peers[key] = peer = Peer(identity, address, port)
        return peer

    def _info(self, towards: Address) -> PeerInfo:
        validity = int(self._options.validity * 1000)
        return PeerInfo(self._identity, self._address_towards(towards), validity, 64)


def _same(ours: bytes | None, theirs: bytes) -> bool:
    return ours is not None and compare_digest(ours, theirs)
