"""How the gap of a take-over is read from the packets that arrived."""

import pytest

from anabranch.app.bench.rtp_sniffer import RtpPacket, extended, repeats
from anabranch.app.bench.takeover import gap_ms
from anabranch.core.errors import UnavailableError

FRAME_S = 0.04


def packet(at: float, sequence: int, timestamp: int = 0, digest: bytes = b"") -> RtpPacket:
    return RtpPacket(at, 1, 96, sequence % 0x10000, timestamp, digest)


def pictures(count: int, pause_s: float = 0.0) -> list[RtpPacket]:
    """Return pictures of two packets each, 40 ms apart, with a pause before 1 s."""
    found = []
    for number in range(count):
        at = number * FRAME_S
        at += pause_s if at >= 1.0 else 0.0
        timestamp = number * 3600
        found += [packet(at, 2 * number, timestamp), packet(at + 0.001, 2 * number + 1, timestamp)]
    return found


@pytest.mark.parametrize("pause_s", [0.0, 0.025, 0.3])
def test_the_gap_is_the_pause_beside_the_usual_time_between_pictures(pause_s: float) -> None:
    gap = gap_ms(pictures(50, pause_s), 0.99, 1.01)
    assert gap == pytest.approx(max(0.0, 1000 * pause_s - 1.0), abs=0.1)  # less the second packet


def test_a_pause_elsewhere_is_none_of_the_move() -> None:
    assert gap_ms(pictures(100, 0.3), 2.5, 2.51) == pytest.approx(0.0, abs=0.1)


def test_a_picture_that_does_not_go_on_is_no_gap() -> None:
    with pytest.raises(UnavailableError):
        gap_ms(pictures(25), 0.99, 1.01)
    with pytest.raises(UnavailableError):
        gap_ms(pictures(25), 5.0, 5.01)


def test_numbers_run_on_over_their_end_and_come_out_of_order() -> None:
    packets = [packet(0, number) for number in (65534, 65536, 65535, 65537 + 1024)]
    assert extended(packets) == [65534, 65536, 65535, 66561]


def test_only_another_packet_under_one_number_is_a_repetition() -> None:
    first, same, other = (packet(0, 7, digest=digest) for digest in (b"a", b"a", b"b"))
    assert repeats([first, same]) == 0
    assert repeats([first, same, other]) == 1
    # A cycle later it is another number.
    cycle = [packet(0, number, digest=bytes([number % 251])) for number in range(7, 65600, 100)]
    assert repeats([*cycle, packet(0, 65543, digest=b"new")]) == 0
