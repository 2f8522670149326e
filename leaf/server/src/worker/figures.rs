//! What a worker counts, for the controller.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use leaf_core::Micros;
use leaf_core::cursor::StreamId;
use leaf_core::gaps::Gaps;
use leaf_core::ring::Kind;

use super::Worker;
use super::connection::Connection;
use crate::clock;
use crate::control::reply::ViewerFigures;
use crate::net::batch::Batch;
use crate::net::receive::Receiver;

/// The figures of one worker.
pub struct Figures {
    /// Its streams. All workers have the same; the one where a stream arrives knows most of it.
    pub streams: BTreeMap<StreamId, StreamFigures>,
    /// Counts by name, to be summed up.
    pub totals: BTreeMap<&'static str, u64>,
    /// Delays since they were last asked for.
    pub delays: Histogram<u64>,
    /// Processor time of the thread.
    pub seconds: f64,
}

/// The figures of one stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamFigures {
    /// What it is.
    pub kind: Kind,
    /// What came.
    pub counters: leaf_core::streams::Counters,
    /// What was missing, if there is somebody to ask for it.
    pub gaps: leaf_core::gaps::Counters,
    /// The time from asking to a repair.
    pub repair_time: Option<Micros>,
    /// How old its key frame is.
    pub key_age: Option<Micros>,
    /// Payload bytes since that key frame.
    pub gop_bytes: u64,
    /// Memory of its ring.
    pub memory: u64,
    /// How often the pictures since the last key frame did not fit.
    pub overflows: u64,
}

impl Worker {
    /// Count together what there is.
    pub fn figures(&mut self) -> Figures {
        let now = clock::now();
        let streams = self.streams.iter().map(|(id, stream)| {
            let ring = &stream.ring;
            let key = ring.key();
            let since_key = key.map_or(ring.end(), |key| key.index)..ring.end();
            let bytes = since_key
                .filter_map(|index| ring.get(index))
                .map(|it| it.payload.len() as u64);
            let figures = StreamFigures {
                kind: ring.kind(),
                counters: stream.counters,
                gaps: stream.gaps.as_ref().map(Gaps::counters).unwrap_or_default(),
                repair_time: stream.gaps.as_ref().and_then(Gaps::round_trip),
                key_age: key.map(|key| now.saturating_sub(key.arrived)),
                gop_bytes: bytes.sum(),
                memory: ring.memory() as u64,
                overflows: self.states.get(&id).map_or(0, |state| state.overflows),
            };
            (id, figures)
        });
        let streams = streams.collect();
        let mut totals = BTreeMap::from([
            ("viewers", self.crowd.len() as u64),
            ("publishers", self.crowd.publishers().count() as u64),
            ("alien_datagrams", self.refused.alien),
            ("refused_checks", self.refused.checks),
            ("refused_rtcp", self.refused.rtcp),
            ("excess_rtcp", self.refused.excess),
            ("refused_rtp", self.refused.rtp),
            ("refused_srtp", self.refused.srtp),
            ("oversized_datagrams", self.oversized()),
            ("mesh_dropped", self.mesh_dropped),
        ]);
        let batches = self.batches.iter().map(Batch::counters);
        for counters in batches.chain(self.outlets.counters()) {
            for (name, count) in [
                ("datagrams", counters.datagrams),
                ("bytes", counters.bytes),
                ("send_calls", counters.calls),
                ("send_dropped", counters.dropped),
                ("send_unreachable", counters.unreachable),
            ] {
                *totals.entry(name).or_default() += count;
            }
        }
        let repairs = self.streams.repairs();
        totals.extend([
            ("packets_asked", repairs.asked),
            ("packets_repaired", repairs.repaired),
            ("packets_given_up", repairs.given_up),
        ]);
        if let Some(answering) = &self.answering {
            let asked = answering.counters();
            totals.extend([
                ("repairs_asked", asked.asked),
                ("repairs_sent", asked.sent),
                ("repairs_refused", asked.refused),
                ("repairs_unknown", asked.unknown),
                ("repair_strangers", asked.strangers),
                ("repair_malformed", asked.malformed),
            ]);
        }
        let (delays, seconds) = (self.delays.take(), clock::thread_seconds());
        Figures {
            streams,
            totals,
            delays,
            seconds,
        }
    }

    /// Datagrams that were longer than any that belongs here.
    fn oversized(&self) -> u64 {
        let receivers = [&self.from_peers, &self.from_streams];
        let counts = receivers.into_iter().flatten().map(Receiver::truncated);
        counts.sum()
    }

    /// The figures of a viewer.
    pub fn viewer_figures(&self, connection: &Connection, now: Micros) -> ViewerFigures {
        let statistics = connection.viewer.statistics();
        let picture = connection.viewer.picture();
        let milliseconds = |micros: Micros| micros as f64 / 1000.0;
        ViewerFigures {
            state: connection.link.state(),
            stream: picture.and_then(|picture| picture.stream),
            packets: connection.sent.0,
            bytes: connection.sent.1,
            retransmitted: statistics.retransmitted,
            lost: statistics.lost,
            fraction_lost: statistics.fraction_lost,
            jitter_ms: statistics.reported.then(|| milliseconds(statistics.jitter)),
            rtt_ms: statistics.rtt.map(milliseconds),
            nacks: statistics.nacks,
            plis: statistics.refreshes,
            estimate_kbps: connection.viewer.estimate_kbps().map(|kbps| kbps as u64),
            behind_ms: connection.viewer.behind(&self.streams, now).unwrap_or(0) / 1000,
            catching_up: picture.is_some_and(|picture| picture.is_catching_up()),
            changes: statistics.changes,
            address: connection.link.path.map(|path| path.to),
        }
    }
}
