"""Definitions: what may be defined, and that a refusal leaves nothing in the store."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.channels import definitions as module
from anabranch.channels.definitions import Definition, Definitions, check_title
from anabranch.core.errors import ConflictError, NotFoundError, UsageError
from anabranch.store.database import Database


@pytest.fixture
async def definitions(tmp_path: Path) -> AsyncIterator[Definitions]:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/store.db")
    await database.open()
    yield Definitions(database)
    await database.close()


async def add(
    definitions: Definitions, name: str, *, title: str | None = None, key: str | None = None
) -> Definition:
    return await definitions.add(name, title=title, once=False, key=key, settle=lambda _: "test")


async def test_what_was_defined_is_what_is_kept(definitions: Definitions) -> None:
    made = await definitions.add(
        "news", title=" The news ", once=True, key="a" * 10, settle=lambda _: "/film.mp4"
    )
    assert made == Definition("news", "The news", "/film.mp4", True, "a" * 10, 1)
    assert await definitions.all() == [made]
    drawn = await add(definitions, "sport")
    assert (drawn.title, drawn.slot) == ("sport", 2)
    assert len(drawn.key) == 24


@pytest.mark.parametrize(
    "name", ["", "A", "a b", "../x", "x" * 41, "a\n", "é", "a'--", "%00", "-", "a/b"]
)
async def test_an_odd_name_is_refused(definitions: Definitions, name: str) -> None:
    with pytest.raises(UsageError, match="not allowed"):
        await add(definitions, name)
    assert await definitions.all() == []


async def test_a_name_and_a_key_belong_to_one_channel(definitions: Definitions) -> None:
    first = await add(definitions, "news", key="k" * 12)
    with pytest.raises(ConflictError, match="news already"):
        await add(definitions, "news")
    with pytest.raises(ConflictError, match="this key"):
        await add(definitions, "other", key="k" * 12)
    assert await definitions.all() == [first]


@pytest.mark.parametrize(
    "key", ["", "short", "x" * 80, "with space in it", "schlüssel-lang", "../" * 5]
)
async def test_a_key_that_no_protocol_carries_is_refused(
    definitions: Definitions, key: str
) -> None:
    with pytest.raises(UsageError, match="10 to 79"):
        await add(definitions, "news", key=key)


async def test_a_freed_slot_is_used_again(definitions: Definitions) -> None:
    for name in ("a", "b", "c"):
        await add(definitions, name)
    await definitions.remove("b")
    assert (await add(definitions, "d")).slot == 2
    assert (await add(definitions, "e")).slot == 4
    assert [d.name for d in await definitions.all()] == ["a", "d", "c", "e"]
    with pytest.raises(NotFoundError):
        await definitions.remove("b")


async def test_a_source_that_cannot_be_settled_leaves_nothing(definitions: Definitions) -> None:
    def refuse(_others: object) -> str:
        raise UsageError("no such source")

    with pytest.raises(UsageError, match="no such source"):
        await definitions.add("news", title=None, once=False, key=None, settle=refuse)
    assert await definitions.all() == []
    assert (await add(definitions, "news")).slot == 1


async def test_settling_sees_the_other_channels(definitions: Definitions) -> None:
    first = await add(definitions, "a")
    seen: list[list[Definition]] = []

    def settle(others: object) -> str:
        seen.append(list(others))  # type: ignore[call-overload]
        return "test"

    await definitions.add("b", title=None, once=False, key=None, settle=settle)
    assert seen == [[first]]


async def test_a_site_that_is_full_says_so(
    definitions: Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CHANNELS", 2)
    for name in ("a", "b"):
        await add(definitions, name)
    with pytest.raises(UsageError, match="at most 2"):
        await add(definitions, "c")


@given(st.text(max_size=130))
def test_a_title_is_printable_and_bounded_or_refused(text: str) -> None:
    try:
        title = check_title(text)
    except UsageError:
        stripped = text.strip()
        assert not stripped or len(stripped) > 120 or not stripped.isprintable()
    else:
        assert title == text.strip()
        assert 1 <= len(title) <= 120
