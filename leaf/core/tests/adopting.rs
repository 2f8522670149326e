//! A viewer that goes on in another process.

mod common;

use common::{Watch, check, target};
use leaf_core::ladder::Rung;
use leaf_core::ring::{Arrival, Kind};
use leaf_core::streams::Streams;
use leaf_core::viewer::Adoption;

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
                payload_type: packet.payload_type,
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

#[test]
fn a_change_of_rendition_under_way_goes_on() {
    let mut watch = Watch::new(50);
    // The numbers of the other rendition's packets lie where this one's next packet is.
    watch.sources[2].sequence = 65_191;
    watch.pass(30, |_, _| true);
    watch.start();
    watch.pass(30, |_, _| true);
    let lower = target(&[1, 3], 1);
    let begun = watch
        .viewer
        .change(lower, &watch.streams, watch.now, &mut watch.wire);
    assert_eq!(begun, Ok(None), "the higher one is sent until a key frame");
    let mut moved = watch.viewer.clone();
    let streams = elsewhere(&watch, 20);
    let rung = |stream| Rung { stream, kbps: 500 };
    let adoption = Adoption {
        rungs: vec![rung(11), rung(13)],
        sound: None,
        clock: 0,
        jump: 0,
    };
    moved.adopt(adoption, &streams, watch.now, &mut watch.wire);
    assert_eq!(moved.shown(), Some(11));
    (watch.viewer, watch.streams) = (moved, streams);
    for source in &mut watch.sources {
        source.stream += 10;
    }
    watch.pass(60, |_, _| true);
    assert_eq!(watch.viewer.shown(), Some(13));
    let mut sent = watch.wire.video().into_iter().cloned().collect::<Vec<_>>();
    for packet in &mut sent {
        packet.stream %= 10;
    }
    check(&sent.iter().collect::<Vec<_>>(), false);
}
