"""Link discovery by LLDP (IEEE 802.1AB-2016, clauses 8 and 9), signed so that it cannot be forged.

The controller sends a frame out of a port, and learns from the port it comes in by where that port
leads. Each frame carries, in an organizationally specific TLV, the port, a sequence number and a
message authentication code under a key that never leaves the controller. A frame counts only for
a few seconds after that very port has sent it, and once at each port it arrives at.

The limit: who sits at two edge ports can carry a genuine frame from one to the other in time, and
that looks like a cable. No code can tell; so edge ports neither send frames nor are believed.
"""

import hmac
import struct
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.oxm import ETH_LLDP
from anabranch.fabric.openflow.wire import Reader, mac_bytes

NEAREST_BRIDGE = bytes.fromhex("0180c200000e")
# Locally administered, so no company's OUI or CID; the subtype is ours to number.
ORGANIZATION = bytes.fromhex("02ab7a")
PROBE_SUBTYPE = 1
LOCALLY_ASSIGNED = 7

_END, _CHASSIS_ID, _PORT_ID, _TTL, _ORGANIZATIONAL = 0, 1, 2, 3, 127
_MAX_VALUE, _MAX_ID = 511, 255
_HEADER = struct.Struct("!6s6sH")
_ETHERTYPE = ETH_LLDP.to_bytes(2, "big")
_U16 = struct.Struct("!H")
_ID = struct.Struct("!B")
_SIGNED = struct.Struct("!QIQ")
_CODE_SIZE = 16


@dataclass(frozen=True, slots=True)
class Lldpdu:
    """One LLDP data unit; identifiers as subtype (tables 8-2 and 8-3) and bytes.

    Attributes:
        ttl: seconds for which the receiver may believe it.
        others: type and value of all TLVs that follow, in their order.
    """

    chassis_id: tuple[int, bytes]
    port_id: tuple[int, bytes]
    ttl: int
    others: tuple[tuple[int, bytes], ...] = ()


def encode(unit: Lldpdu) -> bytes:
    """Return the bytes of a data unit, its end marked.

    Raises:
        MisuseError: a value does not fit.
    """
    for subtype, value in (unit.chassis_id, unit.port_id):
        if not 0 <= subtype <= 255 or not 1 <= len(value) <= _MAX_ID:
            raise MisuseError(f"no LLDP identifier: subtype {subtype}, {len(value)} bytes")
    if not 0 <= unit.ttl <= 0xFFFF:
        raise MisuseError(f"a TTL of {unit.ttl} s")
    tlvs = [
        (_CHASSIS_ID, _ID.pack(unit.chassis_id[0]) + unit.chassis_id[1]),
        (_PORT_ID, _ID.pack(unit.port_id[0]) + unit.port_id[1]),
        (_TTL, _U16.pack(unit.ttl)),
    ]
    for kind, value in unit.others:
        if not _TTL < kind <= _ORGANIZATIONAL or len(value) > _MAX_VALUE:
            raise MisuseError(f"TLV of type {kind} with {len(value)} bytes")
        tlvs.append((kind, value))
    return b"".join(_U16.pack(kind << 9 | len(value)) + value for kind, value in tlvs) + bytes(2)


def decode(data: bytes) -> Lldpdu:
    """Read a data unit; what follows its end is padding.

    Raises:
        ProtocolError: it is none (section 9.2.8.7.1: such a unit is discarded as a whole).
    """
    tlvs = _tlvs(Reader(data))
    chassis_id = _identifier(next(tlvs, None), _CHASSIS_ID)
    port_id = _identifier(next(tlvs, None), _PORT_ID)
    ttl = next(tlvs, None)
    if ttl is None or ttl[0] != _TTL or len(ttl[1]) < _U16.size:
        raise ProtocolError("LLDP without a time to live in third place")
    others = tuple(tlvs)
    for kind, value in others:
        if kind <= _TTL:
            raise ProtocolError(f"LLDP with a second TLV of type {kind}")
        if kind == _ORGANIZATIONAL and len(value) < 4:
            raise ProtocolError(f"organizationally specific TLV of {len(value)} bytes")
    return Lldpdu(chassis_id, port_id, _U16.unpack_from(ttl[1])[0], others)


def _tlvs(reader: Reader) -> Iterator[tuple[int, bytes]]:
    while len(reader):
        (head,) = reader.unpack(_U16)
        kind, length = head >> 9, head & 0x1FF
        if kind == _END:
            if length:
                raise ProtocolError(f"LLDP whose end has {length} bytes")
            return
        yield kind, reader.take(length)


