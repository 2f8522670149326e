//! The picture of one viewer: from a key frame to the head, and along with it.

use serde::{Deserialize, Serialize};

use crate::Micros;
use crate::cursor::{Cursor, Segment, Start, StreamId};
use crate::hurry::Hurry;
use crate::output::{Manner, Outgoing, Output, Sent, Sink};
use crate::pace::Pace;
use crate::retransmit::Retransmissions;
use crate::ring::{Packet, Ring};
use crate::streams::Streams;

/// A key frame of so many packets goes as one message; with fewer what is added would be much.
const EVEN: u64 = 8;

/// A key frame whose packets are of one length, but for the first, which are the parameter sets, and
/// the last. With these as long as the others all of them are one message of UDP GSO, and what follows,
/// if it is shorter, belongs to it, too. A message costs as much as encrypting six packets.
#[derive(Debug, Clone, Copy)]
pub struct Even {
    first: u64,
    last: u64,
    length: usize,
    /// Something shorter follows.
    followed: bool,
}

impl Even {
    /// The same with something shorter that follows, or without.
    pub fn followed(self, followed: bool) -> Self {
        Self { followed, ..self }
    }

    /// Bytes to add to one of its packets.
    fn padding(&self, packet: &Packet<'_>) -> usize {
        let is_short = packet.index == self.first || (self.followed && packet.index == self.last);
        if is_short {
            self.length.saturating_sub(packet.payload.len())
        } else {
            0
        }
    }
}

/// Where a picture is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// For a key frame.
    Waiting,
    /// From the key frame to the head; the next packets go at this time.
    CatchingUp(Micros),
    /// At the head.
    Live,
}

/// What began a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// The stream is not here.
    NoStream,
    /// It has no key frame yet.
    NoKeyFrame,
    /// It began with a key frame of this age, `behind` sequence numbers before the head.
    At {
        /// How long ago its first packet came.
        age: Micros,
        /// Sequence numbers from there to the head.
        behind: u64,
    },
}

/// The picture of one viewer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Picture {
    /// Sequence numbers and timestamps.
    pub cursor: Cursor,
    /// The stream that is sent, or waited for.
    pub stream: Option<StreamId>,
    /// A rendition that takes over at its next key frame.
    pub pending: Option<StreamId>,
    /// Where it is.
    pub mode: Mode,
    /// What went out, but for retransmissions.
    pub sent: Sent,
    /// How fast a catch-up goes.
    pub pace: Pace,
    /// Whether it is to be shown as it comes.
    #[serde(default)]
    pub hurry: Hurry,
    retransmissions: Retransmissions,
    next_rtx: Option<u64>,
}

impl Picture {
    /// A picture that has not begun. `next_rtx`: retransmissions have a stream of their own, whose
    /// first sequence number this is.
    pub fn new(cursor: Cursor, next_rtx: Option<u64>) -> Self {
        Self {
            cursor,
            stream: None,
            pending: None,
            mode: Mode::Waiting,
            sent: Sent::default(),
            pace: Pace::default(),
            hurry: Hurry::default(),
            retransmissions: Retransmissions::default(),
            next_rtx,
        }
    }

    /// Whether it is on its way to the head.
    pub fn is_catching_up(&self) -> bool {
        matches!(self.mode, Mode::CatchingUp(_))
    }

    /// Put the cursor on the last key frame of a stream; without one wait for it.
    pub fn begin(&mut self, stream: StreamId, streams: &Streams, now: Micros) -> Begun {
        // Not so where it goes on with the same picture: another rendition, or after a loss.
        let [shown, pending] = [self.stream, self.pending].map(|it| it == Some(stream));
        if self.mode == Mode::Waiting || !(shown || pending) {
            self.hurry.begin(now);
        }
        self.stream = Some(stream);
        self.pending = self.pending.filter(|pending| *pending != stream);
        self.mode = Mode::Waiting;
        let Some(found) = streams.get(stream) else {
            return Begun::NoStream;
        };
        let head = found.ring.newest_timestamp();
        let Some((key, moment)) = found.ring.key().zip(streams.moment(stream, head)) else {
            return Begun::NoKeyFrame;
        };
        let start = Start {
            index: key.index,
            timestamp: key.timestamp,
            head,
        };
        self.cursor.begin(stream, &found.ring, start, moment);
        self.pace
            .begin(found.kbps, found.ring.key_frame_bytes(), now);
        self.mode = Mode::CatchingUp(now);
        Begun::At {
            age: now.saturating_sub(key.arrived),
            behind: found.ring.end() - key.index,
        }
    }

    /// Whether the pending rendition's key frame comes after what was sent of the present one.
    pub fn may_step(&self, streams: &Streams) -> bool {
        let Some(stream) = self.pending else {
            return false;
        };
        let Some(key) = streams.get(stream).and_then(|found| found.ring.key()) else {
            return false;
        };
        let Some(last) = self.cursor.last_timestamp() else {
            return true;
        };
        // Two ticks are the rounding of two clocks.
        let moment = streams.moment(stream, key.timestamp);
        moment.is_some_and(|moment| self.cursor.line().timestamp(moment) + 2 >= last)
    }

