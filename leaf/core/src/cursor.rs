//! Where a viewer is in a ring, and under which sequence numbers it gets what stands there.
//!
//! Sequence numbers run on over all changes. Within a segment they follow those of the stream, gaps
//! included: what was lost above the leaf can be sent at its own place when it comes late.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::Micros;
use crate::ring::{Packet, Ring};
use crate::timeline::{Line, TimeMap};

/// The number of a stream, of the controller's choice.
pub type StreamId = u64;

/// So many changes back a packet can be asked for again.
const MAX_SEGMENTS: usize = 8;

/// A part of what a viewer was sent: of one stream, without a break.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The stream.
    pub stream: StreamId,
    /// The ring's generation, see [`Ring::generation`].
    pub generation: u32,
    /// The stream's index of its first packet.
    pub first_index: u64,
    /// The extended sequence number of that packet towards the viewer.
    pub first_out: u64,
    /// The timestamps.
    pub time: TimeMap,
}

/// A packet as the viewer knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Extended sequence number: rollover counter and sequence number of SRTP.
    pub sequence: u64,
    /// Extended timestamp.
    pub timestamp: u64,
}

/// One medium of one viewer: its sequence numbers, timestamps and place in a ring.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cursor {
    line: Line,
    segments: VecDeque<Segment>,
    next: u64,
    next_out: u64,
    last_timestamp: Option<u64>,
    /// The stream's own timestamp of what was sent last.
    last_source: u64,
}

impl Cursor {
    /// A cursor that is nowhere yet; its first packet will have the sequence number `first_out`.
    pub fn new(line: Line, first_out: u64) -> Self {
        Self {
            line,
            segments: VecDeque::with_capacity(MAX_SEGMENTS),
            next: 0,
            next_out: first_out,
            last_timestamp: None,
            last_source: 0,
        }
    }

    /// The straight line of its timestamps.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// The stream's index that is sent next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The last extended timestamp that was sent.
    pub fn last_timestamp(&self) -> Option<u64> {
        self.last_timestamp
    }

    /// The segment that is being sent.
    pub fn segment(&self) -> Option<&Segment> {
        self.segments.back()
    }

    /// Whether the cursor is in this ring's present generation.
    pub fn follows(&self, stream: StreamId, ring: &Ring) -> bool {
        self.segment().is_some_and(|segment| {
            segment.stream == stream && segment.generation == ring.generation()
        })
    }

    /// Go on with `index` of a stream. `head` is the timestamp up to which is to be caught up, and
    /// `moment` when that is on the line.
    pub fn begin(&mut self, stream: StreamId, ring: &Ring, begin: Start, moment: i64) {
        if self.segments.len() == MAX_SEGMENTS {
            self.segments.pop_front();
        }
        let time = TimeMap::new(
            &self.line,
            begin.timestamp,
            begin.head,
            moment,
            self.last_timestamp,
        );
        self.segments.push_back(Segment {
            stream,
            generation: ring.generation(),
            first_index: begin.index,
            first_out: self.next_out,
            time,
        });
        self.next = begin.index;
    }

    /// Skip to `index`, which is not behind the place of now: the gap stays a gap.
    pub fn skip_to(&mut self, index: u64) {
        self.next = self.next.max(index);
    }

    /// Place the next packet and step over it.
    pub fn advance(&mut self, packet: &Packet<'_>) -> Option<Placed> {
        let placed = place(self.segments.back()?, packet);
        self.next = packet.index + 1;
        self.next_out = placed.sequence + 1;
        self.last_source = packet.timestamp;
        self.last_timestamp = Some(placed.timestamp.max(self.last_timestamp.unwrap_or(0)));
        Some(placed)
    }

    /// Place a packet of a stream that came after its turn; None if it is not of the present segment.
    ///
    /// Another stream's, or one of before its source began anew, would take a number that is used.
    pub fn late(&self, stream: StreamId, ring: &Ring, packet: &Packet<'_>) -> Option<Placed> {
        let segment = self.segment().filter(|_| self.follows(stream, ring))?;
        let range = segment.first_index..self.next;
        range
            .contains(&packet.index)
            .then(|| place(segment, packet))
    }

