//! What a viewer is told and what it tells.

use serde::{Deserialize, Serialize};

use crate::Micros;
use crate::cursor::StreamId;
use crate::ladder::Rung;
use crate::output::Sent;

/// What a viewer makes known by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// This picture is sent now.
    Shown(StreamId),
    /// It should get a stream that is not here.
    Wanted(StreamId),
    /// It waits for a key frame of a stream.
    Waiting(StreamId),
}

/// What a viewer is to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The renditions, from the highest bitrate to the lowest.
    pub ladder: Vec<Rung>,
    /// The first to send.
    pub start: usize,
    /// Whether it stays at that one.
    pub pinned: bool,
    /// The sound.
    pub sound: Option<StreamId>,
}

/// What was agreed on with a viewer, and the random numbers of its connection.
#[derive(Debug, Clone, Copy)]
pub struct Agreed {
    /// Whether it takes the picture, and if so whether retransmissions have a stream of their own.
    pub video: Option<bool>,
    /// Whether it takes the sound.
    pub audio: bool,
    /// First timestamps and sequence numbers are made of these.
    pub seeds: [u32; 3],
}

/// What a viewer of another process needs to know here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// The renditions under this process's numbers, in the same order.
    pub rungs: Vec<Rung>,
    /// The sound.
    pub sound: Option<StreamId>,
    /// How much this machine's monotonic clock is ahead of the other's, in microseconds.
    pub clock: i64,
    /// Sequence numbers to leave out: none if the other process has stopped sending for good.
    pub jump: u64,
}

/// Too many changes in too short a time; the viewer watches what it watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// What a receiver says of a medium (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Share lost since the report before, 0 to 1.
    pub fraction: f64,
    /// Packets lost so far.
    pub lost: i32,
    /// Interarrival jitter in ticks.
    pub jitter: u32,
    /// Round-trip time, if it can be told.
    pub rtt: Option<Micros>,
}

/// The moving parts of a sender report (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport {
    /// The RTP timestamp of now.
    pub timestamp: u32,
    /// What was sent so far.
    pub sent: Sent,
}

/// What a viewer has reported and asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Whether it has reported yet.
    pub reported: bool,
    /// Packets sent again.
    pub retransmitted: u64,
    /// Packets of the picture that were lost on the way, as reported.
    pub lost: i64,
    /// Share of them since the report before.
    pub fraction_lost: f64,
    /// Interarrival jitter of the picture.
    pub jitter: Micros,
    /// Round-trip time, once known.
    pub rtt: Option<Micros>,
    /// Packets that were asked for again.
    pub nacks: u64,
    /// Key frames that were asked for.
    pub refreshes: u64,
    /// Changes of channel or rendition by request.
    pub changes: u64,
}
