//! Under which timestamps a viewer gets a stream.
//!
//! All its life a viewer has one straight line from moments to timestamps (it is what its sender
//! reports say, so sound and picture stay together whatever it watches). A segment follows that
//! line, but for its beginning: the frames from the key frame up to the head, which are sent faster
//! than real time, are squeezed into a few milliseconds just before the head; and where the line
//! itself would lead back in time, the segment begins a little above it and meets it within a second.

use serde::{Deserialize, Serialize};

use crate::Micros;

/// The time that is given to the frames of a catch-up, in seconds: see docs/benchmarks.md.
const MAX_SQUEEZED: f64 = 0.020;
/// A segment that begins above the line comes down by at most this share of time.
const SETTLING: u64 = 10;
/// The least step between the last timestamp of one segment and the first of the next, in seconds.
const STEP: f64 = 0.001;

/// The straight line of one viewer and one medium.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Ticks a second.
    pub rate: u32,
    /// The extended timestamp of `at`.
    pub base: u64,
    /// A moment, in microseconds of the monotonic clock; below zero after a move to a machine
    /// that started later.
    pub at: i64,
}

impl Line {
    /// The extended timestamp of a moment.
    pub fn timestamp(&self, moment: i64) -> u64 {
        let ticks = i128::from(moment - self.at) * i128::from(self.rate);
        let ticks = ticks.div_euclid(1_000_000) as i64;
        self.base.saturating_add_signed(ticks)
    }

    /// The timestamp of now, as a sender report says it.
    pub fn now(&self, now: Micros) -> u32 {
        self.timestamp(now as i64) as u32
    }
}

/// From the extended timestamps of a stream to those of a viewer, within one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeMap {
    offset: i64,
    begin: u64,
    join: u64,
    span: u64,
    push: u64,
    settle: u64,
}

impl TimeMap {
    /// A map for a segment that begins at `begin` and has its head at `join` (stream timestamps).
    ///
    /// `moment` is when `join` was on the line, `last` the last timestamp sent so far.
    pub fn new(line: &Line, begin: u64, join: u64, moment: i64, last: Option<u64>) -> Self {
        let natural = line.timestamp(moment);
        let rate = f64::from(line.rate);
        let span = (join.saturating_sub(begin)).min((rate * MAX_SQUEEZED) as u64);
        let least = last.map_or(0, |last| last + (rate * STEP) as u64);
        let push = (least + span).saturating_sub(natural);
        Self {
            offset: natural.wrapping_sub(join) as i64,
            begin,
            join,
            span,
            push,
            settle: (push * SETTLING).max(u64::from(line.rate)),
        }
    }

    /// The viewer's extended timestamp for one of the stream.
    pub fn map(&self, timestamp: u64) -> u64 {
        let head = self.join.wrapping_add_signed(self.offset) + self.push;
        if timestamp < self.join {
            let (whole, before) = (self.join - self.begin, self.join - timestamp);
            if whole == 0 || timestamp < self.begin {
                return head - self.span.min(head);
            }
            return head - (u128::from(before) * u128::from(self.span) / u128::from(whole)) as u64;
        }
        let after = timestamp - self.join;
        let push = if after >= self.settle {
            0
        } else {
            (u128::from(self.push) * u128::from(self.settle - after) / u128::from(self.settle))
                as u64
        };
        timestamp.wrapping_add_signed(self.offset) + push
    }

    /// The same map for a process whose extended timestamps of the stream differ by `shift`.
    pub fn shifted(&self, shift: i64) -> Self {
        Self {
            offset: self.offset - shift,
            begin: self.begin.wrapping_add_signed(shift),
            join: self.join.wrapping_add_signed(shift),
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: Line = Line {
        rate: 90_000,
        base: 1 << 33,
        at: 1_000_000,
    };

    #[test]
    fn a_live_stream_stays_on_the_line() {
        let map = TimeMap::new(&LINE, 500_000, 500_000, 3_000_000, None);
        assert_eq!(map.map(500_000), LINE.timestamp(3_000_000));
        assert_eq!(map.map(503_600), LINE.timestamp(3_040_000));
    }

    #[test]
    fn a_catch_up_takes_no_more_than_its_span() {
        let begin = 500_000;
        let join = begin + 180_000;
        let map = TimeMap::new(
            &LINE,
            begin,
            join,
            3_000_000,
            Some(LINE.timestamp(2_990_000)),
        );
        assert!(map.map(begin) > LINE.timestamp(2_990_000));
        assert!(map.map(join) - map.map(begin) <= 1_800);
        assert_eq!(map.map(join + 90_000), LINE.timestamp(4_000_000));
    }

    proptest! {
        #[test]
        fn time_never_runs_back(
            gop in 0_u64..40,
            fps in 10_u64..=60,
            // How far the last timestamp lies before (or, after another change, behind) the head.
            ahead in -20_000_i64..200_000,
            frames in 1_usize..200,
        ) {
            let frame = 90_000 / fps;
            let (begin, join) = (1 << 32, (1 << 32) + gop * frame);
            let last = LINE.timestamp(3_000_000 + ahead);
            let map = TimeMap::new(&LINE, begin, join, 3_000_000, Some(last));
            let mut before = last;
            for number in 0..frames as u64 + gop {
                let now = map.map(begin + number * frame);
                prop_assert!(now > before, "frame {number}: {now} after {before}");
                before = now;
            }
            let far = join + 10_000_000;
            prop_assert_eq!(map.map(far), LINE.timestamp(3_000_000) + 10_000_000);
        }

        #[test]
        fn a_shifted_map_says_the_same(shift in -10_i64..10, at in 0_u64..1_000_000) {
            let map = TimeMap::new(&LINE, 1 << 40, (1 << 40) + 90_000, 3_000_000, Some(1 << 33));
            let shift = shift << 32;
            let stamp = (1_u64 << 40) + at;
            prop_assert_eq!(map.shifted(shift).map(stamp.wrapping_add_signed(shift)), map.map(stamp));
        }
    }
}
