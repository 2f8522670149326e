"""What is made of the frames round a change of channel."""

from anabranch.app.bench.pictures import MIXED, Frame, judge


def frames(*seen: tuple[float, int, float | None]) -> list[Frame]:
    return list(seen)


def test_a_change_without_a_flaw() -> None:
    zap = judge(
        frames((900, 0, 150), (940, 0, 150), (980, 0, 150), (1020, 1, 190), (1060, 1, 150)),
        key_at=950,
        channel=1,
        steady_ms=150,
    )
    assert (zap.clean_ms, zap.live_ms) == (70, 70)
    assert (zap.mixed, zap.freezes, zap.longest_gap_ms) == (0, 0, 40)


def test_frames_of_neither_channel_are_mixed_and_late_ones_not_live() -> None:
    zap = judge(
        frames((0, 0, 100), (40, MIXED, None), (300, 1, 900), (340, 1, 500), (380, 1, 150)),
        key_at=10,
        channel=1,
        steady_ms=100,
    )
    assert (zap.clean_ms, zap.live_ms) == (290, 370)
    assert (zap.mixed, zap.freezes, zap.longest_gap_ms) == (1, 1, 260)


def test_what_does_not_come_is_none() -> None:
    zap = judge(frames((0, 0, 100), (40, 0, 100)), key_at=10, channel=1, steady_ms=100)
    assert (zap.clean_ms, zap.live_ms) == (None, None)
    still_late = judge(frames((20, 1, 900)), key_at=10, channel=1, steady_ms=100)
    assert (still_late.clean_ms, still_late.live_ms) == (10, None)
