//! Publishers over a path that loses, delays and doubles packets: what is passed on, and what they
//! are asked for.

use std::collections::{HashMap, HashSet};

use leaf_core::Micros;
use leaf_core::publisher::{MAX_AGE, MAX_ASKED, Passed, Publisher, Terms};
use leaf_wire::header::HeaderTemplate;
use leaf_wire::rtcp::{Feedback, SenderReport, parse};
use proptest::prelude::*;

const VIDEO: u32 = 1234;
const RTX: u32 = 5678;
const AUDIO: u32 = 99;
const OWN: u32 = 42;
const STEP: Micros = 5_000;

fn video() -> Terms {
    Terms {
        mid: "0".into(),
        rid: String::new(),
        clock: 90_000,
        payload_types: vec![102],
        rtx: vec![(103, 102)],
        ssrcs: vec![],
        mid_extension: Some(4),
        rid_extension: None,
        repaired_rid_extension: None,
        nack: true,
        pli: true,
        remb: true,
    }
}

fn audio() -> Terms {
    Terms {
        mid: "1".into(),
        rid: String::new(),
        clock: 48_000,
        payload_types: vec![111],
        rtx: vec![],
        ssrcs: vec![AUDIO],
        mid_extension: Some(4),
        rid_extension: None,
        repaired_rid_extension: None,
        nack: false,
        pli: false,
        remb: false,
    }
}

fn publisher() -> Publisher {
    Publisher::new(vec![video(), audio()], OWN, "leaf".into(), 4000)
}

fn packet(kind: u8, ssrc: u32, sequence: u16, mid: Option<&str>, payload: &[u8]) -> Vec<u8> {
    let mut template = HeaderTemplate::new(kind, ssrc).unwrap();
    if let Some(mid) = mid {
        template = template.with_mid(4, mid).unwrap();
    }
    let mut bytes = vec![0; 64];
    let length = template.write(sequence, u32::from(sequence) * 3000, true, 0, &mut bytes);
    bytes.truncate(length);
    bytes.extend_from_slice(payload);
    bytes
}

fn picture(sequence: u16) -> Vec<u8> {
    packet(102, VIDEO, sequence, None, &sequence.to_be_bytes())
}

fn again(sequence: u16, number: u16) -> Vec<u8> {
    let payload = [sequence.to_be_bytes(), sequence.to_be_bytes()].concat();
    packet(103, RTX, number, None, &payload)
}

/// What a publisher is told in one compound packet.
#[derive(Debug, Default)]
struct Told {
    blocks: Vec<(u32, i32)>,
    nacks: Vec<(u32, u16)>,
    plis: Vec<u32>,
    rate: Option<(u64, Vec<u32>)>,
}

fn told(publisher: &mut Publisher, now: Micros) -> Told {
    let mut out = Vec::new();
    publisher.write(now, &mut out);
    let mut told = Told::default();
    if out.is_empty() {
        return told;
    }
    assert!(out.len() < 1200, "{} bytes", out.len());
    assert_eq!(out[1], 201, "a compound packet begins with a report");
    parse(&out, |feedback| match feedback {
        Feedback::ReportBlock { block, reporter } => {
            assert_eq!(reporter, OWN);
            told.blocks.push((block.ssrc, block.cumulative_lost));
        }
        Feedback::Nack { media_ssrc, lost } => {
            told.nacks.extend(lost.iter().map(|it| (media_ssrc, it)));
        }
        Feedback::Pli { media_ssrc } => told.plis.push(media_ssrc),
        Feedback::Remb {
            bits_per_second,
            ssrcs,
        } => told.rate = Some((bits_per_second, ssrcs.iter().collect())),
        other => panic!("{other:?}"),
    })
    .unwrap();
    told
}

