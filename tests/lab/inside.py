"""Sockets inside network namespaces."""

import ctypes
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000


@contextmanager
def inside(netns: str) -> Iterator[None]:
    """Sockets that this thread makes meanwhile are the namespace's."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{netns}") as away:
        assert libc.setns(away.fileno(), _CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert libc.setns(home.fileno(), _CLONE_NEWNET) == 0


def socket_in(netns: str, make: Callable[[], socket.socket]) -> socket.socket:
    """Make a socket inside a namespace, in a thread of its own."""
    made: list[socket.socket] = []

    def enter() -> None:
        with inside(netns):
            made.append(make())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return made[0]
