"""A module in WebAssembly as a sandbox sees it: one like any other (docs/protocols/wasm.md).

A batch is copied into its memory in one block, and the verdicts are read from one: what a call
costs is spread over the packets.
"""

import logging
import time
from collections.abc import Iterator

import numpy as np

from anabranch.services.batch import Batch
from anabranch.services.frames import IPV4_BYTES, Bytes
from anabranch.services.module import Context, Module, Status
from anabranch.services.rings.receive import LONGEST_PACKET
from anabranch.services.wasm.guest import Guest, HostFunction, Signature, WasmError

ABI = 1
NAMESPACE = "anabranch"
FORWARD, DROP, REWRITE, REPLY = range(4)
MOST_PACKETS = 256
"""In one call of ``process``."""
_BLOCK = MOST_PACKETS * (LONGEST_PACKET + 1) + 15
_ALIGNED = 16
_BATCH_S, _CALL_S, _CONFIGURE_S = 0.25, 1.0, 10.0
_MOST_EMITTED, _MOST_LINES, _MAX_LINE, _MAX_STATUS = 256, 20, 2000, 4096
_EXPORTS: dict[str, Signature] = {
    "anabranch_abi": ((), ("i32",)),
    "alloc": (("i32",), ("i32",)),
    "configure": (("i32", "i32"), ("i32",)),
    "restore_state": (("i32", "i32"), ("i32",)),
    "start": ((), ()),
    "process": (("i32", "i32", "i32", "i32"), ()),
    "room": ((), ("i32",)),
    "tick": ((), ()),
    "status": ((), ()),
    "take_state": ((), ()),
    "stop": ((), ()),
}
_REQUIRED = frozenset({"anabranch_abi", "alloc", "process"})
_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)


