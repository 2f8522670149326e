"""What a sandbox's process does: packets through the modules, and what its node asks of it.

Code is loaded in a thread of its own, so that packets go on meanwhile; everything else happens
in this one, between two batches.
"""

import asyncio
import ctypes
import http.client
import http.server
import ipaddress
import logging
import os
import select
import socket
import socketserver
import sys
import threading
import time
import traceback
import xmlrpc.client
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from anabranch.services.blocks.transcoder import Transcoder
from anabranch.services.chain import Chain, Link
from anabranch.services.module import Context, Module
from anabranch.services.rings.receive import ReceiveRing
from anabranch.services.rings.transmit import Transmitter
from anabranch.services.sandbox.addressing import FixedAddresses, KeptAddresses
from anabranch.services.sandbox.loader import load
from anabranch.services.sandbox.loader import warm_up as warm_up_loader
from anabranch.services.sandbox.packet_path import BATCH, PacketPath
from anabranch.services.sandbox.spec import DATA, MAX_MESSAGE, SandboxSpec, decode, encode
from anabranch.services.sandbox.timers import SHORTEST, Timers

LOADED_BEFORE = (asyncio, http.client, http.server, ipaddress, socketserver, xmlrpc.client)
"""What most modules import: a sandbox shares it with the zygote."""
_LOOK_UP_S = 0.002  # how long packets may keep us from what the node asks
_SWITCH_S = 0.0005  # how long the thread that loads code may keep packets waiting
_MAX_TRACES = 20
_libc = ctypes.CDLL(None)

Message = dict[str, Any]


def warm_up() -> None:
    """Have done once, before any sandbox is forked, what is slow or impossible inside."""
    "x".encode("idna")  # imports its codec
    socket.getaddrinfo("127.0.0.1", 80)
    warm_up_loader()
    sys.setswitchinterval(_SWITCH_S)
    np.setbufsize(2048)  # of 8,192 elements each operand's takes 64 KiB in every sandbox
    sys.dont_write_bytecode = True
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")


def rehearse() -> None:
    """Do once, in a child that waits, what a tenant's code would wait for.

    A page is copied when it is written to for the first time: some hundred pages by loading a
    module. A source larger than this one copies more than most modules need.
    """
    source = Path(__file__).with_name("timers.py").read_text()
    thread = threading.Thread(target=compile, args=(source, "rehearsal", "exec"))
    thread.start()
    thread.join()
    decode(encode({"up": True}))


def run(spec: SandboxSpec, control: socket.socket, rings: list[socket.socket]) -> int:
    """Run until the node says stop, or is gone; return the process's exit code."""
    return Runner(spec, control, rings).run()


