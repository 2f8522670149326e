"""Audience: who was let in, by account or by link; what is kept is what counts."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from anabranch.channels import audience as module
from anabranch.channels.audience import Audience
from anabranch.core.errors import ConflictError, NotFoundError, UsageError
from anabranch.store.database import Database, StoreError


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite+aiosqlite:///{tmp_path}/store.db")
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def audience(database: Database) -> Audience:
    made = Audience(database)
    await made.load()
    return made


async def test_what_was_given_is_there_after_a_restart(
    audience: Audience, database: Database
) -> None:
    await audience.let_in("news", "a1")
    await audience.let_in("news", "a1")
    await audience.let_in("news", "a2")
    await audience.put_out("news", "a2")
    share, secret = await audience.share("news", name_of_link=" press ", lifetime_s=100)
    again = Audience(database)
    await again.load()
    assert again.accounts("news") == {"a1"}
    assert again.by_secret(secret) == share
    assert (share.name, share.expires) == ("press", share.created + 100)
    with pytest.raises(NotFoundError):
        await again.put_out("news", "a2")


async def test_a_link_ends_with_its_time(
    audience: Audience, monkeypatch: pytest.MonkeyPatch
) -> None:
    share, secret = await audience.share("news", lifetime_s=100)
    forever, _ = await audience.share("news", lifetime_s=None)
    assert audience.next_end() == share.expires
    monkeypatch.setattr(module.time, "time", lambda: share.created + 100)
    assert audience.by_secret(secret) is None
    assert audience.by_id(share.id) is None
    assert audience.shares("news") == [forever]
    assert audience.next_end() is None
    with pytest.raises(NotFoundError):
        await audience.unshare("news", share.id)


async def test_a_link_is_revoked_at_its_own_channel_only(audience: Audience) -> None:
    share, secret = await audience.share("news", lifetime_s=100)
    with pytest.raises(NotFoundError):
        await audience.unshare("other", share.id)
    assert audience.by_secret(secret) == share
    await audience.unshare("news", share.id)
    assert audience.by_secret(secret) is None


async def test_links_have_an_end_and_expired_ones_make_room(
    audience: Audience, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(module.MAX_SHARES):
        await audience.share("news", lifetime_s=60)
    with pytest.raises(ConflictError, match="at most"):
        await audience.share("news", lifetime_s=60)
    now = time.time() + 61
    monkeypatch.setattr(module.time, "time", lambda: now)
    await audience.share("news", lifetime_s=60)
    assert len(audience._shares) == 1


@pytest.mark.parametrize("name", ["x" * 61, "a\nb", "\u202e", "\x00"])
async def test_an_odd_name_is_refused(audience: Audience, name: str) -> None:
    with pytest.raises(UsageError):
        await audience.share("news", name_of_link=name, lifetime_s=None)


async def test_what_cannot_be_kept_does_not_count(audience: Audience) -> None:
    share, secret = await audience.share("news", lifetime_s=None)
    await audience.let_in("news", "a1")
    audience._database = Database("sqlite+aiosqlite:////no/such/place.db")
    for attempt in (
        audience.let_in("news", "a2"),
        audience.put_out("news", "a1"),
        audience.share("news", lifetime_s=None),
        audience.unshare("news", share.id),
    ):
        with pytest.raises(StoreError):
            await attempt
    await audience._database.close()
    assert audience.accounts("news") == {"a1"}
    assert audience.by_secret(secret) == share


async def test_a_use_is_noted_at_most_every_five_minutes(
    audience: Audience, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    share, _ = await audience.share("news", lifetime_s=None)
    await audience.note_use(share)
    (first,) = audience.shares("news")
    assert first.used is not None
    await audience.note_use(first)
    assert audience.shares("news") == [first]
    again = Audience(database)
    await again.load()
    assert again.shares("news") == [first]
