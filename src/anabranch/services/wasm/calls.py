"""Calls of exports, prepared once: parameters and results are 32-bit integers.

``Func.__call__`` of the package looks the types up and converts each value anew: 37 us for four
parameters, where the call itself takes two. So this file alone uses what is behind it
(``wasmtime._ffi``); a release that changes it fails our tests.
"""

from ctypes import byref

from wasmtime import Func, Store, WasmtimeError, _ffi
from wasmtime._func import enter_wasm


class Call:
    """One export, called with as many arguments as it has parameters."""

    def __init__(self, store: Store, function: Func) -> None:
        kind = function.type(store)
        self._store = store
        self._function = function
        self._parameters = (_ffi.wasmtime_val_t * len(kind.params))()
        self._results = (_ffi.wasmtime_val_t * len(kind.results))()
        for each in self._parameters:
            each.kind = _ffi.WASMTIME_I32

    def __call__(self, *arguments: int) -> int:
        """Return the result, 0 if there is none.

        Raises:
            Trap, WasmtimeError: as ``Func.__call__``.
            Exception: what a host function raised.
        """
        for place, value in zip(self._parameters, arguments, strict=True):
            place.of.i32 = value
        with enter_wasm(self._store) as trap:
            error = _ffi.wasmtime_func_call(
                self._store._context(), byref(self._function._func),
                self._parameters, len(self._parameters), self._results, len(self._results), trap,
            )  # fmt: skip
            if error:
                raise WasmtimeError._from_ptr(error)
        return self._results[0].of.i32 if len(self._results) else 0
