//! A viewer, the streams it may watch, and all that it was sent.

#![allow(dead_code)] // Each test binary uses a part of it.

use std::collections::HashSet;

use leaf_core::Micros;
use leaf_core::cursor::StreamId;
use leaf_core::ladder::Rung;
use leaf_core::output::{Outgoing, Output, Sink};
use leaf_core::picture::Begun;
use leaf_core::ring::{Arrival, Kind};
use leaf_core::streams::Streams;
use leaf_core::viewer::{Agreed, Target, Viewer};
use leaf_wire::header::Playout;

pub const FRAME: Micros = 40_000;

/// A packet that was sent: number, timestamp, and what the source wrote into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub output: Output,
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub original: Option<u16>,
    pub playout: Option<Playout>,
    pub at: Micros,
    pub stream: u8,
    pub frame: u32,
    pub part: u8,
    pub key: bool,
}

#[derive(Default)]
pub struct Wire {
    pub now: Micros,
    pub sent: Vec<Sent>,
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
            playout: packet.playout,
            at: self.now,
            stream: mark[0],
            frame: u32::from_be_bytes(mark[1..5].try_into().unwrap()),
            part: mark[5],
            key: packet.payload[0] == 0x65,
        });
    }
}

impl Wire {
    pub fn video(&self) -> Vec<&Sent> {
        self.sent
            .iter()
            .filter(|sent| sent.output == Output::Video)
            .collect()
    }
}

/// An encoder: 25 frames a second of some packets, a key frame every `gop` frames.
pub struct Source {
    pub stream: StreamId,
    pub gop: u32,
    pub parts: u8,
    pub sequence: u16,
    pub frame: u32,
}

impl Source {
    pub fn new(stream: StreamId, gop: u32, parts: u8) -> Self {
        Self {
            stream,
            gop,
            parts,
            sequence: 65_000_u16.wrapping_add(stream as u16),
            frame: 0,
        }
    }

    /// The packets of the next frame: sequence number, timestamp, marker, payload.
    pub fn frame(&mut self) -> Vec<(u16, u32, bool, Vec<u8>)> {
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

/// The streams of [`picture_and_sound`].
pub const PICTURE: StreamId = 1;
pub const SOUND: StreamId = 2;

/// A picture, its sound, and a viewer of both.
pub fn picture_and_sound(retransmissions: bool) -> (Streams, Viewer) {
    let mut streams = Streams::default();
    streams.add(PICTURE, Kind::Video, 1, 90_000, 1000, 1 << 20);
    streams.add(SOUND, Kind::Audio, 1, 48_000, 64, 1 << 16);
    let agreed = Agreed {
        video: Some(retransmissions),
        audio: true,
        seeds: [1, 2, 3],
    };
    let target = Target {
        sound: Some(SOUND),
        ..target(&[PICTURE], 0)
    };
    (streams, Viewer::new(agreed, target, 0))
}

pub struct Watch {
    pub streams: Streams,
    pub sources: Vec<Source>,
    pub viewer: Viewer,
    pub wire: Wire,
    pub now: Micros,
}

pub fn target(streams: &[StreamId], start: usize) -> Target {
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
    pub fn new(gop: u32) -> Self {
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

    pub fn start(&mut self) {
        self.wire.now = self.now;
        self.viewer.start(&self.streams, self.now, &mut self.wire);
    }

    pub fn change(&mut self, streams: &[StreamId]) -> Option<Begun> {
        self.wire.now = self.now;
        let target = target(streams, 0);
        self.viewer
            .change(target, &self.streams, self.now, &mut self.wire)
            .unwrap()
    }

    /// Let time pass, with `deliver` deciding which packets arrive.
    pub fn pass(&mut self, frames: u32, mut deliver: impl FnMut(StreamId, u16) -> bool) {
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
                        payload_type: 96,
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
pub fn check(sent: &[&Sent], losses: bool) {
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
