//! What a worker does by the clock: let the silent go, and tell how its streams are.

use leaf_core::Micros;
use leaf_core::viewer::Event as Happening;

use super::Worker;
use super::link::Link;
use crate::control::event::{Event, Gone};

/// A viewer that was silent for so long is gone: browsers send checks every 5 s at the least
/// (RFC 7675 section 5.1), and reports every second.
const SILENT: Micros = 8_000_000;
/// So is a publisher, of which media is heard all the time.
const SILENT_PUBLISHER: Micros = 5_000_000;
/// A viewer or publisher must be up by then.
const NEVER: Micros = 15_000_000;
/// A stream of which nothing came for so long has stopped.
const STOPPED: Micros = 2_000_000;

impl Worker {
    /// Look after everything; to be called every half second.
    pub(super) fn keep_house(&mut self, now: Micros) {
        let viewers = self.crowd.iter().map(|(key, it)| (key, &it.link, SILENT));
        let publishers = self.crowd.publishers();
        let publishers = publishers.map(|(key, it)| (key, &it.link, SILENT_PUBLISHER));
        let lost: Vec<_> = viewers
            .chain(publishers)
            .filter_map(|(key, link, silent)| Some((key, lost(link, silent, now)?)))
            .collect();
        for (key, why) in lost {
            self.end(key, why);
        }
        self.leaving.retain(|_, it| it.until > now);
        for (stream, found) in self.streams.iter() {
            if let Some(state) = self.states.get_mut(&stream) {
                state.receiving = found
                    .heard
                    .is_some_and(|at| now.saturating_sub(at) < STOPPED);
            }
        }
        let streams: Vec<_> = self.states.keys().copied().collect();
        for stream in streams {
            self.tell_state(stream, now);
        }
        let waiting: Vec<_> = self
            .crowd
            .iter()
            .filter_map(|(_, it)| it.viewer.waits_for())
            .collect();
        for stream in waiting {
            self.tell("", Happening::Waiting(stream), "", now);
        }
        self.note_overflows();
        if let Some(answering) = &mut self.answering {
            answering.keep_house(now);
        }
    }

    fn note_overflows(&mut self) {
        for (stream, state) in &mut self.states {
            let Some(found) = self.streams.get_mut(*stream) else {
                continue;
            };
            if found.ring.take_overflow() {
                state.overflows += 1;
                if self.others.number == 0 {
                    let bytes = found.ring.memory() as u64;
                    self.others.outbox.send(Event::StreamOverflow {
                        stream: *stream,
                        bytes,
                    });
                }
            }
        }
    }
}

fn lost(link: &Link, silent: Micros, now: Micros) -> Option<Gone> {
    if link.keys.is_none() {
        return (now.saturating_sub(link.added) > NEVER).then_some(Gone::Never);
    }
    (now.saturating_sub(link.heard) > silent).then_some(Gone::Silent)
}
