"""``idle``: what a site costs that nobody watches, and how soon a second start is on the air."""

import time

import psutil

from anabranch.app.bench.report import Peer, Result, sampled
from anabranch.app.bench.site_process import SiteProcess
from anabranch.core.errors import UnavailableError


def measure(samples: int) -> list[Result]:
    """Watch an idle director for ``samples`` seconds; start the site five times.

    Raises:
        UnavailableError: the site does not come up.
    """
    site = SiteProcess()
    try:
        site.start()
        assert site.process is not None
        director = psutil.Process(site.process.pid)
        leaves = [child for child in director.children(recursive=True) if child.name() == "janus"]
        if not leaves:
            raise UnavailableError("no leaf server is running")
        time.sleep(5)
        cpu, janus = [], []
        for process in (director, leaves[0]):
            process.cpu_percent()
        for _ in range(samples):
            time.sleep(1)
            cpu.append(director.cpu_percent())
            janus.append(leaves[0].cpu_percent())
        memory = director.memory_info().rss / 1e6
        peer_memory = leaves[0].memory_info().rss / 1e6
        starts = []
        for _ in range(5):
            site.stop()
            starts.append(site.start())
    finally:
        site.remove()
    return [
        Result(
            "director_idle_cpu_percent",
            "% of a core",
            samples,
            value=round(sum(cpu) / len(cpu), 2),
            target="< 2",
            peer=Peer("one idle Janus", round(sum(janus) / len(janus), 2)),
        ),
        Result(
            "director_rss_mb",
            "MB",
            1,
            value=round(memory, 1),
            target="< 150",
            peer=Peer("one idle Janus", round(peer_memory, 1)),
        ),
        sampled("second_start_s", "s", starts, target="max <= 10"),
    ]
