//! What the controller asks for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::publisher::{PublisherAdd, PublisherKeyFrame, PublisherOnly, PublisherStatistics};
use super::reply::{Code, Refusal};
use super::value::{
    Clock, ExtensionId, IcePwd, IceUfrag, Jump, Kbps, Name, PayloadType, Port, RingBytes, StreamId,
    Text,
};
use crate::log::Level;

/// The renditions of one ladder at most.
const LADDER: usize = 16;
/// The longest text of a one-byte header extension (RFC 8285, section 4.2).
const EXTENSION_TEXT: usize = 16;

/// A request, by its member `do`.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// `stream.add`
    StreamAdd(StreamAdd),
    /// `stream.parent`
    StreamParent(StreamParent),
    /// `stream.remove`
    StreamRemove(StreamOnly),
    /// `stream.key_frame`
    StreamKeyFrame(StreamOnly),
    /// `viewer.add`
    ViewerAdd(Box<ViewerAdd>),
    /// `viewer.change`
    ViewerChange(ViewerChange),
    /// `viewer.close`
    ViewerClose(ViewerOnly),
    /// `viewer.statistics`
    ViewerStatistics(ViewerStatistics),
    /// `viewer.export`
    ViewerExport(ViewerOnly),
    /// `viewer.snapshot`
    ViewerSnapshot(ViewerOnly),
    /// `viewer.import`
    ViewerImport(ViewerImport),
    /// `publisher.add`
    PublisherAdd(Box<PublisherAdd>),
    /// `publisher.key_frame`
    PublisherKeyFrame(PublisherKeyFrame),
    /// `publisher.close`
    PublisherClose(PublisherOnly),
    /// `publisher.statistics`
    PublisherStatistics(PublisherStatistics),
    /// `statistics`
    Statistics,
    /// `state`
    State,
    /// `log`
    Log(LogLevel),
}

/// A line of the controller that was read: its id and what it asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// The request's id, or None if there is none to answer to.
    pub id: Option<Number>,
    /// The request, or why there is none.
    pub request: Result<Request, Refusal>,
}

impl Incoming {
    /// Read one line.
    ///
    /// `malformed` is what is not JSON, no object, without an integer `id`, or with an unknown `do`;
    /// `invalid` a request in which a member is missing or has a value that cannot be used.
    pub fn read(line: &[u8]) -> Self {
        let mut members: Map<String, Value> = match serde_json::from_slice(line) {
            Ok(members) => members,
            Err(error) => {
                return Self {
                    id: None,
                    request: malformed(error),
                };
            }
        };
        let id = match members.remove("id") {
            Some(Value::Number(id)) if !id.is_f64() => id,
            _ => {
                return Self {
                    id: None,
                    request: malformed("id: expected an integer"),
                };
            }
        };
        let request = match members.remove("do") {
            Some(Value::String(what)) => read_request(&what, members),
            _ => malformed("do: expected a text"),
        };
        Self {
            id: Some(id),
            request,
        }
    }
}

fn malformed<T>(why: impl fmt::Display) -> Result<T, Refusal> {
    Err(Refusal::new(Code::Malformed, why))
}

fn invalid(why: impl fmt::Display) -> Refusal {
    Refusal::new(Code::Invalid, why)
}

fn read_request(what: &str, members: Map<String, Value>) -> Result<Request, Refusal> {
    Ok(match what {
        "stream.add" => Request::StreamAdd(read(members)?),
        "stream.parent" => Request::StreamParent(read(members)?),
        "stream.remove" => Request::StreamRemove(read(members)?),
        "stream.key_frame" => Request::StreamKeyFrame(read(members)?),
        "viewer.add" => Request::ViewerAdd(Box::new(read::<ViewerAdd>(members)?.checked()?)),
        "viewer.change" => Request::ViewerChange(read::<ViewerChange>(members)?.checked()?),
        "viewer.close" => Request::ViewerClose(read(members)?),
        "viewer.statistics" => Request::ViewerStatistics(read(members)?),
        "viewer.export" => Request::ViewerExport(read(members)?),
        "viewer.snapshot" => Request::ViewerSnapshot(read(members)?),
        "viewer.import" => Request::ViewerImport(read(members)?),
        "publisher.add" => {
            Request::PublisherAdd(Box::new(read::<PublisherAdd>(members)?.checked()?))
        }
        "publisher.key_frame" => Request::PublisherKeyFrame(read(members)?),
        "publisher.close" => Request::PublisherClose(read(members)?),
        "publisher.statistics" => Request::PublisherStatistics(read(members)?),
        "statistics" => Request::Statistics,
        "state" => Request::State,
        "log" => Request::Log(read(members)?),
        _ => return malformed(format_args!("do: unknown {what:?}")),
    })
}

