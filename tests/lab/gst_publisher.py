"""A WHIP publisher made of GStreamer's webrtcbin, for the distribution's Python.

``python3 gst_publisher.py URL KEY COLOUR`` publishes until it is killed. As OBS does it sends one
H.264 and one Opus stream without header extensions.
"""

import sys
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

PIPELINE = """
webrtcbin name=out bundle-policy=max-bundle
videotestsrc is-live=true pattern=solid-color foreground-color={colour}
  ! video/x-raw,width=640,height=360,framerate=25/1 ! videoconvert
  ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=50 ! video/x-h264,profile=baseline
  ! rtph264pay config-interval=-1 aggregate-mode=zero-latency
  ! application/x-rtp,media=video,encoding-name=H264,payload=96 ! out.
audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2 ! opusenc ! rtpopuspay
  ! application/x-rtp,media=audio,encoding-name=OPUS,payload=111 ! out.
"""


def main(url: str, key: str, colour: str) -> None:
    Gst.init(None)
    pipeline = Gst.parse_launch(PIPELINE.format(colour=colour))
    out = pipeline.get_by_name("out")

    def negotiate(_element: object) -> None:
        out.emit("create-offer", None, Gst.Promise.new_with_change_func(offered, None))

    def offered(promise: object, _data: object) -> None:
        reply = promise.get_reply()  # which owns what is in it
        out.emit("set-local-description", reply.get_value("offer"), None)

    def gathered(_element: object, _state: object) -> None:
        state = out.get_property("ice-gathering-state")
        if state == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            GLib.idle_add(post)

    def post() -> bool:
        offer = out.get_property("local-description").sdp.as_text()
        headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {key}"}
        request = urllib.request.Request(url, offer.encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read().decode()
        _, message = GstSdp.SDPMessage.new_from_text(text)
        described = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
        out.emit("set-remote-description", described, None)
        return False

    out.connect("on-negotiation-needed", negotiate)
    out.connect("notify::ice-gathering-state", gathered)
    pipeline.set_state(Gst.State.PLAYING)
    for transceiver in range(2):
        made = out.emit("get-transceiver", transceiver)
        made.set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
