"""A forked child shuts itself in, step by step: what a tenant's code may reach afterwards.

Each step takes away what the next no longer needs. Nothing of it can be undone from inside.
"""

import os
import resource
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import anabranch
from anabranch.services.sandbox import kernel, landlock, syscalls
from anabranch.services.sandbox.spec import CODE, DATA, SandboxSpec

_OPEN_FILES = 512
_READ_ONLY = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
_DATA_FLAGS = "loop,nosuid,nodev,noexec,noatime"


def library_paths() -> tuple[str, ...]:
    """Return the directories that a module's imports may need, none inside another."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    wanted = {Path(sysconfig.get_path(name)) for name in names}
    wanted.add(Path(anabranch.__file__).parent)
    wanted.add(Path("/usr/lib") / f"{os.uname().machine}-linux-gnu")
    wanted |= {Path(path) for path in sys.path if path.endswith("dist-packages")}
    if sys.base_prefix != "/usr":
        wanted.add(Path(sys.base_prefix) / "lib")
    there = sorted(path.resolve() for path in wanted if path.is_dir())
    return tuple(
        str(path) for path in there if not any(path != p and p in path.parents for p in there)
    )


def confine(spec: SandboxSpec, netns: int, libraries: tuple[str, ...]) -> None:
    """Shut this process in; it is root when this begins and nobody when it returns.

    Args:
        netns: descriptor of its network namespace.
        libraries: see :func:`library_paths`.

    Raises:
        OSError: the kernel refused a step; the process must not go on.
    """
    for path in spec.groups:
        Path(path).write_text("0")
    kernel.join_namespace(netns, kernel.CLONE_NEWNET)
    os.close(netns)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
    socket.sethostname("sandbox")
    _build_root(spec, libraries)
    _limit(spec)
    # It waits its turn, and finds more packets in its ring then: a hundred sandboxes that each
    # woke up for every packet would do nothing else. On an idle core it wakes at once.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.setgroups([])
    os.setresgid(spec.uid, spec.uid, spec.uid)
    os.setresuid(spec.uid, spec.uid, spec.uid)
    # A user namespace without a single user: no capability over anything, and no way to get one.
    kernel.unshare(kernel.CLONE_NEWUSER)
    kernel.drop_capabilities()
    kernel.die_with_parent(signal.SIGKILL)
    kernel.no_new_privileges()
    writable = (DATA,) if spec.image else ()
    landlock.restrict((*libraries, CODE), writable, spec.tcp_ports)
    syscalls.allow_only()


def _build_root(spec: SandboxSpec, libraries: tuple[str, ...]) -> None:
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    root = spec.root
    kernel.mount("tmpfs", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=512k,mode=755")
    for path in libraries:
        _show(path, root + path)
    for link in ("/lib", "/lib64"):
        if Path(link).is_symlink():
            os.symlink(os.readlink(link), root + link)
    _show(spec.code, root + CODE)
    if spec.image is not None:
        os.mkdir(root + DATA)
        subprocess.run(
            ["mount", "-o", _DATA_FLAGS, spec.image, root + DATA], check=True, capture_output=True
        )
        os.chown(root + DATA, spec.uid, spec.uid)
        os.chmod(root + DATA, 0o700)
    kernel.mount(None, root, None, kernel.MS_BIND | kernel.MS_REMOUNT | _READ_ONLY)
    kernel.change_root(root)


def _show(path: str, target: str) -> None:
    os.makedirs(target, exist_ok=True)
    kernel.bind(path, target, _READ_ONLY)


def _limit(spec: SandboxSpec) -> None:
    limits = {
        resource.RLIMIT_AS: spec.address_space,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_FSIZE: spec.file_size,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for limit, most in limits.items():
        _, hard = resource.getrlimit(limit)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(limit, (most, most))
