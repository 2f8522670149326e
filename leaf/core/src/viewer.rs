//! One viewer: what it watches, what it is sent, and what it says of it.

use serde::{Deserialize, Serialize};

use crate::Micros;
use crate::cursor::{Cursor, StreamId};
use crate::ladder::Ladder;
use crate::output::{Sent, Sink};
use crate::picture::{Begun, Mode, Picture};
use crate::sound::Sound;
use crate::streams::Streams;
use crate::timeline::Line;

mod adopt;
mod types;

pub use types::{Adoption, Agreed, Busy, Event, Report, SenderReport, Statistics, Target};

/// Ticks a second of H.264 (RFC 6184).
pub const VIDEO_RATE: u32 = 90_000;
/// Ticks a second of Opus (RFC 7587).
pub const AUDIO_RATE: u32 = 48_000;
/// A viewer that has lost the picture asks until it has one: it gets a key frame at most so often.
const REFRESH: Micros = 500_000;
/// So many of the packets that one NACK asks for are looked at: several times what is sent again.
const MAX_ASKED: usize = 256;
const REPORTS: Micros = 1_000_000;
/// The first reports come quickly, so that sound and picture are together from the start.
const FIRST_REPORTS: [Micros; 2] = [0, 300_000];
/// Changes of channel: so many a second, and so many at once.
const CHANGES: f64 = 10.0;

/// One viewer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Viewer {
    picture: Option<Picture>,
    sound: Option<Sound>,
    ladder: Ladder,
    heard: Option<StreamId>,
    started: Option<Micros>,
    refreshed: Option<Micros>,
    reports: usize,
    reported: Micros,
    changes: f64,
    changed: Micros,
    statistics: Statistics,
    /// The stream that was last told as shown.
    #[serde(skip)]
    told: Option<StreamId>,
    #[serde(skip)]
    events: Vec<Event>,
}

impl Viewer {
    /// A viewer whose connection is not up yet.
    pub fn new(agreed: Agreed, target: Target, now: Micros) -> Self {
        let [first, second, third] = agreed.seeds;
        // Below 2^15: the receiver guesses the rollover counter from it (RFC 3711 3.3.1).
        let sequence = |seed: u32| 1 + u64::from(seed & 0x3fff);
        let cursor = |rate, seed: u32| {
            let base = (1 << 32) + u64::from(seed);
            Cursor::new(
                Line {
                    rate,
                    base,
                    at: now as i64,
                },
                sequence(seed),
            )
        };
        Self {
            picture: agreed
                .video
                .map(|rtx| Picture::new(cursor(VIDEO_RATE, first), rtx.then(|| sequence(third)))),
            sound: agreed.audio.then(|| Sound::new(cursor(AUDIO_RATE, second))),
            ladder: Ladder::new(target.ladder, target.start, target.pinned),
            heard: target.sound,
            started: None,
            refreshed: None,
            reports: 0,
            reported: now,
            changes: CHANGES,
            changed: now,
            statistics: Statistics::default(),
            told: None,
            events: Vec::new(),
        }
    }

    /// The connection is up: begin.
    pub fn start(&mut self, streams: &Streams, now: Micros, sink: &mut impl Sink) {
        if self.started.is_none() {
            self.started = Some(now);
            self.follow(streams, now, sink);
        }
    }

    /// Whether something has happened that was not asked for yet.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The stream whose key frame it waits for.
    pub fn waits_for(&self) -> Option<StreamId> {
        let picture = self
            .picture
            .as_ref()
            .filter(|picture| picture.mode == Mode::Waiting)?;
        picture.stream.filter(|_| self.started.is_some())
    }

    /// What has happened since this was last asked.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The streams that it must be told of: picture, next picture, sound.
    pub fn streams(&self) -> impl Iterator<Item = StreamId> + use<> {
        let picture = self.picture.as_ref();
        [
            picture.and_then(|picture| picture.stream),
            picture.and_then(|picture| picture.pending),
            self.sound.as_ref().and_then(|sound| sound.stream),
        ]
        .into_iter()
        .flatten()
    }

    /// The picture's stream, sent or waited for.
    pub fn shown(&self) -> Option<StreamId> {
        self.picture.as_ref()?.stream
    }

    /// The picture.
    pub fn picture(&self) -> Option<&Picture> {
        self.picture.as_ref()
    }

    /// The sound.
    pub fn sound(&self) -> Option<&Sound> {
        self.sound.as_ref()
    }

    /// What it reported and asked for.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Its estimate of the bandwidth in kbit/s.
    pub fn estimate_kbps(&self) -> Option<f64> {
        self.ladder.estimate()
    }

