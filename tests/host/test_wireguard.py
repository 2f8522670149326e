"""Keys, configurations and what ``wg`` prints; tests/lab has the real thing."""

import base64
import subprocess
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.core.errors import UsageError
from anabranch.host.wireguard import (
    Peer,
    PeerStatus,
    check_key,
    configuration,
    private_key,
    public_key,
    read_dump,
)

SPOKES = (IPv4Network("10.96.0.0/24"),)


def test_a_private_key_is_drawn_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "key"
    drawn = private_key(file)
    assert private_key(file) == drawn
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(base64.b64decode(drawn)) == 32


def test_the_public_key_is_the_one_that_wg_finds(tmp_path: Path) -> None:
    key = private_key(tmp_path / "key")
    done = subprocess.run(
        ["wg", "pubkey"], input=key, capture_output=True, text=True, check=True, timeout=10
    )
    assert public_key(key) == done.stdout.strip()


@given(st.binary(min_size=0, max_size=64))
def test_only_32_bytes_are_a_key(raw: bytes) -> None:
    text = base64.b64encode(raw).decode()
    if len(raw) == 32:
        assert check_key(text) == text
    else:
        with pytest.raises(UsageError):
            check_key(text)


@given(st.text())
def test_whatever_else_is_no_key(text: str) -> None:
    with suppress(UsageError):
        assert len(base64.b64decode(check_key(text))) == 32


@pytest.mark.parametrize("host", ["a b", "x\n[Peer]", "", "[::1", "a" * 254])
def test_no_line_gets_into_the_configuration_by_a_host_name(host: str, tmp_path: Path) -> None:
    key = private_key(tmp_path / "key")
    with pytest.raises(UsageError):
        configuration(key, None, [Peer(public_key(key), SPOKES, (host, 1))])


def test_a_configuration_has_what_wg_wants(tmp_path: Path) -> None:
    key = private_key(tmp_path / "key")
    peer = Peer(public_key(key), SPOKES, ("2001:db8::1", 7443), 20)
    lines = configuration(key, 7443, [peer]).splitlines()
    assert lines == [
        "[Interface]",
        f"PrivateKey = {key}",
        "ListenPort = 7443",
        "[Peer]",
        f"PublicKey = {public_key(key)}",
        "AllowedIPs = 10.96.0.0/24",
        "Endpoint = [2001:db8::1]:7443",
        "PersistentKeepalive = 20",
    ]


def test_what_wg_prints_is_read() -> None:
    text = (
        "PRIVATE\tPUBLIC\t7443\toff\n"
        "KEY1\t(none)\t203.0.113.254:42346\t10.96.0.2/32\t1700000000\t860\t948\t20\n"
        "KEY2\t(none)\t(none)\t10.96.0.3/32\t0\t0\t0\toff\n"
    )
    assert read_dump(text) == {
        "KEY1": PeerStatus(("203.0.113.254", 42346), 1700000000.0, 860, 948),
        "KEY2": PeerStatus(None, None, 0, 0),
    }


@given(st.text())
def test_whatever_wg_prints_is_read_or_passed_over(text: str) -> None:
    read_dump(text)
    read_dump(f"x\n{text}\t" * 8)
