"""A WHEP player that is not ours: GStreamer's webrtcbin, with Debian's libnice and OpenSSL.

``/usr/bin/python3 gst_whep.py URL [--seconds N] [--frames N]`` offers H.264 and Opus to receive,
trickles its candidates by PATCH, decodes what comes until it has had enough of it or its time is
up, leaves, and prints what it saw as one JSON object. ``--check`` prints what is missing to do so.

It is run by the system's Python, which has GStreamer's bindings, and imports nothing else.
"""

import argparse
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

NEEDED = {
    "webrtcbin": "gstreamer1.0-plugins-bad",
    "nicesrc": "gstreamer1.0-nice",
    "dtlsdec": "gstreamer1.0-plugins-bad",
    "srtpdec": "gstreamer1.0-plugins-bad",
    "rtph264depay": "gstreamer1.0-plugins-good",
    "h264parse": "gstreamer1.0-plugins-bad",
    "openh264dec": "gstreamer1.0-plugins-bad",
    "opusdec": "gstreamer1.0-plugins-base",
}
VIDEO = (
    "application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000,"
    "packetization-mode=(string)1,profile-level-id=(string)42e01f"
)
AUDIO = {
    "opus": "encoding-name=OPUS,payload=97,clock-rate=48000,encoding-params=(string)2",
    "opus-short": "encoding-name=OPUS,payload=97,clock-rate=48000",
    "pcmu": "encoding-name=PCMU,payload=0,clock-rate=8000",
}
BRANCHES = {
    "video": "queue ! rtph264depay ! h264parse ! openh264dec ! fakesink name=end async=false",
    "audio": "queue ! rtpopusdepay ! opusdec ! fakesink name=end async=false",
}

try:
    import gi

    for namespace in ("Gst", "GstWebRTC", "GstSdp"):
        gi.require_version(namespace, "1.0")
    from gi.repository import GLib, Gst, GstSdp, GstWebRTC
except (ImportError, ValueError) as missing:
    sys.exit(f"missing: python3-gi, gir1.2-gstreamer-1.0 or gir1.2-gst-plugins-bad-1.0: {missing}")


class Player:
    """Plays one address once."""

    def __init__(self, url: str, *, seconds: float, frames: int, sound: str) -> None:
        self.url = url
        self.goal = frames
        self.limit = seconds
        self.seen: dict[str, Any] = {
            "video_frames": 0,
            "audio_buffers": 0,
            "size": None,
            "answer": None,
            "patches": [],
            "left": None,
            "errors": [],
            "longest_gap_s": 0.0,
        }
        self._loop = GLib.MainLoop()
        self._last_frame: float | None = None
        self._resource: str | None = None
        self._tag = "*"
        self._candidates: list[tuple[int, str]] = []
        self._patching = False
        self._offer = ""
        self._pipeline = Gst.Pipeline()
        self._webrtc = Gst.ElementFactory.make("webrtcbin", None)
        self._webrtc.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
        self._pipeline.add(self._webrtc)
        for caps in (VIDEO, f"application/x-rtp,media=audio,{AUDIO[sound]}"):
            transceiver = self._webrtc.emit(
                "add-transceiver",
                GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY,
                Gst.Caps.from_string(caps),
            )
            transceiver.set_property("do-nack", True)  # and RTX, which it offers with that
        self._asking = self._webrtc.connect("on-negotiation-needed", self._negotiate)
        self._webrtc.connect("on-ice-candidate", self._gathered)
        self._webrtc.connect("pad-added", self._came)
        bus = self._pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message", self._heard)

    def play(self) -> dict[str, Any]:
        """Play to the end and return what was seen."""
        began = time.monotonic()
        GLib.timeout_add(int(self.limit * 1000), self._loop.quit)
        self._pipeline.set_state(Gst.State.PLAYING)
        self._loop.run()
        self.seen["seconds"] = round(time.monotonic() - began, 2)
        self.seen["repair"] = self._repair()
        for name in ("connection-state", "ice-connection-state"):
            self.seen[name] = self._webrtc.get_property(name).value_nick
        if self._resource is not None:
            self.seen["left"] = request("DELETE", self._resource)[0]
        self._pipeline.set_state(Gst.State.NULL)
        return self.seen

    # --- offer and answer ---------------------------------------------------------------------

    def _negotiate(self, _webrtc: Any) -> None:
        # Once: it asks again and again while a section of its offer is refused.
        self._webrtc.disconnect(self._asking)

        def made(promise: Any) -> None:
            reply = promise.get_reply()  # what is in it lives as long as it does
            offer = reply.get_value("offer")
            self._offer = offer.sdp.as_text()
            self._webrtc.emit("set-local-description", offer, Gst.Promise.new())
            threading.Thread(target=self._post, daemon=True).start()

        self._webrtc.emit("create-offer", None, Gst.Promise.new_with_change_func(made))

    def _post(self) -> None:
        status, headers, body = request("POST", self.url, self._offer, "application/sdp")
        GLib.idle_add(self._answered, status, headers, body)

    def _answered(self, status: int, headers: Any, body: str) -> bool:
        self.seen["answer"] = status
        if status != 201:
            self._fail(f"the offer is answered by {status}: {body[:300]}")
            return False
        self._resource = urljoin(self.url, headers["Location"])
        self._tag = headers["ETag"]
        _, sdp = GstSdp.SDPMessage.new_from_text(body)
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)

        def done(promise: Any) -> None:
            reply = promise.get_reply()
            if reply is not None and reply.has_field("error"):
                self._fail(f"the answer is refused: {reply.get_value('error')}")

        self._webrtc.emit("set-remote-description", answer, Gst.Promise.new_with_change_func(done))
        self._patch()
        return False

    # --- candidates ---------------------------------------------------------------------------

    def _gathered(self, _webrtc: Any, section: int, candidate: str) -> None:
        GLib.idle_add(self._trickle, section, candidate)

    def _trickle(self, section: int, candidate: str) -> bool:
        if candidate:
            self._candidates.append((section, candidate))
            self._patch()
        return False

    def _patch(self) -> None:
        """Tell the server of candidates that it was not told of (RFC 8840)."""
        if self._resource is None or self._patching or not self._candidates:
            return
        told, self._candidates = self._candidates, []
        self._patching = True
        fragment = fragment_of(self._offer, told)
        place, tag = self._resource, self._tag

        def patch() -> None:
            kind = "application/trickle-ice-sdpfrag"
            status, _, _ = request("PATCH", place, fragment, kind, {"If-Match": tag})
            GLib.idle_add(patched, status)

        def patched(status: int) -> bool:
            self.seen["patches"].append(status)
            self._patching = False
            self._patch()
            return False

        threading.Thread(target=patch, daemon=True).start()

    # --- media --------------------------------------------------------------------------------

    def _came(self, _webrtc: Any, pad: Any) -> None:
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        kind = pad.get_current_caps().get_structure(0).get_string("media")
        branch = Gst.parse_bin_from_description(BRANCHES[kind], ghost_unlinked_pads=True)
        count = {"video": self._frame, "audio": self._buffer}[kind]
        end = branch.get_by_name("end").get_static_pad("sink")
        end.add_probe(Gst.PadProbeType.BUFFER, lambda pad, _info: count(pad))
        self._pipeline.add(branch)
        branch.sync_state_with_parent()
        if pad.link(branch.get_static_pad("sink")) != Gst.PadLinkReturn.OK:
            self._fail(f"no way for the {kind}")

    def _frame(self, pad: Any) -> Any:
        now = time.monotonic()
        if self._last_frame is not None:
            gap = round(now - self._last_frame, 3)
            self.seen["longest_gap_s"] = max(self.seen["longest_gap_s"], gap)
        self._last_frame = now
        self.seen["video_frames"] += 1
        picture = pad.get_current_caps().get_structure(0)
        self.seen["size"] = [picture.get_value("width"), picture.get_value("height")]
        if self.seen["video_frames"] == self.goal:
            GLib.idle_add(self._loop.quit)
        return Gst.PadProbeReturn.OK

    def _buffer(self, _pad: Any) -> Any:
        self.seen["audio_buffers"] += 1
        return Gst.PadProbeReturn.OK

    def _repair(self) -> dict[str, int]:
        """Return what the jitter buffers had to ask for again, and what came of it."""
        totals = {"num-lost": 0, "num-pushed": 0, "rtx-count": 0, "rtx-success-count": 0}
        for element in elements_of(self._pipeline):
            factory = element.get_factory()
            if factory is not None and factory.get_name() == "rtpjitterbuffer":
                figures = element.get_property("stats")
                for name in totals:
                    totals[name] += figures.get_value(name) or 0
        return totals

    # --- trouble ------------------------------------------------------------------------------

    def _heard(self, _bus: Any, message: Any) -> None:
        if message.type == Gst.MessageType.ERROR:
            error, detail = message.parse_error()
            self._fail(f"{error.message} ({detail})")
        elif message.type == Gst.MessageType.WARNING:
            error, detail = message.parse_warning()
            self.seen["errors"].append(f"{error.message} ({detail})")

    def _fail(self, why: str) -> None:
        self.seen["errors"].append(why)
        GLib.idle_add(self._loop.quit)


