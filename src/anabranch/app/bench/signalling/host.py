"""The processes of ``bench signalling``, each in a namespace: python -m ...host ROLE [JSON].

Lines of JSON come in by standard input, and an answer goes out for each.
"""

import asyncio
import json
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from anabranch.app.config_parts import LogConfig
from anabranch.app.logs import set_up_logs
from anabranch.services.controller.runtime import ModuleRequest
from anabranch.services.controller.users import User
from anabranch.services.keys import PrivateKey
from anabranch.services.node.diversion import diverting
from anabranch.services.node.endpoint import Endpoint
from anabranch.services.node.service import NodeOptions, running_node
from anabranch.services.signalling.compose import Author, compose
from anabranch.services.signalling.gist.events import LastNode, Received
from anabranch.services.signalling.gist.objects import SID_BYTES, Flow
from anabranch.services.signalling.gist.options import GistOptions
from anabranch.services.signalling.gist.sessions import key_of
from anabranch.services.signalling.message import Method
from anabranch.services.signalling.sender import Sender

_FOR_GOOD = 24 * 3600.0
_BURST = 50  # sessions opened at a time
Command = dict[str, Any]
Answer = dict[str, Any]
Serve = Callable[[Command], Awaitable[Answer]]


class Holder:
    """A node whose upper layer hands everything on and keeps every session: GIST alone."""

    def __init__(self, refresh: float, *, last: bool) -> None:
        self._last = last
        self.endpoint = Endpoint(
            secrets.token_bytes(8), GistOptions(refresh=refresh), responder=True
        )
        self.endpoint.on_event = self._on_event

    def _on_event(self, now: float) -> None:
        gist = self.endpoint.gist
        while gist.events:
            event = gist.events.popleft()
            if isinstance(event, Received) and not self._last:
                gist.send(event.key, event.data, now, upstream=False)
                gist.hold(event.key, now + _FOR_GOOD, now)

    async def serve(self, _: Command) -> Answer:
        process = psutil.Process()
        times = process.cpu_times()
        return {
            "sessions": len(self.endpoint.gist),
            "complete": self.endpoint.gist.complete(time.monotonic()),
            "datagrams": self.endpoint.received + self.endpoint.sent,
            "cpu": times.user + times.system,
            "rss": process.memory_info().rss,
        }


class Opener:
    """Where all sessions begin."""

    def __init__(self, refresh: float) -> None:
        self.endpoint = Endpoint(
            secrets.token_bytes(8), GistOptions(refresh=refresh), responder=False
        )
        self.endpoint.on_event = self._on_event

    def _on_event(self, now: float) -> None:
        events = self.endpoint.gist.events
        while events:
            event = events.popleft()
            assert not isinstance(event, LastNode), "there is a node"

    async def serve(self, command: Command) -> Answer:
        """Open sessions to as many destinations, so many a second."""
        gist = self.endpoint.gist
        source = ip_address(command["source"])
        first = int(IPv4Address(command["first"]))
        count, rate = command["sessions"], command["rate"]
        began = time.monotonic()
        for opened in range(0, count, _BURST):
            for number in range(opened, min(opened + _BURST, count)):
                flow = Flow(source, IPv4Address(first + number))
                key = key_of(flow, os.urandom(SID_BYTES))
                now = time.monotonic()
                gist.send(key, b"a session", now, upstream=False)
                gist.hold(key, now + _FOR_GOOD, now)
            self.endpoint.pump()
            await asyncio.sleep(max(0.0, began + (opened + _BURST) / rate - time.monotonic()))
        return {"took": time.monotonic() - began}


class Asker:
    """Signed requests as fast as they are answered, a number of them at a time."""

    def __init__(self, key: PrivateKey) -> None:
        self._author = Author("bench", key)
        self.endpoint = Endpoint(secrets.token_bytes(8), GistOptions(), responder=False)
        self._sender = Sender(self.endpoint.gist, os.urandom)
        self.endpoint.on_event = self._on_event
        self.endpoint.on_timer = self._sender.handle_timer
        self.endpoint.next_timer = self._sender.next_timer
        self._waiting: list[bytes] = []
        self._answered = self._refused = 0
        self._done = asyncio.Event()

    def _on_event(self, now: float) -> None:
        self._sender.process(now)
        results, self._sender.results = self._sender.results, {}
        for result in results.values():
            hops = result.response.hops if result.response else ()
            self._answered += 1
            self._refused += not (hops and hops[0].ok)
            if self._waiting:
                self._sender.send(result.session, self._waiting.pop(), now)
            elif not self._sender.busy:
                self._done.set()

    async def serve(self, command: Command) -> Answer:
        """Ask; what is asked is signed before the time is taken."""
        probe = {"probe": "node-id,address,status"}
        self._waiting = [
            compose(
                self._author, Method.PROBE, "*", probe,
                wall_time=time.time(), nonce=secrets.token_bytes(16),
            )
            for _ in range(command["requests"])
        ]  # fmt: skip
        self._answered = self._refused = 0
        self._done.clear()
        source, destination = ip_address(command["source"]), ip_address(command["destination"])
        began = time.monotonic()
        for _ in range(min(command["at_a_time"], len(self._waiting))):
            session = self._sender.open(source, destination)
            self._sender.send(session, self._waiting.pop(), began)
        self.endpoint.pump()
        async with asyncio.timeout(60):
            await self._done.wait()
        took = time.monotonic() - began
        return {"took": took, "answered": self._answered, "refused": self._refused}


@dataclass
class Nothing:
    """A runtime for requests that install nothing."""

    building_blocks: Mapping[str, str] = field(default_factory=dict)
    capabilities: Mapping[str, str] = field(default_factory=dict)

    async def install(self, user: User, module: ModuleRequest) -> Mapping[str, str]:
        raise AssertionError("nothing is installed here")

    async def remove(self, user: User, name: str) -> None:
        raise AssertionError("nothing is removed here")

    async def status(self, user: User, name: str) -> Mapping[str, str]:
        return {}


def verifications_per_s(key: PrivateKey) -> float:
    """Return how many signatures this core checks in a second: the limit beside it."""
    data = bytes(600)
    signature = key.sign("bench", data)
    began, count = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < 1.0:
        key.public.verify("bench", data, signature)
        count += 1
    return count / took


async def _lines(serve: Serve) -> None:
    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()
    while line := await asyncio.to_thread(sys.stdin.readline):
        answer = await serve(json.loads(line))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


async def _main(role: str, more: Command) -> None:
    set_up_logs(LogConfig(level="error"))  # standard output is for answers
    os.sched_setaffinity(0, {more["core"] % (os.cpu_count() or 1)})
    if role == "service":
        key = PrivateKey.load(Path(more["key"]))
        user = User.model_validate({"name": "bench", "public_key": key.public})
        with TemporaryDirectory() as cache:
            options = NodeOptions("bench", Path(cache), connections=False)

            async def serve(_: Command) -> Answer:
                return {"verifications": verifications_per_s(key)}

            async with running_node(options, {"bench": user}, Nothing()):
                await _lines(serve)
        return
    made: Holder | Opener | Asker
    if role == "asker":
        made = Asker(PrivateKey.load(Path(more["key"])))
    elif role == "opener":
        made = Opener(more["refresh"])
    else:
        made = Holder(more["refresh"], last=role == "last")
    made.endpoint.open()
    try:
        if role == "middle":
            with diverting():
                await _lines(made.serve)
        else:
            await _lines(made.serve)
    finally:
        await made.endpoint.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], json.loads(sys.argv[2])))
