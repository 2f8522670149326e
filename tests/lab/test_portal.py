"""The portal in Chromium, as its people use it: watching, zapping, producing, sharing."""

from collections.abc import Iterator

import pytest
from tests.lab.page import BrowserThread, go
from tests.lab.portal import CHANNELS, PASSWORD, Browsing, Open, browsers, portal
from tests.waiting import wait_until

from anabranch.app.bench.site_process import SiteProcess

pytestmark = pytest.mark.lab
MARKUP = "<img src=x onerror=\"document.title='broken'\"> & <b>bold</b>"


@pytest.fixture(scope="module")
def edge() -> Iterator[SiteProcess]:
    with portal() as site:
        yield site


@pytest.fixture
def browse(edge: SiteProcess, browser: BrowserThread) -> Iterator[Open]:
    with browsers(browser, edge.url) as opener:
        yield opener


@pytest.fixture
def paula(browse: Open) -> Browsing:
    """A producer, in the studio."""
    made = browse(permissions=["camera", "microphone", "clipboard-read", "clipboard-write"])
    made.sign_in("paula")
    made.wait("location.pathname === '/studio'")
    made.wait("!document.getElementById('new').hidden")
    return made


@pytest.fixture
def channel(edge: SiteProcess) -> Iterator[str]:
    """A channel of paula's."""
    body = {"name": "stage", "source": "test", "title": MARKUP, "owner": "paula"}
    assert edge.api("POST", "/api/channels", json=body).status_code == 201
    wait_until(lambda: edge.api("GET", "/api/channels/stage").json()["state"] == "live")
    yield "stage"
    edge.api("DELETE", "/api/channels/stage")


def make_channel(browsing: Browsing, title: str, way: str) -> str:
    """Fill in the form; return the name that the page made."""
    browsing.click("#new")
    browsing.do(lambda page: page.locator("#title").press_sequentially(title))
    name = str(browsing.do(lambda page: page.input_value("#name")))
    browsing.click(f"#ways label:has(input[value={way}])")
    browsing.click("#new-form [type=submit]")
    browsing.wait(f"location.pathname === '/studio/{name}'")
    browsing.wait("!document.getElementById('page').hidden")
    return name


def test_signing_in_and_out(browse: Open) -> None:
    page = browse()
    page.go("/studio")  # not for everybody: to the login, and back
    page.wait("location.pathname === '/login'")
    page.fill("#name", "paula")
    page.fill("#password", "wrong " + PASSWORD)
    page.press("Enter")
    page.wait("!document.getElementById('trouble').hidden")
    assert "wrong" in page.text("#trouble")
    assert PASSWORD not in page.evaluate("location.href")
    page.fill("#password", PASSWORD)
    page.press("Enter")
    page.wait("location.pathname === '/studio'")
    page.wait("document.querySelector('.who') !== null")
    page.click(".who")
    assert "paula" in page.text("#account-panel")
    page.press("Escape")
    assert page.evaluate("document.activeElement.className") == "who"
    page.click(".who")
    page.click("#account-panel button")
    page.wait("location.pathname === '/login'")
    page.go("/")
    page.wait("document.querySelector('#account a') !== null")
    assert page.text("#account a") == "Sign in"


def test_an_operator_needs_nothing_but_the_token(browse: Open, edge: SiteProcess) -> None:
    page = browse()
    page.go("/login")
    page.click("#other summary")
    page.fill("#token", "wrong")
    page.click("#token-form button")
    page.wait("!document.getElementById('trouble').hidden")
    token = (edge.directory / "state" / "token").read_text().strip()
    page.fill("#token", token)
    page.click("#token-form button")
    page.wait("location.pathname === '/studio'")
    page.wait(f"document.querySelectorAll('#rows > li').length >= {CHANNELS}")
    page.go("/studio/test1")
    page.wait("!document.getElementById('page').hidden")
    assert token in page.evaluate("JSON.stringify(sessionStorage)")
    assert token not in page.evaluate("JSON.stringify(localStorage) + document.cookie")
    page.click(".who")
    page.click("#account-panel button")
    page.wait("location.pathname === '/login'")


