//! Where one stream leaves: whose packets, and under which numbers.

use crate::Micros;
use crate::publisher::Passed;

/// After so many packets nothing of before comes any more.
const SETTLED: u32 = 4096;
/// The span over which a rendition holds its bitrate.
const SPAN: Micros = 5_000_000;

/// A stream that a channel has: one of its renditions, or its sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// From which its SSRCs are drawn.
    pub ssrc: u32,
    /// The channel's payload type.
    pub payload_type: u8,
    /// Its nominal bitrate in kbit/s.
    pub kbps: u32,
}

/// A packet as it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed<'a> {
    /// Payload type.
    pub payload_type: u8,
    /// RTP marker.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// SSRC.
    pub ssrc: u32,
    /// The payload.
    pub payload: &'a [u8],
}

/// Whether a stream begins anew with each cut, or runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cuts {
    /// With another SSRC: rings take that for a source that began anew, at its key frame.
    Restart,
    /// With the same SSRC and the next sequence number: a decoder waits for those between.
    Continue,
}

/// Where one stream leaves.
#[derive(Debug, Clone)]
pub struct Outlet {
    /// Index of the layer that leaves here.
    pub layer: Option<usize>,
    /// The layer that is to leave here from its next key frame on.
    pub wanted: Option<usize>,
    /// What is added to timestamps, modulo 2^32.
    pub offset: i64,
    stream: Stream,
    cuts: Cuts,
    /// Keep the publisher's payload type.
    as_sent: bool,
    ssrc: u32,
    source: u32,
    shift: u16,
    /// The first sequence number of now, as long as one of before may come, and packets since.
    floor: u16,
    since: u32,
    last: Option<u16>,
    bytes: u64,
    began: Micros,
}

impl Outlet {
    /// Of nothing yet. `cuts` is [`Cuts::Continue`] for a decoder, which knows the publisher's payload type.
    pub fn new(stream: Stream, cuts: Cuts) -> Self {
        Self {
            layer: None,
            wanted: None,
            offset: 0,
            ssrc: stream.ssrc,
            stream,
            cuts,
            as_sent: cuts == Cuts::Continue,
            source: 0,
            shift: 0,
            floor: 0,
            since: 0,
            last: None,
            bytes: 0,
            began: 0,
        }
    }

    /// The SSRC of now.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// From this packet on this layer leaves here.
    pub fn cut(&mut self, layer: usize, passed: &Passed<'_>, offset: i64, now: Micros) {
        if self.layer.is_none() {
            (self.bytes, self.began) = (0, now);
        }
        self.layer = Some(layer);
        (self.source, self.offset) = (passed.ssrc, offset);
        (self.floor, self.since) = (passed.sequence, 0);
        match (self.cuts, self.last) {
            (Cuts::Restart, Some(_)) => self.ssrc = after(self.ssrc),
            (Cuts::Continue, Some(last)) => {
                self.shift = last.wrapping_add(1).wrapping_sub(passed.sequence);
            }
            (_, None) => {}
        }
    }

    /// A packet of its layer, as it leaves; None if it is of before the cut, or of another source.
    pub fn pass<'a>(&mut self, passed: &Passed<'a>) -> Option<Relayed<'a>> {
        if passed.ssrc != self.source {
            self.layer = None;
            return None;
        }
        let is_before = passed.sequence.wrapping_sub(self.floor) as i16 <= -1;
        if passed.late && self.since < SETTLED && is_before {
            return None;
        }
        self.since = self.since.saturating_add(1);
        self.bytes += passed.payload.len() as u64;
        let sequence = passed.sequence.wrapping_add(self.shift);
        if !passed.late {
            self.last = Some(sequence);
        }
        Some(Relayed {
            payload_type: if self.as_sent {
                passed.payload_type
            } else {
                self.stream.payload_type
            },
            marker: passed.marker,
            sequence,
            timestamp: passed.timestamp.wrapping_add(self.offset as u32),
            ssrc: self.ssrc,
            payload: passed.payload,
        })
    }

    /// The bitrate of the span that has just ended if it is more than half above what it should be, in
    /// kbit/s.
    pub fn excess(&mut self, now: Micros) -> Option<u64> {
        let span = now.saturating_sub(self.began);
        if self.layer.is_none() || span < SPAN {
            return None;
        }
        let kbps = self.bytes * 8000 / span;
        (self.bytes, self.began) = (0, now);
        (kbps > u64::from(self.stream.kbps) * 3 / 2).then_some(kbps)
    }
}

/// Another SSRC; the same one only after all others had their turn (the constants of a full-period
/// congruential generator, Numerical Recipes section 7.1).
fn after(ssrc: u32) -> u32 {
    ssrc.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)
}
