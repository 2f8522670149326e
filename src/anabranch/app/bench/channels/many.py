"""2,000 plain seats at one leaf: what its switch makes of one copy, and how fast a bucket moves.

``many_copies_per_link`` is what the links to the leaf carry of what each seat gets, through the
whole site; ``many_lost`` the packets that any seat lacks of what another got. ``many_move_ms`` is
``bucket_move_ms`` with groups of as many buckets; that there is a packet every 4 ms is in it.
"""

import asyncio
import time
from dataclasses import replace

import httpx

from anabranch.app.bench.channels.receivers import (
    Receivers,
    encoders_still,
    links,
    receivers,
    until_free,
)
from anabranch.app.bench.fabric import buckets
from anabranch.app.bench.report import Result
from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.app.bench.zap import CHANNELS, ONE_LEAF
from anabranch.core.errors import UnavailableError

SEATS = 2000
_AT_ONCE = 64
_PPS = 250
_WATCH_S = 5.0
_HOLD_S = 1
_LINK = "root/to1"


def measure(samples: int) -> list[Result]:
    """Count with 2,000 seats for five seconds; move a bucket ``samples`` times.

    Raises:
        UnavailableError: this is not root, or something needed is missing.
    """
    (moves,) = buckets.measure(samples, SEATS, _PPS)
    settings = {"NODES": ONE_LEAF, "SEATS__HOLD_S": str(_HOLD_S), "SEATS__PER_LEAF": str(SEATS)}
    with receivers(SEATS) as crowd, running_site(**settings) as site:
        asyncio.run(_seat(site, crowd))
        copies, lost = _count(site, crowd)
        asyncio.run(_leave(site))
        until_free(site, 60.0)
    return [
        replace(moves, metric="many_move_ms"),
        Result("many_copies_per_link", "copies", SEATS, round(copies, 3), target="1"),
        Result("many_lost", "packets", SEATS - 1, lost, target="0"),
    ]


async def _seat(site: SiteProcess, crowd: Receivers) -> None:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def take(client: httpx.AsyncClient, number: int) -> None:
        to = crowd.url(number).replace("rtp:", "udp:")
        body = {"channel": CHANNELS[0], "to": to, "rendition": "low"}
        async with slots:
            answer = await client.post("/api/seats", json=body)
        if answer.status_code != 201:
            raise UnavailableError(f"no seat: {answer.text[:200]}")

    async with httpx.AsyncClient(base_url=site.url, headers=site.bearer, timeout=60) as client:
        await asyncio.gather(*(take(client, number) for number in range(SEATS)))


async def _leave(site: SiteProcess) -> None:
    async with httpx.AsyncClient(base_url=site.url, headers=site.bearer, timeout=60) as client:
        found = (await client.get("/api/seats")).json()
        slots = asyncio.Semaphore(_AT_ONCE)

        async def leave(seat: str) -> None:
            async with slots:
                await client.delete(f"/api/seats/{seat}")

        await asyncio.gather(*(leave(seat["id"]) for seat in found))


def _count(site: SiteProcess, crowd: Receivers) -> tuple[float, int]:
    """Return the copies that the first link carries of what a seat gets, and what others lack."""
    with encoders_still(site):
        carried, before = links(site)[_LINK], crowd.counted()
    time.sleep(_WATCH_S)
    with encoders_still(site):
        carried, after = links(site)[_LINK] - carried, crowd.counted()
    got = [after[number] - before[number] for number in after]
    most = max(got)
    return carried / most if most else 0.0, sum(most - each for each in got)
