//! What streams that misbehave and viewers that ask for too much may not bring about.

mod common;

use common::{FRAME, Watch, check};
use leaf_core::picture::{Begun, Mode};
use leaf_core::ring::{Arrival, Inserted, Kind};
use leaf_core::viewer::Event;

fn packet(ssrc: u32, sequence: u16, timestamp: u32, payload: &[u8]) -> Arrival<'_> {
    Arrival {
        ssrc,
        sequence,
        timestamp,
        marker: true,
        payload_type: 96,
        payload,
    }
}

/// What the viewer of the tests can read: kind, then stream, frame and part.
fn payload(key: bool, stream: u8, frame: u32) -> Vec<u8> {
    let mut payload = vec![if key { 0x65 } else { 0x41 }, 0, stream];
    payload.extend(frame.to_be_bytes());
    payload.push(0);
    payload
}

#[test]
fn a_stream_that_was_removed_and_added_again_is_begun_at_a_key_frame() {
    for wrapped in [false, true] {
        let mut watch = Watch::new(25);
        // Long enough for the sequence numbers to begin anew, or not.
        watch.sources[0].sequence = if wrapped { 65_000 } else { 3 };
        watch.pass(130, |_, _| true);
        watch.start();
        watch.pass(10, |_, _| true);
        watch.streams.remove(1);
        watch.pass(12, |_, _| true);
        let before = watch.wire.sent.len();
        watch.streams.add(1, Kind::Video, 1, 90_000, 1000, 8 << 20);
        watch.pass(40, |_, _| true);
        let after: Vec<_> = watch.wire.sent[before..].iter().collect();
        assert!(after.len() > 50, "{wrapped}: it is not followed");
        assert!(
            after[0].key && after[0].part == 0,
            "{wrapped}: {:?}",
            after[0]
        );
        check(&watch.wire.video(), true);
    }
}

/// A late packet of a stream that is waited for lies where something else was sent.
#[test]
fn a_late_packet_of_another_stream_takes_no_number_that_is_used() {
    let mut watch = Watch::new(50);
    watch.sources[0].sequence = 1000;
    watch.pass(30, |_, _| true);
    watch.start();
    watch.pass(10, |_, _| true);
    watch.streams.add(4, Kind::Video, 4, 90_000, 1000, 8 << 20);
    let sent = payload(false, 4, 0);
    for sequence in [1100, 1102] {
        watch
            .streams
            .insert(4, &packet(4, sequence, 0, &sent), watch.now);
    }
    assert_eq!(watch.change(&[4]), Some(Begun::NoKeyFrame));
    let before = watch.wire.sent.len();
    let late = watch
        .streams
        .insert(4, &packet(4, 1101, 0, &sent), watch.now);
    let Some(Inserted::Late(index)) = late else {
        panic!("{late:?}");
    };
    watch.viewer.late(4, index, &watch.streams, &mut watch.wire);
    assert_eq!(watch.wire.sent.len(), before);
}

#[test]
fn who_loses_the_picture_of_a_stream_without_a_key_frame_gets_the_next_one() {
    let mut watch = Watch::new(10_000);
    watch.streams.remove(1);
    watch
        .streams
        .add(1, Kind::Video, 1, 90_000, 1000, 200 * 1460);
    watch.pass(30, |_, _| true);
    watch.start();
    watch.pass(60, |_, _| true);
    assert!(
        watch.streams.get(1).unwrap().ring.key().is_none(),
        "it is too long"
    );
    watch
        .viewer
        .refresh(&watch.streams, watch.now, &mut watch.wire);
    assert_eq!(watch.viewer.picture().unwrap().mode, Mode::Waiting);
    watch.sources[0].gop = watch.sources[0].frame;
    let before = watch.wire.sent.len();
    watch.pass(5, |_, _| true);
    let after = &watch.wire.sent[before..];
    assert_eq!(after.len(), 25, "five pictures of five packets");
    assert!(after[0].key);
    assert_eq!(watch.viewer.picture().unwrap().mode, Mode::Live);
}

#[test]
fn who_asks_for_pictures_all_the_time_makes_no_noise() {
    let mut watch = Watch::new(50);
    watch.pass(30, |_, _| true);
    watch.start();
    let ask = |watch: &mut Watch| {
        let mut told = vec![];
        for millisecond in 0..1000 {
            let now = watch.now + millisecond * 1000;
            watch.viewer.refresh(&watch.streams, now, &mut watch.wire);
            told.extend(watch.viewer.take_events());
        }
        watch.now += 1_000_000;
        told
    };
    assert_eq!(
        ask(&mut watch),
        [Event::Shown(1)],
        "the same picture is no news"
    );
    watch.change(&[9]);
    let told = ask(&mut watch);
    assert!(told.len() <= 3, "{}", told.len());
    assert!(told.iter().all(|event| *event == Event::Wanted(9)));
    watch.change(&[1]);
    assert_eq!(watch.viewer.take_events(), [Event::Shown(1)]);
}

#[test]
fn a_storm_of_requests_is_looked_at_in_part() {
    let mut watch = Watch::new(50);
    watch.pass(30, |_, _| true);
    watch.start();
    watch.pass(20, |_, _| true);
    let before = watch.wire.sent.len();
    for _ in 0..100 {
        let all = (0..6000_u32).map(|n| n as u16);
        watch
            .viewer
            .nack(all, &watch.streams, watch.now, &mut watch.wire);
    }
    let bytes = (watch.wire.sent.len() - before) * 1006;
    assert!(bytes <= 64 * 1200, "{bytes}");
    assert!(watch.viewer.statistics().nacks <= 100 * 256);
}

#[test]
fn stray_packets_on_a_stream_disturb_nobody() {
    let mut watch = Watch::new(25);
    watch.pass(30, |_, _| true);
    watch.start();
    for n in 0..100_u32 {
        watch.pass(1, |_, _| true);
        let stray = payload(true, 1, n);
        let sequence = (n * 7919) as u16;
        let arrival = packet(1_000_000 + n, sequence, n, &stray);
        watch.streams.insert(1, &arrival, watch.now);
    }
    let sent = watch.wire.video();
    check(&sent, false);
    assert_eq!(sent.last().unwrap().frame, 129);
    assert_eq!(watch.streams.get(1).unwrap().counters.strangers, 100);
}

#[test]
fn how_far_behind_is_told_at_once_whatever_the_numbers_of_streams() {
    let mut watch = Watch::new(50);
    watch.pass(30, |_, _| true);
    watch.start();
    watch.pass(2, |_, _| true);
    watch.streams.add(4, Kind::Video, 4, 90_000, 1000, 1 << 20);
    let slice = payload(false, 4, 0);
    let mut number = 0_u32;
    // A stream that has been there for hours.
    while watch.streams.get(4).unwrap().ring.end() < 100_000_000 {
        number += 3000;
        let arrival = packet(4, number as u16, 0, &slice);
        watch.streams.insert(4, &arrival, watch.now);
    }
    assert_eq!(watch.change(&[4]), Some(Begun::NoKeyFrame));
    let began = std::time::Instant::now();
    for _ in 0..100 {
        let behind = watch.viewer.behind(&watch.streams, watch.now + FRAME);
        assert_eq!(behind, Some(FRAME));
    }
    assert!(began.elapsed().as_millis() < 500, "{:?}", began.elapsed());
}