fn read<T: DeserializeOwned>(members: Map<String, Value>) -> Result<T, Refusal> {
    T::deserialize(Value::Object(members)).map_err(invalid)
}

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// H.264.
    Video,
    /// Opus.
    Audio,
}

/// `stream.add`: an RTP stream arrives at an address. Reported back by `state` as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamAdd {
    /// Its number.
    pub stream: StreamId,
    /// What it carries.
    pub kind: Kind,
    /// The port where it arrives.
    pub port: Port,
    /// The local address where it arrives.
    pub address: IpAddr,
    /// What it is called.
    pub name: Name,
    /// The streams of one group have one RTP time.
    pub group: Name,
    /// Its RTP clock rate.
    pub clock: Clock,
    /// Its bitrate.
    pub kbps: Kbps,
    /// The limit of its ring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<RingBytes>,
    /// Who is asked for lost packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SocketAddr>,
}

/// `stream.parent`: who is asked for lost packets from now on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StreamParent {
    /// The stream's number.
    pub stream: StreamId,
    /// Who, or None for nobody.
    #[serde(default)]
    pub parent: Option<SocketAddr>,
}

/// A request about one stream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StreamOnly {
    /// Its number.
    pub stream: StreamId,
}

/// A request about one viewer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ViewerOnly {
    /// The viewer.
    pub viewer: Name,
}

/// `viewer.statistics`: of one viewer or of all.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ViewerStatistics {
    /// The viewer, or None for all.
    #[serde(default)]
    pub viewer: Option<Name>,
}

/// `viewer.add`: a viewer will connect.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ViewerAdd {
    /// The viewer.
    pub viewer: Name,
    /// The other end of the connection.
    pub remote: Remote,
    /// The picture, if it was negotiated.
    #[serde(default)]
    pub video: Option<Media>,
    /// The sound, if it was negotiated.
    #[serde(default)]
    pub audio: Option<Media>,
    /// What to send at first.
    #[serde(flatten)]
    pub channel: Channel,
    /// The RTCP CNAME (RFC 3550, section 6.5.1).
    pub cname: Name,
}

impl ViewerAdd {
    fn checked(self) -> Result<Self, Refusal> {
        self.channel.check()?;
        if self.video.is_none() && self.audio.is_none() {
            return Err(invalid("neither video nor audio"));
        }
        for media in [&self.video, &self.audio].into_iter().flatten() {
            media.check()?;
        }
        Ok(self)
    }
}

/// What a viewer's or publisher's session description says about its connection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Remote {
    /// Its ICE user name fragment.
    pub ufrag: IceUfrag,
    /// Its ICE password.
    pub pwd: IcePwd,
    /// Its certificate's fingerprint, `sha-256 AB:…` (RFC 8122, section 5).
    pub fingerprint: Name,
    /// Its part in the DTLS handshake.
    pub setup: Setup,
}

/// The other side's part in the DTLS handshake (RFC 5763, section 5). Ours is `passive`, so that
/// theirs cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Setup {
    /// It opens the handshake.
    Active,
    /// It leaves the choice to us.
    Actpass,
}

/// What was negotiated for the picture or the sound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// RTP payload type.
    pub payload_type: PayloadType,
    /// Payload type of retransmissions (RFC 4588), if they have one of their own.
    #[serde(default)]
    pub rtx_payload_type: Option<PayloadType>,
    /// The media section's name (RFC 5888).
    pub mid: Text<1, 200>,
    /// The header extensions.
    #[serde(default)]
    pub extensions: Extensions,
}

