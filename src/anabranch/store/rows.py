"""Tables of channels, seats, events, callbacks, wishes and users of services.

People have a module of their own.
"""

from typing import Any

from sqlalchemy import JSON, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from anabranch.store import people_rows  # noqa: F401  # its tables belong to the same store
from anabranch.store.base import Base


class ChannelRow(Base):
    """A channel as its operator defined it. ``slot`` fixes its overlay addresses."""

    __tablename__ = "channels"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    title: Mapped[str] = mapped_column(String(120))
    source: Mapped[str] = mapped_column(String(2000))
    once: Mapped[bool]
    key: Mapped[str] = mapped_column(String(80))
    slot: Mapped[int] = mapped_column(unique=True)
    created: Mapped[float]
    visibility: Mapped[str] = mapped_column(String(10), default="public", server_default="public")
    owner: Mapped[str | None] = mapped_column(String(40))
    """An account's identifier: a new account of an old name owns nothing."""
    now: Mapped[str] = mapped_column(String(160), default="", server_default="")


class SeatRow(Base):
    """A seat. ``data`` is what its ``kind`` needs to be taken up again."""

    __tablename__ = "seats"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    channel: Mapped[str] = mapped_column(String(40))
    kind: Mapped[str] = mapped_column(String(10))
    leaf: Mapped[str] = mapped_column(String(40))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    taken: Mapped[float]


class EventRow(Base):
    """One line of the event log."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    time: Mapped[float] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(80), index=True)
    subject: Mapped[str] = mapped_column(String(120))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)


class CallbackRow(Base):
    """A receiver of the fabric's events. ``secret`` signs what it is sent."""

    __tablename__ = "callbacks"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    url: Mapped[str] = mapped_column(String(2000), unique=True)
    secret: Mapped[str] = mapped_column(String(120))
    encoding: Mapped[str] = mapped_column(String(10))
    kinds: Mapped[list[str]] = mapped_column(JSON)
    created: Mapped[float]


class WishRow(Base):
    """What operators ask of the fabric: one document, and those that were set aside."""

    __tablename__ = "wishes"

    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    document: Mapped[str] = mapped_column(Text)
    written: Mapped[float]


class ServiceUserRow(Base):
    """Who may install modules on the site's nodes: a name and what belongs to it."""

    __tablename__ = "service_users"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[float]
