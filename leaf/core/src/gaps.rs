//! What is missing of a stream, and when its parent is asked for it.
//!
//! Each packet is asked for by generic NACK (RFC 4585 section 6.2.1), however many viewers miss it: soon
//! after a later one has come, again after a round trip, and a few times at most. What has left the
//! ring, or never fitted in here, is given up.

use std::collections::VecDeque;
use std::ops::Range;

use crate::Micros;

/// So long a packet may be behind a later one and still come by itself. A link keeps the order; packets
/// overtake each other when a flow takes another way, by what the ways differ, and within a machine that
/// is less than this.
pub const TOLERANCE: Micros = 3_000;
/// How often a packet is asked for.
pub const MAX_ASKS: u8 = 4;
/// Packets of one stream that are waited for: all that the longest step of a source can skip is three
/// times as much, and then nobody sees a picture anyway.
pub const MAX_MISSING: usize = 1024;
/// How long an answer is waited for while no round trip has been measured,
const FIRST_WAIT: Micros = 20_000;
/// and how long at least: who answers may be busy.
const LEAST_WAIT: Micros = 15_000;
/// So long from the first sign of a gap viewers get nothing, if its repair can be here by then: a viewer
/// that never sees a gap asks for nothing, and a quarter of a frame's time is in nobody's way.
const HOLD: Micros = 12_000;

#[derive(Debug, Clone, Copy)]
struct Missing {
    index: u64,
    seen: Micros,
    due: Micros,
    asked: Micros,
    asks: u8,
}

/// What became of the packets that were missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that were asked for, each once however often.
    pub asked: u64,
    /// Those of them that came.
    pub repaired: u64,
    /// Packets that nobody waits for any more, asked for or not.
    pub given_up: u64,
}

impl Counters {
    /// Add others.
    pub fn add(&mut self, others: Self) {
        self.asked += others.asked;
        self.repaired += others.repaired;
        self.given_up += others.given_up;
    }
}

/// Of several workers that have a stream's ring one asks; the others know the same, a moment later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It asks, and counts.
    Asks,
    /// It only knows what viewers had better wait for.
    Waits,
}

/// The packets that are missing of one stream.
#[derive(Debug)]
pub struct Gaps {
    part: Part,
    missing: VecDeque<Missing>,
    next: Option<Micros>,
    round_trip: Option<Micros>,
    is_answered: bool,
    counters: Counters,
}

impl Gaps {
    /// Nothing is missing yet.
    pub fn new(part: Part) -> Self {
        Self {
            part,
            missing: VecDeque::new(),
            next: None,
            round_trip: None,
            is_answered: false,
            counters: Counters::default(),
        }
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        match self.part {
            Part::Asks => self.counters,
            Part::Waits => Counters::default(),
        }
    }

