"""The nodes of the HELLO storm, in a process of their own: dial, say HELLO, wait for the answer.

Started by ``hello_storm.py``: prints ``ready``, begins with the first line that it reads, prints
its figures as JSON, and holds its connections until its standard input ends.
"""

import asyncio
import json
import ssl
import sys
import time
from pathlib import Path

from anabranch.tree.certificates import Credentials, client_context
from anabranch.tree.joining import join
from anabranch.tree.model import Role
from anabranch.tree.peering import wall_ms
from anabranch.tree.soleil.codec import encode
from anabranch.tree.soleil.messages import ROOT, Endpoint, Hello, Message
from anabranch.tree.tokens import parse_token
from anabranch.tree.transport.channel import Channel


class _Node:
    """One node: a key, a certificate or a token, and one connection."""

    def __init__(self, directory: Path, at: Endpoint) -> None:
        self._credentials = Credentials(directory)
        self._at = at
        self._token = directory / "token"
        self._context: ssl.SSLContext | None = None
        self._taken = asyncio.get_running_loop().create_future()
        if not self._token.exists():
            self._context = client_context(self._credentials)

    async def come(self, after: float) -> None:
        await asyncio.sleep(after)
        if self._context is None:
            token = parse_token(self._token.read_text())
            await join((self._at,), token, self._credentials)
            self._context = client_context(self._credentials)
        await asyncio.get_running_loop().create_connection(
            lambda: Channel(self._opened, self._received, self._closed),
            self._at.host,
            self._at.port,
            ssl=self._context,
            server_hostname="",
            ssl_handshake_timeout=60.0,
        )
        await self._taken

    def _opened(self, channel: Channel) -> None:
        hello = Hello(self._credentials.directory.name, Role.LEAF, boot="1")
        channel.send(encode(Message(hello, wall_ms(), ROOT, hello.name, "1-1")))

    def _received(self, channel: Channel, message: Message) -> None:
        if isinstance(message.body, Hello) and not self._taken.done():
            channel.establish()
            self._taken.set_result(None)

    def _closed(self, _channel: Channel, reason: str) -> None:
        if not self._taken.done():
            self._taken.set_exception(ConnectionError(reason))


async def _run(directories: list[Path], port: int, within: float) -> None:
    at = Endpoint("127.0.0.1", port)
    nodes = [_Node(each, at) for each in directories]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    cpu = time.process_time()
    steps = (within * number / len(nodes) for number in range(len(nodes)))
    coming = [node.come(after) for node, after in zip(nodes, steps, strict=True)]
    results = await asyncio.gather(*coming, return_exceptions=True)
    faults = [str(each) for each in results if each is not None]
    print(json.dumps({"cpu": time.process_time() - cpu, "faults": faults[:3]}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_run(sorted(Path(sys.argv[1]).iterdir()), int(sys.argv[2]), float(sys.argv[3])))
