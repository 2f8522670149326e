"""A controller in a process of its own: for a site that keeps two, or for any OpenFlow network."""

import asyncio
import ipaddress
import os
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import structlog
from fastapi import FastAPI

from anabranch.app.controller_file import ControllerFile, address, socket_path
from anabranch.app.serving import (
    listen,
    listen_unix,
    operator_token,
    raise_file_limit,
    serve,
)
from anabranch.console import fabric_api, problems
from anabranch.console.control import make_control
from anabranch.console.limits import LimitBody
from anabranch.core.errors import UsageError
from anabranch.core.events import Event
from anabranch.fabric import intents_json
from anabranch.fabric.doors import server_context
from anabranch.fabric.errors import FabricError, MisuseError
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.intents import Intents
from anabranch.fabric.intents_json import Wanted
from anabranch.fabric.lease import FileLease, Lease
from anabranch.fabric.openflow.messages import ControllerRole
from anabranch.fabric.wishes import OPERATOR, Wishes, WishFile

_MAX_BODY = 64 * 1024 * 1024
_log = structlog.get_logger("anabranch.controller")


class RoleLostError(FabricError):
    """Another controller has taken over."""


class ControllerProcess:
    """One controller: stands by until it holds the lease, then is at work as long as it does.

    Raises:
        UsageError: the lease cannot be had on this machine.
    """

    def __init__(self, file: ControllerFile) -> None:
        self._file = file
        self._lost = asyncio.Event()
        self._lease = _lease(file)
        self._wishes = Wishes(WishFile(file.state) if file.state is not None else None)
        self._paths = tuple(path.path() for path in file.paths)
        self.fabric = Fabric(file.options(), self._happened)

    @property
    def active(self) -> bool:
        return self._lease is None or self._lease.held

    async def run(self) -> None:
        """Control until SIGINT or SIGTERM.

        Raises:
            MisuseError: the file contradicts itself.
            ConflictError: an address is taken.
            FabricError: the lease, the state or the certificates cannot be used.
            StoreError: the lease's database cannot be used.
            RoleLostError: another controller has taken over: end, and start anew.
        """
        raise_file_limit()
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        intents = (
            intents_json.from_plain(self._file.intents) if self._file.intents is not None else None
        )
        await self._wishes.load()
        if self._lease is not None:
            await self._lease.check()
        with _listen(self._file.api) as listener:
            try:
                if self._lease is not None:
                    await self.fabric.controller.take_role(ControllerRole.SLAVE, 0)
                await self._meet_switches()
                async with asyncio.TaskGroup() as group:
                    _log.info(
                        "controller.up",
                        openflow=self._file.listen,
                        api=self._file.api,
                        dialling=sum(s.connect is not None for s in self._file.switches),
                    )
                    tasks = [
                        group.create_task(self.fabric.run(), name="fabric"),
                        group.create_task(self._serve(listener), name="api"),
                        group.create_task(self._until_lost(), name="role"),
                    ]
                    # At the same time: what is wanted is to be known as a whole.
                    if intents is not None or self._lease is None:
                        wanted = intents if intents is not None else Intents()
                        work = self._want(lambda: self.fabric.put(wanted, "file"))
                        tasks.append(group.create_task(work, name="intents"))
                    if self._paths:
                        work = self._want(lambda: self.fabric.follow(self._paths))
                        tasks.append(group.create_task(work, name="paths"))
                    work = self._restore() if self._lease is None else self._share(self._lease)
                    tasks.append(group.create_task(work, name="work"))
                    await stop.wait()
                    for task in tasks:
                        task.cancel()
            finally:
                await self.fabric.close()
                if self._lease is not None:
                    self._lease.release()

    async def _meet_switches(self) -> None:
        file = self._file
        for switch in file.switches:
            if switch.connect is not None:
                await self.fabric.controller.connect_unix(switch.connect, switch.name)
        if file.listen is not None:
            host, port = address(file.listen)
            await self.fabric.controller.listen_tcp(host, port, tls=self._tls())
            if file.tls is None and not _is_loopback(host):
                _log.warning("controller.unprotected", openflow=file.listen)

    def _tls(self) -> ssl.SSLContext | None:
        tls = self._file.tls
        return None if tls is None else server_context(tls.certificate, tls.key, tls.ca)

    async def _want(self, ask: Callable[[], Awaitable[frozenset[str]]]) -> None:
        try:
            await ask()
        except MisuseError:  # the file contradicts itself
            raise
        except FabricError:
            pass  # logged; the fabric tries again by itself

    async def _restore(self) -> None:
        """Want what operators wanted, together with everything else that is wanted."""
        if self._file.state is None:
            return
        owners = {own: it for own, it in self.fabric.owners().items() if own != OPERATOR}
        given = Wanted(owners, self._paths)
        await self._want(lambda: self._wishes.restore(self.fabric, given))

    async def _share(self, lease: Lease) -> None:
        """Be at work whenever the lease can be had, and stand by when it is lost, for ever."""
        while True:
            generation = await lease.acquire()
            async with asyncio.TaskGroup() as group:
                working = group.create_task(self._take_over(generation), name="take-over")
                reason = await lease.keep()
                working.cancel()
            self.fabric.publish(Event("controller.standby", str(os.getpid()), {"reason": reason}))
            self._wishes.stand_by()
            with suppress(FabricError):  # one that is out of reach hears it from the next master
                await self.fabric.controller.take_role(ControllerRole.SLAVE, generation)

    async def _take_over(self, generation: int) -> None:
        await self._wishes.load()  # whoever was at work until now has changed it
        await self._restore()  # a slave writes nothing: its tables are whole when it may
        await self.fabric.controller.take_role(ControllerRole.MASTER, generation)
        self.fabric.publish(Event("controller.active", str(os.getpid())))

    async def _until_lost(self) -> None:
        await self._lost.wait()
        raise RoleLostError("another controller has taken over")

    def _happened(self, event: Event) -> None:
        _log.info(event.kind, subject=event.subject, **dict(event.data))
        if event.kind == "controller.role_lost" and self.active:
            self._lost.set()

    async def _serve(self, listener: socket.socket) -> None:
        app = FastAPI(title="Anabranch controller", docs_url=None, redoc_url=None)
        app.state.fabric = self.fabric
        problems.install(app)
        app.add_middleware(LimitBody, limit=_MAX_BODY)
        if listener.family == socket.AF_UNIX:
            app.include_router(make_control(self.fabric, lambda: self.active))
        if self._file.token is not None:
            token = operator_token(self._file.token)
            app.include_router(fabric_api.make_router(token, wishes=self._wishes))
        await serve(app, listener, None)


def _listen(where: str) -> AbstractContextManager[socket.socket]:
    """Listen at ``unix:PATH`` or ``ADDRESS:PORT``. Raises as :meth:`ControllerProcess.run`."""
    if (path := socket_path(where)) is not None:
        return listen_unix(path)
    return listen(*address(where))


def _lease(file: ControllerFile) -> Lease | None:
    if file.lease is None or isinstance(file.lease, Path):
        return FileLease(file.lease) if file.lease is not None else None
    try:
        from anabranch.store.lease import DatabaseLease
    except ImportError as error:
        raise UsageError(
            f"the lease's driver is missing ({error.name}): pip install 'anabranch[postgresql]'"
        ) from error
    return DatabaseLease(file.lease.get_secret_value(), file.lease_name)


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
