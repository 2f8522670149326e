"""What switches tell when they are asked: counters, and what they hold."""

from collections.abc import Callable
from typing import TypeVar

from anabranch.fabric.openflow.connection import Connection
from anabranch.fabric.openflow.messages import (
    Entry,
    FlowStats,
    GroupDesc,
    GroupStats,
    MeterConfig,
    MeterStats,
    MultipartRequest,
    MultipartType,
    PortStats,
)

_E = TypeVar("_E", bound=Entry)


class Readings:
    """Asks switches by name.

    Every method raises DisconnectedError if the switch is not connected, and FabricError if it
    does not answer or refuses to.

    Args:
        connected: returns the connection of a switch, or raises DisconnectedError.
    """

    def __init__(self, connected: Callable[[str], Connection]) -> None:
        self._connected = connected

    async def ports(self, switch: str) -> list[PortStats]:
        """Return the counters of every port."""
        return await self._ask(switch, MultipartType.PORT_STATS, PortStats)

    async def flows(self, switch: str) -> list[FlowStats]:
        """Return every flow entry."""
        return await self._ask(switch, MultipartType.FLOW, FlowStats)

    async def group_stats(self, switch: str) -> list[GroupStats]:
        """Return the counters of every group."""
        return await self._ask(switch, MultipartType.GROUP_STATS, GroupStats)

    async def group_descriptions(self, switch: str) -> list[GroupDesc]:
        """Return every group that the switch says it holds."""
        return await self._ask(switch, MultipartType.GROUP_DESC, GroupDesc)

    async def meter_configs(self, switch: str) -> list[MeterConfig]:
        """Return every meter that the switch says it holds."""
        return await self._ask(switch, MultipartType.METER_CONFIG, MeterConfig)

    async def meter_stats(self, switch: str) -> list[MeterStats]:
        """Return the counters of every meter."""
        return await self._ask(switch, MultipartType.METER_STATS, MeterStats)

    async def _ask(self, switch: str, kind: MultipartType, record: type[_E]) -> list[_E]:
        entries = await self._connected(switch).ask(MultipartRequest(kind))
        return [entry for entry in entries if isinstance(entry, record)]
