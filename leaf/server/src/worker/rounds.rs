//! Who is to be given what came: all who watch a stream, some of them at a time, so that what viewers
//! send is heard in between. Pictures go first, so that the last viewer of a key frame does not wait for
//! everybody's sound as well; sound waits for them, but not longer than [`PATIENCE`].

use std::collections::VecDeque;
use std::ops::Range;

use leaf_core::Micros;
use leaf_core::cursor::StreamId;
use leaf_core::ring::Kind;

use super::Worker;
use super::crowd::Key;
use crate::clock;

/// Viewers that are served before the clock is looked at.
const PORTION: usize = 32;
/// So many viewers ahead is looked for what is needed to serve them, and for what that leads to.
const SOON: usize = 4;
const NEXT: usize = 2;
/// So long viewers are served before others have their turn.
const SLICE: Micros = 1_000;
/// So long sound waits for pictures at most: until the next of it comes, mostly.
const PATIENCE: Micros = 20_000;

/// One stream's way through the list of those who watch it, from its end to its beginning: who
/// leaves the list is replaced by its last one, who was served already.
#[derive(Debug)]
struct Round {
    stream: StreamId,
    /// Places of the list that are left.
    left: usize,
    /// Something came since it began.
    again: bool,
    /// When it began.
    since: Micros,
}

/// The rounds that are under way.
#[derive(Debug, Default)]
pub struct Rounds {
    sound: VecDeque<Round>,
    picture: VecDeque<Round>,
}

impl Rounds {
    /// Nobody is left to be served.
    pub fn is_empty(&self) -> bool {
        self.sound.is_empty() && self.picture.is_empty()
    }

    /// Something came for a stream that so many watch. Whether a round begins now; if one is under
    /// way, another one follows.
    pub fn begin(&mut self, stream: StreamId, kind: Kind, audience: usize, now: Micros) -> bool {
        let rounds = match kind {
            Kind::Audio => &mut self.sound,
            Kind::Video => &mut self.picture,
        };
        if let Some(round) = rounds.iter_mut().find(|round| round.stream == stream) {
            round.again = true;
            return false;
        }
        rounds.push_back(Round {
            stream,
            left: audience,
            again: false,
            since: now,
        });
        true
    }

    /// Whose turn it is: a stream and at most `most` places of the list of those who watch it.
    /// `audience` is how long that list is now.
    pub fn next(
        &mut self,
        most: usize,
        now: Micros,
        audience: impl Fn(StreamId) -> usize,
    ) -> Option<(StreamId, Range<usize>)> {
        let oldest = self.sound.front().map(|round| round.since);
        let mut order = [&mut self.picture, &mut self.sound];
        if oldest.is_some_and(|since| now.saturating_sub(since) >= PATIENCE) {
            order.reverse();
        }
        for rounds in order {
            while let Some(round) = rounds.front_mut() {
                let there = audience(round.stream);
                let end = round.left.min(there);
                if end > 0 {
                    round.left = end.saturating_sub(most);
                    return Some((round.stream, round.left..end));
                }
                if round.again && there > 0 {
                    (round.left, round.again, round.since) = (there, false, now);
                    rounds.rotate_left(1);
                } else {
                    rounds.pop_front();
                }
            }
        }
        None
    }
}

impl Worker {
    /// Something came for a stream: let everybody who watches it have it, soon.
    pub(super) fn pass_on(&mut self, stream: StreamId) {
        if let Some(found) = self.streams.get(stream) {
            let kind = found.ring.kind();
            let audience = self.crowd.subscribers(stream).len();
            if self.rounds.begin(stream, kind, audience, clock::now()) {
                self.crowd.take_turns(stream);
            }
        }
    }

