"""A publisher that is not ours: aiortc, which sends H.264 and Opus to the leaf server.

Between the two a relay may stand that loses what it is told to lose.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiortc import RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer

from anabranch.media.sdp import Section, split

Address = tuple[str, int]
MID_EXTENSION = "urn:ietf:params:rtp-hdrext:sdes:mid"


def is_rtp(datagram: bytes) -> bool:
    """Whether it is RTP rather than RTCP, STUN or DTLS (RFC 7983, RFC 5761)."""
    return 128 <= datagram[0] < 192 and not 192 <= datagram[1] < 224


class Relay(asyncio.DatagramProtocol):
    """Stands between one publisher and the server, and loses what ``loses`` says."""

    def __init__(self, server: Address) -> None:
        self.loses: Callable[[bytes], bool] = lambda datagram: False
        """Of what the publisher sends."""
        self.lost = 0
        self.address: Address = ("", 0)
        self._server = server
        self._publisher: Address | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        made = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self._transport: asyncio.DatagramTransport = made[0]
        self.address = self._transport.get_extra_info("sockname")

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if addr == self._server:
            if self._publisher is not None:
                self._transport.sendto(data, self._publisher)
            return
        self._publisher = addr
        if self.loses(data):
            self.lost += 1
        else:
            self._transport.sendto(data, self._server)

    def stop(self) -> None:
        self._transport.close()


class Publisher:
    """Sends a moving picture of 320x180 and a tone."""

    def __init__(self) -> None:
        self.connection = RTCPeerConnection()
        self._players = [
            MediaPlayer("testsrc2=size=320x180:rate=25", format="lavfi"),
            MediaPlayer("sine=frequency=440:sample_rate=48000", format="lavfi"),
        ]
        picture, tone = self._players[0].video, self._players[1].audio
        for track in (picture, tone):
            self.connection.addTransceiver(track, direction="sendonly")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        wanted = [it for it in codecs if it.mimeType in ("video/H264", "video/rtx")]
        self.connection.getTransceivers()[0].setCodecPreferences(wanted)

    async def offer(self, video_to: str, audio_to: str, feedback: list[str]) -> dict[str, Any]:
        """Make an offer, and return what ``publisher.add`` wants to know of it."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        self.description = self.connection.localDescription.sdp
        return described(self.description, video_to, audio_to, feedback)

    async def answer(self, ok: dict[str, Any], fingerprint: str, server: Address) -> None:
        """Take what ``publisher.add`` gave."""
        text = answer_to(self.description, ok, fingerprint, server)
        await self.connection.setRemoteDescription(RTCSessionDescription(text, "answer"))

    async def close(self) -> None:
        await self.connection.close()
        for player in self._players:
            for track in (player.video, player.audio):
                if track is not None:
                    track.stop()


@asynccontextmanager
async def publisher() -> AsyncIterator[Publisher]:
    made = Publisher()
    try:
        yield made
    finally:
        await made.close()


def described(offer: str, video_to: str, audio_to: str, feedback: list[str]) -> dict[str, Any]:
    """What ``publisher.add`` wants to know of an offer of picture and sound."""
    session, media = split(offer)

    def value(name: str) -> str | None:
        return media[0].value(name) or session.value(name)

    places = zip(media, (video_to, audio_to), (feedback, []), strict=True)
    return {
        "remote": {
            "ufrag": value("ice-ufrag"),
            "pwd": value("ice-pwd"),
            "fingerprint": value("fingerprint"),
            "setup": value("setup"),
        },
        "tracks": [track_of(section, to, words) for section, to, words in places],
    }


def answer_to(offer: str, ok: dict[str, Any], fingerprint: str, server: Address) -> str:
    """The answer with what ``publisher.add`` gave, and the first codec of each section."""
    _, media = split(offer)
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=ice-lite"]
    lines.append("a=group:BUNDLE " + " ".join(str(it.value("mid")) for it in media))
    for section in media:
        kinds = types_of(section)
        lines += [
            f"m={section.kind} 9 UDP/TLS/RTP/SAVPF {' '.join(map(str, kinds))}",
            *("c=IN IP4 0.0.0.0", "a=recvonly", "a=rtcp-mux", f"a=setup:{ok['setup']}"),
            *(f"a=mid:{section.value('mid')}", f"a=fingerprint:{fingerprint}"),
            *(f"a=ice-ufrag:{ok['ufrag']}", f"a=ice-pwd:{ok['pwd']}"),
            f"a=candidate:1 1 udp 2130706431 {server[0]} {server[1]} typ host",
            "a=end-of-candidates",
        ]
        for name in ("rtpmap", "fmtp", "rtcp-fb"):
            values = (it for it in section.values(name) if int(it.split()[0]) in kinds)
            # A browser that may number its packets for feedback on the transport, and gets none,
            # lowers its rate by a fifth every second.
            lines += [f"a={name}:{value}" for value in values if "transport-cc" not in value]
        extensions = section.values("extmap")
        lines += [f"a=extmap:{value}" for value in extensions if value.endswith(MID_EXTENSION)]
    return "\r\n".join((*lines, ""))


def types_of(section: Section) -> list[int]:
    """The first payload type of a section, and that of its retransmissions."""
    first = int(section.formats[0])
    again = (re.fullmatch(rf"(\d+) apt={first}", it) for it in section.values("fmtp"))
    return [first, *(int(found[1]) for found in again if found)]


def track_of(section: Section, to: str, feedback: list[str]) -> dict[str, Any]:
    first, *again = types_of(section)
    extensions = dict(reversed(it.split()) for it in section.values("extmap"))
    return {
        "mid": section.value("mid"),
        "kind": section.kind,
        "clock": 90_000 if section.kind == "video" else 48_000,
        "payload_types": [first],
        "rtx": {str(number): first for number in again},
        "ssrcs": sorted({int(it.split()[0]) for it in section.values("ssrc")}),
        "extensions": {"mid": int(extensions[MID_EXTENSION])},
        "feedback": feedback,
        "to": to,
    }
