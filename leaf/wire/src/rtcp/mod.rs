//! RTCP: reports (RFC 3550 section 6.4), NACK and PLI (RFC 4585), FIR (RFC 5104), REMB.

mod parse;
mod remb;
mod write;

pub use parse::{Feedback, LostPackets, RtcpError, parse};
pub use remb::Ssrcs;
pub use write::{
    MAX_REPORT_BLOCKS, bye, fir, nack, pli, receiver_report, remb, sdes, sender_report,
};

/// What a sender says of its own stream (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    /// The stream reported on.
    pub ssrc: u32,
    /// Time of the report, an NTP timestamp.
    pub ntp: u64,
    /// The same time on the clock of the stream's RTP timestamps.
    pub rtp_timestamp: u32,
    /// Packets sent so far, which wraps.
    pub packets: u32,
    /// Bytes of payload sent so far, which wraps.
    pub octets: u32,
}

/// What a receiver says of a stream that it receives (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    /// The stream reported on.
    pub ssrc: u32,
    /// Share of packets lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost so far, of 24 bits on the wire; below zero with duplicates.
    pub cumulative_lost: i32,
    /// Extended highest sequence number received.
    pub highest_sequence: u32,
    /// Interarrival jitter in ticks of the stream's RTP clock.
    pub jitter: u32,
    /// [`crate::ntp::middle`] of the last sender report received, 0 before the first.
    pub last_sr: u32,
    /// Time since then in 1/65536 s.
    pub delay_since_last_sr: u32,
}
