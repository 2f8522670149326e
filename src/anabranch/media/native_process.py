"""The process of our own leaf server, supervised, and the connection to it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from anabranch.host.process import Child, ChildSpec, ProcessError
from anabranch.media.leaf import LeafError, LeafPlace, LeafUnavailableError
from anabranch.media.leaf_binary import find_server
from anabranch.media.leaf_client import LeafClient
from anabranch.media.leaf_protocol import LeafEvent
from anabranch.media.native_log import relay

_HANGS_AFTER_S = 5.0
"""Seconds in which a server that runs must answer."""
_START_S = 20.0
"""Seconds in which it must have come up at the site's start."""
_AGAIN_S = 0.02
_log = structlog.get_logger("anabranch.leaf")


class LeafProcess:
    """Keeps one server running and connected.

    Args:
        place: where it lives; viewers' packets all arrive at the first of its media ports.
        threads: how many of them carry packets.
        on_event: gets what the server says unasked.
        resume: brings a server that has just been connected to where it shall be; may raise
            :class:`~anabranch.media.leaf.LeafError`. Only then viewers are taken.
        on_cut: called when the connection has ended; what the server has may still be there.
        on_gone: called when the process has ended, and with it all that it had.
        kind: of its name as a child.
        serves: its arguments, in place of those for viewers.
    """

    def __init__(
        self,
        place: LeafPlace,
        threads: int,
        *,
        on_event: Callable[[LeafEvent], None],
        resume: Callable[[LeafClient], Awaitable[None]],
        on_cut: Callable[[], None],
        on_gone: Callable[[], None],
        kind: str = "leaf",
        serves: Sequence[str] | None = None,
    ) -> None:
        self._place = place
        self._threads = threads
        self._on_event = on_event
        self._resume = resume
        self._on_cut = on_cut
        self._on_gone = on_gone
        self._kind = kind
        self._serves = serves
        self._control = place.directory / "control.sock"
        self._client: LeafClient | None = None
        self._connector: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self.child: Child | None = None
        self.fingerprint = ""

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    @property
    def adopted(self) -> bool:
        """Whether what runs was started by an earlier director."""
        return self.child is not None and self.child.adopted

    async def start(self) -> None:
        """Start it and wait until it takes viewers.

        Raises:
            LeafUnavailableError: it is not installed, or does not come up.
        """
        name, argv = self._place.name, self._command()
        self._place.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.child = Child(
            ChildSpec(
                name=f"{self._kind}:{name}",
                argv=argv,
                netns=self._place.netns,
                first_delay=0.02,
                max_delay=0.5,
                lasting=self._serves is None,
            ),
            self._place.run_id,
            on_line=lambda _stream, line: relay(name, line),
            on_start=lambda _pid: self._begin_connecting(),
            on_exit=lambda _code: self._exited(),
        )
        try:
            await self.child.start()
            await asyncio.wait_for(self._ready.wait(), _START_S)
        except ProcessError as error:
            raise LeafUnavailableError(str(error)) from error
        except TimeoutError:
            last = self.child.last_lines[-1] if self.child.last_lines else "no output"
            raise LeafUnavailableError(
                f"the leaf server of {name} does not come up: {last}"
            ) from None

    def _command(self) -> tuple[str, ...]:
        server = (str(find_server()), "serve", "--control", str(self._control))
        if self._serves is not None:
            return (*server, *self._serves)
        port = self._place.media_ports[0]
        addresses = (*self._place.media_addresses, *self._place.inner_addresses)
        return (
            *server,
            *(word for at in addresses for word in ("--listen", _at(at, port))),
            *("--threads", str(self._threads)),
            *("--identity", str(self._place.directory / "identity.pem")),
        )

    async def stop(self) -> None:
        """End it; ``on_gone`` is called."""
        if self._connector is not None:
            self._connector.cancel()
            await asyncio.gather(self._connector, return_exceptions=True)
        client = self._client
        self._cut()
        if client is not None:
            await client.close()
        if self.child is not None:
            await self.child.stop()
        self._on_gone()

    def connected(self) -> LeafClient:
        """Return the connection.

        Raises:
            LeafUnavailableError: there is none that viewers can be taken by.
        """
        if self._client is None:
            raise LeafUnavailableError(f"leaf {self._place.name} is starting; try again")
        return self._client

    def _begin_connecting(self) -> None:
        if self._connector is not None:
            self._connector.cancel()
        self._connector = asyncio.create_task(
            self._connect(), name=f"leaf-connect:{self._place.name}"
        )

    async def _connect(self) -> None:
        """Connect to the server and resume; end one that does not answer."""
        trouble: LeafError | None = None
        try:
            async with asyncio.timeout(_HANGS_AFTER_S):
                while True:
                    try:
                        await self._connect_once()
                    except LeafError as error:
                        trouble = error
                    else:
                        return
                    await asyncio.sleep(_AGAIN_S)
        except TimeoutError:
            why = str(trouble) if trouble is not None else None
            _log.warning("leaf.hangs", leaf=self._place.name, error=why)
            self._kill()

    async def _connect_once(self) -> None:
        client = LeafClient(
            self._control,
            on_event=self._on_event,
            on_lost=lambda hangs: self._lost(client, hangs=hangs),
        )
        try:
            hello = await client.connect()
            await self._resume(client)
        except BaseException:
            self._cut()
            await client.close()
            raise
        self.fingerprint = hello.fingerprint
        self._client = client
        self._ready.set()

    def _lost(self, client: LeafClient, *, hangs: bool) -> None:
        if client is not self._client:
            return  # the one who connects has noticed
        _log.warning("leaf.disconnected", leaf=self._place.name, hangs=hangs)
        self._cut()
        if hangs:
            self._kill()  # supervision starts a fresh one
        elif self.child is not None and self.child.running:
            self._begin_connecting()

    def _exited(self) -> None:
        self._cut()
        self._on_gone()

    def _cut(self) -> None:
        self._ready.clear()
        client, self._client = self._client, None
        if client is not None:
            client.cut()
        self._on_cut()

    def _kill(self) -> None:
        if self.child is not None:
            self.child.kill()


def _at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
