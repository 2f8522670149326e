"""Modules in WebAssembly's text form, for tests."""

from collections.abc import Iterable
from pathlib import Path

from anabranch.services import modules
from anabranch.services.batch import Batch
from anabranch.services.module import Context
from anabranch.services.slots import Slots
from anabranch.services.wasm.module import WasmModule

MONITOR = Path(modules.__file__).parent / "netmonitor_wasm"
ABI = '(func (export "anabranch_abi") (result i32) (i32.const 1))'
ALLOC = """
(memory (export "memory") 32)
(global $heap (mut i32) (i32.const 65536))
(func (export "alloc") (param $bytes i32) (result i32)
  (global.get $heap)
  (global.set $heap (i32.add (global.get $heap) (local.get $bytes))))
"""
PROCESS = "(param $packets i32) (param $count i32) (param $stride i32) (param $verdicts i32)"
EACH = """
(loop $next (if (i32.gt_s (local.get $count) (i32.const 0)) (then
  {body}
  (local.set $packets (i32.add (local.get $packets) (local.get $stride)))
  (local.set $verdicts (i32.add (local.get $verdicts) (i32.const 1)))
  (local.set $count (i32.sub (local.get $count) (i32.const 1)))
  (br $next))))
"""
"""Runs ``body`` for each packet: its first byte is at $packets, its verdict at $verdicts."""


def guest(process: str = "", *others: str, imports: Iterable[str] = ()) -> bytes:
    """Return a module whose ``process`` has this body, and what else it is to have."""
    parts = [*imports, ALLOC, ABI, f'(func (export "process") {PROCESS} {process})', *others]
    return f"(module {' '.join(parts)})".encode()


def each(body: str) -> str:
    return EACH.format(body=body)


def configured(code: bytes, memory_mb: int = 16, **properties: str) -> WasmModule:
    module = WasmModule(code)
    module.configure(Context("m", "1", "alice", properties=properties, memory_mb=memory_mb))
    return module


def loaded(code: bytes, memory_mb: int = 16, **properties: str) -> WasmModule:
    """Return a module that is configured and started."""
    module = configured(code, memory_mb, **properties)
    module.start()
    return module


def run(module: WasmModule, slots: Slots) -> None:
    module.process(Batch(slots, slots.whole()))
