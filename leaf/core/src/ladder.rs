//! Which rendition a viewer gets: down when its path is full, up again when it has room.
//!
//! A receiver's estimate (REMB) ends at about 1.5 times what it receives, so it can tell of too
//! little bandwidth but seldom of enough for the next rendition. Upwards is therefore a trial: when
//! the estimate is as high as it can get and nothing was lost for a while. A trial that fails makes
//! the next one wait longer.

use serde::{Deserialize, Serialize};

use crate::Micros;
use crate::cursor::StreamId;

const SECOND: Micros = 1_000_000;
/// An estimate below this share of the rendition's bitrate means too little.
const TOO_LITTLE: f64 = 0.9;
/// Between these shares of the rendition's bitrate the estimate is as high as it can get. A higher
/// one is from other times, and tells the limit.
const ROOM: std::ops::Range<f64> = 1.3..1.6;
/// For so long it must have been too little.
const DOWN_AFTER: Micros = SECOND;
/// Loss of more than this share, for as long, means too little, too.
const TOO_LOSSY: f64 = 0.10;
const LOSSLESS: f64 = 0.02;
const FIRST_WAIT: Micros = 5 * SECOND;
const MAX_WAIT: Micros = 120 * SECOND;
/// A trial has failed if it goes down again within this time.
const TRIAL: Micros = 10 * SECOND;

/// One rendition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// Its stream.
    pub stream: StreamId,
    /// Its bitrate in kbit/s.
    pub kbps: u32,
}

/// The renditions of a channel for one viewer, from the highest bitrate to the lowest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ladder {
    rungs: Vec<Rung>,
    at: usize,
    pinned: bool,
    estimate: Option<f64>,
    loss: f64,
    poor_since: Option<Micros>,
    good_since: Option<Micros>,
    wait: Micros,
    rose: Option<Micros>,
}

impl Ladder {
    /// A ladder that starts at rung `at`. `pinned`: it stays there.
    pub fn new(rungs: Vec<Rung>, at: usize, pinned: bool) -> Self {
        Self {
            at: at.min(rungs.len().saturating_sub(1)),
            rungs,
            pinned,
            estimate: None,
            loss: 0.0,
            poor_since: None,
            good_since: None,
            wait: FIRST_WAIT,
            rose: None,
        }
    }

    /// The rendition of now.
    pub fn rung(&self) -> Option<Rung> {
        self.rungs.get(self.at).copied()
    }

    /// All of them.
    pub fn rungs(&self) -> &[Rung] {
        &self.rungs
    }

    /// The rendition that is sent is this one after all.
    pub fn settle(&mut self, stream: StreamId) {
        if let Some(at) = self.rungs.iter().position(|rung| rung.stream == stream) {
            self.at = at;
        }
    }

    /// The receiver's estimate in kbit/s, if it sent one.
    pub fn estimate(&self) -> Option<f64> {
        self.estimate
    }

    /// The same renditions under other numbers, from the same one on.
    pub fn renumber(&mut self, rungs: Vec<Rung>) {
        self.at = self.at.min(rungs.len().saturating_sub(1));
        self.rungs = rungs;
        (self.poor_since, self.good_since, self.rose) = (None, None, None);
    }

    /// Keep what was learnt for another channel's ladder.
    pub fn replace(&mut self, rungs: Vec<Rung>, at: usize, pinned: bool) {
        let estimate = self.estimate;
        *self = Self::new(rungs, at, pinned);
        self.estimate = estimate;
    }

    /// The receiver estimates its bandwidth.
    pub fn on_estimate(&mut self, kbps: f64, now: Micros) -> Option<Rung> {
        self.estimate = Some(kbps);
        self.decide(now)
    }

    /// The receiver lost a share of what was sent since its last report.
    pub fn on_loss(&mut self, share: f64, now: Micros) -> Option<Rung> {
        self.loss = self.loss * 0.5 + share * 0.5;
        self.decide(now)
    }

