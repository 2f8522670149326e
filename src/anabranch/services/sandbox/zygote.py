"""The zygote: a process that has all of Python and NumPy loaded, and forks sandboxes.

A child shares its pages until it writes to them, so a sandbox costs a hundredth of a Python of its
own and is there in milliseconds. When the node says so, a child is forked ahead: it has its control
group, namespaces and file system, knows nobody, and waits for its tenant. The zygote runs no
tenant's code; it lives as long as the socket to its node is open, and its sandboxes no longer than
it.

    python -m anabranch.services.sandbox.zygote DESCRIPTOR DIRECTORY
"""

import ctypes
import gc
import mmap
import os
import select
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from typing import Any

import numpy as np

from anabranch.services.sandbox import confinement, kernel, runner
from anabranch.services.sandbox.confinement import Fences
from anabranch.services.sandbox.spec import MAX_MESSAGE, SandboxSpec, decode, encode

_MAX_DESCRIPTORS = 8
_FAILED_TO_CONFINE = 71  # EX_OSERR of sysexits.h
_LARGE_PIECES = tuple(int(65536 * 0.8**n) for n in range(19))


def main() -> None:
    node = socket.socket(fileno=int(sys.argv[1]))
    _warm_up()
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the node's
    zygote = Zygote(node, confinement.fences(sys.argv[2]))
    node.send(encode({"ready": True}))
    while True:
        watched: list[Any] = [node, read_end]
        ready, _, _ = select.select(watched, [], [])
        if read_end in ready:
            os.read(read_end, 4096)
            zygote.reap()
        if node in ready:
            data, descriptors, _, _ = socket.recv_fds(node, MAX_MESSAGE, _MAX_DESCRIPTORS)
            if not data:
                break
            message = decode(data)
            if "ahead" in message:
                zygote.fork_ahead(tuple(message["ahead"]))
            else:
                zygote.give(message, descriptors)
    zygote.close()


def _warm_up() -> None:
    """Have loaded whatever cannot be any more once a sandbox is shut in, or costs time then."""
    np.unique(np.zeros(2))  # imports numpy.ma
    np.random.default_rng(0)
    runner.warm_up()
    gc.collect()
    gc.freeze()  # the collector of a child leaves these pages shared
    _fill_heap()


def _fill_heap() -> None:
    """Take, for good, the pieces of the heap that are free between others.

    A sandbox would spread its arrays over all of them and have each page copied; so it has them at
    the heap's end, where it uses the same pages again.
    """
    libc = ctypes.CDLL(None)
    libc.malloc.argtypes, libc.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
    libc.free.argtypes = (ctypes.c_void_p,)
    libc.sbrk.argtypes, libc.sbrk.restype = (ctypes.c_ssize_t,), ctypes.c_void_p
    libc.malloc_trim(0)  # nothing is free now where it ends
    end = libc.sbrk(0) - mmap.PAGESIZE
    for size in (*_LARGE_PIECES, *range(1024, 0, -16)):
        while (piece := libc.malloc(size)) < end:
            pass
        libc.free(piece)


@dataclass(slots=True)
class _Child:
    """One that waits for its tenant."""

    pid: int
    channel: socket.socket


class Zygote:
    """Its children: those with a tenant, and one without."""

    def __init__(self, node: socket.socket, fences: Fences) -> None:
        self._node = node
        self._fences = fences
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self._children: dict[int, int] = {}
        self._next: _Child | None = None
        self._groups: tuple[str, ...] = ()

    def fork_ahead(self, groups: tuple[str, ...]) -> None:
        """Have a child that waits, in these control groups."""
        self._groups = groups
        try:
            self._next = self._forked()
        except OSError:  # it is tried again when one is needed
            traceback.print_exc()

    def give(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """Make a sandbox of the child that waits."""
        request = encode(message["spec"])
        try:
            try:
                pid = self._hand_over(request, descriptors)
            except OSError:  # it has died, waiting
                pid = self._hand_over(request, descriptors)
        except OSError as error:
            self._node.send(encode({"sandbox": message["sandbox"], "error": str(error)}))
        else:
            self._children[pid] = message["sandbox"]
            self._node.send(encode({"sandbox": message["sandbox"], "pid": pid}))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _hand_over(self, request: bytes, descriptors: list[int]) -> int:
        child, self._next = self._next or self._forked(), None
        with child.channel:
            socket.send_fds(child.channel, [request], descriptors)
        return child.pid

    def _forked(self) -> _Child:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            # Its first child is process 1 of the new namespace; the zygote's own is not changed.
            kernel.unshare(kernel.CLONE_NEWPID)
            try:
                pid = os.fork()
                if pid == 0:
                    _become_sandbox(its, self._groups, self._fences)
            finally:
                kernel.join_namespace(self._own_pids, kernel.CLONE_NEWPID)
        return _Child(pid, ours)

    def reap(self) -> None:
        """Take notice of children that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._children:
                code = os.waitstatus_to_exitcode(status)
                self._node.send(encode({"sandbox": self._children.pop(pid), "ended": code}))
            elif self._next is not None and pid == self._next.pid:
                self._next.channel.close()
                self._next = None

    def close(self) -> None:
        """End them all."""
        waiting = [] if self._next is None else [self._next.pid]
        for pid in (*self._children, *waiting):
            os.kill(pid, signal.SIGKILL)


def _become_sandbox(channel: socket.socket, groups: tuple[str, ...], fences: Fences) -> None:
    """Go on as a sandbox, in the child; never returns."""
    code = _FAILED_TO_CONFINE
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _close_all_but(channel.fileno())
        confinement.begin(fences, groups)
        runner.rehearse()
        request, descriptors, _, _ = socket.recv_fds(channel, MAX_MESSAGE, _MAX_DESCRIPTORS)
        channel.close()
        if request:
            code = _run(SandboxSpec.from_message(decode(request)), descriptors, fences)
    except BaseException:  # nothing of this child may run on in the zygote's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _run(spec: SandboxSpec, descriptors: list[int], fences: Fences) -> int:
    control, log, netns, *rings = descriptors
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    confinement.finish(fences, spec, netns)
    return runner.run(
        spec, socket.socket(fileno=control), [socket.socket(fileno=each) for each in rings]
    )


def _close_all_but(kept: int) -> None:
    """Close what was the zygote's, but for standard input, output and errors."""
    for each in map(int, os.listdir("/proc/self/fd")):
        if each > 2 and each != kept:
            try:
                os.close(each)
            except OSError:
                continue  # the listing's own


if __name__ == "__main__":
    main()
