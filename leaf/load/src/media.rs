//! What a viewer does with the packets of its streams, and what it says about them by RTCP.

use leaf_secure::dtls::Secrets;
use leaf_secure::srtp::{Inbound, Outbound, SrtpError};
use leaf_wire::h264::starts_key_frame;
use leaf_wire::rtcp::{self, Feedback};
use leaf_wire::rtp::RtpPacket;
use serde::Deserialize;

use crate::clock::Micros;
use crate::figures::{Delays, Figures};
use crate::reception::{Place, Reception};
use crate::stamp::Stamp;

/// The SSRC by which receivers that send nothing report, as browsers have it.
const REPORTER: u32 = 1;
const CNAME: &str = "leaf-load";
const VIDEO_CLOCK: u32 = 90_000;
const AUDIO_CLOCK: u32 = 48_000;
/// Time between two receiver reports.
const REPORT: Micros = 1_000_000;
/// Time without a picture that can be decoded before a key frame is asked for.
const DARK: Micros = 500_000;
/// Time between two requests for a key frame.
const ASK_AGAIN: Micros = 1_000_000;

/// What is received, as it was negotiated.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Agreed {
    /// Payload types of the picture; None: there is none.
    pub video: Option<VideoTypes>,
    /// Payload type of the sound; None: there is none.
    pub audio: Option<AudioType>,
    /// Whether missing packets of the picture are asked for again.
    #[serde(default = "yes")]
    pub nack: bool,
    /// Estimate that is sent with every report, in kbit/s; None: none is sent.
    pub remb_kbps: Option<u32>,
}

/// Payload types of a picture.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct VideoTypes {
    /// Of the picture itself.
    pub payload_type: u8,
    /// Of what is sent again (RFC 4588); None: it comes among the others.
    pub rtx_payload_type: Option<u8>,
}

/// Payload type of a sound.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct AudioType {
    /// Of the sound.
    pub payload_type: u8,
}

fn yes() -> bool {
    true
}

/// What many viewers share while packets are taken.
pub struct Shared {
    /// One of so many packets is looked into.
    pub sample: u16,
    /// Delays of all viewers' packets.
    pub delays: Delays,
    plain: Vec<u8>,
}

impl Shared {
    /// With one of `sample` packets looked into, at least 1.
    #[must_use]
    pub fn new(sample: u16) -> Self {
        Self {
            sample: sample.max(1),
            delays: Delays::default(),
            plain: Vec::new(),
        }
    }
}

/// One stream of a viewer.
struct Track {
    payload_type: u8,
    /// Of the last packet; there is no stream to report on before the first.
    ssrc: Option<u32>,
    reception: Reception,
}

impl Track {
    fn new(payload_type: u8, clock: u32) -> Self {
        Self {
            payload_type,
            ssrc: None,
            reception: Reception::new(clock),
        }
    }
}

/// The part of an RTP header that SRTP leaves readable at a fixed place.
struct Head {
    payload_type: u8,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
}

impl Head {
    fn read(packet: &[u8]) -> Option<Self> {
        let &[_, kind, s0, s1, t0, t1, t2, t3, r0, r1, r2, r3] = packet.first_chunk::<12>()?;
        Some(Self {
            payload_type: kind & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([r0, r1, r2, r3]),
        })
    }
}

/// The media of one viewer.
pub struct Media {
    agreed: Agreed,
    inbound: Inbound,
    outbound: Outbound,
    video: Option<Track>,
    audio: Option<Track>,
    figures: Figures,
    /// Which stream the picture is of, if a synthetic source made it.
    stream: Option<u32>,
    key_timestamp: Option<u32>,
    awaited: Option<u32>,
    /// Nothing can be decoded before a key frame, which is asked for at this time.
    dark: Option<Micros>,
    report_at: Micros,
    ask: Vec<u16>,
}

impl Media {
    /// Media that begin `now`.
    ///
    /// # Errors
    ///
    /// [`SrtpError::KeyLength`] for keys that are not of their profile.
    pub fn new(agreed: Agreed, secrets: &Secrets, now: Micros) -> Result<Self, SrtpError> {
        let video = agreed
            .video
            .map(|video| Track::new(video.payload_type, VIDEO_CLOCK));
        Ok(Self {
            inbound: Inbound::new(secrets.profile, &secrets.inbound)?,
            outbound: Outbound::new(secrets.profile, &secrets.outbound)?,
            dark: video.is_some().then_some(now + DARK),
            video,
            audio: agreed
                .audio
                .map(|audio| Track::new(audio.payload_type, AUDIO_CLOCK)),
            agreed,
            figures: Figures::default(),
            stream: None,
            key_timestamp: None,
            awaited: None,
            report_at: now + REPORT,
            ask: Vec::new(),
        })
    }

