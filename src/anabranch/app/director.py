"""The director: the process of a site, and the one place where its long-lived tasks start."""

import asyncio
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from anabranch.app.config import Config, check_run_dir, site_settings
from anabranch.app.tls import certificate_for
from anabranch.console.api import make_app
from anabranch.console.callbacks import make_callbacks
from anabranch.core.errors import ConflictError, UsageError
from anabranch.host.journal import Journal, hold
from anabranch.site.settings import SiteSettings
from anabranch.site.site import Site

_log = structlog.get_logger("anabranch.director")

Progress = Callable[[str], None]


async def direct(config: Config, *, progress: Progress, on_air: Callable[[Site], None]) -> None:
    """Run a site until SIGINT or SIGTERM, and leave nothing of it behind.

    Args:
        config: what the operator set.
        progress: told each step while the site comes up.
        on_air: called once when it is up.

    Raises:
        AnabranchError: it cannot come up; whatever it made is removed again.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with _site(config, progress) as (site, servers), asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(site.run(), name="carriage"),
            group.create_task(site.write_log(), name="event-log"),
            *(group.create_task(server, name=name) for name, server in servers.items()),
        ]
        on_air(site)
        await stop.wait()
        progress("going off the air")
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def _site(config: Config, progress: Progress) -> AsyncIterator[tuple[Site, dict[str, Any]]]:
    """Bring a site up; whatever happens, take it down again and undo its journal."""
    settings = site_settings(config)
    check_run_dir(config, make=True)
    with hold(settings.run_dir, f"the site {config.site}"):
        pair = certificate_for(config) if config.tls.enabled else None
        journal = Journal(settings.run_dir)
        if any(journal.entries()):
            progress("removing what an earlier run left")
            await asyncio.to_thread(journal.undo)
        with _listen(config.host, config.port) as console, _listen("127.0.0.1", 0) as callbacks:
            settings = replace(settings, callback_port=callbacks.getsockname()[1])
            _make_directories(config, settings)
            journal.record("run", settings.run_id)
            site = Site(settings, journal)
            try:
                await site.start(progress)
                token = operator_token(config.token_file)
                yield (
                    site,
                    {
                        "console": _serve(make_app(site, token=token), console, pair),
                        "rtmp-callbacks": _serve(make_callbacks(site), callbacks, None),
                    },
                )
            finally:
                progress("removing processes, namespaces and links")
                await site.stop()
                await asyncio.to_thread(journal.undo)


def _make_directories(config: Config, settings: SiteSettings) -> None:
    try:
        config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(f"cannot make {error.filename}: {error.strerror}") from error


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is: without
    # that, answers wait 40 ms for the other side's delayed acknowledgement.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(256)
        except (OSError, UnicodeError) as error:
            raise ConflictError(
                f"cannot listen on {host}:{port}: {getattr(error, 'strerror', error)};"
                " set ANABRANCH_LISTEN, or `listen` in anabranch.yaml"
            ) from error
        yield listener


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: signals are the director's business."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(app: Any, listener: socket.socket, pair: tuple[Path, Path] | None) -> None:
    options: dict[str, Any] = {}
    if pair is not None:
        options = {"ssl_certfile": str(pair[0]), "ssl_keyfile": str(pair[1])}
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            server_header=False,
            **options,
        )
    )
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        # Open event streams would hold the end back: cut, they end as if their client had left.
        for connection in list(server.server_state.connections):
            if connection.transport is not None:
                connection.transport.close()
        with suppress(asyncio.CancelledError):
            await serving


def operator_token(path: Path) -> str:
    """Return the operator's token, drawn and kept at the first start.

    An empty file is one that could not be written: nobody's token, so another is drawn.

    Raises:
        UsageError: it cannot be read or kept.
    """
    try:
        if path.is_file() and (kept := path.read_text("ascii").strip()):
            return kept
        token = secrets.token_urlsafe(32)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(token + "\n")
    except (OSError, UnicodeError) as error:
        raise UsageError(f"the operator's token cannot be kept in {path}: {error}") from error
    return token


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
