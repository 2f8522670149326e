//! What bitrate a publisher is told that its path carries (REMB).
//!
//! A sender without such a word stays near its start rate. With nothing but its own losses to go by,
//! the rate follows them as in draft-ietf-rmcat-gcc-02 section 6: down by half of the loss above
//! 10 %, up by 8 % a second below 2 %, and as it is between.

use super::reception::Interval;

/// Loss above which the rate goes down.
const HIGH: f64 = 0.10;
/// Loss below which it goes up.
const LOW: f64 = 0.02;
const UP: f64 = 1.08;
/// In kbit/s: with less there is no picture.
const LEAST: f64 = 100.0;
/// Fewer packets tell nothing.
const FEW: u64 = 10;

/// The rate of one publisher.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    limit: f64,
    kbps: f64,
}

impl Rate {
    /// Begin with the limit, in kbit/s.
    pub fn new(limit: u32) -> Self {
        let limit = f64::from(limit);
        Self { limit, kbps: limit }
    }

    /// What came in the last second.
    pub fn follow(&mut self, interval: Interval) {
        if interval.expected < FEW {
            return;
        }
        let loss = interval.lost as f64 / interval.expected as f64;
        if loss > HIGH {
            self.kbps *= 1.0 - loss / 2.0;
        } else if loss < LOW {
            self.kbps *= UP;
        }
        self.kbps = self.kbps.max(LEAST).min(self.limit);
    }

    /// The rate in bit/s.
    pub fn bits(&self) -> u64 {
        (self.kbps * 1000.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(limit: u32, losses: &[u64]) -> u64 {
        let mut rate = Rate::new(limit);
        for lost in losses {
            let (expected, lost) = (100, *lost);
            rate.follow(Interval { expected, lost });
        }
        rate.bits()
    }

    #[test]
    fn losses_lower_it_and_their_end_raises_it_again() {
        assert_eq!(after(4000, &[]), 4_000_000);
        assert_eq!(after(4000, &[0, 0, 10, 2]), 4_000_000);
        assert_eq!(after(4000, &[20]), 3_600_000);
        assert_eq!(after(4000, &[20, 5, 2]), 3_600_000);
        assert_eq!(after(4000, &[20, 1]), 3_888_000);
        assert_eq!(after(4000, &[20, 1, 1]), 4_000_000);
        assert_eq!(after(4000, &[100; 50]), 100_000);
    }

    #[test]
    fn few_packets_tell_nothing() {
        let mut rate = Rate::new(1000);
        let (expected, lost) = (9, 9);
        rate.follow(Interval { expected, lost });
        assert_eq!(rate.bits(), 1_000_000);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_limits(
            limit in 1u32..20_000, losses in prop::collection::vec(0u64..=100, 0..60),
        ) {
            let bits = after(limit, &losses);
            prop_assert!(bits <= u64::from(limit) * 1000);
            prop_assert!(bits >= 1000 * u64::from(limit.min(100)));
        }
    }
}
