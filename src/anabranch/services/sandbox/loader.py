"""A module's code: Python, imported so that versions of it live side by side; or WebAssembly."""

import importlib
import sys
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from anabranch.services.errors import ModuleError
from anabranch.services.module import Module
from anabranch.services.wasm import is_wasm


def load(code: Path, entry: str) -> Module:
    """Import ``FILE:CLASS`` from a directory and make an instance; or take ``FILE.wasm``.

    What the file imports from its own directory is its own, too: it is not found by a module that
    is loaded later, nor by an import that is made later.

    Raises:
        ModuleError: the class is not there, or is no module; or this node has no Wasmtime.
        Exception: whatever the module's own code raises.
    """
    if is_wasm(entry):
        return _load_wasm(code / entry)
    file, _, name = entry.partition(":")
    # Not a set of them all: to hold the names of a thousand modules copies the pages they are in.
    last = next(reversed(sys.modules))
    sys.path.insert(0, str(code))
    try:
        module = importlib.import_module(file)
    finally:
        sys.path.remove(str(code))
        sys.path_importer_cache.pop(str(code), None)  # it knows what was there
        for each in list(takewhile(lambda name: name != last, reversed(sys.modules))):
            origin = getattr(sys.modules[each], "__file__", None)
            if origin is not None and code in Path(origin).parents:
                del sys.modules[each]
    if code not in Path(module.__file__ or "/").parents:
        raise ModuleError(f"{file} is also the name of a module of Python's: choose another")
    found = getattr(module, name, None)
    if not isinstance(found, type) or not issubclass(found, Module):
        raise ModuleError(f"{entry} is no class that derives from anabranch's Module")
    return found()


def warm_up() -> None:
    """Have loaded what WebAssembly needs, if it is there: inside a sandbox it takes 0.1 s."""
    with suppress(ImportError):
        import anabranch.services.wasm.module  # noqa: F401


def _load_wasm(path: Path) -> Module:
    try:
        from anabranch.services.wasm.module import WasmModule
    except ImportError:
        raise ModuleError("modules in WebAssembly need Wasmtime: install anabranch[wasm]") from None
    return WasmModule(path.read_bytes())
