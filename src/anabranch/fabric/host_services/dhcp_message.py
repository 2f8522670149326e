"""DHCP messages, as far as a switch has to understand them (RFC 2131, section 2; RFC 2132)."""

import struct
from dataclasses import dataclass
from enum import IntEnum

from anabranch.fabric.errors import ProtocolError
from anabranch.fabric.openflow.wire import Reader, ipv4_text, mac_text

BOOTREQUEST, BOOTREPLY = 1, 2
_ETHERNET = 1
_COOKIE = b"\x63\x82\x53\x63"
_FIXED = struct.Struct("!BBBBIHH4s4s4s4s16s64x128x4s")
_PAD, _MESSAGE_TYPE, _SERVER_ID, _END = 0, 53, 54, 255
_MAX_LENGTH = 4096  # no Ethernet carries more unfragmented, and nobody sends that much
_NOBODY = "0.0.0.0"


class DhcpType(IntEnum):
    """Option 53 (RFC 2132, section 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


@dataclass(frozen=True, slots=True)
class DhcpMessage:
    """One message; addresses are None where the message has zeros.

    Attributes:
        op: BOOTREQUEST of a client or BOOTREPLY of a server.
        chaddr: the client's MAC address.
        ciaddr, yiaddr: the address that the client has, and the one that it is given.
        server_id: option 54.
    """

    op: int
    type: DhcpType
    xid: int
    chaddr: str
    ciaddr: str | None = None
    yiaddr: str | None = None
    server_id: str | None = None


def parse_dhcp(data: bytes) -> DhcpMessage:
    """Return the message in a UDP datagram's ``data``.

    Options in ``sname`` and ``file`` (option 52) are not read: no message type is put there.

    Raises:
        ProtocolError: it is none, is cut short or too long, or its message type is missing,
            unknown or not one for its ``op``.
    """
    if len(data) > _MAX_LENGTH:
        raise ProtocolError(f"DHCP message of {len(data)} bytes")
    reader = Reader(data)
    op, htype, hlen, _, xid, _, _, ciaddr, yiaddr, _, _, chaddr, cookie = reader.unpack(_FIXED)
    if cookie != _COOKIE or (htype, hlen) != (_ETHERNET, 6) or op not in (BOOTREQUEST, BOOTREPLY):
        raise ProtocolError("not a DHCP message for Ethernet")
    options = _parse_options(reader)
    kind = options.get(_MESSAGE_TYPE, b"")
    if len(kind) != 1 or kind[0] not in DhcpType._value2member_map_:
        raise ProtocolError(f"DHCP message of type {kind[:8]!r}")
    server = options.get(_SERVER_ID)
    if server is not None and len(server) != 4:
        raise ProtocolError(f"DHCP server identifier of {len(server)} bytes")
    message = DhcpMessage(
        op,
        DhcpType(kind[0]),
        xid,
        mac_text(chaddr[:6]),
        _address(ciaddr),
        _address(yiaddr),
        None if server is None else _address(server),
    )
    answers = message.type in (DhcpType.OFFER, DhcpType.ACK, DhcpType.NAK)
    if answers != (op == BOOTREPLY):
        raise ProtocolError(f"DHCP {message.type.name} from the wrong side")
    return message


def _parse_options(reader: Reader) -> dict[int, bytes]:
    """Read options up to the end mark; of one that comes twice the parts are joined (RFC 3396)."""
    options: dict[int, bytes] = {}
    while len(reader):
        code = reader.take(1)[0]
        if code == _END:
            return options
        if code != _PAD:
            options[code] = options.get(code, b"") + reader.take(reader.take(1)[0])
    return options


def _address(raw: bytes) -> str | None:
    text = ipv4_text(raw)
    return None if text == _NOBODY else text
