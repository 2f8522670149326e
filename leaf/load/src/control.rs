//! The control protocol: one JSON object per line, requests on standard input, replies and events
//! on standard output. The crate's documentation has its words.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::clock::Micros;
use crate::figures::{Figures, Percentiles};
use crate::media::Agreed;

/// Version of the protocol.
pub const PROTOCOL: u32 = 1;

/// A line from the controller.
#[derive(Debug, Deserialize)]
pub struct Request {
    /// Number that the reply has, too.
    pub id: i64,
    /// What to do.
    #[serde(flatten)]
    pub command: Command,
}

/// What the controller may ask for.
#[derive(Debug, Deserialize)]
#[serde(tag = "do")]
pub enum Command {
    /// Have a viewer connect.
    #[serde(rename = "add")]
    Add(Box<Add>),
    /// Have a viewer say goodbye, and forget it.
    #[serde(rename = "remove")]
    Remove {
        /// Its name.
        viewer: String,
    },
    /// Tell when the first packet of a key frame of a stream arrives.
    #[serde(rename = "await")]
    Await {
        /// The viewer that it is to arrive at.
        viewer: String,
        /// Number of the stream in its stamps.
        stream: u32,
    },
    /// Tell what was counted.
    #[serde(rename = "statistics")]
    Statistics {
        /// Whether the delays begin anew afterwards.
        #[serde(default)]
        reset: bool,
        /// Whether every viewer's figures are wanted, beside the sums.
        #[serde(default)]
        each: bool,
    },
}

/// A viewer that is to connect.
#[derive(Debug, Deserialize)]
pub struct Add {
    /// A name of the controller's choice.
    pub viewer: String,
    /// What the other side's description says.
    pub remote: Remote,
    /// What the description of this viewer says, beside the fingerprint of the greeting.
    pub local: Local,
    /// The media.
    #[serde(flatten)]
    pub agreed: Agreed,
}

/// The other side of a connection.
#[derive(Debug, Deserialize)]
pub struct Remote {
    /// Its candidate.
    pub address: SocketAddr,
    /// Its user name fragment.
    pub ufrag: String,
    /// Its password.
    pub pwd: String,
    /// Of its certificate.
    pub fingerprint: String,
}

/// This side of a connection.
#[derive(Debug, Deserialize)]
pub struct Local {
    /// User name fragment.
    pub ufrag: String,
    /// Password.
    pub pwd: String,
}

/// A line to the controller.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Message {
    /// A request was carried out.
    Done {
        /// Its number.
        id: i64,
        /// What came of it.
        ok: Done,
    },
    /// A request was not carried out.
    Refused {
        /// Its number; 0 if it has none that could be read.
        id: i64,
        /// Why.
        error: Refusal,
    },
    /// Something happened.
    Event(Event),
}

/// What came of a request.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Done {
    /// Nothing to tell.
    Nothing {},
    /// What was counted.
    Statistics(Box<Statistics>),
}

/// The reply to [`Command::Statistics`].
#[derive(Debug, Serialize)]
pub struct Statistics {
    /// When these figures were taken.
    pub at_us: Micros,
    /// How many viewers there are.
    pub viewers: usize,
    /// How many of them are connected.
    pub up: usize,
    /// Sums over the viewers that there are.
    pub totals: Figures,
    /// Of all viewers' packets that were looked into.
    pub delay_us: Percentiles,
    /// By name, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each: Option<BTreeMap<String, Figures>>,
}

/// Why a request was not carried out.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// `malformed`, `unknown`, `exists`, `invalid` or `failed`.
    pub code: &'static str,
    /// In words.
    pub detail: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: &'static str, detail: impl ToString) -> Self {
        Self {
            code,
            detail: detail.to_string(),
        }
    }
}

/// What happened, and when.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event")]
pub enum Event {
    /// The first line.
    #[serde(rename = "hello")]
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Of this process.
        pid: u32,
        /// Of the certificate of all viewers.
        fingerprint: String,
    },
    /// A viewer is connected.
    #[serde(rename = "viewer.up")]
    Up {
        /// Its name.
        viewer: String,
        /// When.
        at_us: Micros,
    },
    /// A viewer's connection has ended, by the other side or because it cannot go on.
    #[serde(rename = "viewer.gone")]
    Gone {
        /// Its name.
        viewer: String,
        /// When.
        at_us: Micros,
        /// `closed`, or what went wrong.
        why: String,
    },
    /// The first packet of a key frame of the stream that was awaited has arrived.
    #[serde(rename = "viewer.arrived")]
    Arrived {
        /// The viewer's name.
        viewer: String,
        /// When the kernel received it.
        at_us: Micros,
        /// The stream.
        stream: u32,
    },
}

/// Reads a line.
///
/// # Errors
///
/// The message that says so if it is no request.
pub fn read(line: &str) -> Result<Request, Message> {
    serde_json::from_str(line).map_err(|error| {
        let id = serde_json::from_str::<Numbered>(line).map_or(0, |line| line.id);
        Message::Refused {
            id,
            error: Refusal::new("malformed", error),
        }
    })
}

#[derive(Deserialize)]
struct Numbered {
    id: i64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_viewer_is_described() {
        let line = json!({
            "do": "add", "id": 3, "viewer": "v1",
            "remote": {"address": "[::1]:4000", "ufrag": "a", "pwd": "b", "fingerprint": "sha-256 AB"},
            "local": {"ufrag": "c", "pwd": "d"},
            "video": {"payload_type": 102, "rtx_payload_type": 103}, "audio": {"payload_type": 111},
            "remb_kbps": 900, "unknown": 1,
        });
        let request = read(&line.to_string()).unwrap();
        let Command::Add(add) = request.command else {
            panic!("{request:?}");
        };
        assert_eq!((request.id, add.viewer.as_str()), (3, "v1"));
        let video = add.agreed.video.unwrap();
        assert_eq!(
            (video.payload_type, video.rtx_payload_type),
            (102, Some(103))
        );
        assert_eq!((add.agreed.nack, add.agreed.remb_kbps), (true, Some(900)));
    }

    #[test]
    fn what_is_no_request_is_refused_by_its_number() {
        for (line, expected) in [
            ("", 0),
            ("[]", 0),
            (r#"{"do": "statistics"}"#, 0),
            (r#"{"do": "nothing", "id": 4}"#, 4),
            (r#"{"do": "add", "id": 5, "viewer": 6}"#, 5),
        ] {
            let Err(Message::Refused { id, error }) = read(line) else {
                panic!("{line} was taken");
            };
            assert_eq!((id, error.code), (expected, "malformed"));
        }
    }

    #[test]
    fn messages_have_the_shape_that_is_documented() {
        let gone = Event::Gone {
            viewer: "v".into(),
            at_us: 5,
            why: "closed".into(),
        };
        let cases = [
            (
                Message::Done {
                    id: 1,
                    ok: Done::Nothing {},
                },
                json!({"id": 1, "ok": {}}),
            ),
            (
                Message::Event(gone),
                json!({"event": "viewer.gone", "viewer": "v", "at_us": 5, "why": "closed"}),
            ),
        ];
        for (message, expected) in cases {
            assert_eq!(serde_json::to_value(message).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line: String) {
            prop_assert!(read(&line).is_err());
        }
    }
}
