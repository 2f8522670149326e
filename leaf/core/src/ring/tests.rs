use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const IDR: [u8; 3] = [0x65, 1, 2];
const SLICE: [u8; 3] = [0x41, 1, 2];
const SPS: [u8; 4] = [0x67, 0x42, 0xe0, 0x1f];

fn packet(sequence: u16, timestamp: u32, payload: &[u8]) -> Arrival<'_> {
    Arrival {
        ssrc: 7,
        sequence,
        timestamp,
        marker: true,
        payload_type: 96,
        payload,
    }
}

#[test]
fn a_key_frame_begins_with_its_parameter_sets() {
    let mut ring = Ring::new(Kind::Video, 1 << 20);
    ring.insert(&packet(9, 1000, &SLICE), 0);
    ring.insert(&packet(10, 4600, &SPS), 1);
    assert_eq!(ring.key(), None);
    assert_eq!(ring.key_frame_bytes(), 0);
    ring.insert(&packet(11, 4600, &IDR), 2);
    ring.insert(&packet(12, 4600, &IDR), 3);
    assert_eq!(ring.key().unwrap().index, CYCLE + 10);
    assert_eq!(ring.key_frame_bytes(), SPS.len() + 2 * IDR.len());
    ring.insert(&packet(13, 8200, &SLICE), 4);
    assert_eq!(ring.key_frame_bytes(), SPS.len() + 2 * IDR.len());
}

#[test]
fn parameter_sets_that_come_late_do_not_hide_the_key_frame() {
    let mut ring = Ring::new(Kind::Video, 1 << 20);
    ring.insert(&packet(9, 1000, &SLICE), 0);
    ring.insert(&packet(11, 4600, &IDR), 2);
    ring.insert(&packet(12, 4600, &IDR), 4);
    assert_eq!(ring.key(), None, "who knows what packet 10 is");
    assert_eq!(
        ring.insert(&packet(10, 4600, &SPS), 3),
        Inserted::Late(CYCLE + 10)
    );
    assert_eq!(ring.key().unwrap().index, CYCLE + 10);
}

#[test]
fn it_grows_with_the_pictures_and_gives_up_at_the_limit() {
    let mut ring = Ring::new(Kind::Video, 512 * SLOT);
    ring.insert(&packet(0, 0, &IDR), 0);
    for n in 1..512_u16 {
        ring.insert(&packet(n, u32::from(n) * 3600, &SLICE), 0);
    }
    assert_eq!(ring.key().unwrap().index, CYCLE);
    assert!(!ring.take_overflow());
    ring.insert(&packet(512, 512 * 3600, &SLICE), 0);
    assert_eq!(ring.key(), None);
    assert!(ring.take_overflow());
    assert!(!ring.take_overflow());
    ring.insert(&packet(513, 513 * 3600, &IDR), 0);
    assert_eq!(ring.key().unwrap().index, CYCLE + 513);
}

/// Packets of a source that is another one, or has jumped in numbers or in time.
fn elsewhere(sequence: u16) -> [Arrival<'static>; 3] {
    let here = packet(sequence, 0, &SPS);
    [
        Arrival { ssrc: 8, ..here },
        Arrival {
            sequence: sequence.wrapping_add(9000),
            ..here
        },
        Arrival {
            timestamp: 40 * 90_000,
            ..here
        },
    ]
}

#[test]
fn another_source_or_a_jump_begins_anew_with_its_first_packet() {
    for first in elsewhere(7) {
        let mut ring = Ring::new(Kind::Video, 1 << 20);
        ring.insert(&packet(5, 0, &IDR), 0);
        let before = ring.generation();
        assert_eq!(ring.insert(&first, 1), Inserted::Stranger);
        assert_eq!(ring.key().unwrap().index, CYCLE + 5, "nothing is lost yet");
        let second = Arrival {
            sequence: first.sequence.wrapping_add(1),
            payload: &IDR,
            ..first
        };
        assert_eq!(ring.insert(&second, 2), Inserted::Restarted);
        assert_ne!(ring.generation(), before);
        let key = ring.key().unwrap();
        assert_eq!(key.index, CYCLE + u64::from(first.sequence));
        assert_eq!(ring.end(), key.index + 2);
        assert_eq!(ring.get(key.index).unwrap().arrived, 1);
    }
}

