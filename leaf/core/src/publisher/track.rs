//! One track of a publisher: its source, and what is asked of it.

use leaf_wire::rtp::RtpPacket;
use leaf_wire::{rtcp, rtx};

use super::reception::{Place, Reception};
use super::round_trip::RoundTrip;
use super::terms::{Counters, Passed, Terms};
use crate::Micros;

/// A source that was silent for so long may be followed by another one.
const SILENT: Micros = 500_000;
/// Key frames are asked for at most so often.
const PLI: Micros = 1_000_000;

/// What came of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken<'a> {
    /// It is to be passed on.
    Passed(Passed<'a>),
    /// It is of no use: it came before, too late, or probes the path.
    Useless,
    /// It is none of this track's.
    Stranger,
}

/// The SSRC that a track is sent with.
#[derive(Debug)]
pub struct Source {
    /// Its number.
    pub ssrc: u32,
    /// What came of it.
    pub reception: Reception,
    heard: Micros,
    left: bool,
}

/// One track.
#[derive(Debug)]
pub struct Track {
    /// What was agreed on.
    pub terms: Terms,
    /// Its source, once something came.
    pub source: Option<Source>,
    counters: Counters,
    /// Whether a key frame is to be asked for.
    wants_key: bool,
    asked_key: Option<Micros>,
}

impl Track {
    /// A track of which nothing came.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            source: None,
            counters: Counters::default(),
            wants_key: false,
            asked_key: None,
        }
    }

    /// Whether it has this payload type, for the medium or for retransmissions.
    pub fn has_payload_type(&self, payload_type: u8) -> bool {
        self.terms.payload_types.contains(&payload_type)
            || self.terms.original_of(payload_type).is_some()
    }

    /// Take a packet. `index` is the track's own.
    pub fn take<'a>(
        &mut self,
        index: usize,
        packet: &RtpPacket<'a>,
        round_trip: &mut RoundTrip,
        now: Micros,
    ) -> Taken<'a> {
        let (place, passed) = if self.terms.payload_types.contains(&packet.payload_type) {
            let Some(source) = self.follow(packet.ssrc, now) else {
                return Taken::Stranger;
            };
            let place = source
                .reception
                .take(packet.sequence, packet.timestamp, now);
            let passed = Passed {
                track: index,
                payload_type: packet.payload_type,
                marker: packet.marker,
                sequence: packet.sequence,
                timestamp: packet.timestamp,
                ssrc: packet.ssrc,
                late: false,
                payload: packet.payload,
            };
            (place, passed)
        } else if let Some(payload_type) = self.terms.original_of(packet.payload_type) {
            let again = self.source.as_mut().zip(rtx::original(packet.payload));
            let Some((source, (sequence, payload))) = again else {
                return Taken::Useless;
            };
            let place = source.reception.restore(sequence, now);
            let passed = Passed {
                track: index,
                payload_type,
                marker: packet.marker,
                sequence,
                timestamp: packet.timestamp,
                ssrc: source.ssrc,
                late: false,
                payload,
            };
            (place, passed)
        } else {
            return Taken::Stranger;
        };
        self.count(place, &passed, round_trip)
    }

    fn count<'a>(
        &mut self,
        place: Place,
        passed: &Passed<'a>,
        round_trip: &mut RoundTrip,
    ) -> Taken<'a> {
        match place {
            Place::Useless => {
                self.counters.useless += 1;
                return Taken::Useless;
            }
            Place::Next { given_up } => self.wants_key |= given_up > 0,
            Place::Late(found) => {
                if let Some(found) = found {
                    self.counters.repaired += u64::from(found.asked);
                    round_trip.learn(found.answer);
                }
            }
        }
        self.counters.packets += 1;
        self.counters.bytes += passed.payload.len() as u64;
        Taken::Passed(Passed {
            late: matches!(place, Place::Late(_)),
            ..*passed
        })
    }

    /// The source of this number, if it is the track's now.
    fn follow(&mut self, ssrc: u32, now: Micros) -> Option<&mut Source> {
        let is_other = |source: &Source| source.ssrc != ssrc;
        if let Some(old) = self.source.take_if(|source| {
            is_other(source) && (source.left || now.saturating_sub(source.heard) >= SILENT)
        }) {
            self.counters.lost += old.reception.lost();
        }
        let terms = &self.terms;
        let source = self.source.get_or_insert_with(|| Source {
            ssrc,
            reception: Reception::new(terms.clock, (terms.nack || terms.pli).then_some(terms.nack)),
            heard: now,
            left: false,
        });
        if is_other(source) {
            return None;
        }
        (source.heard, source.left) = (now, false);
        Some(source)
    }

    /// A source says that it leaves.
    pub fn leave(&mut self, ssrc: u32) {
        if let Some(source) = self.source.as_mut().filter(|it| it.ssrc == ssrc) {
            source.left = true;
        }
    }

    /// Ask for a key frame as soon as may be.
    pub fn want_key_frame(&mut self) {
        self.wants_key = true;
    }

    /// When [`Track::write`] has something to say.
    pub fn due(&self) -> Option<Micros> {
        let source = self.source.as_ref()?;
        let key = (self.wants_key && self.terms.pli)
            .then(|| self.asked_key.map_or(source.heard, |at| at + PLI));
        [key, source.reception.due()].into_iter().flatten().min()
    }

    /// Append the requests that are due. `ask` has what other tracks ask for, and gets the numbers of
    /// this one's packets.
    pub fn write(
        &mut self,
        own: u32,
        round_trip: Option<Micros>,
        ask: &mut Vec<u16>,
        now: Micros,
        out: &mut Vec<u8>,
    ) {
        let Some(source) = &mut self.source else {
            return;
        };
        let others = ask.len();
        self.wants_key |= source.reception.ask(now, round_trip, ask) > 0;
        if ask.len() > others {
            rtcp::nack(own, source.ssrc, &ask[others..], out);
            self.counters.nacks += (ask.len() - others) as u64;
        }
        let may_ask = self
            .asked_key
            .is_none_or(|at| now.saturating_sub(at) >= PLI);
        if self.wants_key && self.terms.pli && may_ask {
            rtcp::pli(own, source.ssrc, out);
            self.counters.plis += 1;
            (self.wants_key, self.asked_key) = (false, Some(now));
        }
    }

    /// The counters so far.
    pub fn counters(&self) -> Counters {
        let reception = self.source.as_ref().map(|source| &source.reception);
        Counters {
            lost: self.counters.lost + reception.map_or(0, Reception::lost),
            jitter: reception.map_or(0, Reception::jitter),
            ..self.counters
        }
    }
}
