//! One publisher's connection: what comes of it, where that goes, and what it is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use leaf_core::Micros;
use leaf_core::passing::{Passing, Relayed, Stream, To, Unfit};
use leaf_core::publisher::{PassedReport, Publisher, Terms};
use leaf_secure::dtls::Fingerprint;
use leaf_wire::header::HeaderTemplate;
use leaf_wire::ice::Credentials;
use leaf_wire::rtcp;

use super::link::{Link, Unusable, push};
use super::outlets::Outlets;
use crate::clock;
use crate::control::event::Event;
use crate::control::publisher::{PassingTo, PublisherAdd, StreamTo, Track};
use crate::control::request::Kind;
use crate::net::batch::{Batch, MAX_DATAGRAM};

/// What a publisher may send if nothing else is said, in kbit/s.
const KBPS: u32 = 4000;

/// What came of an RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// It was passed on.
    Sent,
    /// There is nothing to pass on.
    Nothing,
    /// It is too long to be passed on.
    TooLong,
}

/// One publisher's connection.
pub struct Publishing {
    /// What every peer has.
    pub link: Link,
    /// What it sends and is asked for.
    pub publisher: Publisher,
    /// Its tracks, as they were added.
    pub tracks: Vec<Track>,
    /// Where the packets and the reports of each track go.
    targets: Vec<(SocketAddr, SocketAddr)>,
    /// Its layers as renditions, if they are to be that.
    layers: Option<Layers>,
}

/// The layers of a publisher, where they go, and what was told of that.
struct Layers {
    passing: Passing,
    to: PassingTo,
    /// Which track was told to be each rendition, and whether it is all decoded.
    told: Option<(Vec<Option<usize>>, Option<Unfit>)>,
}

impl Publishing {
    /// A connection that the publisher is to open. `own` is our SSRC towards it.
    pub fn new(
        request: PublisherAdd,
        fingerprint: Fingerprint,
        credentials: Credentials,
        own: u32,
        now: Micros,
    ) -> Self {
        let name = request.publisher.as_str().to_owned();
        let kbps = request.kbps.map_or(KBPS, |kbps| kbps.get());
        let terms = request.tracks.iter().map(terms).collect();
        let targets = request.tracks.iter().map(|track| {
            let mut reports = track.to;
            reports.set_port(track.to.port().saturating_add(1));
            (track.to, reports)
        });
        Self {
            // No more than RFC 3550 section 6.5.1 asks for is to be told of us.
            publisher: Publisher::new(terms, own, format!("{own:08x}"), kbps),
            targets: targets.collect(),
            layers: request
                .passing
                .map(|to| Layers::new(to, &request.tracks, now)),
            tracks: request.tracks,
            link: Link::new(
                name,
                credentials,
                request.remote.ufrag.as_str().to_owned(),
                fingerprint,
                now,
            ),
        }
    }

    /// Take an RTP packet, and pass on what is in it.
    ///
    /// # Errors
    /// It is not of the publisher, or a repetition.
    pub fn receive(
        &mut self,
        packet: &[u8],
        plain: &mut Vec<u8>,
        outlets: &mut Outlets,
        now: Micros,
    ) -> Result<Forwarded, Unusable> {
        self.link.open_rtp(packet, plain, now)?;
        let Some(passed) = self.publisher.take(plain, now) else {
            return Ok(Forwarded::Nothing);
        };
        if let Some(layers) = &mut self.layers {
            let mut came_of = Forwarded::Nothing;
            layers.passing.take(&passed, now, |to, relayed| {
                let to = match to {
                    To::Rendition(index) => layers.to.renditions[index].to,
                    To::Sound => layers.to.sound.to,
                    To::Track(track) => self.targets[track].0,
                };
                came_of = send(outlets, to, &relayed);
            });
            return Ok(came_of);
        }
        let to = self.targets[passed.track].0;
        let relayed = Relayed {
            payload_type: passed.payload_type,
            marker: passed.marker,
            sequence: passed.sequence,
            timestamp: passed.timestamp,
            ssrc: passed.ssrc,
            payload: passed.payload,
        };
        Ok(send(outlets, to, &relayed))
    }

    /// Take an RTCP packet, and pass on the sender reports in it.
    ///
    /// # Errors
    /// Why it is of no use.
    pub fn receive_rtcp(
        &mut self,
        packet: &[u8],
        plain: &mut Vec<u8>,
        outlets: &mut Outlets,
        now: Micros,
    ) -> Result<(), Unusable> {
        self.link.open_rtcp(packet, plain, now)?;
        // What stands before a malformed part counts; there is nobody to complain to.
        let _ = rtcp::parse(plain, |feedback| {
            let passed = self.publisher.take_feedback(&feedback, now);
            let passed = passed.and_then(|passed| match &mut self.layers {
                None => Some(passed),
                Some(layers) => layers.report(&passed),
            });
            if let Some(PassedReport { track, report }) = passed {
                let to = self.targets[track].1;
                let mut compound = Vec::new();
                // One name for all tracks: they are synchronous (RFC 3550 section 6.5.1).
                rtcp::sender_report(&report, &self.link.name, &mut compound);
                if let Some(batch) = outlets.to(to) {
                    push(batch, to, &compound);
                }
            }
        });
        Ok(())
    }

    /// Tell the publisher what is due. `compound` is room to write.
    pub fn tell(&mut self, batches: &mut [Batch], compound: &mut Vec<u8>, now: Micros) {
        if let Some(layers) = &mut self.layers {
            layers.passing.look(now);
            while let Some(track) = layers.passing.take_wanted_key() {
                self.publisher.want_key_frame_of(track);
            }
        }
        self.publisher.write(now, compound);
        self.link.send_rtcp(compound, batches);
    }