    /// How long ago the packet came that is sent next; 0 at the head.
    pub fn behind(&self, streams: &Streams, now: Micros) -> Option<Micros> {
        let picture = self.picture.as_ref()?;
        let ring = &streams.get(picture.stream?)?.ring;
        let next = picture.cursor.next().max(ring.oldest())..ring.end();
        let next = next.into_iter().find_map(|index| ring.get(index));
        Some(next.map_or(0, |packet| now.saturating_sub(packet.arrived)))
    }

    /// Watch something else over the same connection. None if that needs no new beginning.
    ///
    /// # Errors
    /// More than ten changes a second.
    pub fn change(
        &mut self,
        target: Target,
        streams: &Streams,
        now: Micros,
        sink: &mut impl Sink,
    ) -> Result<Option<Begun>, Busy> {
        let passed = now.saturating_sub(self.changed) as f64 / 1e6;
        self.changes = (self.changes + passed * CHANGES).min(CHANGES);
        self.changed = now;
        if self.changes < 1.0 {
            return Err(Busy);
        }
        self.changes -= 1.0;
        self.statistics.changes += 1;
        self.ladder
            .replace(target.ladder, target.start, target.pinned);
        self.heard = target.sound;
        if self.started.is_none() {
            return Ok(None);
        }
        Ok(self.follow(streams, now, sink))
    }

    /// Something came for a stream: send what is due.
    pub fn flush(
        &mut self,
        stream: StreamId,
        streams: &Streams,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        if self.started.is_none() {
            return;
        }
        if let Some(sound) = &mut self.sound
            && sound.stream == Some(stream)
        {
            sound.flush(streams, sink);
            return;
        }
        let Some(picture) = &mut self.picture else {
            return;
        };
        if picture.pending == Some(stream) {
            if picture.may_step(streams) {
                self.ladder.settle(stream);
                self.begin(stream, streams, now, sink);
            }
        } else if picture.stream == Some(stream) {
            // One visit for both: a viewer's memory is fetched once. Sound comes last where it belongs
            // to a key frame's message, else first: it takes the parameter sets along.
            let mut sound = self.sound.as_mut().filter(|it| it.is_going_on());
            if let Some(even) = picture.even(streams) {
                let even = even.followed(sound.as_ref().is_some_and(|it| it.waits(streams)));
                picture.flush_as(Some(even), streams, now, sink);
            }
            if let Some(sound) = &mut sound {
                sound.flush(streams, sink);
            }
            if picture.mode == Mode::Waiting || !picture.is_in_place(streams) {
                self.begin(stream, streams, now, sink);
            } else if picture.mode == Mode::Live {
                picture.flush(streams, now, sink);
            }
        }
    }

    /// A packet came after its turn: send it at its own place.
    pub fn late(&mut self, stream: StreamId, index: u64, streams: &Streams, sink: &mut impl Sink) {
        let (Some(found), Some(_)) = (streams.get(stream), self.started) else {
            return;
        };
        let Some(packet) = found.ring.get(index) else {
            return;
        };
        if let Some(picture) = self.picture.as_mut().filter(|it| it.stream == Some(stream)) {
            picture.late(stream, &found.ring, &packet, sink);
        }
        if let Some(sound) = self.sound.as_mut().filter(|it| it.stream == Some(stream)) {
            sound.late(stream, &found.ring, &packet, sink);
        }
    }

    /// The viewer asks for packets of the picture again.
    pub fn nack(
        &mut self,
        sequences: impl Iterator<Item = u16>,
        streams: &Streams,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        let rtt = self.statistics.rtt.unwrap_or(0);
        let Some(picture) = &mut self.picture else {
            return;
        };
        let bursting = picture.is_catching_up();
        let mut asked = 0_u32;
        for sequence in sequences.take(MAX_ASKED) {
            asked += 1;
            if picture
                .retransmit(sequence, rtt, streams, now, sink)
                .is_some()
            {
                self.statistics.retransmitted += 1;
            }
        }
        self.statistics.nacks += u64::from(asked);
        picture.pace.lost(f64::from(asked) / 100.0, bursting, now);
    }

    /// The viewer has lost the picture (PLI or FIR): begin again at the last key frame.
    pub fn refresh(&mut self, streams: &Streams, now: Micros, sink: &mut impl Sink) {
        self.statistics.refreshes += 1;
        let soon = self
            .refreshed
            .is_some_and(|at| now.saturating_sub(at) < REFRESH);
        let stream = self.picture.as_ref().and_then(|picture| picture.stream);
        if let (false, Some(_), Some(stream)) = (soon, self.started, stream) {
            // Whether there is a key frame or not: it is not to ask all the time.
            self.refreshed = Some(now);
            self.begin(stream, streams, now, sink);
        }
    }

    /// The viewer estimates its bandwidth.
    pub fn estimate(&mut self, bits_per_second: u64, streams: &Streams, now: Micros) {
        let kbps = bits_per_second as f64 / 1000.0;
        if let Some(picture) = &mut self.picture {
            picture.pace.estimate(kbps);
            // What a burst brings about is no measure of what the stream needs.
            if picture.is_catching_up() {
                return;
            }
        }
        if let Some(rung) = self.ladder.on_estimate(kbps, now) {
            self.step_to(rung.stream, streams);
        }
    }

