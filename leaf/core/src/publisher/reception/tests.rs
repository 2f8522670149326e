use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const NEXT: Place = Place::Next { given_up: 0 };

fn reception() -> Reception {
    Reception::new(90_000, Some(true))
}

fn block(reception: &mut Reception) -> (ReportBlock, Interval) {
    reception.report(7, 0).unwrap()
}

#[test]
fn losses_are_reported_for_the_interval_and_in_sum() {
    let mut reception = reception();
    for sequence in [65_533, 65_534, 1, 2, 3, 5, 4] {
        reception.take(sequence, 0, 0);
    }
    let (first, interval) = block(&mut reception);
    assert_eq!((first.cumulative_lost, first.fraction_lost), (2, 56));
    // The first round of the wire, and one more.
    assert_eq!(first.highest_sequence, (1 << 16) + 5);
    assert_eq!(
        interval,
        Interval {
            expected: 9,
            lost: 2
        }
    );
    reception.take(0, 0, 0);
    reception.take(6, 0, 0);
    let (second, _) = block(&mut reception);
    assert_eq!((second.cumulative_lost, second.fraction_lost), (1, 0));
    assert_eq!(reception.lost(), 1);
}

#[test]
fn a_packet_by_another_way_does_not_count_as_received() {
    let mut reception = reception();
    assert_eq!(reception.restore(5, 0), Place::Useless, "nothing came yet");
    reception.take(10, 0, 0);
    reception.take(12, 0, 0);
    assert!(matches!(reception.restore(11, 0), Place::Late(Some(_))));
    assert_eq!(reception.restore(11, 0), Place::Useless);
    assert_eq!(reception.take(11, 0, 0), Place::Useless);
    assert_eq!(
        reception.restore(13, 0),
        NEXT,
        "sent again before it was missed"
    );
    assert_eq!(reception.restore(13 + 257, 0), Place::Useless, "far ahead");
    assert_eq!(reception.lost(), 0);
    assert_eq!(block(&mut reception).0.cumulative_lost, 2);
}

#[test]
fn a_source_that_jumps_is_begun_anew_and_nothing_is_asked_for() {
    let mut reception = reception();
    reception.take(1, 0, 0);
    assert_eq!(reception.take(5_000, 0, 0), Place::Next { given_up: 1 });
    assert_eq!((reception.lost(), reception.due()), (0, None));
    assert_eq!(reception.take(5_000, 0, 0), Place::Useless);
    assert_eq!(reception.take(4_999, 0, 0), Place::Late(None));
    assert_eq!(reception.take(1, 0, 0), Place::Useless, "too old to tell");
    assert_eq!(reception.take(5_001, 0, 0), NEXT);
}

#[test]
fn nobody_waits_for_packets_of_a_medium_that_can_do_without() {
    let mut reception = Reception::new(48_000, None);
    reception.take(1, 0, 0);
    assert_eq!(reception.take(9, 0, 0), NEXT);
    assert_eq!(reception.due(), None);
    assert_eq!(reception.lost(), 7);
}

/// The algorithm of RFC 3550 appendix A.8, word by word, in ticks of a source of 90 kHz.
#[test]
fn jitter_is_that_of_the_rfc() {
    let mut reception = reception();
    let (mut jitter, mut transit) = (0_i64, None);
    for packet in 0..200_u32 {
        let now = u64::from(packet) * 40_000 + u64::from(packet * 7919 % 13) * 1_000;
        let timestamp = (u32::MAX - 90_000).wrapping_add(packet * 3_600);
        reception.take(packet as u16, timestamp, now);
        let arrival = i64::from((now * 9 / 100) as u32);
        let this = (arrival as u32).wrapping_sub(timestamp);
        if let Some(before) = transit.replace(this) {
            let change = i64::from((this.wrapping_sub(before) as i32).abs());
            jitter += change - ((jitter + 8) >> 4);
        }
    }
    assert_eq!(block(&mut reception).0.jitter, (jitter >> 4) as u32);
    assert!((200..1_000).contains(&(jitter >> 4)), "{jitter}");
    assert_eq!(
        reception.jitter(),
        (jitter >> 4) as u64 * 1_000_000 / 90_000
    );
}

