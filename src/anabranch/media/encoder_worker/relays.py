"""Streams that arrive ready made and are sent on as they are, in place of what is encoded here.

Packets go from socket to socket in GStreamer. The first one of a stream switches it over, on its
own thread, so that none is lost; silence switches back.
"""

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gio, GLib, Gst  # noqa: E402

if TYPE_CHECKING:
    from anabranch.media.encoder_worker.watch import LOST_AFTER
else:
    from watch import LOST_AFTER

_PACKET = Gst.PadProbeType.BUFFER | Gst.PadProbeType.BUFFER_LIST


class Relay:
    """One stream: its socket, and which of the two is sent.

    Args:
        fd: of its socket; owned from here on.
        selector: in front of its sink; its first pad has what is encoded here.
        sink: whose counter tells whether packets come.
        work: the valve in front of its encoder.
        on_over: called on the main loop when it has switched.
    """

    def __init__(
        self,
        fd: int,
        pipeline: Any,
        selector: Any,
        sink: Any,
        work: Any,
        on_over: Callable[[], None],
    ) -> None:
        self.active = False
        self._pipeline, self._selector, self._sink = pipeline, selector, sink
        self._work, self._on_over = work, on_over
        self._bytes, self._heard = 0, 0.0
        self._rest = selector.get_static_pad("sink_0")
        self._source = Gst.ElementFactory.make("udpsrc", None)
        self._source.set_property("socket", Gio.Socket.new_from_fd(fd))
        self._source.set_property("caps", Gst.Caps.from_string("application/x-rtp"))
        self._source.set_property("retrieve-sender-address", False)
        pipeline.add(self._source)
        self._pad = selector.request_pad_simple("sink_%u")
        self._source.get_static_pad("src").link(self._pad)
        self._await()
        self._source.sync_state_with_parent()

    def owns(self, element: Any) -> bool:
        return bool(element == self._source)

    def _await(self) -> None:
        """Switch over with the next packet."""

        def first(_pad: Any, _info: Any) -> Any:
            # Nothing more is encoded; a packet of the slate that is on its way is a stray one.
            self._work.set_property("drop", True)
            self._selector.set_property("active-pad", self._pad)
            GLib.idle_add(self._switched)
            return Gst.PadProbeReturn.REMOVE

        self._probe = self._source.get_static_pad("src").add_probe(_PACKET, first)

    def _switched(self) -> bool:
        if self._source is not None:
            self.active, self._heard, self._probe = True, time.monotonic(), 0
            self._on_over()
        return False

    def poll(self, now: float) -> bool:
        """Look at the counter; say whether what is encoded here has to take over."""
        count = self._sink.get_property("bytes-to-serve")
        if count != self._bytes:
            self._bytes, self._heard = count, now
        return self.active and now - self._heard > LOST_AFTER

    def rest(self) -> None:
        """Send what is encoded here again, until the next packet comes."""
        if self.active:
            self.active = False
            self._work.set_property("drop", False)
            self._selector.set_property("active-pad", self._rest)
            self._await()

    def close(self) -> None:
        """Remove every element and pad, and close the socket."""
        source, self._source = self._source, None
        source.set_state(Gst.State.NULL)
        self._work.set_property("drop", False)
        self._selector.set_property("active-pad", self._rest)
        source.get_static_pad("src").unlink(self._pad)
        self._selector.release_request_pad(self._pad)
        self._pipeline.remove(source)
        self.active = False


class Relays:
    """All streams that one connection has handed over.

    They stay when the connection breaks off: another one may :meth:`follow` it.

    Args:
        connection: owned from here on.
        sockets: descriptors by stream, owned from here on.
        make: builds the relay of a stream, by name and descriptor.
        force_key: has a key frame made.
        on_end: called on the main loop when the other end says that it is over.
        on_change: called when another set of streams is sent on.
    """

    def __init__(
        self,
        connection: socket.socket,
        sockets: dict[str, int],
        make: Callable[[str, int, Callable[[], None]], Relay],
        force_key: Callable[[str], None],
        on_end: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self._force_key = force_key
        self._on_end, self._on_change = on_end, on_change
        self._relays = {name: make(name, fd, on_change) for name, fd in sockets.items()}
        self._connection, self._watch = connection, 0
        self.follow(connection)

    def follow(self, connection: socket.socket) -> None:
        """Go on with another connection in place of one that broke off."""
        if self._watch:
            GLib.source_remove(self._watch)
        if connection is not self._connection:
            self._connection.close()
        self._connection = connection
        self._watch = GLib.unix_fd_add_full(
            GLib.PRIORITY_DEFAULT,
            connection.fileno(),
            GLib.IOCondition.IN | GLib.IOCondition.HUP,
            self._on_input,
        )

    @property
    def active(self) -> list[str]:
        """The streams that are sent on now."""
        return [name for name, relay in self._relays.items() if relay.active]

    def owns(self, element: Any) -> bool:
        return any(relay.owns(element) for relay in self._relays.values())

    def _on_input(self, _fd: int, _condition: Any) -> bool:
        try:
            said = self._connection.recv(4096)
        except OSError:
            said = b""
        self._watch = 0
        if said:
            self._on_end()
        return False  # nothing else comes: who hands over has died, or is done

    def poll(self, now: float) -> None:
        """See who has fallen silent; called every 50 ms."""
        for name, relay in self._relays.items():
            if relay.poll(now):
                self._force_key(name)
                relay.rest()
                self._on_change()

    def close(self) -> None:
        """Let go of all sockets, then say so by closing the connection."""
        if self._watch:
            GLib.source_remove(self._watch)
        for name, relay in self._relays.items():
            self._force_key(name)
            relay.close()
        self._relays.clear()
        self._connection.close()
