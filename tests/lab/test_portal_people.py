"""The pages of one's account and of people, in Chromium."""

from collections.abc import Iterator

import httpx
import pytest
from tests.lab.page import BrowserThread
from tests.lab.portal import PASSWORD, Browsing, Open, browsers, portal

from anabranch.app.bench.site_process import SiteProcess
from anabranch.console.people.throttle import BY_ACCOUNT

pytestmark = pytest.mark.lab
MARKUP = "<img src=x onerror=\"document.title='broken'\">"
ANOTHER = "another sentence of some length"
TOKENS = "document.querySelectorAll('#tokens li').length"


@pytest.fixture(scope="module")
def edge() -> Iterator[SiteProcess]:
    with portal() as site:
        yield site


@pytest.fixture
def browse(edge: SiteProcess, browser: BrowserThread) -> Iterator[Open]:
    with browsers(browser, edge.url) as opener:
        yield opener


@pytest.fixture
def pia(edge: SiteProcess) -> Iterator[str]:
    """An account that a test may spoil."""
    body = {"name": "pia", "role": "viewer", "password": PASSWORD}
    assert edge.api("POST", "/api/accounts", json=body).status_code == 201
    yield "pia"
    edge.api("DELETE", "/api/accounts/pia")


def opened(page: Browsing, name: str, path: str, password: str = PASSWORD) -> Browsing:
    """Sign in and open one of the two pages."""
    page.sign_in(name, password, then=path)
    page.wait(f"location.pathname === '{path}'")
    page.wait("!document.getElementById('page').hidden")
    return page


def role_of(edge: SiteProcess, token: str) -> str | None:
    """Return what a program that shows a token may do."""
    answer = httpx.get(f"{edge.url}/api/me", headers={"Authorization": f"Bearer {token}"})
    role: str | None = answer.json().get("role") if answer.status_code == 200 else None
    return role


def test_a_new_password_counts_and_ends_other_sessions(browse: Open, pia: str) -> None:
    elsewhere = opened(browse(), pia, "/account")
    page = opened(browse(), pia, "/account")

    def change(old: str, new: str) -> None:
        page.fill("#old", old)
        page.fill("#new", new)
        page.press("Enter")

    change("not the old one", ANOTHER)
    page.wait("!document.getElementById('old-refusal').hidden")
    assert page.text("#old-refusal") == "The old password is wrong."
    assert page.evaluate("document.activeElement.id") == "old"
    assert page.evaluate("document.activeElement.ariaInvalid") == "true"
    change(PASSWORD, "short")
    page.wait("!document.getElementById('new-refusal').hidden")
    assert "10 to 200 characters" in page.text("#new-refusal")
    assert page.evaluate("document.getElementById('old-refusal').hidden")
    page.click("[aria-label='Show new password']")
    assert page.evaluate("document.getElementById('new').type") == "text"
    page.fill("#new", ANOTHER)
    assert page.evaluate("document.getElementById('new-refusal').hidden")
    page.press("Enter")
    page.wait("document.getElementById('password-done').textContent !== ''")
    assert page.evaluate("document.getElementById('new').value") == ""
    assert page.evaluate("document.getElementById('new').type") == "password"

    elsewhere.go("/account")
    elsewhere.wait("location.pathname === '/login'")
    page.go("/account")  # still signed in
    page.wait("!document.getElementById('page').hidden")
    elsewhere.sign_in(pia, ANOTHER, then="/account")
    elsewhere.wait("location.pathname === '/account'")


def test_who_signs_out_everywhere_is_signed_out_everywhere(browse: Open, pia: str) -> None:
    page, elsewhere = browse(), browse()
    for each in (page, elsewhere):
        opened(each, pia, "/account")
    page.click("#sign-out-all")
    page.click("#confirm-yes")
    page.wait("location.pathname === '/login'")
    # What is tried there sends to the login, and says nothing of a wrong password.
    elsewhere.fill("#old", PASSWORD)
    elsewhere.fill("#new", ANOTHER)
    elsewhere.press("Enter")
    elsewhere.wait("location.pathname === '/login'")


def test_a_token_is_shown_once_and_is_good_until_it_is_revoked(
    browse: Open, edge: SiteProcess
) -> None:
    page = browse(permissions=["clipboard-read", "clipboard-write"])
    opened(page, "paula", "/account")
    page.wait("!document.getElementById('no-tokens').hidden")
    offered = "[...document.getElementById('token-role').options].map((each) => each.value)"
    assert page.evaluate(offered) == ["viewer", "producer"]
    page.fill("#token-name", MARKUP)
    page.do(lambda it: it.select_option("#token-role", "viewer"))
    page.do(lambda it: it.select_option("#token-time", "86400"))
    page.click("#token-form [type=submit]")
    page.wait("document.querySelector('#token-new code') !== null")
    secret = page.text("#token-new code")
    page.press("Enter")  # what copies it has the focus
    page.wait("document.getElementById('toast').textContent === 'Token copied'")
    assert page.evaluate("navigator.clipboard.readText()") == secret
    assert role_of(edge, secret) == "viewer"
    page.go("/account")
    page.wait(f"{TOKENS} === 1")
    assert MARKUP in page.text("#tokens")
    assert "24 h left · used just now" in page.text("#tokens")
    assert secret not in page.evaluate("document.documentElement.outerHTML")

    page.click("#tokens button")
    page.press("Escape")
    assert role_of(edge, secret) == "viewer"
    page.click("#tokens button")
    page.click("#confirm-yes")
    page.wait(f"{TOKENS} === 0")
    assert role_of(edge, secret) is None
    page.wait("document.activeElement.id === 'tokens-title'")


