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
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Fences:
    """What is the same for all sandboxes, and made once.

    Attributes:
        root: an empty directory, over which each builds its file system, for itself.
        libraries: see :func:`library_paths`.
        calls: see :func:`~anabranch.services.sandbox.syscalls.program`.
    """

    root: str
    libraries: tuple[str, ...]
    calls: bytes


def fences(root: str) -> Fences:
    """Make them. Raises OSError."""
    return Fences(root, library_paths(), syscalls.program())


def begin(of: Fences, groups: tuple[str, ...]) -> None:
    """Build what does not depend on the tenant; this may be long before one comes.

    Args:
        groups: ``cgroup.procs`` files to join: the kernel takes 10 ms for it.

    Raises:
        OSError: the kernel refused a step; the process must not go on.
    """
    for path in groups:
        Path(path).write_text("0")
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
    socket.sethostname("sandbox")
    # What is unmounted outside meanwhile goes here, too: a network namespace, say. But nothing
    # that is done here is seen outside.
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_SLAVE)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("tmpfs", of.root, "tmpfs", flags, "size=512k,mode=755")
    for path in of.libraries:
        _show(path, of.root + path)
    for link in ("/lib", "/lib64"):
        if Path(link).is_symlink():
            os.symlink(os.readlink(link), of.root + link)


def finish(of: Fences, spec: SandboxSpec, netns: int) -> None:
    """Shut this process in; it is root when this begins and nobody when it returns.

    Args:
        netns: descriptor of its network namespace.

    Raises:
        OSError: the kernel refused a step; the process must not go on.
    """
    kernel.join_namespace(netns, kernel.CLONE_NEWNET)
    os.close(netns)
    _complete_root(spec, of.root)
    _limit(spec)
    os.setgroups([])
    os.setresgid(spec.uid, spec.uid, spec.uid)
    os.setresuid(spec.uid, spec.uid, spec.uid)
    # A user namespace without a single user: no capability over anything, and no way to get one.
    kernel.unshare(kernel.CLONE_NEWUSER)
    kernel.drop_capabilities()
    kernel.die_with_parent(signal.SIGKILL)
    kernel.no_new_privileges()
    writable = (DATA,) if spec.image else ()
    landlock.restrict((*of.libraries, CODE), writable, spec.tcp_ports)
    kernel.filter_calls(of.calls)


def _complete_root(spec: SandboxSpec, root: str) -> None:
    _show(spec.code, root + CODE)
    if spec.image is not None:
        os.mkdir(root + DATA)
        subprocess.run(
            ["mount", "-o", _DATA_FLAGS, spec.image, root + DATA], check=True, capture_output=True
        )
        os.chown(root + DATA, spec.uid, spec.uid)
        os.chmod(root + DATA, 0o700)
    kernel.mount(None, root, None, kernel.MS_BIND | kernel.MS_REMOUNT | _READ_ONLY)
    # From here on nothing that is mounted outside comes in.
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
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
