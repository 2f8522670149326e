"""Keys of service nodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.console.people.node_keys import PREFIX, is_key, key_of
from anabranch.core.secret_tokens import is_formed

texts = st.text(max_size=50)


@given(texts.filter(bool), texts, texts)
def test_a_key_is_for_one_name_and_one_token(token: str, node: str, sent: str) -> None:
    key = key_of(token, node)
    assert is_formed(key, PREFIX)
    assert is_key(key, token, node)
    assert not is_key(sent, token, node)
    assert not is_key(key, token + "x", node)
    assert not is_key(key, token, node + "x")
    assert not is_key(key, "", node)


def test_it_stays_the_same() -> None:
    """Nodes keep theirs over every change of the code."""
    assert key_of("secret", "s1-a") == "abn_8XaSmaJr1XkZYyt81WNIigmWA0C9z3J3bLwJs5NpVMQ"


def test_nobody_has_a_key_without_a_token() -> None:
    with pytest.raises(ValueError, match="empty"):
        key_of("", "s1-a")
