//! What viewers send: checks, handshakes and reports.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use leaf_core::Micros;
use leaf_core::streams::Streams;
use leaf_core::viewer::{Event as Happening, Viewer};
use leaf_wire::datagram::Datagram;
use leaf_wire::stun::{self, StunError};

use super::connection::{Keys, Path, Unusable, push};
use super::crowd::Key;
use super::sending::Sending;
use super::{Message, READS, Worker, requests};
use crate::clock;
use crate::control::event::{Event, Gone};
use crate::handshakes::{Notice, Outcome};
use crate::log::{Level, log};
use crate::net::receive::Receiver;

const KEY_FRAME_WANTED: Micros = 1_000_000;
/// Datagrams that may wait for another worker than the one they came to.
const MAX_FORWARDED: usize = 8192;

impl Worker {
    pub(super) fn read_viewers(&mut self, number: usize, receiver: &mut Receiver) -> bool {
        for _ in 0..READS {
            let Some(socket) = self.sockets.get(number).cloned() else {
                return false;
            };
            let now = clock::now();
            let more = receiver.receive(&socket, |from, bytes| {
                if !self.on_datagram(from, number, bytes, now) {
                    self.forward(from, number, bytes);
                }
            });
            match more {
                Ok(true) => {}
                Ok(false) => return false,
                // An ICMP error about somebody who has gone is told here; the next read goes on.
                Err(_) => {}
            }
        }
        true
    }

    /// Take a datagram. False if its viewer is not known here.
    pub(super) fn on_datagram(
        &mut self,
        from: SocketAddr,
        socket: usize,
        bytes: &[u8],
        now: Micros,
    ) -> bool {
        let kind = Datagram::classify(bytes);
        let key = match kind {
            Datagram::Stun => {
                stun::ufrag_of(bytes).and_then(|(local, _)| self.crowd.by_ufrag(local))
            }
            _ => self.crowd.by_address(from),
        };
        let Some(key) = key else { return false };
        match kind {
            Datagram::Stun => self.on_check(key, Path { to: from, socket }, bytes, now),
            Datagram::Dtls => {
                let Some(connection) = self.crowd.get_mut(key) else {
                    return true;
                };
                if !std::mem::replace(&mut connection.handshaking, true) {
                    let expected = connection.fingerprint.clone();
                    self.others
                        .handshakes
                        .start(key, self.others.number, expected);
                }
                self.others.handshakes.datagram(key, bytes);
            }
            Datagram::Rtcp => self.on_rtcp(key, bytes, now),
            _ => self.refused.alien += 1,
        }
        true
    }

    fn on_check(&mut self, key: Key, path: Path, bytes: &[u8], now: Micros) {
        // An address belongs to the viewer whose media it gets: nobody else can have it taken away.
        let other = self.crowd.by_address(path.to).filter(|other| *other != key);
        let is_taken = other
            .and_then(|other| self.crowd.get(other))
            .is_some_and(|other| other.keys.is_some());
        let Some(connection) = self.crowd.get_mut(key) else {
            return;
        };
        let right =
            stun::ufrag_of(bytes).is_some_and(|(_, remote)| remote == connection.remote_ufrag);
        let result = stun::answer(
            bytes,
            path.to,
            &connection.credentials.pwd,
            &mut self.answer,
        );
        match result {
            Ok(request) if right && !is_taken && connection.checks.is_new(bytes, path.to) => {
                connection.heard = now;
                let first = connection.path.is_none();
                push(&mut self.batches[path.socket], path.to, &self.answer);
                if first || request.use_candidate {
                    self.crowd.move_to(key, path);
                }
            }
            Err(StunError::Refused(_)) => {
                self.refused.checks += 1;
                push(&mut self.batches[path.socket], path.to, &self.answer);
            }
            _ => self.refused.checks += 1,
        }
    }

    fn on_rtcp(&mut self, key: Key, bytes: &[u8], now: Micros) {
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

    /// Hand a datagram to the worker that has the viewer, if there is one.
    pub(super) fn forward(&mut self, from: SocketAddr, socket: usize, bytes: &[u8]) {
        let workers = self.others.posts.len();
        let owner = stun::ufrag_of(bytes)
            .and_then(|(local, _)| requests::worker_of(local))
            .map(|owner| owner % workers)
            .or_else(|| self.routes.get(&from).copied());
        let owner = owner.filter(|owner| *owner < workers && *owner != self.others.number);
        let forwarded = &self.others.forwarded;
        match owner.filter(|_| forwarded.load(Ordering::Relaxed) < MAX_FORWARDED) {
            Some(owner) => {
                forwarded.fetch_add(1, Ordering::Relaxed);
                let by = self.others.number;
                let message = Message::Datagram {
                    by,
                    from,
                    socket,
                    bytes: bytes.into(),
                };
                self.others.posts[owner].send(message);
            }
            None => self.refused.alien += 1,
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

    pub(super) fn on_time(&mut self, key: Key, now: Micros) {
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
            let viewer = connection.name.clone();
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

    pub(super) fn end(&mut self, key: Key, why: Gone) {
        let Some(connection) = self.crowd.remove(key) else {
            return;
        };
        self.others.handshakes.close(key);
        let viewer = connection.name;
        // The main thread may have ended; then nobody asks any more.
        let _ = self.others.gone.send(viewer.clone());
        self.others.outbox.send(Event::ViewerGone { viewer, why });
    }

    pub(super) fn on_notice(&mut self, notice: Notice) {
        let now = clock::now();
        let key = notice.viewer;
        match notice.outcome {
            Outcome::Transmit(datagram) => {
                if let Some(path) = self.crowd.get(key).and_then(|connection| connection.path) {
                    push(&mut self.batches[path.socket], path.to, &datagram);
                }
            }
            Outcome::Established(secrets) => {
                let Some(connection) = self.crowd.get_mut(key) else {
                    return;
                };
                match Keys::new(secrets) {
                    Ok(keys) => connection.keys = Some(keys),
                    Err(error) => {
                        log!(Level::Error, "keys not usable", error = error.to_string());
                        return self.end(key, Gone::Failed);
                    }
                }
                connection.heard = now;
                if let Some(path) = connection.path {
                    let viewer = connection.name.clone();
                    self.others.outbox.send(Event::ViewerUp {
                        viewer,
                        address: path.to,
                    });
                }
                let streams = &self.streams;
                connection.with_sink(&mut self.batches, &mut self.delays, now, |viewer, sink| {
                    viewer.start(streams, now, sink);
                });
                self.after(key, "start", now);
            }
            Outcome::Closed => self.end(key, Gone::Closed),
            Outcome::Failed(why) => {
                log!(
                    Level::Info,
                    "handshake failed",
                    viewer = self.name_of(key),
                    why = why
                );
                self.end(key, Gone::Failed);
            }
        }
    }

    fn name_of(&self, key: Key) -> String {
        self.crowd
            .get(key)
            .map(|connection| connection.name.clone())
            .unwrap_or_default()
    }
}
