"""``zap``: from the press of a key in the watch page to the picture of another channel.

Every channel has another viewer at the same leaf, so none has to be brought there first.
"""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from anabranch.app.bench.browser import chromium, wait_for_picture
from anabranch.app.bench.crowd import crowd
from anabranch.app.bench.pictures import PROBE, Frame, Zap, frames_of, judge, know
from anabranch.app.bench.report import Peer, Result, sampled
from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.core.errors import UnavailableError

if TYPE_CHECKING:
    from playwright.sync_api import Page

GOPS_S = (1, 2, 4)
CHANNELS = ("test1", "test2")
TARGET = "p50 <= 60, p95 <= 120"
_DWELL_S = 1.0
"""Least time on a channel before the next change; up to a second more is added."""
_WATCH_S = 1.0
"""Least time for which a change is watched."""
_LIMIT_S = 10.0
_STEADY_MS = 1000.0
_OFFSETS = 10
"""Readings of the offset between sound and picture, half a second apart."""
ONE_LEAF = json.dumps(
    [
        {"name": "root", "role": "root"},
        {"name": "relay", "role": "relay", "parent": "root"},
        {"name": "leaf1", "role": "leaf", "parent": "relay"},
    ]
)
AV_OFFSET = """
async () => {
  const report = await window.anabranch.connection.getStats();
  const playout = {};
  report.forEach((entry) => {
    if (entry.type === 'inbound-rtp') playout[entry.kind] = entry.estimatedPlayoutTimestamp;
  });
  return playout.audio && playout.video ? playout.video - playout.audio : null;
}
"""


@dataclass(slots=True)
class _Run:
    """What one page saw; times are ms."""

    zaps: list[Zap] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    offsets_before: list[float] = field(default_factory=list)
    offsets: list[float] = field(default_factory=list)
    reconnects: int = 0


def measure(samples: int, kinds: Sequence[str], viewers: int = 0) -> list[Result]:
    """Change the channel ``samples`` times with key frames 1, 2 and 4 s apart.

    Args:
        samples: changes for each distance of key frames and each leaf server.
        kinds: the leaf servers, one after the other.
        viewers: as many others change the channel once a second meanwhile.

    Raises:
        UnavailableError: something needed is missing, or a picture did not come.
    """
    results = []
    for gop in GOPS_S:
        for kind in kinds:
            site_settings = {"VIDEO__GOP_S": str(gop), "NODES": ONE_LEAF, "LEAF": kind}
            with running_site(**site_settings) as site, crowd(site, viewers, CHANNELS):
                run = _watch(site, samples)
            results += _results(f"gop{gop}_{kind}", run, "p95 <= 200" if viewers else TARGET)
    return results


def _watch(site: SiteProcess, samples: int) -> _Run:
    run = _Run()
    rng = random.Random(0)  # noqa: S311
    with chromium() as browser:
        for name in CHANNELS:
            other = browser.new_page(viewport={"width": 320, "height": 180})
            other.goto(f"{site.url}/watch/{name}?embed=1")
            wait_for_picture(other)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{site.url}/watch/{CHANNELS[0]}")
        wait_for_picture(page)
        page.wait_for_selector("#channels a")
        page.evaluate(PROBE)
        know(page, len(CHANNELS), lambda number: choose(page, number))
        run.offsets_before = _offsets(page)
        shown = len(CHANNELS) - 1
        for _ in range(samples):
            # At random moments of the groups of pictures.
            time.sleep(_DWELL_S + rng.random())
            shown = (shown + 1) % len(CHANNELS)
            run.zaps.append(_zap(page, shown))
            marks = page.evaluate("window.anabranch.changeMarks")
            if marks is not None:
                run.requests.append(marks["granted"] - marks["asked"])
        run.offsets = _offsets(page)
        run.reconnects = page.evaluate("window.anabranch.reconnects")
    return run


def choose(page: "Page", number: int) -> None:
    """Show a channel."""
    page.keyboard.press(str(number + 1))


def _zap(page: "Page", channel: int) -> Zap:
    """Press a channel's key and return what was seen of it, in 10 s at most."""
    page.evaluate("window.probe.keys = []")
    page.keyboard.press(str(channel + 1))
    time.sleep(_WATCH_S)
    end = time.monotonic() + _LIMIT_S
    while True:
        frames = frames_of(page)
        key_at = float(page.evaluate("window.probe.keys[0][0]"))
        zap = judge(frames, key_at, channel, _steady(frames, key_at))
        seen = zap.clean_ms is not None and zap.live_ms is not None
        if seen or time.monotonic() >= end:
            page.evaluate("window.probe.frames = []")
            return zap
        time.sleep(0.5)


def _offsets(page: "Page") -> list[float]:
    """Return how much later the picture is than the sound, in ms, some times."""
    found = []
    for _ in range(_OFFSETS):
        time.sleep(0.5)
        offset = page.evaluate(AV_OFFSET)
        if offset is not None:
            found.append(float(offset))
    return found


def _steady(frames: Sequence[Frame], key_at: float) -> float:
    delays = [
        delay for at, _, delay in frames if key_at - _STEADY_MS <= at < key_at and delay is not None
    ]
    if not delays:
        raise UnavailableError("no clock in the picture before the key was pressed")
    return median(delays)


def _results(name: str, run: _Run, target: str) -> list[Result]:
    zaps, n = run.zaps, len(run.zaps)
    clean = [zap.clean_ms for zap in zaps if zap.clean_ms is not None]
    live = [zap.live_ms for zap in zaps if zap.live_ms is not None]
    if not clean or not live:
        raise UnavailableError(f"no clean, live picture of another channel within {_LIMIT_S:g} s")
    found = [
        sampled(f"zap_{name}_ms", "ms", clean, target=target),
        sampled(f"zap_live_{name}_ms", "ms", live, target="p95 <= 500"),
        Result(f"zap_missed_{name}", "changes", n, value=n - len(live)),
        sampled(f"zap_longest_gap_{name}_ms", "ms", [zap.longest_gap_ms for zap in zaps]),
        Result(f"zap_freezes_{name}", "freezes", n, value=sum(zap.freezes for zap in zaps)),
        Result(f"zap_mixed_{name}", "changes", n, value=sum(zap.mixed > 0 for zap in zaps)),
        Result(f"zap_mixed_frames_{name}", "frames", n, value=sum(zap.mixed for zap in zaps)),
        Result(f"zap_reconnects_{name}", "connections", n, value=run.reconnects),
    ]
    if run.requests:
        found.append(sampled(f"zap_request_{name}_ms", "ms", run.requests))
    if run.offsets and run.offsets_before:
        before = Peer("before the first change, p50", round(median(run.offsets_before), 1))
        found.append(sampled(f"av_offset_{name}_ms", "ms", run.offsets, peer=before))
    return found