def test_a_camera_is_on_the_air_within_one_form(
    paula: Browsing, browse: Open, edge: SiteProcess
) -> None:
    name = make_channel(paula, MARKUP, "camera")
    try:
        assert name == "img-src-x-onerror-document-title-broken"[:40].rstrip("-")
        assert paula.text("#title") == MARKUP
        assert paula.evaluate("document.title").startswith(MARKUP)
        paula.click("#go")
        paula.wait("document.getElementById('lamp').textContent === 'On air'")
        paula.wait("document.getElementById('health').dataset.level !== 'none'")
        wait_until(lambda: edge.api("GET", f"/api/channels/{name}").json()["state"] == "live")
        # What viewers see is seen here, too.
        frame = paula.do(lambda page: page.frame(url="**/watch/**"))
        paula.wait("document.getElementById('seen').contentWindow.anabranch?.firstFrameAt != null")
        assert frame is not None
        key = edge.api("GET", f"/api/channels/{name}/detail").json()["key"]
        assert key not in paula.text("#fields")
        paula.click("[aria-label='Show OBS bearer token']")
        assert key in paula.text("#fields")
        paula.click("[aria-label='Copy OBS bearer token']")
        assert paula.evaluate("navigator.clipboard.readText()") == key

        watching = browse()
        watching.go("/")
        watching.wait(f"document.querySelector('a[href=\"/watch/{name}\"]') !== null")
        assert MARKUP in watching.text("#grid")
        assert watching.evaluate("document.querySelectorAll('#grid img, #grid b').length") == 0

        paula.click("#renew")
        paula.click("#confirm-yes")
        paula.wait("document.getElementById('lamp').textContent !== 'On air'")
        new = edge.api("GET", f"/api/channels/{name}/detail").json()["key"]
        assert new != key
        paula.wait("document.getElementById('lamp').textContent === 'Off air'")
        paula.click("#remove")
        paula.press("Escape")
        assert edge.api("GET", f"/api/channels/{name}").status_code == 200
        paula.click("#remove")
        paula.click("#confirm-yes")
        paula.wait("location.pathname === '/studio'")
        assert edge.api("GET", f"/api/channels/{name}").status_code == 404
    finally:
        edge.api("DELETE", f"/api/channels/{name}")


def test_a_producer_manages_its_own_channels_alone(paula: Browsing, channel: str) -> None:
    paula.wait("document.querySelectorAll('#rows > li').length === 1")
    assert MARKUP in paula.text("#rows")
    paula.click("#new")
    assert paula.evaluate("document.querySelector('#ways input[value=pull]')") is None
    paula.go("/studio/test1")
    paula.wait("!document.getElementById('gone').hidden")


def test_what_is_refused_is_said_where_it_was_asked(paula: Browsing, channel: str) -> None:
    paula.click("#new")
    paula.fill("#title", "Another")
    paula.fill("#name", channel)
    paula.click("#new-form [type=submit]")
    paula.wait("!document.getElementById('new-trouble').hidden")
    assert "already" in paula.text("#new-trouble")


def test_a_private_channel_opens_by_its_link_until_it_is_taken_back(
    paula: Browsing, browse: Open, channel: str
) -> None:
    paula.go(f"/studio/{channel}")
    paula.wait("!document.getElementById('page').hidden")
    paula.click("#visibility label:has(input[value=private])")
    paula.wait("!document.getElementById('sharing').hidden")
    paula.fill("#link-name", MARKUP)
    paula.click("#link-form button")
    paula.wait("document.querySelector('#link-new code') !== null")
    link = paula.text("#link-new code")
    assert "#share=abs_" in link
    assert MARKUP in paula.text("#links")

    paula.fill("#guest", "vic")
    paula.click("#guest-form button")
    paula.wait("document.querySelector('#guests li') !== null")
    invited = browse()
    invited.sign_in("vic", then=f"/watch/{channel}")
    invited.wait_for_picture()
    assert invited.text("#title") == MARKUP

    stranger = browse()
    stranger.go(f"/watch/{channel}")
    stranger.wait("document.getElementById('notice').classList.contains('final')")
    assert "no channel" in stranger.text("#notice")

    guest = browse()
    guest.do(lambda page: go(page, link))
    guest.wait_for_picture()
    assert guest.text("#title") == MARKUP
    guest.wait("document.querySelectorAll('#channels a').length > 1")
    guest.press("ArrowUp")
    guest.wait("location.pathname.startsWith('/watch/test')")
    assert guest.evaluate("location.hash") == ""
    guest.do(lambda page: page.go_back())
    guest.wait(f"location.href === {link!r}")
    guest.wait(f"window.anabranch.stats().channel === '{channel}'")

    paula.click("#links button")
    paula.click("#confirm-yes")
    guest.wait("document.getElementById('notice').classList.contains('final')")
    assert "link" in guest.text("#notice-text")


