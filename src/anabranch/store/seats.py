"""The table of seats: who sat where when the site was last heard of."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import JSON, String, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from anabranch.store.database import Base, Database

_AT_ONCE = 500
"""Identifiers in one statement: databases limit what one may have."""


class SeatRow(Base):
    """A seat. ``data`` is what its ``kind`` needs to be taken up again."""

    __tablename__ = "seats"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    channel: Mapped[str] = mapped_column(String(40))
    kind: Mapped[str] = mapped_column(String(10))
    leaf: Mapped[str] = mapped_column(String(40))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    taken: Mapped[float]


async def read_seats(database: Database) -> list[SeatRow]:
    """Return every seat, the oldest first.

    Raises:
        StoreError: the store cannot be read.
    """
    async with database.transaction() as session:
        return list(await session.scalars(select(SeatRow).order_by(SeatRow.taken, SeatRow.id)))


async def write_seats(database: Database, rows: Sequence[SeatRow], gone: Collection[str]) -> None:
    """Have these seats be as they are here, and those that are ``gone`` not be, all at once.

    Raises:
        StoreError: the store cannot be written; nothing has changed.
    """
    async with database.transaction() as session:
        for ids in _batches({*gone, *(row.id for row in rows)}):
            await session.execute(delete(SeatRow).where(SeatRow.id.in_(ids)))
        session.add_all(rows)


def _batches(ids: Collection[str]) -> Iterator[Sequence[str]]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), _AT_ONCE):
        yield ordered[start : start + _AT_ONCE]
