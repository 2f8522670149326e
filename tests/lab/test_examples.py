"""The examples, run as a user runs them: they work, and leave nothing behind however they end."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from anabranch.host.process import find_marked

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
EXAMPLES = Path(__file__).parents[2] / "examples"
RELAY, LEAF = "0000000000000002", "0000000000000003"


@dataclass
class Example:
    process: asyncio.subprocess.Process
    directory: Path
    text: str = ""

    async def until(self, word: str) -> str:
        """Return the name of all that it makes, once it has printed ``word``."""
        while word not in self.text:
            line = await self.process.stdout.readline()
            assert line, self.text + (await self.process.stderr.read()).decode()
            self.text += line.decode()
        (made,) = self.directory.iterdir()
        return made.name

    async def end(self) -> tuple[int, str]:
        """Return its exit code and what it says of errors."""
        out, err = await self.process.communicate()
        self.text += out.decode()
        return self.process.returncode, err.decode()

    def remains(self, name: str) -> list[str]:
        """Return what is left: namespaces, processes, files."""
        left = [path.name for path in Path("/run/netns").glob(f"{name}*")]
        left += [str(process) for process in find_marked(name)]
        return left + [path.name for path in self.directory.iterdir()]


@asynccontextmanager
async def running(name: str, directory: Path, **env: str) -> AsyncIterator[Example]:
    """Start an example whose temporary files are in ``directory``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", str(EXAMPLES / name)),
        env={**os.environ, "TMPDIR": str(directory), **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(100):
            yield Example(process, directory)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_the_functional_test(tmp_path):
    async with running("functional_test.py", tmp_path) as example:
        name = await example.until("1. ")
        assert len(find_marked(name)) >= 8  # a database and a switch at every node
        assert await example.end() == (0, "")
    sys.stdout.write(f"\n{example.text}")
    _, *steps = re.split(r"^\d\. ", example.text, flags=re.MULTILINE)
    assert len(steps) == 6
    assert all("✓" in step for step in steps)
    rules = [re.findall(r"RTP_\w+", step) for step in steps]
    through, to_vm = f"RTP_PASSTHROUGH{RELAY}", [f"RTP_TOVNET1_{RELAY}", f"RTP_FROMVNET1_{RELAY}"]
    at_leaf = [f"RTP_TOVNET1_{LEAF}", f"RTP_FROMVNET1_{LEAF}"]
    assert rules == [[], [], [through, *at_leaf], to_vm, [through], []]
    notice = '"type":"VM","switch":"00:00:00:00:00:00:00:02","vnet":"vnet0/1","op":'
    assert f'POST data={{{notice}"ADD"}}' in steps[3]
    assert f'POST data={{{notice}"DELETE"}}' in steps[4]
    assert example.remains(name) == []


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("Nodes", signal.SIGTERM),
        ("1. VMs", signal.SIGINT),
        pytest.param("4. A VM boots", signal.SIGINT, marks=pytest.mark.proof),
        pytest.param("4. A VM boots", signal.SIGTERM, marks=pytest.mark.proof),
    ],
)
async def test_an_interrupted_example_leaves_nothing(tmp_path, number, line):
    async with running("functional_test.py", tmp_path) as example:
        name = await example.until(line)
        example.process.send_signal(number)
        code, _ = await example.end()
    assert code == 130
    assert example.remains(name) == []


async def test_a_failing_example_says_so_and_leaves_nothing(tmp_path, directory):
    """Its VMs get no address."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "udhcpc").write_text("#!/bin/sh\necho no lease >&2\nexit 1\n")
    (programs / "udhcpc").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    async with running("functional_test.py", directory, PATH=path) as example:
        name = await example.until("1. VMs")
        code, error = await example.end()
    assert code == 1
    assert "✗" in error
    assert "no lease" in error
    assert "Traceback" not in error
    assert example.remains(name) == []
