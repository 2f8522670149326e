"""``cold_start_ms``: from the opening of the watch page of a channel that nobody watches.

None of it is in the network then; the first clean picture is waited for, as in ``join``.
"""

import random
import time

from anabranch.app.bench.browser import chromium
from anabranch.app.bench.channels.receivers import links
from anabranch.app.bench.join import join_once, model_of
from anabranch.app.bench.report import Result, sampled
from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.app.bench.zap import ONE_LEAF
from anabranch.core.errors import UnavailableError

_LIMIT_S = 30.0
_WARM_UP = 2


def measure(samples: int) -> list[Result]:
    """Open the page ``samples`` times, each time when nothing flows any more.

    Raises:
        UnavailableError: something needed is missing, or a picture did not come.
    """
    times = []
    rng = random.Random(0)  # noqa: S311
    with running_site(NODES=ONE_LEAF) as site, chromium() as browser:
        model = model_of(browser, site)
        for number in range(samples + _WARM_UP):
            _until_cold(site)
            time.sleep(rng.random())  # not in step with the key frames
            took, _ = join_once(browser, site, model)
            if number >= _WARM_UP:
                times.append(took)
    return [sampled("cold_start_ms", "ms", times, target="p95 <= 1500")]


def _until_cold(site: SiteProcess) -> None:
    end = time.monotonic() + _LIMIT_S
    before = links(site)
    while time.monotonic() < end:
        time.sleep(1.0)
        after = links(site)
        if after == before:
            return
        before = after
    raise UnavailableError("packets flow though nobody watches")
