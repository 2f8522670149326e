//! The sound that goes with a picture.

mod common;

use common::{PICTURE, SOUND, picture_and_sound};
use leaf_core::output::{Outgoing, Output, Sink};
use leaf_core::ring::Arrival;
use leaf_core::streams::Streams;

#[derive(Default)]
struct Wire(Vec<(Output, u64)>);

impl Sink for Wire {
    fn send(&mut self, packet: Outgoing<'_>) {
        self.0.push((packet.output, packet.sequence));
    }
}

fn insert(streams: &mut Streams, stream: u64, number: u16, now: u64) {
    let key = [0x65, 1];
    let arrival = Arrival {
        ssrc: stream as u32,
        sequence: number,
        timestamp: u32::from(number) * if stream == SOUND { 960 } else { 3600 },
        marker: true,
        payload_type: 96,
        payload: if stream == SOUND { &[1; 80] } else { &key },
    };
    streams.insert(stream, &arrival, now);
}

#[test]
fn it_goes_with_the_picture_once_it_has_begun() {
    let (mut streams, mut viewer) = picture_and_sound(true);
    let mut wire = Wire::default();
    let mut now = 1_000_000;
    for number in 0..3 {
        insert(&mut streams, PICTURE, number, now);
        insert(&mut streams, SOUND, number, now);
        now += 20_000;
    }
    viewer.start(&streams, now, &mut wire);
    viewer.flush(PICTURE, &streams, now, &mut wire);
    let kinds = |wire: &mut Wire| -> Vec<Output> { wire.0.drain(..).map(|it| it.0).collect() };
    assert!(
        !kinds(&mut wire).contains(&Output::Audio),
        "its own turn begins it"
    );
    insert(&mut streams, SOUND, 3, now);
    viewer.flush(SOUND, &streams, now, &mut wire);
    assert_eq!(kinds(&mut wire), [Output::Audio]);
    now += 20_000;
    insert(&mut streams, SOUND, 4, now);
    insert(&mut streams, PICTURE, 3, now);
    viewer.flush(PICTURE, &streams, now, &mut wire);
    assert_eq!(kinds(&mut wire), [Output::Audio, Output::Video]);
    viewer.flush(SOUND, &streams, now, &mut wire);
    assert_eq!(kinds(&mut wire), [], "at its own turn nothing is left");
}