    /// Looks into every packet until a key frame of `stream` has come.
    pub fn await_stream(&mut self, stream: u32) {
        self.awaited = Some(stream);
    }

    /// Takes an SRTP packet that arrived at `at`. Result: the stream that was awaited, if its key
    /// frame begins with this packet.
    pub fn receive_rtp(&mut self, packet: &[u8], at: Micros, shared: &mut Shared) -> Option<u32> {
        self.figures.bytes += packet.len() as u64;
        let head = Head::read(packet)?;
        let is_of = |track: &&mut Track| track.payload_type == head.payload_type;
        if let Some(video) = self.video.as_mut().filter(is_of) {
            video.ssrc = Some(head.ssrc);
            let place = video.reception.take(head.sequence, head.timestamp, at);
            let curious = self.dark.is_some() || self.awaited.is_some();
            if curious || head.sequence.is_multiple_of(shared.sample) {
                return self.inspect(packet, place, at, shared);
            }
        } else if let Some(audio) = self.audio.as_mut().filter(is_of) {
            audio.ssrc = Some(head.ssrc);
            let place = audio.reception.take(head.sequence, head.timestamp, at);
            if head.sequence.is_multiple_of(shared.sample) {
                self.inspect_sound(packet, place, at, shared);
            }
        } else if self.is_retransmission(head.payload_type) {
            return self.inspect_again(packet, at, shared);
        } else {
            self.figures.unreadable += 1;
        }
        None
    }

    fn is_retransmission(&self, payload_type: u8) -> bool {
        let rtx = self.agreed.video.and_then(|video| video.rtx_payload_type);
        rtx == Some(payload_type)
    }

    /// Opens a packet into `plain`; what came before cannot be opened again and is no fault.
    fn open(&mut self, packet: &[u8], plain: &mut Vec<u8>) -> bool {
        match self.inbound.unprotect_rtp(packet, plain) {
            Ok(_) => {
                self.figures.inspected += 1;
                true
            }
            Err(SrtpError::Replayed) => false,
            Err(_) => {
                self.figures.unreadable += 1;
                false
            }
        }
    }

    fn inspect(
        &mut self,
        packet: &[u8],
        place: Place,
        at: Micros,
        shared: &mut Shared,
    ) -> Option<u32> {
        if !self.open(packet, &mut shared.plain) {
            return None;
        }
        let read = RtpPacket::parse(&shared.plain).ok()?;
        let stamp = Stamp::of(read.payload);
        if place == Place::Next {
            self.record(stamp, at, &mut shared.delays);
        }
        self.look(read.payload, read.timestamp, stamp)
    }

    fn inspect_sound(&mut self, packet: &[u8], place: Place, at: Micros, shared: &mut Shared) {
        if self.open(packet, &mut shared.plain) && place == Place::Next {
            let read = RtpPacket::parse(&shared.plain);
            let stamp = read.ok().and_then(|read| Stamp::of(read.payload));
            self.record(stamp, at, &mut shared.delays);
        }
    }

    /// Takes a packet that was sent again in a stream of its own: the number that it had stands
    /// before its payload (RFC 4588 section 4).
    fn inspect_again(&mut self, packet: &[u8], at: Micros, shared: &mut Shared) -> Option<u32> {
        if !self.open(packet, &mut shared.plain) {
            return None;
        }
        let read = RtpPacket::parse(&shared.plain).ok()?;
        let (number, payload) = read.payload.split_first_chunk::<2>()?;
        let video = self.video.as_mut()?;
        let place = video.reception.take_again(u16::from_be_bytes(*number), at);
        let is_new = matches!(place, Place::Next | Place::Late);
        is_new.then(|| self.look(payload, read.timestamp, Stamp::of(payload)))?
    }

    fn record(&mut self, stamp: Option<Stamp>, at: Micros, delays: &mut Delays) {
        if let Some(stamp) = stamp {
            let delay = at.saturating_sub(stamp.sent);
            self.figures.delay_max_us = self.figures.delay_max_us.max(delay);
            delays.record(delay);
        }
    }

