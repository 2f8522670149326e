"""The GStreamer pipeline: slate and feed in, RTP out. Nothing here runs per frame or packet."""

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import GLib, Gst, GstVideo  # noqa: E402

if TYPE_CHECKING:
    from anabranch.media.encoder_worker.feed import Feed
    from anabranch.media.encoder_worker.handover import take_sockets
    from anabranch.media.encoder_worker.relays import Relay, Relays
    from anabranch.media.encoder_worker.transport import Tap, TransportStream
    from anabranch.media.encoder_worker.watch import KeyframeLimit
else:
    from feed import Feed
    from handover import take_sockets
    from relays import Relay, Relays
    from transport import Tap, TransportStream
    from watch import KeyframeLimit

Emit = Callable[..., None]
SAMPLE_RATE = 48000
_HANDOVER_S = 0.5
"""Seconds for whoever connects to hand over sockets: nothing else is done meanwhile."""
_RELAYED = ("out", "sink", "work")
"""What a stream that arrives ready made has to do with: selector, sink, valve of its encoder."""


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def audio_caps() -> str:
    return (
        f"audio/x-raw,format=S16LE,layout=interleaved,rate={SAMPLE_RATE},channels=2,"
        "channel-mask=(bitmask)0x3"
    )


def video_caps(config: dict[str, Any]) -> str:
    """Return the exact caps of the raw picture; slate and feed must not differ in one field."""
    return (
        f"video/x-raw,format=I420,width={config['width']},height={config['height']},"
        f"framerate={config['framerate']}/1,pixel-aspect-ratio=1/1,interlace-mode=progressive,"
        "colorimetry=bt601"
    )


def describe_pipeline(config: dict[str, Any]) -> str:
    """Return the launch text of everything but the feed."""
    size = config["width"], config["height"]
    caps = video_caps(config)
    lines = [
        "videotestsrc num-buffers=1 pattern=solid-color foreground-color=0xff14202b"
        f" ! {caps} ! textoverlay name=title valignment=center halignment=center"
        f" font-desc={_quote('Sans Bold 22')} ! textoverlay name=subtitle"
        f" valignment=bottom halignment=center ypad=40 font-desc={_quote('Sans 14')}"
        f" ! capssetter replace=true join=false caps={_quote(caps)}"
        " ! imagefreeze is-live=true ! videosel.",
        # One segment for all: at a change of segment the encoders would drain and begin anew.
        "input-selector name=videosel sync-streams=false drop-backwards=true"
        " ! identity single-segment=true silent=true ! tee name=pictures allow-not-linked=true",
        f"audiotestsrc wave=silence is-live=true samplesperbuffer=960 ! {audio_caps()} ! audiosel.",
        "input-selector name=audiosel sync-streams=false drop-backwards=true"
        " ! identity single-segment=true silent=true"
        f" ! audiorate skip-to-first=true tolerance={5 * Gst.MSECOND}"
        " ! queue max-size-buffers=50 max-size-time=0 max-size-bytes=0 leaky=downstream"
        f" ! valve name=work-{config['audio']['name']}"
        f" ! opusenc bitrate={config['audio']['bitrate_kbps'] * 1000} frame-size=20"
        " bitrate-type=constrained-vbr perfect-timestamp=false"
        f" ! rtpopuspay {_pay(config, config['audio'], config['audio_pt'])}"
        f" ! {_sink(config, config['audio'])}",
    ]
    for stream in config["streams"]:
        scale = ""
        if (stream["width"], stream["height"]) != size:
            scale = (
                " ! videoscale method=bilinear add-borders=true n-threads=1"
                f" ! video/x-raw,width={stream['width']},height={stream['height']},"
                "pixel-aspect-ratio=1/1"
            )
        rate = ""
        if stream["framerate"] != config["framerate"]:
            rate = f" ! videorate drop-only=true ! video/x-raw,framerate={stream['framerate']}/1"
        lines.append(
            "pictures. ! queue max-size-buffers=4 max-size-bytes=0 max-size-time=0 leaky=downstream"
            f" ! valve name=work-{stream['name']}{rate}{scale}"
            f" ! x264enc name=enc-{stream['name']} tune=zerolatency"
            f" speed-preset={config['preset']} bitrate={stream['bitrate_kbps']}"
            f" vbv-buf-capacity={config['vbv_ms']} key-int-max={stream['gop_frames']} bframes=0"
            " byte-stream=true threads=1 option-string=scenecut=0"
            " ! video/x-h264,profile=constrained-baseline ! h264parse config-interval=-1"
            " ! rtph264pay config-interval=-1 aggregate-mode=zero-latency"
            f" {_pay(config, stream, config['video_pt'])} ! {_sink(config, stream)}"
        )
    return "\n".join(lines)


