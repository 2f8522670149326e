"""The site's certificate authority, nodes' certificates, and the TLS contexts made of them.

EC P-256 (RFC 5480) and TLS 1.3 (RFC 8446) only. A node's certificate has its name as common name
and as subjectAltName, its role as organizational unit. Clocks may be a day apart.
"""

import datetime
import os
import ssl
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from anabranch.core.errors import UsageError
from anabranch.core.names import check_name
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity

VALIDITY = datetime.timedelta(days=30)
_AUTHORITY_VALIDITY = datetime.timedelta(days=20 * 365)
_BACKDATED = datetime.timedelta(days=1)
_MAX_PEM = 16 * 1024


class CertificateError(UsageError):
    """A certificate or a request for one is not what it should be."""


class Authority:
    """Signs the certificates of one site's nodes.

    Attributes:
        pem: its own certificate.
        fingerprint: the SHA-256 of that, hexadecimal; join tokens carry it.
    """

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.fingerprint = fingerprint(certificate)

    @classmethod
    def open(cls, path: Path) -> "Authority":
        """Read the authority kept at ``path``, or make it there, once, with mode 0600.

        Raises:
            CertificateError: the file holds something else.
            OSError: it cannot be read or written.
        """
        with suppress(FileNotFoundError):
            return cls._read(path)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as file:
            file.write(_new_authority())
            file.flush()
            os.fsync(file.fileno())
            with suppress(FileExistsError):  # somebody else was faster
                os.link(file.name, path)
        return cls._read(path)

    @classmethod
    def _read(cls, path: Path) -> "Authority":
        pem = path.read_bytes()
        try:
            key = serialization.load_pem_private_key(pem, password=None)
            certificate = x509.load_pem_x509_certificate(pem)
        except ValueError as error:
            raise CertificateError(f"{path} holds no certificate authority: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CertificateError(f"{path} holds a key of another kind")
        return cls(certificate, key)

    def issue(
        self,
        name: str,
        role: Role,
        public_key: ec.EllipticCurvePublicKey,
        *,
        at: datetime.datetime | None = None,
        validity: datetime.timedelta = VALIDITY,
    ) -> str:
        """Return a chain, PEM: the node's certificate and the authority's.

        ``at`` is the time of issue, now unless given.
        """
        at = at or datetime.datetime.now(datetime.UTC)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role.value),
                x509.NameAttribute(NameOID.COMMON_NAME, check_name(name)),
            ]
        )
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(subject, self._certificate.subject, public_key, at, validity)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode() + self.pem

    def provide(self, credentials: "Credentials", name: str, role: Role) -> None:
        """Certify a node whose files are on this machine: the root, first of all."""
        key = requested_key(credentials.request(name))
        credentials.store(self.issue(name, role, key), self.fingerprint)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where a node keeps its private key, its chain and the site's authority (PEM, mode 0600)."""

    directory: Path

    @property
    def key(self) -> Path:
        return self.directory / "node.key"

    @property
    def chain(self) -> Path:
        return self.directory / "node.pem"

    @property
    def authority(self) -> Path:
        return self.directory / "authority.pem"

    def request(self, name: str) -> str:
        """Return a certificate signing request, PEM; draws the key if there is none."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.key.exists():
            write_secret(self.key, _private_pem(ec.generate_private_key(ec.SECP256R1())))
        key = serialization.load_pem_private_key(self.key.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject)
        return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def store(self, chain: str, pinned: str | None = None) -> Identity:
        """Keep what the authority answered, and return whose it is.

        ``pinned`` is the authority's fingerprint; None: the authority stays the one that is here.

        Raises:
            CertificateError: it is no chain of that authority, or not for the key that is here.
        """
        own, authority = _chain(chain)
        key = serialization.load_pem_private_key(self.key.read_bytes(), password=None)
        if pinned is None:
            pinned = fingerprint(x509.load_pem_x509_certificate(self.authority.read_bytes()))
        if fingerprint(authority) != pinned:
            raise CertificateError("the certificate is of another authority")
        if own.public_key() != key.public_key():
            raise CertificateError("the certificate is for another key")
        identity = identity_of(own.public_bytes(serialization.Encoding.DER))
        write_secret(self.authority, authority.public_bytes(serialization.Encoding.PEM))
        write_secret(self.chain, chain.encode())
        return identity

    def identity(self) -> Identity:
        """Return whose they are.

        Raises:
            CertificateError: there are none.
        """
        return identity_of(self._certificate().public_bytes(serialization.Encoding.DER))

    def renewal_due(self) -> datetime.datetime:
        """Return when a third of the validity has passed. Raises as :meth:`identity`."""
        own = self._certificate()
        begin = own.not_valid_before_utc
        return begin + _BACKDATED + (own.not_valid_after_utc - begin - _BACKDATED) / 3

    def _certificate(self) -> x509.Certificate:
        try:
            return _chain(self.chain.read_text())[0]
        except OSError as error:
            raise CertificateError(f"there is no certificate in {self.directory}") from error


def identity_of(der: bytes) -> Identity:
    """Return whose certificate it is; that it is genuine, TLS has seen to.

    Raises:
        CertificateError: it names no node or no role.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        subject = certificate.subject
        (name,) = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        (unit,) = subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        key = key_fingerprint(certificate.public_key())
        return Identity(check_name(str(name.value)), Role(str(unit.value)), key)
    except (ValueError, UsageError) as error:
        raise CertificateError(f"not the certificate of a node: {error}") from error


