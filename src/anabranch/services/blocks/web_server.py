"""An HTTP server for modules: any ASGI application, in a thread of its own beside the packets.

    def start(self) -> None:
        self._server = WebServer(application, self._address, 80)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

Uvicorn serves and h11 reads: requests that are not to the letter of RFC 9112 are refused. What
they do not limit is limited here: how long a head may take, and a client that reads nothing.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from anabranch.services.errors import ServicesError

Result = TypeVar("Result")
Application = Callable[..., Coroutine[Any, Any, None]]
HEAD_S = 10.0
"""So long may the head of a request take to come."""
_STALLED_S = 30.0
_MAX_HEAD = 32 * 1024
_START_S = 10.0
_END_S = 1.0


class WebServerError(ServicesError):
    """The server did not start, or has ended."""


class _Connection(H11Protocol):
    """Uvicorn's, which ends if a head is begun, or not even that, and does not come."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()  # also for what came behind the request

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._trust()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._trust()
        elif self._patience is None:
            self._patience = self.loop.call_later(HEAD_S, self._give_up)

    def _trust(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class WebServer:
    """A server with a thread and an event loop.

    Args:
        application: ASGI 3.
        port: 0: any that is free.
        connections: beyond so many, the answer is 503.
        dated: add a Date field; False: the application has its own.
        inside: entered in the server's event loop before the first request, left after the last.
    """

    def __init__(
        self,
        application: Application,
        address: str,
        port: int,
        *,
        connections: int = 200,
        dated: bool = True,
        inside: AbstractAsyncContextManager[Any] | None = None,
    ) -> None:
        self._application = application
        self._place = address, port
        self._connections = connections
        self._dated = dated
        self._inside = inside or nullcontext()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: uvicorn.Server | None = None
        self._ready = threading.Event()
        self._error: Exception | None = None

    @property
    def place(self) -> tuple[str, int]:
        """Address and port, as they are."""
        return self._place

    def start(self) -> None:
        """Listen, and return when requests are answered.

        Raises:
            OSError: the port cannot be had.
            WebServerError: ``inside`` failed, or hangs.
        """
        listener = _listener(self._place)
        self._place = listener.getsockname()[:2]
        self._ready.clear()
        self._error = None
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._run(listener),), name="web", daemon=True
        )
        self._thread.start()
        if not self._ready.wait(_START_S):
            raise WebServerError("the server does not start")
        if (error := self._error_of_start()) is not None:
            self._thread.join()
            self._thread = None
            raise WebServerError(str(error)) from error

    def stop(self) -> None:
        """End; what is under way has a second. One that does not run is no error."""
        if self._thread is None or self._loop is None or self._server is None:
            return
        self._server.should_exit = True
        self._thread.join()
        self._thread = self._loop = self._server = None

    def run(self, work: Coroutine[Any, Any, Result], patience: float) -> Result:
        """Run something in the server's event loop and wait for its result.

        Raises:
            WebServerError: the server does not run.
            TimeoutError: it takes longer than ``patience`` seconds; it is cancelled.
        """
        if self._loop is None:
            work.close()
            raise WebServerError("the server does not run")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(patience)
        finally:
            future.cancel()

    def _error_of_start(self) -> Exception | None:
        return self._error  # set by the thread meanwhile

    async def _run(self, listener: socket.socket) -> None:
        with listener:
            try:
                async with self._inside:
                    self._loop = asyncio.get_running_loop()
                    self._server = self._made()
                    self._ready.set()
                    await self._server.serve(sockets=[listener])
            except Exception as error:
                self._error = error
                self._ready.set()

    def _made(self) -> uvicorn.Server:
        return uvicorn.Server(
            uvicorn.Config(
                self._application,
                http=_Connection,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=self._dated,
                proxy_headers=False,
                limit_concurrency=self._connections,
                timeout_keep_alive=int(HEAD_S),
                timeout_graceful_shutdown=int(_END_S),
                h11_max_incomplete_event_size=_MAX_HEAD,
            )
        )


def _listener(place: tuple[str, int]) -> socket.socket:
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is.
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it: the kernel ends one whose other end takes nothing for so long.
        stalled = int(_STALLED_S * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stalled)
        listener.bind(place)
        listener.listen(256)
    except BaseException:
        listener.close()
        raise
    return listener
