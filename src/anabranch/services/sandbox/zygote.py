"""The zygote: a process that has all of Python and NumPy loaded, and forks sandboxes.

A child shares its pages until it writes to them, so a sandbox costs a hundredth of a Python of its
own and is there in milliseconds. The zygote runs no tenant's code; it lives as long as the socket
to its node is open, and its sandboxes no longer than it.

    python -m anabranch.services.sandbox.zygote DESCRIPTOR
"""

import gc
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any

import numpy as np

from anabranch.services.sandbox import confinement, kernel, runner
from anabranch.services.sandbox.spec import MAX_MESSAGE, SandboxSpec, decode, encode

_MAX_DESCRIPTORS = 8
_FAILED_TO_CONFINE = 71  # EX_OSERR of sysexits.h


def main() -> None:
    node = socket.socket(fileno=int(sys.argv[1]))
    _warm_up()
    libraries = confinement.library_paths()
    own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the node's
    node.send(encode({"ready": True}))
    children: dict[int, int] = {}
    while True:
        watched: list[Any] = [node, read_end]
        ready, _, _ = select.select(watched, [], [])
        if read_end in ready:
            os.read(read_end, 4096)
            _reap(node, children)
        if node in ready:
            data, descriptors, _, _ = socket.recv_fds(node, MAX_MESSAGE, _MAX_DESCRIPTORS)
            if not data:
                break
            _fork(node, decode(data), descriptors, children, own_pids, libraries)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _warm_up() -> None:
    """Have loaded whatever cannot be any more once a sandbox is shut in, or costs time then."""
    np.unique(np.zeros(2))  # imports numpy.ma
    np.random.default_rng(0)
    runner.warm_up()
    gc.collect()
    gc.freeze()  # the collector of a child leaves these pages shared


def _fork(
    node: socket.socket,
    message: dict[str, Any],
    descriptors: list[int],
    children: dict[int, int],
    own_pids: int,
    libraries: tuple[str, ...],
) -> None:
    try:
        # Its first child is process 1 of the new namespace; the zygote's own is not changed.
        kernel.unshare(kernel.CLONE_NEWPID)
        pid = os.fork()
    except OSError as error:
        node.send(encode({"sandbox": message["sandbox"], "error": str(error)}))
        pid = -1
    if pid == 0:
        _become_sandbox(SandboxSpec.from_message(message["spec"]), descriptors, libraries)
    kernel.join_namespace(own_pids, kernel.CLONE_NEWPID)
    for descriptor in descriptors:
        os.close(descriptor)
    if pid > 0:
        children[pid] = message["sandbox"]
        node.send(encode({"sandbox": message["sandbox"], "pid": pid}))


def _become_sandbox(spec: SandboxSpec, descriptors: list[int], libraries: tuple[str, ...]) -> None:
    """Go on as a sandbox, in the child; never returns."""
    code = _FAILED_TO_CONFINE
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        kept = _place(descriptors)
        control, netns, rings = socket.socket(fileno=kept[0]), kept[2], kept[3:]
        confinement.confine(spec, netns, libraries)
        code = runner.run(spec, control, [socket.socket(fileno=each) for each in rings])
    except BaseException:  # nothing of this child may run on in the zygote's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _place(descriptors: list[int]) -> list[int]:
    """Close every descriptor but these, and make the second one what is printed on."""
    kept = set(descriptors) | {0}
    for each in map(int, os.listdir("/proc/self/fd")):
        if each not in kept and each > 2:
            try:
                os.close(each)
            except OSError:
                continue  # the listing's own
    for stream in (1, 2):
        os.dup2(descriptors[1], stream)
    os.close(descriptors[1])
    return descriptors


def _reap(node: socket.socket, children: dict[int, int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid in children:
            code = os.waitstatus_to_exitcode(status)
            node.send(encode({"sandbox": children.pop(pid), "ended": code}))


if __name__ == "__main__":
    main()
