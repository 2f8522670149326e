"""``api_requests_per_s``: the list of channels, asked for as quickly as one director answers.

The director serves it in one thread, beside all its other work; this process asks over raw
sockets, which costs a tenth of what an answer does.
"""

import asyncio
import time

from anabranch.app.bench.report import Result, sampled
from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.core.errors import UnavailableError

_CONNECTIONS = 8
_WARM_UP = 500
_LENGTH = b"content-length:"


def measure(samples: int) -> list[Result]:
    """Ask ``samples`` times, over eight connections that stay.

    Raises:
        UnavailableError: the site does not come up, or an answer is none.
    """
    with running_site() as site:
        asyncio.run(_ask(site, min(_WARM_UP, samples)))
        began = time.monotonic()
        delays = asyncio.run(_ask(site, samples))
        rate = len(delays) / (time.monotonic() - began)
    return [
        Result("api_requests_per_s", "requests/s", len(delays), round(rate), target=">= 1000"),
        sampled("api_request_ms", "ms", delays, target="p99 <= 20", digits=2, p99=True),
    ]


async def _ask(site: SiteProcess, count: int) -> list[float]:
    """Return ms of each request."""
    delays: list[float] = []
    asked = 0

    async def ask() -> None:
        nonlocal asked
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        request = b"GET /api/channels HTTP/1.1\r\nHost: site\r\nAccept: */*\r\n\r\n"
        while asked < count:
            asked += 1
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            if not head.startswith(b"HTTP/1.1 200") or _LENGTH not in lower:
                raise UnavailableError(f"not an answer: {head[:80]!r}")
            size = int(lower.partition(_LENGTH)[2].split(b"\r\n", 1)[0])
            await reader.readexactly(size)
            delays.append(1000 * (time.perf_counter() - began))
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(ask() for _ in range(_CONNECTIONS)))
    return delays
