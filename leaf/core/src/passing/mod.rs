//! A publisher's layers as the renditions of a channel, without decoding: which layer leaves as which
//! rendition, from which key frame on, and under which RTP time.
//!
//! The largest picture is the first rendition, and so on. A layer that falls silent is replaced by the
//! next smaller one that is there. Each change is made at a key frame, and the stream begins anew
//! then with another SSRC. All streams have one RTP time, whose zero is the encoder's. If the layers do
//! not fit after all, the best one and the sound go to a decoder instead.

mod layer;
mod outlet;

use std::fmt;

use leaf_wire::rtcp::SenderReport;

use crate::Micros;
use crate::publisher::{Passed, PassedReport};
use layer::{JUMP, Layer, Seen};

use outlet::{Cuts, Outlet};
pub use outlet::{Relayed, Stream};

/// Time between two looks at who is there.
const LOOK: Micros = 50_000;
/// Key frames are at most so far apart: as the encoder's.
pub const KEY_EVERY: Micros = 4_000_000;
/// So many packets of the sound tell its time well enough: a fifth of a second.
const SOUND_TELLS: u64 = 10;
/// A picture that is so far from its sound is put right at its next key frame.
const APART: i64 = 15_000;
/// Sender reports that would move it by more are nonsense.
const NONSENSE: i64 = 2_000_000;
const PICTURE_RATE: u32 = 90_000;
const SOUND_RATE: u32 = 48_000;

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// To a rendition, by its index.
    Rendition(usize),
    /// To the channel's sound.
    Sound,
    /// To whoever decodes this track.
    Track(usize),
}

/// Why the layers cannot be the renditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// Not all viewers could decode it.
    Profile,
    /// Who joins could not begin.
    NoParameterSets,
    /// It is more than a rendition promises.
    TooMuch {
        /// What the layer has.
        kbps: u64,
    },
}

impl fmt::Display for Unfit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile => out.write_str("a layer is not constrained baseline"),
            Self::NoParameterSets => out.write_str("key frames come without parameter sets"),
            Self::TooMuch { kbps } => {
                write!(out, "a layer has {kbps} kbit/s, too much for its rendition")
            }
        }
    }
}

/// What is to be sent on of a publisher.
#[derive(Debug)]
pub struct Passing {
    layers: Vec<Layer>,
    pictures: Vec<Outlet>,
    sound_track: Option<usize>,
    sound: Outlet,
    sound_of: Layer,
    unfit: Option<Unfit>,
    next_look: Option<Micros>,
    /// Tracks that are to be asked for key frames.
    wants_keys: Vec<usize>,
}

impl Passing {
    /// For renditions, the best one first, and a sound. `layers` are the indices of the tracks that are
    /// layers of the picture, `sound_track` that of the sound; `zero` is the moment of the encoder's
    /// RTP time zero in microseconds of the monotonic clock.
    pub fn new(
        renditions: &[Stream],
        sound: Stream,
        layers: &[usize],
        sound_track: Option<usize>,
        zero: i64,
    ) -> Self {
        let layers = layers
            .iter()
            .map(|track| Layer::new(*track, PICTURE_RATE, zero));
        let pictures = renditions
            .iter()
            .map(|stream| Outlet::new(*stream, Cuts::Restart));
        Self {
            layers: layers.collect(),
            pictures: pictures.collect(),
            sound_track,
            sound: Outlet::new(sound, Cuts::Restart),
            sound_of: Layer::new(sound_track.unwrap_or_default(), SOUND_RATE, zero),
            unfit: None,
            next_look: None,
            wants_keys: Vec::new(),
        }
    }

    /// Why it goes to a decoder, if it does.
    pub fn unfit(&self) -> Option<Unfit> {
        self.unfit
    }

    /// The track that leaves as each rendition.
    pub fn shown(&self) -> impl Iterator<Item = Option<usize>> {
        let layers = self.pictures.iter().map(|it| it.layer);
        layers.map(|layer| layer.map(|layer| self.layers[layer].track))
    }

    /// The picture's size of a track, once it is known.
    pub fn size(&self, track: usize) -> Option<(u32, u32)> {
        let mut layers = self.layers.iter();
        layers.find(|layer| layer.track == track)?.size
    }

