"""``viewers``: how many viewers of 600 kbit/s one core holds, ours beside Janus.

The picture is 600 kbit/s in 25 pictures a second, a key frame every 2 s four times as large as the
others; a sound of 50 packets a second comes with it. A number of viewers is held if 99 of 100
packets take at most 20 ms from the source to the viewer's side of the cable, at most 0.1 % are
missing, and the core has some time left.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from anabranch.app.bench.fabric.lab import quieten
from anabranch.app.bench.report import Peer, Result
from anabranch.app.bench.viewers_crowd import FEED, Crowd
from anabranch.app.bench.viewers_lab import CLIENT_ADDRESS, LEAF_ADDRESS, lab
from anabranch.app.bench.viewers_load import running_load, running_source
from anabranch.app.bench.viewers_meter import MAX_DELAY_MS, Meter, Step
from anabranch.core.errors import AnabranchError, UnavailableError

STEPS = (25, 50, 100, 200, 400, 600, 800, 1000, 1200, 1600, 2000, 2400, 2800, 3200, 4000, 5000)
_SETTLE_S = 3.0
_RING_S = 5.0
"""Seconds after which a ring that keeps the packets since the last key frame is as large as it
gets."""
_SAMPLE = "1/16"


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many viewers a leaf server held, with what was measured then.

    Attributes:
        memory_kb: for each viewer, beside the rings; None: not measured before the first step
            that failed.
    """

    step: Step
    memory_kb: float | None


def measure(samples: int, kinds: Sequence[str], steps: Sequence[int] = ()) -> list[Result]:
    """Load each leaf server until it does not hold.

    Args:
        samples: seconds for which each number of viewers is held.
        kinds: the leaf servers, one after the other.
        steps: numbers of viewers; empty: as many as are needed.

    Raises:
        UnavailableError: something needed is missing, or not even the first number is held.
    """
    quieten()
    load_average = os.getloadavg()[0]
    found = {kind: asyncio.run(_capacity(kind, samples, sorted(steps) or STEPS)) for kind in kinds}
    load = Result("load_average_before", "processes", 1, value=round(load_average, 2))
    return [*results(found), load]


def results(found: Mapping[str, Capacity]) -> list[Result]:
    """Return the figures of each leaf server, and of both together."""
    janus = found.get("janus")
    rows = [row for kind, capacity in found.items() for row in _results(kind, capacity, janus)]
    if len(found) == 2:
        ratio = found["anabranch"].step.viewers / found["janus"].step.viewers
        rows.append(Result("viewers_ratio_janus", "", 1, value=round(ratio, 2)))
    return rows


def _results(kind: str, capacity: Capacity, janus: Capacity | None) -> list[Result]:
    step = capacity.step
    peer = Peer("Janus", janus.step.viewers) if janus and kind != "janus" else None
    memory = capacity.memory_kb
    suffix = "_janus" if kind == "janus" else ""

    def result(
        metric: str, unit: str, value: float, target: str | None = None, peer: Peer | None = None
    ) -> Result:
        value = round(value, 2)
        return Result(metric + suffix, unit, 1, value=value, target=target, peer=peer)

    rows = [
        result("viewers_per_core_600k", "viewers", step.viewers, peer=peer),
        Result(
            f"viewers_delay{suffix}_ms",
            "ms",
            step.samples,
            p50=round(step.p50_ms, 2),
            p99=round(step.p99_ms, 2),
            target=f"p99 <= {MAX_DELAY_MS:.0f}",
        ),
        result("viewers_cpu_percent", "% of a core", step.leaf_cpu),
        result("viewers_core_percent", "% of a core", step.core),
        result("viewers_load_client_cpu_percent", "% of a core", step.client_cpu),
    ]
    if memory is not None:
        rows.append(result("memory_per_viewer_kb", "KiB", memory, "<= 64"))
    return rows


async def _capacity(kind: str, seconds: int, steps: Sequence[int]) -> Capacity:
    async with (
        lab(kind) as made,
        running_load(
            *("--bind", CLIENT_ADDRESS, "--sample", _SAMPLE), prefix=made.client_prefix
        ) as load,
    ):
        crowd = Crowd(made.leaf, load)
        await crowd.resize(1)
        inlet = next(inlet for inlet in made.leaf.inlets() if inlet.feed == FEED)
        # It shares a core with the load client, and must not be late because of it.
        prefix = (*made.client_prefix, "nice", "-n", "-10")
        to = ("--to", f"{LEAF_ADDRESS}:{inlet.video_port}")
        sound_to = ("--audio-to", f"{LEAF_ADDRESS}:{inlet.audio_port}")
        async with running_source(*to, *sound_to, prefix=prefix) as packets_per_s:
            await asyncio.sleep(_RING_S)
            meter = Meter(made, load, crowd, packets_per_s)
            alone_kb = meter.rss_kb()
            held: list[Step] = []
            memory_kb: float | None = None
            grows = True

            async def holds(viewers: int) -> bool:
                nonlocal memory_kb, grows
                step = await _held(kind, meter, viewers, seconds)
                if step is None:
                    grows = False  # and the memory of those that were too many stays
                    return False
                held.append(step)
                if grows:
                    memory_kb = (step.rss_kb - alone_kb) / max(viewers - 1, 1)
                return True

            most = await search(holds, steps)
    if most == 0:
        raise UnavailableError(f"{kind} does not hold {steps[0]} viewers")
    return Capacity(next(step for step in held if step.viewers == most), memory_kb)


async def search(holds: Callable[[int], Awaitable[bool]], steps: Sequence[int]) -> int:
    """Return the most viewers that are held, to 5 %; 0 if not even the first number is."""
    good, bad = 0, None
    for viewers in steps:
        if not await holds(viewers):
            bad = viewers
            break
        good = viewers
    while bad is not None and good and bad - good > max(good // 20, 1):
        middle = (good + bad) // 2
        if await holds(middle):
            good = middle
        else:
            bad = middle
    return good


async def _held(kind: str, meter: Meter, viewers: int, seconds: int) -> Step | None:
    """Return what was measured if so many viewers are held; a disturbance gets a second chance."""
    for _ in range(2):
        try:
            step = await meter.step(viewers, seconds, _SETTLE_S)
            trouble = step.trouble()
        except* AnabranchError as errors:
            step, trouble = None, str(errors.exceptions[0])
        sys.stderr.write(f"{kind}: {viewers} viewers: {trouble or 'held'}; {step}\n")
        if trouble is None:
            return step
    return None
