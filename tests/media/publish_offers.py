"""Publishers' offers for tests, as WebRTC stacks write them; each as far as it matters here."""

from tests.media.offers import TRANSPORT

# Chromium 140: two sendonly transceivers, as the page /publish makes them.
CHROMIUM = f"""v=0
o=- 8137226518346215731 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=extmap-allow-mixed
a=msid-semantic: WMS 7f0c52bb-27e4-4e14-8a5c-5a8a3c0f1d11
m=video 9 UDP/TLS/RTP/SAVPF 96 97 103 104 107 108 109 114 115 116 117 118 39 40 45 46
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
{TRANSPORT}a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:toffset
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:3 urn:3gpp:video-orientation
a=extmap:4 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=extmap:9 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id
a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id
a=sendonly
a=msid:7f0c52bb-27e4-4e14-8a5c-5a8a3c0f1d11 0b1fbd9c-1fd2-4a61-8f7a-5a0d2f9c7f01
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 goog-remb
a=rtcp-fb:96 transport-cc
a=rtcp-fb:96 ccm fir
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=rtpmap:103 H264/90000
a=rtcp-fb:103 goog-remb
a=rtcp-fb:103 transport-cc
a=rtcp-fb:103 ccm fir
a=rtcp-fb:103 nack
a=rtcp-fb:103 nack pli
a=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f
a=rtpmap:104 rtx/90000
a=fmtp:104 apt=103
a=rtpmap:107 H264/90000
a=rtcp-fb:107 nack
a=fmtp:107 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f
a=rtpmap:108 rtx/90000
a=fmtp:108 apt=107
a=rtpmap:109 H264/90000
a=rtcp-fb:109 goog-remb
a=rtcp-fb:109 nack
a=rtcp-fb:109 nack pli
a=fmtp:109 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtpmap:114 rtx/90000
a=fmtp:114 apt=109
a=rtpmap:39 H264/90000
a=fmtp:39 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f
a=rtpmap:40 rtx/90000
a=fmtp:40 apt=39
a=rtpmap:45 AV1/90000
a=fmtp:45 level-idx=5;profile=0;tier=0
a=rtpmap:46 rtx/90000
a=fmtp:46 apt=45
a=rtpmap:115 red/90000
a=rtpmap:116 rtx/90000
a=fmtp:116 apt=115
a=rtpmap:117 ulpfec/90000
a=ssrc-group:FID 2231627014 632943048
a=ssrc:2231627014 cname:4TOk42mSjXCkVIa6
a=ssrc:2231627014 msid:7f0c52bb-27e4-4e14-8a5c-5a8a3c0f1d11 0b1fbd9c-1fd2-4a61-8f7a-5a0d2f9c7f01
a=ssrc:632943048 cname:4TOk42mSjXCkVIa6
a=ssrc:632943048 msid:7f0c52bb-27e4-4e14-8a5c-5a8a3c0f1d11 0b1fbd9c-1fd2-4a61-8f7a-5a0d2f9c7f01
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
{TRANSPORT}a=mid:1
a=extmap:14 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:4 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=extmap:9 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendonly
a=msid:7f0c52bb-27e4-4e14-8a5c-5a8a3c0f1d11 5d3e4a0e-91c5-4b4b-90f7-70f3a2a2d102
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:1403264122 cname:4TOk42mSjXCkVIa6
a=ssrc:1403264122 msid:7f0c52bb-27e4-4e14-8a5c-5a8a3c0f1d11 5d3e4a0e-91c5-4b4b-90f7-70f3a2a2d102
"""

# OBS 30 (libdatachannel 0.20): sound first, transport in the session's part, a candidate for each
# address, no header extensions, no RTX.
OBS = f"""v=0
o=rtc 3877212184 0 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=group:LS 0 1
a=msid-semantic:WMS *
a=setup:actpass
a=ice-ufrag:nxcM
a=ice-pwd:ezjAjgSSLLvbRhUA1zc6Se
a=ice-options:ice2,trickle
a=fingerprint:sha-256 {":".join(["4E"] * 32)}
m=audio 57249 UDP/TLS/RTP/SAVPF 111
c=IN IP4 192.0.2.53
a=mid:0
a=sendonly
a=ssrc:3388068600 cname:Yuu1KDxQcc3L5CpY
a=ssrc:3388068600 msid:XmQSKutZo7zYcEQl XmQSKutZo7zYcEQl-audio
a=msid:XmQSKutZo7zYcEQl XmQSKutZo7zYcEQl-audio
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;maxaveragebitrate=96000;stereo=1;sprop-stereo=1;useinbandfec=1
a=candidate:1 1 UDP 2114977791 192.0.2.53 57249 typ host
a=end-of-candidates
m=video 57249 UDP/TLS/RTP/SAVPF 96
c=IN IP4 192.0.2.53
a=mid:1
a=sendonly
a=ssrc:3388068601 cname:Yuu1KDxQcc3L5CpY
a=ssrc:3388068601 msid:XmQSKutZo7zYcEQl XmQSKutZo7zYcEQl-video
a=msid:XmQSKutZo7zYcEQl XmQSKutZo7zYcEQl-video
a=rtcp-mux
a=rtpmap:96 H264/90000
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtcp-fb:96 goog-remb
a=fmtp:96 profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1
"""