    /// What a sequence number that the viewer asks for again stands for: stream, ring generation
    /// and index. None if it was never sent, or too long ago.
    pub fn find(&self, sequence: u16) -> Option<(&Segment, u64)> {
        let last = self.next_out.checked_sub(1)?;
        let back = (last as u16).wrapping_sub(sequence);
        let wanted = last.checked_sub(u64::from(back))?;
        let segment = self.segments.iter().rev().find(|s| s.first_out <= wanted)?;
        Some((segment, segment.first_index + (wanted - segment.first_out)))
    }

    /// Leave out `count` sequence numbers, so that none is used twice with one key, and all time up
    /// to now: so far another process may have sent without our knowing.
    pub fn jump(&mut self, count: u64, now: Micros) {
        if count > 0 {
            self.next_out += count;
            self.segments.clear();
            self.last_timestamp = self
                .last_timestamp
                .max(Some(self.line.timestamp(now as i64)));
        }
    }

    /// Forget what was sent: nothing of it is in the rings of this process.
    pub fn forget(&mut self) {
        self.segments.clear();
    }

    /// Go on in another process: `stream` is its number of what was sent last, `ring` its ring.
    ///
    /// Both processes count the same packets, but may have begun in another cycle of sequence
    /// numbers and timestamps. False if the place is not in the ring.
    pub fn rebase(&mut self, stream: StreamId, ring: &Ring) -> bool {
        let Some(last) = self.segments.back().map(|segment| segment.stream) else {
            return false;
        };
        let Some(here) = ring
            .index_of(self.next as u16)
            .filter(|here| (ring.oldest()..=ring.end()).contains(here))
        else {
            return false;
        };
        let newest = ring.newest_timestamp();
        let step = (self.last_source as u32).wrapping_sub(newest as u32) as i32;
        let Some(source) = newest.checked_add_signed(i64::from(step)) else {
            return false;
        };
        let by = here.wrapping_sub(self.next) as i64;
        let time_by = source.wrapping_sub(self.last_source) as i64;
        // Of other streams nothing is known here; nobody asks long for what was sent of them.
        self.segments.retain(|segment| segment.stream == last);
        for segment in &mut self.segments {
            segment.stream = stream;
            segment.first_index = segment.first_index.wrapping_add_signed(by);
            segment.time = segment.time.shifted(time_by);
            segment.generation = ring.generation();
        }
        (self.next, self.last_source) = (here, source);
        true
    }

    /// Move the line by the difference of two machines' clocks, in microseconds.
    pub fn shift_clock(&mut self, by: i64) {
        self.line.at += by;
    }
}

/// Where a segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The first packet.
    pub index: u64,
    /// Its timestamp.
    pub timestamp: u64,
    /// The timestamp of the stream's head.
    pub head: u64,
}

