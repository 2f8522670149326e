//! Which moment a timestamp means: the clocks of streams that belong together.
//!
//! In the streams of one group equal RTP time in seconds is equal time (their encoder starts all of
//! them at zero). What is not known is when zero was. The packet that travelled quickest tells it
//! best: the least difference between arrival and RTP time, over all streams of the group.

use crate::Micros;

/// The minimum is let rise by so much: as fast as two bad quartz clocks part (200 ppm).
const LEAK_PPM: u64 = 200;
/// Streams that would be further apart than this do not belong together after all.
const MAX_APART: i64 = 2_000_000;

/// When RTP time zero of a group was, on this machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct GroupClock {
    zero: Option<i64>,
    seen: Micros,
}

impl GroupClock {
    /// When RTP time zero was, in microseconds; None before the first packet of the group.
    pub fn zero(&self) -> Option<i64> {
        self.zero
    }

    fn observe(&mut self, media: i64, now: Micros) {
        let difference = now as i64 - media;
        let risen = self
            .zero
            .map(|zero| zero + (now.saturating_sub(self.seen) * LEAK_PPM / 1_000_000) as i64);
        // Steps of the leak below one microsecond would be lost if the time were noted each time.
        if risen != self.zero {
            self.seen = now;
        }
        self.zero = Some(risen.map_or(difference, |zero| zero.min(difference)));
    }
}

/// The clock of one stream in a group.
#[derive(Debug, Clone, Copy)]
pub struct StreamClock {
    rate: u32,
    shift: Option<i64>,
    generation: u32,
}

impl StreamClock {
    /// A clock of `rate` ticks a second.
    pub fn new(rate: u32) -> Self {
        Self {
            rate: rate.max(1),
            shift: None,
            generation: 0,
        }
    }

    /// Ticks a second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// The time of an extended timestamp in microseconds since the group's zero.
    pub fn media(&self, timestamp: u64) -> Option<i64> {
        Some(self.raw(timestamp) + self.shift?)
    }

    /// Take note of a packet that has just come.
    pub fn observe(
        &mut self,
        timestamp: u64,
        generation: u32,
        group: &mut GroupClock,
        now: Micros,
    ) {
        let raw = self.raw(timestamp);
        if self.shift.is_none() || self.generation != generation {
            self.generation = generation;
            self.shift = Some(self.align(now as i64 - raw, group.zero));
        }
        if let Some(shift) = self.shift {
            group.observe(raw + shift, now);
        }
    }

    /// How much is to be added to raw time, `apart` being arrival less raw time.
    ///
    /// Timestamps of 32 bits begin anew every 13 hours with 90 kHz, every 25 with 48 kHz: streams
    /// of one group differ by whole such cycles. What does not fit then has another zero, and its
    /// first packet counts as one that has just been taken.
    fn align(&self, apart: i64, zero: Option<i64>) -> i64 {
        let Some(zero) = zero else { return 0 };
        let cycle = (1_000_000_u64 << 32) as i64 / i64::from(self.rate);
        let difference = apart - zero;
        let cycles = (difference + cycle / 2).div_euclid(cycle) * cycle;
        if (difference - cycles).abs() <= MAX_APART {
            cycles
        } else {
            difference
        }
    }

    fn raw(&self, timestamp: u64) -> i64 {
        // Extended timestamps begin in the second cycle, see the ring.
        let ticks = i128::from(timestamp) - (1 << 32);
        (ticks * 1_000_000).div_euclid(i128::from(self.rate)) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn picture_and_sound_of_one_moment_mean_one_moment() {
        let (mut group, mut video, mut audio) = (
            GroupClock::default(),
            StreamClock::new(90_000),
            StreamClock::new(48_000),
        );
        // The picture of second 5 comes 30 ms after it, the sound 4 ms after it.
        video.observe((1 << 32) + 5 * 90_000, 1, &mut group, 105 * SECOND + 30_000);
        audio.observe((1 << 32) + 5 * 48_000, 1, &mut group, 105 * SECOND + 4_000);
        let (picture, sound) = (
            video.media((1 << 32) + 6 * 90_000),
            audio.media((1 << 32) + 6 * 48_000),
        );
        assert!((picture.unwrap() - sound.unwrap()).abs() <= 1);
        let at = group.zero().unwrap() + picture.unwrap();
        assert!((at - (106 * SECOND + 4_000) as i64).abs() < 1_000, "{at}");
    }

    #[test]
    fn a_stream_that_has_begun_anew_more_often_fits_all_the_same() {
        let hours = 15 * 3600_u64;
        let (mut group, mut video, mut audio) = (
            GroupClock::default(),
            StreamClock::new(90_000),
            StreamClock::new(48_000),
        );
        let wrapped = (hours * 90_000) as u32; // once around after 13 hours
        video.observe((1 << 32) + u64::from(wrapped), 1, &mut group, 7 * SECOND);
        audio.observe((1 << 32) + hours * 48_000, 1, &mut group, 7 * SECOND);
        let picture = video
            .media((1 << 32) + u64::from(wrapped) + 90_000)
            .unwrap();
        let sound = audio.media((1 << 32) + hours * 48_000 + 48_000).unwrap();
        assert!((picture - sound).abs() <= 1, "{picture} {sound}");
    }

    #[test]
    fn a_stream_with_another_zero_goes_by_its_arrival() {
        let (mut group, mut video, mut audio) = (
            GroupClock::default(),
            StreamClock::new(90_000),
            StreamClock::new(48_000),
        );
        video.observe((1 << 32) + 90_000, 1, &mut group, 7 * SECOND);
        audio.observe((1 << 32) + 1234 * 48_000, 1, &mut group, 7 * SECOND);
        let sound = audio.media((1 << 32) + 1234 * 48_000).unwrap() + group.zero().unwrap();
        assert!((sound - 7 * SECOND as i64).abs() <= 1);
    }

    #[test]
    fn the_quickest_packet_counts_and_drift_is_followed() {
        let (mut group, mut video) = (GroupClock::default(), StreamClock::new(90_000));
        let stamp = |ms: u64| (1_u64 << 32) + ms * 90;
        video.observe(stamp(0), 1, &mut group, 1_000_000);
        video.observe(stamp(40), 1, &mut group, 1_020_000);
        let zero = group.zero().unwrap();
        video.observe(stamp(80), 1, &mut group, 1_300_000);
        assert!(group.zero().unwrap() - zero < 1_000);
        // An hour with a source whose quartz is 100 ppm slow.
        for second in 1..3600 {
            let late = second * 1_000_000 + second * 100;
            video.observe(stamp(second * 1000), 1, &mut group, 1_000_000 + late);
        }
        let at = group.zero().unwrap() + video.media(stamp(3_599_000)).unwrap();
        let arrived = 1_000_000 + 3_599 * 1_000_100;
        assert!((at - arrived).abs() < 25_000, "{}", at - arrived);
    }
}
