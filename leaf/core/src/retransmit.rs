//! How much of what a viewer asks for again it gets.
//!
//! A viewer that asks for everything all the time must not cost more than one that watches: its
//! retransmissions have a rate, and a packet is not sent again while the one before may still be on
//! its way.

use serde::{Deserialize, Serialize};

use crate::Micros;

const REMEMBERED: usize = 64;
const LEAST_WAIT: Micros = 10_000;
/// Retransmissions may take as much as the stream itself.
const SHARE: f64 = 1.0;
/// What may go at once, in bytes: a lost frame or two.
const BURST: f64 = 64.0 * 1200.0;

/// The budget of one viewer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Retransmissions {
    recent: Vec<(u64, Micros)>,
    at: usize,
    credit: f64,
    counted: Micros,
    /// Requests that were not answered because of these limits.
    pub refused: u64,
}

impl Default for Retransmissions {
    fn default() -> Self {
        Self {
            recent: Vec::new(),
            at: 0,
            credit: BURST,
            counted: 0,
            refused: 0,
        }
    }
}

impl Retransmissions {
    /// Whether packet `sequence` of `bytes` may be sent again now, to a viewer that is `rtt` away
    /// and watches a stream of `kbps`.
    pub fn allow(
        &mut self,
        sequence: u64,
        bytes: usize,
        kbps: u32,
        rtt: Micros,
        now: Micros,
    ) -> bool {
        let rate = f64::from(kbps.max(100)) / 8_000.0 * SHARE;
        let passed = now.saturating_sub(self.counted) as f64;
        self.counted = now;
        self.credit = (self.credit + rate * passed).min(BURST);
        let wait = rtt.max(LEAST_WAIT);
        let known = self.recent.iter().position(|(known, _)| *known == sequence);
        let soon = known.is_some_and(|at| now.saturating_sub(self.recent[at].1) < wait);
        if soon || self.credit < bytes as f64 {
            self.refused += 1;
            return false;
        }
        self.credit -= bytes as f64;
        match known {
            Some(at) => self.recent[at].1 = now,
            None if self.recent.len() < REMEMBERED => self.recent.push((sequence, now)),
            None => {
                self.at = (self.at + 1) % REMEMBERED;
                self.recent[self.at] = (sequence, now);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_packet_waits_a_round_trip() {
        let mut budget = Retransmissions::default();
        assert!(budget.allow(5, 1200, 1000, 50_000, 1_000_000));
        assert!(!budget.allow(5, 1200, 1000, 50_000, 1_040_000));
        assert!(budget.allow(5, 1200, 1000, 50_000, 1_050_000));
        assert!(budget.allow(6, 1200, 1000, 50_000, 1_050_000));
    }

    #[test]
    fn a_storm_gets_no_more_than_the_stream_itself() {
        let mut budget = Retransmissions::default();
        let mut bytes = 0;
        for millisecond in 0..10_000_u64 {
            for packet in 0..20 {
                let allowed =
                    budget.allow(millisecond * 20 + packet, 1200, 1000, 0, millisecond * 1000);
                bytes += if allowed { 1200 } else { 0 };
            }
        }
        let kbps = bytes * 8 / 10_000;
        assert!((900..1_100).contains(&kbps), "{kbps}");
        assert!(budget.refused > 100_000);
    }
}
