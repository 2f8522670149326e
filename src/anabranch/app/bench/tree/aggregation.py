"""``aggregation_cpu_s``: one round of statistics of a tree of 100,000 leaves, codec excluded.

Root, 100 relays, leaves: each leaf tells of one stream and of itself, with all figures that it can
have. Counted is what the relays and the root do, as if one machine did all of it.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from anabranch.app.bench.report import Peer, Result, sampled
from anabranch.tree.metrics import (
    CPU,
    EXPECTED,
    JITTER,
    LINK_LOSS,
    LOSS,
    LOST,
    MACHINES,
    NACKS,
    RTT,
    SENT_BYTES,
    summary,
)
from anabranch.tree.soleil.codec import encode
from anabranch.tree.soleil.messages import Message, Stats
from anabranch.tree.statistics import Collector

RELAYS, LEAVES, FEWER_LEAVES = 100, 100_000, 1000
_VIEWERS = 30
_VARIANTS = 1000


def measure(samples: int) -> list[Result]:
    """Run ``samples`` rounds; then weigh what reaches the root, beside a small tree."""
    reports = _reports(Random(1))  # noqa: S311  # the same figures every time
    rounds, at_root = _rounds(LEAVES, reports, samples)
    _, at_small_root = _rounds(FEWER_LEAVES, reports, 1)
    flat = Peer("the same means in one loop: no tree, no check", round(_flat(LEAVES, reports), 3))
    seconds = sampled("aggregation_cpu_s", "s", rounds, target="max <= 1", peer=flat, digits=3)
    small = f"with {FEWER_LEAVES} leaves"
    return [
        seconds,
        Result(
            "aggregation_root_messages",
            "messages/round",
            LEAVES,
            value=len(at_root),
            target=f"as {small}",
            peer=Peer(small, len(at_small_root)),
        ),
        Result(
            "aggregation_root_bytes",
            "bytes/round",
            LEAVES,
            value=_size(at_root),
            target=f"as {small}",
            peer=Peer(small, _size(at_small_root)),
        ),
    ]


def _reports(draw: Random) -> list[Stats]:
    """Return what leaves tell, each unlike the others."""

    def leaf() -> Stats:
        levels = {
            name: [draw.uniform(0, most) for _ in range(_VIEWERS)]
            for name, most in ((JITTER, 60.0), (RTT, 400.0), (LOSS, 3.0))
        }
        counts = {
            name: float(draw.randrange(1, most))
            for name, most in ((LOST, 500), (EXPECTED, 50_000), (NACKS, 500), (SENT_BYTES, 10**8))
        }
        cpu = draw.uniform(0, 100)
        stream = summary(
            "news-high",
            (0.0, 5.0),
            levels | {CPU: [cpu] * _VIEWERS},
            counts,
            members=_VIEWERS,
        )
        machine = summary(MACHINES, (0.0, 5.0), {CPU: [cpu], LINK_LOSS: [draw.uniform(0, 1)]})
        return Stats((stream, machine))

    return [leaf() for _ in range(_VARIANTS)]


def _rounds(leaves: int, reports: Sequence[Stats], samples: int) -> tuple[list[float], list[Stats]]:
    """Return CPU seconds of each round, and what reached the root in the last."""
    root, relays = Collector(0.0), [Collector(0.0) for _ in range(RELAYS)]
    names = [f"leaf{number}" for number in range(leaves)]
    times = []
    for round_ in range(1, samples + 1):
        told = [replace(stats, round=round_) for stats in reports]
        began = time.process_time()
        for number, name in enumerate(names):
            relays[number % RELAYS].take(name, told[number % _VARIANTS])
        at_root = [relay.aggregate(5.0 * round_) for relay in relays]
        for number, stats in enumerate(at_root):
            root.take(f"relay{number}", stats)
        root.aggregate(5.0 * round_)
        times.append(time.process_time() - began)
    return times, at_root


def _flat(leaves: int, reports: Sequence[Stats]) -> float:
    """Return CPU seconds of the weighted means of all figures, as plainly as they can be had."""
    everything = [
        (container.weight or 0.0, container.values)
        for number in range(leaves)
        for container in reports[number % _VARIANTS].containers
    ]
    began = time.process_time()
    sums: dict[str, float] = {}
    total = 0.0
    for weight, values in everything:
        total += weight
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + weight * value
    for name in sums:
        sums[name] /= total
    return time.process_time() - began


def _size(reports: Sequence[Stats]) -> int:
    """Return the bytes of ``reports`` as messages."""
    return sum(
        len(encode(Message(stats, 1_763_700_000_000, to=None, sender=f"relay{number:03}", id="0")))
        for number, stats in enumerate(reports)
    )
