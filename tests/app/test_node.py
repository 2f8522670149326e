"""``anabranch node``: what its arguments mean."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from anabranch.app.cli import app
from anabranch.app.node import Place, name_of, read_token, root_endpoint, root_place
from anabranch.core.errors import UsageError
from anabranch.tree.soleil.messages import Endpoint
from anabranch.tree.tokens import new_token

TOKEN = new_token("far", "a" * 64)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("root.example", Endpoint("root.example", 7443)),
        ("203.0.113.1:443", Endpoint("203.0.113.1", 443)),
        ("[2001:db8::1]:443", Endpoint("2001:db8::1", 443)),
        ("[2001:db8::1]", Endpoint("2001:db8::1", 7443)),
    ],
)
def test_where_the_root_is(text: str, endpoint: Endpoint) -> None:
    assert root_endpoint(text) == endpoint


@pytest.mark.parametrize("text", ["", ":443", "root:", "root:0", "root:65536", "root:x", "[]:1"])
def test_what_is_no_place_of_a_root(text: str) -> None:
    with pytest.raises(UsageError, match="no place of a root"):
        root_endpoint(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("root.example", Place("root.example", (Endpoint("root.example", 7443),))),
        ("https://root.example", Place("root.example", (), "https://root.example/soleil")),
        ("http://[2001:db8::1]:80/", Place("2001:db8::1", (), "http://[2001:db8::1]:80/soleil")),
        ("https://a.example/tv/", Place("a.example", (), "https://a.example/tv/soleil")),
    ],
)
def test_the_root_may_be_reached_by_http_alone(text: str, place: Place) -> None:
    assert root_place(text) == place


@pytest.mark.parametrize(
    "text",
    [
        *("http://", "ftp://root", "://root", "https://[x", "https://a:b@root"),
        *("https://root:x", "https://root:0", "https://root?a", "https://root#a"),
    ],
)
def test_what_is_no_url_of_a_root(text: str) -> None:
    with pytest.raises(UsageError, match="the URL of a root"):
        root_place(text)


@given(st.text(max_size=40) | st.text(max_size=40).map("https://".__add__))
def test_anything_is_a_place_or_refused(text: str) -> None:
    with suppress(UsageError):
        assert root_place(text).host


def test_a_token_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN.reveal() + "\n")
    assert read_token(f"@{file}") == read_token(TOKEN.reveal()) == TOKEN
    assert read_token(None) is None
    with pytest.raises(UsageError, match="cannot be read"):
        read_token(f"@{tmp_path / 'nothing'}")


def test_the_token_names_the_node() -> None:
    assert name_of(None, TOKEN) == name_of("far", TOKEN) == "far"
    assert name_of("far", None) == "far"
    with pytest.raises(UsageError, match="for far"):
        name_of("near", TOKEN)
    with pytest.raises(UsageError, match="not allowed"):
        name_of("../far", None)


def test_a_token_that_is_none_is_refused_without_being_repeated() -> None:
    done = CliRunner().invoke(app, ["node", "join", "root.example", "--token", "secret-nonsense"])
    assert done.exit_code == 1
    assert "not a join token" in done.output
    assert "secret-nonsense" not in done.output


@pytest.mark.parametrize("wrong", [["--media", "1"], ["--access", "10.0.0.0/8"]])
def test_ranges_that_cannot_be_are_refused(wrong: list[str]) -> None:
    token = TOKEN.reveal()
    done = CliRunner().invoke(app, ["node", "join", "root.example", "--token", token, *wrong])
    assert done.exit_code == 1
    assert TOKEN.secret not in done.output
