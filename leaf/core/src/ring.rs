//! The recent packets of one RTP stream.
//!
//! Memory is one block of slots of equal size: nothing is allocated for a packet. The block grows
//! by doubling while the pictures since the last key frame do not fit, up to a limit in bytes.

use std::collections::VecDeque;

use leaf_wire::h264;

use crate::Micros;
use crate::probation::Probation;

/// The longest RTP payload that is kept; a longer one would not fit an Ethernet frame.
pub const MAX_PAYLOAD: usize = 1460;
const SLOT: usize = MAX_PAYLOAD;
/// A step in sequence numbers that no loss explains (RFC 3550 appendix A.1, MAX_DROPOUT).
const MAX_JUMP: u64 = 3000;
/// A step in time that no pause explains, in ticks: 30 s of H.264, 56 s of Opus.
const MAX_PAUSE: u64 = 30 * 90_000;
/// Extended sequence numbers begin in the second cycle: index 0 marks an empty slot.
const CYCLE: u64 = 1 << 16;
/// So many key frames are remembered: the newest that is whole, and later ones that may become so.
const MAX_KEYS: usize = 16;

/// What a ring is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// H.264 (RFC 6184): a viewer can begin at a key frame only.
    Video,
    /// Opus (RFC 7587): a viewer can begin anywhere.
    Audio,
}

/// A packet as it came in.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// RTP synchronisation source.
    pub ssrc: u32,
    /// RTP sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// RTP marker: with video the last packet of a frame.
    pub marker: bool,
    /// RTP payload type.
    pub payload_type: u8,
    /// The payload without padding.
    pub payload: &'a [u8],
}

/// A packet in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Extended sequence number.
    pub index: u64,
    /// Extended timestamp, in ticks of the stream's clock.
    pub timestamp: u64,
    /// RTP marker.
    pub marker: bool,
    /// RTP payload type.
    pub payload_type: u8,
    /// When it came.
    pub arrived: Micros,
    /// The payload.
    pub payload: &'a [u8],
}

/// What became of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It is the newest packet; `lost` sequence numbers before it are missing.
    Newest {
        /// How many were skipped.
        lost: u16,
    },
    /// It fills a gap.
    Late(u64),
    /// It was there already.
    Duplicate,
    /// It is older than the ring, or too long to be kept.
    Refused,
    /// It does not follow from what came before: kept aside until a second one says so, too.
    Stranger,
    /// The source began anew: what was in the ring is gone.
    Restarted,
}

/// Where a key frame begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Extended sequence number of its first packet.
    pub index: u64,
    /// Its extended timestamp.
    pub timestamp: u64,
    /// When its first packet came.
    pub arrived: Micros,
    /// Whether `index` is surely its first packet: the one before it is of another frame.
    whole: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    index: u64,
    timestamp: u64,
    arrived: Micros,
    length: u16,
    marker: bool,
    payload_type: u8,
}

/// The recent packets of one stream, at least those since its last key frame.
#[derive(Debug)]
pub struct Ring {
    kind: Kind,
    slots: Vec<Slot>,
    data: Vec<u8>,
    max_slots: usize,
    ssrc: Option<u32>,
    end: u64,
    first: u64,
    newest_timestamp: u64,
    keys: VecDeque<Key>,
    generation: u32,
    overflowed: bool,
    probation: Probation,
}

impl Ring {
    /// A ring of at most `max_bytes` of payload room, which is rounded up to a power of two slots.
    pub fn new(kind: Kind, max_bytes: usize) -> Self {
        let start: usize = match kind {
            Kind::Video => 128,
            Kind::Audio => 64,
        };
        Self {
            kind,
            slots: vec![Slot::default(); start],
            data: vec![0; start * SLOT],
            max_slots: (max_bytes / SLOT).next_power_of_two().max(start),
            ssrc: None,
            end: 0,
            first: 0,
            newest_timestamp: 0,
            keys: VecDeque::with_capacity(MAX_KEYS),
            generation: 0,
            overflowed: false,
            probation: Probation::default(),
        }
    }

    /// The same ring, with generations above this one.
    pub fn after(self, generation: u32) -> Self {
        Self { generation, ..self }
    }

    /// What the ring is for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A number that changes when the source begins anew: indices of before mean nothing then.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The source, once something came of it.
    pub fn ssrc(&self) -> Option<u32> {
        self.ssrc
    }

    /// One more than the newest index, 0 before the first packet.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The oldest index that may still be there.
    pub fn oldest(&self) -> u64 {
        self.first
            .max(self.end.saturating_sub(self.slots.len() as u64))
    }

