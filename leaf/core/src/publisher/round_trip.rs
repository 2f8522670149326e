//! The round trip to a publisher, by how long it takes to send a packet again: who only receives has
//! no reports to measure it by.

use crate::Micros;

/// The weight of what is known (RFC 6298 section 2.3).
const KNOWN: u64 = 7;

/// What is known of the round trip.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoundTrip(Option<Micros>);

impl RoundTrip {
    /// The time, once it is known.
    pub fn get(self) -> Option<Micros> {
        self.0
    }

    /// An answer took so long; `once` if it was asked for once only. Otherwise nobody knows which
    /// request was answered (RFC 6298 section 3), so that it is better than nothing only.
    pub fn learn(&mut self, answer: Option<(Micros, bool)>) {
        self.0 = match (self.0, answer) {
            (Some(known), Some((time, true))) => Some((known * KNOWN + time) / (KNOWN + 1)),
            (None, Some((time, _))) => Some(time),
            (known, _) => known,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_counts_and_later_ones_if_they_are_clear() {
        let mut time = RoundTrip::default();
        time.learn(None);
        assert_eq!(time.get(), None);
        time.learn(Some((80_000, false)));
        assert_eq!(time.get(), Some(80_000));
        time.learn(Some((160_000, false)));
        assert_eq!(time.get(), Some(80_000));
        time.learn(Some((40_000, true)));
        assert_eq!(time.get(), Some(75_000));
    }
}
