use leaf_secure::srtp::{MasterKey, Profile};
use leaf_wire::ntp;
use leaf_wire::rtcp::SenderReport;
use proptest::prelude::*;

use super::*;
use crate::synthetic::{AUDIO_TYPE, Audio, Shape, VIDEO_TYPE, Video};

const RTX_TYPE: u8 = 97;
const AGREED: Agreed = Agreed {
    video: Some(VideoTypes {
        payload_type: VIDEO_TYPE,
        rtx_payload_type: Some(RTX_TYPE),
    }),
    audio: Some(AudioType {
        payload_type: AUDIO_TYPE,
    }),
    nack: true,
    remb_kbps: Some(500),
};
const SHAPE: Shape = Shape {
    kbps: 600,
    fps: 25,
    gop: 5,
};

/// A sender and a viewer with each other's keys.
struct Pair {
    outbound: Outbound,
    inbound: Inbound,
    media: Media,
    shared: Shared,
}

impl Pair {
    fn new(sample: u16) -> Self {
        let profile = Profile::AeadAes128Gcm;
        let key = |byte| MasterKey::new(&[byte; 16], &[byte; 12]);
        let secrets = Secrets {
            profile,
            outbound: key(1),
            inbound: key(2),
        };
        Self {
            outbound: Outbound::new(profile, &key(2)).unwrap(),
            inbound: Inbound::new(profile, &key(1)).unwrap(),
            media: Media::new(AGREED, &secrets, 0).unwrap(),
            shared: Shared::new(sample),
        }
    }

    fn protect(&self, packet: &[u8]) -> Vec<u8> {
        let index = u64::from(u16::from_be_bytes([packet[2], packet[3]]));
        let mut out = vec![0; packet.len() + 16];
        self.outbound
            .protect_rtp(index, &packet[..12], &packet[12..], &mut out)
            .unwrap();
        out
    }

    fn take(&mut self, packet: &[u8], at: Micros) -> Option<u32> {
        let protected = self.protect(packet);
        self.media.receive_rtp(&protected, at, &mut self.shared)
    }

    /// Everything that the viewer says at a time, as text.
    fn said(&mut self, now: Micros) -> Vec<String> {
        let Some(feedback) = self.media.feedback(now) else {
            return Vec::new();
        };
        let (mut plain, mut said) = (Vec::new(), Vec::new());
        self.inbound.unprotect_rtcp(&feedback, &mut plain).unwrap();
        rtcp::parse(&plain, |feedback| {
            said.push(match feedback {
                Feedback::ReportBlock { block, .. } => {
                    format!("report {} {}", block.ssrc, block.cumulative_lost)
                }
                Feedback::Nack { media_ssrc, lost } => {
                    format!("nack {media_ssrc} {:?}", lost.iter().collect::<Vec<_>>())
                }
                Feedback::Remb {
                    bits_per_second, ..
                } => format!("remb {bits_per_second}"),
                other => format!("{other:?}"),
            });
        })
        .unwrap();
        said
    }
}

fn picture(video: &mut Video, now: Micros) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    video.next(now, |packet| packets.push(packet.to_vec()));
    packets
}

#[test]
fn a_stream_is_counted_and_timed() {
    let mut pair = Pair::new(1);
    let (mut video, mut audio) = (Video::new(SHAPE, 7, 0).unwrap(), Audio::new(8, 0).unwrap());
    let (mut count, mut bytes) = (0, 0);
    for _ in 0..10 {
        let now = video.due();
        let mut packets = picture(&mut video, now);
        audio.next(now, |packet| packets.push(packet.to_vec()));
        for packet in packets {
            assert_eq!(pair.take(&packet, now + 250), None);
            count += 1;
            bytes += packet.len() as u64 + 16;
        }
    }
    let figures = pair.media.figures(true);
    let expected = Figures {
        packets: count,
        bytes,
        inspected: count,
        key_frames: 2,
        delay_max_us: 250,
        ..Figures::default()
    };
    assert_eq!(figures, expected);
    assert_eq!(pair.media.figures(false).delay_max_us, 0);
    let delays = pair.shared.delays.percentiles();
    assert_eq!((delays.samples, delays.p50, delays.max), (count, 250, 250));
    assert_eq!(
        pair.said(1_000_000),
        ["report 7 0", "report 8 0", "remb 500000"]
    );
}

#[test]
fn after_the_first_key_frame_a_sample_is_enough() {
    let mut pair = Pair::new(16);
    let mut video = Video::new(SHAPE, 7, 0).unwrap();
    let mut count = 0;
    for _ in 0..50 {
        let now = video.due();
        for packet in picture(&mut video, now) {
            pair.take(&packet, now);
            count += 1;
        }
    }
    let figures = pair.media.figures(false);
    assert_eq!((figures.packets, figures.lost), (count, 0));
    assert!(
        (count / 16..count / 16 + 3).contains(&figures.inspected),
        "{}",
        figures.inspected
    );
}

