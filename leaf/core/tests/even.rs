//! A key frame that is made one message of packets of equal length.

mod common;

use common::{PICTURE, SOUND, picture_and_sound};
use leaf_core::output::{Outgoing, Output, Sink};
use leaf_core::ring::Arrival;
use leaf_core::streams::Streams;
use leaf_core::viewer::Viewer;

const FULL: usize = 1_100;

/// Lengths, those with padding, of what was sent on each RTP stream.
#[derive(Default)]
struct Wire(Vec<(Output, usize, usize)>);

impl Sink for Wire {
    fn send(&mut self, packet: Outgoing<'_>) {
        let length = packet.payload.len();
        self.0
            .push((packet.output, length, length + packet.padding));
    }
}

struct Watch {
    streams: Streams,
    viewer: Viewer,
    wire: Wire,
    now: u64,
    sequence: u16,
    frame: u32,
    sound: u16,
}

impl Watch {
    /// A viewer that is at the head, of whom nothing was noted yet.
    fn new(retransmissions: bool) -> Self {
        let (streams, viewer) = picture_and_sound(retransmissions);
        let mut watch = Self {
            streams,
            viewer,
            wire: Wire::default(),
            now: 1_000_000,
            sequence: 0,
            frame: 0,
            sound: 0,
        };
        watch.picture(&[30, FULL]);
        watch.hear();
        watch
            .viewer
            .start(&watch.streams, watch.now, &mut watch.wire);
        for _ in 0..10 {
            watch.now += 100_000;
            watch
                .viewer
                .tick(&watch.streams, watch.now, &mut watch.wire);
        }
        watch.picture_of(0x41, &[FULL]);
        watch.hear();
        for stream in [PICTURE, SOUND] {
            watch.flush(stream);
        }
        watch.wire.0.clear();
        watch
    }

    fn picture(&mut self, lengths: &[usize]) {
        self.picture_of(0x65, lengths);
    }

    fn picture_of(&mut self, first: u8, lengths: &[usize]) {
        for (n, length) in lengths.iter().enumerate() {
            let arrival = Arrival {
                ssrc: 1,
                sequence: self.sequence,
                timestamp: self.frame * 3600,
                marker: n + 1 == lengths.len(),
                payload_type: 96,
                payload: &vec![first; *length],
            };
            self.streams.insert(PICTURE, &arrival, self.now);
            self.sequence += 1;
        }
        self.frame += 1;
    }

    fn hear(&mut self) {
        let arrival = Arrival {
            ssrc: 2,
            sequence: self.sound,
            timestamp: u32::from(self.sound) * 960,
            marker: true,
            payload_type: 111,
            payload: &[1; 80],
        };
        self.streams.insert(SOUND, &arrival, self.now);
        self.sound += 1;
    }

    fn flush(&mut self, stream: u64) {
        self.now += 1_000;
        self.viewer
            .flush(stream, &self.streams, self.now, &mut self.wire);
    }
}

const KEY_FRAME: [usize; 8] = [30, FULL, FULL, FULL, FULL, FULL, FULL, 403];

#[test]
fn parameter_sets_are_as_long_as_what_follows() {
    let mut watch = Watch::new(true);
    watch.picture(&KEY_FRAME);
    watch.flush(PICTURE);
    let sent = KEY_FRAME.map(|length| (Output::Video, length, length.max(FULL)));
    assert_eq!(watch.wire.0[..7], sent[..7]);
    assert_eq!(
        watch.wire.0[7..],
        [(Output::Video, 403, 403)],
        "nothing follows"
    );
}

#[test]
fn so_is_the_end_where_sound_follows() {
    let mut watch = Watch::new(true);
    watch.hear();
    watch.picture(&KEY_FRAME);
    watch.flush(PICTURE);
    let sent = KEY_FRAME.map(|length| (Output::Video, length, FULL));
    assert_eq!(watch.wire.0[..8], sent);
    assert_eq!(watch.wire.0[8..], [(Output::Audio, 80, 80)]);
}

#[test]
fn what_is_sent_again_is_as_it_came() {
    let mut watch = Watch::new(true);
    watch.picture(&KEY_FRAME);
    watch.flush(PICTURE);
    watch.wire.0.clear();
    // The viewer's numbers begin at 1 + 1; three packets were sent before.
    let (streams, wire) = (&watch.streams, &mut watch.wire);
    watch
        .viewer
        .nack([5_u16].into_iter(), streams, watch.now, wire);
    assert_eq!(watch.wire.0, [(Output::Rtx, 30, 30)]);
}

#[test]
fn others_are_left_as_they_are() {
    let changed = |at: usize, length: usize| {
        let mut lengths = KEY_FRAME;
        lengths[at] = length;
        lengths.to_vec()
    };
    let frames = [
        KEY_FRAME[..7].to_vec(),
        changed(4, FULL - 1),
        changed(7, FULL + 1),
        changed(1, FULL + 1),
    ];
    for lengths in frames {
        let mut watch = Watch::new(true);
        watch.hear();
        watch.picture(&lengths);
        watch.flush(PICTURE);
        assert_eq!(watch.wire.0.len(), lengths.len() + 1);
        assert_eq!(watch.wire.0[0].0, Output::Audio, "sound is first");
        assert!(watch.wire.0.iter().all(|(_, length, sent)| length == sent));
    }
}

#[test]
fn nor_is_anything_added_for_who_gets_the_same_packets_again() {
    let mut watch = Watch::new(false);
    watch.picture(&KEY_FRAME);
    watch.flush(PICTURE);
    assert_eq!(watch.wire.0.len(), KEY_FRAME.len());
    assert!(watch.wire.0.iter().all(|(_, length, sent)| length == sent));
}

#[test]
fn a_key_frame_that_is_not_whole_yet_goes_as_it_comes() {
    let mut watch = Watch::new(true);
    for (n, length) in (0..).zip(KEY_FRAME) {
        let arrival = Arrival {
            ssrc: 1,
            sequence: watch.sequence + n,
            timestamp: watch.frame * 3600,
            marker: n == 7,
            payload_type: 96,
            payload: &vec![0x65; length],
        };
        watch.streams.insert(PICTURE, &arrival, watch.now);
        if n == 4 {
            watch.flush(PICTURE);
        }
    }
    watch.flush(PICTURE);
    assert_eq!(watch.wire.0.len(), KEY_FRAME.len());
    assert!(watch.wire.0.iter().all(|(_, length, sent)| length == sent));
}
