//! Requests about publishers, and their replies.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use leaf_core::publisher::MAX_TRACKS;
use serde::{Deserialize, Serialize};

use super::reply::{Code, Passive, PeerState, Refusal};
use super::request::{Kind, Remote};
use super::value::{Clock, ExtensionId, Kbps, Name, PayloadType, Text};

/// SSRCs or payload types of one track at most.
const MAX_NUMBERS: usize = 32;

/// `publisher.add`: a publisher will connect.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PublisherAdd {
    /// The publisher.
    pub publisher: Name,
    /// The other end of the connection.
    pub remote: Remote,
    /// What it will send.
    pub tracks: Vec<Track>,
    /// The most that it is to send.
    #[serde(default)]
    pub kbps: Option<Kbps>,
}

/// One track of a publisher. Reported back by `state` as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// The media section's name (RFC 5888).
    pub mid: Text<1, 200>,
    /// What it carries.
    pub kind: Kind,
    /// Its RTP clock rate.
    pub clock: Clock,
    /// Its RTP payload types.
    pub payload_types: Vec<PayloadType>,
    /// Payload types of retransmissions (RFC 4588), each with that of what it sends again.
    #[serde(default)]
    pub rtx: BTreeMap<PayloadType, PayloadType>,
    /// SSRCs that its description tells.
    #[serde(default)]
    pub ssrcs: Vec<u32>,
    /// The header extensions.
    #[serde(default)]
    pub extensions: TrackExtensions,
    /// The RTCP feedback that was agreed on (RFC 4585 section 4.2): `nack`, `pli` and `remb` are used.
    #[serde(default)]
    pub feedback: Vec<Name>,
    /// Where its packets go; its sender reports go to the port after that.
    pub to: SocketAddr,
}

/// Ids of the header extensions that were negotiated for a track.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackExtensions {
    /// The media section (RFC 9143).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mid: Option<ExtensionId>,
}

impl Track {
    /// Whether this feedback was agreed on.
    pub fn wants(&self, feedback: &str) -> bool {
        self.feedback.iter().any(|it| it.as_str() == feedback)
    }

    fn check(&self) -> Result<(), Refusal> {
        let mid = self.mid.as_str();
        let invalid = |why: &str| {
            Err(Refusal::new(
                Code::Invalid,
                format_args!("track {mid}: {why}"),
            ))
        };
        let (media, rtx) = (&self.payload_types, &self.rtx);
        if media.is_empty() {
            return invalid("payload_types: none");
        }
        if [media.len(), rtx.len(), self.ssrcs.len()]
            .into_iter()
            .any(|count| count > MAX_NUMBERS)
        {
            return invalid("more than 32 payload types or SSRCs");
        }
        if rtx.keys().any(|it| media.contains(it)) || rtx.values().any(|it| !media.contains(it)) {
            return invalid("rtx: not from another payload type to one of payload_types");
        }
        if !(1..u16::MAX).contains(&self.to.port()) {
            return invalid("to: expected a port from 1 to 65534");
        }
        Ok(())
    }
}

impl PublisherAdd {
    /// The request, if its members fit each other.
    ///
    /// # Errors
    /// What does not.
    pub fn checked(self) -> Result<Self, Refusal> {
        let invalid = |why: &str| Err(Refusal::new(Code::Invalid, format_args!("tracks: {why}")));
        if !(1..=MAX_TRACKS).contains(&self.tracks.len()) {
            return invalid("expected 1 to 8");
        }
        self.tracks.iter().try_for_each(Track::check)?;
        let (mut mids, mut places) = (HashSet::new(), HashSet::new());
        for track in &self.tracks {
            if !mids.insert(track.mid.as_str()) {
                return invalid("two with the same mid");
            }
            let (ip, port) = (track.to.ip(), track.to.port());
            if !places.insert((ip, port)) | !places.insert((ip, port + 1)) {
                return invalid("two that go to the same port");
            }
        }
        Ok(self)
    }
}

/// A request about one publisher.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PublisherOnly {
    /// The publisher.
    pub publisher: Name,
}

/// `publisher.statistics`: of one publisher or of all.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PublisherStatistics {
    /// The publisher, or None for all.
    #[serde(default)]
    pub publisher: Option<Name>,
}

/// Our part of a new publisher's session description.
#[derive(Debug, Clone, Serialize)]
pub struct PublisherAdded {
    /// Our ICE user name fragment.
    pub ufrag: String,
    /// Our ICE password.
    pub pwd: String,
    /// Our part in the DTLS handshake.
    pub setup: Passive,
}

/// The figures of publishers by their ids.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Publishers {
    /// Sorted by id.
    pub publishers: BTreeMap<String, PublisherFigures>,
}

/// The figures of one publisher since it was added.
#[derive(Debug, Clone, Serialize)]
pub struct PublisherFigures {
    /// How far its connection is.
    pub state: PeerState,
    /// Where its packets come from.
    pub address: Option<SocketAddr>,
    /// How long ago something came from it.
    pub silent_ms: u64,
    /// Round-trip time, once it was asked for a packet and sent it.
    pub rtt_ms: Option<f64>,
    /// The bitrate that it is told by REMB.
    pub kbps: u64,
    /// Packets that belong to no track.
    pub strangers: u64,
    /// By the name of the media section.
    pub tracks: BTreeMap<String, TrackFigures>,
}

/// The figures of one track.
#[derive(Debug, Clone, Serialize)]
pub struct TrackFigures {
    /// RTP packets passed on.
    pub packets: u64,
    /// Bytes of their payload.
    pub bytes: u64,
    /// Packets that did not come, not even by retransmission.
    pub lost: u64,
    /// Packets that came after they were asked for.
    pub repaired: u64,
    /// Packets that were asked for, each time.
    pub nacks: u64,
    /// Key frames that were asked for.
    pub plis: u64,
    /// Packets that came more than once, or too late.
    pub useless: u64,
    /// Interarrival jitter.
    pub jitter_ms: f64,
}

/// A publisher that was added and is not gone.
#[derive(Debug, Clone, Serialize)]
pub struct PublisherEntry {
    /// The publisher.
    pub publisher: String,
    /// How far its connection is.
    pub state: PeerState,
    /// Where its packets come from.
    pub address: Option<SocketAddr>,
    /// Its tracks, as they were added.
    pub tracks: Vec<Track>,
}

#[cfg(test)]
mod tests;
