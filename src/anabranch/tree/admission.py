"""Who may be a node of the site: tokens issued, keys certified, names removed."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from anabranch.core.errors import NotFoundError, UsageError
from anabranch.core.names import check_name
from anabranch.tree.certificates import (
    Authority,
    CertificateError,
    Credentials,
    key_fingerprint,
    requested_key,
    write_secret,
)
from anabranch.tree.member import RefusedError
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity
from anabranch.tree.soleil.messages import Fault, Hello
from anabranch.tree.tokens import JoinToken, hash_of, is_secret, new_token

TOKEN_LIFETIME_S = 86_400.0


@dataclass(slots=True)
class Record:
    """What the site knows of one name.

    Attributes:
        token: hash of the secret drawn last; None: none was.
        token_until: seconds since the epoch.
        token_key: SHA-256 of the public key for which the token was used; None: not yet.
        key: that of the key certified last.
        removed: it may not come back without a new token.
    """

    role: Role
    token: str | None = None
    token_until: float = 0.0
    token_key: str | None = None
    key: str | None = None
    removed: bool = False


_RECORDS = TypeAdapter(dict[str, Record])


class Admission:
    """The book of nodes, in a file of mode 0600, and the authority that signs for it.

    A token is good for one key: who sends it again with the same key, because the answer got lost,
    is answered again. A certificate is renewed for the same key only, so that no relay can get one
    in the name of a node below it.

    Args:
        path: the file; None: in memory only.
        now: seconds since the epoch.
    """

    def __init__(
        self, authority: Authority, path: Path | None, *, now: Callable[[], float] = time.time
    ) -> None:
        """Read the book.

        Raises:
            UsageError: the file is damaged.
            OSError: it cannot be read.
        """
        self._authority = authority
        self._path = path
        self._now = now
        self._dirty = False
        self._records: dict[str, Record] = {}
        if path is not None and path.exists():
            try:
                self._records = _RECORDS.validate_json(path.read_bytes())
            except ValidationError as error:
                raise UsageError(f"{path} is no list of nodes: {error}") from error

    @property
    def authority(self) -> str:
        """The authority's certificate, PEM."""
        return self._authority.pem

    @property
    def records(self) -> Mapping[str, Record]:
        """Everything in the book by name."""
        return self._records

    def issue(self, name: str, role: Role, lifetime_s: float = TOKEN_LIFETIME_S) -> JoinToken:
        """Draw a token for a node, new, known or removed; one drawn before is void.

        A certificate that the node has is good until the token is used.

        Raises:
            UsageError: no node can have that name, or it is to be a root.
        """
        if role is Role.ROOT:
            raise UsageError("a site has one root, which needs no token")
        token = new_token(name, self._authority.fingerprint)
        before = self._records.get(name)
        key = None if before is None or before.removed else before.key
        until = self._now() + lifetime_s
        self._records[name] = Record(role, hash_of(token.secret), until, None, key)
        self._dirty = True
        self.save()
        return token

    def adopt(self, name: str, role: Role) -> None:
        """Enter a node that the root itself starts and believes, without a token."""
        self._records[check_name(name)] = Record(role)
        self._dirty = True

    def certify_root(self, credentials: Credentials, name: str) -> None:
        """Give the root, whose files are on this machine, a new certificate."""
        self._authority.provide(credentials, name, Role.ROOT)

    def remove(self, name: str) -> None:
        """Bar a node: certificate and token are void.

        Raises:
            NotFoundError: there is no such node.
        """
        if name not in self._records:
            raise NotFoundError(f"there is no node {name}")
        self._records[name].removed = True
        self._dirty = True
        self.save()

    def save(self) -> None:
        """Write the book if it has changed.

        Raises:
            OSError: it cannot be written; it still counts as changed.
        """
        if self._dirty and self._path is not None:
            write_secret(self._path, _RECORDS.dump_json(self._records))
        self._dirty = False

    # What the root's decisions ask (``root.Gate``).

    def is_known(self, name: str) -> bool:
        """Say whether there is a node of that name."""
        record = self._records.get(name)
        return record is not None and not record.removed

    def check(self, identity: Identity) -> None:
        """Look whether a node with a genuine certificate is still welcome.

        Raises:
            RefusedError: it was removed, has a newer key, or another role by now.
        """
        record = self._present(identity.name)
        if record.role is not identity.role:
            raise RefusedError(Fault.FORBIDDEN, f"{identity.name} is a {record.role} now")
        if identity.key and record.key not in (None, identity.key):
            raise RefusedError(Fault.FORBIDDEN, f"{identity.name} has another key now")

    def admit(self, hello: Hello) -> str:
        """Return the chain for a node that has a token.

        Raises:
            RefusedError: the token is not for it, used or too old, or the request is bad.
        """
        record = self._records.get(hello.name)
        genuine = (
            record is not None
            and record.token is not None
            and not record.removed
            and is_secret(hello.token or "", record.token)
        )
        if record is None or not genuine:
            raise RefusedError(Fault.FORBIDDEN, "there is no such token")
        if self._now() > record.token_until:
            raise RefusedError(Fault.FORBIDDEN, "the token has expired")
        key, chain = self._certify(hello.name, record.role, hello.request)
        if record.token_key not in (None, key):
            raise RefusedError(Fault.FORBIDDEN, "the token was used already")
        record.token_key = record.key = key
        self._dirty = True
        return chain

    def renew(self, name: str, request: str) -> str:
        """Return a new chain for a node that has one, for the same key.

        Raises:
            RefusedError: it was removed, the key is another, or the request is bad.
        """
        record = self._present(name)
        key, chain = self._certify(name, record.role, request)
        if key != record.key:
            raise RefusedError(Fault.FORBIDDEN, f"{name} has another key; that needs a token")
        return chain

    def _present(self, name: str) -> Record:
        if not self.is_known(name):
            raise RefusedError(Fault.FORBIDDEN, f"there is no node {name}")
        return self._records[name]

    def _certify(self, name: str, role: Role, request: str | None) -> tuple[str, str]:
        try:
            key = requested_key(request or "")
        except CertificateError as error:
            raise RefusedError(Fault.MALFORMED, str(error)) from error
        return key_fingerprint(key), self._authority.issue(name, role, key)
