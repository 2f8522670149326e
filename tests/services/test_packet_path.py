"""Rings and packet path, with memory of our own in the place of the kernel's and no network."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.services.packets import ip, tcp, udp

from anabranch.services.batch import Batch
from anabranch.services.chain import Chain, Link
from anabranch.services.module import Module
from anabranch.services.rings.receive import (
    ETHERNET_AT,
    LONGEST_FRAME,
    SLOT_BYTES,
    ReceiveRing,
    slots_of,
)
from anabranch.services.rings.transmit import Transmitter
from anabranch.services.sandbox.addressing import FixedAddresses
from anabranch.services.sandbox.packet_path import PacketPath

BLOCKS, BLOCK_BYTES = 3, 4 * SLOT_BYTES + 100
SLOTS = slots_of(BLOCKS, BLOCK_BYTES)
MACS = bytes.fromhex("020000000001020000000002")
CAME = b"\xaa" * 12


class Guard(Module):
    """Drops, changes, answers and lets pass, by what is in a packet."""

    def process(self, batch: Batch) -> None:
        batch.drop(batch.ttl < 5)
        batch.rewrite((batch.destination_port == 80) & batch.waiting, destination_port=8080)
        for index in np.flatnonzero((batch.destination_port == 7) & batch.waiting).tolist():
            batch.reply(index)


class Memory:
    """Stands for the socket whose ring is mapped, and for what the kernel does there."""

    def __init__(self) -> None:
        self._file = os.memfd_create("ring")
        os.truncate(self._file, BLOCKS * BLOCK_BYTES)
        self._next = 0

    def fileno(self) -> int:
        return self._file

    def close(self) -> None:
        os.close(self._file)

    def put(self, frame: bytes) -> None:
        """Lay a frame into the next slot, cut off where it does not fit."""
        kept = frame[:LONGEST_FRAME]
        block, slot = divmod(self._next, SLOTS // BLOCKS)
        at = block * BLOCK_BYTES + slot * SLOT_BYTES
        os.pwrite(self._file, kept, at + ETHERNET_AT)
        words = np.array([1, len(frame), len(kept)], np.uint32)
        os.pwrite(self._file, words.tobytes(), at)
        self._next = (self._next + 1) % SLOTS


class Line:
    """A path between a ring and the end of a line."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.far, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.far.setblocking(False)
        self.ring = ReceiveRing(self.memory, BLOCKS, BLOCK_BYTES)  # type: ignore[arg-type]
        self.transmitter = Transmitter(near, SLOTS)
        chain = Chain(lambda link, error: pytest.fail(f"{link}: {error}"))
        chain.links.append(Link("guard", Guard()))
        self.path = PacketPath(self.ring, self.transmitter, chain, FixedAddresses(MACS))

    def sent(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self.far.recv(4096))
            except BlockingIOError:
                return found


@contextmanager
def line() -> Iterator[Line]:
    made = Line()
    try:
        yield made
    finally:
        made.far.close()
        made.transmitter.close()
        made.ring.close()


FRAMES = st.one_of(
    st.builds(
        lambda payload, port, ttl: CAME + b"\x08\x00" + udp(payload, ports=(9, port), ttl=ttl),
        st.binary(max_size=40), st.sampled_from([7, 80, 5060]), st.sampled_from([3, 64]),
    ),
    st.builds(lambda payload: CAME + b"\x08\x00" + tcp(payload), st.binary(max_size=40)),
    st.builds(lambda body: CAME + b"\x86\xdd" + ip(17, "2001:db8::1", "2001:db8::2", body),
              st.binary(max_size=40)),
    st.binary(min_size=14, max_size=100),
    st.just(CAME + b"\x08\x00" + udp(bytes(2500))),
)  # fmt: skip


@given(st.lists(FRAMES, max_size=SLOTS), st.integers(0, SLOTS - 1))
def test_a_packet_that_comes_alone_fares_as_among_others(frames: list[bytes], start: int) -> None:
    with line() as alone, line() as together:
        for each in (alone, together):
            for _ in range(start):  # the ring goes round somewhere else each time
                each.memory.put(CAME + b"\x08\x00" + udp(ttl=3))
            while each.path.turn():
                pass
        for frame in frames:
            alone.memory.put(frame)
            assert alone.path.turn() == 1
            together.memory.put(frame)
        while together.path.turn():
            pass
        assert alone.sent() == together.sent()
        assert alone.path.turn() == together.path.turn() == 0
        counted = ("received", "sent", "dropped")
        for name in counted:
            assert getattr(alone.path, name) == getattr(together.path, name)


def test_what_nobody_touches_goes_on_as_it_came_but_for_its_addresses() -> None:
    packet = udp(b"hello", ports=(9, 5060))
    with line() as made:
        made.memory.put(CAME + b"\x08\x00" + packet)
        assert made.path.turn() == 1
        assert made.sent() == [MACS + b"\x08\x00" + packet]


def test_a_frame_that_cannot_go_out_is_counted() -> None:
    with line() as made:
        made.far.close()
        for _ in range(2):
            made.memory.put(CAME + b"\x08\x00" + udp(b"x"))
        assert made.path.turn() == 2
        made.memory.put(CAME + b"\x08\x00" + udp(b"x"))
        assert made.path.turn() == 1
        assert made.transmitter.refused == 3
        assert made.path.sent == 0
