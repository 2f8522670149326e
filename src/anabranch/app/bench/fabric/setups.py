"""``flow_setups``: how many new flows a second the controller sets up, beside os-ken's.

The same fake switch loads both in turn, over TCP on loopback; see ``load.py``.
"""

import json
import subprocess
import sys
from statistics import median

from anabranch.app.bench.fabric.contender import OS_KEN, OWN, controller
from anabranch.app.bench.report import Peer, Result, sampled
from anabranch.core.errors import UnavailableError

WINDOW = 64
_SECONDS = 3.0
_OS_KEN = "os-ken's learning switch, same fake switch, same load"


def measure(samples: int) -> list[Result]:
    """Load both controllers ``samples`` times for 3 s, in turn; medians.

    Raises:
        UnavailableError: a controller does not come up or fails under load.
    """
    ours, theirs = [], []
    for _ in range(samples):
        ours.append(_load(OWN, WINDOW)[0])
        theirs.append(_load(OS_KEN, WINDOW)[0])
    _, latency = _load(OWN, 1)
    _, their_latency = _load(OS_KEN, 1)
    mine, its = median(ours), median(theirs)
    return [
        Result(
            "flow_setups_per_s",
            "flows/s",
            samples,
            value=round(mine),
            target=">= 70000",
            peer=Peer(_OS_KEN, round(its)),
        ),
        Result("flow_setup_ratio_os_ken", "", samples, value=round(mine / its, 1), target=">= 10"),
        sampled(
            "flow_setup_round_trip_ms",
            "ms",
            latency,
            peer=Peer(f"{_OS_KEN}, p50", round(median(their_latency), 3)),
            digits=3,
        ),
    ]


def _load(module: str, window: int) -> tuple[float, list[float]]:
    with controller(module) as port:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "anabranch.app.bench.fabric.load"),
                *(str(port), str(window), str(_SECONDS)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise UnavailableError(f"the load on {module} failed: {' '.join(last)}")
    found = json.loads(done.stdout)
    return found["per_s"], found["round_trips_ms"]