    /// When [`Publishing::tell`] has something to do.
    pub fn due(&self) -> Option<Micros> {
        let layers = self.layers.as_ref();
        let look = layers.and_then(|layers| layers.passing.due());
        [look, self.publisher.due()].into_iter().flatten().min()
    }

    /// Ask for a key frame of the layer that is a rendition now, or of every picture.
    pub fn want_key_frame(&mut self, rendition: Option<&str>) {
        let layers = rendition.and(self.layers.as_ref());
        let layers = layers.filter(|layers| layers.passing.unfit().is_none());
        let Some(layers) = layers else {
            return self.publisher.want_key_frame();
        };
        let names = layers.to.renditions.iter().map(|it| it.name.as_str());
        let shown = names.zip(layers.passing.shown());
        for (_, track) in shown.filter(|(name, _)| Some(*name) == rendition) {
            if let Some(track) = track {
                self.publisher.want_key_frame_of(track);
            }
        }
    }

    /// Everywhere that its packets may go.
    pub fn all_targets(&self) -> impl Iterator<Item = SocketAddr> {
        let streams = self.layers.iter().flat_map(|it| it.to.streams());
        let tracks = self.tracks.iter().map(|track| track.to);
        tracks.chain(streams.map(|stream| stream.to))
    }

    /// What has changed in who is which rendition since it was last asked for.
    pub fn news(&mut self) -> Option<Event> {
        let layers = self.layers.as_mut()?;
        let (passing, told) = (&layers.passing, layers.told.as_ref());
        // Asked after each packet: nothing is allocated where nothing has changed.
        let is_told = told.is_some_and(|(shown, unfit)| {
            *unfit == passing.unfit() && passing.shown().eq(shown.iter().copied())
        });
        if is_told {
            return None;
        }
        layers.told = Some((passing.shown().collect(), passing.unfit()));
        Some(layers.event(&self.link.name, &self.tracks))
    }
}

impl Layers {
    fn new(to: PassingTo, tracks: &[Track], now: Micros) -> Self {
        let renditions: Vec<_> = to.renditions.iter().map(stream).collect();
        let places = |is: fn(&Track) -> bool| {
            let tracks = tracks.iter().enumerate();
            tracks.filter(move |(_, it)| is(it)).map(|(place, _)| place)
        };
        let layers: Vec<_> = places(|it| it.rid.is_some()).collect();
        let sound = places(|it| it.kind == Kind::Audio).next();
        let since = clock::unix(now) as i64 - to.epoch_ms as i64 * 1000;
        let zero = now as i64 - since;
        Self {
            passing: Passing::new(&renditions, stream(&to.sound), &layers, sound, zero),
            to,
            told: None,
        }
    }

    /// A report as it goes to a decoder, if there is one.
    fn report(&mut self, passed: &PassedReport) -> Option<PassedReport> {
        match self.passing.take_report(passed)? {
            (To::Track(track), report) => Some(PassedReport { track, report }),
            _ => None,
        }
    }

    fn event(&self, publisher: &str, tracks: &[Track]) -> Event {
        let unfit = self.passing.unfit();
        let names = self.to.renditions.iter().map(|it| it.name.as_str());
        let mut renditions = BTreeMap::new();
        for (index, name) in names.enumerate() {
            let shown = self.passing.shown().nth(index).flatten();
            let track = shown.filter(|_| unfit.is_none()).map(|it| &tracks[it]);
            let layer = track.and_then(Track::layer);
            renditions.insert(name.to_owned(), layer.map(str::to_owned));
        }
        Event::PublisherPassing {
            publisher: publisher.to_owned(),
            renditions,
            unfit: unfit.map(|it| it.to_string()),
        }
    }
}

fn stream(to: &StreamTo) -> Stream {
    Stream {
        ssrc: to.ssrc,
        payload_type: to.payload_type.get(),
        kbps: to.kbps.get(),
    }
}

fn send(outlets: &mut Outlets, to: SocketAddr, relayed: &Relayed<'_>) -> Forwarded {
    let written = outlets.to(to).is_some_and(|batch| {
        let mut length = 0;
        batch.push(to, |out| {
            length = write(relayed, out);
            length
        });
        length > 0
    });
    if written {
        Forwarded::Sent
    } else {
        Forwarded::TooLong
    }
}

/// Write a packet as plain RTP; its length, or 0 if there is no room.
fn write(passed: &Relayed<'_>, out: &mut [u8]) -> usize {
    let Ok(template) = HeaderTemplate::new(passed.payload_type, passed.ssrc) else {
        return 0;
    };
    let header = template.len();
    let length = header + passed.payload.len();
    let Some(out) = out.get_mut(..length).filter(|_| length <= MAX_DATAGRAM) else {
        return 0;
    };
    template.write(passed.sequence, passed.timestamp, passed.marker, 0, out);
    out[header..].copy_from_slice(passed.payload);
    length
}

/// What a track's description means for what it sends.
fn terms(track: &Track) -> Terms {
    let numbers = track.payload_types.iter().map(|it| it.get());
    let rtx = track.rtx.iter();
    Terms {
        mid: track.mid.as_str().to_owned(),
        rid: track.layer().unwrap_or_default().to_owned(),
        clock: track.clock.get(),
        payload_types: numbers.collect(),
        rtx: rtx.map(|(rtx, it)| (rtx.get(), it.get())).collect(),
        ssrcs: track.ssrcs.clone(),
        mid_extension: track.extensions.mid.map(|id| id.get()),
        rid_extension: track.extensions.rid.map(|id| id.get()),
        repaired_rid_extension: track.extensions.repaired_rid.map(|id| id.get()),
        nack: track.wants("nack"),
        pli: track.wants("pli"),
        remb: track.wants("remb"),
    }
}

#[cfg(test)]
mod tests;
