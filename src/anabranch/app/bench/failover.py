"""``failover``: how long the picture stands still when the network or its controller breaks.

A site whose leaves are joined by a redundancy link, with BFD at 20 ms, and two controllers. Read
from the clock in the picture like ``recovery``; a break that nobody sees scores 0.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from anabranch.app.bench.browser import chromium, wait_for_picture
from anabranch.app.bench.recovery import SAMPLER, standstill, wait_until_steady
from anabranch.app.bench.report import Result, sampled
from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.core.errors import UnavailableError
from anabranch.site.plan import namespace_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

_BETWEEN_S = 4.0
_BROKEN_S = 4.0
REDUNDANT = {
    "FABRIC__REDUNDANCY": '[{"between": ["leaf1", "leaf2"]}]',
    "FABRIC__BFD_MS": "20",
    "FABRIC__CONTROLLERS": "2",
}


def measure(samples: int) -> list[Result]:
    """Break each thing ``samples`` times while a browser plays.

    Raises:
        UnavailableError: something needed is missing, or the picture did not come back.
    """
    breaks: dict[str, Callable[[SiteProcess], None]] = {
        "link_down": lambda site: _broken(link_down(site)),
        "black_hole": lambda site: _broken(black_hole(site)),
        "controller_kill": kill_controller,
        "both_controllers_kill": kill_controllers,
        "leaf_switch_restart": lambda site: _kill(site, f"{leaf_of(site)}-vswitchd"),
    }
    targets = {"controller_kill": "max 0", "both_controllers_kill": "max 0"}
    results = []
    with running_site(**REDUNDANT) as site, chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{site.url}/watch/test1")
        wait_for_picture(page)
        for name, make in breaks.items():
            gaps = [gap(page, lambda make=make: make(site)) for _ in range(samples)]  # type: ignore[misc]
            results.append(sampled(f"picture_gap_{name}_ms", "ms", gaps, target=targets.get(name)))
    return results


def gap(page: "Page", make: Callable[[], None]) -> float:
    """Return the milliseconds for which the picture stood still around ``make``."""
    time.sleep(_BETWEEN_S)
    page.evaluate(SAMPLER)
    time.sleep(1.0)
    make()
    return standstill(wait_until_steady(page))


def leaf_of(site: SiteProcess) -> str:
    """Return the leaf that serves the browser."""
    seats = site.api("GET", "/api/seats").json()
    if not seats:
        raise UnavailableError("the browser has no seat")
    return str(seats[-1]["leaf"])


def _broken(broken: AbstractContextManager[None]) -> None:
    with broken:
        time.sleep(_BROKEN_S)


@contextmanager
def link_down(site: SiteProcess) -> Iterator[None]:
    """Unplug the leaf's link to its relay at the relay's side, and plug it in again."""
    namespace, device = _relay_port(site)
    _run("ip", "-n", namespace, "link", "set", device, "down")
    try:
        yield
    finally:
        _run("ip", "-n", namespace, "link", "set", device, "up")


@contextmanager
def black_hole(site: SiteProcess) -> Iterator[None]:
    """Let the leaf's link to its relay swallow everything in both directions, unnoticed by it."""
    namespace, device = _relay_port(site)
    ends = [(namespace, device), (namespace_of(site.name, leaf_of(site)), "to1")]
    try:
        for end, port in ends:
            hook = f"type filter hook egress device {port} priority 0; drop;"
            rules = f"table netdev hole {{ chain out {{ {hook} }}; }}"
            _run("ip", "netns", "exec", end, "nft", rules)
        yield
    finally:
        for end, _ in ends:
            # Made and deleted: also where the first of them failed.
            _run("ip", "netns", "exec", end, "nft", "table netdev hole; delete table netdev hole")


def _relay_port(site: SiteProcess) -> tuple[str, str]:
    devices = {"leaf1": "to2", "leaf2": "to3"}
    return namespace_of(site.name, "relay"), devices[leaf_of(site)]


def kill_controller(site: SiteProcess) -> None:
    """Kill the controller that is at work."""
    overview = site.api("GET", "/api/site").json()
    _kill(site, overview["controller"])


def kill_controllers(site: SiteProcess) -> None:
    """Kill both controllers at once."""
    for number in (1, 2):
        _kill(site, f"controller{number}")


def _kill(site: SiteProcess, child: str) -> None:
    pid = site.api("GET", "/api/site").json()["children"][child]["pid"]
    if pid is None:
        raise UnavailableError(f"{child} does not run")
    os.kill(pid, signal.SIGKILL)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=10)
