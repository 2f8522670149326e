"""``ingress``: how soon a lost producer is noticed and back, and what a flood at a door does.

Producers and the flood come from a namespace that is another machine. Two other channels are
watched meanwhile, by scripted viewers that count what they miss.
"""

import asyncio
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from anabranch.app.bench.report import Result, sampled
from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.app.bench.viewers_load import running_load
from anabranch.app.bench.viewers_sdp import Credentials, offer, read_answer
from anabranch.core.errors import AnabranchError, UnavailableError

FLOOD_PPS = 20_000
FLOOD_S = 5.0
VIEWERS = 4
_LIMIT_S = 20.0
_PICTURE = (
    *("-re", "-f", "lavfi", "-i", "color=red:s=640x360:r=25"),
    *("-re", "-f", "lavfi", "-i", "sine=r=48000"),
    *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "25"),
    *("-pix_fmt", "yuv420p"),
)
SRT_OUTPUT = ("-c:a", "aac", "-f", "mpegts")


def run(*argv: str) -> None:
    """Run a command.

    Raises:
        UnavailableError: it failed.
    """
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{' '.join(argv)}: {done.stderr.strip()}")


@dataclass
class Neighbour:
    """Another machine, behind a cable of its own.

    Attributes:
        here, there: addresses of this machine's end of the cable, and of its own.
    """

    tag: str = field(default_factory=lambda: secrets.token_hex(2))
    number: int = field(default_factory=lambda: secrets.randbelow(1 << 14))

    @property
    def namespace(self) -> str:
        return f"abn-{self.tag}"

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a command is preceded by that shall run there."""
        return ("nsenter", f"--net=/run/netns/{self.namespace}", "--")

    @property
    def here(self) -> str:
        return f"198.19.{self.number >> 6 & 0xFF}.{(self.number & 0x3F) * 4 + 1}"

    @property
    def there(self) -> str:
        return f"198.19.{self.number >> 6 & 0xFF}.{(self.number & 0x3F) * 4 + 2}"

    def build(self) -> None:
        device = f"abn{self.tag}"
        run("ip", "netns", "add", self.namespace)
        run(
            *("ip", "link", "add", device, "type", "veth"),
            *("peer", "name", "eth0", "netns", self.namespace),
        )
        run("ip", "addr", "add", f"{self.here}/30", "dev", device)
        run("ip", "link", "set", device, "up")
        inside = "ip", "-n", self.namespace
        run(*inside, "addr", "add", f"{self.there}/30", "dev", "eth0")
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "route", "add", "default", "via", self.here)

    def remove(self) -> None:
        """Remove it; its end of the cable goes with it, and so does this machine's."""
        subprocess.run(["ip", "netns", "delete", self.namespace], check=False)

    def publish(self, *output: str) -> subprocess.Popen[bytes]:
        """Have ffmpeg there send a red picture with a tone."""
        quiet = "ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error"
        # To RTP it prints a session description, which is not the benchmark's.
        return subprocess.Popen(
            [*self.prefix, *quiet, *_PICTURE, *output], stdout=subprocess.DEVNULL
        )

    def flood(self, port: int, source: str, pps: int, seconds: float) -> int:
        """Flood a UDP port of this machine; return how many packets were sent."""
        module = "anabranch.app.bench.ingress_flood"
        done = subprocess.run(
            [
                *(*self.prefix, sys.executable, "-m", module),
                *(self.here, str(port), str(pps), str(seconds), source),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(json.loads(done.stdout)["sent"])


@contextmanager
def neighbour() -> Iterator[Neighbour]:
    """Give another machine."""
    made = Neighbour()
    try:
        made.build()
        yield made
    finally:
        made.remove()


def add_channel(site: SiteProcess, name: str, source: str) -> tuple[dict[str, str], int]:
    """Add a channel; return what a producer enters, and the port that it listens on."""
    done = site.command("channel", "add", name, "--from", source, "--json")
    if done.returncode:
        raise UnavailableError(done.stderr.strip())
    made = json.loads(done.stdout)
    return made["publish"], int(str(made["source"]).partition(":")[2].partition(" ")[0])


def wait_for_event(site: SiteProcess, kind: str, subject: str, since: float) -> float:
    """Return when something happened, seconds since the epoch, after ``since``.

    Raises:
        UnavailableError: it did not in 20 s.
    """
    end = time.monotonic() + _LIMIT_S
    while time.monotonic() < end:
        for event in site.api("GET", "/api/log?limit=1000").json():
            if (event["kind"], event["subject"]) == (kind, subject) and event["time"] >= since:
                return float(event["time"])
        time.sleep(0.1)
    raise UnavailableError(f"{kind} of {subject} did not come")


def door(site: SiteProcess, port: int, protocol: str = "udp") -> dict[str, Any]:
    """Return the report on a door."""
    report = site.api("GET", "/api/ingress").json()
    (found,) = (d for d in report["doors"] if (d["protocol"], d["port"]) == (protocol, port))
    return dict(found)


def newcomers_dropped(site: SiteProcess) -> int:
    """Return how many packets the kernel has dropped of too many senders."""
    return int(site.api("GET", "/api/ingress").json()["newcomers_dropped"])


# --- lost and back ----------------------------------------------------------------------------


def losses(site: SiteProcess, far: Neighbour, samples: int) -> dict[str, list[float]]:
    """Kill an SRT producer ``samples`` times; return the seconds until things happened.

    ``lost`` and ``slate`` count from the kill; ``back`` and ``live`` from the start of the next
    ffmpeg, its own half second included.
    """
    publish, port = add_channel(site, "lost", "srt")
    url = publish["OBS server"].replace("127.0.0.1", far.here)
    assert str(port) in url
    found: dict[str, list[float]] = {"lost": [], "slate": [], "back": [], "live": []}
    producer = far.publish(*SRT_OUTPUT, url)
    try:
        since = time.time()
        wait_for_event(site, "channel.live", "lost", since - 1)
        for _ in range(samples):
            time.sleep(2.0)
            killed = time.time()
            producer.kill()
            producer.wait()
            found["lost"].append(wait_for_event(site, "producer.lost", "lost", killed) - killed)
            found["slate"].append(wait_for_event(site, "channel.slate", "lost", killed) - killed)
            began = time.time()
            producer = far.publish(*SRT_OUTPUT, url)
            found["back"].append(wait_for_event(site, "producer.back", "lost", began) - began)
            found["live"].append(wait_for_event(site, "channel.live", "lost", began) - began)
    finally:
        producer.kill()
        producer.wait()
        site.command("channel", "remove", "lost")
    return found


# --- floods -----------------------------------------------------------------------------------


class Audience:
    """Viewers of some channels, in a thread of their own, that count what they miss."""

    def __init__(self, url: str, channels: Sequence[str], viewers: int) -> None:
        self._url, self._channels, self._viewers = url, channels, viewers
        self._up = 0
        self._ready, self._ends = threading.Event(), threading.Event()
        self._all_up = threading.Event()
        self._failure: Exception | None = None
        self.totals: dict[str, Any] = {}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="audience")

    def __enter__(self) -> "Audience":
        self._thread.start()
        if not self._ready.wait(_LIMIT_S) or self._failure is not None:
            self.__exit__()
            raise UnavailableError("the audience is not let in") from self._failure
        return self

    def __exit__(self, *_: object) -> None:
        """Have them leave; ``totals`` has what they have counted."""
        self._ends.set()
        self._thread.join()

    def _event(self, event: dict[str, Any]) -> None:
        self._up += event["event"] == "viewer.up"
        if self._up == self._viewers:
            self._all_up.set()

    async def _run(self) -> None:
        try:
            async with (
                running_load(on_event=self._event) as load,
                httpx.AsyncClient(base_url=self._url, timeout=10.0) as client,
            ):
                for number in range(self._viewers):
                    own = Credentials.random()
                    answer = await client.post(
                        f"/whep/{self._channels[number % len(self._channels)]}",
                        content=offer(own, load.fingerprint),
                        headers={"Content-Type": "application/sdp"},
                    )
                    answer.raise_for_status()
                    await load.add(f"v{number}", own, read_answer(answer.text))
                await asyncio.to_thread(self._all_up.wait, _LIMIT_S)
                self._ready.set()
                await asyncio.to_thread(self._ends.wait)
                self.totals = (await load.request("statistics"))["totals"]
        except (AnabranchError, httpx.HTTPError) as error:
            self._failure = error
            self._ready.set()


@dataclass(frozen=True, slots=True)
class Flooded:
    """What a flood did.

    Attributes:
        sent, at_switch, at_kernel: packets sent, dropped at the switch and before it.
        lost, packets: that the viewers of other channels missed, and got.
        switch_percent: of a core, of the root's switch; the time in interrupts is no process's.
    """

    sent: int
    at_switch: int
    at_kernel: int
    lost: int
    packets: int
    switch_percent: float


def flooded(
    site: SiteProcess, far: Neighbour, port: int, source: str, pps: int, seconds: float
) -> Flooded:
    """Flood a door while others watch the test channels."""
    pid = site.api("GET", "/api/site").json()["children"]["root-vswitchd"]["pid"]
    switch = psutil.Process(pid)
    with Audience(site.url, ("test1", "test2"), VIEWERS) as audience:
        time.sleep(1.0)
        before, kernel_before, spent = door(site, port), newcomers_dropped(site), _spent(switch)
        sent = far.flood(port, source, pps, seconds)
        used = _spent(switch) - spent
        time.sleep(1.0)  # the switch's counters are up to half a second old
        after, kernel_after = door(site, port), newcomers_dropped(site)
    return Flooded(
        sent,
        sum(after[what] - before[what] for what in ("dropped", "metered")),
        kernel_after - kernel_before,
        audience.totals["lost"],
        audience.totals["packets"],
        100 * used / seconds,
    )


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(samples: int) -> list[Result]:
    """Lose a producer ``samples`` times, and flood a door in two manners.

    Raises:
        UnavailableError: something needed is missing, or did not happen.
    """
    results = []
    with running_site(ingress__enabled="true") as site, neighbour() as far:
        found = losses(site, far, samples)
        for name, seconds in found.items():
            target = "max <= 2" if name in {"lost", "slate", "back"} else None
            results.append(sampled(f"producer_{name}_s", "s", seconds, target=target, digits=2))
        _, port = add_channel(site, "flooded", f"rtp://:?from={far.there}")
        for name, source in (
            ("random_sources", "random"),
            ("one_source", "198.19.1.1:4000"),
            ("forged", f"{far.there}:4001"),
        ):
            producer = far.publish(*_rtp_output(far.here, port))
            try:
                wait_for_event(site, "producer.came", "flooded", 0.0)
                results += _flood_results(
                    name, flooded(site, far, port, source, FLOOD_PPS, FLOOD_S)
                )
            finally:
                producer.kill()
                producer.wait()
    return results


def _rtp_output(address: str, port: int) -> tuple[str, ...]:
    return "-an", "-f", "rtp", f"rtp://{address}:{port}?pkt_size=1200"


def _flood_results(name: str, found: Flooded) -> list[Result]:
    prefix = f"flood_{name}"
    return [
        Result(f"{prefix}_pps", "packets/s", 1, round(found.sent / FLOOD_S)),
        Result(f"{prefix}_dropped_at_switch", "packets", found.sent, found.at_switch),
        Result(f"{prefix}_dropped_by_kernel", "packets", found.sent, found.at_kernel),
        Result(f"{prefix}_switch_cpu_percent", "% of a core", 1, round(found.switch_percent, 1)),
        Result(f"{prefix}_others_lost", "packets", found.packets, found.lost, target="0"),
    ]
