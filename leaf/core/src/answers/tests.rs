use proptest::prelude::*;

use super::*;
use crate::ring::{Arrival, Kind};

const SSRC: u32 = 7;

fn child(n: u16) -> SocketAddr {
    SocketAddr::new("10.98.0.3".parse().unwrap(), 21_000 + n)
}

fn answers() -> Answers {
    Answers::new(vec!["10.98.0.0/24".parse().unwrap()])
}

fn insert(streams: &mut Streams, sequence: u16, now: Micros) {
    let arrival = Arrival {
        ssrc: SSRC,
        sequence,
        timestamp: u32::from(sequence) * 3600,
        marker: sequence.is_multiple_of(2),
        payload_type: 96,
        payload: &[0x41, sequence as u8],
    };
    streams.insert(1, &arrival, now);
}

fn streams(sequences: impl Iterator<Item = u16>) -> Streams {
    let mut streams = Streams::default();
    streams.add(1, Kind::Video, 9, 90_000, 1000, 1 << 20);
    sequences.for_each(|sequence| insert(&mut streams, sequence, 0));
    streams
}

fn nack(ssrc: u32, lost: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::new();
    rtcp::nack(1, ssrc, lost, &mut bytes);
    bytes
}

/// To whom which packets go.
fn taken(
    answers: &mut Answers,
    from: SocketAddr,
    bytes: &[u8],
    streams: &Streams,
    now: Micros,
) -> Vec<(SocketAddr, u16)> {
    let mut sent = vec![];
    answers.take(from, bytes, streams, now, |it| {
        assert_eq!(it.ssrc, SSRC);
        assert_eq!(it.packet.payload_type, 96);
        assert_eq!(it.packet.payload, &[0x41, it.packet.index as u8]);
        sent.push((it.to, it.packet.index as u16));
    });
    sent
}

#[test]
fn who_asks_gets_what_is_there() {
    let (mut answers, streams) = (answers(), streams(100..120));
    let sent = taken(
        &mut answers,
        child(0),
        &nack(SSRC, &[103, 119]),
        &streams,
        5,
    );
    assert_eq!(sent, [(child(0), 103), (child(0), 119)]);
    // Neither of another stream nor of long ago.
    assert!(taken(&mut answers, child(0), &nack(8, &[103]), &streams, 5).is_empty());
    assert!(taken(&mut answers, child(0), &nack(SSRC, &[50]), &streams, 5).is_empty());
    let counters = answers.counters();
    assert_eq!((counters.asked, counters.sent, counters.unknown), (3, 2, 2));
}

#[test]
fn strangers_get_nothing() {
    let (mut answers, streams) = (answers(), streams(100..120));
    let stranger = "192.0.2.1:5004".parse().unwrap();
    assert!(taken(&mut answers, stranger, &nack(SSRC, &[103]), &streams, 5).is_empty());
    assert_eq!(answers.counters().strangers, 1);
    assert_eq!(answers.counters().asked, 0);
}

#[test]
fn what_is_missing_here_goes_to_all_who_asked_when_it_comes() {
    let (mut answers, mut streams) = (answers(), streams((100..120).filter(|n| *n != 110)));
    for n in [0, 1, 1] {
        assert!(
            taken(
                &mut answers,
                child(n),
                &nack(SSRC, &[110, 121]),
                &streams,
                5
            )
            .is_empty()
        );
    }
    insert(&mut streams, 110, 9);
    let index = streams.get(1).unwrap().ring.index_of(110).unwrap();
    let mut sent = vec![];
    answers.came(1, index, &streams, 9, |it| {
        sent.push((it.to, it.packet.index as u16))
    });
    sent.sort();
    assert_eq!(sent, [(child(0), 110), (child(1), 110)]);
    // One that is ahead of us, as well; but not after long.
    answers.keep_house(5 + PATIENCE);
    insert(&mut streams, 121, 10);
    answers.came(1, index + 11, &streams, 10, |_| {
        panic!("nobody waits any more")
    });
}

#[test]
fn of_a_source_that_began_anew_nothing_is_sent() {
    let (mut answers, mut streams) = (answers(), streams((100..120).filter(|n| *n != 110)));
    taken(&mut answers, child(0), &nack(SSRC, &[110]), &streams, 5);
    let index = streams.get(1).unwrap().ring.index_of(110).unwrap();
    for sequence in 20_109..20_111 {
        insert(&mut streams, sequence, 6);
    }
    assert_eq!(streams.get(1).unwrap().counters.restarts, 1);
    answers.came(1, index, &streams, 7, |_| panic!("another source's"));
}

#[test]
fn an_asker_gets_no_more_than_the_stream_has() {
    let mut streams = Streams::default();
    streams.add(1, Kind::Video, 9, 90_000, 1000, 1 << 20);
    for sequence in 0..500 {
        let arrival = Arrival {
            ssrc: SSRC,
            sequence,
            timestamp: 0,
            marker: false,
            payload_type: 96,
            payload: &[0x41; 1200],
        };
        streams.insert(1, &arrival, 0);
    }
    let (mut answers, mut bytes) = (answers(), 0);
    for step in 0..1_000_u64 {
        let lost: Vec<u16> = (0..100).map(|n| 390 + n + (step % 10) as u16).collect();
        answers.take(
            child(0),
            &nack(SSRC, &lost),
            &streams,
            step * 10_000,
            |it| {
                bytes += it.packet.payload.len();
            },
        );
    }
    let kbps = bytes * 8 / 10_000;
    assert!((900..1_100).contains(&kbps), "{kbps}");
}

proptest! {
    #[test]
    fn any_bytes_are_answered_or_not(
        datagrams in prop::collection::vec((any::<u16>(), any::<Vec<u8>>()), 0..20),
    ) {
        let (mut answers, streams) = (answers(), streams(65_000..65_100));
        for (port, bytes) in datagrams {
            taken(&mut answers, child(port % 40_000), &bytes, &streams, 5);
        }
        prop_assert_eq!(answers.counters().strangers, 0);
    }

    #[test]
    fn a_damaged_question_costs_no_more_than_a_whole_one(
        lost: Vec<u16>, at: prop::sample::Index, value: u8, cut: prop::sample::Index,
    ) {
        let (mut answers, streams) = (answers(), streams((0..200).filter(|n| n % 3 > 0)));
        let mut bytes = nack(SSRC, &lost);
        let place = at.index(bytes.len());
        bytes[place] = value;
        bytes.truncate(cut.index(bytes.len() + 1));
        let sent = taken(&mut answers, child(0), &bytes, &streams, 5);
        prop_assert!(sent.len() <= MAX_ASKED);
        prop_assert!(answers.waiting.len() <= MAX_WAITING);
        prop_assert!(answers.askers.len() <= 1);
    }
}
