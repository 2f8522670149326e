"""``latency``: glass to glass, read from the clock in the decoded picture."""

from anabranch.app.bench.browser import chromium, wait_for_picture
from anabranch.app.bench.first_frame import PEER
from anabranch.app.bench.report import Peer, Result, percentiles, sampled
from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.core.errors import UnavailableError

_SETTLE_MS = 5000


def measure(samples: int) -> list[Result]:
    """Read the picture's clock in ``samples`` frames, over the tree and straight from Janus.

    Raises:
        UnavailableError: something needed is missing, or the clock could not be read.
    """
    with running_site() as site:
        own = delays(site, samples)
    with running_site(carriage="direct", leaf="janus") as site:
        peer = delays(site, max(50, samples // 2))
    return [
        sampled(
            "glass_to_glass_ms",
            "ms",
            own,
            target="p50 <= 250, p95 <= 400",
            peer=Peer(PEER, round(percentiles(peer)[0], 1)),
        )
    ]


def delays(site: SiteProcess, samples: int) -> list[float]:
    """Return the delay of frames as presented, in ms."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        try:
            page.goto(f"{site.url}/watch/test1")
            wait_for_picture(page)
            page.wait_for_timeout(_SETTLE_MS)
            page.set_default_timeout(120_000)
            read = page.evaluate(f"window.anabranch.sampleDelays({samples})")
        except Exception as error:
            raise UnavailableError(f"the clock in the picture cannot be read: {error}") from error
    return [float(value) for value in read]
