//! What the controller asks of a worker.

use std::io;
use std::net::UdpSocket;

use leaf_core::cursor::StreamId;
use leaf_core::picture::Begun;
use leaf_core::ring;
use leaf_wire::h264::annex_b;
use leaf_wire::ice::Credentials;

use super::connection::{Connection, target};
use super::crowd::Key;
use super::{StreamState, Worker};
use crate::clock;
use crate::control::event::{Event, Gone};
use crate::control::reply::{Changed, Code, KeyFrame, Refusal, ViewerEntry, ViewerFigures};
use crate::control::request::{Channel, Kind, StreamAdd};

/// What a ring may take if nothing else is said: 30 s at 2 Mbit/s.
const RING_BYTES: usize = 8 << 20;
/// The characters of ICE names (RFC 8839 section 5.4); the first one of ours tells the worker.
const ICE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The worker whose viewer has this ICE user name fragment.
pub fn worker_of(ufrag: &str) -> Option<usize> {
    let first = ufrag.bytes().next()?;
    ICE.iter().position(|character| *character == first)
}

/// Credentials for a viewer of a worker.
///
/// # Errors
/// The system has no random numbers.
pub fn credentials(worker: usize) -> io::Result<Credentials> {
    let mut credentials = Credentials::random().map_err(io::Error::other)?;
    let first = char::from(ICE[worker % ICE.len()]);
    credentials.ufrag.replace_range(..1, &first.to_string());
    Ok(credentials)
}

impl Worker {
    /// Keep a stream, and listen for it if there is a socket.
    ///
    /// # Errors
    /// What the system says about the socket.
    pub fn add_stream(&mut self, request: &StreamAdd, socket: Option<UdpSocket>) -> io::Result<()> {
        let id = request.stream;
        if let Some(socket) = socket {
            self.intake.add(id, socket, self.poll.registry())?;
        }
        let group = *self
            .groups
            .entry(request.group.as_str().to_owned())
            .or_insert_with(|| {
                self.next_group = self.next_group.wrapping_add(1);
                self.next_group
            });
        let kind = match request.kind {
            Kind::Video => ring::Kind::Video,
            Kind::Audio => ring::Kind::Audio,
        };
        let bytes = request.max_bytes.map_or(RING_BYTES, |bytes| bytes.get());
        if self.streams.add(
            id,
            kind,
            group,
            request.clock.get(),
            request.kbps.get(),
            bytes,
        ) {
            self.states.insert(id, StreamState::default());
        }
        if request.parent.is_some() {
            self.set_parent(id, request.parent);
        }
        Ok(())
    }

    /// Forget a stream.
    pub fn remove_stream(&mut self, id: StreamId) {
        self.intake.remove(id, self.poll.registry());
        self.streams.remove(id);
        self.states.remove(&id);
        let streams = &self.streams;
        self.groups
            .retain(|_, group| streams.iter().any(|(_, stream)| stream.group == *group));
    }

    /// Take a viewer in.
    pub fn add_viewer(&mut self, key: Key, connection: Connection) {
        self.crowd.insert(key, connection);
    }

    /// Show a viewer something else.
    ///
    /// # Errors
    /// There is no such viewer, or it changes too often.
    pub fn change(&mut self, name: &str, channel: &Channel) -> Result<Changed, Refusal> {
        let now = clock::now();
        let key = self.key_of(name)?;
        let wanted = target(channel);
        let streams = &self.streams;
        let Some(connection) = self.crowd.get_mut(key) else {
            return Err(unknown(name));
        };
        let changed = connection
            .with_sink(&mut self.batches, &mut self.delays, now, |viewer, sink| {
                viewer.change(wanted.clone(), streams, now, sink)
            })
            .unwrap_or_else(|| connection.viewer.change(wanted, streams, now, &mut Nowhere));
        let Ok(begun) = changed else {
            return Err(Refusal::new(Code::Busy, "too many changes in a second"));
        };
        connection.group = channel.group.as_str().to_owned();
        connection.pinned = channel.pinned;
        let waits = connection.viewer.waits_for().is_some();
        self.after(key, "change", now);
        self.send();
        Ok(match begun {
            Some(Begun::At { age, behind }) => Changed {
                waits: false,
                key_frame_age_ms: Some(age / 1000),
                behind_packets: behind,
            },
            _ => Changed {
                waits,
                key_frame_age_ms: None,
                behind_packets: 0,
            },
        })
    }

    /// Let a viewer go.
    ///
    /// # Errors
    /// There is no such viewer.
    pub fn close(&mut self, name: &str) -> Result<(), Refusal> {
        let key = self.key_of(name)?;
        self.end(key, Gone::Dropped);
        Ok(())
    }

    /// The figures of one viewer, or of all.
    ///
    /// # Errors
    /// There is no such viewer.
    pub fn statistics(&self, name: Option<&str>) -> Result<Vec<(String, ViewerFigures)>, Refusal> {
        let now = clock::now();
        let one = name.map(|name| self.key_of(name)).transpose()?;
        let chosen = self
            .crowd
            .iter()
            .filter(|(key, _)| one.is_none_or(|one| one == *key));
        let figures = chosen.map(|(_, it)| (it.link.name.clone(), self.viewer_figures(it, now)));
        Ok(figures.collect())
    }

    /// The viewers, as the controller added them.
    pub fn entries(&self) -> Vec<ViewerEntry> {
        let entries = self.crowd.iter().map(|(_, connection)| ViewerEntry {
            viewer: connection.link.name.clone(),
            state: connection.link.state(),
            group: connection.group.clone(),
            stream: connection
                .viewer
                .picture()
                .and_then(|picture| picture.stream),
            pinned: connection.pinned,
        });
        entries.collect()
    }

    /// The last key frame of a stream, for a thumbnail.
    pub fn key_frame(&self, id: StreamId) -> Option<KeyFrame> {
        let ring = &self.streams.get(id)?.ring;
        let key = ring.key()?;
        let packets = (key.index..ring.end()).map_while(|index| ring.get(index));
        let frame = packets.take_while(|packet| packet.timestamp == key.timestamp);
        let mut bytes = Vec::new();
        annex_b(frame.map(|packet| packet.payload), &mut bytes).ok()?;
        let age_ms = clock::now().saturating_sub(key.arrived) / 1000;
        Some(KeyFrame {
            annex_b: bytes,
            age_ms,
        })
    }

    pub(super) fn key_of(&self, name: &str) -> Result<Key, Refusal> {
        self.crowd.by_name(name).ok_or_else(|| unknown(name))
    }

    /// Say that everybody is gone: the process ends.
    pub fn dismiss(&mut self) {
        for (_, connection) in self.crowd.iter() {
            let viewer = connection.link.name.clone();
            self.others.outbox.send(Event::ViewerGone {
                viewer,
                why: Gone::Dropped,
            });
        }
    }
}

/// Takes nothing: for a viewer whose connection is not up.
struct Nowhere;

impl leaf_core::output::Sink for Nowhere {
    fn send(&mut self, _: leaf_core::output::Outgoing<'_>) {}
}

fn unknown(name: &str) -> Refusal {
    Refusal::new(Code::Unknown, format_args!("no viewer {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_worker() {
        for worker in [0, 1, 63] {
            assert_eq!(worker_of(&credentials(worker).unwrap().ufrag), Some(worker));
        }
        assert_eq!(worker_of("-"), None);
        assert_eq!(worker_of(""), None);
    }
}