    /// Whether the cursor is in the ring as it is now; not so after the source began anew, or
    /// when the ring has run over it.
    pub fn is_in_place(&self, streams: &Streams) -> bool {
        let found = self
            .stream
            .and_then(|id| Some((id, &streams.get(id)?.ring)));
        found.is_some_and(|(stream, ring)| {
            self.cursor.follows(stream, ring) && self.cursor.next() >= ring.oldest()
        })
    }

    /// The key frame that is sent next and can go as one message.
    ///
    /// Not to a viewer who is sent the very same packet again: what is added is not kept, and SRTP
    /// allows no two packets of one number.
    pub fn even(&self, streams: &Streams) -> Option<Even> {
        let id = self.stream.filter(|_| self.mode == Mode::Live)?;
        let ring = &streams.get(id)?.ring;
        let (first, end) = (self.cursor.next(), ring.end());
        let key = ring.key().filter(|key| key.index == first)?;
        if end < first + EVEN || !self.cursor.follows(id, ring) || self.next_rtx.is_none() {
            return None;
        }
        let last = ring.get(end - 1)?;
        let length = ring.get(first + 1)?.payload.len();
        let mut between = (first + 1..end - 1).map(|index| ring.get(index));
        (last.marker
            && last.timestamp == key.timestamp
            && last.payload.len() <= length
            && between.all(|it| it.is_some_and(|packet| packet.payload.len() == length)))
        .then_some(Even {
            first,
            last: last.index,
            length,
            followed: false,
        })
    }

    /// Send what may go now: everything when live, as much as the pace allows when catching up.
    pub fn flush(&mut self, streams: &Streams, now: Micros, sink: &mut impl Sink) {
        self.flush_as(None, streams, now, sink);
    }

    /// As [`Picture::flush`], with a key frame in one message.
    pub fn flush_as(
        &mut self,
        even: Option<Even>,
        streams: &Streams,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        let Some(found) = self.stream.and_then(|id| streams.get(id)) else {
            return;
        };
        let (live, ring) = (self.mode == Mode::Live, &found.ring);
        let mut credit = if live {
            f64::INFINITY
        } else {
            self.hurry.go_on(now);
            self.pace.credit(now)
        };
        let playout = self.hurry.playout(now);
        while self.cursor.next() < ring.end() {
            let next = self.cursor.next();
            let Some(packet) = ring.get(next) else {
                self.cursor.skip_to(next + 1);
                continue;
            };
            let bytes = packet.payload.len();
            if credit < bytes as f64 {
                self.mode = Mode::CatchingUp(self.pace.due(now));
                return;
            }
            credit -= bytes as f64;
            if !live {
                self.pace.spend(bytes);
            }
            if let Some(placed) = self.cursor.advance(&packet) {
                let manner = Manner {
                    live,
                    playout,
                    padding: even.map_or(0, |it| it.padding(&packet)),
                };
                self.sent.send(Output::Video, &packet, placed, manner, sink);
            }
        }
        if !live {
            self.mode = Mode::Live;
            self.pace.end(now);
        }
    }

    /// A packet came after its turn: send it at its own place.
    pub fn late(
        &mut self,
        stream: StreamId,
        ring: &Ring,
        packet: &Packet<'_>,
        sink: &mut impl Sink,
    ) {
        if let Some(placed) = self.cursor.late(stream, ring, packet) {
            self.sent
                .send(Output::Video, packet, placed, Manner::LIVE, sink);
        }
    }

    /// Send a packet again. Returns its size, or None if it is not there or not to be sent now.
    pub fn retransmit(
        &mut self,
        sequence: u16,
        rtt: Micros,
        streams: &Streams,
        now: Micros,
        sink: &mut impl Sink,
    ) -> Option<usize> {
        let (segment, index) = self.cursor.find(sequence)?;
        let (packet, kbps) = lookup(streams, segment, index)?;
        let timestamp = segment.time.map(packet.timestamp) as u32;
        let place = segment.first_out + (index - segment.first_index);
        let bytes = packet.payload.len();
        if !self.retransmissions.allow(place, bytes, kbps, rtt, now) {
            return None;
        }
        let (output, sequence, original) = match &mut self.next_rtx {
            Some(next) => {
                *next += 1;
                (Output::Rtx, *next - 1, Some(sequence))
            }
            // The same packet once more, bit by bit: SRTP allows no other use of its number.
            None => (Output::Video, place, None),
        };
        sink.send(Outgoing {
            output,
            sequence,
            timestamp,
            marker: packet.marker,
            original,
            playout: None,
            padding: 0,
            payload: packet.payload,
            arrived: None,
        });
        Some(bytes)
    }

    /// Leave out sequence numbers, see [`Cursor::jump`].
    pub fn jump(&mut self, count: u64, now: Micros) {
        self.cursor.jump(count, now);
        if let Some(next) = &mut self.next_rtx {
            *next += count;
        }
    }
}

fn lookup<'a>(streams: &'a Streams, segment: &Segment, index: u64) -> Option<(Packet<'a>, u32)> {
    let stream = streams.get(segment.stream)?;
    let same = stream.ring.generation() == segment.generation;
    Some((stream.ring.get(index).filter(|_| same)?, stream.kbps))
}
