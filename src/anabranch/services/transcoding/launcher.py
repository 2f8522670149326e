"""Becomes ffmpeg or ffprobe, shut in: ``python -m anabranch.services.transcoding.launcher JSON``.

Of the machine it sees Debian's libraries, to read and to execute, and the descriptors that it is
given; it has no sockets, no capability, a user number of the tenant's, and limits.
"""

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import pyseccomp as seccomp

from anabranch.services.sandbox import kernel, landlock
from anabranch.services.transcoding.command import FIRST_DESCRIPTOR

NOT_CONFINED = 71
"""Exit code if the kernel refused a step: EX_OSERR of sysexits.h."""
_PROGRAMS = ("ffmpeg", "ffprobe")
_VISIBLE = ("/usr/bin", "/usr/lib", "/lib", "/lib64")
_REFUSED = (
    "socket", "connect", "bind", "ptrace", "mount", "umount2", "pivot_root", "setns", "unshare",
    "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "io_uring_setup",
    "process_vm_readv", "process_vm_writev", "kexec_load", "init_module", "finit_module", "fork",
    "vfork", "memfd_create", "personality",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Launch:
    """What to become, and within which limits.

    Attributes:
        argv: of ffmpeg or ffprobe.
        descriptors: become 3, 4, ... of the program.
        uid: user and group number; None: stay who we are.
        groups: ``cgroup.procs`` files to join.
        file_bytes: of what it writes.
        cpu_seconds: of processor time.
        address_space: bytes.
    """

    argv: tuple[str, ...]
    descriptors: tuple[int, ...]
    uid: int | None
    groups: tuple[str, ...]
    file_bytes: int
    cpu_seconds: int
    address_space: int

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Self:
        message = json.loads(text)
        for name in ("argv", "descriptors", "groups"):
            message[name] = tuple(message[name])
        return cls(**message)


def main() -> None:
    launch = Launch.decode(sys.argv[1])
    program = shutil.which(launch.argv[0], path="/usr/bin")
    if launch.argv[0] not in _PROGRAMS or program is None:
        sys.exit(f"{launch.argv[0]} is not installed")
    try:
        _place(launch.descriptors)
        _confine(launch)
    except OSError as error:
        sys.stderr.write(f"cannot be shut in: {error}\n")
        sys.exit(NOT_CONFINED)
    os.execve(program, launch.argv, {"LANG": "C.UTF-8", "PATH": "/usr/bin"})  # noqa: S606


def _place(descriptors: tuple[int, ...]) -> None:
    """Make the descriptors 3, 4, ... and close all others but the standard ones."""
    above = FIRST_DESCRIPTOR + len(descriptors)
    copies = [fcntl.fcntl(each, fcntl.F_DUPFD, above + 100) for each in descriptors]
    for number, copy in enumerate(copies, FIRST_DESCRIPTOR):
        os.dup2(copy, number)
    os.closerange(above, 4096)


def _confine(launch: Launch) -> None:
    for path in launch.groups:
        Path(path).write_text("0")
    limits = {
        resource.RLIMIT_AS: launch.address_space,
        resource.RLIMIT_CPU: launch.cpu_seconds,
        resource.RLIMIT_FSIZE: launch.file_bytes,
        resource.RLIMIT_NOFILE: 32,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    for limit, most in limits.items():
        _, hard = resource.getrlimit(limit)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))
    os.nice(10)
    if launch.uid is not None:
        kernel.unshare(kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
        os.setgroups([])
        os.setresgid(launch.uid, launch.uid, launch.uid)
        os.setresuid(launch.uid, launch.uid, launch.uid)
        kernel.drop_capabilities()
    kernel.die_with_parent(signal.SIGKILL)
    kernel.no_new_privileges()
    there = [path for path in _VISIBLE if Path(path).is_dir()]
    landlock.restrict((), (), (), executable=there)
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    for name in _REFUSED:
        try:
            rules.add_rule(seccomp.ERRNO(errno.EPERM), name)
        except (OSError, ValueError, RuntimeError):
            continue  # this machine's kind has no such call
    rules.load()


if __name__ == "__main__":
    main()
