//! What has come of one RTP stream, and what is missing (RFC 3550 section 6.4 and appendix A).

use std::collections::BTreeMap;

use leaf_wire::ntp;
use leaf_wire::rtcp::{ReportBlock, SenderReport};
use leaf_wire::unwrap::SequenceUnwrapper;

use crate::clock::Micros;

/// Sequence numbers within which a packet that comes again is known.
const WINDOW: u64 = 2048;
/// A longer gap is not asked for: nobody would send so much again.
const MAX_GAP: u64 = 256;
/// How long a missing packet may be on a longer way before it is asked for.
const PATIENCE: Micros = 10_000;
/// Time between two requests for the same packet.
const ASK_AGAIN: Micros = 100_000;
const MAX_REQUESTS: u8 = 5;

/// What a packet is to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Ahead of all so far.
    Next,
    /// It was missing until now.
    Late,
    /// It came before.
    Duplicate,
    /// So late that it cannot be told whether it came before.
    Ancient,
}

/// How many packets were what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Different packets received.
    pub received: u64,
    /// Packets that were received before: a fault.
    pub duplicates: u64,
    /// Packets behind a later one that nobody had asked for again.
    pub reordered: u64,
    /// Packets that came after they were asked for.
    pub recovered: u64,
    /// Packets behind the window of 2,048.
    pub ancient: u64,
    /// Packets between the first and the last that are not there.
    pub lost: u64,
}

struct Missing {
    due: Micros,
    requests: u8,
}

/// One RTP stream.
pub struct Reception {
    clock: u32,
    unwrapper: SequenceUnwrapper,
    first: u64,
    highest: Option<u64>,
    seen: [u64; (WINDOW / 64) as usize],
    missing: BTreeMap<u64, Missing>,
    due: Option<Micros>,
    counts: Counts,
    transit: Option<i64>,
    jitter: f64,
    reported: (u64, u64),
    sender_report: Option<(u32, Micros)>,
}

impl Reception {
    /// For a stream with timestamps of `clock` ticks a second.
    #[must_use]
    pub fn new(clock: u32) -> Self {
        Self {
            clock,
            unwrapper: SequenceUnwrapper::default(),
            first: 0,
            highest: None,
            seen: [0; (WINDOW / 64) as usize],
            missing: BTreeMap::new(),
            due: None,
            counts: Counts::default(),
            transit: None,
            jitter: 0.0,
            reported: (0, 0),
            sender_report: None,
        }
    }

    /// Takes a packet that arrived at `at`.
    pub fn take(&mut self, sequence: u16, timestamp: u32, at: Micros) -> Place {
        self.measure_jitter(timestamp, at);
        self.place(sequence, at)
    }

    /// Takes a packet of this stream that was sent again in another one (RFC 4588).
    pub fn take_again(&mut self, sequence: u16, at: Micros) -> Place {
        self.place(sequence, at)
    }

    fn place(&mut self, sequence: u16, at: Micros) -> Place {
        let number = self.unwrapper.unwrap(sequence);
        let Some(highest) = self.highest else {
            (self.first, self.highest) = (number, Some(number));
            self.mark(number);
            return Place::Next;
        };
        if number > highest {
            self.go_to(highest, number, at);
            return Place::Next;
        }
        if highest - number >= WINDOW {
            self.counts.ancient += 1;
            return Place::Ancient;
        }
        if self.is_marked(number) {
            self.counts.duplicates += 1;
            return Place::Duplicate;
        }
        self.first = self.first.min(number);
        self.mark(number);
        match self.missing.remove(&number) {
            Some(missing) if missing.requests > 0 => self.counts.recovered += 1,
            _ => self.counts.reordered += 1,
        }
        self.due = self.next_due();
        Place::Late
    }

    fn go_to(&mut self, highest: u64, number: u64, at: Micros) {
        for skipped in (highest + 1..number).rev().take(WINDOW as usize) {
            self.unmark(skipped);
        }
        let gap = number - highest - 1;
        if gap > 0 && gap <= MAX_GAP {
            let due = at + PATIENCE;
            let missing = (highest + 1..number).map(|lost| (lost, Missing { due, requests: 0 }));
            self.missing.extend(missing);
            self.due = Some(self.due.map_or(due, |before| before.min(due)));
        } else if gap > 0 {
            // Given up at once, and told so by the next look.
            self.missing.insert(
                highest + 1,
                Missing {
                    due: at,
                    requests: MAX_REQUESTS,
                },
            );
            self.due = Some(at);
        }
        self.mark(number);
        self.highest = Some(number);
    }

