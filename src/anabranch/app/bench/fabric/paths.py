"""``path_install_ms``: a path over ten real switches, from the request to the last barrier."""

import asyncio
import time
from itertools import pairwise

from anabranch.app.bench.fabric.hosts import target_mac
from anabranch.app.bench.fabric.lab import Shape, lab
from anabranch.app.bench.fabric.running import fabric_over
from anabranch.app.bench.report import Result, sampled
from anabranch.fabric.intents import Egress, Flow, Intents
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.oxm import ETH_IPV4, Match

SWITCHES = 10
_HOST, _UP, _DOWN = 1, 2, 3
_NAMES = tuple(f"s{number}" for number in range(1, SWITCHES + 1))
_SHAPE = Shape(
    _NAMES,
    cables=tuple((PortRef(a, _DOWN), PortRef(b, _UP)) for a, b in pairwise(_NAMES)),
    hosts={"from": PortRef(_NAMES[0], _HOST), "to": PortRef(_NAMES[-1], _HOST)},
)


def path(number: int) -> Flow:
    """Return a flow from one end of the row to the other."""
    return Flow(
        f"flow{number}",
        Match(eth_type=ETH_IPV4, eth_dst=target_mac(number).hex(":")),
        _SHAPE.hosts["from"],
        frozenset({Egress(_SHAPE.hosts["to"])}),
    )


def measure(samples: int) -> list[Result]:
    """Ask for ``samples`` paths one after the other, then take them back.

    Raises:
        UnavailableError: this is not root, or the switches do not come.
    """
    made, removed = asyncio.run(_measure(samples))
    return [
        sampled("path_install_ms", "ms", made, target="p95 <= 20"),
        sampled("path_remove_ms", "ms", removed),
    ]


async def _measure(samples: int) -> tuple[list[float], list[float]]:
    async with lab(_SHAPE) as made, fabric_over(made) as fabric:
        flows = [path(number) for number in range(samples)]
        await fabric.put(Intents((path(samples),)))
        times = []
        wanted = [*range(1, samples + 1), *range(samples - 1, -1, -1)]
        for count in wanted:
            intents = Intents((path(samples), *flows[:count]))
            began = time.perf_counter()
            await fabric.put(intents)
            times.append(1000 * (time.perf_counter() - began))
        return times[:samples], times[samples:]
