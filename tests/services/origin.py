"""An HTTP origin that does what a test says, byte by byte if need be."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Writer = asyncio.StreamWriter


@dataclass
class Asked:
    method: str
    target: str
    fields: dict[str, str]
    body: bytes = b""


Answer = Callable[[Asked, Writer], Awaitable[None]]


@dataclass
class Origin:
    """``answers`` by path; ``asked`` is what came."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self, target: str) -> int:
        return sum(each.target == target for each in self.asked)

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                fields = {k.lower(): v.strip() for k, _, v in (x.partition(":") for x in head[1:])}
                body = await reader.readexactly(int(fields.get("content-length", "0")))
                asked = Asked(method, target, fields, body)
                self.asked.append(asked)
                answer = self.answers.get(target.partition("?")[0], plain(b"none", status=404))
                await answer(asked, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def running_origin() -> AsyncIterator[Origin]:
    origin = Origin()
    connections: set[asyncio.Task] = set()

    async def serve(reader: asyncio.StreamReader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await origin.serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the streams' callback would complain of it
        finally:
            connections.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    origin.port = server.sockets[0].getsockname()[1]
    try:
        yield origin
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


def head(length: int | None, status: int = 200, **fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def plain(body: bytes, status: int = 200, **fields: str) -> Answer:
    """Answer with a body, or 304 to who has its etag."""

    async def answer(asked: Asked, writer: Writer) -> None:
        etag = fields.get("etag")
        if etag and asked.fields.get("if-none-match") == etag:
            writer.write(head(None, 304, **fields))
            return
        text = asked.fields.get("range", "")
        if text.startswith("bytes="):
            first, _, last = text[6:].partition("-")
            start, end = int(first), int(last or len(body) - 1) + 1
            part = body[start:end]
            said = f"bytes {start}-{end - 1}/{len(body)}"
            writer.write(head(len(part), 206, content_range=said, **fields) + part)
            return
        sent = b"" if asked.method == "HEAD" else body
        writer.write(head(len(body), status, **fields) + sent)

    return answer
