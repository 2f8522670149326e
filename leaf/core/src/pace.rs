//! How fast a catch-up may go: learnt from what the viewer reports, not fixed.
//!
//! Each viewer has a rate of its own. It rises while bursts arrive whole and falls when the viewer
//! tells of loss around one. A bandwidth estimate below the stream's bitrate says that the path is
//! full: then the burst goes hardly faster than the stream.

use serde::{Deserialize, Serialize};

use crate::Micros;

const FIRST_KBPS: f64 = 12_000.0;
const MAX_KBPS: f64 = 24_000.0;
const RISE: f64 = 1.25;
const FALL: f64 = 0.6;
/// A report this long after a burst may still speak of it: two intervals of RTCP.
const JUDGED: Micros = 2_000_000;
/// So much may go at once, in time at the rate.
const SLICE: Micros = 4_000;
/// The head start of a burst: what an initial congestion window is to TCP (RFC 6928).
const HEAD_START: f64 = 10.0 * 1200.0;
/// Nor is the key frame held back up to this size: live, it would come at once as well.
const KEY_FRAME: f64 = 64.0 * 1024.0;
/// An estimate below this share of the stream's bitrate is taken as the path's limit. A higher one
/// says nothing: it begins near what is received and ends at 1.5 times that.
const FULL: f64 = 0.9;
/// A burst is at least so many times as fast as the stream, or it would hardly reach the head.
const LEAST: f64 = 1.3;

/// The pace of one viewer's catch-ups.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pace {
    kbps: f64,
    stream_kbps: f64,
    estimate_kbps: Option<f64>,
    credit: f64,
    counted: Micros,
    ended: Option<Micros>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            kbps: FIRST_KBPS,
            stream_kbps: 0.0,
            estimate_kbps: None,
            credit: 0.0,
            counted: 0,
            ended: None,
        }
    }
}

impl Pace {
    /// The rate of a burst, in kbit/s.
    pub fn kbps(&self) -> f64 {
        let least = self.stream_kbps * LEAST;
        let full = self
            .estimate_kbps
            .is_some_and(|kbps| kbps < self.stream_kbps * FULL);
        if full { least } else { self.kbps.max(least) }
    }

    /// A burst of a stream of `stream_kbps` begins, with a key frame of so many bytes.
    pub fn begin(&mut self, stream_kbps: u32, key_frame: usize, now: Micros) {
        if self
            .ended
            .take()
            .is_some_and(|ended| now.saturating_sub(ended) >= JUDGED)
        {
            self.kbps = (self.kbps * RISE).min(MAX_KBPS);
        }
        self.stream_kbps = f64::from(stream_kbps);
        let kbps = self.kbps();
        self.credit = if kbps < FIRST_KBPS {
            HEAD_START.min(kbps * 5.0)
        } else {
            HEAD_START.max(KEY_FRAME.min(key_frame as f64))
        };
        self.counted = now;
    }

    /// How many bytes may be sent now; what is sent is told by [`Pace::spend`].
    pub fn credit(&mut self, now: Micros) -> f64 {
        let passed = now.saturating_sub(self.counted).min(SLICE * 4);
        self.counted = now;
        let rate = self.kbps() / 8_000.0; // bytes per microsecond
        let most = (rate * SLICE as f64).max(HEAD_START);
        let grown = (self.credit + rate * passed as f64).min(most);
        self.credit = self.credit.max(grown);
        self.credit
    }

    /// Bytes were sent.
    pub fn spend(&mut self, bytes: usize) {
        self.credit -= bytes as f64;
    }

    /// When the next packet may go.
    pub fn due(&self, now: Micros) -> Micros {
        let rate = self.kbps() / 8_000.0;
        let wait = (1200.0 - self.credit).max(0.0) / rate;
        now + (wait as Micros).clamp(500, SLICE)
    }

    /// The burst has reached the head.
    pub fn end(&mut self, now: Micros) {
        self.ended = Some(now);
    }

    /// The viewer lost a share of the packets, or asked for some again.
    pub fn lost(&mut self, share: f64, bursting: bool, now: Micros) {
        let concerned = bursting
            || self
                .ended
                .is_some_and(|ended| now.saturating_sub(ended) < JUDGED);
        if concerned && share > 0.02 {
            self.kbps = (self.kbps * FALL).max(self.stream_kbps * LEAST);
            // Until the next burst nothing more is learnt from this one.
            self.ended = None;
        }
    }

    /// The viewer's estimate of the bandwidth.
    pub fn estimate(&mut self, kbps: f64) {
        self.estimate_kbps = Some(kbps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(pace: &mut Pace, bytes: usize, mut now: Micros) -> Micros {
        let began = now;
        let mut left = bytes as f64;
        pace.begin(1000, 0, now);
        while left > 0.0 {
            while pace.credit(now) >= 1200.0 && left > 0.0 {
                pace.spend(1200);
                left -= 1200.0;
            }
            now = pace.due(now);
        }
        pace.end(now);
        now - began
    }

    #[test]
    fn a_burst_keeps_its_rate() {
        let mut pace = Pace::default();
        let took = burst(&mut pace, 300_000, 1_000_000);
        // 2.4 Mbit at 12 Mbit/s, less the head start
        assert!((180_000..205_000).contains(&took), "{took}");
    }

    #[test]
    fn loss_slows_it_and_whole_bursts_quicken_it() {
        let mut pace = Pace::default();
        let quick = burst(&mut pace, 300_000, 1_000_000);
        pace.lost(0.2, false, 1_500_000);
        let slow = burst(&mut pace, 300_000, 2_000_000);
        assert!(slow > quick * 3 / 2, "{quick} {slow}");
        let mut now = 3_000_000;
        for _ in 0..10 {
            now += burst(&mut pace, 300_000, now) + JUDGED;
        }
        assert!(burst(&mut pace, 300_000, now) < quick);
    }

    #[test]
    fn old_loss_does_not_count_against_a_burst() {
        let mut pace = Pace::default();
        burst(&mut pace, 300_000, 1_000_000);
        pace.lost(0.5, false, 9_000_000);
        assert_eq!(pace.kbps(), FIRST_KBPS);
    }

    #[test]
    fn a_key_frame_is_not_held_back_where_the_path_takes_it() {
        let mut pace = Pace::default();
        pace.begin(1000, 30_000, 0);
        assert_eq!(pace.credit(0), 30_000.0);
        pace.spend(30_000);
        assert!(pace.credit(1_000) < 2_000.0);
        pace.begin(1000, 10_000_000, 0);
        assert_eq!(pace.credit(0), KEY_FRAME);
        pace.lost(0.5, true, 0);
        pace.begin(1000, 30_000, 0);
        assert_eq!(pace.credit(0), HEAD_START);
    }

    #[test]
    fn a_full_path_is_respected() {
        let mut pace = Pace::default();
        pace.estimate(850.0);
        pace.begin(1000, 0, 0);
        assert_eq!(pace.kbps(), 1_300.0);
        pace.estimate(1_080.0);
        assert_eq!(pace.kbps(), FIRST_KBPS);
    }
}
