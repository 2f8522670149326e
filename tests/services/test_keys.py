"""Keys as users have them: from openssl, ssh-keygen and our own drawing."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.services.errors import KeyFileError, SignatureError
from anabranch.services.keys import PrivateKey, PublicKey


def run(*command: str) -> bytes:
    return subprocess.run(command, check=True, capture_output=True).stdout


def test_a_signature_fits_its_data_key_and_purpose_only() -> None:
    key, other = PrivateKey.generate(), PrivateKey.generate()
    signature = key.sign("a", b"data")
    key.public.verify("a", b"data", signature)
    for public, purpose, data, sig in [
        (other.public, "a", b"data", signature),
        (key.public, "b", b"data", signature),
        (key.public, "a", b"datb", signature),
        (key.public, "a", b"data", signature[:-1]),
        (key.public, "a", b"data", b""),
    ]:
        with pytest.raises(SignatureError):
            public.verify(purpose, data, sig)


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_keys_of_ssh_keygen(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "key"
    run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "x y", "-f", str(path))
    key = PrivateKey.load(path)
    public = PublicKey.load(tmp_path / "key.pub")
    assert public == key.public == PublicKey.parse(public.pem()) == PublicKey.parse(str(public))
    public.verify("p", b"d", key.sign("p", b"d"))


def test_an_encrypted_key_needs_its_password(tmp_path: Path) -> None:
    path = tmp_path / "key"
    run("ssh-keygen", "-q", "-t", "rsa", "-m", "PKCS8", "-N", "sesame", "-f", str(path))
    assert PrivateKey.load(path, b"sesame").public == PublicKey.load(tmp_path / "key.pub")
    for password in (None, b"another"):
        with pytest.raises(KeyFileError, match="no private key"):
            PrivateKey.load(path, password)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "sesame", "-f", str(tmp_path / "openssh"))
    with pytest.raises(KeyFileError, match="private key"):
        PrivateKey.load(tmp_path / "openssh")


@pytest.mark.parametrize("options", [["ed25519"], ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]])
def test_keys_of_openssl(tmp_path: Path, options: list[str]) -> None:
    path, public = tmp_path / "key.pem", tmp_path / "public.pem"
    run("openssl", "genpkey", "-algorithm", *options, "-out", str(path))
    run("openssl", "pkey", "-in", str(path), "-pubout", "-out", str(public))
    key = PrivateKey.load(path)
    (tmp_path / "data").write_bytes(b"p\0d")
    digest = [] if options == ["ed25519"] else ["-digest", "sha256"]
    signature = run(
        *("openssl", "pkeyutl", "-sign", "-rawin", *digest),
        *("-inkey", str(path), "-in", str(tmp_path / "data")),
    )
    PublicKey.load(public).verify("p", b"d", signature)
    assert signature == key.sign("p", b"d")


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(tmp_path / "key"))
    with pytest.raises(KeyFileError, match="neither"):
        PrivateKey.load(tmp_path / "key")
    with pytest.raises(KeyFileError, match="neither"):
        PublicKey.load(tmp_path / "key.pub")
    run("openssl", "genrsa", "-out", str(tmp_path / "short"), "1024")
    with pytest.raises(KeyFileError, match="2048"):
        PrivateKey.load(tmp_path / "short")
    with pytest.raises(KeyFileError, match="absent"):
        PublicKey.load(tmp_path / "absent")


def test_a_key_is_stored_for_its_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    key = PrivateKey.generate()
    key.store(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert PrivateKey.load(tmp_path / "key").public == key.public
    with pytest.raises(KeyFileError, match="exists"):
        PrivateKey.generate().store(tmp_path / "key")


@given(st.binary() | st.text().map(lambda t: f"-----BEGIN PUBLIC KEY-----\n{t}".encode()))
def test_any_bytes_are_a_key_or_the_error(data: bytes) -> None:
    for read in (PrivateKey.parse, lambda data: PublicKey.parse(data.decode(errors="replace"))):
        with pytest.raises(KeyFileError):
            read(data)