    /// The newest timestamp.
    pub fn newest_timestamp(&self) -> u64 {
        self.newest_timestamp
    }

    /// Bytes of memory that the ring holds.
    pub fn memory(&self) -> usize {
        self.data.capacity() + self.slots.capacity() * size_of::<Slot>()
    }

    /// The newest key frame that is in the ring from its first packet on.
    pub fn key(&self) -> Option<Key> {
        let key = *self.keys.iter().rev().find(|key| key.whole)?;
        (key.index >= self.oldest()).then_some(key)
    }

    /// The bytes of that key frame that are there, without headers; 0 if there is none.
    pub fn key_frame_bytes(&self) -> usize {
        let Some(key) = self.key() else { return 0 };
        (key.index..self.end)
            .filter_map(|index| self.get(index))
            .take_while(|packet| packet.timestamp == key.timestamp)
            .map(|packet| packet.payload.len())
            .sum()
    }

    /// Whether the pictures since the last key frame did not fit, since this was last asked.
    pub fn take_overflow(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    /// The packet of an index, if it is there.
    pub fn get(&self, index: u64) -> Option<Packet<'_>> {
        if index < self.oldest() || index >= self.end {
            return None;
        }
        let at = self.at(index);
        let slot = &self.slots[at];
        (slot.index == index).then(|| Packet {
            index,
            timestamp: slot.timestamp,
            marker: slot.marker,
            payload_type: slot.payload_type,
            arrived: slot.arrived,
            payload: &self.data[at * SLOT..at * SLOT + usize::from(slot.length)],
        })
    }

    /// The index that a 16-bit sequence number means, counted nearest to the newest.
    pub fn index_of(&self, sequence: u16) -> Option<u64> {
        if self.end == 0 {
            return None;
        }
        let newest = self.end - 1;
        let step = sequence.wrapping_sub(newest as u16) as i16;
        newest.checked_add_signed(i64::from(step))
    }

    /// Keep a packet.
    pub fn insert(&mut self, arrival: &Arrival<'_>, now: Micros) -> Inserted {
        if arrival.payload.len() > MAX_PAYLOAD || arrival.payload.is_empty() {
            return Inserted::Refused;
        }
        if self.ssrc.is_none() {
            self.restart(arrival, now);
            return Inserted::Newest { lost: 0 };
        }
        let newest = self.end - 1;
        let step = i64::from(arrival.sequence.wrapping_sub(newest as u16) as i16);
        let pause = arrival.timestamp.wrapping_sub(self.newest_timestamp as u32) as i32;
        if self.ssrc != Some(arrival.ssrc)
            || step.unsigned_abs() > MAX_JUMP
            || u64::from(pause.unsigned_abs()) > MAX_PAUSE
        {
            return self.doubt(arrival, now);
        }
        let Some(index) = newest.checked_add_signed(step) else {
            return Inserted::Refused;
        };
        if step > 0 {
            let timestamp = self.extend(arrival.timestamp);
            self.append(index, timestamp, arrival, now);
            return Inserted::Newest {
                lost: (step - 1) as u16,
            };
        }
        if index < self.oldest() {
            return Inserted::Refused;
        }
        if self.slots[self.at(index)].index == index {
            return Inserted::Duplicate;
        }
        let timestamp = self.extend(arrival.timestamp);
        self.write(index, timestamp, arrival, now);
        self.note_key(index, timestamp, arrival.payload, now);
        self.mend_keys(index);
        Inserted::Late(index)
    }

    /// Begin anew with two packets that follow from each other, in their order.
    fn doubt(&mut self, arrival: &Arrival<'_>, now: Micros) -> Inserted {
        let Some(kept) = self.probation.confirm(arrival, now) else {
            return Inserted::Stranger;
        };
        let (kept_first, earlier) = (kept.is_before(arrival), (kept.arrival(), kept.arrived));
        let (first, second) = if kept_first {
            (earlier, (*arrival, now))
        } else {
            ((*arrival, now), earlier)
        };
        self.restart(&first.0, first.1);
        self.insert(&second.0, second.1);
        Inserted::Restarted
    }

    fn restart(&mut self, arrival: &Arrival<'_>, now: Micros) {
        self.ssrc = Some(arrival.ssrc);
        self.generation = self.generation.wrapping_add(1);
        self.keys.clear();
        self.slots.fill(Slot::default());
        let index = CYCLE + u64::from(arrival.sequence);
        // A whole cycle lies before the first timestamp, so that differences never go below zero.
        let timestamp = (1 << 32) + u64::from(arrival.timestamp);
        self.first = index;
        self.newest_timestamp = timestamp;
        self.append(index, timestamp, arrival, now);
    }

