"""The authority, what it signs, tokens, and the book."""

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from anabranch.core.errors import NotFoundError, UsageError
from anabranch.tree.admission import Admission
from anabranch.tree.certificates import (
    Authority,
    CertificateError,
    Credentials,
    check_root,
    identity_of,
    requested_key,
    server_context,
)
from anabranch.tree.member import RefusedError
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity
from anabranch.tree.seen import Seen
from anabranch.tree.soleil.messages import Bye, Hello, Message
from anabranch.tree.tokens import TokenError, is_secret, new_token, parse_token


def der(credentials: Credentials) -> bytes:
    own = x509.load_pem_x509_certificate(credentials.chain.read_bytes())
    return own.public_bytes(serialization.Encoding.DER)


def test_an_authority_is_made_once_and_kept_secret(tmp_path: Path) -> None:
    path = tmp_path / "authority.pem"
    first = Authority.open(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Authority.open(path).fingerprint == first.fingerprint
    assert [each.name for each in tmp_path.iterdir()] == ["authority.pem"]
    path.write_text("nonsense")
    with pytest.raises(CertificateError):
        Authority.open(path)


def test_a_certificate_says_who_and_what(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path / "authority.pem")
    credentials = Credentials(tmp_path / "node")
    authority.provide(credentials, "relay-1", Role.RELAY)
    identity = identity_of(der(credentials))
    assert (identity.name, identity.role) == ("relay-1", Role.RELAY)
    assert credentials.identity() == identity
    for path in (credentials.key, credentials.chain, credentials.authority):
        assert path.stat().st_mode & 0o777 == 0o600
    own = x509.load_pem_x509_certificate(credentials.chain.read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    assert own.not_valid_before_utc < now - datetime.timedelta(hours=23)
    due = credentials.renewal_due() - now
    assert datetime.timedelta(days=9) < due < datetime.timedelta(days=11)
    server_context(credentials)
    credentials.chain.write_text("nonsense")
    for use in (credentials.identity, lambda: server_context(credentials)):
        with pytest.raises(CertificateError):
            use()


def test_only_a_chain_for_the_own_key_by_the_own_authority_is_kept(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path / "authority.pem")
    other = Authority.open(tmp_path / "other.pem")
    credentials = Credentials(tmp_path / "node")
    authority.provide(credentials, "leaf", Role.LEAF)
    before = credentials.chain.read_text()
    key = requested_key(credentials.request("leaf"))
    foreign = ec.generate_private_key(ec.SECP256R1()).public_key()
    for chain in (
        other.issue("leaf", Role.LEAF, key),
        authority.issue("leaf", Role.LEAF, foreign),
        authority.pem,
        "nonsense",
    ):
        with pytest.raises(CertificateError):
            credentials.store(chain)
    assert credentials.chain.read_text() == before


def test_a_peer_without_our_authority_or_role_is_not_the_root(tmp_path: Path) -> None:
    ours = Authority.open(tmp_path / "ours.pem")
    theirs = Authority.open(tmp_path / "theirs.pem")
    root, relay, false = (Credentials(tmp_path / name) for name in ("root", "relay", "false"))
    ours.provide(root, "root", Role.ROOT)
    ours.provide(relay, "relay", Role.RELAY)
    theirs.provide(false, "root", Role.ROOT)
    check_root(ours.pem, ours.fingerprint, der(root))
    for authority, pinned, peer in (
        (theirs.pem, ours.fingerprint, der(false)),
        (ours.pem, ours.fingerprint, der(false)),
        (ours.pem, ours.fingerprint, der(relay)),
        ("nonsense", ours.fingerprint, der(root)),
        (ours.pem, ours.fingerprint, b""),
    ):
        with pytest.raises(CertificateError):
            check_root(authority, pinned, peer)


def test_requests_must_be_signed_and_of_the_one_curve() -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for key, digest in (
        (ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()),
        (ed25519.Ed25519PrivateKey.generate(), None),
    ):
        request = builder.sign(key, digest).public_bytes(serialization.Encoding.PEM).decode()
        with pytest.raises(CertificateError):
            requested_key(request)
    with pytest.raises(CertificateError):
        requested_key("")


@given(st.binary(max_size=300), st.text(max_size=300))
def test_certificates_and_requests_of_any_bytes(data: bytes, text: str) -> None:
    with pytest.raises(CertificateError):
        identity_of(data)
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(CertificateError):
        requested_key(pem)


def test_tokens_are_read_as_written_and_never_shown() -> None:
    token = new_token("leaf-1", "a" * 64)
    assert parse_token(f" {token.reveal()}\n") == token
    assert token.secret not in f"{token} {token!r}"
    assert token.reveal() == f"anabranch1.leaf-1.{token.secret}.{'a' * 64}"
    with pytest.raises(UsageError):
        new_token("No Name", "a" * 64)


@given(st.text(max_size=200) | st.lists(st.text(max_size=60), max_size=5).map(".".join))
def test_any_text_is_a_token_or_an_error_that_does_not_repeat_it(text: str) -> None:
    for attempt in (text, f"anabranch1.{text}"):
        said = ""
        try:
            assert parse_token(attempt).reveal() == attempt.strip()
        except TokenError as error:
            said = str(error)
        assert len(attempt) < 20 or attempt not in said


def test_the_book(tmp_path: Path) -> None:
    now = [1000.0]
    authority = Authority.open(tmp_path / "authority.pem")
    path = tmp_path / "nodes.json"
    book = Admission(authority, path, now=lambda: now[0])
    token = book.issue("leaf", Role.LEAF, lifetime_s=60)
    assert is_secret(token.secret, book.records["leaf"].token)
    credentials = Credentials(tmp_path / "leaf")
    request = credentials.request("leaf")
    hello = Hello("leaf", Role.LEAF, token=token.secret, request=request)
    book.admit(hello)
    key = book.records["leaf"].key
    book.check(Identity("leaf", Role.LEAF, key))
    for identity in (
        Identity("leaf", Role.RELAY, key),
        Identity("leaf", Role.LEAF, "b" * 64),
        Identity("other", Role.LEAF, key),
    ):
        with pytest.raises(RefusedError):
            book.check(identity)
    book.renew("leaf", request)
    with pytest.raises(RefusedError, match="another key"):
        book.renew("leaf", Credentials(tmp_path / "thief").request("leaf"))
    with pytest.raises(RefusedError, match="not a certificate signing request"):
        book.renew("leaf", "nonsense")
    book.save()
    book = Admission(authority, path, now=lambda: now[0])
    assert book.is_known("leaf")
    again = book.issue("leaf", Role.LEAF, lifetime_s=60)  # its disk is lost
    with pytest.raises(RefusedError, match="no such token"):
        book.admit(hello)
    book.check(Identity("leaf", Role.LEAF, key))
    other = Credentials(tmp_path / "new").request("leaf")
    now[0] += 61
    late = Hello("leaf", Role.LEAF, token=again.secret, request=other)
    with pytest.raises(RefusedError, match="expired"):
        book.admit(late)
    now[0] -= 61
    book.admit(late)
    with pytest.raises(RefusedError):
        book.check(Identity("leaf", Role.LEAF, key))
    book.remove("leaf")
    assert not book.is_known("leaf")
    for refused in (lambda: book.admit(late), lambda: book.renew("leaf", other)):
        with pytest.raises(RefusedError):
            refused()
    with pytest.raises(NotFoundError):
        book.remove("nobody")
    with pytest.raises(UsageError):
        book.issue("boss", Role.ROOT)
    path.write_text('{"leaf": {"role": "boss"}}')
    with pytest.raises(UsageError):
        Admission(authority, path)


def test_seen_messages_are_remembered_for_long_but_not_for_ever() -> None:
    seen = Seen(most=10)
    messages = [Message(Bye(), n, sender="leaf", id=str(n)) for n in range(11)]
    assert all(seen.is_new(message) for message in messages)
    assert not any(seen.is_new(message) for message in messages)
    bare = Message(Bye(), 1, sender="leaf")
    assert seen.is_new(bare)
    assert not seen.is_new(bare)
    assert seen.is_new(Message(Bye("why"), 1, sender="leaf"))
    assert seen.is_new(Message(Bye(), 1, sender="other"))