impl Media {
    fn check(&self) -> Result<(), Refusal> {
        if self.rtx_payload_type == Some(self.payload_type) {
            return Err(invalid("rtx_payload_type: the same as payload_type"));
        }
        let Extensions {
            abs_send_time,
            mid,
            playout_delay,
        } = self.extensions;
        let mut ids: Vec<_> = [abs_send_time, mid, playout_delay]
            .into_iter()
            .flatten()
            .collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() < count {
            return Err(invalid("extensions: two with the same id"));
        }
        Ok(())
    }

    /// Id and text of the `mid` header extension (RFC 9143, section 15), if it was negotiated and its
    /// text is short enough for the one-byte form.
    pub fn mid_extension(&self) -> Option<(ExtensionId, &str)> {
        let id = self.extensions.mid?;
        Some((id, self.mid.as_str())).filter(|(_, mid)| mid.len() <= EXTENSION_TEXT)
    }
}

/// Ids of the header extensions that were negotiated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Extensions {
    /// When the packet left.
    #[serde(default)]
    pub abs_send_time: Option<ExtensionId>,
    /// The media section (RFC 9143).
    #[serde(default)]
    pub mid: Option<ExtensionId>,
    /// How long a picture may be held back.
    #[serde(default)]
    pub playout_delay: Option<ExtensionId>,
}

/// One rendition of a ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// Its stream.
    pub stream: StreamId,
    /// Its bitrate.
    pub kbps: Kbps,
}

/// The renditions of a channel, 1 to 16 of them, from the highest bitrate to the lowest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Rung>")]
pub struct Ladder(Vec<Rung>);

impl Ladder {
    /// The renditions.
    pub fn rungs(&self) -> &[Rung] {
        &self.0
    }
}

impl TryFrom<Vec<Rung>> for Ladder {
    type Error = String;

    fn try_from(rungs: Vec<Rung>) -> Result<Self, String> {
        if rungs.is_empty() || rungs.len() > LADDER {
            return Err(format!(
                "a ladder of {} renditions, expected 1 to {LADDER}",
                rungs.len()
            ));
        }
        if !rungs.is_sorted_by(|above, below| above.kbps >= below.kbps) {
            return Err("a ladder that does not go down in kbps".into());
        }
        Ok(Self(rungs))
    }
}

/// What a viewer gets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Channel {
    /// The group of the streams.
    pub group: Name,
    /// The renditions of the picture.
    pub ladder: Ladder,
    /// The stream of the sound.
    #[serde(default)]
    pub sound: Option<StreamId>,
    /// Index of the rendition to send first; in the ladder.
    #[serde(default)]
    pub start: usize,
    /// Whether it stays there.
    #[serde(default)]
    pub pinned: bool,
}

impl Channel {
    fn check(&self) -> Result<(), Refusal> {
        let rungs = self.ladder.rungs().len();
        if self.start < rungs {
            Ok(())
        } else {
            Err(invalid(format_args!(
                "start: {} in a ladder of {rungs}",
                self.start
            )))
        }
    }
}

/// `viewer.change`: another channel or rendition.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ViewerChange {
    /// The viewer.
    pub viewer: Name,
    /// What to send from now on.
    #[serde(flatten)]
    pub channel: Channel,
}

impl ViewerChange {
    fn checked(self) -> Result<Self, Refusal> {
        self.channel.check().map(|()| self)
    }
}

/// `viewer.import`: take over a viewer of another process.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ViewerImport {
    /// What `viewer.export` or `viewer.snapshot` gave.
    pub state: Map<String, Value>,
    /// Sequence numbers to leave out.
    pub jump: Jump,
    /// The renditions, by this process's stream numbers.
    pub ladder: Ladder,
    /// The stream of the sound.
    #[serde(default)]
    pub sound: Option<StreamId>,
}

/// `log`: what is logged from now on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogLevel {
    /// The least level.
    pub level: Level,
}

#[cfg(test)]
mod tests;