    /// The viewer reports how its picture arrives.
    pub fn report(&mut self, report: Report, streams: &Streams, now: Micros) {
        let statistics = &mut self.statistics;
        statistics.reported = true;
        statistics.rtt = report.rtt.or(statistics.rtt);
        statistics.lost = i64::from(report.lost);
        statistics.fraction_lost = report.fraction;
        statistics.jitter = u64::from(report.jitter) * 1_000_000 / u64::from(VIDEO_RATE);
        if let Some(picture) = &mut self.picture {
            let bursting = picture.is_catching_up();
            picture.pace.lost(report.fraction, bursting, now);
        }
        if let Some(rung) = self.ladder.on_loss(report.fraction, now) {
            self.step_to(rung.stream, streams);
        }
    }

    /// When [`Viewer::tick`] or [`Viewer::sender_reports`] has something to do next.
    pub fn due(&self) -> Option<Micros> {
        let report = self.report_due()?;
        match self.picture.as_ref().map(|picture| picture.mode) {
            Some(Mode::CatchingUp(due)) => Some(due.min(report)),
            _ => Some(report),
        }
    }

    /// Go on with a catch-up whose time has come.
    pub fn tick(&mut self, streams: &Streams, now: Micros, sink: &mut impl Sink) {
        let Some(picture) = &mut self.picture else {
            return;
        };
        let (Mode::CatchingUp(due), Some(stream)) = (picture.mode, picture.stream) else {
            return;
        };
        if due > now {
            return;
        }
        if picture.is_in_place(streams) {
            picture.flush(streams, now, sink);
        } else {
            self.begin(stream, streams, now, sink);
        }
    }

    /// The sender reports of picture and sound, if they are due now.
    pub fn sender_reports(&mut self, now: Micros) -> [Option<SenderReport>; 2] {
        if self.report_due().is_none_or(|due| due > now) {
            return [None, None];
        }
        self.reports += 1;
        self.reported = now;
        let report = |cursor: &Cursor, sent: Sent| {
            let timestamp = cursor.line().now(now);
            (sent.packets > 0).then_some(SenderReport { timestamp, sent })
        };
        [
            self.picture
                .as_ref()
                .and_then(|it| report(&it.cursor, it.sent)),
            self.sound
                .as_ref()
                .and_then(|it| report(&it.cursor, it.sent)),
        ]
    }

    fn report_due(&self) -> Option<Micros> {
        let started = self.started?;
        Some(match FIRST_REPORTS.get(self.reports) {
            Some(after) => started + after,
            None => self.reported + REPORTS,
        })
    }

    /// Go to what the ladder and the sound say.
    fn follow(&mut self, streams: &Streams, now: Micros, sink: &mut impl Sink) -> Option<Begun> {
        if let Some(sound) = &mut self.sound {
            sound.change(self.heard);
        }
        let wanted = self.ladder.rung()?.stream;
        let picture = self.picture.as_mut()?;
        let group = |stream| streams.get(stream).map(|found| found.group);
        if let Some(present) = picture.stream.filter(|_| picture.mode != Mode::Waiting)
            && (present == wanted || (group(present).is_some() && group(present) == group(wanted)))
        {
            self.step_to(wanted, streams);
            return None;
        }
        picture.pending = None;
        Some(self.begin(wanted, streams, now, sink))
    }

    /// Take another rendition at its next key frame.
    fn step_to(&mut self, stream: StreamId, streams: &Streams) {
        let Some(picture) = &mut self.picture else {
            return;
        };
        picture.pending = (picture.stream != Some(stream)).then_some(stream);
        if streams.get(stream).is_none() {
            self.events.push(Event::Wanted(stream));
        }
    }

    fn begin(
        &mut self,
        stream: StreamId,
        streams: &Streams,
        now: Micros,
        sink: &mut impl Sink,
    ) -> Begun {
        let Some(picture) = &mut self.picture else {
            return Begun::NoStream;
        };
        let begun = picture.begin(stream, streams, now);
        let event = match begun {
            Begun::NoStream => Event::Wanted(stream),
            Begun::NoKeyFrame => Event::Waiting(stream),
            Begun::At { .. } => {
                self.refreshed = Some(now);
                picture.flush(streams, now, sink);
                Event::Shown(stream)
            }
        };
        // While it waits every packet asks again; and the same picture begun again is no news.
        let is_news = match event {
            Event::Shown(_) => self.told.replace(stream) != Some(stream),
            _ => {
                self.told = None;
                self.events.last() != Some(&event)
            }
        };
        if is_news {
            self.events.push(event);
        }
        begun
    }
}
