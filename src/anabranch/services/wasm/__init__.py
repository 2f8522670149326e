"""Modules in WebAssembly behind the contract of Python's: docs/protocols/wasm.md."""


def is_wasm(entry: str) -> bool:
    """Say whether a manifest's entry is a file of WebAssembly, binary or text."""
    return entry.endswith((".wasm", ".wat"))
