"""The state of a switch's interfaces, told the moment it changes: link, BFD, port number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from anabranch.fabric.errors import ProtocolError
from anabranch.fabric.ovsdb.database import Database
from anabranch.fabric.ovsdb.values import Row, Value, members

_COLUMNS = ("name", "ofport", "link_state", "bfd_status", "error")


@dataclass(frozen=True, slots=True)
class InterfaceState:
    """One interface as the switch sees it.

    Attributes:
        ofport: its OpenFlow port number; None: not there yet or cannot be opened.
        link_up: carrier; None: unknown.
        forwarding: what BFD says of the path to the far end; None: BFD is off.
        bfd_state: ``admin_down``, ``down``, ``init`` or ``up``; None: BFD is off.
        bfd_diagnostic: why BFD left the state ``up`` last.
        error: why the device cannot be opened.
    """

    name: str
    ofport: int | None
    link_up: bool | None
    forwarding: bool | None
    bfd_state: str | None
    bfd_diagnostic: str | None
    error: str | None

    @property
    def usable(self) -> bool:
        """Nothing speaks against sending packets there."""
        return (
            self.ofport is not None and self.link_up is not False and self.forwarding is not False
        )


def interface_state(row: Row) -> InterfaceState:
    """Return what a row of the table Interface says.

    Raises:
        ProtocolError: a column is missing or of a strange type.
    """
    try:
        name = row["name"]
        ofport = _optional(row["ofport"], int)
        link = _optional(row["link_state"], str)
        status = row["bfd_status"]
        error = _optional(row["error"], str)
    except KeyError as missing:
        raise ProtocolError(f"an interface without {missing}") from missing
    if not isinstance(name, str) or not isinstance(status, Mapping):
        raise ProtocolError(f"not an interface: {str(row)[:80]}")
    forwarding, state = status.get("forwarding"), status.get("state")
    diagnostic = status.get("diagnostic")
    return InterfaceState(
        name=name,
        ofport=ofport if ofport is not None and ofport >= 0 else None,
        link_up=None if link is None else link == "up",
        forwarding=None if forwarding is None else forwarding == "true",
        bfd_state=None if state is None else str(state),
        bfd_diagnostic=None if diagnostic is None else str(diagnostic),
        error=error,
    )


def _optional(value: Value, kind: type) -> Any:
    atoms = members(value)
    if not atoms:
        return None
    if len(atoms) != 1 or not isinstance(atoms[0], kind):
        raise ProtocolError(f"not one {kind.__name__}: {str(value)[:80]}")
    return atoms[0]


async def watch_interfaces(
    database: Database, on_change: Callable[[str, InterfaceState | None], None]
) -> Callable[[], None]:
    """Have ``on_change(name, state)`` called for every interface now and for each later change.

    ``state`` is None when the interface is gone. Returns a function that ends the watch. Raises as
    :meth:`Database.monitor`.
    """

    def changed(_table: str, _uuid: str, old: Row | None, new: Row | None) -> None:
        before = None if old is None else interface_state(old)
        after = None if new is None else interface_state(new)
        if before is not None and (after is None or after.name != before.name):
            on_change(before.name, None)
        if after is not None and after != before:
            on_change(after.name, after)

    return await database.monitor("Interface", _COLUMNS, changed)
