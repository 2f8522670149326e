//! What goes out to a viewer.

use leaf_wire::header::Playout;
use serde::{Deserialize, Serialize};

use crate::Micros;
use crate::cursor::Placed;
use crate::ring::Packet;

/// Which of a viewer's RTP streams a packet goes out on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// The picture.
    Video,
    /// The sound.
    Audio,
    /// Retransmissions of the picture (RFC 4588).
    Rtx,
}

/// A packet that is to be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// The RTP stream.
    pub output: Output,
    /// Extended sequence number: rollover counter and sequence number of SRTP.
    pub sequence: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// RTP marker.
    pub marker: bool,
    /// On [`Output::Rtx`] the sequence number that it stands for; it precedes the payload.
    pub original: Option<u16>,
    /// What it says of how long the receiver may hold it back.
    pub playout: Option<Playout>,
    /// So many bytes longer it is to be than it would be by itself.
    pub padding: usize,
    /// The payload, in the ring.
    pub payload: &'a [u8],
    /// When the packet came, if it is sent at its turn.
    pub arrived: Option<Micros>,
}

/// Takes what is to be sent.
pub trait Sink {
    /// Send a packet.
    fn send(&mut self, packet: Outgoing<'_>);
}

/// How a packet is sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// At its turn.
    pub live: bool,
    /// See [`Outgoing::playout`].
    pub playout: Option<Playout>,
    /// See [`Outgoing::padding`].
    pub padding: usize,
}

impl Manner {
    /// At its turn, as it is.
    pub const LIVE: Self = Self {
        live: true,
        playout: None,
        padding: 0,
    };
}

/// How much went out on an RTP stream, as sender reports count it: both wrap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Packets.
    pub packets: u32,
    /// Bytes of payload.
    pub octets: u32,
}

impl Sent {
    /// Send a packet at the place that it was given, and count it.
    pub fn send(
        &mut self,
        output: Output,
        packet: &Packet<'_>,
        placed: Placed,
        manner: Manner,
        sink: &mut impl Sink,
    ) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(packet.payload.len() as u32);
        sink.send(Outgoing {
            output,
            sequence: placed.sequence,
            timestamp: placed.timestamp as u32,
            marker: packet.marker,
            original: None,
            playout: manner.playout,
            padding: manner.padding,
            payload: packet.payload,
            arrived: manner.live.then_some(packet.arrived),
        });
    }
}
