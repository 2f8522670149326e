//! One publisher: what it sends, to which track that belongs, and what it is asked for.
//!
//! Packets go in as they were decrypted and come out as they are to be passed on; what is to be told
//! the publisher comes out as RTCP. For a packet in its turn nothing is allocated.

mod missing;
mod rate;
mod reception;
mod round_trip;
mod terms;
mod track;

use leaf_wire::extension::element;
use leaf_wire::rtcp::{self, Feedback};
use leaf_wire::rtp::RtpPacket;

use crate::Micros;
use missing::MAX_ASK;
use rate::Rate;
use reception::Interval;
use round_trip::RoundTrip;
use track::{Taken, Track};

pub use missing::{MAX_AGE, MAX_ASKED, MAX_MISSING};
pub use terms::{Counters, MAX_TRACKS, Passed, PassedReport, Terms};

/// SSRCs whose track is remembered: as many as a peer may use.
const MAX_SOURCES: usize = 16;
const REPORTS: Micros = 1_000_000;
/// The first report comes quickly: the publisher learns from it what bitrate it may send.
const FIRST_REPORT: Micros = 100_000;

/// One publisher.
#[derive(Debug)]
pub struct Publisher {
    own: u32,
    cname: String,
    tracks: Vec<Track>,
    /// Ids that the header extension with the name of the media section may have.
    mid_extensions: Vec<u8>,
    /// Those of the two with the name of the layer.
    rid_extensions: Vec<u8>,
    /// Which track an SSRC was found to belong to.
    sources: Vec<(u32, usize)>,
    rate: Rate,
    round_trip: RoundTrip,
    report_due: Option<Micros>,
    strangers: u64,
    ask: Vec<u16>,
}

impl Publisher {
    /// A publisher of [`MAX_TRACKS`] at most. `own` and `cname` name us towards it (RFC 3550), `kbps`
    /// is the most that it is to send.
    pub fn new(terms: Vec<Terms>, own: u32, cname: String, kbps: u32) -> Self {
        let mid_extensions = ids(terms.iter().filter_map(|it| it.mid_extension));
        let rid_extensions = ids(terms
            .iter()
            .flat_map(|it| [it.rid_extension, it.repaired_rid_extension])
            .flatten());
        Self {
            own,
            cname,
            tracks: terms.into_iter().take(MAX_TRACKS).map(Track::new).collect(),
            mid_extensions,
            rid_extensions,
            sources: Vec::with_capacity(MAX_SOURCES),
            rate: Rate::new(kbps),
            round_trip: RoundTrip::default(),
            report_due: None,
            strangers: 0,
            ask: Vec::with_capacity(MAX_ASK),
        }
    }

