"""NetMonitor in WebAssembly counts what the one in Python counts."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.services.packets import ip, leaving, slots_of, udp, udp_segment
from tests.services.wasm.guests import MONITOR, loaded, run

from anabranch.services import modules
from anabranch.services.archive import pack
from anabranch.services.batch import Batch
from anabranch.services.modules.netmonitor.netmonitor import NetMonitor
from anabranch.services.testkit import TestKit

FLOWS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)), max_size=40)
CODE = (MONITOR / "netmonitor.wat").read_bytes()


@given(st.lists(FLOWS.filter(bool), min_size=1, max_size=4))
def test_it_counts_as_the_other_does(batches: list[list[tuple[int, int, int]]]) -> None:
    ours, other, successor = loaded(CODE), NetMonitor(), loaded(CODE)
    for number, flows in enumerate(batches):
        packets = [udp(b"x" * 20, f"10.0.0.{s}", f"10.0.1.{d}", ttl=t) for s, d, t in flows]
        slots = slots_of(*packets)
        run(ours, slots)
        assert leaving(slots) == packets
        other.process(Batch(slots, slots.whole()))
        if number == 1:
            successor.restore_state(ours.take_state())
            ours = successor
    found, expected = dict(ours.status()), dict(other.status())
    assert found.pop("elsewhere") == 0
    # which of equal counts are among the ten largest is nobody's to say
    counts = [sorted(each.values()) for each in (found, expected)]
    assert counts[0] == counts[1]
    assert found["flows"] == expected["flows"]
    for name in found.keys() & expected.keys():
        assert found[name] == expected[name]


def test_what_has_no_place_is_counted_all_the_same() -> None:
    ours = loaded(CODE)
    packets = [udp(b"", f"10.{i >> 8 & 255}.{i & 255}.1") for i in range(6000)]
    for begin in range(0, len(packets), 256):
        run(ours, slots_of(*packets[begin : begin + 256], slot=256))
    status = ours.status()
    assert status["counted"] == 6000
    flows = int(status["flows"])
    assert flows <= 4096
    assert status["elsewhere"] == 6000 - flows


def test_ipv6_is_counted_by_its_hop_limit() -> None:
    six = ("2001:db8::1", "2001:db8::2")
    ours = loaded(CODE)
    run(ours, slots_of(ip(17, *six, udp_segment(b"", *six, (1, 2)), ttl=9)))
    assert ours.status()["0.0.0.0_0.0.0.0_9"] == 1


def test_in_the_kit_and_in_an_archive(tmp_path: Path) -> None:
    kit = TestKit.of_directory(MONITOR)
    report = kit.run([udp(b"x", ttl=number % 3 + 1) for number in range(600)])
    kit.close()
    assert (report.given, report.forwarded, report.errors) == (600, 600, [])
    assert report.status["10.1.0.1_10.2.0.1_1"] == 200
    archive = pack(MONITOR)
    assert [str(each) for each in archive.manifest().requirements] == ["wasmtime"]
    assert archive.manifest().entry_files == ("netmonitor.wat",)
    assert pack(Path(modules.__file__).parent / "netmonitor").manifest().requirements
