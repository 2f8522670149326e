"""A publisher whose layers do what a test says: aiortc's connection, PyAV's H.264, scripted RTP.

aiortc sends no simulcast of its own. Each layer is a moving picture that x264 encodes in
constrained baseline, and makes a key frame of when its SSRC is asked for one.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import httpx
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.codecs.h264 import H264Encoder
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtp import RtcpPacket, RtcpPsfbPacket
from av.video.frame import PictureType
from tests.lab.whip_publisher import Tone

from anabranch.media.sdp import split

_RATE = 25
RID_URI = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
REPAIRED_URI = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
_RID, _REPAIRED = 10, 11


@dataclass
class Layer:
    """One layer: change ``sends``, ``ssrc`` or ``kbps`` at will.

    Attributes:
        kbps: at which it is encoded.
        asked: how often a key frame was asked for.
    """

    rid: str
    size: tuple[int, int]
    kbps: int
    ssrc: int
    profile: str = "baseline"
    sends: bool = True
    asked: int = 0
    packets: int = 0
    sequence: int = 65_000
    wants_key: bool = True
    encoder: Any = field(default=None, repr=False)

    def encode(self, frame: av.VideoFrame, number: int) -> list[bytes]:
        """Return the RTP payloads of a frame of any size."""
        if self.encoder is None:
            self.encoder = self._open()
        width, height = self.size
        made = frame.reformat(width, height, "yuv420p")
        made.pts, made.time_base = number, Fraction(1, _RATE)
        made.pict_type = PictureType.I if self.wants_key else PictureType.NONE
        self.wants_key = False
        units: list[bytes] = []
        for packet in self.encoder.encode(made):
            units += H264Encoder._split_bitstream(bytes(packet))
        return H264Encoder._packetize(iter(units))

    def _open(self) -> Any:
        encoder: Any = av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height = self.size
        encoder.pix_fmt = "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, _RATE), Fraction(_RATE, 1)
        encoder.bit_rate = self.kbps * 1000
        encoder.thread_count = 1
        encoder.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "profile": self.profile,
            "forced-idr": "1",
            # Without it the fastest preset has nothing that were not baseline.
            "x264-params": f"keyint=infinite:vbv-maxrate={self.kbps}:vbv-bufsize={self.kbps}"
            f":cabac={int(self.profile != 'baseline')}",
        }
        return encoder


class LayeredPublisher:
    """One connection with these layers; none that send: the offer is one of a single stream."""

    def __init__(self, layers: list[Layer], extra_lines: str = "") -> None:
        self.connection = RTCPeerConnection()
        self.layers = layers
        self.answer = ""
        self.status = 0
        self.location = ""
        self._extra = extra_lines
        self.connection.addTransceiver(Tone(), direction="sendonly")
        self.connection.addTransceiver("video", direction="sendonly")
        self._task: asyncio.Task[None] | None = None
        self._began = 0.0

    async def publish(self, url: str, key: str) -> int:
        """Offer all layers; return the status of the answer, and send if it is 201."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        rids = [layer.rid for layer in self.layers]
        lines = [f"a=extmap:{_RID} {RID_URI}", f"a=extmap:{_REPAIRED} {REPAIRED_URI}"]
        lines += [*(f"a=rid:{rid} send" for rid in rids), f"a=simulcast:send {';'.join(rids)}"]
        named = "\r\n".join(lines) + "\r\n" if len(rids) > 1 else ""
        offer = self.connection.localDescription.sdp + named + self._extra
        headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(timeout=20) as client:
            reply = await client.post(url, content=offer, headers=headers)
        self.status, self.answer = reply.status_code, reply.text
        if self.status == 201:
            self.location = reply.headers["location"]
            drop = ("a=rid:", "a=simulcast:", f"a=extmap:{_RID} ", f"a=extmap:{_REPAIRED} ")
            known = [line for line in self.answer.split("\r\n") if not line.startswith(drop)]
            described = RTCSessionDescription("\r\n".join(known), "answer")
            await self.connection.setRemoteDescription(described)
            self.resume()
        return self.status

    def accepted(self) -> list[str]:
        """Return the rids of the answer."""
        (video,) = [it for it in split(self.answer)[1] if it.kind == "video"]
        value = video.value("simulcast")
        return value.removeprefix("recv ").split(";") if value else []

    async def _send(self) -> None:
        transport = self.connection.getSenders()[0].transport
        self._listen(transport)
        (video,) = [it for it in split(self.answer)[1] if it.kind == "video"]
        kind, mid = int(video.formats[0]), video.value("mid") or ""
        (mid_id,) = [int(it.split()[0]) for it in video.values("extmap") if it.endswith("sdes:mid")]
        accepted = self.accepted()
        with av.open(f"testsrc2=size=640x360:rate={_RATE}", format="lavfi") as source:
            began = self._began or time.monotonic()
            self._began = began  # time goes on where it was silent
            first = math.ceil((time.monotonic() - began) * _RATE)
            for number, frame in enumerate(source.decode(video=0), first):
                await asyncio.sleep(began + number / _RATE - time.monotonic())
                for layer in self.layers:
                    if layer.sends and (not accepted or layer.rid in accepted):
                        names = [(mid_id, mid)] + ([(_RID, layer.rid)] if accepted else [])
                        payloads = layer.encode(frame, number)
                        await self._send_frame(transport, layer, payloads, kind, names, number)
                    if not accepted:
                        break

    async def _send_frame(
        self,
        transport: RTCDtlsTransport,
        layer: Layer,
        payloads: list[bytes],
        kind: int,
        names: list[tuple[int, str]],
        number: int,
    ) -> None:
        body = b"".join(bytes([it << 4 | len(text) - 1]) + text.encode() for it, text in names)
        body += bytes(-len(body) % 4)
        extension = b"\xbe\xde" + (len(body) // 4).to_bytes(2, "big") + body
        for payload in payloads:
            marker = 128 if payload is payloads[-1] else 0
            header = bytes([0x90, marker | kind]) + layer.sequence.to_bytes(2, "big")
            header += (number * 90_000 // _RATE % 2**32).to_bytes(4, "big")
            header += layer.ssrc.to_bytes(4, "big")
            layer.sequence = (layer.sequence + 1) % 65536
            layer.packets += 1
            with suppress(ConnectionError):
                await transport._send_rtp(header + extension + payload)

    def _listen(self, transport: RTCDtlsTransport) -> None:
        """Hear of key frames that are wanted of SSRCs which aiortc knows nothing of."""
        handle = transport._handle_rtcp_data

        async def heard(data: bytes) -> None:
            with suppress(ValueError):
                for packet in RtcpPacket.parse(data):
                    if isinstance(packet, RtcpPsfbPacket) and packet.fmt == 1:
                        for layer in self.layers:
                            if layer.ssrc == packet.media_ssrc:
                                layer.wants_key = True
                                layer.asked += 1
            await handle(data)

        transport._handle_rtcp_data = heard

    def resume(self) -> None:
        """Send again."""
        self._task = asyncio.create_task(self._send())

    async def silence(self) -> None:
        """Send no picture any more, and say nothing of it."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def close(self) -> None:
        await self.silence()
        await self.connection.close()


def two_layers() -> list[Layer]:
    """Of sizes that no encoder here makes, the small one first as browsers may have it."""
    return [Layer("l", (240, 136), 250, 7001), Layer("h", (480, 272), 800, 7002)]


@asynccontextmanager
async def layered(layers: list[Layer], extra: str = "") -> AsyncIterator[LayeredPublisher]:
    made = LayeredPublisher(layers, extra)
    try:
        yield made
    finally:
        await made.close()
