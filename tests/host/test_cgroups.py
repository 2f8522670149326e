"""Control groups that hold what is in them."""

import os
import subprocess
import sys

import pytest

from anabranch.host.cgroups import ControlGroupError, Limits, make_group, remove_groups

pytestmark = pytest.mark.lab


def run_inside(group, code: str) -> subprocess.CompletedProcess:
    def join() -> None:
        for directory in group.directories:
            (directory / "cgroup.procs").write_text("0")

    return subprocess.run([sys.executable, "-c", code], preexec_fn=join, capture_output=True,
                          text=True, check=False, timeout=60)  # fmt: skip


def test_limits_hold() -> None:
    group = make_group(f"test-{os.getpid()}", Limits(64 * 1024**2, 30, 3))
    try:
        eats = run_inside(group, "x = b'1' * (200 << 20)")
        assert eats.returncode == -9
        forks = run_inside(group, "import os\nfor _ in range(3):\n  os.fork() or os._exit(0)")
        assert "BlockingIOError" in forks.stderr
        code = "import time\nt=time.time()\nwhile time.time()-t<1: pass\nprint(time.process_time())"
        spins = run_inside(group, code)
        assert float(spins.stdout) < 0.6
    finally:
        group.remove()
    assert not any(directory.exists() for directory in group.directories)


def test_a_group_in_use_is_not_removed() -> None:
    group = make_group(f"test-{os.getpid()}", Limits(64 * 1024**2, 100, 10))

    def join() -> None:
        for directory in group.directories:
            (directory / "cgroup.procs").write_text("0")

    sleeper = subprocess.Popen(["sleep", "60"], preexec_fn=join)
    try:
        assert group.processes() == [sleeper.pid]
        with pytest.raises(ControlGroupError):
            group.remove(patience=0.05)
    finally:
        sleeper.kill()
        sleeper.wait()
    group.remove()


def test_what_a_node_left_is_removed_by_its_name() -> None:
    few = Limits(64 * 1024**2, 100, 10)
    ours, others = f"test-{os.getpid()}-", f"test-{os.getpid()}x"
    left, other = [make_group(f"{ours}{number}", few) for number in (1, 2)], make_group(others, few)
    try:
        remove_groups(ours)
        assert not any(each.exists() for group in left for each in group.directories)
        assert all(each.exists() for each in other.directories)
    finally:
        for group in (*left, other):
            group.remove()
