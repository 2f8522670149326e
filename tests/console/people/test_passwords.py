"""Passwords: which are good enough, how they are kept, and that nobody's takes as long."""

from typing import Literal

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st
from tests.console.people.conftest import quick_hasher

from anabranch.console.people.passwords import LEAST, MOST, Hasher, check_password, normal
from anabranch.core.errors import UsageError


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery",
        "all lower case",
        "žluťoučký kůň",
        "x1" * 3 + "abcd efg",
        "漢字漢語日本語文章長文",
        "abcdefghi!" * 20,
        " spaces at both ends ",
    ],
)
def test_long_ones_of_any_kind_are_good(password: str) -> None:
    assert check_password(password, "maria") == normal(password)


@pytest.mark.parametrize(
    "password",
    [
        "",
        "short one",
        "x" * 201,
        "abcdefghi!" * 21,
        "aaaaaaaaaaaaaa",
        "abababababab",
        "1234567890",
        "0987654321",
        "abcdefghijkl",
        "qwertyuiop",
        "Password123",
        "P-a-s-s-w-o-r-d-1-2-3",
        "password12345678",
        "Welcome2026!!",
        "maria is my name",
        "MARIA-and-more",
        "\uff4d\uff41\uff52\uff49\uff41 in full width",
    ],
)
def test_those_that_are_tried_first_are_not(password: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_password(password, "maria")
    assert password not in str(refused.value) or not password


@given(st.text(max_size=250), st.from_regex(r"[a-z][a-z0-9]{2,10}", fullmatch=True))
def test_any_text_is_good_or_refused(password: str, name: str) -> None:
    try:
        kept = check_password(password, name)
    except UsageError:
        return
    assert LEAST <= len(kept) <= MOST
    assert name not in kept.casefold()


async def test_a_kept_password_fits_itself_however_it_is_composed() -> None:
    hasher = quick_hasher()
    kept = await hasher.hash("ka\u0301va s ml\u00e9kem")
    assert kept.startswith("$argon2id$")
    assert await hasher.verify(kept, "k\u00e1va s mle\u0301kem")
    for other in ("", "kava s mlekem", "k\u00e1va s ml\u00e9kem ", "\ud800"):
        assert not await hasher.verify(kept, other)
    assert not await hasher.verify("no hash", "k\u00e1va s ml\u00e9kem")


async def test_nobodys_password_is_verified_all_the_same() -> None:
    calls = []

    class Counting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
            calls.append(hash)
            return super().verify(hash, password)

    hasher = Hasher(Counting(time_cost=1, memory_cost=8, parallelism=1))
    kept = await hasher.hash("some long password")
    assert not await hasher.verify(kept, "another")
    assert not await hasher.verify(None, "another")
    assert len(calls) == 2
    parameters = [str(each).split("$")[1:4] for each in calls]
    assert parameters[0] == parameters[1]  # the same work


async def test_a_hash_of_other_parameters_is_outdated() -> None:
    assert Hasher().is_outdated(await quick_hasher().hash("some long password"))
