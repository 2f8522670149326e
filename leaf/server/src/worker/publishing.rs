//! One publisher's connection: what comes of it, where that goes, and what it is told.

use std::net::SocketAddr;

use leaf_core::Micros;
use leaf_core::publisher::{Passed, PassedReport, Publisher, Terms};
use leaf_secure::dtls::Fingerprint;
use leaf_wire::header::HeaderTemplate;
use leaf_wire::ice::Credentials;
use leaf_wire::rtcp;

use super::link::{Link, Unusable, push};
use super::outlets::Outlets;
use crate::control::publisher::{PublisherAdd, Track};
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
        let to = self.targets[passed.track].0;
        let written = outlets.to(to).is_some_and(|batch| {
            let mut length = 0;
            batch.push(to, |out| {
                length = write(&passed, out);
                length
            });
            length > 0
        });
        Ok(if written {
            Forwarded::Sent
        } else {
            Forwarded::TooLong
        })
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
            if let Some(PassedReport { track, report }) =
                self.publisher.take_feedback(&feedback, now)
            {
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
        self.publisher.write(now, compound);
        self.link.send_rtcp(compound, batches);
    }
}

/// Write a packet as plain RTP; its length, or 0 if there is no room.
fn write(passed: &Passed<'_>, out: &mut [u8]) -> usize {
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
        clock: track.clock.get(),
        payload_types: numbers.collect(),
        rtx: rtx.map(|(rtx, it)| (rtx.get(), it.get())).collect(),
        ssrcs: track.ssrcs.clone(),
        mid_extension: track.extensions.mid.map(|id| id.get()),
        nack: track.wants("nack"),
        pli: track.wants("pli"),
        remb: track.wants("remb"),
    }
}

#[cfg(test)]
mod tests;
