"""Reaching other nodes: over a Unix socket where there is one, by other ways, or TCP with TLS."""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from anabranch.core.errors import UnavailableError
from anabranch.tree.events import Target
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity
from anabranch.tree.soleil.messages import Endpoint
from anabranch.tree.transport.channel import Channel

_CONNECT_S = 2.0
_HANDSHAKE_S = 5.0
_SHUTDOWN_S = 1.0


@dataclass(frozen=True, slots=True)
class Nearby:
    """Nodes of this machine: ``root`` names the root, each listens at ``directory``/NAME.sock."""

    directory: Path
    root: str

    def path(self, name: str | None) -> Path:
        """Return where the node listens, the root if None."""
        return self.directory / f"{name or self.root}.sock"

    def identity(self, name: str | None) -> Identity:
        """Return who is there: the directory is this user's alone."""
        return Identity(name or self.root, Role.ROOT if name is None else Role.RELAY)


class Way(Protocol):
    """How nodes are reached where TCP does not go: :mod:`.nats`, :mod:`.http`."""

    async def connect(
        self,
        target: Target,
        channel: Callable[[Identity | None], Channel],
        context: ssl.SSLContext | None,
    ) -> None:
        """Connect a new channel to ``target``; the arguments are those of :func:`dial`.

        Raises:
            UnavailableError: it cannot be reached so.
        """


async def dial(
    targets: Iterable[Target],
    channel: Callable[[Target, Identity | None], Channel],
    context: ssl.SSLContext | None,
    nearby: Nearby | None = None,
    ways: Iterable[Way] = (),
) -> None:
    """Connect to the first of ``targets`` that answers; addresses are tried in their order.

    Args:
        channel: makes the protocol of a connection; the identity is given where it is known
            without TLS.
        context: None: only nodes nearby, and by ``ways``, are reached.
        ways: tried before the addresses.

    Raises:
        UnavailableError: nobody answers; the message says why at each address.
    """
    faults = []
    for target in targets:
        if nearby is not None and (path := nearby.path(target.name)).exists():
            try:
                await _connect_unix(path, partial(channel, target, nearby.identity(target.name)))
                return
            except (OSError, TimeoutError) as error:
                faults.append(f"{path}: {reason_of(error)}")
        for way in ways:
            try:
                await way.connect(target, partial(channel, target), context)
                return
            except UnavailableError as error:
                faults.append(str(error))
        for at in target.at if context is not None else ():
            try:
                await _connect(at, context, partial(channel, target, None))
                return
            except (OSError, TimeoutError, UnicodeError) as error:  # the last: no host's name
                faults.append(f"{at.host}:{at.port}: {reason_of(error)}")
    raise UnavailableError("; ".join(faults) or "no address is known")


async def _connect_unix(path: Path, channel: Callable[[], Channel]) -> None:
    async with asyncio.timeout(_CONNECT_S):
        await asyncio.get_running_loop().create_unix_connection(channel, str(path))


async def _connect(
    at: Endpoint, context: ssl.SSLContext | None, channel: Callable[[], Channel]
) -> None:
    async with asyncio.timeout(_CONNECT_S + _HANDSHAKE_S):
        await asyncio.get_running_loop().create_connection(
            channel,
            at.host,
            at.port,
            ssl=context,
            server_hostname="",
            ssl_handshake_timeout=_HANDSHAKE_S,
            ssl_shutdown_timeout=_SHUTDOWN_S,
            happy_eyeballs_delay=0.25,
        )


def reason_of(error: Exception) -> str:
    """Return one line for a person."""
    return str(error) or "no answer"
