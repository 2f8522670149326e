"""``first-frame``: page open to the first decoded frame."""

import random
import time

from anabranch.app.bench.browser import chromium, wait_for_picture
from anabranch.app.bench.report import Peer, Result, percentiles, sampled
from anabranch.app.bench.site_process import SiteProcess, running_site

_WARM_UP = 2
PEER = "Janus alone: no tree, a viewer waits for the next key frame"


def measure(samples: int) -> list[Result]:
    """Open the watch page ``samples`` times on a whole site, and on a leaf server alone.

    Raises:
        UnavailableError: something needed is missing, or no frame came.
    """
    with running_site() as site:
        own = page_opens(site, samples)
    with running_site(carriage="direct", keyframe_on_join="false", leaf="janus") as site:
        peer = page_opens(site, max(10, samples // 2))
    return [
        sampled(
            "first_frame_ms",
            "ms",
            own,
            target="p50 <= 800",
            peer=Peer(PEER, round(percentiles(peer)[0], 1)),
        )
    ]


def page_opens(site: SiteProcess, samples: int) -> list[float]:
    """Return for each opening the ms from navigation to the first presented frame."""
    times = []
    rng = random.Random(0)  # noqa: S311
    with chromium() as browser:
        for number in range(samples + _WARM_UP):
            # A context of its own each time: nothing is cached, as for a new viewer.
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            page = context.new_page()
            try:
                page.goto(f"{site.url}/watch/test1", wait_until="commit")
                first = wait_for_picture(page)
            finally:
                context.close()
            if number >= _WARM_UP:
                times.append(first)
            # Viewers come at random moments, not in step with the key frames; and not so soon after
            # each other that they share one.
            time.sleep(1.0 + rng.random())
    return times
