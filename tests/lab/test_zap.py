"""Changing the channel: in a real browser with real keys, and by a foreign viewer."""

import json
import time
from typing import Any

import httpx
import pytest
from tests.console.test_whep_change import links
from tests.lab.page import Page, Watching
from tests.lab.viewer import viewer
from tests.waiting import wait_until

from anabranch.app.bench.pictures import PROBE, frames_of, judge, know
from anabranch.app.bench.site_process import SiteProcess
from anabranch.console.whep import CHANGE
from anabranch.console.whep_events import RELATION

pytestmark = pytest.mark.lab

CHANNELS = 2


def press(page: Page, key: str) -> None:
    page.with_page(lambda each: each.keyboard.press(key))


def watched(site: SiteProcess) -> list[str]:
    return [seat["channel"] for seat in site.api("GET", "/api/seats").json()]


@pytest.fixture
def page(site: SiteProcess, watch: Watching) -> Page:
    """A page that plays the first channel and knows that there are others."""
    wait_until(lambda: watched(site) == [], limit_s=20.0)
    opened = watch(site.url, "test1")
    opened.wait_for_picture()
    opened.with_page(lambda each: each.wait_for_selector("#channels a"))
    return opened


def test_a_key_brings_another_picture_over_the_same_connection(
    site: SiteProcess, page: Page
) -> None:
    def choose(number: int) -> None:
        page._page.keyboard.press(str(number + 1))

    page.evaluate(PROBE)
    page.with_page(lambda each: know(each, CHANNELS, choose))
    time.sleep(1)
    press(page, "1")
    time.sleep(3)
    frames = page.with_page(frames_of)
    key_at = page.evaluate("window.probe.keys.at(-1)[0]")
    zap = judge(frames, key_at, 0, steady_ms=300)
    assert zap.clean_ms is not None
    assert zap.clean_ms < 2000
    assert page.evaluate("[window.anabranch.changes, window.anabranch.reconnects]") == [2, 0]
    assert watched(site) == ["test1"]
    assert [c["viewers"] for c in httpx.get(f"{site.url}/api/channels").json()["channels"]] == [
        1,
        0,
    ]


def test_address_title_and_history_follow(site: SiteProcess, page: Page) -> None:
    press(page, "ArrowUp")
    wait_until(lambda: page.evaluate("location.pathname") == "/watch/test2")
    assert page.evaluate("document.title") == "Test channel 2 · Anabranch"
    current = "document.querySelector('#channels [aria-current]').dataset.name"
    assert page.evaluate(current) == "test2"
    assert watched(site) == ["test2"]
    page.with_page(lambda each: each.go_back())
    wait_until(lambda: watched(site) == ["test1"])
    assert page.evaluate(current) == "test1"
    page.with_page(lambda each: each.click("#channels a[data-name=test2]"))
    wait_until(lambda: watched(site) == ["test2"])
    assert page.evaluate("window.anabranch.reconnects") == 0


def test_nothing_competes_with_the_request_for_the_channel(page: Page) -> None:
    """The pictures of other channels are asked for later, the server makes them with effort."""
    press(page, "2")
    requests = """performance.getEntriesByType('resource')
        .map(({ name, startTime }) => [name.split('/').at(-1), startTime])
        .filter(([name]) => name === 'change' || name === 'thumbnail.jpg')"""
    wait_until(lambda: len(page.evaluate(requests)) == 1 + CHANNELS)
    times = sorted((at, name) for name, at in page.evaluate(requests))
    assert [name for _, name in times] == ["change", *["thumbnail.jpg"] * CHANNELS]
    assert times[1][0] - times[0][0] > 300


def test_many_keys_in_a_hurry_end_where_the_last_one_led(site: SiteProcess, page: Page) -> None:
    for key in "2121212121212121212122":
        press(page, key)
    wait_until(lambda: watched(site) == ["test2"])
    time.sleep(1)
    assert page.stats()["channel"] == "test2"
    assert page.stats()["phase"] == "playing"
    assert watched(site) == ["test2"]


@pytest.mark.parametrize("answer", ["none", "refusal", "failure"])
def test_a_page_that_cannot_change_connects_anew(
    site: SiteProcess, watch: Watching, answer: str
) -> None:
    wait_until(lambda: watched(site) == [], limit_s=20.0)
    page = watch(site.url, "test1")
    page.wait_for_picture()

    def meddle(route: Any) -> None:
        if answer == "refusal":
            route.fulfill(status=503, body="{}")
        else:
            route.abort()

    page.with_page(lambda each: each.wait_for_selector("#channels a"))
    if answer == "none":  # a server that does not know the extension
        page.with_page(lambda each: each.route("**/whep/*", _without_links))
        page.with_page(lambda each: each.reload())
        page.wait_for_picture()
        page.with_page(lambda each: each.wait_for_selector("#channels a"))
    else:
        page.with_page(lambda each: each.route("**/change", meddle))
    press(page, "2")
    wait_until(lambda: page.evaluate("window.anabranch.reconnects") == 1)
    assert page.evaluate("window.anabranch.changes") == 0
    assert page.stats()["channel"] == "test2"
    wait_until(lambda: watched(site) == ["test2"])
    wait_until(lambda: page.evaluate("location.pathname") == "/watch/test2")


def _without_links(route: Any) -> None:
    answer = route.fetch()
    route.fulfill(response=answer, headers={k: v for k, v in answer.headers.items() if k != "link"})


def test_a_channel_that_has_gone_leaves_the_present_one(site: SiteProcess, page: Page) -> None:
    made = site.api("POST", "/api/channels", json={"name": "brief", "source": "test"})
    assert made.status_code == 201
    page.with_page(lambda each: each.reload())
    page.wait_for_picture()
    page.with_page(lambda each: each.wait_for_selector("#channels a[data-name=brief]"))
    assert site.api("DELETE", "/api/channels/brief").status_code == 204
    press(page, "3")
    wait_until(lambda: page.stats()["channel"] == "test1")
    time.sleep(1)
    assert page.evaluate("location.pathname") == "/watch/test1"
    assert watched(site) == ["test1"]
    assert page.stats()["phase"] == "playing"


async def test_a_foreign_viewer_changes_and_hears_of_it(site: SiteProcess) -> None:
    async with viewer() as one, httpx.AsyncClient(base_url=site.url) as client:
        headers: httpx.Headers

        async def ask(offer: str) -> str:
            nonlocal headers
            kind = {"Content-Type": "application/sdp"}
            answer = await client.post("/whep/test1", content=offer, headers=kind)
            headers = answer.headers
            return answer.text

        await one.watch(ask)
        await one.frames(20)
        linked = links(headers["link"])
        names = ["channel", "active", "viewercount"]
        stream = (await client.post(linked[RELATION], json=names)).headers["location"]
        wanted = {"channel": "test2", "rendition": "low"}
        answer = await client.post(linked[CHANGE], json=wanted)
        assert answer.status_code == 200
        assert answer.json() == {**wanted, "waits": True}
        await one.frames(40)
        assert one.size == (320, 180)
        said = {}
        async with client.stream("GET", stream) as events:
            async for line in events.aiter_lines():
                if line.startswith("event:"):
                    name = line[6:].strip()
                elif line.startswith("data:"):
                    said[name] = json.loads(line[5:])
                if len(said) == len(names):
                    break
        assert said["channel"] == {
            "channel": "test2",
            "title": "Test channel 2",
            "rendition": "low",
        }
        assert (said["active"], said["viewercount"]) == ({}, {"viewercount": 1})
        assert (await client.delete(headers["location"])).status_code == 200
