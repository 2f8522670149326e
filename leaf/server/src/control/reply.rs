//! What the controller is answered.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use serde_json::{Map, Number, Value};

use super::publisher::{PublisherAdded, PublisherEntry, Publishers};
use super::request::{Kind, StreamAdd};
use super::value::StreamId;

/// Why a request was not carried out, for the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Code {
    /// Not this protocol.
    Malformed,
    /// No such stream or viewer.
    Unknown,
    /// It is there already.
    Exists,
    /// A value cannot be used.
    Invalid,
    /// A limit is reached.
    Busy,
    /// It could have been done, and went wrong.
    Failed,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// For the controller.
    pub code: Code,
    /// For a person.
    pub detail: String,
}

impl Refusal {
    /// A refusal with what a person should know.
    pub fn new(code: Code, detail: impl fmt::Display) -> Self {
        Self {
            code,
            detail: detail.to_string(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Refusal {}

/// What stands in the member `ok`.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// It was done, and there is nothing to tell.
    Done {},
    /// `viewer.add` and `viewer.import`
    Added(Added),
    /// `viewer.change`
    Changed(Changed),
    /// `viewer.statistics`
    Viewers(Viewers),
    /// `viewer.export` and `viewer.snapshot`
    Taken(Taken),
    /// `publisher.add`
    PublisherAdded(PublisherAdded),
    /// `publisher.statistics`
    Publishers(Publishers),
    /// `stream.key_frame`: null if there is none.
    KeyFrame(Option<KeyFrame>),
    /// `statistics`
    Statistics(Box<Statistics>),
    /// `state`
    State(State),
}

/// Our part of a new viewer's session description.
#[derive(Debug, Clone, Serialize)]
pub struct Added {
    /// Our ICE user name fragment.
    pub ufrag: String,
    /// Our ICE password.
    pub pwd: String,
    /// Our part in the DTLS handshake.
    pub setup: Passive,
    /// SSRC of the picture, if it was negotiated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_ssrc: Option<u32>,
    /// SSRC of its retransmissions, if they have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtx_ssrc: Option<u32>,
    /// SSRC of the sound, if it was negotiated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_ssrc: Option<u32>,
}

/// The only part that we take in the DTLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Passive {
    /// The other side opens it.
    Passive,
}

/// What a change of channel leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Whether the ring has no key frame yet.
    pub waits: bool,
    /// The age of the key frame it starts with.
    pub key_frame_age_ms: Option<u64>,
    /// How many packets it starts behind the newest.
    pub behind_packets: u64,
}

/// The figures of viewers by their ids.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Viewers {
    /// Sorted by id.
    pub viewers: BTreeMap<String, ViewerFigures>,
}

/// How far a viewer's or publisher's connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// Nothing came that is to the point.
    New,
    /// The DTLS handshake goes on.
    Handshaking,
    /// Media flows.
    Up,
}

/// The figures of one viewer since it was added.
#[derive(Debug, Clone, Serialize)]
pub struct ViewerFigures {
    /// How far its connection is.
    pub state: PeerState,
    /// The rendition that is sent.
    pub stream: Option<StreamId>,
    /// RTP packets sent.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets sent again.
    pub retransmitted: u64,
    /// Packets lost, by its receiver reports.
    pub lost: i64,
    /// The share lost in the last report's interval, 0 to 1.
    pub fraction_lost: f64,
    /// Jitter of the last report.
    pub jitter_ms: Option<f64>,
    /// Round-trip time of the last report.
    pub rtt_ms: Option<f64>,
    /// Packets that it asked for again.
    pub nacks: u64,
    /// Key frames that it asked for.
    pub plis: u64,
    /// What its path carries, as it says.
    pub estimate_kbps: Option<u64>,
    /// How far it is behind the newest packet.
    pub behind_ms: u64,
    /// Whether it plays up to the newest packet now.
    pub catching_up: bool,
    /// Channel changes.
    pub changes: u64,
    /// Where its packets go.
    pub address: Option<SocketAddr>,
}

/// A viewer as another process takes it over.
#[derive(Clone, Serialize)]
pub struct Taken {
    /// What `viewer.import` wants. Holds keys.
    pub state: Map<String, Value>,
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken").finish_non_exhaustive()
    }
}

/// A stream's last key frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyFrame {
    /// One access unit with its parameter sets in the byte stream format (H.264, annex B).
    #[serde(serialize_with = "as_base64")]
    pub annex_b: Vec<u8>,
    /// How long ago it came.
    pub age_ms: u64,
}

fn as_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

/// The figures of the process.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Statistics {
    /// By stream.
    pub streams: BTreeMap<StreamId, StreamFigures>,
    /// Sums and counts by name.
    pub totals: BTreeMap<&'static str, u64>,
    /// Between a packet's arrival and its leaving.
    pub delay_ms: Delay,
    /// Processor time by thread, in seconds.
    pub cpu_s: BTreeMap<String, f64>,
}