fn place(segment: &Segment, packet: &Packet<'_>) -> Placed {
    Placed {
        sequence: segment.first_out + (packet.index - segment.first_index),
        timestamp: segment.time.map(packet.timestamp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Arrival, Kind};

    fn ring(from: u16, count: u16, ssrc: u32) -> Ring {
        let mut ring = Ring::new(Kind::Video, 1 << 20);
        for n in 0..count {
            let arrival = Arrival {
                ssrc,
                sequence: from.wrapping_add(n),
                timestamp: u32::from(n) * 3600,
                marker: true,
                payload_type: 96,
                payload: if n == 0 { &[0x65, 1] } else { &[0x41, 1] },
            };
            ring.insert(&arrival, 0);
        }
        ring
    }

    fn cursor() -> Cursor {
        let line = Line {
            rate: 90_000,
            base: 1 << 33,
            at: 0,
        };
        Cursor::new(line, 65_530)
    }

    fn start(ring: &Ring) -> Start {
        let key = ring.key().unwrap();
        Start {
            index: key.index,
            timestamp: key.timestamp,
            head: ring.newest_timestamp(),
        }
    }

    fn send_all(cursor: &mut Cursor, ring: &Ring) -> Vec<Placed> {
        let mut sent = vec![];
        for index in cursor.next()..ring.end() {
            if let Some(packet) = ring.get(index) {
                sent.push(cursor.advance(&packet).unwrap());
            }
        }
        sent
    }

    #[test]
    fn numbers_run_on_over_changes() {
        let (one, two) = (ring(65_500, 20, 1), ring(7, 30, 2));
        let mut cursor = cursor();
        cursor.begin(1, &one, start(&one), 1_000_000);
        let mut sent = send_all(&mut cursor, &one);
        cursor.begin(2, &two, start(&two), 2_000_000);
        sent.extend(send_all(&mut cursor, &two));
        let numbers: Vec<u64> = sent.iter().map(|placed| placed.sequence).collect();
        assert_eq!(numbers, (65_530..65_580).collect::<Vec<u64>>());
        assert!(sent.is_sorted_by(|a, b| a.timestamp < b.timestamp));
    }

    #[test]
    fn what_was_sent_is_found_again_in_the_stream_it_came_from() {
        let (one, two) = (ring(65_500, 20, 1), ring(7, 30, 2));
        let mut cursor = cursor();
        cursor.begin(1, &one, start(&one), 1_000_000);
        send_all(&mut cursor, &one);
        cursor.begin(2, &two, start(&two), 2_000_000);
        send_all(&mut cursor, &two);
        let (segment, index) = cursor.find(65_533).unwrap();
        assert_eq!((segment.stream, index), (1, 65_536 + 65_503));
        let (segment, index) = cursor.find(20).unwrap(); // 65_556
        assert_eq!((segment.stream, index), (2, 65_536 + 7 + 6));
        assert_eq!(cursor.find(65_529), None, "before the first");
        assert_eq!(cursor.find(1000), None, "never sent");
    }

    #[test]
    fn a_gap_stays_open_for_what_comes_late() {
        let mut one = ring(100, 10, 1);
        let mut cursor = cursor();
        cursor.begin(1, &one, start(&one), 1_000_000);
        send_all(&mut cursor, &one);
        let payload: &[u8] = &[0x41, 1];
        let next = |sequence: u16| Arrival {
            ssrc: 1,
            sequence,
            timestamp: u32::from(sequence - 100) * 3600,
            marker: true,
            payload_type: 96,
            payload,
        };
        one.insert(&next(111), 0);
        let after = send_all(&mut cursor, &one);
        assert_eq!(after[0].sequence, 65_541);
        one.insert(&next(110), 0);
        let late = one.get(one.index_of(110).unwrap()).unwrap();
        let placed = cursor.late(1, &one, &late).unwrap();
        assert_eq!(placed.sequence, 65_540);
        assert!(placed.timestamp < after[0].timestamp);
    }

    #[test]
    fn another_process_goes_on_exactly() {
        let here = ring(65_500, 40, 1);
        let mut cursor = cursor();
        cursor.begin(1, &here, start(&here), 1_000_000);
        for index in cursor.next()..here.end() - 3 {
            cursor.advance(&here.get(index).unwrap());
        }
        // The other one has seen the stream only since the sequence numbers began anew.
        let there = {
            let mut ring = Ring::new(Kind::Video, 1 << 20);
            for index in (65_536 + 65_536 - 2)..here.end() {
                let packet = here.get(index).unwrap();
                let arrival = Arrival {
                    ssrc: 1,
                    sequence: packet.index as u16,
                    timestamp: packet.timestamp as u32,
                    marker: packet.marker,
                    payload_type: packet.payload_type,
                    payload: packet.payload,
                };
                ring.insert(&arrival, 0);
            }
            ring
        };
        let mut moved = cursor.clone();
        assert!(moved.rebase(8, &there));
        assert_eq!(moved.segment().unwrap().stream, 8);
        assert_eq!(send_all(&mut moved, &there), send_all(&mut cursor, &here));
    }
}
