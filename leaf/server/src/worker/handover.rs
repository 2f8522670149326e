//! Moving a viewer's connection to another process, and taking one over.
//!
//! What is moved is what the connection is: ICE credentials and address, SRTP keys and counters,
//! what was negotiated, and the viewer with its cursors. The DTLS connection itself is not (OpenSSL
//! cannot export it): after a move a viewer's goodbye is noticed by its silence.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use leaf_core::viewer::{Adoption, Viewer};
use leaf_secure::dtls::Secrets;
use leaf_secure::srtp::{MasterKey, Profile};
use leaf_wire::ice::Credentials;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Leaver;
use super::Worker;
use super::connection::{Connection, Ssrcs, headers, rungs};
use super::crowd::Key;
use super::link::{Keys, Link, Path};
use crate::clock;
use crate::control::event::{Event, Gone};
use crate::control::reply::{Added, Code, Passive, Refusal, Taken};
use crate::control::request::{Media, ViewerImport};

/// A number that changes when what is written here does.
const FORMAT: u32 = 1;
/// Reports between a snapshot and the move use up counters of SRTCP, a few each second.
const RTCP_JUMP: u32 = 1 << 16;

#[derive(Serialize, Deserialize)]
struct Moved {
    format: u32,
    viewer: String,
    ufrag: String,
    pwd: String,
    remote_ufrag: String,
    fingerprint: String,
    address: SocketAddr,
    profile: String,
    outbound: String,
    inbound: String,
    rtcp_index: u32,
    ssrcs: [u32; 3],
    video: Option<Media>,
    audio: Option<Media>,
    cname: String,
    group: String,
    pinned: bool,
    /// Microseconds since 1970 of the sender's monotonic clock at zero.
    clock: u64,
    watching: Viewer,
}

impl Worker {
    /// What a viewer's connection is. With `stop` nothing is sent to it from here any more.
    ///
    /// # Errors
    /// There is no such viewer, or its connection is not up.
    pub fn export(&mut self, name: &str, stop: bool) -> Result<Taken, Refusal> {
        let key = self.key_of(name)?;
        // What was put into the batch is sent: its numbers are used up.
        self.send();
        let moved = self.crowd.get(key).and_then(moved);
        let Some(moved) = moved else {
            return Err(Refusal::new(
                Code::Invalid,
                format_args!("{name} is not up yet"),
            ));
        };
        let Ok(Value::Object(state)) = serde_json::to_value(&moved) else {
            return Err(Refusal::new(Code::Failed, "the state cannot be written"));
        };
        if stop {
            self.crowd.remove(key);
            self.others.handshakes.forget(key);
            // The main thread may have ended; then nobody asks any more.
            let _ = self.others.gone.send(Leaver::Viewer(name.to_owned()));
            let viewer = name.to_owned();
            self.others.outbox.send(Event::ViewerGone {
                viewer,
                why: Gone::Moved,
            });
        }
        Ok(Taken { state })
    }

    /// Go on with a viewer of another process.
    ///
    /// # Errors
    /// The state is not what this version writes, or none of this process's addresses can reach it.
    pub fn import(&mut self, key: Key, request: ViewerImport) -> Result<Added, Refusal> {
        let now = clock::now();
        let invalid = |why: &dyn std::fmt::Display| Refusal::new(Code::Invalid, why);
        let moved = read(request.state)?;
        let jump = request.jump.get();
        let ssrcs = Ssrcs {
            video: moved.ssrcs[0],
            rtx: moved.ssrcs[1],
            audio: moved.ssrcs[2],
        };
        let media = [moved.video, moved.audio];
        let mut keys = keys(&moved.profile, &moved.outbound, &moved.inbound)?;
        let index = moved
            .rtcp_index
            .saturating_add(if jump > 0 { RTCP_JUMP } else { 0 });
        keys.outbound
            .skip_rtcp_to(index)
            .map_err(|error| invalid(&error))?;
        let fingerprint = moved.fingerprint.parse().map_err(|error| invalid(&error))?;
        let socket = self
            .sockets
            .iter()
            .position(|socket| {
                let local = socket.local_addr();
                local.is_ok_and(|local| local.is_ipv4() == moved.address.is_ipv4())
            })
            .ok_or_else(|| invalid(&"no address here of the viewer's kind"))?;
        let credentials = Credentials {
            ufrag: moved.ufrag,
            pwd: moved.pwd,
        };
        let (name, remote_ufrag) = (moved.viewer, moved.remote_ufrag);
        let to = moved.address;
        let connection = Connection {
            link: Link {
                // A handshake would begin new keys; what comes of the old one is dropped.
                handshaking: true,
                path: Some(Path { to, socket }),
                keys: Some(keys),
                ..Link::new(name, credentials, remote_ufrag, fingerprint, now)
            },
            ssrcs,
            headers: headers(&media, ssrcs).map_err(|error| invalid(&error))?,
            media,
            cname: moved.cname,
            group: moved.group,
            pinned: moved.pinned,
            viewer: moved.watching,
            sent: (0, 0),
            subscribed: Vec::new(),
        };
        let added = added(&connection);
        let ahead = moved.clock as i64 - clock::unix(0) as i64;
        self.crowd.insert(key, connection);
        let adoption = Adoption {
            rungs: rungs(&request.ladder),
            sound: request.sound,
            clock: ahead,
            jump: jump.into(),
        };
        self.act(key, now, |viewer, streams, sink| {
            viewer.adopt(adoption, streams, now, sink);
        });
        self.after(key, "import", now);
        self.send();
        Ok(added)
    }
}

