"""Interrupts calls into WebAssembly that take too long.

One thread a process, which is there only while calls are made: a sandbox that waits for packets
is not woken up by it.
"""

import threading
import time

from wasmtime import Engine

_LOOK_S = 0.05
_LINGER_S = 2.0  # so long after the last call it goes on, since the next is likely to come soon


class Watchdog:
    """Raises the epoch of an engine whose call has passed its deadline, and so makes it trap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deadlines: dict[Engine, float] = {}
        self._last = 0.0
        self._running = False

    def begin(self, engine: Engine, seconds: float) -> None:
        """Watch a call that begins now; an engine makes one call at a time."""
        now = time.monotonic()
        with self._lock:
            self._deadlines[engine] = now + seconds
            self._last = now
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="wasm-watchdog", daemon=True).start()

    def end(self, engine: Engine) -> None:
        """Let a call be: it has ended."""
        with self._lock:
            self._deadlines.pop(engine, None)

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            now = time.monotonic()
            with self._lock:  # no call ends, and none begins, between the look and the epoch
                late = [engine for engine, due in self._deadlines.items() if due < now]
                for engine in late:
                    del self._deadlines[engine]
                    engine.increment_epoch()
                if not self._deadlines and now - self._last > _LINGER_S:
                    self._running = False
                    return