    fn extend(&self, timestamp: u32) -> u64 {
        let step = timestamp.wrapping_sub(self.newest_timestamp as u32) as i32;
        self.newest_timestamp
            .checked_add_signed(i64::from(step))
            .unwrap_or(self.newest_timestamp)
    }

    fn append(&mut self, index: u64, timestamp: u64, arrival: &Arrival<'_>, now: Micros) {
        self.make_room(index);
        self.end = index + 1;
        self.newest_timestamp = self.newest_timestamp.max(timestamp);
        self.write(index, timestamp, arrival, now);
        self.note_key(index, timestamp, arrival.payload, now);
    }

    /// Grow before the packet at `index` would push out the last key frame.
    fn make_room(&mut self, index: u64) {
        if self.kind == Kind::Audio {
            return;
        }
        let Some(key) = self.key() else { return };
        while index - key.index >= self.slots.len() as u64 {
            if self.slots.len() >= self.max_slots {
                self.overflowed = true;
                return;
            }
            self.grow();
        }
    }

    fn grow(&mut self) {
        let (old, size) = (self.oldest(), self.slots.len() * 2);
        let mut slots = vec![Slot::default(); size];
        let mut data = vec![0; size * SLOT];
        for index in old..self.end {
            let (from, to) = (self.at(index), index as usize & (size - 1));
            if self.slots[from].index == index {
                slots[to] = self.slots[from];
                data[to * SLOT..(to + 1) * SLOT]
                    .copy_from_slice(&self.data[from * SLOT..(from + 1) * SLOT]);
            }
        }
        (self.slots, self.data) = (slots, data);
        self.first = old;
    }

    fn at(&self, index: u64) -> usize {
        index as usize & (self.slots.len() - 1)
    }

    fn write(&mut self, index: u64, timestamp: u64, arrival: &Arrival<'_>, now: Micros) {
        let at = self.at(index);
        let length = arrival.payload.len();
        self.slots[at] = Slot {
            index,
            timestamp,
            arrived: now,
            length: length as u16,
            marker: arrival.marker,
            payload_type: arrival.payload_type,
        };
        self.data[at * SLOT..at * SLOT + length].copy_from_slice(arrival.payload);
    }

    fn note_key(&mut self, index: u64, timestamp: u64, payload: &[u8], now: Micros) {
        if self.kind == Kind::Audio || !h264::is_idr_start(payload) {
            return;
        }
        let known = self.keys.iter().find(|key| key.timestamp == timestamp);
        if known.is_some_and(|key| key.whole && key.index <= index) {
            return;
        }
        let (begin, whole) = self.begin_of(index, timestamp);
        if let Some(known) = self.keys.iter_mut().find(|key| key.timestamp == timestamp) {
            if begin < known.index {
                (known.index, known.whole) = (begin, whole);
            }
            return;
        }
        if self.keys.len() == MAX_KEYS {
            self.forget_keys();
        }
        let place = self.keys.partition_point(|key| key.timestamp < timestamp);
        self.keys.insert(
            place,
            Key {
                index: begin,
                timestamp,
                arrived: now,
                whole,
            },
        );
    }

    /// Make room for a key frame: of those that are whole only the newest counts.
    fn forget_keys(&mut self) {
        match self.keys.iter().rposition(|key| key.whole) {
            Some(0) => drop(self.keys.remove(1)),
            Some(newest) => drop(self.keys.drain(..newest)),
            None => drop(self.keys.pop_front()),
        }
    }

    /// The first packet of the frame that the packet at `index` belongs to, as far as it is here, and
    /// whether it surely is the first. Parameter sets come in packets before the slice.
    fn begin_of(&self, index: u64, timestamp: u64) -> (u64, bool) {
        let mut begin = index;
        while begin > self.first {
            match self.get(begin - 1) {
                Some(before) if before.timestamp == timestamp => begin -= 1,
                Some(_) => return (begin, true),
                None => return (begin, false),
            }
        }
        (begin, true)
    }

    /// A gap before a key frame was filled: see whether its beginning is there now.
    fn mend_keys(&mut self, filled: u64) {
        for at in 0..self.keys.len() {
            let key = self.keys[at];
            if !key.whole && key.index > filled {
                let (index, whole) = self.begin_of(key.index, key.timestamp);
                self.keys[at] = Key {
                    index,
                    whole,
                    ..key
                };
            }
        }
    }
}

#[cfg(test)]
mod tests;
