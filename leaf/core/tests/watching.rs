//! A viewer over whole watches: what it is sent must be what a decoder can take.

use std::collections::HashSet;

use leaf_core::Micros;
use leaf_core::cursor::StreamId;
use leaf_core::ladder::Rung;
use leaf_core::output::{Outgoing, Output, Sink};
use leaf_core::picture::{Begun, Mode};
use leaf_core::ring::{Arrival, Inserted, Kind};
use leaf_core::streams::Streams;
use leaf_core::viewer::{Adoption, Agreed, Event, Report, Target, Viewer};
use proptest::prelude::*;

const FRAME: Micros = 40_000;

/// A packet that was sent: number, timestamp, and what the source wrote into it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    output: Output,
    sequence: u64,
    timestamp: u32,
    marker: bool,
    original: Option<u16>,
    at: Micros,
    stream: u8,
    frame: u32,
    part: u8,
    key: bool,
}

#[derive(Default)]
struct Wire {
    now: Micros,
    sent: Vec<Sent>,
}

impl Sink for Wire {
    fn send(&mut self, packet: Outgoing<'_>) {
        let mark = &packet.payload[packet.payload.len() - 6..];
        self.sent.push(Sent {
            output: packet.output,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            marker: packet.marker,
            original: packet.original,
            at: self.now,
            stream: mark[0],
            frame: u32::from_be_bytes(mark[1..5].try_into().unwrap()),
            part: mark[5],
            key: packet.payload[0] == 0x65,
        });
    }
}

impl Wire {
    fn video(&self) -> Vec<&Sent> {
        self.sent
            .iter()
            .filter(|sent| sent.output == Output::Video)
            .collect()
    }
}

/// An encoder: 25 frames a second of some packets, a key frame every `gop` frames.
struct Source {
    stream: StreamId,
    gop: u32,
    parts: u8,
    sequence: u16,
    frame: u32,
}

impl Source {
    fn new(stream: StreamId, gop: u32, parts: u8) -> Self {
        Self {
            stream,
            gop,
            parts,
            sequence: 65_000_u16.wrapping_add(stream as u16),
            frame: 0,
        }
    }

    /// The packets of the next frame: sequence number, timestamp, marker, payload.
    fn frame(&mut self) -> Vec<(u16, u32, bool, Vec<u8>)> {
        let key = self.frame.is_multiple_of(self.gop);
        let packets = (0..self.parts).map(|part| {
            let mut payload = vec![if key { 0x65 } else { 0x41 }; 1000];
            payload.push(self.stream as u8);
            payload.extend(self.frame.to_be_bytes());
            payload.push(part);
            let sequence = self.sequence.wrapping_add(u16::from(part));
            (sequence, self.frame * 3600, part + 1 == self.parts, payload)
        });
        let packets = packets.collect();
        self.sequence = self.sequence.wrapping_add(u16::from(self.parts));
        self.frame += 1;
        packets
    }
}

struct Watch {
    streams: Streams,
    sources: Vec<Source>,
    viewer: Viewer,
    wire: Wire,
    now: Micros,
}

fn target(streams: &[StreamId], start: usize) -> Target {
    let rungs = streams.iter().enumerate();
    let ladder = rungs
        .map(|(n, stream)| Rung {
            stream: *stream,
            kbps: 2000 >> n,
        })
        .collect();
    Target {
        ladder,
        start,
        pinned: true,
        sound: None,
    }
}

impl Watch {
    /// Streams 1 and 2 are two channels, 3 is a lower rendition of 1.
    fn new(gop: u32) -> Self {
        let mut streams = Streams::default();
        for (stream, group) in [(1, 1), (2, 2), (3, 1)] {
            streams.add(stream, Kind::Video, group, 90_000, 1000, 8 << 20);
        }
        let agreed = Agreed {
            video: Some(true),
            audio: false,
            seeds: [u32::MAX - 9, 2, 77_777],
        };
        Self {
            streams,
            sources: vec![
                Source::new(1, gop, 5),
                Source::new(2, gop, 4),
                Source::new(3, gop, 2),
            ],
            viewer: Viewer::new(agreed, target(&[1, 3], 0), 0),
            wire: Wire::default(),
            now: 1_000_000,
        }
    }