def elements_of(container: Any) -> list[Any]:
    """Return every element in a bin, those of bins in it too."""
    found: list[Any] = []
    container.iterate_recurse().foreach(found.append)
    return found


def fragment_of(offer: str, candidates: list[tuple[int, str]]) -> str:
    """Return candidates as an SDP fragment, by section of the offer."""
    sections = offer.split("\r\nm=")[1:]

    def value(section: str, name: str) -> str:
        return next(line for line in section.split("\r\n") if line.startswith(f"a={name}:"))

    lines = [value(sections[0], "ice-ufrag"), value(sections[0], "ice-pwd")]
    for index in sorted({index for index, _ in candidates}):
        lines.append("m=" + sections[index].split("\r\n")[0])
        lines.append(value(sections[index], "mid"))
        lines += [f"a={each.removeprefix('a=')}" for at, each in candidates if at == index]
    return "\r\n".join(lines) + "\r\n"


def request(
    method: str, url: str, body: str = "", kind: str = "", headers: dict[str, str] | None = None
) -> tuple[int, Any, str]:
    """Send a request; return status, headers and body. Status 0: no answer."""
    wanted = urllib.request.Request(url, body.encode() or None, headers or {}, method=method)
    if kind:
        wanted.add_header("Content-Type", kind)
    try:
        with urllib.request.urlopen(wanted, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode(errors="replace")
    except OSError as error:
        return 0, {}, str(error)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("url", nargs="?")
    options.add_argument("--seconds", type=float, default=20.0)
    options.add_argument("--frames", type=int, default=0, help="enough; 0: till the time is up")
    options.add_argument("--sound", choices=AUDIO, default="opus", help="what is offered")
    options.add_argument("--check", action="store_true")
    given = options.parse_args()
    Gst.init(None)
    find: Callable[[str], Any] = Gst.ElementFactory.find
    lacking = sorted({package for name, package in NEEDED.items() if find(name) is None})
    if lacking:
        sys.exit(f"missing: {' '.join(lacking)}")
    if not given.check:
        player = Player(given.url, seconds=given.seconds, frames=given.frames, sound=given.sound)
        json.dump(player.play(), sys.stdout)


if __name__ == "__main__":
    main()
