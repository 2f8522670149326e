"""Names: exactly what may stand in a URL, a file name and a namespace."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.core.errors import UsageError
from anabranch.core.names import check_name, new_id, new_key

ALLOWED = set(string.ascii_lowercase + string.digits)


def is_name(text: str) -> bool:
    """The rule in other words than the code's."""
    return 1 <= len(text) <= 40 and set(text) <= ALLOWED | {"-"} and {text[0], text[-1]} <= ALLOWED


@given(
    st.one_of(st.text(max_size=45), st.text("ab0-", max_size=45), st.text("aZ-_. \n", max_size=3))
)
def test_a_name_is_taken_exactly_by_the_rule(text: str) -> None:
    if is_name(text):
        assert check_name(text) == text
    else:
        with pytest.raises(UsageError, match="not allowed") as raised:
            check_name(text)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["a\n", "é", "٣", "a" * 41, "-a", "a-", "..", ""])
def test_near_misses_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        check_name(text)


def test_drawn_identifiers_are_fresh_and_safe_in_urls_and_passphrases() -> None:
    ids, keys = {new_id() for _ in range(200)}, {new_key() for _ in range(200)}
    assert len(ids) == len(keys) == 200
    assert all(set(i) <= set(string.ascii_letters + string.digits + "-_") for i in ids)
    assert all(10 <= len(key) <= 79 and key.isalnum() for key in keys)
