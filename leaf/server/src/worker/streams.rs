//! What arrives: from the sockets of streams into the rings, and on to who watches.

use leaf_core::Micros;
use leaf_core::cursor::StreamId;
use leaf_core::ring::{Arrival, Inserted, Kind, MAX_PAYLOAD};
use leaf_wire::h264::{Sps, sps_of};
use leaf_wire::rtp::RtpPacket;
use mio::Token;

use super::{READS, Told, Worker};
use crate::clock;
use crate::control::event::Event;
use crate::mesh::Packet;
use crate::net::receive::Receiver;

/// So long a stream's state is not told again.
const FRESH: Micros = 400_000;

impl Worker {
    /// Read a stream's socket. True if there may be more.
    pub(super) fn read_stream(&mut self, token: Token, receiver: &mut Receiver) -> bool {
        for _ in 0..READS {
            let Some((stream, socket)) = self.intake.get(token) else {
                return false;
            };
            let now = clock::now();
            let more = receiver.receive(&socket, |_, bytes| {
                if let Some(seat) = &mut self.seat {
                    seat.share(Packet {
                        stream,
                        arrival: now,
                        bytes,
                    });
                }
                self.take_in(stream, bytes, now);
            });
            if !matches!(more, Ok(true)) {
                return false;
            }
        }
        true
    }

    /// Keep a packet of a stream.
    pub(super) fn take_in(&mut self, stream: StreamId, bytes: &[u8], now: Micros) {
        let packet = RtpPacket::parse(bytes)
            .ok()
            .filter(|packet| (1..=MAX_PAYLOAD).contains(&packet.payload.len()));
        let Some(packet) = packet else {
            self.refused.rtp += 1;
            return;
        };
        let arrival = Arrival {
            ssrc: packet.ssrc,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            marker: packet.marker,
            payload_type: packet.payload_type,
            payload: packet.payload,
        };
        let inserted = self.streams.insert(stream, &arrival, now);
        let hold = self.streams.hold(stream, now);
        match inserted {
            Some(Inserted::Newest { .. } | Inserted::Restarted) => {
                // A packet of sound is a whole frame, whatever its marker says (RFC 7587 section 4.2).
                let is_sound = self
                    .streams
                    .get(stream)
                    .is_some_and(|found| found.ring.kind() == Kind::Audio);
                let is_last = packet.marker || is_sound;
                self.gathering.touch(stream, is_last, hold, now);
            }
            Some(Inserted::Late(index)) => {
                for at in 0..self.crowd.subscribers(stream).len() {
                    let key = self.crowd.subscribers(stream)[at];
                    self.act(key, now, |viewer, streams, sink| {
                        viewer.late(stream, index, streams, sink);
                    });
                }
                self.gathering.touch(stream, true, hold, now);
            }
            _ => return,
        }
        if let Some(inserted) = inserted {
            self.answer_waiting(stream, inserted, now);
        }
        if let Some(size) = sps_of(packet.payload).and_then(|unit| Sps::parse(unit).ok()) {
            self.note_size(stream, (size.width, size.height), now);
        }
    }

    fn note_size(&mut self, stream: StreamId, size: (u32, u32), now: Micros) {
        if let Some(state) = self.states.get_mut(&stream) {
            (state.size, state.receiving) = (Some(size), true);
            self.tell_state(stream, now);
        }
    }

    /// Tell how a stream is if that is news, and not while the last news is fresh: a source may
    /// change its size all the time. What is held back is told by the clock.
    pub(super) fn tell_state(&mut self, stream: StreamId, now: Micros) {
        let Some(state) = self.states.get_mut(&stream) else {
            return;
        };
        let (receiving, size) = (state.receiving, state.size);
        let before = state.told.map(|told| (told.receiving, told.size));
        let is_fresh = state
            .told
            .is_some_and(|told| now.saturating_sub(told.at) < FRESH);
        if before.unwrap_or_default() == (receiving, size) || is_fresh || self.others.number != 0 {
            return;
        }
        state.told = Some(Told {
            receiving,
            size,
            at: now,
        });
        self.others.outbox.send(Event::StreamState {
            stream,
            receiving,
            size,
        });
    }
}
