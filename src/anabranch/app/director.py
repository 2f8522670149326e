"""The director: the process of a site, and the one place where its long-lived tasks start."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import structlog

from anabranch.app.config import Config
from anabranch.app.serving import listen_by_both, operator_token, raise_file_limit, serve
from anabranch.app.settings import check_run_dir, site_settings
from anabranch.app.succession import listen_for_callbacks, succeeded, succeeding
from anabranch.app.tls import certificate_for
from anabranch.console.api import make_app
from anabranch.console.callbacks import make_callbacks
from anabranch.console.people.doors import Doors
from anabranch.console.people.people import People
from anabranch.core.errors import AnabranchError, UsageError
from anabranch.host.journal import Journal, hold
from anabranch.site.settings import RemoteSettings, SiteSettings
from anabranch.site.site import Site
from anabranch.tree.soleil.messages import Endpoint
from anabranch.tree.transport.tunnels import Tunnels

_log = structlog.get_logger("anabranch.director")

Progress = Callable[[str], None]
_SETTLED_S = 60.0
"""A director that fails after that long is followed by another; before, by nothing."""


async def direct(config: Config, *, progress: Progress, on_air: Callable[[Site], None]) -> None:
    """Run a site until SIGINT or SIGTERM, and leave nothing of it behind.

    SIGUSR2 has the director begin anew, as another life of this process, while viewers play on; so
    does an error that nobody expected, once the site is settled.

    Args:
        config: what the operator set.
        progress: told each step while the site comes up.
        on_air: called once when it is up.

    Raises:
        AnabranchError: it cannot come up; whatever it made is removed again.
    """
    raise_file_limit()
    loop = asyncio.get_running_loop()
    told: asyncio.Future[bool] = loop.create_future()

    def tell(again: bool) -> None:
        if not told.done():
            told.set_result(again)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        loop.add_signal_handler(number, tell, number == signal.SIGUSR2)
    async with _site(config, progress) as (site, servers):
        began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(site.run(), name="carriage"),
                    group.create_task(site.log.write(), name="event-log"),
                    *(group.create_task(server, name=name) for name, server in servers.items()),
                ]
                on_air(site)
                if await told:
                    await _begin_anew(site, progress)
                progress("going off the air")
                for task in tasks:
                    task.cancel()
        except* Exception:
            if time.monotonic() - began < _SETTLED_S:
                raise
            _log.critical("director.failed", exc_info=True)
            await _begin_anew(site, progress)


async def _begin_anew(site: Site, progress: Progress) -> NoReturn:
    """Become the next director in the same process; it takes over what is up (decision 37)."""
    progress("beginning anew")
    with suppress(AnabranchError):  # the store is not there: what the leaf servers know remains
        await site.seats.flush()
    await site.log.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # until the next one listens: by default it kills
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # our own command


Up = tuple[Site, dict[str, Any]]
"""A site that is up, and by name what is to be served beside it."""


@asynccontextmanager
async def _site(config: Config, progress: Progress) -> AsyncIterator[Up]:
    """Bring a site up; whatever happens, take it down again and undo its journal.

    Where it cannot go on with what an earlier run left, it begins anew.
    """
    settings = site_settings(config)
    check_run_dir(config, make=True)
    with hold(settings.run_dir, f"the site {config.site}"):
        pair = certificate_for(config) if config.tls.enabled else None
        journal = Journal(settings.run_dir)
        with listen_by_both(config.host, config.port) as console:
            async with AsyncExitStack() as stack:
                succeeds = any(journal.entries())
                run = partial(_run, config, settings, journal, progress, console, pair)
                if succeeds:
                    progress("what an earlier run left")
                try:
                    up = await stack.enter_async_context(run())
                except AnabranchError as error:
                    if not succeeds:
                        raise
                    _log.error("succession.failed", error=str(error))
                    up = await stack.enter_async_context(run())
                yield up


@asynccontextmanager
async def _run(
    config: Config,
    settings: SiteSettings,
    journal: Journal,
    progress: Progress,
    console: list[socket.socket],
    pair: tuple[Path, Path] | None,
) -> AsyncIterator[Up]:
    try:
        async with succeeding(settings, journal) as settings:
            with listen_for_callbacks(settings) as (settings, callbacks):
                async with _up(config, settings, journal, progress) as (site, people, app):
                    asked = site.rtmp_callbacks or callbacks
                    yield (
                        site,
                        {
                            "console": serve(app, console, pair),
                            "doors": Doors(site, people).keep(),
                            "rtmp-callbacks": serve(make_callbacks(site), asked, None),
                        },
                    )
    finally:
        await asyncio.to_thread(journal.undo)


@asynccontextmanager
async def _up(
    config: Config, settings: SiteSettings, journal: Journal, progress: Progress
) -> AsyncIterator[tuple[Site, People, Any]]:
    """Have a site up; beside it, its people and the application that is served."""
    _make_directories(config, settings)
    journal.record("run", settings.run_id)
    site = Site(settings, journal)
    tunnels = None if settings.remote is None else Tunnels(_door(settings.remote))
    try:
        await site.start(progress)
        token = operator_token(config.token_file)
        people = People(site.database, site.audience, token)
        await people.load()
        app = make_app(site, token=token, people=people, tunnels=tunnels)
        await succeeded(settings)
        yield site, people, app
    finally:
        progress("removing processes, namespaces and links")
        if tunnels is not None:
            await tunnels.close()
        await site.stop()


def _door(remote: RemoteSettings) -> Endpoint:
    """Return where this machine itself reaches its listener for nodes."""
    host, port = remote.listen
    return Endpoint({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)


def _make_directories(config: Config, settings: SiteSettings) -> None:
    try:
        config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(f"cannot make {error.filename}: {error.strerror}") from error


class Steps:
    """Progress as named steps, each with how long it took."""

    def __init__(self, show: Callable[[str, float | None], None]) -> None:
        self._show = show
        self._at: str | None = None
        self._since = time.monotonic()

    def __call__(self, text: str) -> None:
        self.finish()
        self._at, self._since = text, time.monotonic()
        self._show(text, None)

    def finish(self) -> None:
        """Say that the present step is done."""
        if self._at is not None:
            self._show(self._at, time.monotonic() - self._since)
            self._at = None