    fn mark(&mut self, number: u64) {
        let place = number % WINDOW;
        self.seen[(place / 64) as usize] |= 1 << (place % 64);
        self.counts.received += 1;
    }

    fn unmark(&mut self, number: u64) {
        let place = number % WINDOW;
        self.seen[(place / 64) as usize] &= !(1 << (place % 64));
    }

    fn is_marked(&self, number: u64) -> bool {
        let place = number % WINDOW;
        self.seen[(place / 64) as usize] & 1 << (place % 64) != 0
    }

    fn measure_jitter(&mut self, timestamp: u32, at: Micros) {
        let ticks = (u128::from(at) * u128::from(self.clock) / 1_000_000) as u32;
        let transit = i64::from(ticks.wrapping_sub(timestamp) as i32);
        if let Some(before) = self.transit.replace(transit) {
            let change = (transit - before).unsigned_abs() as f64;
            self.jitter += (change - self.jitter) / 16.0;
        }
    }

    /// When [`Self::missing_now`] has something to say.
    #[must_use]
    pub fn due(&self) -> Option<Micros> {
        self.due
    }

    /// Puts what is to be asked for again now into `ask`, which is cleared before; with `asks` false
    /// everything is given up that would be asked for. Result: whether something was given up.
    pub fn missing_now(&mut self, now: Micros, asks: bool, ask: &mut Vec<u16>) -> bool {
        ask.clear();
        let mut given_up = false;
        self.missing.retain(|&number, missing| {
            if missing.due > now {
                return true;
            }
            if !asks || missing.requests >= MAX_REQUESTS {
                given_up = true;
                return false;
            }
            missing.requests += 1;
            missing.due = now + ASK_AGAIN;
            ask.push(number as u16);
            true
        });
        self.due = self.next_due();
        given_up
    }

    fn next_due(&self) -> Option<Micros> {
        self.missing.values().map(|missing| missing.due).min()
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let lost = self.expected().saturating_sub(self.counts.received);
        Counts {
            lost,
            ..self.counts
        }
    }

    fn expected(&self) -> u64 {
        self.highest.map_or(0, |highest| highest - self.first + 1)
    }

    /// Takes what the sender reports.
    pub fn take_report(&mut self, report: &SenderReport, at: Micros) {
        self.sender_report = Some((ntp::middle(report.ntp), at));
    }