    /// Serve viewers whose turn it is, for about [`SLICE`].
    pub(super) fn serve_viewers(&mut self) {
        if self.rounds.is_empty() {
            return;
        }
        let began = clock::now();
        let mut now = began;
        while now.saturating_sub(began) < SLICE {
            let crowd = &self.crowd;
            let audience = |stream| crowd.subscribers(stream).len();
            let Some((stream, places)) = self.rounds.next(PORTION, now, audience) else {
                return;
            };
            // A viewer may leave the list while it is served: at a change of rendition.
            let mut keys = [0; PORTION];
            let keys = &mut keys[..places.len()];
            keys.copy_from_slice(&crowd.subscribers(stream)[places]);
            keys.reverse();
            for soon in keys.iter().take(SOON) {
                self.crowd.prefetch(*soon);
            }
            for (at, key) in keys.iter().enumerate() {
                if let Some(soon) = keys.get(at + SOON) {
                    self.crowd.prefetch(*soon);
                }
                if let Some(next) = keys.get(at + NEXT) {
                    self.crowd.prefetch_more(*next);
                }
                self.give(*key, stream, now);
            }
            now = clock::now();
        }
    }

    /// Let one viewer have what came for a stream.
    fn give(&mut self, key: Key, stream: StreamId, now: Micros) {
        let streams = &self.streams;
        let Some(connection) = self.crowd.get_mut(key) else {
            return;
        };
        connection.with_sink(&mut self.batches, &mut self.delays, now, |viewer, sink| {
            viewer.flush(stream, streams, now, sink);
        });
        if !connection.is_settled() {
            self.after(key, "estimate", now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(rounds: &mut Rounds, audience: usize) -> Vec<(StreamId, Range<usize>)> {
        std::iter::from_fn(|| rounds.next(2, 0, |_| audience)).collect()
    }

    #[test]
    fn everybody_is_served_once() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.next(2, 0, |_| 5), None);
        assert!(rounds.begin(1, Kind::Video, 5, 0));
        assert_eq!(all(&mut rounds, 5), [(1, 3..5), (1, 1..3), (1, 0..1)]);
        assert!(rounds.is_empty());
        rounds.begin(1, Kind::Video, 0, 0);
        assert_eq!(all(&mut rounds, 0), []);
        assert!(rounds.is_empty());
    }

    #[test]
    fn sound_waits_for_a_picture_but_not_long() {
        let mut rounds = Rounds::default();
        rounds.begin(2, Kind::Audio, 3, 0);
        rounds.begin(1, Kind::Video, 6, 0);
        let mut next = |now| rounds.next(2, now, |_| 6);
        assert_eq!(next(0), Some((1, 4..6)));
        assert_eq!(next(PATIENCE - 1), Some((1, 2..4)));
        assert_eq!(next(PATIENCE), Some((2, 1..3)));
        assert_eq!(next(PATIENCE), Some((2, 0..1)));
        assert_eq!(next(PATIENCE), Some((1, 0..2)));
        assert_eq!(next(PATIENCE), None);
    }

    #[test]
    fn what_comes_meanwhile_begins_another_round_after_others() {
        let mut rounds = Rounds::default();
        rounds.begin(1, Kind::Video, 3, 0);
        assert_eq!(rounds.next(2, 0, |_| 3), Some((1, 1..3)));
        rounds.begin(2, Kind::Video, 1, 0);
        assert!(!rounds.begin(1, Kind::Video, 3, 0));
        let audience = |stream| if stream == 1 { 3 } else { 1 };
        let served: Vec<_> = std::iter::from_fn(|| rounds.next(2, 0, audience)).collect();
        assert_eq!(served, [(1, 0..1), (2, 0..1), (1, 1..3), (1, 0..1)]);
    }

    proptest! {
        /// Whoever watches from the beginning to the end of a round is served in it, whoever
        /// leaves and comes meanwhile.
        #[test]
        fn who_stays_is_served(
            audience in 1_u32..40,
            changes in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 40),
        ) {
            let mut list: Vec<u32> = (0..audience).collect();
            let mut stay = list.clone();
            let mut served = vec![];
            let mut rounds = Rounds::default();
            rounds.begin(1, Kind::Video, list.len(), 0);
            let mut changes = changes.into_iter();
            while let Some((_, places)) = rounds.next(1 + served.len() % 3, 0, |_| list.len()) {
                served.extend_from_slice(&list[places]);
                match changes.next() {
                    Some((true, index)) if !list.is_empty() => {
                        let gone = list.swap_remove(index.index(list.len()));
                        stay.retain(|other| *other != gone);
                    }
                    Some((false, _)) => list.push(audience + served.len() as u32),
                    _ => {}
                }
            }
            for viewer in stay {
                prop_assert!(served.contains(&viewer), "{viewer} of {served:?}");
            }
        }
    }
}
