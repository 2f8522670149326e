"""The holder: a small process that is the parent of the children which outlive a director.

It reads their output while no director does, so that none of them ever waits for a reader or dies
for want of one; it keeps their ends, and short notes that a director leaves for the next. It has no
opinion: it starts and ends nothing by itself, but when it is told to end, or dies, they end too.

One datagram of JSON is one message (``SOCK_SEQPACKET``); descriptors go along (``SCM_RIGHTS``). It
greets with ``{"hello": {"pid", "children", "notes"}}``, children by name as ``{"pid", "spec",
"code"}``, and takes

- ``{"id", "start": {"name", "argv", "env", "spec"}}``: answered by ``{"id", "pid"}`` with the ends
  of standard input, output and error, or by ``{"id", "error"}``;
- ``{"id", "take": NAME}``: answered in the same way, with ``lines`` that were read meanwhile by
  stream and, if it has ended, ``code``; or by an error: there is none;
- ``{"note": KEY, "value"}``: kept; null: forgotten.

``{"exit": NAME, "pid", "code"}`` tells the end of a child. A new connection replaces the one
before.

Usage: ``python -m anabranch.host.holder SOCKET``. It imports nothing but the standard library.
"""

import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

MAX_MESSAGE = 1 << 20
_KEPT_LINES = 40
_LINE = 1000
"""Bytes of a line that are kept."""
_CHUNK = 65536
_END_S = 3.0
_PR_SET_PDEATHSIG = 1
_STREAMS = ("stdout", "stderr")


@dataclass(slots=True)
class Tail:
    """The last lines of a stream that nobody else reads."""

    lines: deque[bytes] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    _rest: bytes = b""

    def feed(self, data: bytes) -> None:
        """Take what came."""
        *whole, rest = (self._rest + data).split(b"\n")
        self.lines.extend(line[:_LINE] for line in whole)
        self._rest = rest[-_LINE:]

    def take(self) -> list[str]:
        """Return the whole lines, the oldest first, and forget them."""
        taken = [line.decode(errors="replace") for line in self.lines]
        self.lines.clear()
        self._rest = b""
        return taken


@dataclass(slots=True)
class _Held:
    """A child; ``ends`` are of its standard input, output and error."""

    process: subprocess.Popen[bytes]
    spec: str
    ends: list[int]
    tails: dict[str, Tail] = field(default_factory=lambda: {name: Tail() for name in _STREAMS})
    code: int | None = None
    watched: bool = False