    /// Take an RTP packet: what is to be passed on of it, if anything.
    pub fn take<'a>(&mut self, bytes: &'a [u8], now: Micros) -> Option<Passed<'a>> {
        let taken = RtpPacket::parse(bytes).ok().and_then(|packet| {
            let index = self.track_of(&packet, bytes)?;
            Some(self.tracks[index].take(index, &packet, &mut self.round_trip, now))
        });
        match taken {
            Some(Taken::Passed(passed)) => {
                self.report_due.get_or_insert(now + FIRST_REPORT);
                Some(passed)
            }
            Some(Taken::Useless) => None,
            Some(Taken::Stranger) | None => {
                self.strangers += 1;
                None
            }
        }
    }

    /// The track of a packet: by the names in it (RFC 9143 section 9.2, RFC 8852), then by its SSRC,
    /// then by its payload type.
    fn track_of(&mut self, packet: &RtpPacket<'_>, bytes: &[u8]) -> Option<usize> {
        let header = &bytes[..packet.header_len];
        let named = |ids: &[u8]| ids.iter().find_map(|id| element(header, *id));
        let (mid, rid) = (named(&self.mid_extensions), named(&self.rid_extensions));
        let known = self.known_track_of(packet.ssrc);
        let is_meant = |track: &Track| {
            mid.is_none_or(|mid| track.terms.mid.as_bytes() == mid)
                && rid.is_none_or(|rid| track.terms.rid.as_bytes() == rid)
        };
        let index = if mid.is_none() && rid.is_none() {
            if known.is_some() {
                return known;
            }
            self.only(|track| track.has_payload_type(packet.payload_type))
        } else {
            // A section's name alone does not tell its layers apart.
            let known = known.filter(|index| is_meant(&self.tracks[*index]));
            known.or_else(|| self.only(is_meant))
        }?;
        self.remember(packet.ssrc, index);
        Some(index)
    }

    /// The track of which this is true, if it is true of one alone.
    fn only(&self, is_meant: impl Fn(&Track) -> bool) -> Option<usize> {
        let mut meant = (0..self.tracks.len()).filter(|index| is_meant(&self.tracks[*index]));
        meant.next().filter(|_| meant.next().is_none())
    }

    /// The track of an SSRC, by what it sent or by its description.
    fn known_track_of(&self, ssrc: u32) -> Option<usize> {
        let known = self.sources.iter().find(|(known, _)| *known == ssrc);
        known.map(|(_, index)| *index).or_else(|| {
            let mut tracks = self.tracks.iter();
            tracks.position(|track| track.terms.ssrcs.contains(&ssrc))
        })
    }

    fn remember(&mut self, ssrc: u32, index: usize) {
        let has_room = self.sources.len() < MAX_SOURCES;
        match self.sources.iter_mut().find(|(known, _)| *known == ssrc) {
            Some((_, known)) => *known = index,
            None if has_room => self.sources.push((ssrc, index)),
            None => {}
        }
    }

    /// Take a part of an RTCP packet: the report that is to be passed on of it, if it is one of a
    /// track's source and can be believed.
    pub fn take_feedback(&mut self, feedback: &Feedback<'_>, now: Micros) -> Option<PassedReport> {
        match feedback {
            Feedback::SenderReport(report) => {
                let mut tracks = self.tracks.iter_mut().enumerate();
                tracks.find_map(|(track, it)| {
                    let source = it.source.as_mut().filter(|it| it.ssrc == report.ssrc)?;
                    let believed = source.reception.take_report(report, now);
                    believed.then_some(PassedReport {
                        track,
                        report: *report,
                    })
                })
            }
            Feedback::Bye { ssrc } => {
                self.tracks.iter_mut().for_each(|track| track.leave(*ssrc));
                None
            }
            _ => None,
        }
    }

    /// Ask for a key frame of every picture as soon as may be.
    pub fn want_key_frame(&mut self) {
        self.tracks.iter_mut().for_each(Track::want_key_frame);
    }

    /// Ask for a key frame of one track as soon as may be.
    pub fn want_key_frame_of(&mut self, track: usize) {
        if let Some(track) = self.tracks.get_mut(track) {
            track.want_key_frame();
        }
    }

    /// When [`Publisher::write`] has something to say.
    pub fn due(&self) -> Option<Micros> {
        let tracks = self.tracks.iter().filter_map(Track::due);
        tracks.chain(self.report_due).min()
    }

    /// Put what is to be told the publisher now into `out`, as a compound RTCP packet (RFC 3550
    /// section 6.1): it stays empty if there is nothing.
    pub fn write(&mut self, now: Micros, out: &mut Vec<u8>) {
        out.clear();
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        let reports = self.report_due.take_if(|due| *due <= now).is_some();
        let (mut blocks, mut rated) = (Vec::new(), Interval::default());
        if reports {
            self.report_due = Some(now + REPORTS);
            for track in &mut self.tracks {
                let source = track.source.as_mut();
                let report = source.and_then(|it| it.reception.report(it.ssrc, now));
                let Some((block, interval)) = report else {
                    continue;
                };
                blocks.push(block);
                if track.terms.remb {
                    rated.expected += interval.expected;
                    rated.lost += interval.lost;
                }
            }
        }
        rtcp::receiver_report(self.own, &blocks, out);
        rtcp::sdes(self.own, &self.cname, out);
        let without = out.len();
        self.ask.clear();
        for track in &mut self.tracks {
            let round_trip = self.round_trip.get();
            track.write(self.own, round_trip, &mut self.ask, now, out);
        }
        if reports {
            self.rate.follow(rated);
            self.write_rate(out);
        } else if out.len() == without {
            // Something was given up that nobody is asked for.
            out.clear();
        }
    }

    fn write_rate(&self, out: &mut Vec<u8>) {
        let rated = self.tracks.iter().filter(|track| track.terms.remb);
        let mut ssrcs = [0; MAX_TRACKS];
        let mut count = 0;
        for source in rated.filter_map(|track| track.source.as_ref()) {
            ssrcs[count] = source.ssrc;
            count += 1;
        }
        if count > 0 {
            rtcp::remb(self.own, self.rate.bits(), &ssrcs[..count], out);
        }
    }

    /// What came of each track, with the name of its section and of its layer.
    pub fn counters(&self) -> impl Iterator<Item = (&str, &str, Counters)> {
        let tracks = self.tracks.iter();
        tracks.map(|track| {
            let Terms { mid, rid, .. } = &track.terms;
            (mid.as_str(), rid.as_str(), track.counters())
        })
    }

    /// Packets that belong to no track.
    pub fn strangers(&self) -> u64 {
        self.strangers
    }

    /// The round trip, once something was asked for and came.
    pub fn round_trip(&self) -> Option<Micros> {
        self.round_trip.get()
    }

    /// The bitrate that it is told, in kbit/s.
    pub fn kbps(&self) -> u64 {
        self.rate.bits() / 1000
    }
}

fn ids(found: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut ids: Vec<_> = found.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
