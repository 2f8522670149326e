//! What publishers do, and what the controller asks of them.

use std::net::SocketAddr;

use leaf_core::Micros;

use super::crowd::Key;
use super::link::Unusable;
use super::publishing::{Forwarded, Publishing};
use super::{Leaver, Worker};
use crate::clock;
use crate::control::event::{Event, Gone};
use crate::control::publisher::{PublisherEntry, PublisherFigures, TrackFigures};
use crate::control::reply::{Code, Refusal};

impl Worker {
    /// Take a publisher in.
    ///
    /// # Errors
    /// There is no socket for where its packets are to go.
    pub fn add_publisher(&mut self, key: Key, publishing: Publishing) -> Result<(), Refusal> {
        for to in publishing.all_targets() {
            self.outlets
                .open(to)
                .map_err(|error| Refusal::new(Code::Failed, error))?;
        }
        self.crowd.insert_publisher(key, publishing);
        Ok(())
    }

    pub(super) fn on_published(&mut self, key: Key, bytes: &[u8], now: Micros) {
        let Some(publishing) = self.crowd.publisher_mut(key) else {
            return;
        };
        match publishing.receive(bytes, &mut self.plain, &mut self.outlets, now) {
            Ok(Forwarded::Sent) => self.delays.note(now),
            Ok(Forwarded::Nothing) => {}
            Ok(Forwarded::TooLong) => self.refused.rtp += 1,
            Err(_) => self.refused.srtp += 1,
        }
        if let Some(event) = publishing.news() {
            self.others.outbox.send(event);
        }
        self.crowd.follow_publisher(key);
    }

    pub(super) fn on_publisher_rtcp(&mut self, key: Key, bytes: &[u8], now: Micros) {
        let Some(publishing) = self.crowd.publisher_mut(key) else {
            return;
        };
        match publishing.receive_rtcp(bytes, &mut self.plain, &mut self.outlets, now) {
            Ok(()) => {}
            Err(Unusable::NotAuthentic) => self.refused.rtcp += 1,
            Err(Unusable::Excess) => self.refused.excess += 1,
        }
        self.crowd.follow_publisher(key);
    }

    pub(super) fn on_publisher_time(&mut self, key: Key, now: Micros) {
        if let Some(publishing) = self.crowd.publisher_mut(key) {
            publishing.tell(&mut self.batches, &mut self.plain, now);
            if let Some(event) = publishing.news() {
                self.others.outbox.send(event);
            }
        }
        self.crowd.follow_publisher(key);
    }

    pub(super) fn on_publisher_up(&mut self, key: Key, address: Option<SocketAddr>) {
        if let (Some(link), Some(address)) = (self.crowd.link(key), address) {
            let publisher = link.name.clone();
            self.others
                .outbox
                .send(Event::PublisherUp { publisher, address });
        }
    }

    pub(super) fn end_publisher(&mut self, key: Key, why: Gone) {
        let Some(publishing) = self.crowd.remove_publisher(key) else {
            return;
        };
        let publisher = publishing.link.name;
        // The main thread may have ended; then nobody asks any more.
        let _ = self.others.gone.send(Leaver::Publisher(publisher.clone()));
        let event = Event::PublisherGone { publisher, why };
        self.others.outbox.send(event);
    }

    /// Ask a publisher for a key frame, of one rendition or of all.
    ///
    /// # Errors
    /// There is no such publisher.
    pub fn ask_for_key_frame(
        &mut self,
        name: &str,
        rendition: Option<&str>,
    ) -> Result<(), Refusal> {
        let key = self.publisher_key(name)?;
        if let Some(publishing) = self.crowd.publisher_mut(key) {
            publishing.want_key_frame(rendition);
        }
        self.crowd.follow_publisher(key);
        Ok(())
    }

    /// Let a publisher go.
    ///
    /// # Errors
    /// There is no such publisher.
    pub fn close_publisher(&mut self, name: &str) -> Result<(), Refusal> {
        let key = self.publisher_key(name)?;
        self.end(key, Gone::Dropped);
        Ok(())
    }

    /// The figures of one publisher, or of all.
    ///
    /// # Errors
    /// There is no such publisher.
    pub fn publisher_figures(
        &self,
        name: Option<&str>,
    ) -> Result<Vec<(String, PublisherFigures)>, Refusal> {
        let one = name.map(|name| self.publisher_key(name)).transpose()?;
        let chosen = self
            .crowd
            .publishers()
            .filter(|(key, _)| one.is_none_or(|one| one == *key));
        Ok(chosen
            .map(|(_, it)| (it.link.name.clone(), figures(it)))
            .collect())
    }

    /// The publishers, as the controller added them.
    pub fn publisher_entries(&self) -> Vec<PublisherEntry> {
        let entries = self.crowd.publishers().map(|(_, it)| PublisherEntry {
            publisher: it.link.name.clone(),
            state: it.link.state(),
            address: it.link.path.map(|path| path.to),
            tracks: it.tracks.clone(),
        });
        entries.collect()
    }

    fn publisher_key(&self, name: &str) -> Result<Key, Refusal> {
        self.crowd
            .publisher_by_name(name)
            .ok_or_else(|| Refusal::new(Code::Unknown, format_args!("no publisher {name}")))
    }
}

fn figures(publishing: &Publishing) -> PublisherFigures {
    let publisher = &publishing.publisher;
    let milliseconds = |micros: Micros| micros as f64 / 1000.0;
    let tracks = publisher.counters().map(|(mid, rid, counters)| {
        let figures = TrackFigures {
            packets: counters.packets,
            bytes: counters.bytes,
            lost: counters.lost,
            repaired: counters.repaired,
            nacks: counters.nacks,
            plis: counters.plis,
            useless: counters.useless,
            jitter_ms: milliseconds(counters.jitter),
        };
        let name = match rid {
            "" => mid.to_owned(),
            rid => format!("{mid}:{rid}"),
        };
        (name, figures)
    });
    PublisherFigures {
        state: publishing.link.state(),
        address: publishing.link.path.map(|path| path.to),
        silent_ms: clock::now().saturating_sub(publishing.link.heard) / 1000,
        rtt_ms: publisher.round_trip().map(milliseconds),
        kbps: publisher.kbps(),
        strangers: publisher.strangers(),
        tracks: tracks.collect(),
    }
}