def _pay(config: dict[str, Any], stream: dict[str, Any], payload_type: int) -> str:
    # Offset zero for all: equal RTP time in seconds is equal time, with no RTCP to say so.
    return (
        f"name=pay-{stream['name']} pt={payload_type} ssrc={stream['ssrc']} mtu={config['mtu']}"
        " timestamp-offset=0 perfect-rtptime=false"
    )


def _sink(config: dict[str, Any], stream: dict[str, Any]) -> str:
    name = stream["name"]
    text = f"{sink(config)} name=sink-{name}"
    return f"input-selector name=out-{name} sync-streams=false ! tee name=sent-{name} ! {text}"


def sink(config: dict[str, Any]) -> str:
    """Return what sends packets as they come; see :func:`send_to`."""
    text = (
        "multiudpsink sync=false async=false auto-multicast=false"
        f" loop=false ttl={config['ttl']} ttl-mc={config['ttl']}"
    )
    if config["interface"]:
        text += f" multicast-iface={config['interface']}"
    return text


def send_to(sink: Any, targets: list[list[Any]]) -> None:
    """Have a sink send to exactly these ``[host, port]``, IPv4 or IPv6; who stays misses nothing.

    Its property ``clients`` can be read for both, and written for IPv4 alone.
    """
    wanted = {(str(host), int(port)) for host, port in targets}
    listed = [each.rpartition(":") for each in (sink.get_property("clients") or "").split(",")]
    there = {(host, int(port)) for host, colon, port in listed if colon}
    for host, port in sorted(there - wanted):
        sink.emit("remove", host, port)
    for host, port in sorted(wanted - there):
        sink.emit("add", host, port)