#[test]
fn sender_reports_are_told_back() {
    let mut reception = reception();
    reception.take(1, 0, 0);
    assert_eq!(reception.report(7, 5).unwrap().0.last_sr, 0);
    let report = SenderReport {
        ssrc: 7,
        ntp: 0x1122_3344_5566_7788,
        rtp_timestamp: 0,
        packets: 1,
        octets: 1,
    };
    assert!(reception.take_report(&report, 1_000_000));
    let block = reception.report(7, 1_500_000).unwrap().0;
    assert_eq!(block.last_sr, 0x3344_5566);
    assert_eq!(block.delay_since_last_sr, 1 << 15);
}

#[test]
fn a_report_is_believed_if_its_timestamp_is_the_packets() {
    const START: u32 = u32::MAX - 45_000; // it wraps
    let mut reception = reception();
    let mut report = SenderReport {
        ssrc: 7,
        ntp: 0,
        rtp_timestamp: 12,
        packets: 0,
        octets: 0,
    };
    assert!(
        reception.take_report(&report, 0),
        "there is nothing to compare it with"
    );
    for packet in 0..100 {
        reception.take(
            packet,
            START.wrapping_add(u32::from(packet) * 3_600),
            u64::from(packet) * 40_000,
        );
    }
    let now = 3_960_000 + 500_000; // half a second after the newest
    let right = START.wrapping_add(99 * 3_600 + 45_000);
    for (off, believed) in [
        (0, true),
        (89_000, true),
        (-89_000, true),
        (91_000, false),
        (-91_000, false),
    ] {
        report.rtp_timestamp = right.wrapping_add_signed(off);
        assert_eq!(reception.take_report(&report, now), believed, "{off}");
    }
    // As GStreamer has it: twice as fast as time.
    report.rtp_timestamp = START.wrapping_add(2 * 99 * 3_600);
    assert!(!reception.take_report(&report, now));
}

proptest! {
    /// Against a set of all numbers, over the wrap: steps back and forth, none as far as the window.
    #[test]
    fn every_packet_counts_once(
        first: u16,
        steps in prop::collection::vec((-60i64..60, any::<bool>()), 1..400),
    ) {
        let mut reception = reception();
        let begin = i64::from(first) + (1 << 16);
        let (mut taken, mut restored) = (HashSet::new(), HashSet::new());
        let mut highest = begin;
        reception.take(first, 0, 0);
        taken.insert(begin);
        for (step, again) in steps {
            let number = highest + step;
            let known = taken.contains(&number) || restored.contains(&number);
            let place = if again {
                reception.restore(number as u16, 0)
            } else {
                reception.take(number as u16, 0, 0)
            };
            prop_assert_eq!(place == Place::Useless, known, "{}", number);
            if !known {
                (if again { &mut restored } else { &mut taken }).insert(number);
            }
            highest = highest.max(number);
        }
        let lowest = taken.union(&restored).min().unwrap();
        let expected = highest - lowest + 1;
        let (block, interval) = block(&mut reception);
        prop_assert_eq!(i64::from(block.cumulative_lost), expected - taken.len() as i64);
        prop_assert_eq!(interval.expected as i64, expected);
        prop_assert_eq!(
            reception.lost() as i64,
            expected - (taken.len() + restored.len()) as i64
        );
        prop_assert_eq!(block.highest_sequence, (highest - (1 << 16)) as u32);
    }

    #[test]
    fn any_numbers_and_times_are_taken(
        packets in prop::collection::vec((any::<u16>(), any::<u32>(), any::<bool>()), 0..300),
    ) {
        let (mut reception, mut now) = (reception(), 0);
        let mut ask = Vec::new();
        for (sequence, timestamp, again) in packets {
            now += u64::from(timestamp >> 14);
            if again {
                reception.restore(sequence, now);
            } else {
                reception.take(sequence, timestamp, now);
            }
            ask.clear();
            reception.ask(now, None, &mut ask);
            prop_assert!(ask.len() <= 128);
            reception.report(1, now);
        }
        prop_assert!(reception.lost() <= 1 << 32);
    }
}