    /// The smoothed time from asking to the repair, once there was one.
    pub fn round_trip(&self) -> Option<Micros> {
        self.round_trip
    }

    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty()
    }

    /// When [`Gaps::ask`] has something to do, not later.
    pub fn due(&self) -> Option<Micros> {
        self.next.filter(|_| !self.is_empty())
    }

    /// These were skipped by a packet that has just come; each call has higher ones than the last.
    pub fn skipped(&mut self, indices: Range<u64>, now: Micros) {
        let (before, due) = (self.due(), now + TOLERANCE);
        for index in indices {
            if self.missing.len() == MAX_MISSING {
                self.missing.pop_front();
                self.counters.given_up += 1;
            }
            self.missing.push_back(Missing {
                index,
                seen: now,
                due,
                asked: 0,
                asks: 0,
            });
        }
        self.next = Some(before.map_or(due, |next| next.min(due)));
    }

    /// A packet that was skipped has come after all.
    pub fn came(&mut self, index: u64, now: Micros) {
        let Ok(at) = self.missing.binary_search_by_key(&index, |it| it.index) else {
            return;
        };
        let Some(it) = self.missing.remove(at) else {
            return;
        };
        if it.asks == 0 {
            return;
        }
        self.counters.repaired += 1;
        self.is_answered = true;
        // Which of several questions was answered nobody knows (Karn's rule).
        if it.asks == 1 {
            let sample = now.saturating_sub(it.asked);
            self.round_trip = Some(match self.round_trip {
                Some(before) => (7 * before + sample) / 8,
                None => sample,
            });
        }
    }

    /// The source began anew: what was missing of before is no matter.
    pub fn forget(&mut self) {
        self.counters.given_up += self.missing.len() as u64;
        self.missing.clear();
    }

    /// Append the sequence numbers that are to be asked for now to `lost`, and give up what is not to
    /// be had: asked for often enough, or older than `oldest`, which is the ring's.
    pub fn ask(&mut self, oldest: u64, now: Micros, lost: &mut Vec<u16>) {
        let wait = self
            .round_trip
            .map_or(FIRST_WAIT, |trip| (trip + trip / 2).max(LEAST_WAIT));
        let Self {
            missing,
            counters,
            is_answered,
            ..
        } = self;
        missing.retain_mut(|it| {
            if it.index < oldest {
                counters.given_up += 1;
                return false;
            }
            if it.due > now {
                return true;
            }
            if it.asks == MAX_ASKS {
                counters.given_up += 1;
                *is_answered = false;
                return false;
            }
            counters.asked += u64::from(it.asks == 0);
            it.asks += 1;
            // Who does not answer may be busy: each time it has twice as long.
            (it.asked, it.due) = (now, now + (wait << (it.asks - 1)));
            lost.push(it.index as u16);
            true
        });
        self.next = self.missing.iter().map(|it| it.due).min();
    }

    /// Until when viewers had better wait for what is missing, if that is worth it.
    pub fn hold(&self, now: Micros) -> Option<Micros> {
        let trip = self.round_trip.filter(|_| self.is_answered)?;
        let until = self.missing.back()?.seen + HOLD;
        (until > now && TOLERANCE + trip + trip / 2 <= HOLD).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(gaps: &mut Gaps, now: Micros) -> Vec<u16> {
        let mut lost = Vec::new();
        gaps.ask(0, now, &mut lost);
        lost
    }

    #[test]
    fn what_comes_by_itself_is_not_asked_for() {
        let mut gaps = Gaps::new(Part::Asks);
        gaps.skipped(70_000..70_002, 1_000);
        assert_eq!(gaps.due(), Some(1_000 + TOLERANCE));
        gaps.came(70_000, 1_500);
        assert!(asked(&mut gaps, 1_000 + TOLERANCE - 1).is_empty());
        assert_eq!(
            asked(&mut gaps, 1_000 + TOLERANCE),
            [(70_001_u32 - 65_536) as u16]
        );
        let counters = Counters {
            asked: 1,
            ..Counters::default()
        };
        assert_eq!(gaps.counters(), counters);
    }

    #[test]
    fn one_that_does_not_come_is_asked_for_four_times() {
        let mut gaps = Gaps::new(Part::Asks);
        gaps.skipped(5..6, 0);
        let mut times = vec![];
        for now in 0..400_000 {
            if gaps.due().is_some_and(|due| due <= now) && !asked(&mut gaps, now).is_empty() {
                times.push(now);
            }
        }
        assert_eq!(times, [3_000, 23_000, 63_000, 143_000]);
        assert!(gaps.is_empty() && gaps.due().is_none());
        let counters = Counters {
            asked: 1,
            repaired: 0,
            given_up: 1,
        };
        assert_eq!(gaps.counters(), counters);
    }

    #[test]
    fn the_next_question_waits_for_the_round_trip() {
        let mut gaps = Gaps::new(Part::Asks);
        gaps.skipped(5..7, 0);
        assert_eq!(asked(&mut gaps, 3_000), [5, 6]);
        gaps.came(5, 53_000);
        assert_eq!(gaps.round_trip(), Some(50_000));
        assert_eq!(asked(&mut gaps, 53_000), [6]);
        assert_eq!(gaps.due(), Some(53_000 + 2 * 75_000));
        // It was asked for twice: of which question this is the answer nobody knows.
        gaps.came(6, 54_000);
        assert_eq!(gaps.round_trip(), Some(50_000));
        assert_eq!(gaps.counters().repaired, 2);
    }

    #[test]
    fn what_the_ring_has_no_place_for_is_given_up() {
        let mut gaps = Gaps::new(Part::Asks);
        gaps.skipped(5..8, 0);
        let mut lost = Vec::new();
        gaps.ask(7, 3_000, &mut lost);
        assert_eq!((lost, gaps.counters().given_up), (vec![7], 2));
        gaps.forget();
        assert_eq!((gaps.is_empty(), gaps.counters().given_up), (true, 3));
    }

    #[test]
    fn viewers_wait_only_for_a_parent_that_answers_soon() {
        let mut gaps = Gaps::new(Part::Asks);
        gaps.skipped(5..6, 0);
        assert_eq!(gaps.hold(100), None, "nobody knows yet");
        asked(&mut gaps, 3_000);
        gaps.came(5, 4_000);
        assert_eq!(gaps.hold(4_000), None, "nothing is missing");
        gaps.skipped(7..8, 10_000);
        assert_eq!(gaps.hold(11_000), Some(10_000 + HOLD));
        assert_eq!(gaps.hold(10_000 + HOLD), None);
        for _ in 0..=MAX_ASKS {
            let due = gaps.due().unwrap();
            asked(&mut gaps, due);
        }
        assert!(gaps.is_empty());
        gaps.skipped(9..10, 900_000);
        assert_eq!(gaps.hold(900_100), None, "it answers no more");
    }

    proptest! {
        #[test]
        fn every_packet_ends_one_way_and_memory_is_bounded(
            steps in prop::collection::vec((0_u64..300, 0_u64..40_000, any::<bool>()), 1..80),
        ) {
            let (mut gaps, mut index, mut now) = (Gaps::new(Part::Asks), 1 << 16, 0);
            let (mut skipped, mut by_itself) = (0, 0);
            for (count, pause, comes) in steps {
                now += pause;
                gaps.skipped(index..index + count, now);
                skipped += count;
                if comes && count > 0 {
                    let before = gaps.counters().repaired;
                    gaps.came(index, now + 10);
                    by_itself += 1 - (gaps.counters().repaired - before);
                }
                index += count + 1;
                let lost = asked(&mut gaps, now);
                prop_assert!(gaps.missing.len() <= MAX_MISSING);
                prop_assert!(lost.len() <= MAX_MISSING);
                prop_assert_eq!(gaps.due().is_none(), gaps.is_empty());
            }
            while let Some(due) = gaps.due() {
                asked(&mut gaps, due);
            }
            let Counters { asked, repaired, given_up } = gaps.counters();
            prop_assert_eq!(repaired + given_up + by_itself, skipped);
            prop_assert!(asked <= skipped);
        }
    }
}
