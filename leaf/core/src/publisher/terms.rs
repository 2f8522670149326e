//! What was agreed on with a publisher, and what it says of itself.

use leaf_wire::rtcp::SenderReport;

use crate::Micros;

/// Tracks of one publisher at most.
pub const MAX_TRACKS: usize = 8;

/// What was agreed on for one track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The media section's name.
    pub mid: String,
    /// The layer's name, where a section is sent in several (RFC 8851); empty where not.
    pub rid: String,
    /// RTP clock rate in Hz.
    pub clock: u32,
    /// Payload types of the medium.
    pub payload_types: Vec<u8>,
    /// Payload types of retransmissions, each with that of what it sends again (RFC 4588).
    pub rtx: Vec<(u8, u8)>,
    /// SSRCs that its description tells.
    pub ssrcs: Vec<u32>,
    /// Id of the header extension with the name of the media section (RFC 9143 section 15).
    pub mid_extension: Option<u8>,
    /// Id of the header extension with the name of the layer (RFC 8852).
    pub rid_extension: Option<u8>,
    /// Id of the one with the name of the layer that is sent again (RFC 8852).
    pub repaired_rid_extension: Option<u8>,
    /// Whether it may be asked for lost packets.
    pub nack: bool,
    /// Whether it may be asked for key frames.
    pub pli: bool,
    /// Whether it may be told a bitrate.
    pub remb: bool,
}

impl Terms {
    /// The payload type of what retransmissions of this one send again.
    pub fn original_of(&self, payload_type: u8) -> Option<u8> {
        let found = self.rtx.iter().find(|(rtx, _)| *rtx == payload_type);
        found.map(|(_, original)| *original)
    }
}

/// A packet to be passed on: everything as the publisher sent it, without what was around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed<'a> {
    /// Index of its track.
    pub track: usize,
    /// Payload type of the medium.
    pub payload_type: u8,
    /// RTP marker.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// The track's SSRC.
    pub ssrc: u32,
    /// Whether a later packet came before it.
    pub late: bool,
    /// The payload, without padding.
    pub payload: &'a [u8],
}

/// A sender report to be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassedReport {
    /// Index of its track.
    pub track: usize,
    /// The report.
    pub report: SenderReport,
}

/// What came of one track, and what was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets passed on.
    pub packets: u64,
    /// Bytes of their payload.
    pub bytes: u64,
    /// Packets that did not come, by whatever way.
    pub lost: u64,
    /// Packets that came after they were asked for.
    pub repaired: u64,
    /// Requests for packets.
    pub nacks: u64,
    /// Requests for key frames.
    pub plis: u64,
    /// Packets that came more than once, or too late.
    pub useless: u64,
    /// Interarrival jitter.
    pub jitter: Micros,
}
