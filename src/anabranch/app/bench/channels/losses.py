"""``viewer_lost_s`` and ``producer_lost_s``: how long it takes until it is known that one has gone.

A receiver is closed, and its seat must be free; a publisher is killed, and its channel must say
that it shows the slate. Publishers by RTMP and by RTP take turns: one has a connection that ends,
the other none.
"""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx

from anabranch.app.bench.channels.receivers import until_free
from anabranch.app.bench.report import Result, sampled
from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.core.errors import UnavailableError

_LIMIT_S = 20.0
_PORT = 41000
_PUBLISHER = (
    *("ffmpeg", "-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25"),
    *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "25"),
    *("-pix_fmt", "yuv420p"),
)


def measure(samples: int) -> list[Result]:
    """Lose ``samples`` receivers, and as many publishers.

    Raises:
        UnavailableError: something needed is missing, or a loss is not noticed.
    """
    with running_site() as site:
        viewers = [_viewer_lost(site, number) for number in range(samples)]
        ways = [_add(site, way) for way in ("rtmp", "rtp")]
        producers = [_producer_lost(site, *ways[number % 2]) for number in range(samples)]
    return [
        sampled("viewer_lost_s", "s", viewers, target="max <= 15", digits=2),
        sampled("producer_lost_s", "s", producers, target="p95 <= 2", digits=2),
    ]


def _viewer_lost(site: SiteProcess, number: int) -> float:
    port = _PORT + 4 * number
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver:
        receiver.bind(("0.0.0.0", port))
        receiver.settimeout(_LIMIT_S)
        body = {"channel": "test1", "to": f"udp://127.0.0.1:{port}"}
        site.api("POST", "/api/seats", json=body).raise_for_status()
        receiver.recv(2048)
        time.sleep(1.0)
    return until_free(site, _LIMIT_S)


def _add(site: SiteProcess, way: str) -> tuple[str, list[str]]:
    """Add a channel; return its name and a publisher's command."""
    answer = site.api("POST", "/api/channels", json={"name": f"by-{way}", "source": way})
    answer.raise_for_status()
    made = answer.json()
    if way == "rtmp":
        port = site.settings["PORTS__RTMP"]
        url = f"rtmp://127.0.0.1:{port}/live/{made['key']}"
        return made["name"], [*_PUBLISHER, "-f", "flv", url]
    port = made["source"].rpartition(":")[2]
    url = f"rtp://127.0.0.1:{port}?pkt_size=1200"
    return made["name"], [*_PUBLISHER, "-f", "rtp", url]


def _producer_lost(site: SiteProcess, channel: str, command: list[str]) -> float:
    with _told(site, channel) as told:
        publisher = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(told, "channel.live")
            time.sleep(2.0)
            told.clear()
        finally:
            gone = time.monotonic()
            os.kill(publisher.pid, signal.SIGKILL)
            publisher.wait()
        return _wait(told, "channel.slate") - gone


def _wait(told: dict[str, float], kind: str) -> float:
    end = time.monotonic() + _LIMIT_S
    while kind not in told:
        if time.monotonic() > end:
            raise UnavailableError(f"no {kind} within {_LIMIT_S:g} s")
        time.sleep(0.005)
    return told[kind]


@contextmanager
def _told(site: SiteProcess, channel: str) -> Iterator[dict[str, float]]:
    """Give when each kind of event of a channel was heard of, by server-sent events."""
    told: dict[str, float] = {}
    ready = threading.Event()
    with httpx.Client(timeout=httpx.Timeout(5.0, read=None)) as client:

        def listen() -> None:
            try:
                with client.stream("GET", f"{site.url}/api/events") as answer:
                    ready.set()
                    for line in answer.iter_lines():
                        if f'"subject":"{channel}"' in line.replace(" ", ""):
                            kind = line.partition('"kind"')[2].split('"')[1]
                            told.setdefault(kind, time.monotonic())
            except (httpx.HTTPError, RuntimeError):
                ready.set()  # closed at the end

        listener = threading.Thread(target=listen, name="events", daemon=True)
        listener.start()
        ready.wait(5.0)
        yield told
