"""What a process that serves asks of its own system, and where it listens."""

import asyncio
import resource
import socket

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from anabranch.app import serving
from anabranch.app.serving import listen, listen_by_both, raise_file_limit, serve
from anabranch.core.errors import ConflictError
from anabranch.core.tasks import end_task


def test_a_process_may_open_as_many_files_as_the_system_lets_it() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[0], 1024) - 1, hard))
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_both_families_are_served_and_told_as_they_are() -> None:
    async def who(request: Request) -> PlainTextResponse:
        assert request.client is not None
        return PlainTextResponse(request.client.host)

    with listen_by_both("::", 0) as listeners:
        by_4, by_6 = listeners
        port = by_4.getsockname()[1]
        assert by_6.getsockname()[1] == port
        app = Starlette(routes=[Route("/", who)])
        serving = asyncio.create_task(serve(app, listeners, None))
        async with httpx.AsyncClient() as client:
            for host, seen in (("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")):
                assert (await client.get(f"http://{host}:{port}/")).text == seen
        await end_task(serving)


def test_a_machine_without_ipv6_is_listened_at_by_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "ipv6", lambda: "absent")
    with listen_by_both("::", 0) as listeners:
        assert [each.family for each in listeners] == [socket.AF_INET]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
def test_a_certain_address_has_one_listener(host: str) -> None:
    with listen_by_both(host, 0) as (only,):
        assert only.getsockname()[0] == host


def test_a_port_that_one_family_lacks_is_not_had_by_the_other() -> None:
    with listen("::", 0, apart=True) as taken:
        port = taken.getsockname()[1]
        words = rf"cannot listen on \[::\]:{port}: .* in use"
        with pytest.raises(ConflictError, match=words), listen_by_both("::", port):
            pass
        with listen("0.0.0.0", port):  # which was given back
            pass