    /// Take a packet; `send` gets each copy of it that is to be sent.
    pub fn take<'a>(
        &mut self,
        passed: &Passed<'a>,
        now: Micros,
        mut send: impl FnMut(To, Relayed<'a>),
    ) {
        self.next_look.get_or_insert(now + LOOK);
        if self.sound_track == Some(passed.track) {
            let to = match self.unfit {
                None => To::Sound,
                Some(_) => To::Track(passed.track),
            };
            if let Some(relayed) = self.take_sound(passed, now) {
                send(to, relayed);
            }
            return;
        }
        let Some(index) = self
            .layers
            .iter()
            .position(|layer| layer.track == passed.track)
        else {
            return;
        };
        let (size, live) = (self.layers[index].size, self.is_live(index, now));
        let seen = self.layers[index].take(passed, now);
        match seen {
            Seen::OtherProfile => self.give_up(Unfit::Profile, now),
            Seen::BareKey => self.give_up(Unfit::NoParameterSets, now),
            Seen::More | Seen::Key => {}
        }
        if !live || self.layers[index].size != size {
            self.assign(now);
        }
        // A decoder takes any key frame.
        let is_key = match seen {
            Seen::More => false,
            Seen::Key => true,
            Seen::BareKey | Seen::OtherProfile => !passed.late,
        };
        let decoded = self.unfit.map(|_| To::Track(self.layers[0].track));
        for number in 0..self.pictures.len() {
            if is_key && self.pictures[number].wanted == Some(index) {
                self.begin(number, index, passed, now);
            }
            let outlet = &mut self.pictures[number];
            let leaves = outlet.layer == Some(index);
            if let Some(relayed) = leaves.then(|| outlet.pass(passed)).flatten() {
                send(decoded.unwrap_or(To::Rendition(number)), relayed);
            }
        }
    }

    /// A key frame of the layer that is wanted begins: cut to it, or put its time right.
    fn begin(&mut self, number: usize, index: usize, passed: &Passed<'_>, now: Micros) {
        let offset = self.offset_of(index);
        let outlet = &self.pictures[number];
        let apart = (offset - outlet.offset).abs();
        if outlet.layer != Some(index) || apart > self.layers[index].clock.ticks(APART) {
            self.pictures[number].cut(index, passed, offset, now);
        }
    }

    /// What is added to a layer's timestamps: by its arrival, or where both senders' reports are known by
    /// that of the sound, so that they stay together.
    fn offset_of(&self, index: usize) -> i64 {
        let clock = &self.layers[index].clock;
        let offset = clock.offset();
        let sound = self.sound.layer.map(|_| &self.sound_of.clock);
        let apart = sound
            .and_then(|sound| sound.sender_zero(self.sound.offset))
            .zip(clock.sender_zero(offset))
            .map(|(sound, picture)| sound - picture)
            .filter(|apart| apart.abs() < NONSENSE);
        offset + clock.ticks(apart.unwrap_or(0))
    }

