//! All rings of a worker, and the clocks of their groups.

use rustc_hash::FxHashMap;

use crate::Micros;
use crate::clock::{GroupClock, StreamClock};
use crate::cursor::StreamId;
use crate::gaps::{self, Gaps, Part};
use crate::ring::{Arrival, Inserted, Kind, Ring};

/// A group of streams that are synchronous: the renditions and the sound of one channel.
pub type GroupId = u32;

/// One stream: its ring, its clock and what it is.
#[derive(Debug)]
pub struct Stream {
    /// Recent packets.
    pub ring: Ring,
    /// Its clock.
    pub clock: StreamClock,
    /// The group it belongs to.
    pub group: GroupId,
    /// Its nominal bitrate in kbit/s.
    pub kbps: u32,
    /// When its last packet came.
    pub heard: Option<Micros>,
    /// What came.
    pub counters: Counters,
    /// What is missing, if there is somebody to ask for it.
    pub gaps: Option<Gaps>,
}

/// What came of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that are, or were, in the ring.
    pub packets: u64,
    /// Their payload in bytes.
    pub bytes: u64,
    /// Sequence numbers that were skipped.
    pub lost: u64,
    /// Packets that came after all.
    pub late: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Packets too old or too long to be kept.
    pub refused: u64,
    /// Packets that did not follow from those before.
    pub strangers: u64,
    /// How often the source began anew.
    pub restarts: u64,
}

/// The streams of one worker.
#[derive(Debug, Default)]
pub struct Streams {
    streams: FxHashMap<StreamId, Stream>,
    groups: FxHashMap<GroupId, GroupClock>,
    /// The highest generation of the rings that were removed: no later ring has one of theirs, so
    /// that a cursor in a ring of before is in none of now.
    generation: u32,
    /// Those of which something may be missing that is asked for.
    gapped: Vec<StreamId>,
    /// Of streams that are gone, or have nobody to ask any more.
    repaired_before: gaps::Counters,
}

impl Streams {
    /// Add a stream; false if it is there.
    pub fn add(
        &mut self,
        id: StreamId,
        kind: Kind,
        group: GroupId,
        rate: u32,
        kbps: u32,
        max_bytes: usize,
    ) -> bool {
        if self.streams.contains_key(&id) {
            return false;
        }
        let stream = Stream {
            ring: Ring::new(kind, max_bytes).after(self.generation),
            clock: StreamClock::new(rate),
            group,
            kbps,
            heard: None,
            counters: Counters::default(),
            gaps: None,
        };
        self.streams.insert(id, stream);
        self.groups.entry(group).or_default();
        true
    }

    /// Remove a stream; false if there is none.
    pub fn remove(&mut self, id: StreamId) -> bool {
        let Some(gone) = self.streams.remove(&id) else {
            return false;
        };
        self.generation = self.generation.max(gone.ring.generation());
        self.gapped.retain(|gapped| *gapped != id);
        Self::leave(&mut self.repaired_before, gone.gaps);
        if !self
            .streams
            .values()
            .any(|stream| stream.group == gone.group)
        {
            self.groups.remove(&gone.group);
        }
        true
    }

