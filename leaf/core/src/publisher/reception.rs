//! What has come of one source, and what has not (RFC 3550 section 6.4 and appendices A.1, A.3, A.8).

use leaf_wire::ntp;
use leaf_wire::rtcp::{ReportBlock, SenderReport};
use leaf_wire::unwrap::SequenceUnwrapper;

use super::missing::{Found, Missing};
use crate::Micros;

/// Sequence numbers behind the newest within which a packet that came before is known.
pub const WINDOW: u64 = 2048;
/// So far from the packets' a report's timestamp may be, in seconds: encoders and queues take some time.
const BELIEVED_S: u32 = 1;
/// So far ahead of a source another stream may be with its packets.
const MAX_AHEAD: i16 = 256;

/// What a packet is to its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Ahead of all so far, behind so many that were given up at once.
    Next {
        /// Packets that will not come.
        given_up: u64,
    },
    /// It was missing until now; None if nobody waited for it.
    Late(Option<Found>),
    /// It came before, or so late that it cannot be told whether it did.
    Useless,
}

/// One source.
#[derive(Debug)]
pub struct Reception {
    clock: u32,
    /// Whether missing packets are waited for, and if so whether they are asked for.
    repair: Option<bool>,
    unwrapper: SequenceUnwrapper,
    first: u64,
    highest: Option<u64>,
    seen: [u64; (WINDOW / 64) as usize],
    missing: Missing,
    /// Packets that came by themselves, each counted once.
    received: u64,
    /// Packets that came by way of another stream.
    restored: u64,
    /// Numbers that a source that jumped has left out.
    skipped: u64,
    transit: Option<u32>,
    /// 16 times the jitter, in ticks.
    jitter: u32,
    /// Packets expected and received at the last report.
    reported: (u64, u64),
    sender_report: Option<(u32, Micros)>,
}

/// Packets expected and lost since the report before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interval {
    /// Expected.
    pub expected: u64,
    /// Of them lost.
    pub lost: u64,
}

impl Reception {
    /// For a source with timestamps of `clock` ticks a second. `repair` is None if nobody cares about
    /// missing packets, and says else whether they are asked for.
    pub fn new(clock: u32, repair: Option<bool>) -> Self {
        Self {
            clock,
            repair,
            unwrapper: SequenceUnwrapper::default(),
            first: 0,
            highest: None,
            seen: [0; (WINDOW / 64) as usize],
            missing: Missing::default(),
            received: 0,
            restored: 0,
            skipped: 0,
            transit: None,
            jitter: 0,
            reported: (0, 0),
            sender_report: None,
        }
    }

    /// A packet of the source came.
    pub fn take(&mut self, sequence: u16, timestamp: u32, now: Micros) -> Place {
        let place = self.place(sequence, now);
        if place != Place::Useless {
            self.received += 1;
            self.measure_jitter(timestamp, now);
        }
        place
    }

    /// A packet of the source came by way of another stream (RFC 4588). It does not count as
    /// received: reports tell of the path.
    pub fn restore(&mut self, sequence: u16, now: Micros) -> Place {
        let step = self
            .highest
            .map(|highest| sequence.wrapping_sub(highest as u16) as i16);
        if step.is_none_or(|step| step > MAX_AHEAD) {
            return Place::Useless;
        }
        let place = self.place(sequence, now);
        self.restored += u64::from(place != Place::Useless);
        place
    }

    fn place(&mut self, sequence: u16, now: Micros) -> Place {
        let number = self.unwrapper.unwrap(sequence);
        let Some(highest) = self.highest else {
            (self.first, self.highest) = (number, Some(number));
            self.mark(number);
            return Place::Next { given_up: 0 };
        };
        if number > highest {
            return self.go_to(highest, number, now);
        }
        if highest - number >= WINDOW || self.is_marked(number) {
            return Place::Useless;
        }
        self.first = self.first.min(number);
        self.mark(number);
        Place::Late(self.missing.remove(number, now))
    }

    fn go_to(&mut self, highest: u64, number: u64, now: Micros) -> Place {
        let gap = number - highest - 1;
        let mut given_up = 0;
        if gap >= WINDOW {
            // The source has begun anew, or was away for so long that it makes no difference.
            self.seen.fill(0);
            self.missing.clear();
            self.skipped += gap;
            given_up = 1;
        } else {
            (highest + 1..number).for_each(|skipped| self.unmark(skipped));
            if let Some(asks) = self.repair.filter(|_| gap > 0) {
                given_up = self.missing.add(highest + 1, number, asks, now);
            }
        }
        self.mark(number);
        self.highest = Some(number);
        Place::Next { given_up }
    }

