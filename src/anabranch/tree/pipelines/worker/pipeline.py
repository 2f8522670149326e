"""The GStreamer pipeline of a checked graph. Nothing here runs per packet."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

if TYPE_CHECKING:
    from anabranch.tree.pipelines.worker.reception import Reception
else:
    from reception import Reception

_RECEIVE_BUFFER = 4 * 1024 * 1024


class Outlet:
    """A sink and its destinations; counts go on when one of them leaves."""

    def __init__(self, sink: Any, to: list[list[Any]]) -> None:
        self._sink = sink
        self._to: set[tuple[str, int]] = set()
        self._packets = self._octets = 0
        self.route(to)

    def route(self, to: list[list[Any]]) -> None:
        """Send to exactly these: who stays misses no packet."""
        wanted = {(host, port) for host, port in to}
        for client in wanted - self._to:
            self._sink.emit("add", *client)
        for client in self._to - wanted:
            packets, octets = self._sent(client)
            self._packets += packets
            self._octets += octets
            self._sink.emit("remove", *client)
        self._to = wanted

    def stats(self) -> list[int]:
        """Return packets and octets sent, over all destinations."""
        sent = [(self._packets, self._octets), *(self._sent(client) for client in self._to)]
        return [sum(packets for packets, _ in sent), sum(octets for _, octets in sent)]

    def _sent(self, client: tuple[str, int]) -> tuple[int, int]:
        stats = self._sink.emit("get-stats", *client)
        return stats.get_value("packets-sent"), stats.get_value("bytes-sent")


class Pipeline:
    """Builds what the configuration says.

    Args:
        config: see ``worker_config`` in :mod:`anabranch.tree.pipelines.definitions`.
        on_playing: called when it runs.
        on_error: called when it broke or ended, with the reason.

    Raises:
        RuntimeError: an element is missing, or two cannot be linked.
    """

    def __init__(
        self,
        config: dict[str, Any],
        on_playing: Callable[[], None],
        on_error: Callable[[str], None],
    ) -> None:
        self._on_playing = on_playing
        self._on_error = on_error
        self._pipeline = Gst.Pipeline.new(None)
        self._receptions: dict[str, Reception] = {}
        self._outlets: dict[str, Outlet] = {}
        self._ends: dict[str, tuple[Any, Any]] = {}
        for element in config["elements"]:
            self._ends[element["name"]] = getattr(self, f"_build_{element['kind']}")(element)
        for left, right in config["links"]:
            if not self._ends[left][1].link(self._ends[right][0]):
                raise RuntimeError(f"{left} and {right} do not fit together")

    def start(self) -> None:
        bus = self._pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self._on_message_error)
        bus.connect("message::eos", lambda *_: self._on_error("the stream has ended"))
        bus.connect("message::state-changed", self._on_state)
        self._pipeline.set_state(Gst.State.PLAYING)

    def stop(self) -> None:
        self._pipeline.set_state(Gst.State.NULL)

    def route(self, outlet: str, to: list[list[Any]]) -> None:
        self._outlets[outlet].route(to)

    def stats(self) -> dict[str, Any]:
        """Return ``sources`` by stream and ``outlets``, each a list of numbers.

        Of sources: packets and octets received, packets lost, jitter in ms.
        Of outlets: packets and octets sent.
        """
        return {
            "sources": {name: each.stats() for name, each in self._receptions.items()},
            "outlets": {name: each.stats() for name, each in self._outlets.items()},
        }

    def _build_source(self, config: dict[str, Any]) -> tuple[Any, Any]:
        socket = self._make(
            "udpsrc",
            config["name"],
            address=config["address"],
            port=config["port"],
            caps=config["caps"],
            buffer_size=_RECEIVE_BUFFER,
            reuse=False,
            auto_multicast=False,
            retrieve_sender_address=False,
        )
        # 1: the first packet of a sender counts, or one is missing in all that is said of loss
        session = self._make("rtpsession", f"{config['name']}.session", probation=1)
        session.connect("request-pt-map", _caps_of(config["caps"]))
        pad = session.request_pad_simple("recv_rtp_sink")
        socket.get_static_pad("src").link(pad)
        self._receptions[config["stream"]] = Reception(session)
        return None, session

    def _build_outlet(self, config: dict[str, Any]) -> tuple[Any, Any]:
        rtp = self._make("capsfilter", f"{config['name']}.rtp", caps="application/x-rtp")
        sink = self._make(
            "multiudpsink",
            config["name"],
            sync=False,
            bind_address=config["address"],
            auto_multicast=False,
            loop=False,
            ttl=config["ttl"],
            ttl_mc=config["ttl"],
        )
        sink.set_property("async", False)
        if config["interface"] is not None:
            sink.set_property("multicast-iface", config["interface"])
        rtp.link(sink)
        self._outlets[config["name"]] = Outlet(sink, config["to"])
        return rtp, None

    def _build_element(self, config: dict[str, Any]) -> tuple[Any, Any]:
        element = self._make(config["factory"], config["name"], **config["properties"])
        return element, element

    def _make(self, factory: str, name: str, **properties: Any) -> Any:
        element = Gst.ElementFactory.make(factory, name)
        if element is None:
            raise RuntimeError(f"this node has no {factory}")
        for key, value in properties.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            Gst.util_set_object_arg(element, key.replace("_", "-"), text)
        self._pipeline.add(element)
        return element

    def _on_state(self, _bus: Any, message: Any) -> None:
        if message.src == self._pipeline:
            _, new, _ = message.parse_state_changed()
            if new == Gst.State.PLAYING:
                self._on_playing()

    def _on_message_error(self, _bus: Any, message: Any) -> None:
        error, debug = message.parse_error()
        _, _, reason = (debug or "").partition("\n")  # its first line is a place in a source
        self._on_error(f"{message.src.get_name()}: {error.message} {reason}".rstrip())


def _caps_of(caps: str) -> Callable[[Any, int], Any]:
    """Return what tells a session the clock rate of a payload type; it asks once for each."""

    def caps_of(_session: Any, payload_type: int) -> Any:
        made = Gst.Caps.from_string(caps)
        made.set_value("payload", payload_type)
        return made

    return caps_of