    /// Sees what a part of the picture is. Result: as [`Self::receive_rtp`].
    fn look(&mut self, payload: &[u8], timestamp: u32, stamp: Option<Stamp>) -> Option<u32> {
        if let Some(stamp) = stamp {
            let before = self.stream.replace(stamp.stream);
            self.figures.changes += u64::from(before.is_some_and(|before| before != stamp.stream));
        }
        if !starts_key_frame(payload) {
            return None;
        }
        self.dark = None;
        if self.key_timestamp.replace(timestamp) != Some(timestamp) {
            self.figures.key_frames += 1;
        }
        let stream = stamp?.stream;
        self.awaited.take_if(|awaited| *awaited == stream)
    }

    /// Takes an SRTCP packet that arrived at `at`.
    pub fn receive_rtcp(&mut self, packet: &[u8], at: Micros, shared: &mut Shared) {
        if self
            .inbound
            .unprotect_rtcp(packet, &mut shared.plain)
            .is_err()
        {
            self.figures.unreadable += 1;
            return;
        }
        let mut tracks = [self.video.as_mut(), self.audio.as_mut()];
        let read = rtcp::parse(&shared.plain, |feedback| {
            if let Feedback::SenderReport(report) = feedback {
                let of_report = |track: &&mut &mut Track| track.ssrc == Some(report.ssrc);
                if let Some(track) = tracks.iter_mut().flatten().find(of_report) {
                    track.reception.take_report(&report, at);
                }
            }
        });
        self.figures.unreadable += u64::from(read.is_err());
    }

    /// When [`Self::feedback`] is to be called.
    #[must_use]
    pub fn due(&self) -> Micros {
        let tracks = [&self.video, &self.audio].into_iter().flatten();
        let missing = tracks.filter_map(|track| track.reception.due());
        missing.chain(self.dark).fold(self.report_at, Micros::min)
    }

    /// What is to be said now, as an SRTCP packet; None: nothing.
    pub fn feedback(&mut self, now: Micros) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        if now >= self.report_at {
            self.report_at = now + REPORT;
            self.report(now, &mut plain);
        }
        self.ask_for_missing(now, &mut plain);
        if self.dark.is_some_and(|at| now >= at) {
            self.dark = Some(now + ASK_AGAIN);
            if let Some(ssrc) = self.video.as_ref().and_then(|video| video.ssrc) {
                rtcp::pli(REPORTER, ssrc, &mut plain);
                self.figures.plis += 1;
            }
        }
        let mut protected = Vec::new();
        let is_said =
            !plain.is_empty() && self.outbound.protect_rtcp(&plain, &mut protected).is_ok();
        is_said.then_some(protected)
    }

    fn report(&mut self, now: Micros, plain: &mut Vec<u8>) {
        let tracks = [&mut self.video, &mut self.audio].into_iter().flatten();
        let blocks = tracks.filter_map(|track| track.reception.report(track.ssrc?, now));
        let blocks: Vec<_> = blocks.collect();
        rtcp::receiver_report(REPORTER, &blocks, plain);
        rtcp::sdes(REPORTER, CNAME, plain);
        if let Some(kbps) = self.agreed.remb_kbps {
            let ssrcs: Vec<_> = blocks.iter().map(|block| block.ssrc).collect();
            rtcp::remb(REPORTER, u64::from(kbps) * 1000, &ssrcs, plain);
        }
    }

    fn ask_for_missing(&mut self, now: Micros, plain: &mut Vec<u8>) {
        if let Some(audio) = &mut self.audio {
            audio.reception.missing_now(now, false, &mut self.ask);
        }
        let Some(video) = &mut self.video else {
            return;
        };
        if video
            .reception
            .missing_now(now, self.agreed.nack, &mut self.ask)
        {
            self.dark.get_or_insert(now);
        }
        if let Some(ssrc) = video.ssrc.filter(|_| !self.ask.is_empty()) {
            rtcp::nack(REPORTER, ssrc, &self.ask, plain);
            self.figures.nacks += self.ask.len() as u64;
        }
    }

    /// What was counted so far. With `reset` the longest delay is looked for anew.
    pub fn figures(&mut self, reset: bool) -> Figures {
        let mut figures = self.figures;
        for track in [&self.video, &self.audio].into_iter().flatten() {
            figures.add(&track.reception.counts());
        }
        if reset {
            self.figures.delay_max_us = 0;
        }
        figures
    }
}

#[cfg(test)]
mod tests;