#[test]
fn packets_are_passed_on_as_they_were_sent() {
    let mut publisher = publisher();
    let bytes = packet(102, VIDEO, 7, Some("0"), b"slice");
    let expected = Passed {
        track: 0,
        payload_type: 102,
        marker: true,
        sequence: 7,
        timestamp: 21_000,
        ssrc: VIDEO,
        late: false,
        payload: b"slice",
    };
    assert_eq!(publisher.take(&bytes, 0), Some(expected));
    assert_eq!(publisher.take(&bytes, 0), None, "twice");
    publisher.take(&picture(9), 0);
    let rtx = packet(103, RTX, 500, None, b"\x00\x08lost");
    let restored = publisher.take(&rtx, 0).unwrap();
    let expected = (8, VIDEO, 102, &b"lost"[..]);
    assert_eq!(
        (
            restored.sequence,
            restored.ssrc,
            restored.payload_type,
            restored.payload
        ),
        expected
    );
    assert_eq!(publisher.take(&rtx, 0), None, "twice");
    assert_eq!(publisher.strangers(), 0);
}

#[test]
fn tracks_are_told_apart_by_name_then_ssrc_then_payload_type() {
    let both = |ssrcs: [&[u32]; 2]| {
        let terms = |mid: &str, ssrcs: &[u32]| Terms {
            mid: mid.into(),
            ssrcs: ssrcs.to_vec(),
            ..video()
        };
        let tracks = vec![terms("0", ssrcs[0]), terms("1", ssrcs[1])];
        Publisher::new(tracks, OWN, "leaf".into(), 4000)
    };
    let track =
        |publisher: &mut Publisher, bytes: &[u8]| publisher.take(bytes, 0).map(|it| it.track);

    let mut publisher = both([&[], &[]]);
    let bare = |ssrc, sequence| packet(102, ssrc, sequence, None, b"x");
    assert_eq!(
        track(&mut publisher, &bare(10, 1)),
        None,
        "nothing tells it"
    );
    let named = packet(102, 10, 2, Some("1"), b"x");
    assert_eq!(track(&mut publisher, &named), Some(1));
    assert_eq!(track(&mut publisher, &bare(10, 3)), Some(1), "remembered");
    let unknown = packet(102, 10, 4, Some("7"), b"x");
    assert_eq!(track(&mut publisher, &unknown), None, "no such name");
    assert_eq!(publisher.strangers(), 2);

    let mut publisher = both([&[20], &[30]]);
    assert_eq!(track(&mut publisher, &bare(30, 1)), Some(1));
    assert_eq!(track(&mut publisher, &bare(20, 1)), Some(0));
    assert_eq!(track(&mut publisher, &bare(40, 1)), None);
    // The name goes before the description.
    let named = packet(102, 50, 1, Some("0"), b"x");
    assert_eq!(track(&mut both([&[], &[50]]), &named), Some(0));

    let mut publisher = self::publisher();
    assert_eq!(
        track(&mut publisher, &packet(111, 7, 1, None, b"x")),
        Some(1)
    );
    assert_eq!(track(&mut publisher, &packet(96, 8, 1, None, b"x")), None);
    // Of the right track, with a payload type of another one.
    assert_eq!(
        track(&mut publisher, &packet(102, AUDIO, 1, None, b"x")),
        None
    );
}

/// A packet with the names of its section and its layer, in the header extensions 4 and `id`.
fn layer(kind: u8, ssrc: u32, sequence: u16, id: u8, rid: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0x40, b'0', id << 4 | (rid.len() as u8 - 1)];
    body.extend_from_slice(rid.as_bytes());
    body.resize(body.len().next_multiple_of(4), 0);
    let mut bytes = packet(kind, ssrc, sequence, None, &[]);
    bytes[0] |= 0x10;
    bytes.extend([0xbe, 0xde, 0, (body.len() / 4) as u8]);
    bytes.extend(body);
    bytes.extend_from_slice(payload);
    bytes
}

fn layered() -> Publisher {
    let terms = |rid: &str| Terms {
        rid: rid.into(),
        rid_extension: Some(10),
        repaired_rid_extension: Some(11),
        ..video()
    };
    let tracks = vec![terms("h"), terms("l"), audio()];
    Publisher::new(tracks, OWN, "leaf".into(), 4000)
}