    /// A stream.
    pub fn get(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id)
    }

    /// A stream, to be changed.
    pub fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }

    /// The stream of a source.
    pub fn of_ssrc(&self, ssrc: u32) -> Option<(StreamId, &Stream)> {
        self.iter()
            .find(|(_, stream)| stream.ring.ssrc() == Some(ssrc))
    }

    /// All streams.
    pub fn iter(&self) -> impl Iterator<Item = (StreamId, &Stream)> {
        self.streams.iter().map(|(id, stream)| (*id, stream))
    }

    /// Keep a packet of a stream.
    pub fn insert(&mut self, id: StreamId, arrival: &Arrival<'_>, now: Micros) -> Option<Inserted> {
        let stream = self.streams.get_mut(&id)?;
        let inserted = stream.ring.insert(arrival, now);
        if let Some(gaps) = &mut stream.gaps {
            match inserted {
                Inserted::Newest { lost } if lost > 0 => {
                    let newest = stream.ring.end() - 1;
                    gaps.skipped(newest - u64::from(lost)..newest, now);
                    if !self.gapped.contains(&id) {
                        self.gapped.push(id);
                    }
                }
                Inserted::Late(index) => gaps.came(index, now),
                Inserted::Restarted => gaps.forget(),
                _ => {}
            }
        }
        let counters = &mut stream.counters;
        match inserted {
            Inserted::Newest { lost } => counters.lost += u64::from(lost),
            Inserted::Late(_) => counters.late += 1,
            Inserted::Restarted => counters.restarts += 1,
            Inserted::Duplicate => counters.duplicates += 1,
            Inserted::Refused => counters.refused += 1,
            Inserted::Stranger => counters.strangers += 1,
        }
        if matches!(
            inserted,
            Inserted::Duplicate | Inserted::Refused | Inserted::Stranger
        ) {
            return Some(inserted);
        }
        counters.packets += 1;
        counters.bytes += arrival.payload.len() as u64;
        stream.heard = Some(now);
        if !matches!(inserted, Inserted::Late(_)) {
            let group = self.groups.entry(stream.group).or_default();
            let newest = stream.ring.newest_timestamp();
            stream
                .clock
                .observe(newest, stream.ring.generation(), group, now);
        }
        Some(inserted)
    }

    /// The moment of a timestamp of a stream, in microseconds of the monotonic clock.
    pub fn moment(&self, id: StreamId, timestamp: u64) -> Option<i64> {
        let stream = self.streams.get(&id)?;
        let zero = self.groups.get(&stream.group)?.zero()?;
        Some(zero + stream.clock.media(timestamp)?)
    }

    /// Have somebody to ask for what is missing of a stream, or nobody.
    pub fn set_asking(&mut self, id: StreamId, part: Option<Part>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        match part {
            None => Self::leave(&mut self.repaired_before, stream.gaps.take()),
            Some(part) => drop(stream.gaps.get_or_insert_with(|| Gaps::new(part))),
        }
    }

    fn leave(before: &mut gaps::Counters, gaps: Option<Gaps>) {
        if let Some(mut gaps) = gaps {
            gaps.forget();
            before.add(gaps.counters());
        }
    }

    /// What became of missing packets of all streams so far, those that are gone too.
    pub fn repairs(&self) -> gaps::Counters {
        let mut sum = self.repaired_before;
        let gaps = self.streams.values().filter_map(|it| it.gaps.as_ref());
        gaps.for_each(|gaps| sum.add(gaps.counters()));
        sum
    }

    /// When [`Streams::ask`] has something to do, not later.
    pub fn asking_due(&self) -> Option<Micros> {
        let gaps = self.gapped.iter().filter_map(|id| self.gaps(*id));
        gaps.filter_map(Gaps::due).min()
    }

    /// A stream of which something is to be asked for now, with its source; the sequence numbers are
    /// put into `lost`.
    pub fn ask(&mut self, now: Micros, lost: &mut Vec<u16>) -> Option<(StreamId, u32)> {
        lost.clear();
        let mut at = 0;
        while let Some(id) = self.gapped.get(at).copied() {
            let stream = self.streams.get_mut(&id)?;
            let (ring, gaps) = (&stream.ring, stream.gaps.as_mut());
            let Some(gaps) = gaps.filter(|gaps| !gaps.is_empty()) else {
                self.gapped.swap_remove(at);
                continue;
            };
            if gaps.due().is_some_and(|due| due <= now) {
                gaps.ask(ring.oldest(), now, lost);
                if let Some(ssrc) = ring.ssrc().filter(|_| !lost.is_empty()) {
                    return Some((id, ssrc));
                }
            }
            at += 1;
        }
        None
    }

    /// Until when viewers of a stream had better wait for what is missing of it.
    pub fn hold(&self, id: StreamId, now: Micros) -> Option<Micros> {
        self.gaps(id)?.hold(now)
    }

    fn gaps(&self, id: StreamId) -> Option<&Gaps> {
        self.streams.get(&id)?.gaps.as_ref()
    }

    /// Memory of all rings in bytes.
    pub fn memory(&self) -> usize {
        self.streams
            .values()
            .map(|stream| stream.ring.memory())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_lasts_as_long_as_its_last_stream() {
        let mut streams = Streams::default();
        assert!(streams.add(1, Kind::Video, 9, 90_000, 1000, 1 << 20));
        assert!(streams.add(2, Kind::Audio, 9, 48_000, 64, 1 << 20));
        assert!(!streams.add(2, Kind::Audio, 9, 48_000, 64, 1 << 20));
        let arrival = Arrival {
            ssrc: 1,
            sequence: 1,
            timestamp: 90_000,
            marker: true,
            payload_type: 96,
            payload: &[0x65],
        };
        streams.insert(1, &arrival, 5_000_000);
        assert_eq!(streams.moment(1, (1 << 32) + 90_000), Some(5_000_000));
        assert!(streams.remove(1));
        assert!(!streams.remove(1));
        assert!(streams.groups.contains_key(&9));
        assert!(streams.remove(2));
        assert!(streams.groups.is_empty());
    }

    #[test]
    fn what_comes_is_counted() {
        let mut streams = Streams::default();
        streams.add(1, Kind::Video, 9, 90_000, 1000, 1 << 20);
        for sequence in [1, 2, 2, 6, 4] {
            let arrival = Arrival {
                ssrc: 1,
                sequence,
                timestamp: 0,
                marker: true,
                payload_type: 96,
                payload: &[0x41, 0],
            };
            streams.insert(1, &arrival, 0);
        }
        let counters = streams.get(1).unwrap().counters;
        assert_eq!((counters.packets, counters.bytes, counters.lost), (4, 8, 3));
        assert_eq!((counters.late, counters.duplicates), (1, 1));
    }

    #[test]
    fn a_stream_with_a_parent_asks_for_what_it_misses() {
        let (mut streams, mut lost) = (Streams::default(), vec![]);
        for stream in [1, 2] {
            streams.add(stream, Kind::Video, 9, 90_000, 1000, 1 << 20);
        }
        streams.set_asking(2, Some(Part::Asks));
        let insert = |streams: &mut Streams, ssrc, sequence, now| {
            for stream in [1, 2] {
                let arrival = Arrival {
                    ssrc,
                    sequence,
                    timestamp: 0,
                    marker: true,
                    payload_type: 96,
                    payload: &[0x41, 0],
                };
                streams.insert(stream, &arrival, now);
            }
        };
        for sequence in [65_534, 1, 65_535] {
            insert(&mut streams, 7, sequence, 0);
        }
        assert_eq!(streams.asking_due(), Some(3_000));
        assert_eq!(streams.ask(2_999, &mut lost), None);
        assert_eq!(streams.ask(3_000, &mut lost), Some((2, 7)));
        assert_eq!(lost, [0]);
        insert(&mut streams, 7, 0, 4_000);
        assert_eq!(
            (streams.ask(90_000, &mut lost), streams.asking_due()),
            (None, None)
        );
        let counters = |streams: &Streams| streams.gaps(2).unwrap().counters();
        assert_eq!(counters(&streams).repaired, 1);

        insert(&mut streams, 7, 3, 100_000);
        for sequence in [9_000, 9_001] {
            insert(&mut streams, 8, sequence, 100_001);
        }
        assert_eq!(
            streams.ask(200_000, &mut lost),
            None,
            "of a source that is gone"
        );
        assert_eq!(counters(&streams).given_up, 1);
        insert(&mut streams, 8, 9_003, 200_000);
        streams.set_asking(2, None);
        assert_eq!(
            (streams.ask(300_000, &mut lost), streams.asking_due()),
            (None, None)
        );
        let sum = streams.repairs();
        assert_eq!((sum.asked, sum.repaired, sum.given_up), (1, 1, 2));
    }
}
