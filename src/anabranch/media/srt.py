"""What an SRT listener's packet says of whoever it is for: let in, or not. Pure.

Source: draft-sharabayko-srt-01, sections 3.2 (control packets) and 4.3 (handshake).
"""

import struct

_CONTROL = 0x8000
_HANDSHAKE, _KEEPALIVE, _ACK, _NAK = range(4)
_CONCLUSION = 0xFFFFFFFF
_VERSION = 5
_HEADER = struct.Struct("!HHIII")  # type, subtype, type-specific, timestamp, destination socket
_FIXED = struct.Struct("!IHHIIIII")  # version, encryption, extension, ISN, MTU, window, type, id


def lets_in(datagram: bytes) -> bool:
    """Say whether a listener sends this only to a caller that it has let in.

    That is the answer to its conclusion, if it is no refusal (whose type is a reason, 1000 or
    more); or what belongs to a connection: acknowledgements, loss reports, keep-alives. A wrong
    passphrase is refused, so what is let in has the right one.
    """
    if len(datagram) < _HEADER.size:
        return False
    kind, _, _, _, _ = _HEADER.unpack_from(datagram)
    if kind in (_CONTROL | _KEEPALIVE, _CONTROL | _ACK, _CONTROL | _NAK):
        return True
    if kind != _CONTROL | _HANDSHAKE or len(datagram) < _HEADER.size + _FIXED.size:
        return False
    version, _, _, _, _, _, step, _ = _FIXED.unpack_from(datagram, _HEADER.size)
    return bool(version == _VERSION and step == _CONCLUSION)


def calls(datagram: bytes) -> bool:
    """Say whether this is a caller's wish to be let in: a handshake packet."""
    return (
        len(datagram) >= _HEADER.size + _FIXED.size
        and _HEADER.unpack_from(datagram)[0] == _CONTROL | _HANDSHAKE
    )
