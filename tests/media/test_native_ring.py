"""The adapter of a ring server, against a process with a real control socket."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from tests.media.control_server import ControlServer, Message, refusal
from tests.media.test_native import program
from tests.waiting import until

from anabranch.core.names import new_id
from anabranch.media import native_streams
from anabranch.media.leaf import Feed, Rung
from anabranch.media.native_ring import RingPlace, RingServer

HIGH, LOW = Rung(Feed("test1", "high"), 4000), Rung(Feed("test1", "low"), 300)


@pytest.fixture
async def ring(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[RingServer, ControlServer]]:
    directory = Path(tempfile.mkdtemp(prefix="ab", dir="/tmp"))
    program(directory, monkeypatch, "sleep", "1000")
    server = ControlServer(directory / "control.sock")
    await server.start()
    place = RingPlace(
        name="relay",
        directory=directory,
        run_id=new_id(),
        netns=None,
        address="127.0.0.1",
        ports=(21000, 21099),
        askers=IPv4Network("10.98.0.0/24"),
    )
    made = RingServer(place)
    await made.start()
    yield made, server
    await made.stop()
    await server.stop()
    shutil.rmtree(directory)


def described(server: ControlServer) -> dict[str, Message]:
    return {each["name"]: each for each in server.streams.values()}


async def test_it_has_what_it_must_and_takes_no_viewers(
    ring: tuple[RingServer, ControlServer],
) -> None:
    made, server = ring
    assert made.ready
    assert made.child is not None
    assert made.child.spec.name == "ring:relay"
    argv = (server.path.parent / "argv").read_text().split()
    assert argv[3:] == ["--repair", "127.0.0.1:21099", "--repair-for", "10.98.0.0/24"]

    made.ask("10.98.0.1:21099")
    made.keep([HIGH, LOW])
    await until(lambda: len(server.streams) == 3)
    streams = described(server)
    assert {each["parent"] for each in streams.values()} == {"10.98.0.1:21099"}
    assert streams["high@test1"]["kbps"] == 4000
    # Two seconds of it: rings are short, but not shorter than what is asked for.
    assert streams["high@test1"]["max_bytes"] == 1_460_000
    assert streams["low@test1"]["max_bytes"] == streams["audio@test1"]["max_bytes"] == 2**18
    ports = {each["port"] for each in streams.values()}
    assert ports == {
        port for inlet in made.inlets() for port in (inlet.video_port, inlet.audio_port)
    }
    assert len(ports) == 3
    assert 21099 not in ports

    made.keep([LOW])
    assert {inlet.feed for inlet in made.inlets()} == {LOW.feed}
    await until(lambda: set(described(server)) == {"low@test1", "audio@test1"})
    made.keep([])
    await until(lambda: not server.streams)


async def test_a_fresh_server_is_told_everything_again(
    ring: tuple[RingServer, ControlServer],
) -> None:
    made, server = ring
    made.ask("10.98.0.1:21099")
    made.keep([HIGH])
    await until(lambda: len(server.streams) == 2)
    server.streams.clear()
    server.cut()
    await until(lambda: len(server.streams) == 2)
    assert {each["parent"] for each in server.streams.values()} == {"10.98.0.1:21099"}


async def test_a_port_that_is_taken_is_left_for_another_and_told(
    ring: tuple[RingServer, ControlServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, server = ring
    monkeypatch.setattr(native_streams, "_AGAIN_S", 0.05)
    told: list[Any] = []
    made.on_inlets = lambda: told.append(made.inlets())
    refused: list[int] = []

    def add(request: Message) -> Message:
        if not refused:
            refused.append(request["port"])
            return refusal("failed")
        return server._answer(request)

    server.answers["stream.add"] = add
    made.keep([HIGH])
    await until(lambda: len(server.streams) == 2)
    (inlet,) = made.inlets()
    assert refused[0] not in {inlet.video_port, inlet.audio_port}
    assert told[-1] == made.inlets()