    fn start(&mut self) {
        self.wire.now = self.now;
        self.viewer.start(&self.streams, self.now, &mut self.wire);
    }

    fn change(&mut self, streams: &[StreamId]) -> Option<Begun> {
        self.wire.now = self.now;
        let target = target(streams, 0);
        self.viewer
            .change(target, &self.streams, self.now, &mut self.wire)
            .unwrap()
    }

    /// Let time pass, with `deliver` deciding which packets arrive.
    fn pass(&mut self, frames: u32, mut deliver: impl FnMut(StreamId, u16) -> bool) {
        for _ in 0..frames {
            for source in &mut self.sources {
                for (sequence, timestamp, marker, payload) in source.frame() {
                    if !deliver(source.stream, sequence) {
                        continue;
                    }
                    let ssrc = source.stream as u32;
                    let arrival = Arrival {
                        ssrc,
                        sequence,
                        timestamp,
                        marker,
                        payload: &payload,
                    };
                    self.streams.insert(source.stream, &arrival, self.now);
                }
            }
            for stream in self.viewer.streams().collect::<Vec<_>>() {
                self.wire.now = self.now;
                self.viewer
                    .flush(stream, &self.streams, self.now, &mut self.wire);
            }
            let until = self.now + FRAME;
            while let Some(due) = self.viewer.due().filter(|due| *due < until) {
                self.wire.now = due.max(self.now);
                self.viewer
                    .tick(&self.streams, self.wire.now, &mut self.wire);
                self.viewer.sender_reports(self.wire.now);
            }
            self.now = until;
        }
    }
}

/// What a receiver relies on, whatever happened.
fn check(sent: &[&Sent], losses: bool) {
    let mut numbers = HashSet::new();
    for packet in sent {
        assert!(
            numbers.insert(packet.sequence),
            "number {} twice",
            packet.sequence
        );
    }
    let mut ordered = sent.to_vec();
    ordered.sort_by_key(|packet| packet.sequence);
    assert!(
        ordered.first().is_none_or(|first| first.key),
        "begins without a key frame"
    );
    for pair in ordered.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        // A picture that was lost is sent once more, as a picture of its own.
        let same_frame = (before.stream, before.frame) == (after.stream, after.frame)
            && before.part < after.part;
        let step = after.timestamp.wrapping_sub(before.timestamp) as i32;
        assert!(
            if same_frame { step == 0 } else { step > 0 },
            "{before:?} {after:?}"
        );
        if before.stream != after.stream {
            assert!(
                after.key && after.part == 0,
                "a change in mid-picture: {before:?} {after:?}"
            );
        } else if !losses && !same_frame && !after.key {
            assert_eq!(after.frame, before.frame + 1, "a frame is missing");
        }
    }
}

#[test]
fn a_change_plays_from_the_key_frame_to_the_head() {
    let mut watch = Watch::new(50);
    watch.pass(30, |_, _| true);
    watch.start();
    watch.pass(40, |_, _| true);
    let before = watch.wire.sent.len();
    let asked = watch.now;
    let begun = watch.change(&[2]);
    assert!(
        matches!(begun, Some(Begun::At { behind: 80, .. })),
        "{begun:?}"
    );
    assert_eq!(
        watch.wire.sent[before].at, asked,
        "the key frame goes at once"
    );
    watch.pass(20, |_, _| true);
    check(&watch.wire.video(), false);
    let head = watch.wire.sent[before..]
        .iter()
        .find(|sent| sent.frame == 69)
        .unwrap();
    // 80 packets of 1,006 bytes at 12 Mbit/s
    assert!(head.at - asked < 60_000, "{}", head.at - asked);
    assert_eq!(watch.viewer.picture().unwrap().mode, Mode::Live);
    assert_eq!(
        watch.viewer.take_events(),
        [Event::Shown(1), Event::Shown(2)]
    );
}

