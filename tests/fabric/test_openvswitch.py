"""What can be told of one node's Open vSwitch without running it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from anabranch.core.events import Event
from anabranch.fabric.bridges import Bridge
from anabranch.fabric.errors import DisconnectedError, FabricError, MisuseError
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.host.process import find_marked

RUN = "test-openvswitch"


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ab-t") as made:
        yield Path(made)


def switch(directory: Path) -> OpenVSwitch:
    events: list[Event] = []
    return OpenVSwitch("leaf", None, directory, RUN, events.append)


def test_a_bridge_looks_for_its_controller_in_the_directory(directory: Path) -> None:
    assert switch(directory).controller_path("br0") == directory / "br0.controller"


async def test_a_path_too_long_for_a_socket_is_misuse(directory: Path) -> None:
    with pytest.raises(MisuseError, match="too long for a socket's path"):
        await switch(directory / ("x" * 100)).start()


async def test_without_open_vswitch_it_says_so_and_leaves_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(directory))
    with pytest.raises(FabricError, match="of leaf does not start: cannot run ovsdb-tool"):
        await switch(directory).start()
    assert find_marked(RUN) == []


async def test_a_program_that_ends_at_once_is_named_with_its_last_words(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anabranch.fabric.openvswitch.START_TIMEOUT", 0.3)
    for name, script in {
        "ovsdb-tool": 'touch "$2"',
        "ovsdb-server": "echo the disk is full >&2; exit 1",
    }.items():
        program = directory / name
        program.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))
    with pytest.raises(FabricError, match="leaf-ovsdb: the disk is full"):
        await switch(directory).start()
    assert find_marked(RUN) == []


@pytest.mark.parametrize(
    ("dpid", "ports"),
    [(-1, {}), (1 << 64, {}), (1, {"a": 1, "b": 1}), (1, {"a": 0}), (1, {"a": 65280})],
)
async def test_impossible_numbers_are_misuse(
    directory: Path, dpid: int, ports: dict[str, int]
) -> None:
    with pytest.raises(MisuseError):
        await switch(directory).configure("br0", dpid, ports, "tcp:127.0.0.1:6653")


async def test_a_switch_that_was_not_started_is_disconnected(directory: Path) -> None:
    with pytest.raises(DisconnectedError, match=r"Open vSwitch of leaf: .* is closed"):
        await switch(directory).apply([Bridge("br0")])
