//! The clocks of this machine, which all of its processes share.

use nix::time::{ClockId, clock_gettime};

/// Microseconds of `CLOCK_MONOTONIC`, as Python's `time.monotonic_ns()` counts them, too.
pub type Micros = u64;

/// The present time.
#[must_use]
pub fn now() -> Micros {
    read(ClockId::CLOCK_MONOTONIC)
}

/// How far the clock by which the kernel stamps packets, `CLOCK_REALTIME`, is ahead of [`now`].
#[must_use]
pub fn realtime_offset() -> Micros {
    // Who is interrupted between the two reads finds too little: the most of some is nearest.
    let tries = (0..16).map(|_| read(ClockId::CLOCK_REALTIME).saturating_sub(now()));
    tries.max().unwrap_or(0)
}

fn read(clock: ClockId) -> Micros {
    // Fails for clocks that do not exist; these two do on every Linux.
    let time = clock_gettime(clock).expect("the clock exists");
    micros(time.tv_sec(), time.tv_nsec())
}

/// Seconds and nanoseconds as microseconds; what is below zero counts as zero.
pub(crate) fn micros(seconds: i64, nanoseconds: i64) -> Micros {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    seconds.saturating_mul(1_000_000) + u64::try_from(nanoseconds).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_the_offset_stays() {
        let (before, offset) = (now(), realtime_offset());
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(now() >= before + 2_000);
        assert!(realtime_offset().abs_diff(offset) < 1_000_000);
    }

    #[test]
    fn impossible_times_are_no_panic() {
        assert_eq!(micros(-1, -1), 0);
        assert_eq!(micros(2, 3_999), 2_000_003);
    }
}