#[test]
fn timestamps_keep_to_one_line_over_a_hundred_changes() {
    let mut watch = Watch::new(50);
    watch.pass(30, |_, _| true);
    watch.start();
    watch.pass(50, |_, _| true);
    let line = |watch: &Watch| {
        let last = watch.wire.sent.last().unwrap();
        last.timestamp.wrapping_sub((last.at * 9 / 100) as u32) as i32
    };
    let at_first = line(&watch);
    for number in 0..100 {
        watch.change(if number % 2 == 0 { &[2] } else { &[1, 3] });
        watch.pass(13, |_, _| true);
    }
    watch.pass(50, |_, _| true);
    check(&watch.wire.video(), false);
    let drift = line(&watch) - at_first;
    assert!(drift.abs() <= 90, "{drift} ticks");
}

#[test]
fn a_rendition_takes_over_at_its_key_frame() {
    let mut watch = Watch::new(25);
    watch.pass(30, |_, _| true);
    watch.start();
    watch.pass(30, |_, _| true);
    assert_eq!(watch.change(&[3]), None);
    watch.pass(40, |_, _| true);
    let sent = watch.wire.video();
    check(&sent, false);
    let at = sent.iter().position(|packet| packet.stream == 3).unwrap();
    let step = sent[at].frame - sent[at - 1].frame;
    assert!(
        step <= 1,
        "{step}: no frame is missing, one may come in both renditions"
    );
    assert!(sent[at..].iter().all(|packet| packet.stream == 3));
}

#[test]
fn without_a_key_frame_it_waits_and_says_so() {
    let mut watch = Watch::new(50);
    watch.pass(30, |_, _| true);
    watch.start();
    watch.streams.add(4, Kind::Video, 4, 90_000, 1000, 8 << 20);
    watch.pass(10, |_, _| true);
    assert_eq!(watch.change(&[4]), Some(Begun::NoKeyFrame));
    assert_eq!(watch.change(&[9]), Some(Begun::NoStream));
    watch.pass(10, |_, _| true);
    let events = watch.viewer.take_events();
    assert_eq!(
        events,
        [Event::Shown(1), Event::Waiting(4), Event::Wanted(9)]
    );
    let frames = watch.wire.video().last().unwrap().frame;
    assert_eq!(frames, 39, "nothing of the old picture after the change");
}

#[test]
fn a_source_that_begins_anew_is_followed() {
    let mut watch = Watch::new(10);
    watch.pass(15, |_, _| true);
    watch.start();
    watch.pass(15, |_, _| true);
    watch.sources[0].sequence = watch.sources[0].sequence.wrapping_add(20_000);
    watch.pass(30, |_, _| true);
    let sent = watch.wire.video();
    check(&sent, true);
    assert_eq!(sent.last().unwrap().frame, 59);
}

#[test]
fn what_is_asked_for_comes_on_a_stream_of_its_own() {
    let mut watch = Watch::new(25);
    watch.pass(30, |_, _| true);
    watch.start();
    watch.pass(10, |_, _| true);
    let lost: Vec<Sent> = watch.wire.video()[7..10]
        .iter()
        .map(|sent| (*sent).clone())
        .collect();
    let asked = lost.iter().map(|sent| sent.sequence as u16);
    let before = watch.wire.sent.len();
    watch
        .viewer
        .nack(asked, &watch.streams, watch.now, &mut watch.wire);
    let again = &watch.wire.sent[before..];
    assert_eq!(again.len(), 3);
    for (again, lost) in again.iter().zip(&lost) {
        assert_eq!(again.output, Output::Rtx);
        assert_eq!(again.original, Some(lost.sequence as u16));
        assert_eq!(
            (again.timestamp, again.frame, again.part, again.marker),
            (lost.timestamp, lost.frame, lost.part, lost.marker)
        );
    }
    assert_eq!(watch.viewer.statistics().retransmitted, 3);
}

#[test]
fn a_lost_picture_begins_again_at_the_key_frame_but_not_all_the_time() {
    let mut watch = Watch::new(50);
    watch.pass(60, |_, _| true);
    watch.start();
    watch.pass(25, |_, _| true);
    let before = watch.wire.sent.len();
    for _ in 0..20 {
        watch
            .viewer
            .refresh(&watch.streams, watch.now, &mut watch.wire);
        watch.pass(1, |_, _| true);
    }
    watch.pass(5, |_, _| true);
    check(&watch.wire.video(), true);
    let keys = watch.wire.sent[before..]
        .iter()
        .filter(|sent| sent.key && sent.part == 0)
        .count();
    assert!((2..=3).contains(&keys), "{keys}");
}

