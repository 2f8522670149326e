"""RTP headers of a batch, beside those that dpkt writes."""

import dpkt
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.services.packets import slots_of, tcp, udp

from anabranch.services.batch import Batch
from anabranch.services.blocks.rtp import rtp_fields


def batch_of(*packets: bytes) -> Batch:
    slots = slots_of(*packets)
    return Batch(slots, slots.whole())


def rtp(**fields: int) -> bytes:
    return bytes(dpkt.rtp.RTP(data=b"payload", **fields))


def test_fields_are_read() -> None:
    batch = batch_of(
        udp(rtp(pt=96, m=1, seq=65535, ts=0xFFFFFFFE, ssrc=0xDEADBEEF)),
        udp(rtp(pt=0, m=0, seq=1, ts=2, ssrc=3)),
    )
    fields = rtp_fields(batch)
    assert fields.is_rtp.all()
    assert fields.marker.tolist() == [True, False]
    assert fields.payload_type.tolist() == [96, 0]
    assert fields.sequence_number.tolist() == [65535, 1]
    assert fields.timestamp.tolist() == [0xFFFFFFFE, 2]
    assert fields.ssrc.tolist() == [0xDEADBEEF, 3]
    assert bytes(batch.packets[0, fields.payload_start[0] :][:7]) == b"payload"


def test_the_payload_is_behind_csrcs_and_extension() -> None:
    head = bytearray(rtp(pt=96, seq=5)[:12])
    head[0] = 0x80 | 0x10 | 2
    whole = bytes(head) + bytes(8) + b"\xbe\xde\x00\x01abcd" + b"payload"
    batch = batch_of(udp(whole))
    fields = rtp_fields(batch)
    assert bytes(batch.packets[0, fields.payload_start[0] :][:7]) == b"payload"
    cut = udp(whole[:22])
    assert not rtp_fields(batch_of(cut)).is_rtp.any()


def test_what_is_no_rtp_is_told_apart() -> None:
    rtcp = b"\x80\xc8\x00\x06" + bytes(24)
    stun = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
    fields = rtp_fields(
        batch_of(udp(rtcp), udp(stun), udp(b"\x80\x60short"), tcp(rtp(seq=9)), udp(rtp(seq=7)))
    )
    assert fields.is_rtp.tolist() == [False, False, False, False, True]
    assert fields.sequence_number.tolist() == [0, 0, 0, 0, 7]


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=6))
def test_any_payload_is_read(payloads: list[bytes]) -> None:
    batch = batch_of(*map(udp, payloads))
    fields = rtp_fields(batch)
    assert np.all(fields.payload_start[fields.is_rtp] <= batch.length[fields.is_rtp])
