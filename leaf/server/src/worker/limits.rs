//! What one viewer may send, and what counts only once.

use std::net::SocketAddr;

use leaf_core::Micros;

/// Checks that are remembered: a browser sends one every few seconds.
const REMEMBERED: usize = 32;
/// Where a STUN message has its transaction id (RFC 8489 section 5).
const TRANSACTION: std::ops::Range<usize> = 8..20;
/// RTCP packets a second: several times what a receiver of two streams sends (RFC 4585 section 3.5).
const PACKETS: f64 = 100.0;
/// So many at once.
const BURST: f64 = 200.0;

/// The authentic checks of a viewer, so that nobody who overheard one has its media sent to himself:
/// a check does not say where it was sent from (RFC 8445 section 19.4.1).
#[derive(Debug, Default)]
pub struct Checks {
    known: Vec<([u8; TRANSACTION.end - TRANSACTION.start], SocketAddr)>,
    at: usize,
}

impl Checks {
    /// Whether a check from `from` is none that came from another address before.
    pub fn is_new(&mut self, check: &[u8], from: SocketAddr) -> bool {
        let transaction = check.get(TRANSACTION).and_then(|id| id.try_into().ok());
        let Some(transaction) = transaction else {
            return false;
        };
        if let Some((_, before)) = self.known.iter().find(|(known, _)| *known == transaction) {
            return *before == from;
        }
        if self.known.len() < REMEMBERED {
            self.known.push((transaction, from));
        } else {
            self.known[self.at % REMEMBERED] = (transaction, from);
            self.at += 1;
        }
        true
    }
}

/// How many RTCP packets a viewer may send now.
#[derive(Debug)]
pub struct Allowance {
    left: f64,
    counted: Micros,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            left: BURST,
            counted: 0,
        }
    }
}

impl Allowance {
    /// A packet came; false if it is one too many.
    pub fn take(&mut self, now: Micros) -> bool {
        let passed = now.saturating_sub(self.counted) as f64 / 1e6;
        self.counted = now;
        self.left = (self.left + passed * PACKETS).min(BURST);
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(number: u8) -> [u8; 20] {
        [number; 20]
    }

    #[test]
    fn a_check_counts_where_it_came_from_first() {
        let (own, other) = (
            "192.0.2.1:5000".parse().unwrap(),
            "192.0.2.2:5000".parse().unwrap(),
        );
        let mut checks = Checks::default();
        assert!(checks.is_new(&check(1), own));
        assert!(checks.is_new(&check(1), own), "sent again");
        assert!(!checks.is_new(&check(1), other), "overheard");
        assert!(checks.is_new(&check(2), other), "the viewer has moved");
        assert!(!checks.is_new(&[1; 19], own));
        for number in 3..200 {
            assert!(checks.is_new(&check(number), other));
        }
        assert_eq!(checks.known.len(), REMEMBERED);
        assert!(!checks.is_new(&check(199), own));
    }

    #[test]
    fn more_than_a_receiver_has_to_say_is_too_much() {
        let mut allowance = Allowance::default();
        let taken = |allowance: &mut Allowance, step: Micros, from: Micros| {
            let times = (0..10_000_000 / step).map(|n| from + n * step);
            times.filter(|now| allowance.take(*now)).count()
        };
        assert_eq!(taken(&mut allowance, 20_000, 1_000_000), 500, "a busy one");
        let flood = taken(&mut allowance, 100, 20_000_000);
        assert!((1_100..1_300).contains(&flood), "{flood}");
    }
}
