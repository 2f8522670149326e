//! From what a viewer is to be sent to protected packets in a batch.

use std::net::SocketAddr;

use hdrhistogram::Histogram;
use leaf_core::Micros;
use leaf_core::output::{Outgoing, Output, Sink};
use leaf_core::ring::MAX_PAYLOAD;
use leaf_secure::srtp::Outbound;
use leaf_wire::header::{HeaderTemplate, Playout};

use crate::net::batch::Batch;

/// The longest header of a template.
const MAX_HEADER: usize = 44;
/// The header's first byte says that the payload ends with padding.
const HAS_PADDING: u8 = 1 << 5;
/// The longest delay that is told apart.
const MAX_DELAY: u64 = 10_000_000;

/// Times of arrival among which one is looked for: more than the packets of a frame have.
const NEAR: usize = 16;

/// The headers of one viewer's RTP streams.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    /// The picture.
    pub video: Option<HeaderTemplate>,
    /// The picture that is to be shown at once; None: that cannot be said.
    pub at_once: Option<HeaderTemplate>,
    /// The picture after such ones.
    pub free: Option<HeaderTemplate>,
    /// Its retransmissions.
    pub rtx: Option<HeaderTemplate>,
    /// The sound.
    pub audio: Option<HeaderTemplate>,
}

impl Headers {
    fn video(&self, playout: Option<Playout>) -> Option<&HeaderTemplate> {
        let said = match playout {
            None => &None,
            Some(Playout::AtOnce) => &self.at_once,
            Some(Playout::Free) => &self.free,
        };
        said.as_ref().or(self.video.as_ref())
    }
}

/// How long packets take from their arrival until the kernel has them.
pub struct Delays {
    histogram: Histogram<u64>,
    waiting: Vec<(Micros, u64)>,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            // Bounds that hdrhistogram takes: from 1, two digits.
            histogram: Histogram::new_with_bounds(1, MAX_DELAY, 2).expect("valid bounds"),
            waiting: Vec::with_capacity(64),
        }
    }
}

impl Delays {
    /// A packet that arrived then is to leave.
    pub fn note(&mut self, arrived: Micros) {
        // Viewers get the same few packets one after the other.
        let known = self.waiting.iter_mut().rev().take(NEAR);
        match known.into_iter().find(|(at, _)| *at == arrived) {
            Some((_, count)) => *count += 1,
            None => self.waiting.push((arrived, 1)),
        }
    }

    /// What was noted has left by now.
    pub fn left(&mut self, now: Micros) {
        for (arrived, count) in self.waiting.drain(..) {
            self.histogram
                .saturating_record_n(now.saturating_sub(arrived).max(1), count);
        }
    }

    /// The delays since this was last asked.
    pub fn take(&mut self) -> Histogram<u64> {
        let taken = self.histogram.clone();
        self.histogram.reset();
        taken
    }
}

/// Sends to one viewer.
pub struct Sending<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// The socket's batch.
    pub batch: &'a mut Batch,
    /// The keys.
    pub outbound: &'a Outbound,
    /// The headers.
    pub headers: &'a Headers,
    /// `abs-send-time` of now.
    pub send_time: u32,
    /// What has waited how long.
    pub delays: &'a mut Delays,
    /// Packets and bytes of payload sent so far.
    pub sent: &'a mut (u64, u64),
}

impl Sink for Sending<'_> {
    fn send(&mut self, packet: Outgoing<'_>) {
        let template = match packet.output {
            Output::Video => self.headers.video(packet.playout),
            Output::Audio => self.headers.audio.as_ref(),
            Output::Rtx => self.headers.rtx.as_ref(),
        };
        let Some(template) = template else { return };
        let (outbound, send_time) = (self.outbound, self.send_time);
        self.batch.push(self.to, |out| {
            let mut header = [0; MAX_HEADER];
            let number = packet.sequence as u16;
            let length = template.write(
                number,
                packet.timestamp,
                packet.marker,
                send_time,
                &mut header,
            );
            let header = &header[..length];
            let protected = match packet.original {
                None if packet.padding > 0 => {
                    let mut longer = [0; MAX_HEADER + MAX_PAYLOAD];
                    longer[..length].copy_from_slice(header);
                    // Whole words are padding of the header's extensions, the rest is the payload's
                    // (RFC 3550 section 5.1), which could not be more than 255.
                    let rest = packet.padding % 4;
                    let length = template.pad(packet.padding - rest, &mut longer);
                    let mut payload = [0; MAX_PAYLOAD + 3];
                    let whole = packet.payload.len() + rest;
                    payload[..packet.payload.len()].copy_from_slice(packet.payload);
                    if rest > 0 {
                        longer[0] |= HAS_PADDING;
                        payload[whole - 1] = rest as u8;
                    }
                    outbound.protect_rtp(packet.sequence, &longer[..length], &payload[..whole], out)
                }
                None => outbound.protect_rtp(packet.sequence, header, packet.payload, out),
                Some(original) => {
                    // RFC 4588 section 4: the original sequence number precedes the payload.
                    let mut payload = [0; 2 + MAX_PAYLOAD];
                    let whole = 2 + packet.payload.len();
                    payload[..2].copy_from_slice(&original.to_be_bytes());
                    payload[2..whole].copy_from_slice(packet.payload);
                    outbound.protect_rtp(packet.sequence, header, &payload[..whole], out)
                }
            };
            protected.unwrap_or(0)
        });
        self.sent.0 += 1;
        self.sent.1 += packet.payload.len() as u64;
        if let Some(arrived) = packet.arrived {
            self.delays.note(arrived);
        }
    }
}
