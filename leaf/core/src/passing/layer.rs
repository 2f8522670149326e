//! One layer of a publisher's picture: what it is, and when its RTP time was.

use leaf_wire::h264::{Sps, is_idr_start, sps_of};
use leaf_wire::rtcp::SenderReport;
use leaf_wire::unwrap::TimestampUnwrapper;

use crate::Micros;
use crate::publisher::Passed;

/// Nothing for so long, and a layer or the sound is gone, just before the slate takes its place.
const LOST: Micros = 550_000;
/// So far behind the others, and it is gone: another one is to be in its place before the slate is.
const LEFT_BEHIND: Micros = 350_000;
/// A step of a source's time that no path makes.
pub const JUMP: i64 = 1_000_000;
/// So many key frames without parameter sets, and they are not in the stream: of one they may be lost.
const BARE: u8 = 3;
const BASELINE: u8 = 66;
/// `constraint_set1_flag`: what makes baseline constrained baseline (ITU-T H.264 section A.2.1).
const CONSTRAINED: u8 = 0x40;

/// From a source's RTP time to that of the renditions, which all have the same zero.
///
/// The packet that came quickest says what a timestamp's moment was.
#[derive(Debug, Clone)]
pub struct Clock {
    /// Ticks a second.
    rate: i64,
    /// The moment of the renditions' RTP time zero, in microseconds.
    zero: i64,
    source: Option<u32>,
    unwrapper: TimestampUnwrapper,
    least: i64,
    count: u64,
    /// What a sender report says: NTP time in microseconds, and the extended RTP time then.
    report: Option<(i64, i64)>,
}

impl Clock {
    /// Of nothing yet.
    pub fn new(rate: u32, zero: i64) -> Self {
        Self {
            rate: i64::from(rate.max(1)),
            zero,
            source: None,
            unwrapper: TimestampUnwrapper::default(),
            least: 0,
            count: 0,
            report: None,
        }
    }

    /// A packet came.
    pub fn observe(&mut self, passed: &Passed<'_>, now: Micros) {
        if self.source != Some(passed.ssrc) {
            *self = Self::new(self.rate as u32, self.zero);
            self.source = Some(passed.ssrc);
        }
        let stamp = self.unwrapper.unwrap(passed.timestamp) as i64;
        let apart = self.ticks(now as i64 - self.zero) - stamp;
        // A source that has set its timestamps back is late by that for good.
        let is_new = self.count == 0 || apart - self.least > self.ticks(JUMP);
        self.least = if is_new { apart } else { self.least.min(apart) };
        self.count += 1;
    }

    /// Take what its sender says of its time.
    pub fn take_report(&mut self, report: &SenderReport) {
        if self.source == Some(report.ssrc) {
            let (seconds, fraction) = (report.ntp >> 32, report.ntp & 0xffff_ffff);
            let micros = (seconds * 1_000_000 + ((fraction * 1_000_000) >> 32)) as i64;
            let stamp = self.unwrapper.unwrap(report.rtp_timestamp) as i64;
            self.report = Some((micros, stamp));
        }
    }

    /// Packets so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What is to be added to timestamps, modulo 2^32.
    pub fn offset(&self) -> i64 {
        self.least
    }

    /// Where the sender's NTP time is zero in that of the renditions if `offset` is added, in
    /// microseconds; None before its first report.
    pub fn sender_zero(&self, offset: i64) -> Option<i64> {
        let (ntp, stamp) = self.report?;
        let micros = i128::from(stamp + offset) * 1_000_000 / i128::from(self.rate);
        Some(micros as i64 - ntp)
    }

    /// Ticks of some microseconds.
    pub fn ticks(&self, micros: i64) -> i64 {
        (i128::from(micros) * i128::from(self.rate)).div_euclid(1_000_000) as i64
    }
}

/// What a packet shows of its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A packet like others.
    More,
    /// A key frame begins, with its parameter sets.
    Key,
    /// A key frame begins, and its parameter sets were not there: not for the first time.
    BareKey,
    /// A key frame begins that is not constrained baseline.
    OtherProfile,
}

/// One layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Index of its track.
    pub track: usize,
    /// Its picture's width and height, once a key frame told them.
    pub size: Option<(u32, u32)>,
    /// When its last packet came.
    pub heard: Option<Micros>,
    /// When its last key frame began.
    pub key: Option<Micros>,
    /// Its time.
    pub clock: Clock,
    /// The timestamp of its last parameter sets.
    described: Option<u32>,
    bare: u8,
}

impl Layer {
    /// A layer of which nothing came.
    pub fn new(track: usize, rate: u32, zero: i64) -> Self {
        Self {
            track,
            size: None,
            heard: None,
            key: None,
            clock: Clock::new(rate, zero),
            described: None,
            bare: 0,
        }
    }

    /// Luma samples, 0 if that is not known.
    pub fn area(&self) -> u64 {
        self.size
            .map_or(0, |(width, height)| u64::from(width) * u64::from(height))
    }

    /// Whether something came of it lately, `newest` being when the last packet of any layer came.
    pub fn is_live(&self, newest: Option<Micros>, now: Micros) -> bool {
        self.heard.is_some_and(|heard| {
            now.saturating_sub(heard) < LOST
                && newest.is_none_or(|newest| newest.saturating_sub(heard) < LEFT_BEHIND)
        })
    }

    /// Take a packet. A key frame of which the first packet came late begins for nobody.
    pub fn take(&mut self, passed: &Passed<'_>, now: Micros) -> Seen {
        self.clock.observe(passed, now);
        self.heard = Some(now);
        if let Some(sps) = sps_of(passed.payload) {
            let Ok(sps) = Sps::parse(sps) else {
                return Seen::OtherProfile;
            };
            self.size = Some((sps.width, sps.height));
            self.described = Some(passed.timestamp);
            self.bare = 0;
            if !passed.late {
                self.key = Some(now);
            }
            if sps.profile != BASELINE || sps.constraints & CONSTRAINED == 0 {
                return Seen::OtherProfile;
            }
            if !passed.late {
                return Seen::Key;
            }
        } else if is_idr_start(passed.payload) && self.described != Some(passed.timestamp) {
            self.described = Some(passed.timestamp);
            self.bare = self.bare.saturating_add(1);
            if self.bare >= BARE {
                self.key = Some(now);
                return Seen::BareKey;
            }
        }
        Seen::More
    }
}