#[test]
fn what_is_lost_is_asked_for_and_taken_from_the_other_stream() {
    let mut pair = Pair::new(16);
    let mut video = Video::new(SHAPE, 7, 0).unwrap();
    let packets = picture(&mut video, 0);
    for (place, packet) in packets.iter().enumerate() {
        if place != 2 {
            pair.take(packet, 0);
        }
    }
    assert_eq!(pair.said(pair.media.due()), ["nack 7 [3]"]);
    let mut again = vec![0x80, RTX_TYPE, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 3];
    again.extend_from_slice(&packets[2][12..]);
    pair.take(&again, 20_000);
    let figures = pair.media.figures(false);
    assert_eq!((figures.lost, figures.recovered, figures.nacks), (0, 1, 1));
    assert_eq!(figures.delay_max_us, 0, "what came again is not timed");
    pair.take(&packets[1], 30_000);
    assert_eq!(pair.media.figures(false).duplicates, 1);
}

#[test]
fn without_a_key_frame_one_is_asked_for() {
    let mut pair = Pair::new(16);
    let mut video = Video::new(SHAPE, 7, 0).unwrap();
    picture(&mut video, 0);
    assert_eq!(
        pair.said(DARK),
        Vec::<String>::new(),
        "there is nobody to ask"
    );
    let show = |pair: &mut Pair, video: &mut Video| {
        for packet in picture(video, 0) {
            pair.take(&packet, 0);
        }
    };
    show(&mut pair, &mut video);
    let asks = |said: Vec<String>| said.contains(&"Pli { media_ssrc: 7 }".to_owned());
    assert!(!asks(pair.said(DARK + ASK_AGAIN - 1)));
    assert!(asks(pair.said(DARK + ASK_AGAIN)));
    while pair.media.figures(false).key_frames == 0 {
        show(&mut pair, &mut video);
    }
    assert!(!asks(pair.said(DARK + 9 * ASK_AGAIN)));
    assert_eq!(pair.media.figures(false).plis, 1);
}

#[test]
fn another_stream_is_noticed_by_its_key_frame() {
    let mut pair = Pair::new(16);
    let mut video = Video::new(SHAPE, 7, 0).unwrap();
    for packet in picture(&mut video, 0) {
        pair.take(&packet, 0);
    }
    pair.media.await_stream(8);
    let mut other = Video::new(SHAPE, 8, 0).unwrap();
    let mut arrived = Vec::new();
    for (place, packet) in picture(&mut other, 0).iter().enumerate() {
        let mut packet = packet.clone();
        // As a server has it: the same SSRC, and numbers that go on.
        packet[2..4].copy_from_slice(&(100 + place as u16).to_be_bytes());
        packet[8..12].copy_from_slice(&7_u32.to_be_bytes());
        arrived.push(pair.take(&packet, 0));
    }
    assert_eq!(arrived[0], Some(8));
    assert!(arrived[1..].iter().all(Option::is_none));
    assert_eq!(pair.media.figures(false).changes, 1);
}

#[test]
fn sender_reports_are_answered_and_damage_is_counted() {
    let mut pair = Pair::new(1);
    let mut video = Video::new(SHAPE, 7, 0).unwrap();
    pair.take(&picture(&mut video, 0)[0], 0);
    let mut plain = Vec::new();
    let ntp = ntp::from_unix_micros(1_000_000);
    let report = SenderReport {
        ssrc: 7,
        ntp,
        rtp_timestamp: 0,
        packets: 1,
        octets: 1,
    };
    rtcp::sender_report(&report, "leaf", &mut plain);
    let mut protected = Vec::new();
    pair.outbound.protect_rtcp(&plain, &mut protected).unwrap();
    pair.media.receive_rtcp(&protected, 5, &mut pair.shared);
    let block = pair
        .media
        .video
        .as_mut()
        .unwrap()
        .reception
        .report(7, 500_005)
        .unwrap();
    assert_eq!(
        (block.last_sr, block.delay_since_last_sr),
        (ntp::middle(ntp), 32_768)
    );

    let mut damaged = pair.protect(&picture(&mut video, 0)[0]);
    damaged[20] ^= 1;
    pair.media.receive_rtp(&damaged, 0, &mut pair.shared);
    pair.media.receive_rtcp(&protected, 5, &mut pair.shared);
    assert_eq!(
        pair.media.figures(false).unreadable,
        2,
        "a wrong tag, a repeated report"
    );
}

proptest! {
    #[test]
    fn any_packet_is_taken_or_counted(packets: Vec<Vec<u8>>) {
        let mut pair = Pair::new(1);
        for packet in &packets {
            pair.media.receive_rtp(packet, 0, &mut pair.shared);
            pair.media.receive_rtcp(packet, 0, &mut pair.shared);
        }
        prop_assert_eq!(pair.media.figures(false).inspected, 0);
    }

    #[test]
    fn any_opened_packet_is_taken(kind in 0usize..3, payload: Vec<u8>) {
        let mut pair = Pair::new(1);
        let payload_type = [VIDEO_TYPE, AUDIO_TYPE, RTX_TYPE][kind];
        let packet = [&[0x80, payload_type, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7][..], &payload].concat();
        pair.take(&packet, 0);
        prop_assert_eq!(pair.media.figures(false).inspected, 1);
    }
}