#[test]
fn stray_packets_change_nothing() {
    let mut ring = Ring::new(Kind::Video, 1 << 20);
    ring.insert(&packet(5, 0, &IDR), 0);
    for n in 0..100_u16 {
        for mut stray in elsewhere(6 + n) {
            stray.ssrc = stray.ssrc.wrapping_add(u32::from(n) << 8);
            stray.sequence = stray.sequence.wrapping_mul(n | 1);
            ring.insert(&stray, 0);
        }
        let next = packet(6 + n, u32::from(n) * 3600, &SLICE);
        assert_eq!(ring.insert(&next, 0), Inserted::Newest { lost: 0 });
    }
    assert_eq!(
        (ring.key().unwrap().index, ring.end()),
        (CYCLE + 5, CYCLE + 106)
    );
}

#[test]
fn broken_key_frames_do_not_hide_a_whole_one() {
    let mut ring = Ring::new(Kind::Video, 1 << 20);
    ring.insert(&packet(5, 0, &IDR), 0);
    for n in 1..=2 * MAX_KEYS as u16 {
        ring.insert(&packet(5 + 2 * n, u32::from(n) * 3600, &IDR), 0);
        assert_eq!(ring.key().unwrap().index, CYCLE + 5);
    }
    ring.insert(&packet(6 + 4 * MAX_KEYS as u16, 33 * 3600, &IDR), 0);
    assert_eq!(ring.key().unwrap().index, CYCLE + 6 + 4 * MAX_KEYS as u64);
}

#[test]
fn what_is_too_long_or_empty_is_refused() {
    let mut ring = Ring::new(Kind::Video, 1 << 20);
    assert_eq!(
        ring.insert(&packet(5, 0, &[0x41; MAX_PAYLOAD + 1]), 0),
        Inserted::Refused
    );
    assert_eq!(ring.insert(&packet(5, 0, &[]), 0), Inserted::Refused);
    assert_eq!(ring.end(), 0);
}

proptest! {
    /// Whatever comes in whatever order: the ring is what a map of everything would say.
    #[test]
    fn it_agrees_with_a_map(
        start in any::<u16>(),
        steps in prop::collection::vec((-40_i16..60, prop::bool::weighted(0.03)), 1..400),
    ) {
        let mut ring = Ring::new(Kind::Video, 4096 * SLOT);
        let mut all: BTreeMap<u64, [u8; 3]> = BTreeMap::new();
        let mut at = CYCLE + u64::from(start);
        for (number, (step, key)) in steps.iter().enumerate() {
            if number > 0 {
                at = at.saturating_add_signed(i64::from(*step));
            }
            let mark = number as u8;
            let payload = if *key { [0x65, mark, 0] } else { [0x41, mark, 0] };
            let stamp = (at as u32).wrapping_mul(3600);
            match ring.insert(&packet(at as u16, stamp, &payload), number as u64) {
                Inserted::Newest { .. } | Inserted::Late(_) => {
                    prop_assert!(all.insert(at, payload).is_none());
                }
                Inserted::Duplicate => prop_assert!(all.contains_key(&at)),
                Inserted::Refused => prop_assert!(at < ring.oldest()),
                Inserted::Restarted | Inserted::Stranger => {
                    prop_assert!(false, "no jump was that far");
                }
            }
            prop_assert_eq!(ring.end(), *all.keys().last().unwrap() + 1);
        }
        for index in ring.oldest()..ring.end() {
            let found = ring.get(index).map(|packet| packet.payload.to_vec());
            prop_assert_eq!(found, all.get(&index).map(|payload| payload.to_vec()));
        }
        let first = CYCLE + u64::from(start);
        let whole = |index: u64| index == first || all.contains_key(&(index - 1));
        let keys = all.iter().filter(|(index, payload)| payload[0] == 0x65 && whole(**index));
        let newest = keys.map(|(index, _)| *index).max().filter(|key| *key >= ring.oldest());
        if let Some(found) = ring.key().map(|key| key.index) {
            prop_assert!(all[&found][0] == 0x65 && whole(found));
            prop_assert!(newest.is_none_or(|newest| found <= newest));
        } else {
            prop_assert_eq!(newest, None);
        }
    }
}