#[test]
fn layers_are_told_apart_by_name_then_by_ssrc() {
    let mut publisher = layered();
    let mut track = |bytes: &[u8]| publisher.take(bytes, 0).map(|it| (it.track, it.sequence));
    let bare = |ssrc, sequence, mid| packet(102, ssrc, sequence, mid, b"x");
    assert_eq!(track(&bare(20, 1, None)), None, "nothing tells it");
    assert_eq!(track(&bare(20, 1, Some("0"))), None, "nor does the section");
    assert_eq!(track(&layer(102, 20, 2, 10, "l", b"x")), Some((1, 2)));
    assert_eq!(track(&layer(102, 30, 2, 10, "h", b"x")), Some((0, 2)));
    assert_eq!(track(&bare(20, 4, None)), Some((1, 4)), "remembered");
    assert_eq!(track(&bare(20, 5, Some("0"))), Some((1, 5)));
    for rid in ["x", "hl", "H", "h\0", "0123456789abcdef"] {
        assert_eq!(track(&layer(102, 40, 1, 10, rid, b"x")), None, "{rid:?}");
    }
    // What is sent again names its layer by the other extension.
    let again = [3_u16.to_be_bytes().as_slice(), b"lost"].concat();
    assert_eq!(track(&layer(103, 50, 9, 11, "l", &again)), Some((1, 3)));
    assert_eq!(track(&packet(111, AUDIO, 1, Some("1"), b"x")), Some((2, 1)));
}

#[test]
fn layers_may_swap_their_ssrcs() {
    let mut publisher = layered();
    let mut passed = [0; 2];
    for step in 0..400_u64 {
        let ssrcs = if step < 100 { [7, 8] } else { [8, 7] };
        for (index, rid) in ["h", "l"].into_iter().enumerate() {
            let bytes = layer(102, ssrcs[index], step as u16, 10, rid, b"x");
            let taken = publisher.take(&bytes, step * STEP);
            assert!(taken.is_none_or(|it| it.track == index));
            passed[index] += usize::from(taken.is_some());
        }
    }
    // Half a second passes until the other one is believed.
    assert_eq!(passed, [301, 301]);
}

#[test]
fn each_layer_is_asked_for_its_own_key_frames() {
    let mut publisher = layered();
    publisher.take(&layer(102, 20, 2, 10, "l", b"x"), 0);
    publisher.take(&layer(102, 30, 2, 10, "h", b"x"), 0);
    publisher.want_key_frame_of(1);
    publisher.want_key_frame_of(9);
    assert_eq!(told(&mut publisher, 1).plis, [20]);
    publisher.want_key_frame_of(1);
    publisher.want_key_frame_of(0);
    assert_eq!(told(&mut publisher, 2).plis, [30], "once a second each");
    assert_eq!(told(&mut publisher, 1_000_001).plis, [20]);
    let names: Vec<_> = publisher.counters().map(|it| (it.0, it.1)).collect();
    assert_eq!(names, [("0", "h"), ("0", "l"), ("1", "")]);
}

#[test]
fn a_track_has_one_source_until_that_is_silent_or_leaves() {
    let mut publisher = publisher();
    let from = |ssrc, sequence| packet(111, ssrc, sequence, None, b"x");
    let passed = |publisher: &mut Publisher, ssrc, now| {
        publisher
            .take(&from(ssrc, (now / 1000) as u16), now)
            .is_some()
    };
    assert!(passed(&mut publisher, 7, 1_000));
    assert!(!passed(&mut publisher, 8, 2_000));
    assert!(passed(&mut publisher, 7, 400_000));
    assert!(!passed(&mut publisher, 8, 899_000));
    assert!(passed(&mut publisher, 8, 900_000));
    assert!(!passed(&mut publisher, 7, 901_000));
    publisher.take_feedback(&Feedback::Bye { ssrc: 8 }, 902_000);
    assert!(passed(&mut publisher, 7, 903_000));
}

