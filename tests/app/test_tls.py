"""Certificates: one is made and renewed, and the operator's own is believed or refused clearly."""

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from anabranch.app import tls
from anabranch.app.config import load_config
from anabranch.app.tls import certificate_for, client_context
from anabranch.core.errors import UsageError


@pytest.fixture(autouse=True)
def state(here: Path) -> Path:
    (here / "state").mkdir()
    return here / "state"


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_certificate_is_made_for_every_address_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANABRANCH_PUBLIC_ADDRESS", "192.0.2.1")
    certificate, key = certificate_for(load_config())
    names = read(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["127.0.0.1", "192.0.2.1"]
    assert key.stat().st_mode & 0o777 == 0o600
    before = certificate.read_bytes()
    assert certificate_for(load_config()) == (certificate, key)
    assert certificate.read_bytes() == before
    assert client_context(load_config()).verify_mode is ssl.CERT_REQUIRED


def test_the_first_certificate_makes_its_directory(state: Path) -> None:
    state.rmdir()
    certificate, _ = certificate_for(load_config())
    assert certificate.parent == state
    assert state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("spoilt", ["certificate.pem", "certificate.key"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\0", None])
def test_a_kept_pair_that_is_spoilt_is_made_anew(
    state: Path, spoilt: str, content: bytes | None
) -> None:
    certificate, key = certificate_for(load_config())
    before = read(certificate)
    if content is None:
        (state / spoilt).unlink()
    else:
        (state / spoilt).write_bytes(content)
        (state / spoilt).chmod(0o644)
    certificate_for(load_config())
    assert read(certificate).serial_number != before.serial_number
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("days", "renewed"), [(0, True), (6, True), (30, False)])
def test_a_certificate_is_renewed_before_it_ends(
    monkeypatch: pytest.MonkeyPatch, days: int, renewed: bool
) -> None:
    monkeypatch.setattr(tls, "_DAYS", days)
    certificate, _ = certificate_for(load_config())
    before = read(certificate).serial_number
    client_context(load_config())  # asking the director never changes what it serves
    assert read(certificate).serial_number == before
    monkeypatch.setattr(tls, "_DAYS", 825)
    certificate_for(load_config())
    assert (read(certificate).serial_number != before) is renewed
    left = read(certificate).not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert left.days >= (800 if renewed else days - 1)


def given_pair(monkeypatch: pytest.MonkeyPatch, certificate: Path | None, key: Path | None) -> None:
    for name, path in (("CERTIFICATE", certificate), ("KEY", key)):
        if path is not None:
            monkeypatch.setenv(f"ANABRANCH_TLS__{name}", str(path))


def test_the_operators_pair_is_used_or_refused_and_never_touched(
    monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    certificate, key = certificate_for(load_config())
    mine, other = here / "mine.pem", here / "other.key"
    mine.write_bytes(certificate.read_bytes())
    certificate.unlink()
    other.write_bytes(certificate_for(load_config())[1].read_bytes())

    given_pair(monkeypatch, mine, None)
    with pytest.raises(UsageError, match="both a certificate and its key"):
        certificate_for(load_config())
    for wrong in (other, mine, here / "none.key", here):
        given_pair(monkeypatch, mine, wrong)
        content = mine.read_bytes()
        with pytest.raises(UsageError, match=r"mine\.pem cannot be used with"):
            certificate_for(load_config())
        assert mine.read_bytes() == content
    given_pair(monkeypatch, certificate, key)
    assert certificate_for(load_config()) == (certificate, key)


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_a_client_without_the_certificate_is_told(state: Path, content: bytes | None) -> None:
    if content is not None:
        (state / "certificate.pem").write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read"):
        client_context(load_config())
    assert not (state / "certificate.key").exists()