class Encoder:
    """The running pipeline; every method is called on the main loop."""

    def __init__(self, config: dict[str, Any], emit: Emit, fail: Callable[[str], None]) -> None:
        self._config = config
        self._emit = emit
        self._fail = fail
        self._limit = KeyframeLimit()
        self.pipeline = Gst.parse_launch(describe_pipeline(config))
        for stream in (*config["streams"], config["audio"]):
            send_to(self.pipeline.get_by_name(f"sink-{stream['name']}"), stream["targets"])
        self._selectors = {
            "video": self.pipeline.get_by_name("videosel"),
            "audio": self.pipeline.get_by_name("audiosel"),
        }
        self._rest = {name: sel.get_static_pad("sink_0") for name, sel in self._selectors.items()}
        self.pipeline.get_by_name("title").set_property("text", config["title"])
        self._slate_text = config["slate_text"]
        self.pipeline.get_by_name("subtitle").set_property("text", self._slate_text)
        self._streams = [*(s["name"] for s in config["streams"]), config["audio"]["name"]]
        self._transport: dict[str, TransportStream] = {}
        self._feed: Feed | None = None
        self._relays: Relays | None = None
        self._relayed: list[str] = []
        self._epoch_ms: int | None = None
        self._shown = {"video": "slate", "audio": "silence"}
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self._on_error)
        bus.connect("message::warning", self._on_warning)
        self._last_warning = 0.0

    def start(self) -> None:
        for name, pad in self._rest.items():
            self._selectors[name].set_property("active-pad", pad)
        if self.pipeline.set_state(Gst.State.PLAYING) == Gst.StateChangeReturn.FAILURE:
            self._fail("the pipeline does not start")
            return
        self.pipeline.get_state(5 * Gst.SECOND)
        for stream in self._config["transport"]["streams"]:
            self._send_transport(stream, stream["targets"])
        self._epoch_ms = round((time.time() - self.running_time()) * 1000)
        self._emit("ready", epoch_ms=self._epoch_ms)
        GLib.timeout_add(50, self._poll)

    def tell(self) -> None:
        """Say again what a director that comes later has missed."""
        if self._epoch_ms is not None:
            self._emit("ready", epoch_ms=self._epoch_ms)
            self._emit("source", **self._shown, relayed=self._relayed)

    def stop(self) -> None:
        self.drop_feed()
        self.drop_relays()
        self.pipeline.set_state(Gst.State.NULL)

    def running_time(self) -> float:
        """Return seconds since the pipeline started."""
        return float(self.pipeline.get_clock().get_time() - self.pipeline.get_base_time()) / 1e9

    # -- the feed ------------------------------------------------------------------------------

    def take_feed(self, fd: int) -> None:
        """Show what arrives on the connected socket ``fd``; the feed so far, if any, is over."""
        self.drop_feed()
        self._feed = Feed(
            fd,
            self.pipeline,
            self._selectors,
            {"video": video_caps(self._config), "audio": audio_caps()},
            self._config,
            self.running_time,
            self.drop_feed,
        )
        self._emit("feed", connected=True)

    def drop_feed(self, detail: str | None = None) -> None:
        feed, self._feed = self._feed, None
        if feed is None:
            return
        self._show("video", None)
        self._show("audio", None)
        self._tell_shown()
        feed.close()
        if detail:
            self._emit("error", detail=detail)
        self._emit("feed", connected=False)

    # -- streams that arrive ready made --------------------------------------------------------

    def take_relays(self, connection: socket.socket) -> None:
        """Send on what arrives at the sockets that come over ``connection``, until it says so."""
        connection.settimeout(_HANDOVER_S)
        try:
            sockets = take_sockets(connection, self._streams)
        except (OSError, ValueError) as error:
            connection.close()
            self._emit("error", detail=str(error))
            return
        if sockets is None and self._relays is not None:
            self._relays.follow(connection)
            return
        self.drop_relays()

        def make(name: str, fd: int, on_over: Callable[[], None]) -> Relay:
            selector, sink, work = (
                self.pipeline.get_by_name(f"{kind}-{name}") for kind in _RELAYED
            )
            return Relay(fd, self.pipeline, selector, sink, work, on_over)

        self._relays = Relays(
            connection, sockets or {}, make, self._force, self.drop_relays, self._tell_shown
        )

    def drop_relays(self, detail: str | None = None) -> None:
        relays, self._relays = self._relays, None
        if relays is None:
            return
        relays.close()
        self._tell_shown()
        if detail:
            self._emit("error", detail=detail)

    # -- what is shown -------------------------------------------------------------------------

    def _show(self, name: str, pad: Any) -> None:
        pad = pad or self._rest[name]
        if self._selectors[name].get_property("active-pad") == pad:
            return
        if name == "video":
            # So many frames the queue to the encoder may hold that were not sent yet.
            self._forbid_steps_back(4 if pad == self._rest[name] else 1)
        self._selectors[name].set_property("active-pad", pad)

    def _forbid_steps_back(self, queued: int) -> None:
        """Drop frames around a switch as far as they are older than what was sent before them.

        A feed may run a little ahead of the clock. The check watches one second of frames, the
        last ones before the switch included (sound is kept in order by its audiorate).
        """
        pay = self.pipeline.get_by_name(f"pay-{self._streams[0]}")
        newest = pay.get_property("timestamp") + queued * 90000 // self._config["framerate"]
        left = self._config["framerate"]

        def check(_pad: Any, info: Any) -> Any:
            nonlocal newest, left
            stamp = info.get_buffer().pts * 9 // 100_000
            left -= 1
            if 0 < (stamp - newest) % 2**32 < 2**31:
                newest = stamp
                return Gst.PadProbeReturn.REMOVE if left <= 0 else Gst.PadProbeReturn.OK
            return Gst.PadProbeReturn.DROP

        pictures = self.pipeline.get_by_name("pictures").get_static_pad("sink")
        pictures.add_probe(Gst.PadProbeType.BUFFER, check)

    def _tell_shown(self) -> None:
        shown = {}
        for name, rest in (("video", "slate"), ("audio", "silence")):
            at_rest = self._selectors[name].get_property("active-pad") == self._rest[name]
            shown[name] = rest if at_rest else "live"
        relayed = self._relays.active if self._relays is not None else []
        if any(name != self._streams[-1] for name in relayed):
            shown["video"] = "live"
        if self._streams[-1] in relayed:
            shown["audio"] = "live"
        if (shown, relayed) != (self._shown, self._relayed):
            self._shown, self._relayed = shown, relayed
            # The slate of a source that has sound alone does not say that it is waited for.
            text = "Sound only" if shown["audio"] == "live" else self._slate_text
            self.pipeline.get_by_name("subtitle").set_property("text", text)
            self._emit("source", **shown, relayed=relayed)

    def _poll(self) -> bool:
        now = time.monotonic()
        for name in self._limit.due(now):
            self._force(name)
        if self._relays is not None:
            self._relays.poll(now)
        feed = self._feed
        if feed is None:
            return True
        verdict = feed.poll(now)
        if verdict.runaway:
            self.drop_feed("the feed's timestamps ran away")
            return True
        for name, live in (("video", verdict.video), ("audio", verdict.audio)):
            pad = feed.pad(name) if live else None
            self._show(name, pad)
        self._tell_shown()
        return True

    # -- commands ------------------------------------------------------------------------------

    def keyframe(self, stream: str | None) -> None:
        """Ask for a key frame of one or every rendition, as far as the limit allows."""
        for name in self._streams[:-1]:
            if stream in (None, name) and self._limit.request(name, time.monotonic()):
                self._force(name)

    def _force(self, name: str) -> None:
        if name == self._streams[-1]:
            return  # the sound has none
        event = GstVideo.video_event_new_upstream_force_key_unit(Gst.CLOCK_TIME_NONE, True, 0)
        self.pipeline.get_by_name(f"enc-{name}").get_static_pad("src").send_event(event)

    def targets(self, stream: str, targets: list[list[Any]]) -> None:
        """Send a stream to exactly these ``[host, port]`` from now on."""
        for each in self._config["transport"]["streams"]:
            if each["name"] == stream:
                self._send_transport(each, targets)
                return
        sink = self.pipeline.get_by_name(f"sink-{stream}")
        if sink is None:
            raise ValueError(f"no stream named {stream!r}")
        send_to(sink, targets)

    def _send_transport(self, stream: dict[str, Any], targets: list[list[Any]]) -> None:
        """Have a transport stream be made while it goes somewhere, and only then."""
        name = stream["name"]
        there = self._transport.get(name)
        if there is not None and targets:
            send_to(there.sink, targets)
        elif there is not None:
            self._transport.pop(name).close()
        elif targets:
            made = self._transport[name] = TransportStream(
                self.pipeline,
                Tap(self.pipeline.get_by_name(f"sent-{stream['of']}"), self._config["video_pt"]),
                Tap(
                    self.pipeline.get_by_name(f"sent-{self._config['audio']['name']}"),
                    self._config["audio_pt"],
                ),
                self._config["transport"]["sound_kbps"],
                sink(self._config),
            )
            send_to(made.sink, targets)

    def stats(self) -> dict[str, Any]:
        """Return bytes sent and the payloader's position for every stream."""
        streams = {}
        for name in self._streams:
            pay = self.pipeline.get_by_name(f"pay-{name}")
            sink = self.pipeline.get_by_name(f"sink-{name}")
            streams[name] = {
                "bytes": sink.get_property("bytes-served"),
                "seq": pay.get_property("seqnum"),
                "timestamp": pay.get_property("timestamp"),
            }
        return {
            "streams": streams,
            "transport": {name: each.bytes_sent for name, each in self._transport.items()},
            "running_s": round(self.running_time(), 3),
            "offset_s": self._feed.offset if self._feed is not None else None,
        }

    # -- the bus -------------------------------------------------------------------------------

    def _on_error(self, _bus: Any, message: Any) -> None:
        error, debug = message.parse_error()
        feed = self._feed
        if feed is not None and feed.owns(message.src):
            self.drop_feed(f"feed: {error.message}")
        elif self._relays is not None and self._relays.owns(message.src):
            self.drop_relays(f"layers: {error.message}")
        elif (lost := self._transport_of(message.src)) is not None:
            # The other streams go on; it is made anew when somebody wants it anew.
            self._transport.pop(lost).close()
            self._emit("error", detail=f"{lost}: {error.message}")
        elif message.src != self.pipeline and not message.src.has_as_ancestor(self.pipeline):
            return  # the last words of a feed that is gone
        else:
            self._fail(f"{message.src.get_name()}: {error.message} ({debug})")

    def _transport_of(self, element: Any) -> str | None:
        return next((name for name, each in self._transport.items() if each.owns(element)), None)

    def _on_warning(self, _bus: Any, message: Any) -> None:
        now = time.monotonic()
        if now - self._last_warning >= 5.0:
            self._last_warning = now
            warning, _debug = message.parse_warning()
            self._emit("warning", detail=f"{message.src.get_name()}: {warning.message}")
