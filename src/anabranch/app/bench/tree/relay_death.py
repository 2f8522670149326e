"""``relay_death_gap_ms``: how long a leaf has no packets when the relay above it dies.

A 7-node site; its relay's power is cut: processes killed, all of its devices down, and no way to
start it again. Once its leaves have no other link, so that one to the root must be made; once each
has a redundancy link to the other relay. Every sample is a site of its own.
"""

import os
import signal
import subprocess
import time

from anabranch.app.bench.report import Peer, Result, sampled
from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.app.bench.tree.emulated import seven_nodes
from anabranch.app.bench.tree.inlet import fed
from anabranch.site.plan import namespace_of

_LEAF, _RELAY = "leaf1", "relay1"
_BEFORE_S = 2.0
_AFTER_S = 5.0


def measure(samples: int) -> list[Result]:
    """Let a relay die on ``samples`` sites of each kind.

    Raises:
        UnavailableError: this is not root, or packets do not come back.
    """
    found = []
    for redundancy, metric, target in (
        (False, "relay_death_gap_ms", "p95 <= 1000"),
        (True, "relay_death_reserve_gap_ms", "p95 <= 200"),
    ):
        pairs = [_gap(redundancy=redundancy) for _ in range(samples)]
        usual = Peer("longest gap in the 2 s before, p50", _median([each for each, _ in pairs]))
        gaps = [gap for _, gap in pairs]
        found.append(sampled(metric, "ms", gaps, target=target, peer=usual))
    return found


def _median(values: list[float]) -> float:
    return round(sorted(values)[len(values) // 2], 1)


def _gap(*, redundancy: bool) -> tuple[float, float]:
    """Return the longest gaps before and after a relay's death, ms."""
    settings = seven_nodes(redundancy=redundancy)
    with running_site(**settings, TEST_CHANNELS="1") as site, fed(site, _LEAF) as inlet:
        time.sleep(_BEFORE_S)
        usual = inlet.gap_ms(time.time() - _BEFORE_S)
        died = cut_power(site, _RELAY)
        time.sleep(_AFTER_S)
        inlet.until_flowing()
        return usual, inlet.gap_ms(died)


def cut_power(site: SiteProcess, node: str) -> float:
    """Kill a node for good; return when, seconds since the epoch."""
    namespace = namespace_of(site.name, node)
    children = site.api("GET", "/api/site").json()["children"]
    pids = [children[f"{node}-{part}"]["pid"] for part in ("vswitchd", "ovsdb")]
    shown = subprocess.run(
        ["ip", "-n", namespace, "-o", "link"], capture_output=True, text=True, check=True
    )
    names = [line.split(": ")[1].partition("@")[0] for line in shown.stdout.splitlines()]
    downs = "".join(f"link set {name} down\n" for name in names if name.startswith("to"))
    # It waits inside, for the namespace is known by no name any more when it works.
    enter = ["nsenter", f"--net=/run/netns/{namespace}", "--", "ip", "-batch", "-"]
    with subprocess.Popen(enter, stdin=subprocess.PIPE, text=True) as unplug:
        time.sleep(0.2)
        subprocess.run(["ip", "netns", "del", namespace], check=True)
        died = time.time()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        unplug.communicate(downs, timeout=10)
    return died
