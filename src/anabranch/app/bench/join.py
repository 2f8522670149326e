"""``join``: from the opening of the watch page to the first clean picture of its channel.

The channel has another viewer at the same leaf, so that it has not to be brought there first. The
page is opened in an empty tab that is there already, without anything in its cache.
"""

import json
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from anabranch.app.bench.browser import chromium, wait_for_picture
from anabranch.app.bench.crowd import crowd
from anabranch.app.bench.pictures import PROBE, frames_of, know
from anabranch.app.bench.report import Result, sampled
from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.app.bench.zap import CHANNELS, GOPS_S, ONE_LEAF, choose
from anabranch.core.errors import UnavailableError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_WARM_UP = 2
TARGET = "p50 <= 250, p95 <= 400"
STEPS = ("script", "posted", "answered", "connected", "firstFrame")
"""The page's own marks: its script runs, WHEP's POST leaves, its answer is here, DTLS is done."""
_LIMIT_S = 10.0
_TAB_S = 1.0
"""So long the making of a tab, with a process of its own, keeps the machine busy."""


def measure(samples: int, kinds: Sequence[str]) -> list[Result]:
    """Open the page ``samples`` times with key frames 1, 2 and 4 s apart.

    Args:
        samples: openings for each distance of key frames and each leaf server.
        kinds: the leaf servers, one after the other.

    Raises:
        UnavailableError: something needed is missing, or a picture did not come.
    """
    results = []
    for gop in GOPS_S:
        for kind in kinds:
            site_settings = {"VIDEO__GOP_S": str(gop), "NODES": ONE_LEAF, "LEAF": kind}
            with running_site(**site_settings) as site:
                joins, marks = _joins(site, samples)
            results.append(sampled(f"join_gop{gop}_{kind}_ms", "ms", joins, target=TARGET))
            for step in STEPS:
                times = [each[step] for each in marks if step in each]
                if times:
                    results.append(sampled(f"join_{step}_gop{gop}_{kind}_ms", "ms", times))
    return results


def _joins(site: SiteProcess, samples: int) -> tuple[list[float], list[dict[str, float]]]:
    """Return for each opening the ms from navigation to the first clean frame, and to STEPS."""
    times, marks = [], []
    rng = random.Random(0)  # noqa: S311
    with chromium() as browser, crowd(site, 1, CHANNELS[:1], changing=False):
        model = model_of(browser, site)
        for number in range(samples + _WARM_UP):
            took, steps = join_once(browser, site, model)
            if number >= _WARM_UP:
                times.append(took)
                marks.append(steps)
            # Viewers come at random moments, not in step with the key frames.
            time.sleep(1.0 + rng.random())
    return times, marks


def model_of(browser: "Browser", site: SiteProcess) -> str:
    """Return how the channels look, as the probe's JSON."""
    page = browser.new_page()

    page.goto(f"{site.url}/watch/{CHANNELS[0]}")
    wait_for_picture(page)
    page.wait_for_selector("#channels a")
    page.evaluate(PROBE)
    know(page, len(CHANNELS), lambda number: choose(page, number))
    model = json.dumps(page.evaluate("window.probe.model()"))
    page.close()
    return model


def join_once(browser: "Browser", site: SiteProcess, model: str) -> tuple[float, dict[str, float]]:
    """Open the watch page; return the ms from navigation to the first clean frame, and to STEPS.

    Raises:
        UnavailableError: there is none within 10 s.
    """
    # A context of its own each time: nothing is cached, as for a new viewer.
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_init_script(f"({PROBE})(); window.probe.load({model});")
    page = context.new_page()
    time.sleep(_TAB_S)
    try:
        page.goto(f"{site.url}/watch/{CHANNELS[0]}", wait_until="commit")
        end = time.monotonic() + _LIMIT_S
        while time.monotonic() < end:
            time.sleep(0.1)
            clean = [at for at, shown, _ in frames_of(page) if shown == 0]
            if clean:
                wait_for_picture(page)  # its marks come with the page's modules
                return clean[0], page.evaluate("window.anabranch.marks")
    finally:
        context.close()
    raise UnavailableError(f"no clean picture within {_LIMIT_S:g} s")
