"""The operator's token."""

from pathlib import Path

import pytest

from anabranch.app.director import Steps
from anabranch.app.serving import operator_token
from anabranch.core.errors import UsageError


def test_a_token_is_drawn_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "token"
    token = operator_token(path)
    assert len(token) >= 40
    assert operator_token(path) == token
    assert path.stat().st_mode & 0o777 == 0o600
    assert operator_token(tmp_path / "other") != token


@pytest.mark.parametrize("content", ["", "\n", "  \n"])
def test_an_empty_token_is_nobodys(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(0o644)
    token = operator_token(path)
    assert len(token) >= 40
    assert path.read_text() == token + "\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_operators_own_token_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("my-own\n")
    assert operator_token(path) == "my-own"


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_token_that_cannot_be_had_is_said(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UsageError, match="token cannot be kept in"):
        operator_token(path)


def test_each_step_is_shown_when_it_begins_and_when_it_is_done() -> None:
    shown: list[tuple[str, bool]] = []
    steps = Steps(lambda text, took: shown.append((text, took is not None)))
    steps("one")
    steps("two")
    steps.finish()
    steps.finish()
    assert shown == [("one", False), ("one", True), ("two", False), ("two", True)]
