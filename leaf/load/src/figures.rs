//! What is counted, of one viewer or of many.

use std::ops::AddAssign;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock::Micros;
use crate::reception::Counts;

/// Delays above this count as this: a minute.
const LONGEST: Micros = 60_000_000;

/// Counts of one viewer, or sums of many.
///
/// What stands inside of packets is only counted in those that were looked into: all of them with
/// `--sample 1`, and always those up to the first key frame and those that a change is awaited in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Different RTP packets of picture and sound.
    pub packets: u64,
    /// Bytes of all RTP packets, with headers and tags.
    pub bytes: u64,
    /// RTP packets that are missing.
    pub lost: u64,
    /// Packets that came behind later ones.
    pub reordered: u64,
    /// Packets that came after they were asked for.
    pub recovered: u64,
    /// Packets that came twice: a fault of the sender.
    pub duplicates: u64,
    /// Packets more than 2,048 behind the newest.
    pub ancient: u64,
    /// Packets that could not be opened, or were of no known kind: a fault of the sender.
    pub unreadable: u64,
    /// Packets that the kernel dropped as this process did not take them in time.
    pub overflows: u64,
    /// Packets looked into.
    pub inspected: u64,
    /// Key frames seen.
    pub key_frames: u64,
    /// Times that the picture came of another stream than before.
    pub changes: u64,
    /// Packets asked for again.
    pub nacks: u64,
    /// Key frames asked for.
    pub plis: u64,
    /// The longest delay in microseconds since the last `statistics` with `reset`.
    pub delay_max_us: Micros,
}

impl Figures {
    /// Adds what was counted of one RTP stream.
    pub fn add(&mut self, counts: &Counts) {
        self.packets += counts.received;
        self.lost += counts.lost;
        self.reordered += counts.reordered;
        self.recovered += counts.recovered;
        self.duplicates += counts.duplicates;
        self.ancient += counts.ancient;
    }
}

impl AddAssign<&Figures> for Figures {
    fn add_assign(&mut self, other: &Figures) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.recovered += other.recovered;
        self.duplicates += other.duplicates;
        self.ancient += other.ancient;
        self.unreadable += other.unreadable;
        self.overflows += other.overflows;
        self.inspected += other.inspected;
        self.key_frames += other.key_frames;
        self.changes += other.changes;
        self.nacks += other.nacks;
        self.plis += other.plis;
        self.delay_max_us = self.delay_max_us.max(other.delay_max_us);
    }
}

/// How long packets took from their source to the kernel of this machine.
pub struct Delays(Histogram<u64>);

/// Percentiles in microseconds, to three significant digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// How many packets were measured.
    pub samples: u64,
    /// Half of them took at most this.
    pub p50: Micros,
    /// 95 of 100.
    pub p95: Micros,
    /// 99 of 100.
    pub p99: Micros,
    /// All of them.
    pub max: Micros,
}

impl Default for Delays {
    fn default() -> Self {
        // Fails for bounds that make no sense; these do.
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are right"))
    }
}

impl Delays {
    /// Takes one delay.
    pub fn record(&mut self, delay: Micros) {
        self.0.saturating_record(delay);
    }

    /// What was taken since the last [`Self::reset`].
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            samples: self.0.len(),
            p50: self.0.value_at_quantile(0.5),
            p95: self.0.value_at_quantile(0.95),
            p99: self.0.value_at_quantile(0.99),
            max: self.0.max(),
        }
    }

    /// Begins anew.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_three_digits() {
        let mut delays = Delays::default();
        assert_eq!(delays.percentiles(), Percentiles::default());
        (1..=1000).for_each(|delay| delays.record(delay * 10));
        let found = delays.percentiles();
        for (value, expected) in [
            (found.p50, 5_000),
            (found.p95, 9_500),
            (found.p99, 9_900),
            (found.max, 10_000),
        ] {
            assert!(
                value.abs_diff(expected) <= expected / 1000,
                "{value}, not {expected}"
            );
        }
        delays.reset();
        delays.record(10 * LONGEST);
        assert!(delays.percentiles().max >= LONGEST);
    }

    #[test]
    fn sums_are_of_all_counts() {
        let counts = Counts {
            received: 1,
            duplicates: 2,
            reordered: 3,
            recovered: 4,
            ancient: 5,
            lost: 6,
        };
        let mut one = Figures {
            bytes: 7,
            delay_max_us: 8,
            plis: 9,
            ..Figures::default()
        };
        one.add(&counts);
        let mut sum = Figures::default();
        sum += &one;
        assert_eq!(sum, one);
        sum += &one;
        assert_eq!(
            (sum.packets, sum.lost, sum.plis, sum.delay_max_us),
            (2, 12, 18, 8)
        );
    }
}