def test_the_dial_shows_where_one_is(browse: Open) -> None:
    page = browse()
    page.go("/watch/test1")
    page.wait_for_picture()
    page.wait(f"document.querySelectorAll('#channels a').length === {CHANNELS}")
    page.press("ArrowUp")
    page.wait("!document.getElementById('strip').hidden")
    tiles = "[...document.querySelectorAll('#strip a')].map((a) => a.dataset.name)"
    assert page.evaluate(tiles) == [f"test{n}" for n in (CHANNELS, 1, 2, 3, 4)]
    assert page.evaluate("document.querySelector('#strip .chosen').dataset.name") == "test2"
    assert page.text("#tuned-number") == "2"
    page.wait("document.getElementById('announce').textContent.startsWith('Channel 2, ')")
    page.wait("document.querySelectorAll('#strip canvas.shown').length > 0")
    page.wait("document.getElementById('strip').hidden")  # it goes by itself

    page.press("1")
    page.wait("document.getElementById('tuned-number').textContent === '1–'")
    page.press("1")
    page.wait("location.pathname === '/watch/test11'")
    assert page.text("#tuned-number") == "11"


def test_a_finger_sweeps_to_the_next_channel(browse: Open) -> None:
    phone = browse(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    phone.go("/watch/test1")
    phone.wait_for_picture()
    phone.wait("document.querySelectorAll('#channels a').length > 1")
    sweep = """(from) => {
      const video = document.querySelector('video.front');
      const at = (kind, x) => video.dispatchEvent(new PointerEvent(kind, { bubbles: true,
        pointerType: 'touch', isPrimary: true, pointerId: 7, clientX: x, clientY: 100 }));
      at('pointerdown', from); at('pointermove', 200); at('pointerup', 400 - from);
    }"""
    phone.do(lambda page: page.evaluate(sweep, 300))
    phone.wait("location.pathname === '/watch/test2'")
    phone.do(lambda page: page.evaluate(sweep, 100))
    phone.wait("location.pathname === '/watch/test1'")


def test_captions_and_what_is_on_are_read_by_whoever_wants_them(
    edge: SiteProcess, paula: Browsing, browse: Open, channel: str
) -> None:
    page = browse()
    page.go(f"/watch/{channel}")
    page.wait_for_picture()
    assert page.evaluate("document.getElementById('subtitles').hidden")
    paula.go(f"/studio/{channel}")
    paula.wait("!document.getElementById('page').hidden")
    paula.fill("#now", MARKUP)
    paula.click("#now-form button")
    paula.fill("#caption", "First words")
    paula.click("#caption-form button")
    page.wait("!document.getElementById('subtitles').hidden")
    assert page.text("#on-now") == MARKUP
    page.press("i")
    assert page.text("#now") == MARKUP

    def caption(text: str) -> None:
        sent = edge.api(
            "POST", f"/api/channels/{channel}/captions", json={"text": text, "duration_s": 10}
        )
        assert sent.status_code == 200

    page.press("c")
    caption(MARKUP)
    page.wait("document.getElementById('captions').textContent !== ''")
    assert page.text("#captions") == MARKUP
    assert page.evaluate("document.querySelector('#captions *')") is None
    assert page.evaluate("document.getElementById('captions').ariaLive") == "polite"
    page.press("c")  # off
    page.wait("document.getElementById('captions').textContent === ''")
    caption("Nobody reads this")
    page.press("c")
    page.wait("document.getElementById('captions').textContent === 'Nobody reads this'")
    page.press("2")  # another channel: its words, not these
    page.wait("document.getElementById('captions').textContent === ''")
