"""What can be told of the overlay's DHCP server without a network."""

import contextlib
import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from anabranch.core.events import Event
from anabranch.fabric.dhcp_server import (
    DhcpServer,
    DhcpSettings,
    Lease,
    command_line,
    parse_leases,
)
from anabranch.fabric.errors import FabricError, MisuseError, ProtocolError
from anabranch.host.process import find_marked

RUN = "test-dhcp-server"
FIRST, LAST = IPv4Address("10.0.0.2"), IPv4Address("10.0.0.254")
MAC = "02:00:00:00:00:07"


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ab-t") as made:
        yield Path(made)


def settings(**other: Any) -> DhcpSettings:
    given_: dict[str, Any] = {
        "device": "br1",
        "address": IPv4Interface("10.0.0.1/24"),
        "first": FIRST,
        "last": LAST,
        **other,
    }
    return DhcpSettings(**given_)


@pytest.mark.parametrize(
    ("reason", "other"),
    [
        ("10.0.1.9: not in", {"last": IPv4Address("10.0.1.9")}),
        ("10.9.9.9: not in", {"static": {MAC: IPv4Address("10.9.9.9")}}),
        ("empty range", {"first": LAST, "last": FIRST}),
        ("less than 120 s", {"lease_s": 119}),
        ("the server's own", {"static": {MAC: IPv4Address("10.0.0.1")}}),
        ("the server's own", {"first": IPv4Address("10.0.0.1")}),
        ("an address for two", {"static": dict.fromkeys((MAC, "02:00:00:00:00:08"), LAST)}),
        ("not a MAC address", {"static": {"02:00:00:00:00:0G": LAST}}),
        ("not a MAC address", {"static": {MAC + ",set:x": LAST}}),
        ("no name of a device", {"device": "br1,lo"}),
        ("no name of a device", {"device": ""}),
    ],
)
def test_impossible_settings_are_misuse(reason: str, other: dict[str, Any]) -> None:
    with pytest.raises(MisuseError, match=reason):
        settings(**other)


def test_it_listens_on_one_device_serves_no_names_and_reads_no_file_of_the_machine() -> None:
    given_ = settings(static={MAC: LAST}, lease_s=600, router=IPv4Address("10.0.0.1"))
    line = command_line(given_, Path("/x/leases"))
    assert [one for one in line if "interface" in one] == [
        "--interface=br1",
        "--except-interface=lo",
        "--bind-interfaces",
    ]
    for needed in (
        "--port=0",
        "--conf-file=/dev/null",
        "--dhcp-range=10.0.0.2,10.0.0.254,255.255.255.0,600",
        f"--dhcp-host={MAC},10.0.0.254",
        "--dhcp-option=option:router,10.0.0.1",
        "--dhcp-option=option:mtu,1450",
    ):
        assert needed in line
    assert "--dhcp-option=option:router" in command_line(settings(), Path("/x"))  # sends none


def test_leases_are_read() -> None:
    text = (
        f"1700000000 {MAC} 10.0.0.5 camera ff:aa:bb\n"
        "0 02:00:00:00:00:08 10.0.0.6 * *\n"
        "duid 00:01:00:01\n"
    )
    assert parse_leases(text) == [
        Lease(MAC, IPv4Address("10.0.0.5"), 1700000000, "camera"),
        Lease("02:00:00:00:00:08", IPv4Address("10.0.0.6"), None, None),
    ]


@examples(deadline=None)
@given(
    st.text()
    | st.lists(st.sampled_from(["1", "x", MAC, "10.0.0.5", "*", "\n", "999.1.1.1"])).map(" ".join)
)
def test_any_text_is_leases_or_one_error(text: str) -> None:
    with contextlib.suppress(ProtocolError):
        assert all(isinstance(lease, Lease) for lease in parse_leases(text))


def server(directory: Path) -> DhcpServer:
    events: list[Event] = []
    return DhcpServer(settings(), None, directory, RUN, events.append)


async def test_no_leases_yet_and_damaged_ones(directory: Path) -> None:
    made = server(directory)
    assert made.leases() == []
    (directory / "dhcp.leases").write_bytes(b"\xff\xfe damaged")
    with pytest.raises(ProtocolError):
        made.leases()


async def test_without_dnsmasq_it_says_so(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(directory))
    with pytest.raises(FabricError, match=r"does not start: .*dnsmasq"):
        await server(directory).start()
    assert find_marked(RUN) == []


async def test_its_last_words_are_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = directory / "dnsmasq"
    program.write_text("#!/bin/sh\necho the address is taken >&2\nexit 2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))
    with pytest.raises(FabricError, match="does not start: the address is taken"):
        await server(directory).start()
    assert find_marked(RUN) == []


async def test_impossible_addresses_change_nothing(directory: Path) -> None:
    made = server(directory)
    with pytest.raises(MisuseError):
        await made.give({MAC: IPv4Address("192.0.2.1")})
    assert made.settings == settings()
    await made.give({MAC: LAST})
    assert f"--dhcp-host={MAC},{LAST}" in made.child.spec.argv
    assert not made.child.running