class WasmModule(Module):
    """One instance; nothing of it is compiled or run before :meth:`configure`."""

    def __init__(self, code: bytes) -> None:
        self._code = code
        self._instance: Guest | None = None
        self._log = logging.getLogger("module")
        self._lines = 0
        self._complaint = ""
        self._period: float | None = None
        self._answer = bytearray()
        self._answer_room = 0
        self._emitted: list[bytes] = []
        self._processing = False
        self._block = self._least = 0

    def configure(self, context: Context) -> None:
        """Compile it, make the instance, and tell it what it is told.

        Raises:
            WasmError: the code is no such module, traps, or takes too long.
            ValueError: it refuses its parameters.
        """
        self._log = context.log
        memory = context.memory_mb * 1024**2
        self._instance = Guest(
            self._code, memory, exports=_EXPORTS, required=_REQUIRED,
            namespace=NAMESPACE, imports=self._imports(), patience=_CONFIGURE_S,
        )  # fmt: skip
        self._code = b""
        found = self._call("anabranch_abi")
        if found != ABI:
            raise WasmError(f"it is for version {found} of the interface; here is version {ABI}")
        if self._guest.has("configure"):
            text = b"".join(part.encode() + b"\0" for part in _told(context))
            if self._hand_over("configure", text, _CONFIGURE_S):
                raise ValueError(self._complaint or "its configure refuses, and does not say why")
        if self._guest.has("room"):
            self._least = self._call("room")
            if not 0 <= self._least <= LONGEST_PACKET:
                raise WasmError(
                    f"it wants {self._least} bytes a packet: there are {LONGEST_PACKET}"
                )
        if self._period is not None:
            if not self._guest.has("tick"):
                raise WasmError("it asks to be called every so often, and exports no tick")
            context.every(self._period, lambda: self._do("tick"))
        self._block = -(-self._alloc(_BLOCK) // _ALIGNED) * _ALIGNED

    def restore_state(self, state: bytes) -> None:
        if self._guest.has("restore_state") and self._hand_over("restore_state", state, _CALL_S):
            raise WasmError(self._complaint or "it cannot take the state over")

    def start(self) -> None:
        self._do("start")

    def process(self, batch: Batch) -> None:
        if len(batch) <= MOST_PACKETS:
            self._pass(batch, 0, len(batch))
            return
        for first in range(0, len(batch), MOST_PACKETS):
            self._pass(batch, first, min(first + MOST_PACKETS, len(batch)))

    def status(self) -> Status:
        text = self._asked("status", _MAX_STATUS).decode(errors="replace")
        lines = (line.partition("=") for line in text.splitlines())
        return {name.strip(): _figure(value.strip()) for name, sign, value in lines if sign}

    def take_state(self) -> bytes:
        return self._asked("take_state", self._guest.memory_bytes)

    def stop(self) -> None:
        self._do("stop")

    @property
    def _guest(self) -> Guest:
        if self._instance is None:
            raise WasmError("its start function calls the node, before there is an instance")
        return self._instance

    # Packets

    def _pass(self, batch: Batch, first: int, end: int) -> None:
        """Show it some packets of a batch, and do as it says; or nothing of it if it cannot be."""
        count = end - first
        packets = batch.packets
        longest = max(int(batch.length[first:end].max()), self._least)
        stride = min(-(-longest // _ALIGNED) * _ALIGNED, packets.shape[1])
        span = count * stride
        memory = self._guest.view(self._block, span + count)
        memory[:span].reshape(count, stride)[:] = packets[first:end, :stride]
        memory[span:] = FORWARD
        self._emitted, self._processing = [], True
        try:
            self._call("process", self._block, count, stride, self._block + span, patience=_BATCH_S)
        finally:
            self._processing = False
        memory = self._guest.view(self._block, span + count)
        verdicts = memory[span:].copy()
        if verdicts.any():
            self._decide(batch, first, verdicts, memory[:span].reshape(count, stride))
        for packet in self._emitted:
            batch.emit(packet)

    def _decide(self, batch: Batch, first: int, verdicts: Bytes, packets: Bytes) -> None:
        if int(verdicts.max()) > REPLY:
            raise WasmError(f"{int(verdicts.max())} is no verdict")
        replies = np.flatnonzero(verdicts == REPLY)
        if len(replies) and not batch.whole_udp[first + replies].all():
            raise WasmError("only whole UDP packets can be answered")
        changed = np.flatnonzero(verdicts >= REWRITE)
        if len(changed):
            batch.replace(first + changed, packets[changed])
        if len(replies):
            batch.reply(first + replies)
        dropped = np.flatnonzero(verdicts == DROP)
        if len(dropped):
            batch.drop(first + dropped)

    # Calls

    def _call(self, name: str, *arguments: int, patience: float = _CALL_S) -> int:
        self._lines = 0
        return self._guest.call(name, *arguments, patience=patience)

    def _do(self, name: str) -> None:
        if self._guest.has(name):
            self._call(name)

    def _asked(self, name: str, most: int) -> bytes:
        """Return what it answers in a call."""
        if not self._guest.has(name):
            return b""
        self._answer, self._answer_room = bytearray(), most
        try:
            self._call(name)
            return bytes(self._answer)
        finally:
            self._answer, self._answer_room = bytearray(), 0

    def _alloc(self, length: int) -> int:
        at = self._call("alloc", length) & 0xFFFFFFFF
        if not at:
            raise WasmError(f"its alloc gives no {length} bytes")
        self._guest.view(at, length)
        return at

    def _hand_over(self, name: str, data: bytes, patience: float) -> int:
        """Call an export with a block of bytes in its memory."""
        at = self._alloc(max(len(data), 1))
        self._guest.write(at, data)
        self._complaint = ""
        return self._call(name, at, len(data), patience=patience)

    # What it may call

    def _imports(self) -> dict[str, HostFunction]:
        return {
            "log": HostFunction((("i32", "i32", "i32"), ()), self._on_log),
            "now": HostFunction(((), ("i64",)), time.monotonic_ns),
            "every": HostFunction((("i32",), ()), self._on_every),
            "answer": HostFunction((("i32", "i32"), ()), self._on_answer),
            "emit": HostFunction((("i32", "i32"), ("i32",)), self._on_emit),
        }

    def _on_log(self, level: int, at: int, length: int) -> None:
        self._lines += 1
        if self._lines > _MOST_LINES:
            return
        text = self._guest.read(at, min(length & 0xFFFFFFFF, _MAX_LINE)).decode(errors="replace")
        number = _LEVELS[min(max(level, 0), len(_LEVELS) - 1)]
        if number == logging.ERROR:
            self._complaint = text[:_MAX_LINE]
        self._log.log(number, "%s", text)

    def _on_every(self, milliseconds: int) -> None:
        self._period = milliseconds / 1000

    def _on_answer(self, at: int, length: int) -> None:
        if len(self._answer) + (length & 0xFFFFFFFF) > self._answer_room:
            raise WasmError(f"it answers more than {self._answer_room} bytes, or was not asked")
        self._answer += self._guest.read(at, length)

    def _on_emit(self, at: int, length: int) -> int:
        """Return whether the packet will be sent; in calls of ``process`` alone."""
        if not self._processing or len(self._emitted) >= _MOST_EMITTED:
            return 0
        if not IPV4_BYTES <= length <= LONGEST_PACKET:
            return 0
        packet = self._guest.read(at, length)
        if packet[0] >> 4 not in {4, 6}:
            return 0
        self._emitted.append(packet)
        return 1


def _told(context: Context) -> Iterator[str]:
    """Yield names and values in turn; those of the node begin with a dot."""
    for name, value in context.properties.items():
        yield from (name, value)
    yield from (".name", context.name, ".version", context.version, ".user", context.user)
    for name, address in ((".address", context.address), (".address6", context.address6)):
        if address is not None:
            yield from (name, address)
    for claim in context.filters:
        yield from (".filter", claim)


def _figure(value: str) -> str | int:
    return int(value) if value.isascii() and value.isdecimal() and len(value) <= 20 else value