/// The name of the viewer in a state, for who must know before it is taken over.
///
/// # Errors
/// There is none.
pub fn name_in(state: &Map<String, Value>) -> Result<String, Refusal> {
    let name = state
        .get("viewer")
        .and_then(Value::as_str)
        .map(str::to_owned);
    name.ok_or_else(|| Refusal::new(Code::Invalid, "state: no viewer"))
}

/// Our ICE user name fragment in a state.
pub fn ufrag_in(state: &Map<String, Value>) -> Option<&str> {
    state.get("ufrag").and_then(Value::as_str)
}

fn moved(connection: &Connection) -> Option<Moved> {
    let link = &connection.link;
    let (keys, path) = (link.keys.as_ref()?, link.path?);
    let [video, audio] = connection.media.clone();
    let ssrcs = connection.ssrcs;
    Some(Moved {
        format: FORMAT,
        viewer: link.name.clone(),
        ufrag: link.credentials.ufrag.clone(),
        pwd: link.credentials.pwd.clone(),
        remote_ufrag: link.remote_ufrag.clone(),
        fingerprint: link.fingerprint.to_string(),
        address: path.to,
        profile: keys.secrets.profile.openssl_name().to_owned(),
        outbound: STANDARD.encode(keys.secrets.outbound.expose()),
        inbound: STANDARD.encode(keys.secrets.inbound.expose()),
        rtcp_index: keys.outbound.rtcp_index(),
        ssrcs: [ssrcs.video, ssrcs.rtx, ssrcs.audio],
        video,
        audio,
        cname: connection.cname.clone(),
        group: connection.group.clone(),
        pinned: connection.pinned,
        clock: clock::unix(0),
        watching: connection.viewer.clone(),
    })
}

fn read(state: Map<String, Value>) -> Result<Moved, Refusal> {
    let refusal = |why: String| Refusal::new(Code::Invalid, format_args!("state: {why}"));
    let moved: Moved =
        serde_json::from_value(Value::Object(state)).map_err(|error| refusal(error.to_string()))?;
    if moved.format == FORMAT {
        Ok(moved)
    } else {
        Err(refusal(format!("of format {}, not {FORMAT}", moved.format)))
    }
}

fn keys(profile: &str, outbound: &str, inbound: &str) -> Result<Keys, Refusal> {
    let refusal = || Refusal::new(Code::Invalid, "state: keys that cannot be used");
    let profile = Profile::from_openssl_name(profile).ok_or_else(refusal)?;
    let key = |text: &str| {
        let bytes = STANDARD.decode(text).map_err(|_| refusal())?;
        MasterKey::from_bytes(profile, &bytes).map_err(|_| refusal())
    };
    let secrets = Secrets {
        profile,
        outbound: key(outbound)?,
        inbound: key(inbound)?,
    };
    Keys::new(secrets).map_err(|_| refusal())
}

fn added(connection: &Connection) -> Added {
    let [video, audio] = &connection.media;
    let rtx = video.as_ref().and_then(|media| media.rtx_payload_type);
    Added {
        ufrag: connection.link.credentials.ufrag.clone(),
        pwd: connection.link.credentials.pwd.clone(),
        setup: Passive::Passive,
        video_ssrc: video.as_ref().map(|_| connection.ssrcs.video),
        rtx_ssrc: rtx.map(|_| connection.ssrcs.rtx),
        audio_ssrc: audio.as_ref().map(|_| connection.ssrcs.audio),
    }
}
