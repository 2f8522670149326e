//! A viewer over whole watches: what it is sent must be what a decoder can take.

mod common;

use std::collections::HashSet;

use common::{FRAME, Sent, Watch, check, target};
use leaf_core::output::Output;
use leaf_core::picture::{Begun, Mode};
use leaf_core::ring::{Arrival, Inserted, Kind};
use leaf_core::viewer::{Event, Report};
use leaf_wire::header::Playout;
use proptest::prelude::*;

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
fn pictures_are_to_be_shown_at_once_after_a_change_but_not_for_long() {
    let mut watch = Watch::new(50);
    watch.pass(30, |_, _| true);
    watch.start();
    watch.pass(60, |_, _| true);
    let said = |watch: &mut Watch| {
        let mut said: Vec<_> = watch.wire.sent.drain(..).map(|sent| sent.playout).collect();
        said.dedup();
        said
    };
    let whole = [Some(Playout::AtOnce), Some(Playout::Free), None];
    assert_eq!(said(&mut watch), whole);
    watch.change(&[2]);
    watch.pass(60, |_, _| true);
    assert_eq!(said(&mut watch), whole);
    let now = watch.now;
    watch.viewer.refresh(&watch.streams, now, &mut watch.wire);
    watch.pass(60, |_, _| true);
    assert_eq!(said(&mut watch), [None], "the same picture once more");
    watch.change(&[1]);
    watch.pass(60, |_, _| true);
    said(&mut watch);
    watch.change(&[3]);
    watch.pass(60, |_, _| true);
    assert_eq!(said(&mut watch), [None], "another rendition");
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
                let arrival = Arrival { ssrc: 1, sequence, timestamp, marker, payload_type: 96, payload: &payload };
                watch.streams.insert(1, &arrival, watch.now);
            }
            watch.now += FRAME;
            watch.viewer.flush(1, &watch.streams, watch.now, &mut watch.wire);
            watch.viewer.tick(&watch.streams, watch.now, &mut watch.wire);
        }
        for (sequence, timestamp, marker, payload) in held {
            let arrival = Arrival { ssrc: 1, sequence, timestamp, marker, payload_type: 96, payload: &payload };
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