# GStreamer's whipclientsink (webrtcsink of gst-plugins-rs) with an H.264 encoder.
GSTREAMER = f"""v=0
o=- 5106391823563018473 0 IN IP4 0.0.0.0
s=-
t=0 0
a=ice-options:trickle
a=group:BUNDLE video0 audio1
m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99
c=IN IP4 0.0.0.0
a=setup:actpass
a=ice-ufrag:0vGJmIXOIc+R2gCYKFvTzdOtaLHVGiKE
a=ice-pwd:MWLkmFOsYXMYvPXxYqwzYQIEUlNPoYDh
a=rtcp-mux
a=rtcp-rsize
a=sendonly
a=rtpmap:96 H264/90000
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtcp-fb:96 ccm fir
a=rtcp-fb:96 transport-cc
a=framerate:30
a=fmtp:96 packetization-mode=1;profile-level-id=42c01f;level-asymmetry-allowed=1
a=rtpmap:97 red/90000
a=rtpmap:98 ulpfec/90000
a=rtpmap:99 rtx/90000
a=fmtp:99 apt=96
a=extmap:1 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=ssrc-group:FID 3776670536 2941373530
a=ssrc:3776670536 msid:user1@host webrtctransceiver0
a=ssrc:3776670536 cname:user1@host
a=ssrc:2941373530 msid:user1@host webrtctransceiver0
a=ssrc:2941373530 cname:user1@host
a=mid:video0
a=fingerprint:sha-256 {":".join(["7C"] * 32)}
a=rtcp-mux-only
m=audio 9 UDP/TLS/RTP/SAVPF 100
c=IN IP4 0.0.0.0
a=setup:actpass
a=ice-ufrag:0vGJmIXOIc+R2gCYKFvTzdOtaLHVGiKE
a=ice-pwd:MWLkmFOsYXMYvPXxYqwzYQIEUlNPoYDh
a=bundle-only
a=rtcp-mux
a=rtcp-rsize
a=sendonly
a=rtpmap:100 OPUS/48000/2
a=fmtp:100 sprop-maxcapturerate=48000;sprop-stereo=0
a=ssrc:1155318024 msid:user1@host webrtctransceiver1
a=ssrc:1155318024 cname:user1@host
a=mid:audio1
a=fingerprint:sha-256 {":".join(["7C"] * 32)}
a=rtcp-mux-only
"""

# aiortc 1.9: VP8 is its first choice, H.264 in both packetization modes behind it.
AIORTC = f"""v=0
o=- 3940593061 3940593061 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0 1
a=msid-semantic:WMS *
m=audio 34712 UDP/TLS/RTP/SAVPF 96 0 8
c=IN IP4 192.0.2.2
a=sendonly
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:2 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=mid:0
a=msid:ae32be24-a0ab-4d2c-a5ff-96d0f8d4c6e4 3b2b2d9a-fdf8-4c58-a6e4-33be36e08d53
a=rtcp:9 IN IP4 0.0.0.0
a=rtcp-mux
a=ssrc:2863141117 cname:1e0dc37a-8b2f-4f2f-a3c9-0bfa7f6a1d8d
a=rtpmap:96 opus/48000/2
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=candidate:0cd2b1c3 1 udp 2130706431 192.0.2.2 34712 typ host
a=end-of-candidates
a=ice-ufrag:5qdM
a=ice-pwd:9xPqv9sJHGpMTJxJ9XZ0dD
a=fingerprint:sha-256 {":".join(["E1"] * 32)}
a=fingerprint:sha-384 {":".join(["E2"] * 48)}
a=setup:actpass
m=video 34712 UDP/TLS/RTP/SAVPF 97 98 99 100 101 102
c=IN IP4 192.0.2.2
a=sendonly
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:3 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=mid:1
a=msid:ae32be24-a0ab-4d2c-a5ff-96d0f8d4c6e4 8b1d3f2c-bd0f-45e1-a2a8-3a2a0b8a6f52
a=rtcp:9 IN IP4 0.0.0.0
a=rtcp-mux
a=ssrc-group:FID 1517331127 3125446254
a=ssrc:1517331127 cname:1e0dc37a-8b2f-4f2f-a3c9-0bfa7f6a1d8d
a=ssrc:3125446254 cname:1e0dc37a-8b2f-4f2f-a3c9-0bfa7f6a1d8d
a=rtpmap:97 VP8/90000
a=rtcp-fb:97 nack
a=rtcp-fb:97 nack pli
a=rtcp-fb:97 goog-remb
a=rtpmap:98 rtx/90000
a=fmtp:98 apt=97
a=rtpmap:99 H264/90000
a=rtcp-fb:99 nack
a=rtcp-fb:99 nack pli
a=rtcp-fb:99 goog-remb
a=fmtp:99 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f
a=rtpmap:100 rtx/90000
a=fmtp:100 apt=99
a=rtpmap:101 H264/90000
a=rtcp-fb:101 nack
a=rtcp-fb:101 nack pli
a=rtcp-fb:101 goog-remb
a=fmtp:101 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtpmap:102 rtx/90000
a=fmtp:102 apt=101
a=candidate:0cd2b1c3 1 udp 2130706431 192.0.2.2 34712 typ host
a=end-of-candidates
a=ice-ufrag:5qdM
a=ice-pwd:9xPqv9sJHGpMTJxJ9XZ0dD
a=fingerprint:sha-256 {":".join(["E1"] * 32)}
a=fingerprint:sha-384 {":".join(["E2"] * 48)}
a=setup:actpass
"""

STACKS = {
    "chromium": (CHROMIUM, 103, 104, 111),
    "obs": (OBS, 96, None, 111),
    "gstreamer": (GSTREAMER, 96, 99, 100),
    "aiortc": (AIORTC, 99, 100, 96),
}
"""Each offer, and the payload types that are to be answered: picture, its RTX, sound."""
