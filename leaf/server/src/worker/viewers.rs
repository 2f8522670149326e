//! What viewers do: reports, and what follows from them and from the time.

use std::net::SocketAddr;

use leaf_core::Micros;
use leaf_core::streams::Streams;
use leaf_core::viewer::{Event as Happening, Viewer};

use super::crowd::Key;
use super::link::Unusable;
use super::sending::Sending;
use super::{Leaver, Worker};
use crate::control::event::{Event, Gone};

const KEY_FRAME_WANTED: Micros = 1_000_000;

impl Worker {
    pub(super) fn on_rtcp(&mut self, key: Key, bytes: &[u8], now: Micros) {
        let Some(connection) = self.crowd.get_mut(key) else {
            return;
        };
        let taken = connection.receive_rtcp(
            bytes,
            &mut self.plain,
            &self.streams,
            &mut self.batches,
            &mut self.delays,
            now,
        );
        match taken {
            Ok(()) => self.after(key, "estimate", now),
            Err(Unusable::NotAuthentic) => self.refused.rtcp += 1,
            Err(Unusable::Excess) => self.refused.excess += 1,
        }
    }

    pub(super) fn act(
        &mut self,
        key: Key,
        now: Micros,
        act: impl FnOnce(&mut Viewer, &Streams, &mut Sending<'_>),
    ) {
        let streams = &self.streams;
        if let Some(connection) = self.crowd.get_mut(key) {
            connection.with_sink(&mut self.batches, &mut self.delays, now, |viewer, sink| {
                act(viewer, streams, sink);
            });
        }
    }

    pub(super) fn on_viewer_time(&mut self, key: Key, now: Micros) {
        self.act(key, now, |viewer, streams, sink| {
            viewer.tick(streams, now, sink)
        });
        if let Some(connection) = self.crowd.get_mut(key) {
            connection.send_reports(&mut self.batches, now);
        }
        self.after(key, "estimate", now);
    }

    /// Tell what a viewer made known, and follow where it went.
    pub(super) fn after(&mut self, key: Key, why: &'static str, now: Micros) {
        let Some(connection) = self.crowd.get_mut(key) else {
            return;
        };
        if connection.viewer.has_events() {
            let viewer = connection.link.name.clone();
            for happening in connection.viewer.take_events() {
                self.tell(&viewer, happening, why, now);
            }
        }
        self.crowd.follow(key);
    }

    pub(super) fn tell(
        &mut self,
        viewer: &str,
        happening: Happening,
        why: &'static str,
        now: Micros,
    ) {
        let event = match happening {
            Happening::Shown(stream) => Event::ViewerStream {
                viewer: viewer.to_owned(),
                stream,
                why,
            },
            Happening::Wanted(stream) => Event::StreamWanted { stream },
            Happening::Waiting(stream) => {
                let Some(state) = self.states.get_mut(&stream) else {
                    return;
                };
                if state
                    .key_frame_wanted
                    .is_some_and(|at| now.saturating_sub(at) < KEY_FRAME_WANTED)
                {
                    return;
                }
                state.key_frame_wanted = Some(now);
                Event::KeyFrameWanted { stream }
            }
        };
        self.others.outbox.send(event);
    }

    /// A viewer's connection is up, or was made anew.
    pub(super) fn on_viewer_up(&mut self, key: Key, address: Option<SocketAddr>, now: Micros) {
        let Some(connection) = self.crowd.get_mut(key) else {
            return;
        };
        if let Some(address) = address {
            let viewer = connection.link.name.clone();
            self.others.outbox.send(Event::ViewerUp { viewer, address });
        }
        let streams = &self.streams;
        connection.with_sink(&mut self.batches, &mut self.delays, now, |viewer, sink| {
            viewer.start(streams, now, sink);
        });
        self.after(key, "start", now);
    }

    /// A viewer is gone.
    pub(super) fn end_viewer(&mut self, key: Key, why: Gone) {
        let Some(connection) = self.crowd.remove(key) else {
            return;
        };
        let viewer = connection.link.name;
        // The main thread may have ended; then nobody asks any more.
        let _ = self.others.gone.send(Leaver::Viewer(viewer.clone()));
        self.others.outbox.send(Event::ViewerGone { viewer, why });
    }
}
