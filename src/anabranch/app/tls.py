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
    certificate, key = config.tls.certificate, config.tls.key
    if (certificate is None) != (key is None):
        raise UsageError("tls needs both a certificate and its key, or neither")
    if certificate is None or key is None:
        certificate, key = config.state / "certificate.pem", config.state / "certificate.key"
        if not _is_fresh(certificate) or not key.is_file():
            _generate(certificate, key, ["localhost", "127.0.0.1", *config.public_addresses()])
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"the certificate {certificate} cannot be used: {error}") from error
    return certificate, key


def client_context(certificate: Path) -> ssl.SSLContext:
    """Return a context that trusts just ``certificate``: for programs on the director's machine.

    They reach it as 127.0.0.1, which an operator's certificate does not name.
    """
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    return context


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
