//! What the controller is told without asking.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use super::value::StreamId;

/// The protocol's version, told in [`Hello`].
pub const PROTOCOL: u32 = 1;

/// What a controller gets first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The program's version.
    pub version: &'static str,
    /// The process's id.
    pub pid: u32,
    /// Our certificate's fingerprint, `sha-256 AB:…`.
    pub fingerprint: String,
    /// Where viewers' packets arrive.
    pub listen: Vec<SocketAddr>,
    /// Where other servers ask for packets, if they may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<SocketAddr>,
    /// Number of workers.
    pub threads: usize,
}

/// An event, by its member `event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event")]
pub enum Event {
    /// A controller connected.
    #[serde(rename = "hello")]
    Hello(Hello),
    /// DTLS is done, media flows.
    #[serde(rename = "viewer.up")]
    ViewerUp {
        /// The viewer.
        viewer: String,
        /// Where its packets go.
        address: SocketAddr,
    },
    /// The viewer's connection is over.
    #[serde(rename = "viewer.gone")]
    ViewerGone {
        /// The viewer.
        viewer: String,
        /// How it ended.
        why: Gone,
    },
    /// DTLS is done, a publisher's media is passed on.
    #[serde(rename = "publisher.up")]
    PublisherUp {
        /// The publisher.
        publisher: String,
        /// Where its packets come from.
        address: SocketAddr,
    },
    /// The publisher's connection is over.
    #[serde(rename = "publisher.gone")]
    PublisherGone {
        /// The publisher.
        publisher: String,
        /// How it ended.
        why: Gone,
    },
    /// Other layers of a publisher are the renditions, or none are.
    #[serde(rename = "publisher.passing")]
    PublisherPassing {
        /// The publisher.
        publisher: String,
        /// By rendition the layer that is sent as it, or null.
        renditions: BTreeMap<String, Option<String>>,
        /// Why they are decoded instead, for good.
        #[serde(skip_serializing_if = "Option::is_none")]
        unfit: Option<String>,
    },
    /// Another rendition is sent.
    #[serde(rename = "viewer.stream")]
    ViewerStream {
        /// The viewer.
        viewer: String,
        /// What is sent now.
        stream: StreamId,
        /// What led to it.
        why: &'static str,
    },
    /// A viewer should go to a stream that was not added.
    #[serde(rename = "stream.wanted")]
    StreamWanted {
        /// The stream.
        stream: StreamId,
    },
    /// The ring has no key frame.
    #[serde(rename = "key_frame.wanted")]
    KeyFrameWanted {
        /// The stream.
        stream: StreamId,
    },
    /// A stream began, ended, or has another picture size.
    #[serde(rename = "stream.state")]
    StreamState {
        /// The stream.
        stream: StreamId,
        /// Whether packets come.
        receiving: bool,
        /// Width and height in pixels, once they are known.
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<(u32, u32)>,
    },
    /// The key frames of a stream are further apart than its ring holds.
    #[serde(rename = "stream.overflow")]
    StreamOverflow {
        /// The stream.
        stream: StreamId,
        /// Bytes since the last key frame.
        bytes: u64,
    },
}

/// How a viewer's or publisher's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gone {
    /// By the other side.
    Closed,
    /// Nothing was heard of it.
    Silent,
    /// It did not come up.
    Never,
    /// Its DTLS handshake failed.
    Failed,
    /// By us.
    Dropped,
    /// Another process goes on with it.
    Moved,
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;

    #[test]
    fn events_as_in_the_protocol_document() {
        let address = "192.0.2.1:50000".parse().unwrap();
        let viewer = || "v".to_owned();
        let hello = Hello {
            protocol: PROTOCOL,
            version: "0.1.0",
            pid: 4711,
            fingerprint: "sha-256 AB".into(),
            listen: vec!["[fd00::2]:40000".parse().unwrap()],
            repair: None,
            threads: 1,
        };
        for (event, expected) in [
            (
                Event::Hello(hello),
                json!({"event": "hello", "protocol": 1, "version": "0.1.0", "pid": 4711,
                       "fingerprint": "sha-256 AB", "listen": ["[fd00::2]:40000"], "threads": 1}),
            ),
            (
                Event::ViewerUp {
                    viewer: viewer(),
                    address,
                },
                json!({"event": "viewer.up", "viewer": "v", "address": "192.0.2.1:50000"}),
            ),
            (
                Event::ViewerGone {
                    viewer: viewer(),
                    why: Gone::Silent,
                },
                json!({"event": "viewer.gone", "viewer": "v", "why": "silent"}),
            ),
            (
                Event::PublisherUp {
                    publisher: "p".into(),
                    address,
                },
                json!({"event": "publisher.up", "publisher": "p", "address": "192.0.2.1:50000"}),
            ),
            (
                Event::PublisherGone {
                    publisher: "p".into(),
                    why: Gone::Dropped,
                },
                json!({"event": "publisher.gone", "publisher": "p", "why": "dropped"}),
            ),
            (
                Event::ViewerStream {
                    viewer: viewer(),
                    stream: 8,
                    why: "estimate",
                },
                json!({"event": "viewer.stream", "viewer": "v", "stream": 8, "why": "estimate"}),
            ),
            (
                Event::StreamWanted { stream: 8 },
                json!({"event": "stream.wanted", "stream": 8}),
            ),
            (
                Event::KeyFrameWanted { stream: 7 },
                json!({"event": "key_frame.wanted", "stream": 7}),
            ),
            (
                Event::StreamState {
                    stream: 7,
                    receiving: true,
                    size: Some((640, 360)),
                },
                json!({"event": "stream.state", "stream": 7, "receiving": true, "size": [640, 360]}),
            ),
            (
                Event::StreamOverflow {
                    stream: 7,
                    bytes: 9_000_000,
                },
                json!({"event": "stream.overflow", "stream": 7, "bytes": 9_000_000}),
            ),
        ] {
            assert_eq!(to_value(event).unwrap(), expected);
        }
    }
}
