"""RTP headers of a whole batch, as arrays (RFC 3550, 5.1; RFC 7983 for what is RTP at all)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anabranch.services.batch import Batch
from anabranch.services.frames import UDP, Mask

HEADER_BYTES = 12
_RTCP = (64, 95)
"""What the payload type of RTP would be in an RTCP packet (RFC 5761, 4)."""


@dataclass(frozen=True, slots=True)
class RtpFields:
    """One element a packet of the batch; where ``is_rtp`` is false all else is 0.

    Attributes:
        is_rtp: a whole UDP packet with version 2 and room for its header; not RTCP.
        marker: the M bit.
        payload_type: 0 to 127.
        sequence_number: 0 to 65535.
        timestamp: in units of the payload's clock.
        ssrc: the synchronisation source.
        payload_start: bytes from the IP header to the payload, behind CSRCs and extension.
    """

    is_rtp: Mask
    marker: Mask
    payload_type: NDArray[np.uint8]
    sequence_number: NDArray[np.uint16]
    timestamp: NDArray[np.uint32]
    ssrc: NDArray[np.uint32]
    payload_start: NDArray[np.int64]


def rtp_fields(batch: Batch) -> RtpFields:
    """Read the RTP headers of all packets that have one."""
    found = np.zeros(len(batch), np.bool_)
    head = np.zeros((len(batch), HEADER_BYTES), np.uint8)
    start, end = batch.payload_start, batch.length
    packets = batch.packets
    room = (batch.protocol == UDP) & ~batch.fragment & (end - start >= HEADER_BYTES)
    rows = np.flatnonzero(room)
    head[rows] = packets[rows[:, None], start[rows, None] + np.arange(HEADER_BYTES)]
    kind = head[:, 1] & 0x7F
    found = room & (head[:, 0] >> 6 == 2) & ~((kind >= _RTCP[0]) & (kind <= _RTCP[1]))
    payload = start + HEADER_BYTES + (head[:, 0] & 15).astype(np.int64) * 4
    extended = np.flatnonzero(found & (head[:, 0] & 0x10 != 0))
    payload[extended] += 4
    extended = extended[payload[extended] <= end[extended]]
    at = payload[extended] - 4
    words = packets[extended, at + 2].astype(np.int64) << 8 | packets[extended, at + 3]
    payload[extended] += words * 4
    found &= payload <= end
    head[~found] = 0
    payload[~found] = 0
    return RtpFields(
        is_rtp=found,
        marker=head[:, 1] >> 7 == 1,
        payload_type=(head[:, 1] & 0x7F).astype(np.uint8),
        sequence_number=_big_endian(head, 2, ">u2").astype(np.uint16),
        timestamp=_big_endian(head, 4, ">u4").astype(np.uint32),
        ssrc=_big_endian(head, 8, ">u4").astype(np.uint32),
        payload_start=payload,
    )


def _big_endian(head: NDArray[np.uint8], at: int, kind: str) -> NDArray[np.unsignedinteger]:
    size = np.dtype(kind).itemsize
    return np.ascontiguousarray(head[:, at : at + size]).view(kind)[:, 0]
