"""The live branch: raw Matroska from a socket, made to fit the pipeline's time."""

import gc
import os
import time
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

if TYPE_CHECKING:
    from anabranch.media.encoder_worker.watch import Verdict, Watch
else:
    from watch import Watch

_READ = 256 * 1024
_DRIFT_PERIOD = 0.5


class _Outlet:
    """The end of one line of the feed: its counter, its valve and the selector's pad."""

    def __init__(self, counter: Any, valve: Any, pad: Any, selector: Any, sink: Any) -> None:
        self.counter = counter
        self.valve = valve
        self.pad = pad
        self.selector = selector
        self.sink = sink


class Feed:
    """One connection of the feed and the bin that demultiplexes it.

    Args:
        fd: connected socket; owned by the feed from here on.
        selectors: the input-selectors by line name, ``video`` and ``audio``.
        caps: the exact caps each selector expects.
        running_time: the pipeline's running time in seconds.
        on_end: called on the main loop when the feed ended or broke, with the reason or None.
    """

    def __init__(
        self,
        fd: int,
        pipeline: Any,
        selectors: dict[str, Any],
        caps: dict[str, str],
        config: dict[str, Any],
        running_time: Callable[[], float],
        on_end: Callable[[str | None], None],
    ) -> None:
        self._fd = fd
        self._pipeline = pipeline
        self._selectors = selectors
        self._caps = caps
        self._size = config["width"], config["height"]
        self._running_time = running_time
        self._on_end = on_end
        self._watch = Watch(config["framerate"])
        self._outlets: dict[str, _Outlet] = {}
        self._probing: str | None = None
        self._probed_at = 0.0
        self._closed = False
        self.offset: float | None = None
        self._bin = Gst.Bin.new(None)
        source = self._make("fdsrc", fd=fd, blocksize=_READ)
        # 0: a gap in the timestamps stays one; a new segment would hide it from one line only.
        demux = self._make("matroskademux", **{"max-gap-time": 0})
        source.link(demux)
        self._demux, self._signal = demux, demux.connect("pad-added", self._on_pad)
        pipeline.add(self._bin)
        self._bin.sync_state_with_parent()

    def _make(self, kind: str, **properties: Any) -> Any:
        element = Gst.ElementFactory.make(kind, None)
        if element is None:
            raise RuntimeError(f"GStreamer has no element {kind!r}")
        for name, value in properties.items():
            element.set_property(name, value)
        self._bin.add(element)
        return element

    def _on_pad(self, _demux: Any, pad: Any) -> None:
        """Build the line behind a new pad of the demultiplexer; runs on the streaming thread."""
        structure = pad.get_current_caps().get_structure(0)
        name = {"video/x-raw": "video", "audio/x-raw": "audio"}.get(structure.get_name())
        if name is None or name in self._outlets or self._closed:
            self._end(f"feed: {structure.get_name()} is not expected")
            return
        if name == "video":
            size = structure.get_value("width"), structure.get_value("height")
            if size != self._size or structure.get_value("format") != "I420":
                self._end(f"feed: the picture is {structure.to_string()}")
                return
            limits = {"max-size-buffers": 8}
            # Only with an averaging period does it pass a frame on at once, not with the next.
            counter = self._make("videorate", **{"drop-only": True, "average-period": Gst.SECOND})
        else:
            wanted = Gst.Caps.from_string("audio/x-raw,format=S16LE,rate=48000,channels=2")
            if not pad.get_current_caps().can_intersect(wanted):
                self._end(f"feed: the sound is {structure.to_string()}")
                return
            limits = {"max-size-buffers": 0, "max-size-time": Gst.SECOND // 2}
            counter = self._make(
                "audiorate", **{"skip-to-first": True, "tolerance": 5 * Gst.MSECOND}
            )
        queue = self._make(
            "queue",
            **{"max-size-bytes": 0, "max-size-time": 0, **limits},
            leaky=2,
        )
        setter = self._make(
            "capssetter", replace=True, join=False, caps=Gst.Caps.from_string(self._caps[name])
        )
        valve = self._make("valve")
        chain = [queue, setter, counter, valve]
        for left, right in pairwise(chain):
            left.link(right)
        source = Gst.GhostPad.new(name, valve.get_static_pad("src"))
        source.set_active(True)
        self._bin.add_pad(source)
        source.add_probe(Gst.PadProbeType.EVENT_DOWNSTREAM, self._on_event)
        selector = self._selectors[name]
        sink = selector.request_pad_simple("sink_%u")
        source.link(sink)
        self._outlets[name] = _Outlet(counter, valve, source, selector, sink)
        for element in reversed(chain):
            element.sync_state_with_parent()
        pad.link(queue.get_static_pad("sink"))

    def _on_event(self, _pad: Any, info: Any) -> Any:
        """Keep the end of the feed from the encoder (events only, a few per feed)."""
        if info.get_event().type == Gst.EventType.EOS:
            self._end(None)
            return Gst.PadProbeReturn.DROP
        return Gst.PadProbeReturn.OK

    def _end(self, detail: str | None) -> None:
        def tell() -> bool:
            if not self._closed:
                self._on_end(detail)
            return False

        GLib.idle_add(tell)

    def owns(self, element: Any) -> bool:
        return self._bin is not None and bool(
            element == self._bin or element.has_as_ancestor(self._bin)
        )

    def pad(self, name: str) -> Any:
        """Return the selector's pad of a line, or None if the feed has no such line."""
        outlet = self._outlets.get(name)
        return outlet.sink if outlet else None

    def poll(self, now: float) -> "Verdict":
        """Read the counters and see to the feed's time; called every 50 ms."""
        counts = {n: o.counter.get_property("in") for n, o in list(self._outlets.items())}
        verdict = self._watch.poll(now, counts.get("video"), counts.get("audio"))
        if verdict.anchor is not None and self._probing is None:
            self._probe(verdict.anchor, self._anchor)
        elif self._watch.anchored and now - self._probed_at >= _DRIFT_PERIOD:
            self._probed_at = now
            self._probe("video" if verdict.video else "audio", self._check_drift)
        return verdict

    def _probe(self, name: str, use: Callable[[float], None]) -> None:
        """Measure the next buffer of a line once: ``use`` gets its lateness in seconds."""
        if self._probing is not None:
            return
        self._probing = name

        def measure(pad: Any, info: Any) -> Any:
            segment = pad.get_sticky_event(Gst.EventType.SEGMENT, 0).parse_segment()
            running = segment.to_running_time(Gst.Format.TIME, info.get_buffer().pts)
            lateness = self._running_time() - running / 1e9

            def tell() -> bool:
                self._probing = None
                if not self._closed:
                    use(lateness)
                return False

            GLib.idle_add(tell)
            return Gst.PadProbeReturn.REMOVE

        # Before the outlet's offset is added: on the valve's input.
        valve = self._outlets[name].valve
        valve.get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, measure)

    def _anchor(self, lateness: float) -> None:
        self._set_offset(lateness)
        self._watch.anchored = True
        self._probed_at = time.monotonic()

    def _check_drift(self, lateness: float) -> None:
        if self.offset is None or not self._watch.anchored:
            return
        correction = self._watch.drift(lateness - self.offset)
        if correction > 0:
            self._set_offset(self.offset + correction)
        elif correction < 0:
            # Time must not step back for the encoder: shut the valves for as long as it would.
            target = self.offset + correction
            self._open(False)
            GLib.timeout_add(int(-correction * 1000), self._reopen, target)

    def _reopen(self, offset: float) -> bool:
        if not self._closed:
            self._set_offset(offset)
            self._open(True)
        return False

    def _open(self, is_open: bool) -> None:
        for outlet in self._outlets.values():
            outlet.valve.set_property("drop", not is_open)

    def _set_offset(self, seconds: float) -> None:
        self.offset = seconds
        for outlet in self._outlets.values():
            outlet.pad.set_offset(int(seconds * 1e9))

    def close(self) -> None:
        """Remove every element, pad and descriptor of the feed."""
        self._closed = True
        self._bin.set_state(Gst.State.NULL)
        for outlet in self._outlets.values():
            outlet.pad.unlink(outlet.sink)
            outlet.selector.release_request_pad(outlet.sink)
        self._outlets.clear()
        self._pipeline.remove(self._bin)
        os.close(self._fd)
        # Closures and elements hold each other; GStreamer's part is large and unseen by the
        # collector, which therefore would come late.
        self._demux.disconnect(self._signal)
        self._demux = self._bin = None
        gc.collect()
