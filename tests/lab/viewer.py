"""A WHEP viewer that is not ours: aiortc, an independent WebRTC stack.

``python -m tests.lab.viewer URL [FRAMES [FILE]]`` watches 25 frames, or as many as told, and prints
their size; the answer goes to the file.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError


class Viewer:
    """Counts the decoded frames of what it watches."""

    def __init__(self) -> None:
        self.connection = RTCPeerConnection()
        self.video_frames = 0
        self.audio_frames = 0
        self.size: tuple[int, int] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        for kind in ("video", "audio"):
            self.connection.addTransceiver(kind, direction="recvonly")
        self.connection.on("track", self._track)

    def _track(self, track: object) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(self._drain(track)))

    async def _drain(self, track: object) -> None:
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()  # type: ignore[attr-defined]
                if track.kind == "video":  # type: ignore[attr-defined]
                    self.video_frames += 1
                    self.size = (frame.width, frame.height)
                else:
                    self.audio_frames += 1

    async def watch(self, ask: Callable[[str], Awaitable[str]]) -> None:
        """Offer by ``ask`` (offer in, answer out) and connect."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        answer = await ask(self.connection.localDescription.sdp)
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def frames(self, count: int, limit: float = 30.0) -> None:
        """Wait for ``count`` more video frames."""
        goal = self.video_frames + count
        async with asyncio.timeout(limit):
            while self.video_frames < goal:
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self.connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def viewer() -> AsyncIterator[Viewer]:
    made = Viewer()
    try:
        yield made
    finally:
        await made.close()


async def main(url: str, frames: int = 25, keep: Path | None = None) -> None:
    async with viewer() as one, httpx.AsyncClient() as client:

        async def ask(offer: str) -> str:
            headers = {"Content-Type": "application/sdp"}
            answer = await client.post(url, content=offer, headers=headers)
            answer.raise_for_status()
            if keep is not None:
                keep.write_text(answer.text)
            return answer.text

        await one.watch(ask)
        await one.frames(frames, limit=20.0 + frames)
        assert one.size is not None
        sys.stdout.write(f"{one.size[0]}x{one.size[1]}\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:3]), *map(Path, sys.argv[3:4])))
