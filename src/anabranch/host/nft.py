"""Rules of nft(8) set from this process: libnftables, which the program itself is made of.

A program that is started for each change costs more than the change. The library is of Debian's
package ``nftables``, like the program (decision 54).
"""

import ctypes
import threading
from functools import cache

from anabranch.host.network import NetworkError, entered

_LIBRARY = "libnftables.so.1"
_turn = threading.Lock()
"""The library keeps the names of devices in one place for all."""


def apply_rules(text: str, namespace: str | None = None) -> None:
    """Apply what nft reads, all or nothing, in a namespace (None: this thread's own).

    Blocks for milliseconds.

    Raises:
        NetworkError: there is no such namespace or library, or the kernel refused; with what nft
            says first.
    """
    library = _library()
    with _turn, entered(namespace):
        context = library.nft_ctx_new(0)
        try:
            library.nft_ctx_buffer_error(context)
            if library.nft_run_cmd_from_buffer(context, text.encode()) != 0:
                said = library.nft_ctx_get_error_buffer(context).decode(errors="replace")
                raise NetworkError(f"nft: {said.strip().partition(chr(10))[0]}")
        finally:
            library.nft_ctx_free(context)


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise NetworkError(f"{_LIBRARY} is missing: install the package nftables") from error
    library.nft_ctx_new.argtypes = (ctypes.c_uint32,)
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_run_cmd_from_buffer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    library.nft_ctx_get_error_buffer.argtypes = (ctypes.c_void_p,)
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    for name in ("nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = (ctypes.c_void_p,)
    return library