    fn mark(&mut self, number: u64) {
        let place = number % WINDOW;
        self.seen[(place / 64) as usize] |= 1 << (place % 64);
    }

    fn unmark(&mut self, number: u64) {
        let place = number % WINDOW;
        self.seen[(place / 64) as usize] &= !(1 << (place % 64));
    }

    fn is_marked(&self, number: u64) -> bool {
        let place = number % WINDOW;
        self.seen[(place / 64) as usize] & 1 << (place % 64) != 0
    }

    /// RFC 3550 appendix A.8.
    fn measure_jitter(&mut self, timestamp: u32, now: Micros) {
        let transit = self.ticks(now).wrapping_sub(timestamp);
        if let Some(before) = self.transit.replace(transit) {
            let change = (transit.wrapping_sub(before) as i32).unsigned_abs();
            let less = (self.jitter + 8) >> 4;
            self.jitter = (self.jitter - less).saturating_add(change.min(u32::MAX >> 5));
        }
    }

    /// Interarrival jitter in microseconds.
    pub fn jitter(&self) -> Micros {
        u64::from(self.jitter >> 4) * 1_000_000 / u64::from(self.clock.max(1))
    }

    /// When [`Reception::ask`] has something to say.
    pub fn due(&self) -> Option<Micros> {
        self.missing.due()
    }

    /// As [`Missing::ask`].
    pub fn ask(&mut self, now: Micros, round_trip: Option<Micros>, ask: &mut Vec<u16>) -> u64 {
        let asks = self.repair.unwrap_or(false);
        self.missing.ask(now, asks, round_trip, ask)
    }

    /// Packets that are not there, by whatever way.
    pub fn lost(&self) -> u64 {
        self.expected()
            .saturating_sub(self.received + self.restored)
    }

    fn expected(&self) -> u64 {
        self.highest
            .map_or(0, |highest| highest - self.first + 1 - self.skipped)
    }

    /// Take what the source reports; say whether its timestamp is to be believed.
    ///
    /// It is that of the report's moment (RFC 3550 section 6.4.1), and so near to what the newest packet's
    /// has grown to since. GStreamer's webrtcbin (1.22) has one that runs twice as fast: whoever put the
    /// picture's time right by it would go back in time with every report.
    pub fn take_report(&mut self, report: &SenderReport, now: Micros) -> bool {
        self.sender_report = Some((ntp::middle(report.ntp), now));
        self.transit.is_none_or(|transit| {
            let expected = self.ticks(now).wrapping_sub(transit);
            let off = (report.rtp_timestamp.wrapping_sub(expected) as i32).unsigned_abs();
            off <= self.clock * BELIEVED_S
        })
    }

    fn ticks(&self, now: Micros) -> u32 {
        (u128::from(now) * u128::from(self.clock) / 1_000_000) as u32
    }

    /// The report on this source, of `ssrc`, and what it is made of; None before the first packet.
    pub fn report(&mut self, ssrc: u32, now: Micros) -> Option<(ReportBlock, Interval)> {
        let highest = self.highest?;
        let (expected, received) = (self.expected(), self.received);
        let (expected_before, received_before) = self.reported;
        self.reported = (expected, received);
        let interval = Interval {
            expected: expected.saturating_sub(expected_before),
            lost: (expected.saturating_sub(expected_before))
                .saturating_sub(received - received_before),
        };
        let fraction = (interval.lost * 256).checked_div(interval.expected);
        let (last_sr, delay) = self.sender_report.map_or((0, 0), |(middle, at)| {
            (middle, (now.saturating_sub(at) << 16) / 1_000_000)
        });
        let lost = expected as i64 - received as i64;
        let block = ReportBlock {
            ssrc,
            fraction_lost: fraction.unwrap_or(0).min(255) as u8,
            cumulative_lost: lost.clamp(i32::MIN.into(), i32::MAX.into()) as i32,
            // The first round of the unwrapper is the second one of the wire's.
            highest_sequence: highest.wrapping_sub(1 << 16) as u32,
            jitter: self.jitter >> 4,
            last_sr,
            delay_since_last_sr: delay as u32,
        };
        Some((block, interval))
    }
}

#[cfg(test)]
mod tests;
