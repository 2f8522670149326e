"""A guest that has come: what its machine fulfils, and the wait until that is what it was told."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from anabranch.fabric.bridges import Bridge
from anabranch.fabric.errors import FabricError
from anabranch.tree.peering import LOST_AFTER_S

_FOLLOW_S = 20.0
"""Seconds in which a guest must have made what it was told."""
_LOOK_S = 0.5


@dataclass
class Presence:
    """A guest's stay, from its HELLO to its goodbye.

    Attributes:
        key: its WireGuard key.
        bridge: how its switch shall be; None: that is not known yet.
        holding: digest of the terms that it fulfils.
        again_at: when it is to be made part of the site, monotonic seconds; None: that is done.
        over: it has said goodbye, was removed, or has come anew.
    """

    key: str
    bridge: Bridge | None = None
    holding: str | None = None
    again_at: float | None = 0.0
    over: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def hold(self, digest: str | None) -> None:
        """Note which terms it fulfils."""
        self.holding = digest
        self._changed.set()

    def end(self) -> None:
        """Note that it waits for nothing more."""
        self.over = True
        self._changed.set()

    async def until_holding(self, digest: Callable[[], str], is_there: Callable[[], bool]) -> None:
        """Return when it fulfils the terms of this digest, which may change meanwhile.

        One that is away may be back at once, and is waited for as long as a silent peer is: not
        for all of the 20 s that it has when it is there, as the whole site waits with us.

        Raises:
            FabricError: it has left, stays away, or does not do what it is told.
        """
        loop = asyncio.get_running_loop()
        there_at = loop.time()
        end = there_at + _FOLLOW_S
        while not self.over:
            if self.holding == digest():
                return
            now = loop.time()
            if is_there():
                there_at = now
            if now - there_at >= LOST_AFTER_S:
                raise FabricError("it is away")
            if now >= end:
                raise FabricError("it does not do what it is told")
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._changed.wait()
        raise FabricError("it has left")
