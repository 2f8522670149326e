"""``recovery``: how long the picture stands still when a part of the site is killed.

Read from the clock in the picture: the age of the newest moment shown, at its worst, less the age
it has when nothing is wrong. A part whose loss nobody sees scores 0.
"""

import os
import signal
import time
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from anabranch.app.bench.browser import chromium, wait_for_picture
from anabranch.app.bench.report import Result, sampled
from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.core.errors import UnavailableError

if TYPE_CHECKING:
    from playwright.sync_api import Page

PARTS = ("leaf", "encoder", "ingest", "leaf-switch", "relay-switch", "root-switch", "relay-ovsdb")
_STEADY_S = 2.0
_LIMIT_S = 15.0
_HEALTHY_S = 4.0
"""Life of a part before it is killed: one that dies again and again is restarted ever later."""
SAMPLER = """
() => {
  window.seen = [];
  clearInterval(window.sampler);
  window.sampler = setInterval(() => {
    const delay = window.anabranch.readClock();
    window.seen.push([performance.now(), delay]);
  }, 20);
}
"""

_AWAY_S = 1.0
"""Seconds from a director's end to the start of the next one."""

Sample = tuple[float, float | None]


def measure(samples: int) -> list[Result]:
    """Kill each part ``samples`` times with SIGKILL while a browser plays.

    Raises:
        UnavailableError: something needed is missing, or the picture did not come back.
    """
    results = []
    with running_site() as site, chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{site.url}/watch/test1")
        wait_for_picture(page)
        time.sleep(_STEADY_S)
        for part in PARTS:
            outages = [_outage(site, page, part) for _ in range(samples)]
            results.append(
                sampled(f"outage_{part}_ms".replace("-", "_"), "ms", outages, target="max <= 5000")
            )
        gaps, backs = zip(*(_succession(site, page) for _ in range(samples)), strict=True)
    return [
        *results,
        sampled("director_restart_gap_ms", "ms", gaps, target="max <= 1000"),
        sampled("director_back_s", "s", backs, target="max <= 6"),
    ]


def _succession(site: SiteProcess, page: "Page") -> tuple[float, float]:
    """Kill the director and start another; return ms of standstill, and seconds until its API."""
    time.sleep(_HEALTHY_S)
    page.evaluate(SAMPLER)
    time.sleep(1.0)
    site.kill()
    time.sleep(_AWAY_S)
    back = site.start()
    return standstill(wait_until_steady(page)), back


def _outage(site: SiteProcess, page: "Page", part: str) -> float:
    time.sleep(_HEALTHY_S)
    page.evaluate(SAMPLER)
    time.sleep(1.0)
    os.kill(_process_of(site, part), signal.SIGKILL)
    return standstill(wait_until_steady(page))


def wait_until_steady(page: "Page") -> list[Sample]:
    """Return the samples since SAMPLER began, once the picture has been in order for a while.

    Raises:
        UnavailableError: that did not happen in 15 s.
    """
    time.sleep(_STEADY_S)
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        time.sleep(0.5)
        seen: list[Sample] = page.evaluate("window.seen")
        recent = [delay for at, delay in seen if at > seen[-1][0] - 1000 * _STEADY_S]
        if all(delay is not None and delay < 1000 for delay in recent):
            time.sleep(1.0)  # parts come back into order
            return seen
    raise UnavailableError("the picture did not come back")


def standstill(seen: list[Sample]) -> float:
    """Return ms of standstill from samples of (time, delay of the picture shown or None)."""
    usual = median(delay for _, delay in seen[:40] if delay is not None)
    newest = max(at - delay for at, delay in seen[:40] if delay is not None)
    worst = 0.0
    for (_, _), (at, delay) in pairwise(seen):
        worst = max(worst, at - newest)
        if delay is not None:
            newest = max(newest, at - delay)
    # Between two frames the newest moment ages by one frame: that is no standstill.
    return max(0.0, worst - usual - 60.0)


def _process_of(site: SiteProcess, part: str) -> int:
    seats: list[dict[str, Any]] = site.api("GET", "/api/seats").json()
    if not seats:
        raise UnavailableError("the browser has no seat")
    leaf = seats[-1]["leaf"]
    name = {
        "leaf": f"leaf:{leaf}",
        "encoder": "encoder:test1",
        "ingest": "ingest:test1",
        "leaf-switch": f"{leaf}-vswitchd",
        "relay-switch": "relay-vswitchd",
        "root-switch": "root-vswitchd",
        "relay-ovsdb": "relay-ovsdb",
    }[part]
    for _ in range(100):
        pid = site.api("GET", "/api/site").json()["children"][name]["pid"]
        if pid is not None:
            return int(pid)
        time.sleep(0.1)
    raise UnavailableError(f"{name} does not run")
