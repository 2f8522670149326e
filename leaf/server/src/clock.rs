//! The clocks of the process.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use leaf_core::Micros;
use nix::time::{ClockId, clock_gettime};

/// Now, on the system's monotonic clock: the same for all processes of a machine.
pub fn now() -> Micros {
    static START: OnceLock<(Instant, Micros)> = OnceLock::new();
    let (start, micros) = START.get_or_init(|| {
        // The clock that Instant reads on Linux; a time that all processes share is wanted.
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC);
        let micros = time.map_or(0, |time| {
            time.tv_sec() as u64 * 1_000_000 + time.tv_nsec() as u64 / 1000
        });
        (Instant::now(), micros)
    });
    micros + start.elapsed().as_micros() as u64
}

/// The wall clock of a moment, in microseconds since 1970.
///
/// It is read once: sender reports must not jump when somebody sets the clock (RFC 3550 section 4).
pub fn unix(moment: Micros) -> u64 {
    static OFFSET: OnceLock<i64> = OnceLock::new();
    let offset = OFFSET.get_or_init(|| {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        wall.as_micros() as i64 - now() as i64
    });
    moment.saturating_add_signed(*offset)
}

/// Processor time of the calling thread in seconds.
pub fn thread_seconds() -> f64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0.0, |time| {
        time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
    })
}
