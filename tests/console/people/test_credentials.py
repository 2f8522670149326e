"""What a request shows: any bytes in its headers give credentials, and none that are not whole."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anabranch.console.people import credentials
from anabranch.console.people.credentials import SESSION, TOKEN, is_cross_site, read, session_of
from anabranch.core.secret_tokens import draw, is_formed

SECRET = "0J6vzWs92rxuL0EDoSB6-UQ4BSwuXI2-KRtar6O90_Y"  # workers must find the same tests
latin = st.text(st.characters(max_codepoint=255), max_size=400)


@given(latin)
@example("anabranch=")
@example('anabranch="' + SECRET + '"')
@example("anabranch=" + SECRET + "; anabranch=x")
@example("=;=;;;anabranch")
@example("a" * 10_000)
def test_any_cookie_header_holds_a_whole_session_or_none(header: str) -> None:
    for secure in (False, True):
        found = session_of(header, secure=secure)
        assert found is None or is_formed(found, SESSION)


@given(latin, latin, latin, latin, st.booleans(), st.sampled_from(["GET", "POST", "DELETE", "x"]))
def test_any_headers_give_credentials(
    bearer: str, cookie: str, origin: str, site: str, secure: bool, method: str
) -> None:
    headers = {"authorization": bearer, "cookie": cookie, "origin": origin, "sec-fetch-site": site}
    shown = read(method, headers, secure=secure)
    assert shown.share is None or is_formed(shown.share, "abs_")
    assert shown.token is None or is_formed(shown.token, TOKEN)


@given(st.text(max_size=60))
def test_only_what_was_drawn_is_formed_as_a_secret(text: str) -> None:
    assert is_formed(draw("abt_"), "abt_")
    if is_formed(f"abt_{text}", "abt_"):
        assert len(text) == 43
        assert text.isascii()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"anabranch={SECRET}", SECRET),
        (f"other=1; anabranch={SECRET}; more=2", SECRET),
        (f"bad[name]=x; anabranch={SECRET}", SECRET),
        (f"__Host-anabranch={SECRET}", None),
        (f"xanabranch={SECRET}", None),
        (f"anabranch={SECRET}x", None),
        (f"ANABRANCH={SECRET}", None),
    ],
)
def test_the_session_is_found_among_other_cookies(header: str, expected: str | None) -> None:
    assert session_of(header, secure=False) == expected


def test_under_tls_only_the_cookie_that_is_tied_to_the_host_counts() -> None:
    assert session_of(f"__Host-anabranch={SECRET}", secure=True) == SECRET
    assert session_of(f"anabranch={SECRET}", secure=True) is None


@pytest.mark.parametrize(
    ("headers", "crosses"),
    [
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-origin", "origin": "https://evil.example"}, False),
        ({"origin": "http://site", "host": "site"}, False),
        ({"origin": "https://SITE:8443", "host": "site:8443"}, False),
        ({"origin": "http://site:81", "host": "site"}, True),
        ({"origin": "http://evil.example", "host": "site"}, True),
        ({"origin": "null", "host": "site"}, True),
        ({"origin": "http://[", "host": "site"}, True),
        ({"host": "site"}, True),
        ({}, True),
    ],
)
def test_what_another_sites_page_may_have_sent(headers: dict[str, str], crosses: bool) -> None:
    assert is_cross_site(headers) is crosses
    shown = read("POST", {**headers, "cookie": f"anabranch={SECRET}"}, secure=False)
    assert (shown.session is None) is crosses
    assert shown.cross_site is crosses
    # What changes nothing may be asked for by following a link.
    assert read("GET", {"cookie": f"anabranch={SECRET}"}, secure=False).session == SECRET
    socket = read("WS", {**headers, "cookie": f"anabranch={SECRET}"}, secure=False, websocket=True)
    assert (socket.session is None) is crosses


def test_a_bearer_is_not_held_back_by_where_it_comes_from() -> None:
    headers = {"authorization": "bearer x", "sec-fetch-site": "cross-site"}
    assert credentials.read("POST", headers, secure=False).bearer == "x"
