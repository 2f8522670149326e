"""Landlock (landlock.rst of the kernel): files, TCP ports, signals and abstract sockets.

The package on PyPI knows the file system alone (decision 46); the three system calls are these.
"""

import ctypes
import os
from collections.abc import Iterable

from anabranch.services.sandbox.kernel import call

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_BIND_TCP = 1
_SCOPED = 0b11  # abstract sockets, signals
_FILES_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights to files each version has; it is the lowest bits."""
_WRITE = (1 << 1) | (1 << 4) | (1 << 5) | (1 << 7) | (1 << 8) | (1 << 13) | (1 << 14)
"""Write, remove, make directories and regular files, move, truncate. No links, no devices."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _NetPort(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


def version() -> int:
    """Return the kernel's version of Landlock; 0: it has none, or it is switched off."""
    try:
        return call(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION, what="landlock")
    except OSError:
        return 0


def restrict(
    readable: Iterable[str],
    writable: Iterable[str],
    tcp_ports: Iterable[int],
    executable: Iterable[str] = (),
) -> None:
    """Let this thread, and what it starts, use nothing but this; before it, no_new_privs.

    Args:
        readable, writable, executable: directories; what may be executed may be read, too.
        tcp_ports: on which it may listen; from version 4 on.

    Raises:
        OSError: the kernel has no Landlock, or a directory is not there.
    """
    found = version()
    handled = (1 << _FILES_OF_ABI.get(found, 16)) - 1
    ruleset = _Ruleset(handled, _BIND_TCP if found >= 4 else 0, _SCOPED if found >= 6 else 0)
    size = 8 if found < 4 else 16 if found < 6 else 24
    descriptor = call(
        _CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), 0, what="landlock"
    )
    try:
        for path in readable:
            _allow(descriptor, path, _READ_FILE | _READ_DIR)
        for path in writable:
            _allow(descriptor, path, (_READ_FILE | _READ_DIR | _WRITE) & handled)
        for path in executable:
            _allow(descriptor, path, _READ_FILE | _READ_DIR | _EXECUTE)
        for port in tcp_ports if found >= 4 else ():
            rule = _NetPort(_BIND_TCP, port)
            call(_ADD_RULE, descriptor, _NET_PORT, ctypes.byref(rule), 0, what=f"port {port}")
        call(_RESTRICT_SELF, descriptor, 0, what="landlock_restrict_self")
    finally:
        os.close(descriptor)


def _allow(ruleset: int, path: str, rights: int) -> None:
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(rights, parent)
        call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0, what=path)
    finally:
        os.close(parent)