class Holder:
    """See the module.

    Args:
        listener: where directors connect.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        self._director: socket.socket | None = None
        self._held: dict[str, _Held] = {}
        self._notes: dict[str, Any] = {}
        self._ending = False
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def run(self) -> None:
        """Serve until told to end by SIGTERM."""
        wake, waker = socket.socketpair()
        for end in (wake, waker):
            end.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_ending", True))
        self._selector.register(wake, selectors.EVENT_READ, partial(_drain, wake))
        while not self._ending:
            for key, _ in self._selector.select():
                key.data()
            self._reap()
        self._end_all()

    # --- directors ----------------------------------------------------------------------------

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        enlarge(connection)
        self._lose_director()
        self._director = connection
        self._selector.register(connection, selectors.EVENT_READ, self._heard)
        children = {
            name: {"pid": each.process.pid, "spec": each.spec, "code": each.code}
            for name, each in self._held.items()
        }
        self._tell({"hello": {"pid": os.getpid(), "children": children, "notes": self._notes}})

    def _lose_director(self) -> None:
        director, self._director = self._director, None
        if director is None:
            return
        self._selector.unregister(director)
        director.close()
        for held in self._held.values():
            self._watch(held)

    def _heard(self) -> None:
        if self._director is None:
            return
        try:
            data = self._director.recv(MAX_MESSAGE, socket.MSG_DONTWAIT)
            message = json.loads(data) if data else None
        except BlockingIOError:
            return  # it was the one before that was heard
        except (OSError, ValueError):
            message = None
        if not isinstance(message, dict):
            self._lose_director()
        elif "start" in message:
            self._start(message["id"], **message["start"])
        elif "take" in message:
            self._take(message["id"], message["take"])
        elif "note" in message:
            self._notes[message["note"]] = message["value"]
            if message["value"] is None:
                del self._notes[message["note"]]

    def _tell(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        if self._director is not None:
            try:
                socket.send_fds(self._director, [json.dumps(message).encode()], descriptors or [])
            except OSError:
                self._lose_director()

    # --- children -----------------------------------------------------------------------------

    def _start(
        self, number: int, name: str, argv: list[str], env: dict[str, str], spec: str
    ) -> None:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=env,
                start_new_session=True,
                preexec_fn=_die_with_holder,
            )
        except OSError as error:
            self._tell({"id": number, "error": error.strerror or str(error)})
            return
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        ends = [os.dup(each.fileno()) for each in (process.stdin, process.stdout, process.stderr)]
        for pipe, end in zip((process.stdin, process.stdout, process.stderr), ends, strict=True):
            pipe.close()
            os.set_blocking(end, False)
        self._held[name] = _Held(process, spec, ends)
        self._tell({"id": number, "pid": process.pid}, ends)

    def _take(self, number: int, name: str) -> None:
        held = self._held.get(name)
        if held is None:
            self._tell({"id": number, "error": "there is none"})
            return
        self._unwatch(held)
        lines = {stream: tail.take() for stream, tail in held.tails.items()}
        answer = {"id": number, "pid": held.process.pid, "lines": lines}
        if held.code is not None:
            self._forget(name)
            self._tell({**answer, "code": held.code})
        else:
            self._tell(answer, held.ends)

    def _watch(self, held: _Held) -> None:
        """Read what a child says, as long as nobody else does."""
        if not held.watched and held.code is None:
            held.watched = True
            for stream, end in zip(_STREAMS, held.ends[1:], strict=True):
                read = partial(self._read, held.tails[stream], end)
                self._selector.register(end, selectors.EVENT_READ, read)

    def _unwatch(self, held: _Held) -> None:
        held.watched = False
        for end in held.ends[1:]:
            with suppress(KeyError, ValueError):
                self._selector.unregister(end)

    def _read(self, tail: Tail, end: int) -> None:
        try:
            data = os.read(end, _CHUNK)
        except OSError:  # nothing more for now, or closed by what happened just before
            return
        if data:
            tail.feed(data)
        else:
            self._selector.unregister(end)

    def _reap(self) -> None:
        for name, held in list(self._held.items()):
            if held.code is not None or held.process.poll() is None:
                continue
            held.code = held.process.returncode
            if held.watched:  # its last words
                for stream, end in zip(_STREAMS, held.ends[1:], strict=True):
                    with suppress(OSError):
                        held.tails[stream].feed(os.read(end, _CHUNK))
            told = self._director is not None and not held.watched
            self._unwatch(held)
            for end in held.ends:
                os.close(end)
            held.ends.clear()
            if self._director is not None:
                self._tell({"exit": name, "pid": held.process.pid, "code": held.code})
            if told:
                self._forget(name)

    def _forget(self, name: str) -> None:
        for end in self._held.pop(name).ends:
            os.close(end)

    def _end_all(self) -> None:
        living = [each.process for each in self._held.values() if each.process.poll() is None]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in living:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            for process in living:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_END_S)
            living = [process for process in living if process.returncode is None]


def _die_with_holder() -> None:
    """Have the child that is about to begin end with this process: nobody else could keep it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _drain(end: socket.socket) -> None:
    with suppress(BlockingIOError):
        while end.recv(4096):
            pass


def enlarge(end: socket.socket) -> None:
    """Let messages be as long as they may be; who is not root has to do with less."""
    force = 32  # SO_SNDBUFFORCE, which Python does not name
    for option in (force, socket.SO_SNDBUF):
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, option, MAX_MESSAGE)
            return


def main() -> None:
    path = Path(sys.argv[1])
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        usual = os.umask(0o177)
        listener.bind(str(path))
        os.umask(usual)  # children have it, too
        listener.listen(1)
        Holder(listener).run()


if __name__ == "__main__":
    main()
