//! Requests about publishers, and their replies.

use std::collections::{BTreeMap, HashMap, HashSet};
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
    /// The renditions that its layers are to be, if they fit.
    #[serde(default)]
    pub passing: Option<PassingTo>,
}

/// What layers are to be, without decoding.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PassingTo {
    /// Time of day at RTP time zero of all streams, in milliseconds since 1970.
    pub epoch_ms: u64,
    /// The renditions, the best one first.
    pub renditions: Vec<StreamTo>,
    /// The sound.
    pub sound: StreamTo,
}

/// A stream of a channel, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StreamTo {
    /// Its name.
    pub name: Name,
    /// Its first SSRC: each time that it begins anew it has another one.
    pub ssrc: u32,
    /// Its RTP payload type.
    pub payload_type: PayloadType,
    /// Its nominal bitrate.
    pub kbps: Kbps,
    /// Where its packets go.
    pub to: SocketAddr,
}

impl PassingTo {
    /// All streams.
    pub fn streams(&self) -> impl Iterator<Item = &StreamTo> {
        self.renditions.iter().chain([&self.sound])
    }

    fn check(&self) -> Result<(), Refusal> {
        let invalid = |why: &str| Err(Refusal::new(Code::Invalid, format_args!("passing: {why}")));
        if !(1..=MAX_TRACKS).contains(&self.renditions.len()) {
            return invalid("expected 1 to 8 renditions");
        }
        let (mut names, mut places) = (HashSet::new(), HashSet::new());
        for stream in self.streams() {
            if stream.to.port() == 0 || !places.insert(stream.to) {
                return invalid("two that go to the same port, or one to port 0");
            }
            if !names.insert(stream.name.as_str()) {
                return invalid("two of the same name");
            }
        }
        Ok(())
    }
}

/// One track of a publisher. Reported back by `state` as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// The media section's name (RFC 5888).
    pub mid: Text<1, 200>,
    /// The layer's name, if its section is sent in several (RFC 8851).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rid: Option<Text<1, 255>>,
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
    /// The layer (RFC 8852).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rid: Option<ExtensionId>,
    /// The layer that is sent again (RFC 8852).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired_rid: Option<ExtensionId>,
}

impl Track {
    /// Whether this feedback was agreed on.
    pub fn wants(&self, feedback: &str) -> bool {
        self.feedback.iter().any(|it| it.as_str() == feedback)
    }

    /// The layer's name.
    pub fn layer(&self) -> Option<&str> {
        self.rid.as_ref().map(|rid| rid.as_str())
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
        let (mut names, mut places) = (HashSet::new(), HashMap::new());
        for track in &self.tracks {
            let (mid, rid) = (track.mid.as_str(), track.layer());
            if !names.insert((mid, rid)) {
                return invalid("two with the same mid, and rid");
            }
            // A section is decoded as one, whichever of its layers that is.
            let whose = (mid, rid.is_some());
            for port in [track.to.port(), track.to.port() + 1] {
                let place = (track.to.ip(), port);
                let other = places.insert(place, whose);
                if other.is_some_and(|other| other != whose || rid.is_none()) {
                    return invalid("two that go to the same port");
                }
            }
        }
        let mut layers = self.tracks.iter().filter(|it| it.rid.is_some());
        let first = layers.next();
        if first.is_some() != self.passing.is_some() {
            return invalid("layers are for passing, and passing for layers");
        }
        if first.is_some_and(|first| layers.any(|it| it.mid != first.mid || it.to != first.to)) {
            return invalid("layers of two sections, or that go to two ports");
        }
        if self
            .tracks
            .iter()
            .any(|it| it.rid.is_some() && it.kind != Kind::Video)
        {
            return invalid("layers of sound");
        }
        if let Some(passing) = &self.passing {
            passing.check()?;
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

/// `publisher.key_frame`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PublisherKeyFrame {
    /// The publisher.
    pub publisher: Name,
    /// Of the layer that is this rendition now, or None for all pictures.
    #[serde(default)]
    pub rendition: Option<Name>,
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
    /// By the name of the media section; layers by `MID:RID`.
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
