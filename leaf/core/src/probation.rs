//! Whether a source that is new, or has jumped, is one: a stray packet must not cost a ring all that
//! it holds.
//!
//! As in RFC 3550 appendix A.1 a second packet must follow from the first. The first is kept
//! meanwhile, since it may hold the parameter sets of a key frame.

use crate::Micros;
use crate::ring::Arrival;

/// How far apart the two may be: some may be lost between them, or change places.
const MAX_STEP: u16 = 100;

/// A packet that does not follow from those in the ring.
#[derive(Debug)]
pub struct Kept {
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    payload_type: u8,
    payload: Vec<u8>,
    /// When it came.
    pub arrived: Micros,
}

impl Kept {
    fn new(arrival: &Arrival<'_>, now: Micros) -> Self {
        Self {
            ssrc: arrival.ssrc,
            sequence: arrival.sequence,
            timestamp: arrival.timestamp,
            marker: arrival.marker,
            payload_type: arrival.payload_type,
            payload: arrival.payload.to_vec(),
            arrived: now,
        }
    }

    /// The packet as it came.
    pub fn arrival(&self) -> Arrival<'_> {
        Arrival {
            ssrc: self.ssrc,
            sequence: self.sequence,
            timestamp: self.timestamp,
            marker: self.marker,
            payload_type: self.payload_type,
            payload: &self.payload,
        }
    }

    /// Whether its sequence number is before the other's.
    pub fn is_before(&self, other: &Arrival<'_>) -> bool {
        (other.sequence.wrapping_sub(self.sequence) as i16) > 0
    }

    fn goes_with(&self, other: &Arrival<'_>) -> bool {
        let step = other.sequence.wrapping_sub(self.sequence) as i16;
        self.ssrc == other.ssrc && (1..=MAX_STEP).contains(&step.unsigned_abs())
    }
}

/// The last packet of a source that is not believed yet.
#[derive(Debug, Default)]
pub struct Probation {
    kept: Option<Kept>,
}

impl Probation {
    /// A packet came that does not follow from those in the ring. The one before it if they belong
    /// together; otherwise this one is kept.
    pub fn confirm(&mut self, arrival: &Arrival<'_>, now: Micros) -> Option<Kept> {
        let before = self.kept.take();
        let confirmed = before.filter(|kept| kept.goes_with(arrival));
        if confirmed.is_none() {
            self.kept = Some(Kept::new(arrival, now));
        }
        confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(ssrc: u32, sequence: u16) -> Arrival<'static> {
        Arrival {
            ssrc,
            sequence,
            timestamp: 7,
            marker: false,
            payload_type: 96,
            payload: &[0x41, 1],
        }
    }

    #[test]
    fn two_that_follow_from_each_other_are_believed() {
        for (first, second, in_order) in [(65_535, 0, true), (9, 11, true), (9, 8, false)] {
            let mut probation = Probation::default();
            assert!(probation.confirm(&packet(1, first), 5).is_none());
            let kept = probation.confirm(&packet(1, second), 6).unwrap();
            assert_eq!((kept.arrival().sequence, kept.arrived), (first, 5));
            assert_eq!(kept.is_before(&packet(1, second)), in_order);
        }
    }

    #[test]
    fn others_are_not() {
        let mut probation = Probation::default();
        for (ssrc, sequence) in [(1, 5), (2, 6), (3, 7), (3, 7), (3, 108), (1, 109)] {
            assert!(probation.confirm(&packet(ssrc, sequence), 5).is_none());
        }
    }
}
