"""Certificates: the operator's own, or one generated and kept."""

import datetime
import ipaddress
import socket
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from anabranch.app.config import Config
from anabranch.core.errors import UsageError

_DAYS = 825


def certificate_for(config: Config) -> tuple[Path, Path]:
    """Return the paths of the certificate chain and its private key, PEM.

    Raises:
        UsageError: only one of the two is given, or they cannot be read or do not fit.
    """
    if (config.tls.certificate is None) != (config.tls.key is None):
        raise UsageError("tls needs both a certificate and its key, or neither")
    certificate, key = paths(config)
    try:
        if config.tls.certificate is None and not (
            _is_fresh(certificate) and _fault(certificate, key) is None
        ):
            config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
            names = ["localhost", "127.0.0.1", *config.public_addresses()]
            _generate(certificate, key, list(dict.fromkeys(names)))
    except OSError as error:
        raise UsageError(f"cannot keep a certificate in {config.state}: {error}") from error
    if (fault := _fault(certificate, key)) is not None:
        raise UsageError(f"the certificate {certificate} cannot be used with {key}: {fault}")
    return certificate, key


def paths(config: Config) -> tuple[Path, Path]:
    """Return where the certificate and its key are, or will be."""
    if config.tls.certificate is not None and config.tls.key is not None:
        return config.tls.certificate, config.tls.key
    return config.state / "certificate.pem", config.state / "certificate.key"


def client_context(config: Config) -> ssl.SSLContext:
    """Return a context that trusts just the site's own certificate, and never makes a new one.

    For programs on the director's machine: they reach it as 127.0.0.1, which an operator's
    certificate does not name.

    Raises:
        UsageError: the certificate cannot be read.
    """
    certificate, _ = paths(config)
    try:
        context = ssl.create_default_context(cafile=str(certificate))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"the certificate {certificate} cannot be read: {error}") from error
    context.check_hostname = False
    return context


def _fault(certificate: Path, key: Path) -> Exception | None:
    """Return why the pair cannot be served, or None."""
    try:
        # An encrypted key must fail, not ask on the terminal.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            certificate, key, password=lambda: ""
        )
    except (OSError, ssl.SSLError, ValueError) as error:
        return error
    return None


def _is_fresh(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        until = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except ValueError:
        return False
    return until > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=7)


def _generate(certificate: Path, key: Path, names: list[str]) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, socket.gethostname()[:60])])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    key.unlink(missing_ok=True)  # one that is there would keep its mode
    key.touch(mode=0o600)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
