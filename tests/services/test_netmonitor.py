"""NetMonitor counts what plain Python counts."""

from collections import Counter
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st
from tests.services.packets import leaving, slots_of, udp

from anabranch.services.batch import Batch
from anabranch.services.modules.netmonitor.netmonitor import NetMonitor

FLOWS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)), max_size=40)


@given(st.lists(FLOWS, max_size=4))
def test_counts(batches: list[list[tuple[int, int, int]]]) -> None:
    monitor, successor = NetMonitor(), NetMonitor()
    expected: Counter[tuple[int, int, int]] = Counter()
    for number, flows in enumerate(batches):
        packets = [udp(b"x" * 20, f"10.0.0.{s}", f"10.0.1.{d}", ttl=t) for s, d, t in flows]
        for s, d, t in flows:
            key = int(IPv4Address(f"10.0.0.{s}")), int(IPv4Address(f"10.0.1.{d}")), t
            expected[key] += 1
        if packets:
            slots = slots_of(*packets)
            monitor.process(Batch(slots, slots.whole()))
            assert leaving(slots) == packets
        if number == 1:
            successor.restore_state(monitor.take_state())
            monitor = successor
    assert monitor.counts() == expected
    assert monitor.status()["counted"] == sum(expected.values())


def test_flows_that_share_a_place_are_counted_right() -> None:
    """20,000 flows do not fit the table: those without a place are in the dictionary."""
    monitor = NetMonitor()
    packets = [udp(b"", f"10.{i >> 8 & 255}.{i & 255}.1") for i in range(20_000)]
    for begin in range(0, len(packets), 256):
        slots = slots_of(*packets[begin : begin + 256], slot=256)
        monitor.process(Batch(slots, slots.whole()))
        monitor.process(Batch(slots, slots.whole()))
    counts = monitor.counts()
    assert len(counts) == 20_000
    assert set(counts.values()) == {2}
