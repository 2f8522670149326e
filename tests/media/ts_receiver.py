"""A receiver of MPEG transport streams over UDP for tests: keeps what comes and decodes it."""

import asyncio
import io
import socket
import time
from collections import Counter
from types import TracebackType

import av

PACKET = 188


class TsReceiver:
    """Takes datagrams at a port of its own. Attributes: ``datagrams`` (when, what)."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self.datagrams: list[tuple[float, bytes]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        self._socket.bind((address, port))
        self._socket.setblocking(False)

    async def __aenter__(self) -> "TsReceiver":
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    @property
    def target(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()
        return host, port

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(2**16)
            except BlockingIOError:
                return
            assert len(data) % PACKET == 0, len(data)
            self.datagrams.append((time.time(), data))

    @property
    def pids(self) -> Counter[int]:
        """How many packets came of each PID."""
        found: Counter[int] = Counter()
        for _, data in self.datagrams:
            for at in range(0, len(data), PACKET):
                assert data[at] == 0x47
                found[int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF] += 1
        return found

    def decode(self, begin: int = 0) -> tuple[list[av.VideoFrame], list[av.AudioFrame]]:
        """Decode what came since datagram ``begin``."""
        stream = b"".join(data for _, data in self.datagrams[begin:])
        frames: tuple[list, list] = ([], [])
        with av.open(io.BytesIO(stream), format="mpegts") as container:
            for packet in container.demux():
                try:
                    decoded = packet.decode()
                except av.error.InvalidDataError:
                    continue  # the first picture may lack what it refers to
                for frame in decoded:
                    frames[isinstance(frame, av.AudioFrame)].append(frame)
        return frames