def _identifier(tlv: tuple[int, bytes] | None, kind: int) -> tuple[int, bytes]:
    if tlv is None or tlv[0] != kind or not 2 <= len(tlv[1]) <= _MAX_ID + 1:
        raise ProtocolError(f"LLDP without a proper TLV of type {kind} in its place")
    return tlv[1][0], tlv[1][1:]


@dataclass(frozen=True, slots=True)
class Probe:
    """What a frame of ours says: port ``port_no`` of switch ``dpid`` sent it, as ``sequence``."""

    dpid: int
    port_no: int
    sequence: int
    code: bytes

    @property
    def signed(self) -> bytes:
        """The bytes that ``code`` vouches for."""
        return _SIGNED.pack(self.dpid, self.port_no, self.sequence)

    def frame(self, hw_addr: str, ttl: int) -> bytes:
        """Return the Ethernet frame; ``hw_addr`` is the MAC address of the port it leaves by."""
        value = ORGANIZATION + _ID.pack(PROBE_SUBTYPE) + self.signed + self.code
        unit = Lldpdu(
            (LOCALLY_ASSIGNED, f"dpid:{self.dpid:016x}".encode()),
            (LOCALLY_ASSIGNED, str(self.port_no).encode()),
            ttl,
            ((_ORGANIZATIONAL, value),),
        )
        return _HEADER.pack(NEAREST_BRIDGE, mac_bytes(hw_addr), ETH_LLDP) + encode(unit)


def is_lldp(frame: bytes) -> bool:
    """Say whether an Ethernet frame is LLDP; it is never tagged (section 7.3)."""
    return frame[12:14] == _ETHERTYPE


def probe_in(frame: bytes) -> Probe | None:
    """Return what an LLDP frame of ours says; None: it is somebody else's.

    Raises:
        ProtocolError: it is not LLDP, or calls itself ours and is not.
    """
    if not is_lldp(frame):
        raise ProtocolError("a frame that is not LLDP")
    mark = ORGANIZATION + _ID.pack(PROBE_SUBTYPE)
    unit = decode(frame[_HEADER.size :])
    ours = [value for kind, value in unit.others if kind == _ORGANIZATIONAL and value[:4] == mark]
    if not ours:
        return None
    if len(ours) > 1 or len(ours[0]) != len(mark) + _SIGNED.size + _CODE_SIZE:
        raise ProtocolError("LLDP with something else in the place of a probe")
    dpid, port_no, sequence = _SIGNED.unpack_from(ours[0], len(mark))
    return Probe(dpid, port_no, sequence, ours[0][-_CODE_SIZE:])


class Refusal(StrEnum):
    """Why a probe is not believed."""

    FORGED = "forged"
    LATE = "late or replayed"
    REPLAYED = "replayed"


@dataclass(slots=True)
class _Sent:
    port: PortRef
    at: float
    heard_at: set[PortRef] = field(default_factory=set)


class Authenticator:
    """Makes probes and knows its own again.

    Args:
        key: secret random bytes, at least 16, drawn anew by every controller.
        valid: seconds that a probe may take to arrive.
    """

    def __init__(self, key: bytes, *, valid: float = 5.0) -> None:
        if len(key) < 16:
            raise MisuseError("a key of less than 16 bytes")
        self._key = key
        self._valid = valid
        self._sequence = 0
        self._sent: OrderedDict[int, _Sent] = OrderedDict()

    def probe(self, port: PortRef, dpid: int, now: float) -> Probe:
        """Return a new probe, to be sent out of ``port`` now."""
        self._expire(now)
        self._sequence += 1
        self._sent[self._sequence] = _Sent(port, now)
        unsigned = Probe(dpid, port.port_no, self._sequence, b"")
        return Probe(dpid, port.port_no, self._sequence, self._code(unsigned))

    def accept(self, probe: Probe, at: PortRef, now: float) -> PortRef | Refusal:
        """Return the port that sent a probe which has arrived at ``at``, or why it is refused."""
        self._expire(now)
        if not hmac.compare_digest(probe.code, self._code(probe)):
            return Refusal.FORGED
        sent = self._sent.get(probe.sequence)
        if sent is None:
            return Refusal.LATE
        if at in sent.heard_at:
            return Refusal.REPLAYED
        sent.heard_at.add(at)
        return sent.port

    def _code(self, probe: Probe) -> bytes:
        return hmac.digest(self._key, probe.signed, "sha256")[:_CODE_SIZE]

    def _expire(self, now: float) -> None:
        while self._sent:
            sequence, oldest = next(iter(self._sent.items()))
            if now - oldest.at <= self._valid:
                return
            del self._sent[sequence]
