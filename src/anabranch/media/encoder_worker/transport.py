"""A transport stream (ISO/IEC 13818-1): a rendition as it is coded, and the sound as AAC, over UDP.

Whoever changes from one channel's to another's sees one stream with a hole in the picture until
the next key frame: all have the same PIDs and tables, and tell the time of one clock.
"""

from functools import partial
from typing import Any

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

_PICTURE_PID, _SOUND_PID = 256, 257
_PACKETS = 7
"""Of 188 bytes each in a datagram; as many as receivers expect (ETSI TS 102 034, section 7.1.1)."""


class Tap:
    """Where RTP of the channel's own can be had: a tee, and the payload type there."""

    def __init__(self, tee: Any, payload_type: int) -> None:
        self.tee = tee
        self.payload_type = payload_type


class TransportStream:
    """A bin beside the pipeline's own streams, made of what these send.

    So it has what viewers have, be it encoded here or passed on as a publisher sent it.

    Args:
        picture: of a rendition.
        sound: of the channel.
        sound_kbps: bitrate of the AAC.
        sink: launch text of what sends it.
    """

    def __init__(self, pipeline: Any, picture: Tap, sound: Tap, sound_kbps: int, sink: str) -> None:
        self._pipeline = pipeline
        self._bin = Gst.parse_bin_from_description(
            f"mpegtsmux name=mux alignment={_PACKETS} ! {sink} name=sink"
            f" {_take('picture', 'video,clock-rate=90000,encoding-name=H264', picture)}"
            " ! rtph264depay ! h264parse config-interval=-1"
            f" ! video/x-h264,stream-format=byte-stream,alignment=au ! mux.sink_{_PICTURE_PID}"
            f" {_take('sound', 'audio,clock-rate=48000,encoding-name=OPUS', sound)}"
            " ! rtpopusdepay ! opusdec ! audioconvert ! audio/x-raw,rate=48000,channels=2"
            f" ! voaacenc bitrate={sound_kbps * 1000} ! aacparse ! mux.sink_{_SOUND_PID}",
            False,
        )
        pipeline.add(self._bin)
        self._ways = [
            self._make_way(tap.tee, name) for tap, name in ((picture, "picture"), (sound, "sound"))
        ]
        self._bin.sync_state_with_parent()
        for out, inlet in self._ways:
            out.link(inlet)

    def _make_way(self, tee: Any, name: str) -> tuple[Any, Any]:
        inlet = Gst.GhostPad.new(name, self._bin.get_by_name(name).get_static_pad("sink"))
        inlet.set_active(True)
        self._bin.add_pad(inlet)
        out = tee.request_pad_simple("src_%u")
        # Every channel's pipeline began at another time of the one clock that all share.
        out.set_offset(self._pipeline.get_base_time())
        return out, inlet

    @property
    def bytes_sent(self) -> int:
        return int(self.sink.get_property("bytes-served"))

    @property
    def sink(self) -> Any:
        """The element that sends."""
        return self._bin.get_by_name("sink")

    def owns(self, element: Any) -> bool:
        return bool(element == self._bin or element.has_as_ancestor(self._bin))

    def close(self) -> None:
        """Remove it while all else goes on."""
        left = len(self._ways)

        def cut(inlet: Any, out: Any, _info: Any) -> Any:
            # Nothing is on its way through the pad now.
            out.unlink(inlet)
            GLib.idle_add(remove, out)
            return Gst.PadProbeReturn.REMOVE

        def remove(out: Any) -> bool:
            nonlocal left
            out.get_parent_element().release_request_pad(out)
            left -= 1
            if not left:
                self._bin.set_state(Gst.State.NULL)
                self._pipeline.remove(self._bin)
            return False

        for out, inlet in self._ways:
            out.add_probe(Gst.PadProbeType.IDLE, partial(cut, inlet))


def _take(name: str, media: str, tap: Tap) -> str:
    # What a publisher's packets are is not told where they are passed on.
    caps = f"application/x-rtp,media={media},payload={tap.payload_type}"
    return (
        f"queue name={name} max-size-buffers=200 max-size-bytes=0 max-size-time=0 leaky=downstream"
        f" ! capssetter replace=true join=false caps={caps}"
    )
