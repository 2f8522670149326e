"""``takeover``: how long no picture is sent when a connection moves to another leaf server.

The viewer is a scripted one with real ICE, DTLS and SRTP; what it gets is looked at where it
arrives. A gap is the longest time between two packets of the picture around the move, less the
usual time between two pictures. The state of a connection is moved while it runs, and, for the
crash, taken from the last snapshot after SIGKILL.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from statistics import median

from anabranch.app.bench.report import Result, sampled
from anabranch.app.bench.rtp_sniffer import RtpPacket, RtpSniffer, repeats, sniffing
from anabranch.app.bench.takeover_lab import SNAPSHOT_S, Pair, running_pair
from anabranch.app.bench.takeover_switch import MEDIA_PORT, VIEWER_ADDRESS
from anabranch.app.bench.viewers_load import running_load
from anabranch.app.bench.viewers_sdp import VIDEO, Credentials, offer, read_answer
from anabranch.core.errors import UnavailableError

_BEFORE_S, _AFTER_S = 1.0, 0.7
_GOP_S = 2.0

Act = Callable[[], Awaitable[None]]


def measure(samples: int) -> list[Result]:
    """Move a connection to and fro ``samples`` times, then kill its server as often.

    Raises:
        UnavailableError: something needed is missing, or the picture did not go on.
        LeafError: a leaf server refused it.
    """
    return asyncio.run(_measure(samples))


async def _measure(samples: int) -> list[Result]:
    async with (
        running_pair() as pair,
        running_load("--bind", VIEWER_ADDRESS) as load,
    ):
        own = Credentials.random()
        viewer, answer = await pair.watch(offer(own, load.fingerprint))
        await load.add("1", own, read_answer(answer))
        await pair.until_up(viewer)
        with sniffing(pair.device, MEDIA_PORT) as sniffer:
            rng = random.Random(0)  # noqa: S311
            moves = [await _gap_ms(sniffer, rng, lambda: pair.move(viewer)) for _ in range(samples)]
            crashes = []
            for _ in range(samples):
                await pair.whole_again()
                crashes.append(await _gap_ms(sniffer, rng, lambda: crash(pair, viewer)))
            repeated = repeats(sniffer.of(VIDEO))
    return [
        sampled("takeover_gap_ms", "ms", moves, target="p95 <= 50"),
        sampled("takeover_crash_gap_ms", "ms", crashes),
        Result("takeover_numbers_repeated", "packets", 1, value=repeated, target="0"),
    ]


async def crash(pair: Pair, viewer: str) -> None:
    """Kill the serving leaf server; the other one goes on from a snapshot that is half used up."""
    snapshot = await pair.snapshot(viewer)
    await asyncio.sleep(SNAPSHOT_S / 2)
    kill(pair)
    await pair.rescue(viewer, snapshot)


def kill(pair: Pair) -> None:
    """Kill the serving leaf server at once.

    Raises:
        UnavailableError: it does not run.
    """
    child = pair.serving.process.child
    if child is None or child.pid is None:
        raise UnavailableError("the leaf server does not run")
    os.kill(child.pid, signal.SIGKILL)


async def _gap_ms(sniffer: RtpSniffer, rng: random.Random, act: Act) -> float:
    """Return the ms for which the picture stood still around ``act``."""
    # Moves come at any moment of a group of pictures.
    await asyncio.sleep(_BEFORE_S + rng.random() * _GOP_S)
    began = time.time()
    await act()
    ended = time.time()
    await asyncio.sleep(_AFTER_S)
    return gap_ms(sniffer.of(VIDEO), began, ended)


def gap_ms(packets: Sequence[RtpPacket], began: float, ended: float) -> float:
    """Return the longest time between packets around a move, less the usual one between pictures.

    Args:
        packets: of one picture, in the order of their arrival.
        began, ended: when the move did, in the packets' clock.

    Raises:
        UnavailableError: there are no packets before it, or none after it.
    """
    before = [packet for packet in packets if began - _BEFORE_S <= packet.at < began]
    after = [packet for packet in packets if began <= packet.at <= ended + _AFTER_S]
    pictures = list({packet.timestamp: packet.at for packet in reversed(before)}.values())[::-1]
    if len(pictures) < 2 or not any(packet.at > ended for packet in after):
        raise UnavailableError("the picture did not go on")
    usual = median(later - earlier for earlier, later in pairwise(pictures))
    around = [before[-1], *after]
    longest = max(later.at - earlier.at for earlier, later in pairwise(around))
    return max(0.0, 1000 * (longest - usual))
