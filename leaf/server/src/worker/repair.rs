//! Packets that are missing: asked for at the stream's parent, and given to those who ask here.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use leaf_core::Micros;
use leaf_core::answers::{Answer, Answers, Counters};
use leaf_core::cursor::StreamId;
use leaf_core::gaps::Part;
use leaf_core::prefix::Prefix;
use leaf_core::ring::Inserted;
use leaf_wire::header::HeaderTemplate;
use leaf_wire::rtcp;

use super::{READS, Worker};
use crate::clock;
use crate::net::batch::Batch;
use crate::net::receive::Receiver;

/// Our name towards a parent: as one who sends nothing we have no stream whose source we could name
/// (RFC 3550 section 8.1).
const ASKER: u32 = 1;
/// Sequence numbers in one NACK: if none are near each other, four bytes each.
const IN_ONE: usize = 256;

/// Where others ask for packets, and how they get them.
pub struct Answering {
    socket: Arc<UdpSocket>,
    batch: Batch,
    answers: Answers,
}

impl Answering {
    /// Answer at a socket those whose addresses are in one of these prefixes.
    pub fn new(socket: UdpSocket, may_ask: Vec<Prefix>) -> Self {
        let socket = Arc::new(socket);
        Self {
            batch: Batch::new(socket.clone()),
            socket,
            answers: Answers::new(may_ask),
        }
    }

    /// The socket.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// What was asked for so far.
    pub fn counters(&self) -> Counters {
        self.answers.counters()
    }

    /// Send what waits.
    pub fn flush(&mut self) {
        self.batch.flush();
    }

    /// Forget whom nobody waits for any more.
    pub fn keep_house(&mut self, now: Micros) {
        self.answers.keep_house(now);
    }
}

/// Put a packet into a batch, as it came but for header extensions.
fn send(batch: &mut Batch, answer: Answer<'_>) {
    let Answer { to, ssrc, packet } = answer;
    let Ok(template) = HeaderTemplate::new(packet.payload_type, ssrc) else {
        return;
    };
    batch.push(to, |out| {
        let (sequence, timestamp) = (packet.index as u16, packet.timestamp as u32);
        let header = template.write(sequence, timestamp, packet.marker, 0, out);
        let end = header + packet.payload.len();
        out[header..end].copy_from_slice(packet.payload);
        end
    });
}

impl Worker {
    /// Read what others ask for. True if there may be more.
    pub(super) fn read_askers(&mut self, receiver: &mut Receiver) -> bool {
        let Some(Answering {
            socket,
            batch,
            answers,
        }) = &mut self.answering
        else {
            return false;
        };
        for _ in 0..READS {
            let now = clock::now();
            let more = receiver.receive(socket, |from, bytes| {
                answers.take(from, bytes, &self.streams, now, |it| send(batch, it));
            });
            if matches!(more, Ok(false)) {
                return false;
            }
        }
        true
    }

    /// A packet is in its ring: whoever waits for it gets it.
    pub(super) fn answer_waiting(&mut self, stream: StreamId, inserted: Inserted, now: Micros) {
        let Some(Answering { batch, answers, .. }) = &mut self.answering else {
            return;
        };
        let newest = || self.streams.get(stream)?.ring.end().checked_sub(1);
        let index = match inserted {
            Inserted::Newest { .. } => newest(),
            Inserted::Late(index) => Some(index),
            _ => None,
        };
        if let Some(index) = index {
            answers.came(stream, index, &self.streams, now, |it| send(batch, it));
        }
    }

    /// Ask parents for what is missing and due. Every worker keeps count; the one that has the
    /// stream's socket asks.
    pub(super) fn ask_parents(&mut self, now: Micros) {
        let mut lost = std::mem::take(&mut self.lost);
        while let Some((stream, ssrc)) = self.streams.ask(now, &mut lost) {
            let parent = self.states.get(&stream).and_then(|state| state.parent);
            let Some((parent, socket)) = parent.zip(self.intake.socket_of(stream)) else {
                continue;
            };
            for lost in lost.chunks(IN_ONE) {
                self.answer.clear();
                rtcp::nack(ASKER, ssrc, lost, &mut self.answer);
                // One that cannot be sent is like one that is lost: it is asked for again.
                let _ = socket.send_to(&self.answer, parent);
            }
        }
        self.lost = lost;
    }

    /// Have a stream's missing packets asked for there, or nowhere.
    pub fn set_parent(&mut self, stream: StreamId, parent: Option<SocketAddr>) {
        let is_here = self.intake.socket_of(stream).is_some();
        let part = if is_here { Part::Asks } else { Part::Waits };
        if let Some(state) = self.states.get_mut(&stream) {
            state.parent = parent;
            self.streams.set_asking(stream, parent.map(|_| part));
        }
    }
}

/// A socket where others ask for packets.
///
/// # Errors
/// What the system says.
pub fn repair_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    crate::net::socket::bind_alone(address)
}