#[test]
fn sender_reports_of_a_tracks_source_are_passed_on() {
    let mut publisher = publisher();
    publisher.take(&picture(1), 0);
    let report = |ssrc| SenderReport {
        ssrc,
        ntp: 5 << 32,
        rtp_timestamp: 6,
        packets: 1,
        octets: 2,
    };
    let given = Feedback::SenderReport(report(VIDEO));
    let passed = publisher.take_feedback(&given, 0).unwrap();
    assert_eq!((passed.track, passed.report), (0, report(VIDEO)));
    for stranger in [AUDIO, RTX] {
        let given = Feedback::SenderReport(report(stranger));
        assert_eq!(publisher.take_feedback(&given, 0), None);
    }
}

#[test]
fn a_key_frame_is_asked_for_once_a_second() {
    let mut publisher = publisher();
    publisher.want_key_frame();
    assert_eq!(publisher.due(), None, "nobody to ask yet");
    let mut asked = Vec::new();
    for step in 0..600 {
        let now = 1_000_000 + step * STEP;
        publisher.take(&picture(step as u16), now);
        publisher.take(&packet(111, AUDIO, step as u16, None, b"x"), now);
        publisher.want_key_frame();
        let told = told(&mut publisher, now);
        assert!(told.plis.iter().all(|ssrc| *ssrc == VIDEO));
        asked.extend(told.plis.iter().map(|_| now));
    }
    assert_eq!(asked, [1_000_000, 2_000_000, 3_000_000]);
    // The last wish is still to be told, and then no more.
    let times = (4_000_000..7_000_000).step_by(STEP as usize);
    let later: Vec<_> = times
        .filter(|now| !told(&mut publisher, *now).plis.is_empty())
        .collect();
    assert_eq!(later, [4_000_000]);
}

#[test]
fn it_is_told_the_rate_at_once_and_less_after_losses() {
    let mut publisher = publisher();
    let mut rates = Vec::new();
    for step in 0..800_u64 {
        let now = 1_000_000 + step * STEP;
        if !(300..500).contains(&step) || step % 4 > 0 {
            publisher.take(&picture(step as u16), now);
        }
        rates.extend(told(&mut publisher, now).rate.map(|rate| (step, rate)));
    }
    let (first, (bits, ssrcs)) = rates[0].clone();
    assert_eq!((first, ssrcs), (20, vec![VIDEO]));
    assert!((3_980_000..=4_000_000).contains(&bits));
    assert_eq!(rates.len(), 4);
    assert!(rates[2].1.0 < 3_700_000, "{rates:?}");
    assert!(rates[3].1.0 < rates[1].1.0, "{rates:?}");
}

/// A packet on its way: when it arrives, and whether it is one of the repair stream.
struct Path {
    publisher: Publisher,
    arriving: Vec<(Micros, Vec<u8>)>,
    passed: HashMap<u16, usize>,
    asked: HashMap<u16, Vec<Micros>>,
    plis: Vec<Micros>,
    rtx: u16,
}

impl Path {
    fn new(first: u16) -> Self {
        Self {
            publisher: publisher(),
            arriving: vec![],
            passed: HashMap::new(),
            asked: HashMap::new(),
            plis: vec![],
            rtx: first.wrapping_add(77),
        }
    }

