"""The transaction that makes of a switch what it shall be: only the difference, all or nothing.

Nothing is done here: :func:`changes` compares a description with the database's rows and returns
the operations that are missing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anabranch.fabric.bridges import Bfd, Bridge, Internal, Port, Tls, check
from anabranch.fabric.ovsdb.values import (
    Atom,
    NewRow,
    Row,
    Uuid,
    Value,
    encode,
    encode_row,
    members,
    same,
)

PROTOCOLS = ("OpenFlow13", "OpenFlow14", "OpenFlow15")
_NONE: tuple[Atom, ...] = ()

Operation = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows of the database that a description is compared with, by row identity."""

    root: Row = field(default_factory=dict)
    bridges: Mapping[Uuid, Row] = field(default_factory=dict)
    ports: Mapping[Uuid, Row] = field(default_factory=dict)
    interfaces: Mapping[Uuid, Row] = field(default_factory=dict)
    controllers: Mapping[Uuid, Row] = field(default_factory=dict)
    ssl: Mapping[Uuid, Row] = field(default_factory=dict)


TABLES: Mapping[str, tuple[str, ...]] = {
    "Open_vSwitch": ("bridges", "ssl"),
    "Bridge": (
        "name", "datapath_type", "fail_mode", "protocols", "other_config", "controller", "ports",
    ),
    "Port": ("name", "tag", "trunks", "vlan_mode", "interfaces"),
    "Interface": ("name", "type", "options", "ofport_request", "bfd", "mtu_request"),
    "Controller": ("target", "max_backoff", "inactivity_probe"),
    "SSL": ("private_key", "certificate", "ca_cert"),
}  # fmt: skip


def reading() -> list[Operation]:
    """Return the operations whose results :func:`snapshot` takes, table by table of TABLES."""
    return [
        {"op": "select", "table": table, "where": [], "columns": ["_uuid", *columns]}
        for table, columns in TABLES.items()
    ]


def snapshot(found: Sequence[Sequence[Row]]) -> Snapshot:
    """Return the rows that :func:`reading` found, in its order."""
    tables: list[dict[Uuid, Row]] = [
        {Uuid(row["_uuid"]): row for row in rows} for rows in found
    ]  # fmt: skip
    root = next(iter(tables[0].values()), {})
    return Snapshot(root, *tables[1:])


def changes(
    wanted: Sequence[Bridge],
    present: Snapshot,
    *,
    tls: Tls | None = None,
    keep_others: bool = False,
) -> list[Operation]:
    """Return the operations that make ``wanted`` of ``present``; none if nothing is missing.

    Ports that are not wanted go, bridges too unless ``keep_others``. Rows that nothing refers to
    are removed by the database itself.

    Raises:
        MisuseError: see :func:`check`.
    """
    check(wanted)
    work = _Work(present)
    bridges = [work.bridge(bridge) for bridge in wanted]
    if keep_others:
        names = {bridge.name for bridge in wanted}
        bridges += [u for u, row in present.bridges.items() if row["name"] not in names]
    root: dict[str, Value] = {"bridges": tuple(bridges)}
    if tls is not None:
        row: Row = {
            "private_key": tls.private_key,
            "certificate": tls.certificate,
            "ca_cert": tls.ca_cert,
        }
        there = members(present.root.get("ssl", ()))
        root["ssl"] = work.row("SSL", Uuid(there[0]) if there else None, present.ssl, row)
    differing = _differing(present.root, root)
    if differing:
        where: list[Any] = []
        work.operations.append(
            {"op": "update", "table": "Open_vSwitch", "where": where, "row": encode_row(differing)}
        )
    return work.operations


class _Work:
    """Collects operations and finds the rows that there are."""

    def __init__(self, present: Snapshot) -> None:
        self.operations: list[Operation] = []
        self._present = present
        self._bridges = {row["name"]: uuid for uuid, row in present.bridges.items()}
        self._ports = {row["name"]: uuid for uuid, row in present.ports.items()}
        self._interfaces = {row["name"]: uuid for uuid, row in present.interfaces.items()}

    def row(self, table: str, uuid: Uuid | None, rows: Mapping[Uuid, Row], row: Row) -> str:
        """Make a row equal to ``row``, or insert it; return how to refer to it."""
        if uuid is None:
            name = NewRow(f"new{len(self.operations)}")
            self.operations.append(
                {"op": "insert", "table": table, "row": encode_row(row), "uuid-name": str(name)}
            )
            return name
        differing = _differing(rows[uuid], row)
        if differing:
            where = [["_uuid", "==", encode(uuid)]]
            self.operations.append(
                {"op": "update", "table": table, "where": where, "row": encode_row(differing)}
            )
        return uuid

    def bridge(self, bridge: Bridge) -> str:
        local = Internal(name=bridge.name, ofport=1, tag=bridge.local_tag)
        ports = [self._port(local, None, bridge.mtu)]
        ports += [self._port(port, port.ofport, None) for port in bridge.ports]
        uuid = self._bridges.get(bridge.name)
        other_config: dict[Atom, Atom] = {"disable-in-band": "true"}
        if bridge.dpid is not None:
            other_config["datapath-id"] = f"{bridge.dpid:016x}"
            if bridge.address is not None:
                # Else it is the lowest of the ports', which changes as ports come and go.
                other_config["hwaddr"] = (
                    (0x02 << 40 | bridge.dpid & (1 << 40) - 1).to_bytes(6, "big").hex(":")
                )
        return self.row("Bridge", uuid, self._present.bridges, {
            "name": bridge.name,
            "datapath_type": "netdev",
            "fail_mode": str(bridge.fail_mode),
            "protocols": PROTOCOLS,
            "other_config": other_config,
            "controller": tuple(self._controllers(bridge, uuid)),
            "ports": tuple(ports),
        })  # fmt: skip

    def _port(self, port: Port, ofport: int | None, mtu: int | None) -> str:
        interface = self.row(
            "Interface", self._interfaces.get(port.name), self._present.interfaces, {
                "name": port.name,
                "type": port.type_(),
                "options": port.options(),
                "ofport_request": ofport if ofport is not None else _NONE,
                "bfd": _bfd(port.bfd),
                "mtu_request": mtu if mtu is not None else _NONE,
            },
        )  # fmt: skip
        return self.row("Port", self._ports.get(port.name), self._present.ports, {
            "name": port.name,
            "tag": port.tag if port.tag is not None else _NONE,
            "trunks": port.trunks,
            "vlan_mode": _NONE,
            "interfaces": (interface,),
        })  # fmt: skip

    def _controllers(self, bridge: Bridge, uuid: Uuid | None) -> Iterable[str]:
        rows = self._present.controllers
        own = members(self._present.bridges[uuid]["controller"]) if uuid is not None else ()
        there = {rows[Uuid(one)]["target"]: Uuid(one) for one in own}
        for controller in bridge.controllers:
            row: Row = {
                "target": controller.target,
                "max_backoff": 1000,  # the least that the schema allows, in ms
                "inactivity_probe": controller.inactivity_probe_ms,
            }
            yield self.row("Controller", there.get(controller.target), rows, row)


def _bfd(bfd: Bfd | None) -> Value:
    if bfd is None:
        return {}
    return {
        "enable": "true",
        "min_tx": str(bfd.min_tx_ms),
        "min_rx": str(bfd.min_rx_ms),
        "mult": str(bfd.multiplier),
        "decay_min_rx": "0",
    }


def _differing(there: Row, wanted: Row) -> Row:
    return {
        column: value
        for column, value in wanted.items()
        if column not in there or not same(there[column], value)
    }
