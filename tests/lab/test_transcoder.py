"""ffmpeg for a sandbox: granted or not, shut in, and gone with the sandbox."""

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from tests.lab.test_modules import install, user, written
from tests.services.films import make_film
from tests.waiting import until

from anabranch.app.bench.modules.world import World, make_world
from anabranch.services.planes.linux import LinuxPlane
from anabranch.services.runtime import NodeRuntime, RuntimeSettings

pytestmark = pytest.mark.lab
CODE = """
from anabranch.services.blocks.transcoder import TranscodingError
from anabranch.services.module import Module
class Attempt(Module):
    said = "not asked"
    def configure(self, context):
        self.context = context
    def start(self):
        if self.context.transcoder is None:
            self.said = "none"
            return
        film = self.context.directory / "film.mp4"
        film.write_bytes((self.context.code / "film.mp4").read_bytes())
        with film.open("rb") as source, (film.parent / "out.mp4").open("wb") as target:
            self.job = self.context.transcoder.convert(source, into=target)
        self.said = "begun"
    def status(self):
        if self.said == "begun" and self.job.future.done():
            error = self.job.future.exception()
            self.said = "failed" if error else "done"
        return {"said": self.said}
"""
RESOURCES = "disk_mb = 16"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with make_world(sink=False) as made:
        yield made


@pytest.fixture
async def runtime(world: World) -> AsyncIterator[NodeRuntime]:
    name = f"f{os.getpid()}"  # other runs may have theirs beside
    with tempfile.TemporaryDirectory(prefix="ab-ffmpeg-") as state:
        made = NodeRuntime(RuntimeSettings(Path(state), name), LinuxPlane(name, world.router))
        await made.open()
        try:
            yield made
        finally:
            await made.close()


def ffmpegs(uid: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["name", "uids"]):
        if process.info["name"] == "ffmpeg" and process.info["uids"].real == uid:
            found.append(process)
    return found


def module(directory: Path, seconds: float) -> Path:
    source = written(directory, CODE, resources=RESOURCES)
    make_film(source / "film.mp4", seconds, size="480x360", rate=30)
    return source


async def said(runtime: NodeRuntime, name: str) -> str:
    return (await runtime.status(user(name), "attempt_1.0.0")).get("said", "")


async def test_who_is_granted_it_has_it(runtime: NodeRuntime, tmp_path: Path) -> None:
    assert runtime.building_blocks["ffmpeg"]
    source = module(tmp_path / "m", 1)
    await install(runtime, user("alice"), source, "attempt_1.0.0", None)
    assert await said(runtime, "alice") == "none"
    bob = user("bob").model_copy(update={"transcodings": 1})
    await install(runtime, bob, source, "attempt_1.0.0", None)
    await until(lambda: ended(runtime, "bob"))
    assert await said(runtime, "bob") == "done"


async def ended(runtime: NodeRuntime, name: str) -> bool:
    return await said(runtime, name) in {"done", "failed"}


async def test_ffmpeg_is_shut_in_and_ends_with_its_sandbox(
    runtime: NodeRuntime, tmp_path: Path
) -> None:
    alice = user("alice").model_copy(update={"transcodings": 1})
    await install(runtime, alice, module(tmp_path / "m", 60), "attempt_1.0.0", None)
    uid = psutil.Process(runtime.processes()["alice"]).uids().real
    await until(lambda: ffmpegs(uid))
    (process,) = ffmpegs(uid)
    status = Path(f"/proc/{process.pid}/status").read_text()
    for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", f"Uid:\t{uid}"):
        assert line in status
    netns = os.readlink(f"/proc/{process.pid}/ns/net")
    assert netns != os.readlink("/proc/self/ns/net")
    assert "anabranch" in Path(f"/proc/{process.pid}/cgroup").read_text()
    first = runtime.processes()["alice"]
    os.kill(first, signal.SIGKILL)
    await until(lambda: not process.is_running())
    # the sandbox is there again, with the same directory, and its job, too
    await until(lambda: runtime.processes().get("alice", first) != first)
    await until(lambda: ffmpegs(uid))
    await runtime.remove(alice, "attempt_1.0.0")
    assert not ffmpegs(uid)