    /// Deliver what arrives by now, and send again what is asked for, if `answers` says so.
    fn pass(&mut self, now: Micros, mut answers: impl FnMut(u16) -> bool) {
        let (due, later) = std::mem::take(&mut self.arriving)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.arriving = later;
        for (_, bytes) in due {
            if let Some(passed) = self.publisher.take(&bytes, now) {
                assert_eq!(passed.payload, passed.sequence.to_be_bytes());
                assert_eq!((passed.ssrc, passed.payload_type), (VIDEO, 102));
                *self.passed.entry(passed.sequence).or_default() += 1;
            }
        }
        while self.publisher.due().is_some_and(|due| due <= now) {
            let told = told(&mut self.publisher, now);
            self.plis.extend(told.plis.iter().map(|_| now));
            for (ssrc, sequence) in told.nacks {
                assert_eq!(ssrc, VIDEO);
                self.asked.entry(sequence).or_default().push(now);
                if answers(sequence) {
                    self.rtx = self.rtx.wrapping_add(1);
                    self.arriving
                        .push((now + 30_000, again(sequence, self.rtx)));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Any losses, changes of order and doubles: each packet is passed on once, none is asked for
    /// more often or longer than it may be, and what is not answered ends in a key frame.
    #[test]
    fn a_bad_path_is_repaired_within_the_limits(
        first: u16,
        fates in prop::collection::vec((0u8..10, 0u8..4, 0u64..60), 50..300),
        answered in 0u8..=4,
    ) {
        let mut path = Path::new(first);
        let mut sent = Vec::new();
        for (step, (fate, doubled, late)) in fates.iter().enumerate() {
            let now = 1_000_000 + step as Micros * STEP;
            let sequence = first.wrapping_add(step as u16);
            // The first and the last arrive: others are not known to be missing.
            let ends = step == 0 || step + 1 == fates.len();
            if *fate > 2 || ends {
                let delay = if *fate > 7 && !ends { late * 1_000 } else { 0 };
                path.arriving.push((now + delay, picture(sequence)));
                if *doubled == 0 {
                    path.arriving.push((now + delay + 7_000, picture(sequence)));
                }
            }
            sent.push(sequence);
            path.pass(now, |lost| lost.to_le_bytes()[0] % 4 < answered);
        }
        let end = 1_000_000 + fates.len() as Micros * STEP;
        for now in (end..end + 2_000_000).step_by(STEP as usize) {
            path.pass(now, |lost| lost.to_le_bytes()[0] % 4 < answered);
        }

        for (sequence, times) in &path.asked {
            prop_assert!(sent.contains(sequence));
            prop_assert!(times.len() <= usize::from(MAX_ASKED));
            prop_assert!(times[times.len() - 1] - times[0] < MAX_AGE);
            prop_assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 20_000));
        }
        prop_assert!(path.passed.values().all(|times| *times == 1));
        prop_assert!(path.plis.windows(2).all(|pair| pair[1] - pair[0] >= 1_000_000));
        let missing: HashSet<_> = sent.iter().filter(|it| !path.passed.contains_key(it)).collect();
        if answered == 4 {
            prop_assert!(missing.is_empty(), "{:?}", missing);
        }
        prop_assert_eq!(path.plis.is_empty(), missing.is_empty());
        let (_, _, counters) = path.publisher.counters().next().unwrap();
        prop_assert_eq!(counters.packets as usize, path.passed.len());
        prop_assert_eq!(counters.lost as usize, missing.len());
        prop_assert_eq!(counters.nacks as usize, path.asked.values().map(Vec::len).sum::<usize>());
        prop_assert!(counters.repaired as usize <= path.asked.len());
        prop_assert_eq!(path.publisher.strangers(), 0);
    }

    #[test]
    fn any_bytes_are_taken_or_refused(packets in prop::collection::vec(any::<Vec<u8>>(), 0..40)) {
        let mut publisher = publisher();
        for (step, bytes) in packets.iter().enumerate() {
            let now = step as Micros * STEP;
            publisher.take(bytes, now);
            told(&mut publisher, now);
        }
    }

    /// Packets of a sender that may do what it likes.
    #[test]
    fn any_packets_are_taken_or_refused(
        packets in prop::collection::vec(
            (96u8..112, 0u32..4, any::<u16>(), prop::option::of("[0-9a-z]{1,3}"), any::<Vec<u8>>(), any::<u16>()),
            0..300,
        ),
    ) {
        let (mut publisher, mut now) = (publisher(), 0);
        for (kind, ssrc, sequence, mid, payload, step) in packets {
            now += Micros::from(step) * 4;
            let ssrc = [VIDEO, RTX, AUDIO, 7][ssrc as usize];
            publisher.take(&packet(kind, ssrc, sequence, mid.as_deref(), &payload), now);
            let mut turns = 0;
            while publisher.due().is_some_and(|due| due <= now) {
                told(&mut publisher, now);
                turns += 1;
                prop_assert!(turns < 10, "it never ends");
            }
        }
    }
}