    fn take_sound<'a>(&mut self, passed: &Passed<'a>, now: Micros) -> Option<Relayed<'a>> {
        let (clock, outlet) = (&mut self.sound_of.clock, &mut self.sound);
        clock.observe(passed, now);
        self.sound_of.heard = Some(now);
        let apart = (clock.offset() - outlet.offset).abs();
        if outlet.layer.is_some() && apart > clock.ticks(JUMP) {
            outlet.layer = None;
        }
        if outlet.layer.is_none() && !passed.late && clock.count() >= SOUND_TELLS {
            outlet.cut(0, passed, clock.offset(), now);
        }
        outlet.layer?;
        outlet.pass(passed)
    }

    /// Take a sender report: as it is to be passed on to a decoder, if there is one.
    pub fn take_report(&mut self, passed: &PassedReport) -> Option<(To, SenderReport)> {
        let report = passed.report;
        let (outlet, track) = if self.sound_track == Some(passed.track) {
            self.sound_of.clock.take_report(&report);
            (&self.sound, passed.track)
        } else {
            let mut layers = self.layers.iter_mut();
            let index = layers.position(|layer| layer.track == passed.track)?;
            self.layers[index].clock.take_report(&report);
            let mut outlets = self.pictures.iter();
            let outlet = outlets.find(|outlet| outlet.layer == Some(index))?;
            (outlet, self.layers[0].track)
        };
        self.unfit?;
        outlet.layer?;
        let report = SenderReport {
            ssrc: outlet.ssrc(),
            rtp_timestamp: report.rtp_timestamp.wrapping_add(outlet.offset as u32),
            ..report
        };
        Some((To::Track(track), report))
    }

    /// When [`Passing::look`] is to be called.
    pub fn due(&self) -> Option<Micros> {
        self.next_look
    }

    /// See who is there, and what has to be asked for.
    pub fn look(&mut self, now: Micros) {
        if self.next_look.is_none_or(|due| due > now) {
            return;
        }
        if !self.sound_of.is_live(None, now) {
            self.sound.layer = None;
        }
        let newest = self.newest();
        for outlet in &mut self.pictures {
            let is_live = |layer: &usize| self.layers[*layer].is_live(newest, now);
            outlet.layer = outlet.layer.filter(is_live);
        }
        self.assign(now);
        if self.unfit.is_none() {
            let excess = self.pictures.iter_mut().find_map(|it| it.excess(now));
            if let Some(kbps) = excess {
                self.give_up(Unfit::TooMuch { kbps }, now);
            }
        }
        self.ask_for_keys(now);
        let mut layers = 0..self.layers.len();
        let goes_on = self.sound_of.is_live(None, now) || layers.any(|it| self.is_live(it, now));
        self.next_look = goes_on.then_some(now + LOOK);
    }

    /// When the last packet of any layer came.
    fn newest(&self) -> Option<Micros> {
        self.layers.iter().filter_map(|layer| layer.heard).max()
    }

    fn is_live(&self, layer: usize, now: Micros) -> bool {
        self.layers[layer].is_live(self.newest(), now)
    }

    fn ask_for_keys(&mut self, now: Micros) {
        for (index, layer) in self.layers.iter().enumerate() {
            let is_wanted = |outlet: &Outlet| outlet.wanted == Some(index);
            let awaited = |outlet: &Outlet| is_wanted(outlet) && outlet.layer != Some(index);
            let is_old = self.unfit.is_none()
                && layer
                    .key
                    .is_none_or(|at| now.saturating_sub(at) >= KEY_EVERY);
            let asks = self.pictures.iter().any(awaited)
                || layer.size.is_none()
                || is_old && self.pictures.iter().any(is_wanted);
            if asks && self.is_live(index, now) && !self.wants_keys.contains(&layer.track) {
                self.wants_keys.push(layer.track);
            }
        }
    }

    /// A track that is to be asked for a key frame.
    pub fn take_wanted_key(&mut self) -> Option<usize> {
        self.wants_keys.pop()
    }

    /// Say which layer each rendition should have.
    fn assign(&mut self, now: Micros) {
        let mut order = [0; crate::publisher::MAX_TRACKS];
        let known = self.rank(&mut order);
        let newest = self.newest();
        let is_live = |index: &&usize| self.layers[**index].is_live(newest, now);
        for (number, outlet) in self.pictures.iter_mut().enumerate() {
            let place = number.min(known.len());
            let (larger, rest) = known.split_at(place);
            let smaller = rest.iter().find(is_live);
            outlet.wanted = smaller
                .or_else(|| larger.iter().rev().find(is_live))
                .copied();
        }
    }

    /// The layers that can be shown, the largest picture first.
    fn rank<'a>(&self, order: &'a mut [usize]) -> &'a [usize] {
        let any = self.unfit.is_some();
        let known = (0..self.layers.len()).filter(|it| any || self.layers[*it].size.is_some());
        let mut count = 0;
        for (place, index) in order.iter_mut().zip(known) {
            *place = index;
            count += 1;
        }
        let known = &mut order[..count];
        known.sort_by_key(|index| std::cmp::Reverse(self.layers[*index].area()));
        known
    }

    fn give_up(&mut self, why: Unfit, now: Micros) {
        if self.unfit.is_some() {
            return;
        }
        self.unfit = Some(why);
        let to_decoder = |outlet: &Outlet| {
            let ssrc = outlet.ssrc();
            let stream = Stream {
                ssrc,
                payload_type: 0,
                kbps: 0,
            };
            Outlet::new(stream, Cuts::Continue)
        };
        self.pictures = self.pictures.iter().take(1).map(to_decoder).collect();
        self.sound = to_decoder(&self.sound);
        for layer in &self.layers {
            if !self.wants_keys.contains(&layer.track) {
                self.wants_keys.push(layer.track);
            }
        }
        self.assign(now);
    }
}

#[cfg(test)]
mod tests;
