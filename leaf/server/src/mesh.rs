//! What the threads hand each other: media packets between workers without locks or allocation, and
//! messages of any thread to a worker.
//!
//! Each worker has a [`Seat`]. From it leads one queue of packets to every other worker (single
//! producer, single consumer); its inbox takes messages from everywhere through a [`Post`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryIter, channel};

use leaf_core::Micros;
use mio::{Poll, Token, Waker};
use rtrb::{Consumer, Producer, RingBuffer};

/// Bytes of packets that wait on the way from one worker to another: some 400 packets of video, more
/// than arrive while a worker sends a burst.
const QUEUE: usize = 512 << 10;
/// The longest packet that passes.
pub const MAX_PACKET: usize = 2048;

/// Before each packet: its length (4 bytes), its stream and its arrival (8 bytes each).
const HEADER: usize = 20;

/// A packet on its way from the worker that received it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The stream that it belongs to.
    pub stream: u64,
    /// When it arrived.
    pub arrival: Micros,
    /// The RTP packet.
    pub bytes: &'a [u8],
}

/// Wakes one worker; several times before it looks are as good as once.
struct Bell {
    waker: Waker,
    rung: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        // Both swaps order what was queued before ringing against what is read after hearing.
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Fails only if the worker's poll is gone, and with it the worker.
            let _ = self.waker.wake();
        }
    }

    fn hear(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }
}

/// Where any thread puts messages for one worker.
pub struct Post<M> {
    sender: Sender<M>,
    bell: Arc<Bell>,
}

impl<M> Clone for Post<M> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            bell: self.bell.clone(),
        }
    }
}

impl<M> Post<M> {
    /// Hand over a message; false if the worker has ended.
    pub fn send(&self, message: M) -> bool {
        let sent = self.sender.send(message).is_ok();
        self.bell.ring();
        sent
    }
}

/// A worker's end of the mesh.
pub struct Seat<M> {
    bell: Arc<Bell>,
    inbox: Receiver<M>,
    incoming: Vec<PacketReader>,
    outgoing: Vec<PacketWriter>,
}

/// Connect workers: one for each poll, woken by events with `token`. Result: a seat and its post for
/// each, in the same order.
///
/// # Errors
/// What the system says about the wakers.
pub fn connect<M>(polls: &[Poll], token: Token) -> io::Result<Vec<(Seat<M>, Post<M>)>> {
    let mut workers = Vec::new();
    for poll in polls {
        let waker = Waker::new(poll.registry(), token)?;
        let bell = Arc::new(Bell {
            waker,
            rung: AtomicBool::new(false),
        });
        let (sender, inbox) = channel();
        let seat = Seat {
            bell: bell.clone(),
            inbox,
            incoming: Vec::new(),
            outgoing: Vec::new(),
        };
        workers.push((seat, Post { sender, bell }));
    }
    for from in 0..workers.len() {
        for to in (0..workers.len()).filter(|&to| to != from) {
            let (producer, consumer) = RingBuffer::new(QUEUE);
            let bell = workers[to].0.bell.clone();
            let writer = PacketWriter {
                producer,
                bell,
                pushed: false,
                dropped: 0,
            };
            workers[from].0.outgoing.push(writer);
            let reader = PacketReader {
                consumer,
                scratch: Vec::with_capacity(MAX_PACKET),
            };
            workers[to].0.incoming.push(reader);
        }
    }
    Ok(workers)
}

impl<M> Seat<M> {
    /// To be called when this worker was woken, before it looks at what came.
    pub fn hear(&self) {
        self.bell.hear();
    }

    /// The messages that came.
    pub fn messages(&self) -> TryIter<'_, M> {
        self.inbox.try_iter()
    }

    /// Give every packet that other workers shared to `each`, at most one queue's worth from each.
    pub fn packets(&mut self, mut each: impl FnMut(Packet<'_>)) {
        for reader in &mut self.incoming {
            reader.drain(&mut each);
        }
    }

    /// Hand a packet to all other workers, which hear of it at [`Seat::notify`]. For a worker whose
    /// queue is full, and if it is longer than [`MAX_PACKET`], it is dropped and counted.
    pub fn share(&mut self, packet: Packet<'_>) {
        for writer in &mut self.outgoing {
            writer.push(packet);
        }
    }

    /// Wake the workers that packets were shared with.
    pub fn notify(&mut self) {
        for writer in &mut self.outgoing {
            if std::mem::take(&mut writer.pushed) {
                writer.bell.ring();
            }
        }
    }

    /// Packets of this worker that others did not get.
    pub fn dropped(&self) -> u64 {
        self.outgoing.iter().map(|writer| writer.dropped).sum()
    }
}

struct PacketWriter {
    producer: Producer<u8>,
    bell: Arc<Bell>,
    pushed: bool,
    dropped: u64,
}

impl PacketWriter {
    fn push(&mut self, packet: Packet<'_>) {
        let length = packet.bytes.len();
        if length > MAX_PACKET || self.producer.slots() < HEADER + length {
            self.dropped += 1;
            return;
        }
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        header[4..12].copy_from_slice(&packet.stream.to_ne_bytes());
        header[12..].copy_from_slice(&packet.arrival.to_ne_bytes());
        // There is room for both; the reader takes neither before both are there.
        let written = self.producer.push_entire_slice(&header).is_ok()
            && self.producer.push_entire_slice(packet.bytes).is_ok();
        debug_assert!(written, "there was room");
        self.pushed = true;
    }
}

struct PacketReader {
    consumer: Consumer<u8>,
    /// A packet that goes over the end of the queue is put together here.
    scratch: Vec<u8>,
}

impl PacketReader {
    fn drain(&mut self, each: &mut impl FnMut(Packet<'_>)) {
        let mut left = self.consumer.slots();
        while let Some((length, stream, arrival)) = self.header().filter(|_| left > 0) {
            let Ok(chunk) = self.consumer.read_chunk(HEADER + length) else {
                return;
            };
            let (first, second) = chunk.as_slices();
            let bytes = if let Some(bytes) = first.get(HEADER..).filter(|_| second.is_empty()) {
                bytes
            } else if let Some(begin) = first.get(HEADER..) {
                self.scratch.clear();
                self.scratch.extend_from_slice(begin);
                self.scratch.extend_from_slice(second);
                &self.scratch
            } else {
                &second[HEADER - first.len()..]
            };
            each(Packet {
                stream,
                arrival,
                bytes,
            });
            chunk.commit_all();
            left = left.saturating_sub(HEADER + length);
        }
    }

    /// Length, stream and arrival of the next packet, which stays where it is.
    fn header(&mut self) -> Option<(usize, u64, Micros)> {
        let chunk = self.consumer.read_chunk(HEADER).ok()?;
        let (first, second) = chunk.as_slices();
        let mut header = [0; HEADER];
        header[..first.len()].copy_from_slice(first);
        header[first.len()..].copy_from_slice(second);
        let length = u32::from_ne_bytes(*header.first_chunk()?);
        let stream = u64::from_ne_bytes(*header[4..].first_chunk()?);
        let arrival = u64::from_ne_bytes(*header[12..].first_chunk()?);
        Some((length as usize, stream, arrival))
    }
}

#[cfg(test)]
mod tests;
