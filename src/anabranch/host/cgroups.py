"""Control groups: how much processor, memory and how many tasks some processes have together.

Both hierarchies of the kernel are spoken: version 2 (cgroup-v2.rst), and version 1, where each
controller has a tree of its own (cgroup-v1/), for machines on which version 2 has none.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from anabranch.core.errors import AnabranchError

CONTROLLERS = ("cpu", "memory", "pids")
_PARENT = "anabranch"
_PERIOD_US = 20_000
_WEIGHT = 10
"""Of all our groups together, beside 1 for any other process: packets do not wait."""


class ControlGroupError(AnabranchError):
    """The kernel has no such controller here, or refused a group."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a group may use: bytes of memory, percent of one core, tasks (processes and threads).

    Where several want the processor at once, each has its part of it in proportion to its percent.
    """

    memory: int
    cpu_percent: int
    tasks: int


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """A group; ``directories`` is where its processes are written down, one or one a controller."""

    directories: tuple[Path, ...]

    @property
    def lists(self) -> tuple[str, ...]:
        """The files into which a process writes its number to be in it."""
        return tuple(str(each / "cgroup.procs") for each in self.directories)

    def limit(self, limits: Limits) -> None:
        """Set other limits.

        Raises:
            ControlGroupError: the kernel refused one, say since more is in use.
        """
        unified = len(self.directories) == 1
        try:
            for index, controller in enumerate(CONTROLLERS):
                if unified:
                    _limit_unified(self.directories[0], controller, limits)
                else:
                    _limit_single(self.directories[index], controller, limits)
        except OSError as error:
            raise ControlGroupError(f"{error.filename}: {error.strerror}") from error

    def memory(self) -> int:
        """Return the bytes in use now."""
        for directory in self.directories:
            for name in ("memory.current", "memory.usage_in_bytes"):
                with suppress(OSError):
                    return int((directory / name).read_text())
        return 0

    def processes(self) -> list[int]:
        """Return the process numbers in it."""
        found: set[int] = set()
        for directory in self.directories:
            with suppress(OSError):
                found.update(map(int, (directory / "cgroup.procs").read_text().split()))
        return sorted(found)

    def remove(self, patience: float = 2.0) -> None:
        """Remove it, once the last process in it is gone; absent is fine.

        Raises:
            ControlGroupError: there are still processes in it after ``patience`` seconds.
        """
        deadline = time.monotonic() + patience
        for directory in self.directories:
            while directory.exists():
                try:
                    directory.rmdir()
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise ControlGroupError(f"{directory}: {error.strerror}") from error
                    time.sleep(0.005)


def make_group(name: str, limits: Limits) -> ControlGroup:
    """Make a group, or give one that is there these limits.

    Raises:
        ControlGroupError: a controller is missing, or this user may not.
    """
    unified = _unified()
    try:
        if unified is not None:
            return ControlGroup((_make_unified(unified, name, limits),))
        return ControlGroup(tuple(
            _make_single(_tree_of(controller), controller, name, limits)
            for controller in CONTROLLERS
        ))  # fmt: skip
    except OSError as error:
        raise ControlGroupError(f"{error.filename}: {error.strerror}") from error


def remove_groups(prefix: str) -> None:
    """Remove our groups whose names begin so, wherever in the trees; those with processes stay."""
    for kind, where, options in _mounts():
        if kind != "cgroup2" and not (kind == "cgroup" and options & set(CONTROLLERS)):
            continue
        for parent in [each for each in where.rglob(_PARENT) if each.is_dir()]:
            for group in parent.glob(f"{prefix}*"):
                with suppress(OSError):
                    group.rmdir()


def _mounts() -> list[tuple[str, Path, set[str]]]:
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        found.append((kind, Path(where), set(options.split(","))))
    return found


def _unified() -> Path | None:
    """Return the tree of version 2, if it has the controllers."""
    for kind, where, _ in _mounts():
        if kind == "cgroup2":
            with suppress(OSError):
                there = (where / "cgroup.controllers").read_text().split()
                if set(CONTROLLERS) <= set(there):
                    return where
    return None


def _tree_of(controller: str) -> Path:
    """Return where this process is in a controller's tree of version 1: limits of ours hold on."""
    for kind, where, options in _mounts():
        if kind == "cgroup" and controller in options:
            for line in Path("/proc/self/cgroup").read_text().splitlines():
                _, names, path = line.split(":", 2)
                if controller in names.split(",") and (where / path.lstrip("/")).is_dir():
                    return where / path.lstrip("/")
            return where
    raise ControlGroupError(f"this machine has no control groups for {controller}")


def _make_unified(tree: Path, name: str, limits: Limits) -> Path:
    # A group with processes may not have groups with controllers, so ours are at the top.
    parent = tree / _PARENT
    parent.mkdir(exist_ok=True)
    enabled = " ".join(f"+{controller}" for controller in CONTROLLERS)
    for each in (tree, parent):
        (each / "cgroup.subtree_control").write_text(enabled)
    (parent / "cpu.weight").write_text(str(100 * _WEIGHT))
    directory = parent / name
    directory.mkdir(exist_ok=True)
    for controller in CONTROLLERS:
        _limit_unified(directory, controller, limits)
    with suppress(OSError):
        (directory / "memory.swap.max").write_text("0")
    return directory


def _make_single(tree: Path, controller: str, name: str, limits: Limits) -> Path:
    directory = tree / _PARENT / name
    directory.parent.mkdir(exist_ok=True)
    directory.mkdir(exist_ok=True)
    if controller == "cpu":
        (directory.parent / "cpu.shares").write_text(str(1024 * _WEIGHT))
    _limit_single(directory, controller, limits)
    return directory


def _limit_unified(directory: Path, controller: str, limits: Limits) -> None:
    match controller:
        case "memory":
            (directory / "memory.max").write_text(str(limits.memory))
        case "cpu":
            quota = limits.cpu_percent * _PERIOD_US // 100
            (directory / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
            (directory / "cpu.weight").write_text(str(min(max(limits.cpu_percent, 1), 10_000)))
        case "pids":
            (directory / "pids.max").write_text(str(limits.tasks))


def _limit_single(directory: Path, controller: str, limits: Limits) -> None:
    match controller:
        case "memory":
            (directory / "memory.limit_in_bytes").write_text(str(limits.memory))
        case "cpu":
            (directory / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            quota = limits.cpu_percent * _PERIOD_US // 100
            (directory / "cpu.cfs_quota_us").write_text(str(quota))
            (directory / "cpu.shares").write_text(str(max(1024 * limits.cpu_percent // 100, 2)))
        case "pids":
            (directory / "pids.max").write_text(str(limits.tasks))
