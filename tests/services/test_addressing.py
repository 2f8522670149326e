"""MAC addresses of what leaves a sandbox."""

from ipaddress import IPv4Address

import numpy as np
import pytest
from tests.services.packets import udp

from anabranch.services.batch import Batch
from anabranch.services.frames import ETHERNET_BYTES
from anabranch.services.sandbox.addressing import FixedAddresses, KeptAddresses
from anabranch.services.slots import Slots

ROUTER, HERE = bytes(range(6)), bytes(range(6, 12))
ROOM, AT = 256, 16
PEERS = {"10.1.0.1": b"\x02AAAAA", "10.1.0.2": b"\x02BBBBB", "10.2.0.1": b"\x02SSSSS"}


def world(*ends: tuple[str, str]) -> tuple[np.ndarray, Slots, Batch]:
    """Return frames between these addresses, their slots and batch."""
    memory = np.zeros((len(ends), ROOM), np.uint8)
    sizes = []
    for row, (source, destination) in zip(memory, ends, strict=True):
        packet = udp(b"hello", source=source, destination=destination)
        frame = PEERS[destination] + PEERS[source] + b"\x08\x00" + packet
        start = AT - ETHERNET_BYTES
        row[start : start + len(frame)] = np.frombuffer(frame, np.uint8)
        sizes.append(len(frame))
    slots = Slots(memory, AT, np.array(sizes, np.uint32))
    return memory[:, AT - ETHERNET_BYTES :], slots, Batch(slots, slots.whole())


def addresses(frames: np.ndarray) -> list[bytes]:
    return [frame[:12].tobytes() for frame in frames]


def emitted(destination: str, source: str = "10.9.9.9") -> bytes:
    return udp(b"more", source=source, destination=destination)


UP = ("10.1.0.1", "10.2.0.1")
UP_2 = ("10.1.0.2", "10.2.0.1")


def test_on_a_router_all_go_to_the_router() -> None:
    frames, slots, batch = world(UP, UP_2)
    batch.drop(0)
    rows, _ = slots.leaving()
    before = addresses(frames)
    fixed = FixedAddresses(ROUTER + HERE)
    fixed.set(frames, rows, slots)
    assert addresses(frames) == [before[0], ROUTER + HERE]
    assert fixed.of(frames, slots, emitted("10.1.0.1")) == ROUTER + HERE


@pytest.mark.parametrize("which", [None, 0, 1])
def test_on_a_switch_answers_go_back_and_all_else_goes_on(which: int | None) -> None:
    frames, slots, batch = world(UP, UP_2)
    before = addresses(frames)
    batch.reply(which, b"yes")
    rows, _ = slots.leaving()
    KeptAddresses().set(frames, rows, slots)
    for row, (was, now) in enumerate(zip(before, addresses(frames), strict=True)):
        assert now == (was[6:] + was[:6] if which in (None, row) else was)


def test_a_batch_that_nobody_touched_stays_as_it_is() -> None:
    frames, slots, _ = world(UP)
    before = addresses(frames)
    rows, _ = slots.leaving()
    KeptAddresses().set(frames, rows, slots)
    assert addresses(frames) == before


def test_a_packet_of_a_modules_own_goes_where_its_batch_says() -> None:
    frames, slots, _ = world(UP, UP_2)
    kept = KeptAddresses()
    assert kept.of(frames, slots, emitted("10.2.0.1"))[:6] == PEERS["10.2.0.1"]
    assert kept.of(frames, slots, emitted("10.1.0.2")) == PEERS["10.1.0.2"] + PEERS["10.2.0.1"]
    assert kept.of(frames, slots, emitted("10.7.0.1")) is None
    assert kept.of(frames, slots, b"\x60" + bytes(60)) is None
    later, of_later, _ = world(UP)
    assert kept.of(later, of_later, emitted("10.1.0.2"))[:6] == PEERS["10.1.0.2"], "it is known"


def test_what_was_sent_elsewhere_teaches_nothing() -> None:
    frames, slots, batch = world(UP)
    batch.rewrite(destination=int(IPv4Address("10.7.0.1")))
    assert KeptAddresses().of(frames, slots, emitted("10.7.0.1")) is None


def test_answers_teach_where_their_hosts_are() -> None:
    frames, slots, batch = world(UP)
    batch.reply(None, b"yes")
    rows, _ = slots.leaving()
    kept = KeptAddresses()
    kept.set(frames, rows, slots)
    assert kept.of(frames, slots, emitted("10.1.0.1"))[:6] == PEERS["10.1.0.1"]


def test_no_more_is_remembered_than_has_room() -> None:
    kept = KeptAddresses()
    for number in range(600):
        address = str(IPv4Address("10.3.0.0") + number)
        PEERS[address] = number.to_bytes(6, "big")
        frames, slots, _ = world(("10.1.0.1", address))
        assert kept.of(frames, slots, emitted(address)) is not None
    frames, slots, _ = world(UP)
    assert kept.of(frames, slots, emitted("10.3.0.0")) is None
    assert kept.of(frames, slots, emitted("10.3.2.87")) is not None
