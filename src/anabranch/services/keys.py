"""Keys of tenants: Ed25519 (RFC 8032); RSA (RFC 8017, PKCS #1 v1.5 with SHA-256) is taken, too.

What is signed begins with its *purpose* and a NUL, so that a signature under one kind of document
never passes for another. ``openssl pkeyutl`` can make the same signatures.
"""

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from anabranch.services.errors import KeyFileError, SignatureError

_MAX_TEXT = 16 * 1024
_RSA_BITS = range(2048, 4097)
_RSA_MAX_EXPONENT = 2**32  # a verification costs as many squarings as the exponent has bits


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key; equal keys are equal. ``key`` is the library's own object."""

    key: ed25519.Ed25519PublicKey | rsa.RSAPublicKey

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read PEM (SubjectPublicKeyInfo) or one line of OpenSSH (``ssh-ed25519 AAAA... name``).

        Raises:
            KeyFileError: it is neither, or a key of another kind.
        """
        data = text[:_MAX_TEXT].strip().encode()
        read = (
            serialization.load_pem_public_key
            if data.startswith(b"-----")
            else serialization.load_ssh_public_key
        )
        try:
            return cls(_taken(read(data)))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyFileError(f"no public key, PEM or OpenSSH: {error}") from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file at ``path``. Raises as :meth:`parse`, also if it cannot be read."""
        try:
            return cls.parse(_read(path).decode())
        except (OSError, UnicodeDecodeError, KeyFileError) as error:
            raise KeyFileError(f"{path}: {error}") from error

    def verify(self, purpose: str, data: bytes, signature: bytes) -> None:
        """Check that this key signed ``data`` for ``purpose``.

        Raises:
            SignatureError: it did not.
        """
        signed = _signed(purpose, data)
        try:
            if isinstance(self.key, rsa.RSAPublicKey):
                self.key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
            else:
                self.key.verify(signature, signed)
        except InvalidSignature as error:
            raise SignatureError("the signature does not fit") from error

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo, hexadecimal."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return sha256(self.key.public_bytes(serialization.Encoding.DER, form)).hexdigest()

    def pem(self) -> str:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_bytes(serialization.Encoding.PEM, form).decode()

    def __str__(self) -> str:
        """Return the line of OpenSSH, without a comment."""
        encoding, form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        return self.key.public_bytes(encoding, form).decode()


class PrivateKey:
    """A private key; its text shows up in no representation."""

    def __init__(self, key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    @classmethod
    def generate(cls) -> Self:
        """Draw an Ed25519 key."""
        return cls(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, data: bytes, password: bytes | None = None) -> Self:
        """Read PEM (PKCS #8, PKCS #1) or OpenSSH's private format.

        Raises:
            KeyFileError: it is neither, a key of another kind, or the password does not fit.
        """
        data = data[:_MAX_TEXT]
        openssh = b"BEGIN OPENSSH PRIVATE KEY" in data
        read = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
        try:
            key = read(data, password)
        except UnsupportedAlgorithm as error:  # OpenSSH's own encryption needs PyPI bcrypt
            raise KeyFileError(
                f"the private key cannot be decrypted ({error});"
                " ssh-keygen -p -m PKCS8 -f KEY rewrites it"
            ) from error
        except (ValueError, TypeError) as error:
            raise KeyFileError(f"no private key, PEM or OpenSSH: {error}") from error
        if not isinstance(key, ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
            raise KeyFileError("the key is neither Ed25519 nor RSA")
        _taken(key.public_key())
        return cls(key)

    @classmethod
    def load(cls, path: Path, password: bytes | None = None) -> Self:
        """Read the file at ``path``. Raises as :meth:`parse`, also if it cannot be read."""
        try:
            return cls.parse(_read(path), password)
        except (OSError, KeyFileError) as error:
            raise KeyFileError(f"{path}: {error}") from error

    def sign(self, purpose: str, data: bytes) -> bytes:
        """Return the signature of ``data``: 64 bytes of Ed25519, or as long as the RSA modulus."""
        signed = _signed(purpose, data)
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return self._key.sign(signed)

    def store(self, path: Path) -> None:
        """Write a new file, PKCS #8 in PEM, mode 0600.

        Raises:
            KeyFileError: there is a file already, or it cannot be written.
        """
        pem = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(pem)
        except OSError as error:
            raise KeyFileError(f"{path}: {error.strerror}") from error


def _taken(key: object) -> ed25519.Ed25519PublicKey | rsa.RSAPublicKey:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if not isinstance(key, rsa.RSAPublicKey):
        raise KeyFileError("the key is neither Ed25519 nor RSA")
    if key.key_size not in _RSA_BITS or key.public_numbers().e >= _RSA_MAX_EXPONENT:
        raise KeyFileError("an RSA key has 2048 to 4096 bits and a small exponent")
    return key


def _signed(purpose: str, data: bytes) -> bytes:
    return purpose.encode() + b"\0" + data


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_TEXT + 1)