def test_an_admin_adds_changes_and_removes_somebody(browse: Open, edge: SiteProcess) -> None:
    page = opened(browse(), "anna", "/people")

    def row(name: str) -> str:
        return f"document.querySelector('[data-edits={name}]')"

    page.click("#new")
    page.fill("#name", "paula")
    page.click("#draw-password")
    password = page.evaluate("document.getElementById('password').value")
    page.click("#person-submit")
    page.wait("!document.getElementById('name-refusal').hidden")
    assert "already" in page.text("#name-refusal")
    page.fill("#name", "nina")
    page.fill("#password", "nina and her cats")
    page.click("#person-submit")
    page.wait("!document.getElementById('password-refusal').hidden")
    assert "name" in page.text("#password-refusal")
    page.fill("#password", password)
    page.click("#person-submit")
    page.wait(f"{row('nina')} !== null && document.activeElement === {row('nina')}")
    try:
        nina = opened(browse(), "nina", "/account", password)
        assert nina.text("#summary") == "nina · Viewer"
        assert nina.evaluate("document.querySelector('#account a[href=\"/people\"]')") is None

        page.click("[data-edits=nina]")
        page.do(lambda it: it.select_option("#role", "producer"))
        page.fill("#password", ANOTHER)
        page.click("#person-submit")
        page.wait(f"{row('nina')}?.closest('li').textContent.includes('Producer')")
        nina.go("/account")
        nina.wait("location.pathname === '/login'")
        nina.sign_in("nina", ANOTHER)
        nina.wait("location.pathname === '/studio'")
        nina.wait("!document.getElementById('new').hidden")

        page.click("[aria-label='Remove nina']")
        page.click("#confirm-yes")
        page.wait(f"{row('nina')} === null")
        nina.go("/account")
        nina.wait("location.pathname === '/login'")
    finally:
        edge.api("DELETE", "/api/accounts/nina")


def test_the_last_admin_cannot_be_lost(browse: Open, edge: SiteProcess) -> None:
    page = opened(browse(), "anna", "/people")
    page.wait("document.querySelector('[data-edits=anna]') !== null")
    page.click("[data-edits=anna]")
    assert page.evaluate("document.getElementById('password-field').hidden")
    page.do(lambda it: it.select_option("#role", "viewer"))
    page.click("#person-submit")
    page.wait("!document.getElementById('role-refusal').hidden")
    assert "last admin" in page.text("#role-refusal")
    page.press("Escape")
    page.click("[aria-label='Remove anna']")
    assert "This is you" in page.text("#confirm-text")
    page.click("#confirm-yes")
    page.wait("!document.getElementById('trouble').hidden")
    assert "last admin" in page.text("#trouble")
    assert edge.api("GET", "/api/accounts/anna").json()["role"] == "admin"

    # With a second one it goes, and with the role goes the page.
    edge.api("PATCH", "/api/accounts/vic", json={"role": "admin"})
    try:
        page.click("[data-edits=anna]")
        page.do(lambda it: it.select_option("#role", "viewer"))
        page.click("#person-submit")
        page.wait("location.pathname === '/account'")
    finally:
        edge.api("PATCH", "/api/accounts/anna", json={"role": "admin"})
        edge.api("PATCH", "/api/accounts/vic", json={"role": "viewer"})


def test_people_are_shown_to_admins_alone(browse: Open) -> None:
    page = browse()
    page.go("/people")
    page.wait("location.pathname === '/login'")
    page.sign_in("paula", then="/people")
    page.wait("location.pathname === '/people'")
    page.wait("!document.getElementById('trouble').hidden")
    assert "admins" in page.text("#trouble")
    assert page.evaluate("document.getElementById('page').hidden")


def test_the_sites_token_has_no_account_and_manages_them(browse: Open, edge: SiteProcess) -> None:
    page = browse()
    page.go("/login?next=/account")
    page.click("#other summary")
    page.fill("#token", (edge.directory / "state" / "token").read_text().strip())
    page.click("#token-form button")
    page.wait("location.pathname === '/account'")
    page.wait("!document.getElementById('trouble').hidden")
    assert page.evaluate("document.getElementById('page').hidden")
    page.click("#to-people")
    page.wait("document.querySelectorAll('#token-owner option').length >= 3")
    page.fill("#token-name", "recorder")
    page.do(lambda it: it.select_option("#token-owner", "vic"))
    page.click("#token-form [type=submit]")
    page.wait("document.querySelector('#token-new code') !== null")
    assert role_of(edge, page.text("#token-new code")) == "viewer"
    assert "vic" in page.text("#tokens")
    page.click("[aria-label='Revoke the token “recorder” of vic']")
    page.click("#confirm-yes")
    page.wait(f"{TOKENS} === 0")


def test_guessing_the_old_password_ends_soon(browse: Open, pia: str) -> None:
    page = opened(browse(), pia, "/account")
    page.fill("#new", ANOTHER)
    for _ in range(BY_ACCOUNT.burst + 1):
        page.fill("#old", "not the old one")
        assert page.evaluate("document.getElementById('old-refusal').hidden")
        page.press("Enter")
        page.wait("!document.getElementById('old-refusal').hidden")
    assert "Try again in" in page.text("#old-refusal")