def requested_key(request: str) -> ec.EllipticCurvePublicKey:
    """Return the public key of a certificate signing request (RFC 2986), PEM.

    What else it asks for does not count: names and roles are the site's to give.

    Raises:
        CertificateError: it is malformed, not signed by its own key, or its key is not P-256.
    """
    try:
        parsed = x509.load_pem_x509_csr(request[:_MAX_PEM].encode())
        key = parsed.public_key()
        genuine = parsed.is_signature_valid
    except Exception as error:  # the parser has several, also of unsupported algorithms
        raise CertificateError(f"not a certificate signing request: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise CertificateError("a node's key must be of the curve P-256")
    if not genuine:
        raise CertificateError("the request is not signed by its own key")
    return key


def key_fingerprint(key: object) -> str:
    """Return the SHA-256 of a public key (SubjectPublicKeyInfo), hexadecimal."""
    assert hasattr(key, "public_bytes")
    info: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return sha256(info).hexdigest()


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate, hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def check_root(authority: str, pinned: str, peer: bytes) -> None:
    """Check whom a node without certificate has reached.

    Args:
        authority: the certificate, PEM, that the peer says is the site's authority.
        pinned: what its fingerprint must be.
        peer: the peer's own certificate, DER; that it has the key, TLS has seen to.

    Raises:
        CertificateError: it is another authority, or the peer is not this site's root.
    """
    try:
        issuer = x509.load_pem_x509_certificate(authority[:_MAX_PEM].encode())
        if fingerprint(issuer) != pinned:
            raise CertificateError("the token is for a site with another authority")
        x509.load_der_x509_certificate(peer).verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CertificateError("the peer has no certificate of this site") from error
    if identity_of(peer).role is not Role.ROOT:
        raise CertificateError("the peer is not the root of this site")


def server_context(credentials: Credentials, *, strangers: bool = False) -> ssl.SSLContext:
    """Return the context of who takes nodes in; ``strangers``: also nodes without certificate.

    There are no session tickets: a resumed session would not look at the certificate again, and
    they cost a node that comes once more than they save (docs/decisions/0022).

    Raises:
        CertificateError: the files cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, credentials)
    context.verify_mode = ssl.CERT_OPTIONAL if strangers else ssl.CERT_REQUIRED
    context.num_tickets = 0
    return context


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """Return the context of a node that dials; whom it reached is checked by name and role.

    Raises:
        CertificateError: the files cannot be used.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, credentials)


def stranger_context() -> ssl.SSLContext:
    """Return the context of a node without certificate: it must use :func:`check_root`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _context(protocol: int, credentials: Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    try:
        context.load_cert_chain(credentials.chain, credentials.key)
        context.load_verify_locations(credentials.authority)
    except (OSError, ssl.SSLError) as error:
        raise CertificateError(
            f"the certificate in {credentials.directory} cannot be used: {error}"
        ) from error
    return context


def _new_authority() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "anabranch site authority")])
    at = datetime.datetime.now(datetime.UTC)
    certificate = (
        _builder(subject, subject, key.public_key(), at, _AUTHORITY_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _private_pem(key) + certificate.public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    at: datetime.datetime,
    validity: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - _BACKDATED)
        .not_valid_after(at + validity)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _chain(pem: str) -> tuple[x509.Certificate, x509.Certificate]:
    try:
        own, authority = x509.load_pem_x509_certificates(pem[: 2 * _MAX_PEM].encode())
    except ValueError as error:
        raise CertificateError(f"not a chain of two certificates: {error}") from error
    return own, authority


def write_secret(path: Path, content: bytes) -> None:
    """Replace a file as a whole, with mode 0600."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
