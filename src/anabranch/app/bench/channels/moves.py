"""``seat_change_ms``: one of 500 plain seats changes the channel, through the whole site.

From the request that leaves the client to the first packet of the new channel at the receiver;
that a picture leaves every 40 ms only is in it. Half of the others watch one channel
and half the other, all at one leaf. While nobody sends, before and after the changes, each
other's packets are counted: all of one channel must have got as many.
"""

import asyncio
import random
import time
from collections.abc import Sequence

import httpx

from anabranch.app.bench.channels.receivers import (
    Arrival,
    Receivers,
    encoders_still,
    links,
    receivers,
    until_free,
)
from anabranch.app.bench.report import Result, sampled
from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.app.bench.zap import CHANNELS, ONE_LEAF
from anabranch.core.errors import UnavailableError

SEATS = 500
_AT_ONCE = 8
_WATCH_S = 0.3
_QUIET_S = 5.0
_HOLD_S = 1
_LINK = "root/to1"


def measure(samples: int) -> list[Result]:
    """Move ``samples`` times; then look at the links with 500 seats at one channel, and with none.

    Raises:
        UnavailableError: this is not root, or the receiver gets nothing.
    """
    settings = {"NODES": ONE_LEAF, "SEATS__HOLD_S": str(_HOLD_S)}
    with receivers(SEATS) as crowd, running_site(**settings) as site:
        seats = asyncio.run(_seat(site, crowd))
        moves, strays, lost = _move(site, crowd, seats[0], samples)
        copies = _copies(site, crowd, seats)
        asyncio.run(_leave(site, seats))
        until_free(site, 30.0)
        time.sleep(_HOLD_S + 1)
        before = links(site)
        time.sleep(_QUIET_S)
        unwatched = sum(links(site).values()) - sum(before.values())
    return [
        sampled("seat_change_ms", "ms", moves, digits=1),
        Result("seat_change_old_after_new", "packets", samples, strays, target="0"),
        Result("seat_change_others_lost", "packets", SEATS - 1, lost, target="0"),
        Result("copies_per_link", "copies", SEATS, round(copies, 3), target="1"),
        Result("unwatched_packets", "packets", 1, unwatched, target="0 in 5 s"),
    ]


async def _seat(site: SiteProcess, crowd: Receivers) -> list[str]:
    """Have every receiver seated, half of them at each channel; return the seats' addresses."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def take(client: httpx.AsyncClient, number: int) -> str:
        body = {"channel": CHANNELS[number % 2], "to": crowd.url(number)}
        async with slots:
            answer = await client.post("/api/seats", json=body)
        if answer.status_code != 201:
            raise UnavailableError(f"no seat: {answer.text[:200]}")
        url: str = answer.json()["url"]
        return url

    async with httpx.AsyncClient(base_url=site.url, headers=site.bearer, timeout=30) as client:
        return list(await asyncio.gather(*(take(client, number) for number in range(SEATS))))


async def _leave(site: SiteProcess, seats: Sequence[str]) -> None:
    async with httpx.AsyncClient(base_url=site.url, timeout=30) as client:
        for seat in seats:
            await client.delete(seat)


def _move(
    site: SiteProcess, crowd: Receivers, seat: str, samples: int
) -> tuple[list[float], int, int]:
    """Return ms of each move, packets of the old channel after the new one, and others' losses."""
    rng = random.Random(0)  # noqa: S311
    with encoders_still(site):
        before = crowd.counted()
    time.sleep(1.0)
    moves, strays = [], 0
    with httpx.Client(base_url=site.url, timeout=10) as client:
        for number in range(1, samples + 1):
            begin, moved = len(crowd.arrivals), time.time()
            client.patch(seat, json={"channel": CHANNELS[number % 2]}).raise_for_status()
            time.sleep(_WATCH_S + rng.random() / 10)
            took, old = _judge(crowd.arrivals[max(0, begin - 1) :], moved)
            moves.append(took)
            strays += old
    with encoders_still(site):
        after = crowd.counted()
    lost = 0
    for channel in range(2):
        got = [after[each] - before[each] for each in after if each % 2 == channel]
        lost += sum(max(got) - each for each in got)
    return moves, strays, lost


def _judge(arrivals: Sequence[Arrival], moved: float) -> tuple[float, int]:
    """Return ms until the other stream came, and how many packets of the first came after it."""
    if not arrivals:
        raise UnavailableError("the receiver gets nothing")
    old = arrivals[0].ssrc
    first = next((place for place, each in enumerate(arrivals) if each.ssrc != old), None)
    if first is None:
        raise UnavailableError("the receiver does not get the channel it has moved to")
    return 1000 * (arrivals[first].at - moved), sum(e.ssrc == old for e in arrivals[first:])


def _copies(site: SiteProcess, crowd: Receivers, seats: Sequence[str]) -> float:
    """Return the copies that the first link carries of what each of 500 seats gets."""

    async def gather() -> None:
        async with httpx.AsyncClient(base_url=site.url, timeout=30) as client:
            for seat in seats:
                await client.patch(seat, json={"channel": CHANNELS[0]})

    asyncio.run(gather())
    time.sleep(_HOLD_S + 1)
    with encoders_still(site):
        carried = links(site)[_LINK]
        before = crowd.counted()[1] + crowd.counted_sound()
    time.sleep(5.0)
    with encoders_still(site):
        carried = links(site)[_LINK] - carried
        got = crowd.counted()[1] + crowd.counted_sound() - before
    return carried / got if got else 0.0
