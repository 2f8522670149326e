"""A leaf server's control socket for tests: a real Unix socket that says what a test wants.

``python -m tests.media.control_server serve --control PATH ...`` is a process with such a socket.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Message = dict[str, Any]
HELLO = {
    "event": "hello",
    "protocol": 1,
    "version": "0.1.0",
    "pid": 4711,
    "fingerprint": "sha-256 AB:CD",
    "listen": ["127.0.0.1:40000"],
    "threads": 1,
}
ADDED = {"ufrag": "ourfrag1", "pwd": "ourpassword0123456789ab", "setup": "passive",
         "video_ssrc": 1, "rtx_ssrc": 2, "audio_ssrc": 3}  # fmt: skip


class ControlServer:
    """Keeps what is added, as the leaf server does; ``answers`` by request come first.

    An answer is what the reply has beside its number; None: there is no reply.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hello: Message | bytes | None = HELLO
        self.answers: dict[str, Callable[[Message], Message | None]] = {}
        self.requests: list[Message] = []
        self.streams: dict[int, Message] = {}
        self.viewers: dict[str, Message] = {}
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=2**20)

    async def stop(self) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()
        self.path.unlink(missing_ok=True)
        await asyncio.sleep(0)

    def cut(self) -> None:
        """Close the connection."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def say(self, *messages: Message | bytes) -> None:
        assert self._writer is not None
        for each in messages:
            raw = each if isinstance(each, bytes) else json.dumps(each).encode()
            self._writer.write(raw + b"\n")

    def asked(self, do: str) -> list[Message]:
        """The requests of a kind, without their numbers."""
        return [
            {name: value for name, value in each.items() if name not in ("do", "id")}
            for each in self.requests
            if each["do"] == do
        ]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writer = writer
        if self.hello is not None:
            self.say(self.hello)
        try:
            while line := await reader.readline():
                self.take(json.loads(line))
        except (OSError, asyncio.CancelledError):
            pass
        writer.close()

    def take(self, request: Message) -> None:
        self.requests.append(request)
        make = self.answers.get(request["do"], self._answer)
        if (answer := make(request)) is not None and self._writer is not None:
            self.say({"id": request["id"], **answer})

    def _answer(self, request: Message) -> Message:
        match request["do"]:
            case "stream.add":
                self.streams[request["stream"]] = request
            case "stream.remove":
                if self.streams.pop(request["stream"], None) is None:
                    return refusal("unknown")
            case "stream.parent":
                if request["stream"] not in self.streams:
                    return refusal("unknown")
                self.streams[request["stream"]]["parent"] = request["parent"]
            case "viewer.add":
                if not _is_in_order(request):
                    return refusal("invalid")
                self.viewers[request["viewer"]] = request
                return {"ok": ADDED}
            case "viewer.change":
                if request["viewer"] not in self.viewers:
                    return refusal("unknown")
                return {"ok": {"waits": False, "key_frame_age_ms": 10, "behind_packets": 3}}
            case "viewer.close":
                if self.viewers.pop(request["viewer"], None) is None:
                    return refusal("unknown")
            case "viewer.statistics":
                wanted = [request["viewer"]] if "viewer" in request else self.viewers
                return {"ok": {"viewers": {each: self.figures(each) for each in wanted}}}
            case "state":
                streams = list(self.streams.values())
                viewers = [
                    {"viewer": name, "stream": self.figures(name)["stream"], "state": "up"}
                    for name in self.viewers
                ]
                return {"ok": {"streams": streams, "viewers": viewers}}
        return {"ok": {}}

    def figures(self, viewer: str) -> Message:
        added = self.viewers[viewer]
        stream = added["ladder"][added["start"]]["stream"]
        return {"state": "up", "stream": stream, "bytes": 1000, "packets": 8, "lost": 2,
                "nacks": 3, "jitter_ms": 1.5, "rtt_ms": None}  # fmt: skip


def _is_in_order(request: Message) -> bool:
    """Look at what the leaf server looks at."""
    rates = [rung["kbps"] for rung in request["ladder"]]
    media = [request[kind] for kind in ("video", "audio") if kind in request]
    return (
        rates == sorted(rates, reverse=True)
        and min(rates) > 0
        and 0 <= request["start"] < len(rates)
        and all(medium["mid"] for medium in media)
    )


def refusal(code: str) -> Message:
    return {"error": {"code": code, "detail": f"it is {code}"}}


async def main() -> None:
    server = ControlServer(Path(sys.argv[sys.argv.index("--control") + 1]))
    server.path.unlink(missing_ok=True)
    server.hello = {**HELLO, "pid": os.getpid()}
    if "HANG" in os.environ and not Path(os.environ["HANG"]).exists():
        Path(os.environ["HANG"]).touch()  # once
        server.hello = None
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
