//! What is alike for viewers and publishers: where their datagrams go, checks, handshakes, the end.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use leaf_core::Micros;
use leaf_wire::datagram::Datagram;
use leaf_wire::stun;

use super::crowd::Key;
use super::link::{Checked, Keys, Path, push};
use super::{Message, READS, Worker, requests};
use crate::clock;
use crate::control::event::Gone;
use crate::handshakes::{Notice, Outcome};
use crate::log::{Level, log};
use crate::net::receive::Receiver;

/// Datagrams that may wait for another worker than the one they came to.
const MAX_FORWARDED: usize = 8192;

/// So long the handshake thread may take for a goodbye.
const GOODBYE: Micros = 1_000_000;

/// Somebody who is gone, and to whom a goodbye is on its way.
pub(super) struct Leaving {
    path: Path,
    /// When it has been sent for sure.
    pub until: Micros,
}

impl Worker {
    /// Read the socket of an address. True if there may be more.
    pub(super) fn read_peers(&mut self, number: usize, receiver: &mut Receiver) -> bool {
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

    /// Take a datagram. False if its sender is not known here.
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
        let publishes = self.crowd.is_publisher(key);
        match kind {
            Datagram::Stun => self.on_check(key, Path { to: from, socket }, bytes, now),
            Datagram::Dtls => {
                let Some(link) = self.crowd.link_mut(key) else {
                    return true;
                };
                if !std::mem::replace(&mut link.handshaking, true) {
                    let expected = link.fingerprint.clone();
                    self.others
                        .handshakes
                        .start(key, self.others.number, expected);
                }
                self.others.handshakes.datagram(key, bytes);
            }
            Datagram::Rtp if publishes => self.on_published(key, bytes, now),
            Datagram::Rtcp if publishes => self.on_publisher_rtcp(key, bytes, now),
            Datagram::Rtcp => self.on_rtcp(key, bytes, now),
            _ => self.refused.alien += 1,
        }
        true
    }

    fn on_check(&mut self, key: Key, path: Path, bytes: &[u8], now: Micros) {
        // An address belongs to the peer whose media it is: nobody else can have it taken away.
        let other = self.crowd.by_address(path.to).filter(|other| *other != key);
        let is_taken = other
            .and_then(|other| self.crowd.link(other))
            .is_some_and(|other| other.keys.is_some());
        let Some(link) = self.crowd.link_mut(key) else {
            return;
        };
        let checked = link.check(bytes, path.to, is_taken, &mut self.answer, now);
        if checked != Checked::Dropped {
            push(&mut self.batches[path.socket], path.to, &self.answer);
        }
        match checked {
            Checked::Authentic { chosen: true } => self.crowd.move_to(key, path),
            Checked::Authentic { chosen: false } => {}
            Checked::Refused | Checked::Dropped => self.refused.checks += 1,
        }
    }

    /// Hand a datagram to the worker that has its sender, if there is one.
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

    pub(super) fn on_notice(&mut self, notice: Notice) {
        let now = clock::now();
        let key = notice.viewer;
        match notice.outcome {
            Outcome::Transmit(datagram) => {
                let path = self.crowd.link(key).map(|link| link.path);
                let path = path.unwrap_or_else(|| self.leaving.get(&key).map(|it| it.path));
                if let Some(path) = path {
                    push(&mut self.batches[path.socket], path.to, &datagram);
                }
            }
            Outcome::Established(secrets) => {
                let Some(link) = self.crowd.link_mut(key) else {
                    return;
                };
                match Keys::new(secrets) {
                    Ok(keys) => link.keys = Some(keys),
                    Err(error) => {
                        log!(Level::Error, "keys not usable", error = error.to_string());
                        return self.end(key, Gone::Failed);
                    }
                }
                link.heard = now;
                let address = link.path.map(|path| path.to);
                if self.crowd.is_publisher(key) {
                    self.on_publisher_up(key, address);
                } else {
                    self.on_viewer_up(key, address, now);
                }
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

    /// The time of a viewer or publisher has come.
    pub(super) fn on_time(&mut self, key: Key, now: Micros) {
        if self.crowd.is_publisher(key) {
            self.on_publisher_time(key, now);
        } else {
            self.on_viewer_time(key, now);
        }
    }

    /// A viewer or publisher is gone.
    pub(super) fn end(&mut self, key: Key, why: Gone) {
        if let Some(path) = self.crowd.link(key).and_then(|link| link.path) {
            let until = clock::now() + GOODBYE;
            self.leaving.insert(key, Leaving { path, until });
        }
        if self.crowd.is_publisher(key) {
            self.end_publisher(key, why);
        } else {
            self.end_viewer(key, why);
        }
        self.others.handshakes.close(key);
    }

    fn name_of(&self, key: Key) -> String {
        let link = self.crowd.link(key);
        link.map(|link| link.name.clone()).unwrap_or_default()
    }
}
