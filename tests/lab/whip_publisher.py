"""A WHIP publisher that is not ours: aiortc, an independent WebRTC stack.

``python -m tests.lab.whip_publisher URL KEY`` publishes red, prints the answer, and goes on until
its standard input ends.
"""

import asyncio
import math
import os
import sys
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction

import httpx
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack
from av import AudioFrame, VideoFrame

_RATE = 48000


class Plain(VideoStreamTrack):
    """A picture of one colour, which may change its size and colour."""

    def __init__(self, colour: tuple[int, int, int], size: tuple[int, int] = (640, 360)) -> None:
        super().__init__()
        self.colour = colour
        self.size = size

    async def recv(self) -> VideoFrame:
        timestamp, base = await self.next_timestamp()
        width, height = self.size
        frame = VideoFrame(width, height, "rgb24")
        (plane,) = frame.planes
        row = bytes(self.colour) * width
        plane.update(row.ljust(plane.line_size, b"\0") * height)
        frame.pts, frame.time_base = timestamp, base
        return frame


class Tone(AudioStreamTrack):
    """440 Hz."""

    _at = 0

    async def recv(self) -> AudioFrame:
        samples = _RATE // 50
        await asyncio.sleep(0.02)
        turns = (2 * math.pi * 440 * (self._at + n) / _RATE for n in range(samples))
        wave = array("h", (round(8000 * math.sin(turn)) for turn in turns)).tobytes()
        frame = AudioFrame(format="s16", layout="mono", samples=samples)
        (plane,) = frame.planes
        plane.update(wave.ljust(plane.buffer_size, b"\0"))
        frame.sample_rate, frame.pts, frame.time_base = _RATE, self._at, Fraction(1, _RATE)
        self._at += samples
        return frame


class Publisher:
    """One connection; ``answer`` is the server's last."""

    def __init__(self, colour: tuple[int, int, int]) -> None:
        self.connection = RTCPeerConnection()
        self.picture = Plain(colour)
        self.answer: httpx.Response | None = None
        for track in (self.picture, Tone()):
            self.connection.addTransceiver(track, direction="sendonly")

    async def publish(self, url: str, key: str) -> int:
        """Offer; return the status of the answer, and connect if it is 201."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(timeout=20) as client:
            self.answer = await client.post(
                url, content=self.connection.localDescription.sdp, headers=headers
            )
        if self.answer.status_code == 201:
            described = RTCSessionDescription(self.answer.text, "answer")
            await self.connection.setRemoteDescription(described)
        return self.answer.status_code


@asynccontextmanager
async def publisher(colour: tuple[int, int, int]) -> AsyncIterator[Publisher]:
    made = Publisher(colour)
    try:
        yield made
    finally:
        await made.connection.close()


async def main(url: str, key: str) -> None:
    async with publisher((255, 0, 0)) as one:
        assert await one.publish(url, key) == 201
        assert one.answer is not None
        sys.stdout.write(one.answer.text)
        sys.stdout.flush()
        os.close(sys.stdout.fileno())  # whose own close() would leave it open
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
