//! The parent's side of a repair: who asks for packets, and gets them.
//!
//! An asker gets no more than the stream's own rate, a packet not twice at once, and nothing at all
//! from outside the prefixes that may ask: a forged sender's address must not draw packets elsewhere.
//! What is not in the ring yet goes out when it comes.

use std::collections::HashMap;
use std::net::SocketAddr;

use leaf_wire::rtcp::{self, Feedback};

use crate::Micros;
use crate::cursor::StreamId;
use crate::prefix::Prefix;
use crate::retransmit::Retransmissions;
use crate::ring::Packet;
use crate::streams::{Stream, Streams};

/// Askers that are remembered: one for each stream of each child.
const MAX_ASKERS: usize = 4096;
/// One who has not asked for so long is forgotten.
const SILENT: Micros = 10_000_000;
/// Packets that askers wait for.
const MAX_WAITING: usize = 1024;
/// So long they wait: until then they have asked again, or given up.
const PATIENCE: Micros = 500_000;
/// Sequence numbers of one datagram that are looked at: all that a child of ours puts into one.
const MAX_ASKED: usize = 512;
/// A child may be so many packets ahead of us; what is further is no sequence number of the stream.
const MAX_AHEAD: u64 = 256;

/// What was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that were asked for.
    pub asked: u64,
    /// Packets that were sent.
    pub sent: u64,
    /// Packets that were not, as their asker had had enough, or too many wait.
    pub refused: u64,
    /// Packets that are not here.
    pub unknown: u64,
    /// Datagrams of those who may not ask.
    pub strangers: u64,
    /// Datagrams that are no RTCP.
    pub malformed: u64,
}

/// A packet for one who asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Who asked.
    pub to: SocketAddr,
    /// The stream's synchronisation source.
    pub ssrc: u32,
    /// The packet.
    pub packet: Packet<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiting {
    stream: StreamId,
    generation: u32,
    index: u64,
    to: SocketAddr,
    since: Micros,
}

#[derive(Debug, Default)]
struct Asker {
    budget: Retransmissions,
    heard: Micros,
}

/// Who asks.
#[derive(Debug)]
pub struct Answers {
    may_ask: Vec<Prefix>,
    askers: HashMap<SocketAddr, Asker>,
    waiting: Vec<Waiting>,
    counters: Counters,
}

impl Answers {
    /// Answer those whose addresses are in one of these prefixes.
    pub fn new(may_ask: Vec<Prefix>) -> Self {
        Self {
            may_ask,
            askers: HashMap::new(),
            waiting: Vec::with_capacity(MAX_WAITING),
            counters: Counters::default(),
        }
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// A datagram came; the packets that it asks for, if there are any, are given to `each`.
    pub fn take(
        &mut self,
        from: SocketAddr,
        bytes: &[u8],
        streams: &Streams,
        now: Micros,
        mut each: impl FnMut(Answer<'_>),
    ) {
        if !self.may_ask.iter().any(|it| it.contains(from.ip())) {
            self.counters.strangers += 1;
            return;
        }
        let mut left = MAX_ASKED;
        let read = rtcp::parse(bytes, |feedback| {
            let Feedback::Nack { media_ssrc, lost } = feedback else {
                return;
            };
            let Some((id, stream)) = streams.of_ssrc(media_ssrc) else {
                self.counters.unknown += 1;
                return;
            };
            for sequence in lost.iter().take(left) {
                left -= 1;
                self.asked(from, (id, stream), sequence, now, &mut each);
            }
        });
        self.counters.malformed += u64::from(read.is_err());
    }

    fn asked(
        &mut self,
        from: SocketAddr,
        (id, stream): (StreamId, &Stream),
        sequence: u16,
        now: Micros,
        each: &mut impl FnMut(Answer<'_>),
    ) {
        self.counters.asked += 1;
        let ring = &stream.ring;
        let index = ring.index_of(sequence);
        if let Some(packet) = index.and_then(|index| ring.get(index)) {
            return self.send(from, stream, packet, now, each);
        }
        let Some(index) =
            index.filter(|index| (ring.oldest()..ring.end() + MAX_AHEAD).contains(index))
        else {
            self.counters.unknown += 1;
            return;
        };
        let generation = ring.generation();
        let is_same = |it: &Waiting| (it.stream, it.index, it.to) == (id, index, from);
        if self.waiting.iter().any(is_same) {
            return;
        }
        if self.waiting.len() == MAX_WAITING {
            self.counters.refused += 1;
            return;
        }
        self.waiting.push(Waiting {
            stream: id,
            generation,
            index,
            to: from,
            since: now,
        });
    }

    /// A packet of a stream came: those who wait for it get it.
    pub fn came(
        &mut self,
        id: StreamId,
        index: u64,
        streams: &Streams,
        now: Micros,
        mut each: impl FnMut(Answer<'_>),
    ) {
        if self.waiting.is_empty() {
            return;
        }
        let Some(stream) = streams.get(id) else {
            return;
        };
        let mut at = 0;
        while let Some(it) = self.waiting.get(at).copied() {
            if (it.stream, it.index) != (id, index) {
                at += 1;
                continue;
            }
            self.waiting.swap_remove(at);
            let is_same = it.generation == stream.ring.generation();
            if let Some(packet) = stream.ring.get(index).filter(|_| is_same) {
                self.send(it.to, stream, packet, now, &mut each);
            }
        }
    }

    fn send(
        &mut self,
        to: SocketAddr,
        stream: &Stream,
        packet: Packet<'_>,
        now: Micros,
        each: &mut impl FnMut(Answer<'_>),
    ) {
        let is_known = self.askers.contains_key(&to) || self.askers.len() < MAX_ASKERS;
        let Some(ssrc) = stream.ring.ssrc().filter(|_| is_known) else {
            self.counters.refused += 1;
            return;
        };
        let asker = self.askers.entry(to).or_default();
        asker.heard = now;
        let bytes = packet.payload.len();
        if asker.budget.allow(packet.index, bytes, stream.kbps, 0, now) {
            self.counters.sent += 1;
            each(Answer { to, ssrc, packet });
        } else {
            self.counters.refused += 1;
        }
    }

    /// Forget whom nobody waits for any more; to be called every second or so.
    pub fn keep_house(&mut self, now: Micros) {
        self.waiting
            .retain(|it| now.saturating_sub(it.since) < PATIENCE);
        self.askers
            .retain(|_, asker| now.saturating_sub(asker.heard) < SILENT);
    }
}

#[cfg(test)]
mod tests;
