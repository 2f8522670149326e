"""Ports and their counters on the wire (OpenFlow 1.3.5, section 7.2.1; 1.4.1, 7.2.1 and 7.3.5)."""

import struct

from anabranch.fabric.errors import ProtocolError
from anabranch.fabric.openflow.messages import (
    UNCOUNTED,
    Port,
    PortReason,
    PortStats,
    PortStatus,
)
from anabranch.fabric.openflow.wire import Reader, duration_parts, mac_bytes, mac_text, text_of

_V14 = 5
_LENGTH = struct.Struct("!H")
_STATUS = struct.Struct("!B7x")
_PORT = struct.Struct("!I4x6s2x16sIIIIIIII")
_PORT_14 = struct.Struct("!IH2x6s2x16sII")
_ETHERNET = struct.Struct("!4xIIIIII")
_STATS = struct.Struct("!I4x12QII")
_STATS_14 = struct.Struct("!2xIII8Q")
_ETHERNET_STATS = struct.Struct("!4x4Q")
_PROPERTY = struct.Struct("!HH")
_ETHERNET_TYPE = 0


def encode_port(port: Port, version: int) -> bytes:
    """Return ``ofp_port``; since 1.4 with the one property that ordinary ports have."""
    name = port.name.encode()[:15]
    hw_addr = mac_bytes(port.hw_addr)
    speeds = (
        *(port.curr, port.advertised, port.supported, port.peer),
        *(port.curr_speed, port.max_speed),
    )
    if version < _V14:
        return _PORT.pack(port.port_no, hw_addr, name, port.config, port.state, *speeds)
    ethernet = _property(_ETHERNET.pack(*speeds))
    length = _PORT_14.size + len(ethernet)
    return _PORT_14.pack(port.port_no, length, hw_addr, name, port.config, port.state) + ethernet


def _property(body: bytes) -> bytes:
    return _PROPERTY.pack(_ETHERNET_TYPE, _PROPERTY.size + len(body)) + body


def decode_port(reader: Reader, version: int) -> Port:
    """Read ``ofp_port``; a port that tells no Ethernet speeds has zeros there.

    Raises:
        ProtocolError: it is cut short.
    """
    if version < _V14:
        port_no, hw_addr, name, *rest = reader.unpack(_PORT)
        return Port(port_no, mac_text(hw_addr), text_of(name), *rest)
    port_no, length, hw_addr, name, config, state = reader.unpack(_PORT_14)
    speeds: tuple[int, ...] = ()
    for kind, value in reader.part(length - _PORT_14.size).properties():
        if kind == _ETHERNET_TYPE and len(value) == _ETHERNET.size:
            speeds = _ETHERNET.unpack(value)
    return Port(port_no, mac_text(hw_addr), text_of(name), config, state, *speeds)


def encode_port_status(status: PortStatus, version: int) -> bytes:
    """Return the body of a port_status."""
    return _STATUS.pack(status.reason) + encode_port(status.port, version)


def decode_port_status(reader: Reader, version: int, xid: int) -> PortStatus:
    """Read the body of a port_status.

    Raises:
        ProtocolError: it is cut short or gives no known reason.
    """
    (reason,) = reader.unpack(_STATUS)
    if reason not in PortReason._value2member_map_:
        raise ProtocolError(f"port status with reason {reason}")
    return PortStatus(PortReason(reason), decode_port(reader, version), xid=xid)


def encode_port_stats(stats: PortStats, version: int) -> bytes:
    """Return one entry of a PORT_STATS reply."""
    common = (
        *(stats.rx_packets, stats.tx_packets, stats.rx_bytes, stats.tx_bytes),
        *(stats.rx_dropped, stats.tx_dropped, stats.rx_errors, stats.tx_errors),
    )
    ethernet = (stats.rx_frame_err, stats.rx_over_err, stats.rx_crc_err, stats.collisions)
    duration = duration_parts(stats.duration)
    if version < _V14:
        return _STATS.pack(stats.port_no, *common, *ethernet, *duration)
    body = _STATS_14.pack(stats.port_no, *duration, *common)
    body += _property(_ETHERNET_STATS.pack(*ethernet))
    return _LENGTH.pack(_LENGTH.size + len(body)) + body


def decode_port_stats(reader: Reader, version: int) -> PortStats:
    """Read one entry of a PORT_STATS reply.

    Raises:
        ProtocolError: it is cut short.
    """
    if version < _V14:
        *counters, seconds, nanoseconds = reader.unpack(_STATS)
        return PortStats(*(*counters, seconds + nanoseconds / 1e9))
    (length,) = reader.unpack(_LENGTH)
    entry = reader.part(length - _LENGTH.size)
    port_no, seconds, nanoseconds, *common = entry.unpack(_STATS_14)
    ethernet: tuple[int, ...] = (UNCOUNTED,) * 4
    for kind, value in entry.properties():
        if kind == _ETHERNET_TYPE and len(value) == _ETHERNET_STATS.size:
            ethernet = _ETHERNET_STATS.unpack(value)
    return PortStats(*(port_no, *common, *ethernet, seconds + nanoseconds / 1e9))
