"""Namespaces, links and the journal on the real kernel."""

import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from anabranch.core.errors import ConflictError
from anabranch.host import network
from anabranch.host.journal import Journal, hold, holder
from anabranch.host.network import Port

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    directory = tmp_path / "run"
    directory.mkdir()
    journal = Journal(directory)
    yield journal
    journal.undo()


def namespaces() -> str:
    return subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


@needs_root
@pytest.mark.lab
def test_what_the_journal_names_is_removed(journal: Journal) -> None:
    tag = secrets.token_hex(2)
    one, two, device = f"ab-{tag}-1", f"ab-{tag}-2", f"ab{tag}x"
    for name in (one, two):
        journal.record("netns", name)
        network.make_namespace(name)
    network.make_link(
        Port("to-2", one, mac="02:00:00:00:00:01", rate_mbit=50),
        Port("to-1", two, address=IPv4Interface("10.97.9.1/30")),
    )
    journal.record("link", device)
    network.make_link(Port(device, None), Port("access0", one))
    shaping = subprocess.run(
        ["nsenter", f"--net=/run/netns/{one}", "tc", "qdisc"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "tbf" in shaping
    assert "rate 50Mbit" in shaping
    assert one in namespaces()

    assert journal.undo() == 3
    assert one not in namespaces()
    assert device not in dict(socket.if_nameindex()).values()
    assert not journal.directory.exists()
    assert journal.undo() == 0  # a second time is harmless


def offloads(netns: str, device: str) -> bool:
    """Say whether a device leaves checksums and segmentation to who is behind it."""
    shown = subprocess.run(
        ["nsenter", f"--net=/run/netns/{netns}", "ethtool", "-k", device],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return "tx-checksumming: on" in shown and "tx-udp-segmentation: on" in shown


@needs_root
@pytest.mark.lab
def test_only_beside_a_switch_packets_leave_whole(journal: Journal) -> None:
    one = f"ab-{secrets.token_hex(2)}"
    journal.record("netns", one)
    network.make_namespace(one)
    host, viewers = IPv4Interface("10.97.9.1/30"), IPv4Interface("10.97.9.5/30")
    network.make_link(Port("host0", one, address=host), Port("sw-host", one))
    network.make_link(
        Port("access0", one, address=viewers),
        Port("gate0", one, address=IPv4Interface("10.97.9.6/30")),
    )
    assert not offloads(one, "host0")
    assert offloads(one, "access0")


@needs_root
@pytest.mark.lab
def test_what_a_child_makes_is_removed_by_how_its_names_begin(journal: Journal) -> None:
    tag = secrets.token_hex(2)
    other = f"ab-{tag}other"
    journal.record("netns", other)
    journal.record("netnses", f"ab-{tag}-")
    for name in (f"ab-{tag}-1", f"ab-{tag}-2", other):
        network.make_namespace(name)
    assert network.namespaces(f"ab-{tag}-") == [f"ab-{tag}-1", f"ab-{tag}-2"]
    journal.undo()
    assert tag not in namespaces()


@needs_root
@pytest.mark.lab
def test_processes_in_a_namespace_end_with_it(journal: Journal) -> None:
    name = f"ab-{secrets.token_hex(2)}"
    journal.record("netns", name)
    network.make_namespace(name)
    sleeper = subprocess.Popen(["nsenter", f"--net=/run/netns/{name}", "sleep", "60"])
    while os.readlink(f"/proc/{sleeper.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        pass
    network.remove_namespace(name)
    sleeper.wait(5)  # raises if it still runs


def test_half_a_line_in_the_journal_is_passed_over(journal: Journal) -> None:
    journal.record("run", "r1")
    with (journal.directory / "journal.jsonl").open("a") as file:
        file.write('{"kind": "netns", "na')
    assert [entry.name for entry in journal.entries()] == ["r1"]


def test_a_site_is_held_once(tmp_path: Path) -> None:
    directory = tmp_path / "site"
    assert holder(directory) is None
    with hold(directory, "the site"):
        assert holder(directory) == os.getpid()
        with pytest.raises(ConflictError, match="running already"), hold(directory, "the site"):
            pass
    assert holder(directory) is None
    with hold(directory, "the site"):
        pass


def test_a_directory_without_a_journal_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert Journal(tmp_path).undo() == 0
    assert (tmp_path / "thesis.txt").exists()
