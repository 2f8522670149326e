"""The pages for everybody: axe-core finds nothing, keys reach everything, names stay text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.lab.page import BrowserThread
from tests.lab.portal import Browsing, portal
from tests.waiting import wait_until

from anabranch.app.bench.site_process import SiteProcess

pytestmark = pytest.mark.lab
AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
PAGES = {
    "list": ("/", "document.querySelectorAll('#grid > li').length > 3"),
    "watch": ("/watch/test1", "document.querySelectorAll('#channels a').length > 3"),
    "ended": ("/watch/none", "document.getElementById('notice').classList.contains('final')"),
    "login": ("/login", "document.getElementById('go') !== null"),
    "publish": ("/publish", "document.querySelectorAll('#channel option').length > 0"),
    "studio": ("/studio", "document.querySelectorAll('#rows > li').length > 0"),
    "form": ("/studio#new", "document.getElementById('new-dialog').open"),
    "channel": ("/studio/stage", "document.querySelector('#links li') !== null"),
    "account": ("/account", "document.querySelector('#tokens li') !== null"),
    "people": ("/people", "document.querySelector('#tokens li') !== null"),
    "person": ("/people#new", "document.getElementById('person-dialog').open"),
    "services": ("/services", "!document.getElementById('none').hidden"),
}
WHOSE = dict.fromkeys(PAGES, "paula") | {
    **dict.fromkeys(("login", "ended"), ""),
    **dict.fromkeys(("people", "person", "services"), "anna"),
}
"""Who is signed in there; nobody: "". In the order in which they sign in."""
ORDER = ["", "paula", "anna"]


@pytest.fixture(scope="module")
def edge() -> Iterator[SiteProcess]:
    with portal() as site:
        body = {"name": "stage", "source": "whip", "title": "The stage", "owner": "paula"}
        assert site.api("POST", "/api/channels", json=body).status_code == 201
        site.api(
            "PATCH", "/api/channels/stage", json={"now": "Rehearsal", "visibility": "unlisted"}
        )
        site.api("POST", "/api/channels/stage/shares", json={"name": "The press"})
        site.api("POST", "/api/tokens", json={"name": "Recorder", "account": "paula"})
        wait_until(lambda: site.api("GET", "/api/channels/stage").json()["state"] == "slate")
        yield site


def report(found: dict[str, Any]) -> list[str]:
    return [
        f"{each['id']}: {each['help']}: {node['html'][:160]} {node['failureSummary'][:300]}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        ("desktop", "light"),
        ("phone", "dark"),
        pytest.param("desktop", "dark", marks=pytest.mark.proof),
        pytest.param("phone", "light", marks=pytest.mark.proof),
    ],
)
def test_axe_finds_nothing(
    edge: SiteProcess, browser: BrowserThread, scheme: str, size: str
) -> None:
    assert AXE.is_file(), "npm --prefix web ci"
    width, height = SIZES[size]
    browsing = Browsing(
        browser,
        edge.url,
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        reduced_motion="reduce",  # a colour half way through a fade is nobody's
    )
    try:
        found: dict[str, list[str]] = {}
        signed = ""
        for name in sorted(PAGES, key=lambda each: ORDER.index(WHOSE[each])):
            path, ready = PAGES[name]
            if WHOSE[name] != signed:
                signed = WHOSE[name]
                browsing.sign_in(signed)
                browsing.wait("location.pathname === '/studio'")
            browsing.go("/favicon.ico")  # so that a fragment alone is another page, too
            browsing.go(path)
            browsing.wait(ready)
            browsing.evaluate(AXE.read_text())
            options = f"{{runOnly: {TAGS!r}, iframes: false}}"
            found[name] = report(browsing.evaluate(f"axe.run(document, {options})"))
        assert found == {name: [] for name in PAGES}
        assert browsing.errors == []
    finally:
        browsing.close()


FOCUSED = """(() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const shown = [at, at.closest('label'), at.closest('li'), at.parentElement].some((each) => {
    const style = each && getComputedStyle(each);
    return style && style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
  });
  const box = at.getBoundingClientRect();
  return { what: at.id || at.textContent.trim() || at.className, shown, seen: box.width > 0,
           name: at.ariaLabel || at.textContent.trim() || at.labels?.length || at.title };
})()"""


@pytest.mark.parametrize("name", [name for name in PAGES if name != "ended"])
def test_the_tabulator_reaches_what_there_is_and_shows_where_it_is(
    edge: SiteProcess, browser: BrowserThread, name: str
) -> None:
    browsing = Browsing(browser, edge.url, viewport={"width": 1280, "height": 800})
    try:
        path, ready = PAGES[name]
        if WHOSE[name]:
            browsing.sign_in(WHOSE[name])
            browsing.wait("location.pathname === '/studio'")
            browsing.go("/favicon.ico")
        browsing.go(path)
        browsing.wait(ready)
        visited = []
        for _ in range(80):
            browsing.press("Tab")
            found = browsing.evaluate(FOCUSED)
            if found is None or (visited and found["what"] == visited[0]["what"]):
                break
            visited.append(found)
        assert len(visited) >= 3
        framed = [each for each in visited if each["what"] != "seen"]  # a frame has its own focus
        assert [each for each in framed if not each["shown"] or not each["seen"]] == []
        assert [each for each in framed if not each["name"]] == []
    finally:
        browsing.close()
