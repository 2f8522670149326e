"""Tables of people: accounts, and hashes of what shows that one is somebody."""

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from anabranch.store.base import Base


class AccountRow(Base):
    """A person, or a program that has a password."""

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    role: Mapped[str] = mapped_column(String(10))
    password: Mapped[str] = mapped_column(String(200))
    """Argon2id in its own encoding, with its salt and parameters."""
    created: Mapped[float]
    seen: Mapped[float | None]


class SessionRow(Base):
    """A browser that is signed in. ``secret`` is the SHA-256 of what its cookie holds."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    account: Mapped[str] = mapped_column(String(40), index=True)
    secret: Mapped[str] = mapped_column(String(64), unique=True)
    created: Mapped[float]
    used: Mapped[float]


class TokenRow(Base):
    """An API token. ``secret`` is the SHA-256 of the whole token."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    account: Mapped[str] = mapped_column(String(40), index=True)
    name: Mapped[str] = mapped_column(String(60))
    role: Mapped[str] = mapped_column(String(10))
    secret: Mapped[str] = mapped_column(String(64), unique=True)
    created: Mapped[float]
    expires: Mapped[float | None]
    used: Mapped[float | None]


class GrantRow(Base):
    """An account that may watch a private channel."""

    __tablename__ = "grants"

    channel: Mapped[str] = mapped_column(String(40), primary_key=True)
    account: Mapped[str] = mapped_column(String(40), primary_key=True)


class ShareRow(Base):
    """A link to a channel. ``secret`` is the SHA-256 of what the link holds."""

    __tablename__ = "shares"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    channel: Mapped[str] = mapped_column(String(40), index=True)
    name: Mapped[str] = mapped_column(String(60))
    secret: Mapped[str] = mapped_column(String(64), unique=True)
    created: Mapped[float]
    expires: Mapped[float | None]
    used: Mapped[float | None]