#[test]
fn more_than_ten_changes_a_second_are_refused() {
    let mut watch = Watch::new(50);
    watch.pass(30, |_, _| true);
    watch.start();
    let mut done = 0;
    for number in 0..200 {
        let wanted = target(if number % 2 == 0 { &[2] } else { &[1] }, 0);
        let now = watch.now + number * 10_000;
        done += u32::from(
            watch
                .viewer
                .change(wanted, &watch.streams, now, &mut watch.wire)
                .is_ok(),
        );
    }
    assert!((28..=31).contains(&done), "{done}");
}

#[test]
fn loss_slows_a_catch_up() {
    let took = |loss: f64| {
        let mut watch = Watch::new(100);
        watch.pass(90, |_, _| true);
        watch.start();
        watch.pass(1, |_, _| true);
        let report = Report {
            fraction: loss,
            lost: 9,
            jitter: 90,
            rtt: None,
        };
        watch.viewer.report(report, &watch.streams, watch.now);
        watch.pass(50, |_, _| true);
        let before = watch.wire.sent.len();
        let asked = watch.now;
        watch.change(&[2]);
        watch.pass(30, |_, _| true);
        let head = watch.wire.sent[before..]
            .iter()
            .find(|sent| sent.frame == 140)
            .unwrap();
        head.at - asked
    };
    assert!(took(0.3) > took(0.0) * 5 / 4, "{} {}", took(0.3), took(0.0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is lost, late and changed: never a number twice, never two pictures mixed.
    #[test]
    fn pictures_never_mix(
        gop in 5_u32..60,
        steps in prop::collection::vec((0_u8..6, 1_u32..30, any::<u64>()), 1..25),
        loss in prop::sample::select(vec![0.0, 0.02, 0.2]),
    ) {
        let mut watch = Watch::new(gop);
        watch.pass(gop + 3, |_, _| true);
        watch.start();
        let mut losses = loss > 0.0;
        for (what, frames, seed) in steps {
            match what {
                0 => drop(watch.change(&[1, 3])),
                1 => drop(watch.change(&[2])),
                2 => drop(watch.change(&[3])),
                3 => {
                    let now = watch.now;
                    watch.viewer.refresh(&watch.streams, now, &mut watch.wire);
                    losses = true; // frames are sent again, from the key frame on
                }
                4 => {
                    let asked = (0..10).map(|n| (seed >> n) as u16);
                    watch.viewer.nack(asked, &watch.streams, watch.now, &mut watch.wire);
                }
                _ => {}
            }
            let mut state = seed | 1;
            watch.pass(frames, |_, _| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 11) as f64 / (1_u64 << 53) as f64 >= loss
            });
            if watch.now > 8_000_000 { break; }
        }
        check(&watch.wire.video(), losses);
    }

    /// A packet that comes late is sent at the place that was kept for it.
    #[test]
    fn late_packets_fill_their_gaps(missing in prop::collection::btree_set(0_u16..200, 1..20)) {
        let mut watch = Watch::new(1000);
        watch.pass(3, |_, _| true);
        watch.start();
        let first = watch.sources[0].sequence;
        let mut held = vec![];
        for _ in 0..40 {
            let packets = watch.sources[0].frame();
            for (sequence, timestamp, marker, payload) in packets {
                if missing.contains(&sequence.wrapping_sub(first)) {
                    held.push((sequence, timestamp, marker, payload));
                    continue;
                }
                let arrival = Arrival { ssrc: 1, sequence, timestamp, marker, payload: &payload };
                watch.streams.insert(1, &arrival, watch.now);
            }
            watch.now += FRAME;
            watch.viewer.flush(1, &watch.streams, watch.now, &mut watch.wire);
            watch.viewer.tick(&watch.streams, watch.now, &mut watch.wire);
        }
        for (sequence, timestamp, marker, payload) in held {
            let arrival = Arrival { ssrc: 1, sequence, timestamp, marker, payload: &payload };
            match watch.streams.insert(1, &arrival, watch.now) {
                Some(Inserted::Late(index)) => {
                    watch.viewer.late(1, index, &watch.streams, &mut watch.wire);
                }
                other => prop_assert!(matches!(other, Some(Inserted::Newest { .. })), "{:?}", other),
            }
        }
        watch.viewer.flush(1, &watch.streams, watch.now, &mut watch.wire);
        let sent = watch.wire.video();
        check(&sent, false);
        let numbers: HashSet<u64> = sent.iter().map(|packet| packet.sequence).collect();
        let (low, high) = (numbers.iter().min().unwrap(), numbers.iter().max().unwrap());
        prop_assert_eq!((high - low + 1) as usize, numbers.len(), "no gap is left");
    }
}