    /// The report on this stream, of `ssrc`; None before its first packet.
    pub fn report(&mut self, ssrc: u32, now: Micros) -> Option<ReportBlock> {
        let highest = self.highest?;
        let (expected, received) = (self.expected(), self.counts.received);
        let (expected_before, received_before) = self.reported;
        self.reported = (expected, received);
        let interval = expected - expected_before;
        let lost = interval.saturating_sub(received - received_before);
        let fraction = (lost * 256).checked_div(interval).unwrap_or(0).min(255);
        let (last_sr, delay) = self.sender_report.map_or((0, 0), |(middle, at)| {
            (middle, (now.saturating_sub(at) << 16) / 1_000_000)
        });
        Some(ReportBlock {
            ssrc,
            fraction_lost: fraction as u8,
            cumulative_lost: i32::try_from(expected.saturating_sub(received)).unwrap_or(i32::MAX),
            // The first round of the unwrapper is the second one of the wire's.
            highest_sequence: (highest - (1 << 16)) as u32,
            jitter: self.jitter as u32,
            last_sr,
            delay_since_last_sr: delay as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn taken(sequences: &[u16]) -> (Reception, Vec<Place>) {
        let mut reception = Reception::new(90_000);
        let places = sequences
            .iter()
            .map(|&number| reception.take(number, 0, 0))
            .collect();
        (reception, places)
    }

    #[test]
    fn packets_have_their_places_over_the_wrap() {
        use Place::{Duplicate, Late, Next};
        let (reception, places) = taken(&[65_534, 65_535, 1, 0, 1, 4]);
        assert_eq!(places, [Next, Next, Next, Late, Duplicate, Next]);
        let expected = Counts {
            received: 5,
            duplicates: 1,
            reordered: 1,
            lost: 2,
            ..Counts::default()
        };
        assert_eq!(reception.counts(), expected);
    }

    #[test]
    fn what_is_missing_is_asked_for_until_it_comes() {
        let (mut reception, _) = taken(&[1, 4]);
        let mut ask = vec![9];
        assert!(!reception.missing_now(PATIENCE - 1, true, &mut ask));
        assert_eq!(ask, [0_u16; 0]);
        assert_eq!(reception.due(), Some(PATIENCE));
        assert!(!reception.missing_now(PATIENCE, true, &mut ask));
        assert_eq!(ask, [2, 3]);
        assert_eq!(reception.take_again(3, PATIENCE + 1), Place::Late);
        assert_eq!(reception.counts().recovered, 1);
        for _ in 1..MAX_REQUESTS {
            let due = reception.due().unwrap();
            assert!(!reception.missing_now(due, true, &mut ask));
            assert_eq!(ask, [2]);
        }
        let due = reception.due().unwrap();
        assert!(reception.missing_now(due, true, &mut ask), "given up");
        assert_eq!((ask, reception.due()), (vec![], None));
        assert_eq!(reception.counts().lost, 1);
    }

    #[test]
    fn without_requests_and_after_long_gaps_it_is_given_up() {
        let (mut reception, _) = taken(&[1, 3]);
        assert!(reception.missing_now(PATIENCE, false, &mut Vec::new()));
        let (mut reception, _) = taken(&[1, 1000]);
        let mut ask = Vec::new();
        assert!(reception.missing_now(0, true, &mut ask));
        assert_eq!(ask, [0_u16; 0]);
        assert_eq!(reception.counts().lost, 998);
    }

    #[test]
    fn reports_tell_what_is_true() {
        let mut reception = Reception::new(90_000);
        assert_eq!(reception.report(7, 0), None);
        // 40 ms apart in both clocks, the third one 1 ms late: 90 ticks.
        for (sequence, at) in [(10, 0), (11, 40_000), (13, 81_000)] {
            reception.take(sequence, at / 40_000 * 3600, u64::from(at));
        }
        let report = SenderReport {
            ssrc: 7,
            ntp: 0x1111_2222_3333_4444,
            rtp_timestamp: 0,
            packets: 0,
            octets: 0,
        };
        reception.take_report(&report, 100_000);
        let block = reception.report(7, 600_000).unwrap();
        let expected = ReportBlock {
            ssrc: 7,
            fraction_lost: 64,
            cumulative_lost: 1,
            highest_sequence: 13,
            jitter: 5,
            last_sr: 0x2222_3333,
            delay_since_last_sr: 32_768,
        };
        assert_eq!(block, expected);
        assert_eq!(reception.report(7, 600_000).unwrap().fraction_lost, 0);
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_set(steps in prop::collection::vec(-100i64..100, 1..400)) {
            let mut reception = Reception::new(48_000);
            let (mut at, mut numbers, mut duplicates) = (100_000_i64, HashSet::new(), 0);
            for step in steps {
                at += step;
                // Within the window, where every packet is known for what it is.
                at = at.clamp(99_000, 100_900);
                reception.take(at as u16, 0, 0);
                duplicates += u64::from(!numbers.insert(at));
            }
            let span = numbers.iter().max().unwrap() - numbers.iter().min().unwrap() + 1;
            let counts = reception.counts();
            prop_assert_eq!(counts.received, numbers.len() as u64);
            prop_assert_eq!(counts.duplicates, duplicates);
            prop_assert_eq!(counts.lost, span as u64 - counts.received);
        }

        #[test]
        fn any_packets_are_counted_without_a_panic(
            packets: Vec<(u16, u32, u32)>, asks: bool,
        ) {
            let mut reception = Reception::new(90_000);
            for (sequence, timestamp, at) in packets {
                reception.take(sequence, timestamp, u64::from(at));
                reception.missing_now(u64::from(at), asks, &mut Vec::new());
                reception.report(1, u64::from(at));
            }
        }
    }
}
