"""Seats in the store: who sat where when the site was last heard of."""

from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import delete, select

from anabranch.store.database import Database
from anabranch.store.rows import SeatRow

_AT_ONCE = 500
"""Identifiers in one statement: databases limit what one may have."""


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
