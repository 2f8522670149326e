"""A WebAssembly instance, shut in: its memory and its time have limits, and what it can reach is
what its host hands to it. Wasmtime compiles it, in the sandbox (decision 55).
"""

import ctypes
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import wasmtime
from wasmtime import Config, Engine, Func, FuncType, Linker, Memory, Store, ValType

from anabranch.services.errors import ModuleError
from anabranch.services.frames import Bytes
from anabranch.services.wasm.calls import Call
from anabranch.services.wasm.watchdog import Watchdog

Signature = tuple[tuple[str, ...], tuple[str, ...]]
"""Types of the parameters and of the results."""
_MAX_TEXT = 300
_TABLE_ELEMENTS = 100_000
_GUARD = 64 * 1024
_WATCHDOG = Watchdog()
_TYPES = {"i32": ValType.i32, "i64": ValType.i64}


class WasmError(ModuleError):
    """Code that is no module of ours, or that trapped, ran too long, or wanted too much."""


@dataclass(frozen=True, slots=True)
class HostFunction:
    """A function that the guest may import."""

    signature: Signature
    function: Callable[..., int | None]


class Guest:
    """One instance.

    Args:
        code: WebAssembly, binary or text.
        memory_bytes: how far its memory may grow.
        exports: signatures of exports, of i32 alone; those in ``required`` must be there.
        imports: what it may import from ``namespace``, and nothing else.
        patience: seconds for its start function.

    Raises:
        WasmError: it is no WebAssembly, asks for what there is not, or lacks an export.
    """

    def __init__(
        self, code: bytes, memory_bytes: int, *, exports: Mapping[str, Signature],
        required: frozenset[str], namespace: str, imports: Mapping[str, HostFunction],
        patience: float,
    ) -> None:  # fmt: skip
        self.memory_bytes = memory_bytes
        self._engine = Engine(_configuration(memory_bytes))
        try:
            module = wasmtime.Module(self._engine, code)
        except wasmtime.WasmtimeError as error:
            raise WasmError(f"no WebAssembly: {_words(error)}") from None
        _check(module, exports, required, namespace, imports)
        self._store = Store(self._engine)
        self._store.set_limits(
            memory_size=memory_bytes, table_elements=_TABLE_ELEMENTS, instances=1, memories=1
        )
        linker = Linker(self._engine)
        for name, one in imports.items():
            linker.define_func(namespace, name, _func_type(one.signature), one.function)
        instance = self._timed(patience, linker.instantiate, self._store, module)
        found = instance.exports(self._store)
        self._functions = {
            name: Call(self._store, each)
            for name in exports
            if isinstance(each := found.get(name), Func)
        }
        memory = found["memory"]
        assert isinstance(memory, Memory)
        self._memory = memory
        self._seen: tuple[int, int] = (0, 0)
        self._bytes = np.zeros(0, np.uint8)

    def has(self, name: str) -> bool:
        return name in self._functions

    def call(self, name: str, *arguments: int, patience: float) -> int:
        """Call an export and return its result; 0 if it has none.

        Raises:
            WasmError: it trapped, or took longer than ``patience`` seconds.
            ModuleError: what a host function raised.
        """
        result: int = self._timed(patience, self._functions[name], *arguments)
        return result

    def read(self, at: int, length: int) -> bytes:
        """Return a copy of some of its memory. Raises WasmError: it has not so much."""
        return self.view(at, length).tobytes()

    def write(self, at: int, data: bytes) -> None:
        """Raises WasmError: it has not so much memory."""
        self.view(at, len(data))[:] = np.frombuffer(data, np.uint8)

    def view(self, at: int, length: int) -> Bytes:
        """Return some of its memory, until the next call: then it may be elsewhere.

        Args:
            at, length: as the guest gives them: 32 bits, whatever their sign.

        Raises:
            WasmError: it has not so much memory.
        """
        at, length = at & 0xFFFFFFFF, length & 0xFFFFFFFF
        pointer = self._memory.data_ptr(self._store)
        size = self._memory.data_len(self._store)
        if at + length > size:
            raise WasmError(f"{length} bytes at {at}: it has {size} bytes of memory")
        seen = (ctypes.cast(pointer, ctypes.c_void_p).value or 0, size)
        if seen != self._seen:
            block = (ctypes.c_ubyte * size).from_address(seen[0])
            self._seen, self._bytes = seen, np.frombuffer(memoryview(block), np.uint8)
        return self._bytes[at : at + length]

    def _timed(self, patience: float, function: Callable[..., Any], *arguments: Any) -> Any:
        self._store.set_epoch_deadline(1)
        _WATCHDOG.begin(self._engine, patience)
        try:
            return function(*arguments)
        except wasmtime.Trap as trap:
            if trap.trap_code is wasmtime.TrapCode.INTERRUPT:
                raise WasmError(f"it ran for longer than {patience} s") from None
            raise WasmError(f"it trapped: {_words(trap)}") from None
        except wasmtime.WasmtimeError as error:
            raise WasmError(_words(error)) from None
        finally:
            _WATCHDOG.end(self._engine)


def _configuration(memory_bytes: int) -> Config:
    config = Config()
    config.epoch_interruption = True
    # By default it reserves 4 GiB of addresses, so as not to check each: a sandbox has no more.
    config.memory_reservation = memory_bytes
    config.memory_guard_size = _GUARD
    config.memory_may_move = False
    config.parallel_compilation = False  # its threads would stay, and a sandbox has few
    config.memory_init_cow = False  # needs memfd_create, which a sandbox has not
    return config


def _check(
    module: wasmtime.Module, exports: Mapping[str, Signature], required: frozenset[str],
    namespace: str, imports: Mapping[str, HostFunction],
) -> None:  # fmt: skip
    """Refuse a module whose imports and exports are not as they must be, in plain words."""
    for wanted in module.imports:
        if wanted.module != namespace or wanted.name not in imports:
            names = ", ".join(imports)
            raise WasmError(f"it imports {wanted.module}.{wanted.name}: of {namespace} there are "
                            f"{names}, and nothing else")  # fmt: skip
    there = {export.name: export.type for export in module.exports}
    missing = (required | {"memory"}) - there.keys()
    if missing:
        raise WasmError(f"it does not export {', '.join(sorted(missing))}")
    if not isinstance(there["memory"], wasmtime.MemoryType):
        raise WasmError("its export memory is no memory")
    for name, signature in exports.items():
        if name in there and _signature(there[name]) != signature:
            raise WasmError(f"its export {name} must be {_written(signature)}")


def _signature(found: object) -> Signature | None:
    if not isinstance(found, FuncType):
        return None
    return tuple(map(str, found.params)), tuple(map(str, found.results))


def _written(signature: Signature) -> str:
    return f"({', '.join(signature[0])}) -> ({', '.join(signature[1])})"


def _func_type(signature: Signature) -> FuncType:
    parameters, results = signature
    return FuncType([_TYPES[each]() for each in parameters], [_TYPES[each]() for each in results])


def _words(error: wasmtime.Trap | wasmtime.WasmtimeError) -> str:
    """Return what an error says, without the trace of its frames."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = "; ".join(
        line for line in lines
        if line and not line.startswith(("wasm backtrace", "Caused by"))
        and not re.match(r"\d+: +0x", line)
    )  # fmt: skip
    return said[:_MAX_TEXT]
