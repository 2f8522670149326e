//! One viewer's connection: headers, and the viewer behind it.

use leaf_core::Micros;
use leaf_core::cursor::{Cursor, StreamId};
use leaf_core::ladder::Rung;
use leaf_core::streams::Streams;
use leaf_core::viewer::{Agreed, Report, Target, Viewer};
use leaf_secure::dtls::Fingerprint;
use leaf_secure::memory::prefetch;
use leaf_wire::header::{HeaderError, HeaderTemplate, Playout};
use leaf_wire::ice::Credentials;
use leaf_wire::ntp;
use leaf_wire::rtcp::{Feedback, SenderReport, parse, sender_report};

use super::link::{Link, Unusable};
use super::sending::{Delays, Headers, Sending};
use crate::clock;
use crate::control::request::{Channel, Ladder, Media, ViewerAdd};
use crate::net::batch::Batch;

/// The streams' identities towards a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ssrcs {
    /// The picture.
    pub video: u32,
    /// Its retransmissions.
    pub rtx: u32,
    /// The sound.
    pub audio: u32,
}

/// One viewer's connection.
pub struct Connection {
    /// What every peer has.
    pub link: Link,
    /// The SSRCs.
    pub ssrcs: Ssrcs,
    /// What was negotiated.
    pub media: [Option<Media>; 2],
    /// The headers that follow from it.
    pub headers: Headers,
    /// The RTCP CNAME.
    pub cname: String,
    /// The group of what it watches.
    pub group: String,
    /// Whether it stays at its rendition.
    pub pinned: bool,
    /// What it watches.
    pub viewer: Viewer,
    /// Packets and bytes of payload sent.
    pub sent: (u64, u64),
    /// The streams it was last subscribed to.
    pub subscribed: Vec<StreamId>,
}

impl Connection {
    /// A connection that the viewer is to open.
    ///
    /// # Errors
    /// Header extensions that do not fit.
    pub fn new(
        request: ViewerAdd,
        fingerprint: Fingerprint,
        credentials: Credentials,
        ssrcs: Ssrcs,
        seeds: [u32; 3],
        now: Micros,
    ) -> Result<Self, HeaderError> {
        let ViewerAdd {
            viewer: name,
            remote,
            video,
            audio,
            channel,
            cname,
        } = request;
        let agreed = Agreed {
            video: video.as_ref().map(|media| media.rtx_payload_type.is_some()),
            audio: audio.is_some(),
            seeds,
        };
        let media = [video, audio];
        Ok(Self {
            link: Link::new(
                name.as_str().to_owned(),
                credentials,
                remote.ufrag.as_str().to_owned(),
                fingerprint,
                now,
            ),
            ssrcs,
            headers: headers(&media, ssrcs)?,
            media,
            cname: cname.as_str().to_owned(),
            group: channel.group.as_str().to_owned(),
            pinned: channel.pinned,
            viewer: Viewer::new(agreed, target(&channel), now),
            sent: (0, 0),
            subscribed: Vec::new(),
        })
    }

    /// Have fetched what is needed to send to it and stands elsewhere.
    pub fn prefetch(&self) {
        if let Some(keys) = &self.link.keys {
            keys.outbound.prefetch();
        }
        let picture = self.viewer.picture().map(|picture| &picture.cursor);
        let sound = self.viewer.sound().map(|sound| &sound.cursor);
        for segment in [picture, sound].into_iter().flatten().map(Cursor::segment) {
            segment.map(prefetch);
        }
        self.subscribed.first().map(prefetch);
    }

    /// Whether nothing is to be told of it, and subscriptions and timer are as they are to be.
    pub fn is_settled(&self) -> bool {
        let subscribed = self.subscribed.iter().copied();
        !self.viewer.has_events() && self.viewer.streams().eq(subscribed) && self.is_timed()
    }

    /// Whether it stands in the timers early enough.
    pub fn is_timed(&self) -> bool {
        let due = self.viewer.due();
        due.is_none_or(|due| self.link.scheduled.is_some_and(|at| at <= due))
    }

