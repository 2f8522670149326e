"""``idle``: what a site costs that nobody watches, and how soon a second start is on the air."""

import time

import psutil

from anabranch.app.bench.report import Peer, Result, sampled
from anabranch.app.bench.site_process import SiteProcess, running_site
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
        cpu, memory = _idle(director, samples)
        starts = []
        for _ in range(5):
            site.stop()
            starts.append(site.start())
    finally:
        site.remove()
    with running_site(carriage="direct", leaf="janus") as peer:
        assert peer.process is not None
        children = psutil.Process(peer.process.pid).children(recursive=True)
        janus = next((child for child in children if child.name() == "janus"), None)
        if janus is None:
            raise UnavailableError("no Janus is running")
        peer_cpu, peer_memory = _idle(janus, samples)
    return [
        Result(
            "director_idle_cpu_percent",
            "% of a core",
            samples,
            value=round(cpu, 2),
            target="< 2",
            peer=Peer("one idle Janus", round(peer_cpu, 2)),
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


def _idle(process: psutil.Process, samples: int) -> tuple[float, float]:
    """Return the mean per cent of a core over ``samples`` seconds, and the MB at their end."""
    time.sleep(5)
    process.cpu_percent()
    cpu = []
    for _ in range(samples):
        time.sleep(1)
        cpu.append(process.cpu_percent())
    return sum(cpu) / len(cpu), process.memory_info().rss / 1e6
