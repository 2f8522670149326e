//! The sound of one viewer: always at the head.

use serde::{Deserialize, Serialize};

use crate::cursor::{Cursor, Start, StreamId};
use crate::output::{Manner, Output, Sent, Sink};
use crate::ring::{Packet, Ring};
use crate::streams::Streams;

/// The sound of one viewer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sound {
    /// Sequence numbers and timestamps.
    pub cursor: Cursor,
    /// The stream that is heard.
    pub stream: Option<StreamId>,
    /// What went out.
    pub sent: Sent,
    /// The marker says that sound begins (RFC 3551 section 4.1).
    begins: bool,
}

impl Sound {
    /// Silence so far.
    pub fn new(cursor: Cursor) -> Self {
        Self {
            cursor,
            stream: None,
            sent: Sent::default(),
            begins: true,
        }
    }

    /// Hear another stream from its next packet on.
    pub fn change(&mut self, stream: Option<StreamId>) {
        if self.stream != stream {
            self.stream = stream;
            self.begins = true;
        }
    }

    /// Whether it has begun: what came for it can be sent at any time.
    pub fn is_going_on(&self) -> bool {
        self.stream.is_some() && !self.begins
    }

    /// Whether something came that was not sent yet.
    pub fn waits(&self, streams: &Streams) -> bool {
        let found = self.stream.and_then(|id| streams.get(id));
        self.is_going_on() && found.is_some_and(|found| found.ring.end() > self.cursor.next())
    }

    /// Go on at the head, wherever it was.
    pub fn begin_anew(&mut self) {
        self.begins = true;
    }

    /// Something came for the stream.
    pub fn flush(&mut self, streams: &Streams, sink: &mut impl Sink) {
        let Some((stream, found)) = self.stream.and_then(|id| Some((id, streams.get(id)?))) else {
            return;
        };
        let ring = &found.ring;
        if self.begins || !self.cursor.follows(stream, ring) {
            let head = ring.newest_timestamp();
            let newest = ring.end().checked_sub(1).and_then(|index| ring.get(index));
            let (Some(moment), Some(packet)) = (streams.moment(stream, head), newest) else {
                return;
            };
            // Never before what was heard last. A push as with the picture would bend the sound.
            let natural = self.cursor.line().timestamp(moment);
            if self
                .cursor
                .last_timestamp()
                .is_some_and(|last| natural <= last)
            {
                return;
            }
            let start = Start {
                index: packet.index,
                timestamp: head,
                head,
            };
            self.cursor.begin(stream, ring, start, moment);
        }
        for index in self.cursor.next().max(ring.oldest())..ring.end() {
            let Some(mut packet) = ring.get(index) else {
                continue;
            };
            packet.marker = std::mem::take(&mut self.begins);
            if let Some(placed) = self.cursor.advance(&packet) {
                self.sent
                    .send(Output::Audio, &packet, placed, Manner::LIVE, sink);
            }
        }
        self.cursor.skip_to(ring.end());
    }

    /// A packet came after its turn.
    pub fn late(
        &mut self,
        stream: StreamId,
        ring: &Ring,
        packet: &Packet<'_>,
        sink: &mut impl Sink,
    ) {
        if let Some(placed) = self.cursor.late(stream, ring, packet) {
            self.sent
                .send(Output::Audio, packet, placed, Manner::LIVE, sink);
        }
    }
}