/// The figures of one stream since it was added.
#[derive(Debug, Clone, Serialize)]
pub struct StreamFigures {
    /// What it carries.
    pub kind: Kind,
    /// RTP packets that came.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that did not come.
    pub lost: u64,
    /// Packets that the parent was asked for.
    pub asked: u64,
    /// Those of them that came.
    pub repaired: u64,
    /// Packets that were missing and are not waited for any more.
    pub given_up: u64,
    /// From asking to the repair, once there was one.
    pub repair_ms: Option<f64>,
    /// Packets that came after their place was left.
    pub late: u64,
    /// Packets that did not follow from those before: of another source, or far away.
    pub strangers: u64,
    /// How often such a source was believed, and the ring begun anew.
    pub restarts: u64,
    /// The age of the last key frame.
    pub key_frame_age_ms: Option<u64>,
    /// Bytes since the last key frame.
    pub gop_bytes: u64,
    /// Bytes in the ring.
    pub ring_bytes: u64,
    /// How often the ring had to drop packets since the last key frame.
    pub overflows: u64,
}

/// Quantiles of a delay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Delay {
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// What was added.
#[derive(Debug, Clone, Default, Serialize)]
pub struct State {
    /// The streams, as they were added.
    pub streams: Vec<StreamAdd>,
    /// The viewers.
    pub viewers: Vec<ViewerEntry>,
    /// The publishers.
    pub publishers: Vec<PublisherEntry>,
}

/// A viewer that was added and is not gone.
#[derive(Debug, Clone, Serialize)]
pub struct ViewerEntry {
    /// The viewer.
    pub viewer: String,
    /// How far its connection is.
    pub state: PeerState,
    /// The group of its streams.
    pub group: String,
    /// The rendition that is sent.
    pub stream: Option<StreamId>,
    /// Whether it stays there.
    pub pinned: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    id: Option<&'a Number>,
    #[serde(flatten)]
    result: Outcome<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome<'a> {
    Ok(&'a Reply),
    Error(&'a Refusal),
}

/// The line that answers a request, without its end. Without an id (there was none) it is null.
pub fn line(id: Option<&Number>, result: Result<&Reply, &Refusal>) -> String {
    let result = result.map_or_else(Outcome::Error, Outcome::Ok);
    serde_json::to_string(&Answer { id, result }).unwrap_or_else(|error| {
        // A map with keys that are no texts; none of the types above has one.
        let refusal = Refusal::new(Code::Failed, error);
        serde_json::json!({"id": id, "error": refusal}).to_string()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(result: Result<&Reply, &Refusal>) -> Value {
        serde_json::from_str(&line(Some(&Number::from(3)), result)).unwrap()
    }

    #[test]
    fn replies_as_in_the_protocol_document() {
        let added = Added {
            ufrag: "u".into(),
            pwd: "p".into(),
            setup: Passive::Passive,
            video_ssrc: Some(1),
            rtx_ssrc: None,
            audio_ssrc: Some(3),
        };
        let changed = Changed {
            waits: false,
            key_frame_age_ms: Some(812),
            behind_packets: 96,
        };
        let key_frame = KeyFrame {
            annex_b: vec![0, 0, 0, 1, 0x65],
            age_ms: 120,
        };
        for (reply, expected) in [
            (Reply::Done {}, json!({})),
            (
                Reply::Added(added),
                json!({"ufrag": "u", "pwd": "p", "setup": "passive", "video_ssrc": 1,
                       "audio_ssrc": 3}),
            ),
            (
                Reply::Changed(changed),
                json!({"waits": false, "key_frame_age_ms": 812, "behind_packets": 96}),
            ),
            (Reply::KeyFrame(None), json!(null)),
            (
                Reply::KeyFrame(Some(key_frame)),
                json!({"annex_b": "AAAAAWU=", "age_ms": 120}),
            ),
            (
                Reply::State(State::default()),
                json!({"streams": [], "viewers": [], "publishers": []}),
            ),
            (Reply::Viewers(Viewers::default()), json!({"viewers": {}})),
        ] {
            assert_eq!(parsed(Ok(&reply)), json!({"id": 3, "ok": expected}));
        }
    }

    #[test]
    fn stream_numbers_are_keys_of_the_statistics() {
        let figures = StreamFigures {
            kind: Kind::Audio,
            packets: 1,
            bytes: 2,
            lost: 0,
            asked: 0,
            repaired: 0,
            given_up: 0,
            repair_ms: None,
            late: 0,
            strangers: 0,
            restarts: 0,
            key_frame_age_ms: None,
            gop_bytes: 0,
            ring_bytes: 2,
            overflows: 0,
        };
        let statistics = Statistics {
            streams: [(7, figures)].into(),
            ..Statistics::default()
        };
        let reply = parsed(Ok(&Reply::Statistics(Box::new(statistics))));
        assert_eq!(reply["ok"]["streams"]["7"]["packets"], 1);
        assert_eq!(reply["ok"]["delay_ms"]["p99"], 0.0);
    }

    #[test]
    fn refusals_have_code_and_detail() {
        let refusal = Refusal::new(Code::Unknown, "no viewer 5f2c");
        assert_eq!(
            parsed(Err(&refusal)),
            json!({"id": 3, "error": {"code": "unknown", "detail": "no viewer 5f2c"}})
        );
        let line = line(None, Err(&refusal));
        assert!(serde_json::from_str::<Value>(&line).unwrap()["id"].is_null());
    }
}
