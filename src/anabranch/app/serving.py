"""Serving HTTP: sockets, uvicorn, and the operator's token."""

import asyncio
import os
import resource
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn

from anabranch.app.http_protocol import BoundedProtocol
from anabranch.app.public import in_url
from anabranch.core.errors import ConflictError, UsageError
from anabranch.core.files import write_private
from anabranch.host.addresses import ipv6


def raise_file_limit() -> None:
    """Let this process have as many open files as it may: every switch and viewer needs one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def listen(host: str, port: int, *, apart: bool = False) -> Iterator[socket.socket]:
    """Listen at an address.

    Args:
        apart: at ``::`` take no IPv4, for which there is another listener.

    Raises:
        ConflictError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is: without
    # that, answers wait 40 ms for the other side's delayed acknowledgement.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if apart:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind((host, port))
            listener.listen(256)
        except (OSError, UnicodeError) as error:
            raise ConflictError(
                f"cannot listen on {in_url(host)}:{port}: {getattr(error, 'strerror', error)};"
                " set ANABRANCH_LISTEN, or `listen` in anabranch.yaml"
            ) from error
        yield listener


@contextmanager
def listen_by_both(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Listen at an address; at ``::`` by IPv4, too, and by that alone where there is no IPv6.

    Each family has a socket of its own, so that clients' IPv4 addresses are told as such.

    Raises:
        ConflictError: it cannot be had.
    """
    with ExitStack() as stack:
        if host != "::":
            yield [stack.enter_context(listen(host, port))]
            return
        listeners = [stack.enter_context(listen("0.0.0.0", port))]
        if ipv6() != "absent":
            port = listeners[0].getsockname()[1]  # the same, also where any would do
            listeners.append(stack.enter_context(listen(host, port, apart=True)))
        yield listeners


@contextmanager
def listen_unix(path: Path) -> Iterator[socket.socket]:
    """Listen at a Unix socket for its owner alone; a stale one is replaced.

    Raises:
        ConflictError: it cannot be had.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            path.unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            listener.listen(64)
        except OSError as error:
            raise ConflictError(f"cannot listen at {path}: {error.strerror or error}") from error
        yield listener


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: signals are the director's business."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    app: Any, listener: socket.socket | list[socket.socket], pair: tuple[Path, Path] | None
) -> None:
    """Serve ``app`` until cancelled, at one or several sockets.

    ``pair`` is certificate and key, for HTTPS.
    """
    listeners = listener if isinstance(listener, list) else [listener]
    options: dict[str, Any] = {}
    if pair is not None:
        options = {"ssl_certfile": str(pair[0]), "ssl_keyfile": str(pair[1])}
    server = _Server(
        uvicorn.Config(
            app,
            http=BoundedProtocol,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            # Longer than pages poll: a change of channel shall not wait for a new connection.
            timeout_keep_alive=75,
            ws_max_size=64 * 1024,
            server_header=False,
            **options,
        )
    )
    serving = asyncio.ensure_future(server.serve(sockets=listeners))
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
        write_private(path, f"{token}\n".encode())
    except (OSError, UnicodeError) as error:
        raise UsageError(f"the operator's token cannot be kept in {path}: {error}") from error
    return token
