"""GIST in the event loop: its datagrams, connections and timers, for a node or a sender."""

import asyncio
import os
import ssl
import time
from collections.abc import Callable

from anabranch.services.node.datagrams import DatagramSocket, OwnAddresses, PortTakenError
from anabranch.services.node.streams import Streams
from anabranch.services.signalling.gist.events import Datagram
from anabranch.services.signalling.gist.node import Gist
from anabranch.services.signalling.gist.options import PORT, GistOptions


class Endpoint:
    """One GIST on this machine's sockets.

    Attributes:
        gist: the protocol; after using it call :meth:`pump`.
        on_event: called when GIST may have events, with the time.
        on_timer: called at the time that ``next_timer`` returned.
        next_timer: returns when the layer above wants its timer.
        received, sent: datagrams so far.
    """

    def __init__(
        self,
        identity: bytes,
        options: GistOptions,
        *,
        responder: bool,
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
    ) -> None:
        self.addresses = OwnAddresses()
        self.gist = Gist(
            identity,
            options,
            address_towards=self.addresses.towards,
            random=os.urandom,
            owns=self.addresses.has if responder else lambda address: False,
            responder=responder,
        )
        self._responder = responder
        self._sockets: dict[int, DatagramSocket] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._pumping = self._pump_asked = False
        self.received = self.sent = 0
        self.streams = Streams(
            self.gist,
            time.monotonic,
            self.pump,
            server_tls=server_tls,
            client_tls=client_tls,
        )
        self.on_event: Callable[[float], None] = lambda now: None
        self.on_timer: Callable[[float], None] = lambda now: None
        self.next_timer: Callable[[], float | None] = lambda: None

    def open(self) -> None:
        """Open the sockets and begin.

        Raises:
            PortTakenError: there is none of either IP version.
        """
        port = PORT if self._responder else 0
        refused: PortTakenError | None = None
        for version in (4, 6):
            try:
                made = DatagramSocket(version, port, transparent=self._responder)
            except (PortTakenError, OSError) as error:
                refused = error if isinstance(error, PortTakenError) else refused
                continue
            self._sockets[version] = made
            asyncio.get_running_loop().add_reader(made.socket, self._readable, made)
        if 4 not in self._sockets and 6 not in self._sockets:
            raise refused or PortTakenError("this machine has no IP")

    async def close(self) -> None:
        """Close all sockets."""
        if self._timer is not None:
            self._timer.cancel()
        self._pumping = True  # no more
        await self.streams.close()
        for made in self._sockets.values():
            asyncio.get_running_loop().remove_reader(made.socket)
            made.close()

    def pump(self) -> None:
        """Let everything run that has something to do now."""
        if self._pumping:
            return
        self._pumping = True
        try:
            now = time.monotonic()
            self.on_event(now)
            outputs = self.gist.outputs
            while outputs:
                output = outputs.popleft()
                if isinstance(output, Datagram):
                    made = self._sockets.get(output.destination[0].version)
                    if made is not None:
                        made.send(output)
                        self.sent += 1
                else:
                    self.streams.perform(output)
        finally:
            self._pumping = False
        self._set_timer()

    def pump_soon(self) -> None:
        """Pump once for all who ask for it in this turn of the loop."""
        if not self._pump_asked:
            self._pump_asked = True
            asyncio.get_running_loop().call_soon(self._pump_as_asked)

    def _pump_as_asked(self) -> None:
        self._pump_asked = False
        self.pump()

    def _readable(self, made: DatagramSocket) -> None:
        now = time.monotonic()
        for error in made.errors():
            self.gist.handle_unreachable(error.offender, error.quoted, now)
        for one in made.receive():
            self.received += 1
            destination = one.destination or (one.source[0], 0)
            local = one.destination is None or self.addresses.has(destination[0])
            self.gist.receive_datagram(
                one.data, one.source, destination, now, local=local, ttl=one.ttl
            )
        self.pump()

    def _set_timer(self) -> None:
        times = (self.gist.next_timer(), self.next_timer())
        due = min((one for one in times if one is not None), default=None)
        if due is None:
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.001, due - time.monotonic())
        if self._timer is not None:
            if self._timer.when() <= when:
                return  # it comes early enough, and looks again
            self._timer.cancel()
        self._timer = loop.call_at(when, self._due)

    def _due(self) -> None:
        self._timer = None
        now = time.monotonic()
        self.gist.handle_timer(now)
        self.on_timer(now)
        self.pump()