    fn decide(&mut self, now: Micros) -> Option<Rung> {
        if self.pinned {
            return None;
        }
        let kbps = f64::from(self.rung()?.kbps);
        let estimate = self.estimate.unwrap_or(f64::INFINITY);
        let poor = estimate < kbps * TOO_LITTLE || self.loss > TOO_LOSSY;
        let next = self
            .at
            .checked_sub(1)
            .map_or(f64::INFINITY, |at| f64::from(self.rungs[at].kbps));
        let room = ROOM.contains(&(estimate / kbps)) || estimate >= next;
        let good = self.loss < LOSSLESS && room;
        self.poor_since = poor.then(|| self.poor_since.unwrap_or(now));
        self.good_since = good.then(|| self.good_since.unwrap_or(now));
        if self
            .poor_since
            .is_some_and(|since| now.saturating_sub(since) >= DOWN_AFTER)
        {
            return self.down(estimate, now);
        }
        let may = self
            .good_since
            .is_some_and(|since| now.saturating_sub(since) >= self.wait);
        if may && self.at > 0 {
            self.rose = Some(now);
            return self.go(self.at - 1);
        }
        None
    }

    fn down(&mut self, estimate: f64, now: Micros) -> Option<Rung> {
        if self
            .rose
            .take()
            .is_some_and(|rose| now.saturating_sub(rose) < TRIAL)
        {
            self.wait = (self.wait * 2).min(MAX_WAIT);
        } else {
            self.wait = FIRST_WAIT;
        }
        let below = self.at + 1;
        let fits = |rung: &Rung| f64::from(rung.kbps) <= estimate * TOO_LITTLE;
        let last = self.rungs.len().checked_sub(1)?;
        let wanted = self.rungs.iter().position(fits).unwrap_or(last).max(below);
        if wanted > last {
            self.poor_since = None;
            return None;
        }
        self.go(wanted)
    }

    fn go(&mut self, at: usize) -> Option<Rung> {
        self.at = at;
        (self.poor_since, self.good_since, self.loss) = (None, None, 0.0);
        self.rung()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(at: usize, pinned: bool) -> Ladder {
        let rungs = [(7, 2000), (8, 1000), (9, 300)];
        let rungs = rungs.map(|(stream, kbps)| Rung { stream, kbps }).to_vec();
        Ladder::new(rungs, at, pinned)
    }

    /// Tell an estimate every half second; return the changes with their seconds.
    fn told(ladder: &mut Ladder, kbps: f64, from: u64, until: u64) -> Vec<(u64, StreamId)> {
        let halves = (from * 2..until * 2).map(|half| half * SECOND / 2);
        halves
            .filter_map(|now| Some((now / SECOND, ladder.on_estimate(kbps, now)?.stream)))
            .collect()
    }

    #[test]
    fn a_full_path_leads_to_what_fits_at_once() {
        assert_eq!(told(&mut ladder(0, false), 500.0, 10, 20), [(11, 9)]);
        assert_eq!(told(&mut ladder(0, false), 1200.0, 10, 13), [(11, 8)]);
    }

    #[test]
    fn below_the_lowest_it_stays_there() {
        let mut ladder = ladder(2, false);
        assert_eq!(told(&mut ladder, 100.0, 10, 60), []);
        assert_eq!(ladder.rung().unwrap().stream, 9);
    }

    #[test]
    fn room_leads_up_by_steps_and_failed_trials_wait_longer() {
        let mut ladder = ladder(2, false);
        let mut now = 0;
        let mut until_change = |kbps| {
            let began = now;
            loop {
                now += SECOND / 2;
                if let Some(rung) = ladder.on_estimate(kbps, now) {
                    return (rung.stream, (now - began) / SECOND);
                }
            }
        };
        let mut waits = vec![];
        for _ in 0..4 {
            let (stream, wait) = until_change(450.0);
            assert_eq!(stream, 8);
            waits.push(wait);
            assert_eq!(until_change(500.0), (9, 1));
        }
        assert!(waits.is_sorted_by(|a, b| a < b), "{waits:?}");
    }

    #[test]
    fn loss_leads_down_even_without_an_estimate() {
        let mut ladder = ladder(0, false);
        let mut changes = vec![];
        for second in 0..6 {
            changes.extend(ladder.on_loss(0.3, second * SECOND));
        }
        assert_eq!(changes[0].stream, 8);
    }

    #[test]
    fn what_is_pinned_stays() {
        assert_eq!(told(&mut ladder(0, true), 100.0, 0, 60), []);
    }
}