class Runner:
    """The loop, and the answers to the node: see :mod:`anabranch.services.sandbox.container`."""

    def __init__(
        self, spec: SandboxSpec, control: socket.socket, rings: list[socket.socket]
    ) -> None:
        self._spec = spec
        self._transcoder = Transcoder(rings.pop()) if spec.transcoder else None
        self._control = control
        self._chain = Chain(self._tell_failure)
        self._path: PacketPath | None = None
        if rings:
            transmitter = Transmitter(rings[1], BATCH)
            addresses = bytes.fromhex(spec.router_mac + spec.own_mac)
            addressing = FixedAddresses(addresses) if addresses else KeptAddresses()
            ring = ReceiveRing(rings[0], spec.ring_blocks)
            self._path = PacketPath(ring, transmitter, self._chain, addressing)
        self._timers = Timers()
        self._loaded: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopped = False
        self._traces = 0

    def run(self) -> int:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        if self._path is not None:
            poll.register(self._path, select.POLLIN)
        self._control.send(encode({"up": True}))
        look_up = 0.0
        while not self._stopped:
            count = self._path.turn() if self._path is not None else 0
            now = time.monotonic()
            if count and now < look_up:
                continue
            for descriptor, _ in poll.poll(0 if count else self._patience(now)):
                if descriptor == self._control.fileno():
                    self._answer()
                elif descriptor == self._wake:
                    os.eventfd_read(self._wake)
            while self._loaded:
                self._loaded.popleft()()
            for owner, function in self._timers.due(time.monotonic()):
                self._guarded(owner, function)
            look_up = time.monotonic() + _LOOK_UP_S
        for link in reversed(self._chain.links):
            self._guarded(link.name, link.module.stop)
        return 0

    def _patience(self, now: float) -> float | None:
        """Return how long to wait for something to happen, in milliseconds."""
        due = self._timers.next()
        return None if due is None else max(due - now, 0) * 1000

    # What the node asks

    def _answer(self) -> None:
        data = self._control.recv(MAX_MESSAGE)
        if not data:
            self._stopped = True
            return
        message = decode(data)
        answers = {
            "load": self._load,
            "unload": self._unload,
            "status": self._status,
            "state": self._state,
            "stop": self._stop,
        }
        try:
            answer = answers[message["do"]](message)
        except Exception as error:  # most of it is the tenant's code
            self._tell(message["module"], error)
            answer = {"error": _words(error)}
        if answer is not None:
            self._control.send(encode({"id": message["id"], **answer}))

    def _load(self, message: Message) -> None:
        thread = threading.Thread(target=self._prepare, args=(message,), daemon=True)
        thread.start()

    def _prepare(self, message: Message) -> None:
        """In a thread: import the code and configure an instance, while packets go on."""
        ready: Callable[[], None]
        try:
            module = load(Path(message["code"]), message["entry"])
            timers = _TimersOf(message["module"], self._timers)
            module.configure(self._context(message, timers.every))
            ready = partial(self._install, message, module, timers)
        except Exception as error:
            ready = partial(self._refuse, message, error)
        _libc.malloc_trim(0)  # what compiling took
        self._loaded.append(ready)
        os.eventfd_write(self._wake, 1)

    def _refuse(self, message: Message, error: Exception) -> None:
        self._tell(message["module"], error)
        self._control.send(encode({"id": message["id"], "error": _words(error)}))

    def _install(self, message: Message, module: Module, timers: "_TimersOf") -> None:
        """Between two batches: put the new module in, in the place of the old one if there is one.

        The old one is asked for its state, and stopped; where its successor cannot take over, it
        starts again.
        """
        began = time.perf_counter()
        old = self._find(message["module"])
        state = message.get("state")
        try:
            if old is not None:
                taken = old.module.take_state()
                module.restore_state(taken)
                old.module.stop()
            elif state is not None:
                module.restore_state(bytes.fromhex(state))
            try:
                module.start()
            except Exception:
                if old is not None:
                    old.module.start()
                raise
        except Exception as error:
            self._refuse(message, error)
            return
        if old is not None:
            self._chain.replace(old, module)
            self._timers.forget(old.name)
        else:
            self._chain.links.append(Link(message["module"], module))
        timers.install()
        pause = time.perf_counter() - began
        self._control.send(encode({"id": message["id"], "pause_ms": round(pause * 1000, 3)}))

    def _unload(self, message: Message) -> Message:
        link = self._find(message["module"])
        if link is not None:
            self._chain.links.remove(link)
            self._timers.forget(link.name)
            link.module.stop()
        return {}

    def _state(self, message: Message) -> Message:
        link = self._find(message["module"])
        return {"state": None if link is None else link.module.take_state().hex()}

    def _status(self, message: Message) -> Message:
        modules = {}
        for link in self._chain.links:
            status: dict[str, Any] = {"packets": link.packets, "failures": link.failures}
            status["state"] = "failed" if link.failed else "running"
            status |= {str(k): str(v) for k, v in link.module.status().items()}
            modules[link.name] = status
        return {"modules": modules, "path": self._path.figures() if self._path else {}}

    def _stop(self, message: Message) -> Message:
        self._stopped = True
        return {}

    def _find(self, name: str) -> Link | None:
        return next((link for link in self._chain.links if link.name == name), None)

    def _context(
        self, message: Message, every: Callable[[float, Callable[[], None]], None]
    ) -> Context:
        return Context(
            name=message["name"],
            version=message["version"],
            user=self._spec.user,
            properties=message["properties"],
            filters=tuple(message["filters"]),
            public_key=message.get("public_key", ""),
            address=self._spec.address,
            address6=self._spec.address6,
            ports=self._spec.tcp_ports,
            memory_mb=message.get("memory_mb", 16),
            directory=Path(DATA) if self._spec.image else None,
            code=Path(message["code"]),
            log=logging.getLogger(message["name"]),
            every=every,
            transcoder=self._transcoder,
        )

    # What goes wrong

    def _guarded(self, owner: str, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception as error:
            self._tell(owner, error)

    def _tell_failure(self, link: Link, error: Exception) -> None:
        self._tell(link.name, error)
        if link.failed:
            logging.error("%s failed too often: packets pass it by", link.name)

    def _tell(self, owner: str, error: Exception) -> None:
        """Write an error to the log, with its trace: the first few times."""
        self._traces += 1
        if self._traces <= _MAX_TRACES:
            trace = "".join(traceback.format_exception(error, limit=-8))
            logging.error("%s: %s", owner, trace.rstrip())


class _TimersOf:
    """The timers of a module, which begin when it is installed: no earlier, not in its thread."""

    def __init__(self, owner: str, timers: Timers) -> None:
        self._owner = owner
        self._timers = timers
        self._waiting: list[tuple[float, Callable[[], None]]] | None = []

    def every(self, seconds: float, function: Callable[[], None]) -> None:
        if not seconds >= SHORTEST:
            raise ValueError(f"a timer's period is at least {SHORTEST} s")
        if self._waiting is not None:
            self._waiting.append((seconds, function))
        else:
            self._timers.every(self._owner, seconds, function, time.monotonic())

    def install(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for seconds, function in waiting:
            self.every(seconds, function)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]