    /// Let the viewer do something with a way to send, if its connection is up.
    pub fn with_sink<R>(
        &mut self,
        batches: &mut [Batch],
        delays: &mut Delays,
        now: Micros,
        act: impl FnOnce(&mut Viewer, &mut Sending<'_>) -> R,
    ) -> Option<R> {
        let (path, keys) = (self.link.path?, self.link.keys.as_ref()?);
        let mut sink = Sending {
            to: path.to,
            batch: batches.get_mut(path.socket)?,
            outbound: &keys.outbound,
            headers: &self.headers,
            send_time: ntp::abs_send_time(ntp::from_unix_micros(clock::unix(now))),
            delays,
            sent: &mut self.sent,
        };
        Some(act(&mut self.viewer, &mut sink))
    }

    /// Take an RTCP packet.
    ///
    /// # Errors
    /// Why it is of no use.
    pub fn receive_rtcp(
        &mut self,
        packet: &[u8],
        plain: &mut Vec<u8>,
        streams: &Streams,
        batches: &mut [Batch],
        delays: &mut Delays,
        now: Micros,
    ) -> Result<(), Unusable> {
        self.link.open_rtcp(packet, plain, now)?;
        let video = self.ssrcs.video;
        let arrival = ntp::middle(ntp::from_unix_micros(clock::unix(now)));
        self.with_sink(batches, delays, now, |viewer, sink| {
            // What stands before a malformed part counts; there is nobody to complain to.
            let _ = parse(plain, |feedback| match feedback {
                Feedback::ReportBlock { block, .. } if block.ssrc == video => {
                    let (sr, delay) = (block.last_sr, block.delay_since_last_sr);
                    let report = Report {
                        fraction: f64::from(block.fraction_lost) / 256.0,
                        lost: block.cumulative_lost,
                        jitter: block.jitter,
                        rtt: ntp::round_trip(arrival, sr, delay),
                    };
                    viewer.report(report, streams, now);
                }
                Feedback::Nack { media_ssrc, lost } if media_ssrc == video => {
                    viewer.nack(lost.iter(), streams, now, sink);
                }
                Feedback::Pli { media_ssrc } if media_ssrc == video => {
                    viewer.refresh(streams, now, sink);
                }
                Feedback::Fir { ssrc, .. } if ssrc == video => viewer.refresh(streams, now, sink),
                Feedback::Remb {
                    bits_per_second, ..
                } => {
                    viewer.estimate(bits_per_second, streams, now);
                }
                _ => {}
            });
        });
        Ok(())
    }

    /// Send the reports that are due.
    pub fn send_reports(&mut self, batches: &mut [Batch], now: Micros) {
        let ntp = ntp::from_unix_micros(clock::unix(now));
        let ssrcs = [self.ssrcs.video, self.ssrcs.audio];
        let mut compound = Vec::new();
        for (report, ssrc) in self.viewer.sender_reports(now).into_iter().zip(ssrcs) {
            let Some(report) = report else { continue };
            let report = SenderReport {
                ssrc,
                ntp,
                rtp_timestamp: report.timestamp,
                packets: report.sent.packets,
                octets: report.sent.octets,
            };
            sender_report(&report, &self.cname, &mut compound);
        }
        self.link.send_rtcp(&compound, batches);
    }
}

/// What a channel means for a viewer.
pub fn target(channel: &Channel) -> Target {
    Target {
        ladder: rungs(&channel.ladder),
        start: channel.start,
        pinned: channel.pinned,
        sound: channel.sound,
    }
}

/// The renditions of a ladder.
pub fn rungs(ladder: &Ladder) -> Vec<Rung> {
    let rungs = ladder.rungs().iter();
    rungs
        .map(|rung| Rung {
            stream: rung.stream,
            kbps: rung.kbps.get(),
        })
        .collect()
}

/// The headers of what was negotiated: picture and sound.
///
/// # Errors
/// Header extensions that do not fit.
pub fn headers(media: &[Option<Media>; 2], ssrcs: Ssrcs) -> Result<Headers, HeaderError> {
    let [video, audio] = media;
    let rtx = video
        .as_ref()
        .and_then(|media| Some((media, media.rtx_payload_type?)));
    let saying = |playout: Playout| {
        let (media, _) = rtx?;
        let id = media.extensions.playout_delay?;
        let plain = header(media, media.payload_type.get(), ssrcs.video, true);
        Some(plain.and_then(|it| it.with_playout_delay(id.get(), playout)))
    };
    Ok(Headers {
        at_once: saying(Playout::AtOnce).transpose()?,
        free: saying(Playout::Free).transpose()?,
        // Without a stream for retransmissions a packet is sent again bit by bit, so its header
        // must not tell the time or anything else that changes (see docs/protocols/leaf.md).
        video: video
            .as_ref()
            .map(|media| header(media, media.payload_type.get(), ssrcs.video, rtx.is_some()))
            .transpose()?,
        rtx: rtx
            .map(|(media, payload_type)| header(media, payload_type.get(), ssrcs.rtx, true))
            .transpose()?,
        audio: audio
            .as_ref()
            .map(|media| header(media, media.payload_type.get(), ssrcs.audio, false))
            .transpose()?,
    })
}

fn header(
    media: &Media,
    payload_type: u8,
    ssrc: u32,
    timed: bool,
) -> Result<HeaderTemplate, HeaderError> {
    let mut template = HeaderTemplate::new(payload_type, ssrc)?;
    if let Some(id) = media.extensions.abs_send_time.filter(|_| timed) {
        template = template.with_abs_send_time(id.get())?;
    }
    if let Some((id, mid)) = media.mid_extension() {
        template = template.with_mid(id.get(), mid)?;
    }
    Ok(template)
}