/// The streams of a process that takes over: the same packets under other numbers.
fn elsewhere(watch: &Watch, from: u32) -> Streams {
    let mut streams = Streams::default();
    for (stream, group) in [(1, 1), (2, 2), (3, 1)] {
        streams.add(stream + 10, Kind::Video, group, 90_000, 1000, 8 << 20);
        let ring = &watch.streams.get(stream).unwrap().ring;
        for packet in (ring.oldest()..ring.end()).filter_map(|index| ring.get(index)) {
            if (packet.timestamp as u32) / 3600 < from {
                continue;
            }
            let arrival = Arrival {
                ssrc: stream as u32,
                sequence: packet.index as u16,
                timestamp: packet.timestamp as u32,
                marker: packet.marker,
                payload: packet.payload,
            };
            streams.insert(stream + 10, &arrival, packet.arrived);
        }
    }
    streams
}

#[test]
fn another_process_goes_on_without_a_gap() {
    let mut watch = Watch::new(50);
    watch.pass(30, |_, _| true);
    watch.start();
    watch.pass(10, |_, _| true);
    watch.change(&[2]);
    watch.pass(10, |_, _| true);
    let mut moved = watch.viewer.clone();
    let streams = elsewhere(&watch, 20);
    let before = watch.wire.sent.len();
    let rungs = vec![Rung {
        stream: 12,
        kbps: 1000,
    }];
    moved.adopt(
        Adoption {
            rungs,
            sound: None,
            clock: 0,
            jump: 0,
        },
        &streams,
        watch.now,
        &mut watch.wire,
    );
    assert_eq!(watch.wire.sent.len(), before, "nothing is sent twice");
    assert_eq!(moved.shown(), Some(12));
    let asked = watch.wire.video()[before - 1].clone();
    moved.nack(
        [asked.sequence as u16].into_iter(),
        &streams,
        watch.now,
        &mut watch.wire,
    );
    let again = watch.wire.sent.last().unwrap();
    assert_eq!(
        (again.frame, again.part),
        (asked.frame, asked.part),
        "what the other one sent"
    );
    watch.viewer = moved;
    watch.streams = streams;
    for source in &mut watch.sources {
        source.stream += 10;
    }
    watch.pass(20, |_, _| true);
    assert_eq!(watch.wire.video().last().unwrap().frame, 69);
    let mut sent = watch.wire.video().into_iter().cloned().collect::<Vec<_>>();
    for packet in &mut sent {
        packet.stream %= 10;
    }
    check(&sent.iter().collect::<Vec<_>>(), false);
}

#[test]
fn after_a_crash_numbers_are_left_out_and_it_begins_at_the_key_frame() {
    let mut watch = Watch::new(50);
    watch.pass(30, |_, _| true);
    watch.start();
    watch.pass(10, |_, _| true);
    let mut stale = watch.viewer.clone();
    watch.pass(5, |_, _| true);
    let last = watch.wire.video().last().unwrap().sequence;
    let streams = elsewhere(&watch, 0);
    let before = watch.wire.sent.len();
    let rungs = vec![Rung {
        stream: 11,
        kbps: 1000,
    }];
    stale.adopt(
        Adoption {
            rungs,
            sound: None,
            clock: 0,
            jump: 1000,
        },
        &streams,
        watch.now,
        &mut watch.wire,
    );
    let first = &watch.wire.sent[before];
    assert!(first.sequence > last && first.key, "{first:?}");
    check(&watch.wire.video(), true);
}
