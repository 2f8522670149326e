"""``root_restart_lost_packets``: the root of the tree begins anew while a leaf is fed.

The controller is killed and started again with it. The director itself stays: the encoders and
leaf servers are its children and end with it.
"""

import os
import signal
import time

from anabranch.app.bench.report import Peer, Result, sampled
from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.app.bench.tree.emulated import seven_nodes
from anabranch.app.bench.tree.inlet import fed, missing
from anabranch.core.errors import UnavailableError

_NODES = 6
_LIMIT_S = 20.0
_BETWEEN_S = 6.0
"""A connection that has lasted 5 s ends with a short back-off: one restart, no flapping."""
_LAST_S = 1.0


def measure(samples: int) -> list[Result]:
    """Restart the root ``samples`` times.

    Raises:
        UnavailableError: this is not root, or the root does not find its tree again.
    """
    settings = seven_nodes()
    with running_site(**settings, FABRIC__CONTROLLERS="1", TEST_CHANNELS="1") as site:
        _until_found(site)
        with fed(site, "leaf1") as inlet:
            time.sleep(5.0)
            before, _ = inlet.lost()
            calm = len(inlet.packets)
            found = [_restart(site) for _ in range(samples)]
            time.sleep(_LAST_S)
            lost, expected = missing(inlet.packets[calm:])
    return [
        Result(
            "root_restart_lost_packets",
            "packets",
            expected,
            value=lost,
            target="0",
            peer=Peer("lost in 5 s without a restart", before),
        ),
        sampled("root_restart_found_ms", "ms", found),
    ]


def _restart(site: SiteProcess) -> float:
    """Restart root and controller; return ms until every node hangs where it did."""
    time.sleep(_BETWEEN_S)
    overview = site.api("GET", "/api/site").json()
    pid = overview["children"][overview["controller"]]["pid"]
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    site.api("POST", "/api/tree/restart").raise_for_status()
    _until_found(site)
    took = 1000 * (time.monotonic() - began)
    _until_controlled(site, pid)
    return took


def _until_found(site: SiteProcess) -> None:
    end = time.monotonic() + _LIMIT_S
    while time.monotonic() < end:
        found = site.api("GET", "/api/tree/statistics").json()["present"]
        planned = {
            node["name"]: node["parent"]
            for node in site.api("GET", "/api/tree").json()["nodes"]
            if node["parent"] is not None
        }
        if len(found) == _NODES and found == planned:
            return
        time.sleep(0.02)
    raise UnavailableError(f"the root does not find its tree: {found}")


def _until_controlled(site: SiteProcess, before: int) -> None:
    end = time.monotonic() + _LIMIT_S
    while time.monotonic() < end:
        overview = site.api("GET", "/api/site").json()
        name = overview["controller"]
        if name is not None and overview["children"][name]["pid"] not in (None, before):
            return
        time.sleep(0.05)
    raise UnavailableError("the controller does not come back")
