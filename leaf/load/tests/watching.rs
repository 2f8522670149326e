//! A crowd of one, as its controller sees it, and a small server: over real sockets.

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use leaf_load::clock::{self, Micros};
use leaf_load::crowd::Crowd;
use leaf_load::synthetic::{Shape, VIDEO_TYPE, Video};
use leaf_secure::dtls::{Handshake, Identity, Progress};
use leaf_secure::srtp::{Inbound, Outbound};
use leaf_wire::datagram::Datagram;
use leaf_wire::rtcp::{self, Feedback};
use leaf_wire::stun;
use mio::Waker;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);
const PWD: &str = "the password of the server";
const STREAM: u32 = 7;
const SHAPE: Shape = Shape {
    kbps: 600,
    fps: 25,
    gop: 5,
};

/// The controller's end of a crowd.
struct Controller {
    lines: Option<Sender<String>>,
    waker: Waker,
    replies: Receiver<Value>,
    crowd: Option<JoinHandle<()>>,
    fingerprint: String,
}

impl Controller {
    fn new() -> Self {
        let identity = Identity::generate().unwrap();
        let fingerprint = identity.fingerprint().to_string();
        let (messages, to_read) = channel();
        let (lines, inbox) = channel();
        let crowd = Crowd::new("127.0.0.1".parse().unwrap(), identity, 1, messages).unwrap();
        let waker = crowd.waker().unwrap();
        let crowd = thread::spawn(move || crowd.run(&inbox).unwrap());
        let (sender, replies) = channel();
        thread::spawn(move || {
            for message in to_read {
                let _ = sender.send(serde_json::to_value(message).unwrap());
            }
        });
        Self {
            lines: Some(lines),
            waker,
            replies,
            crowd: Some(crowd),
            fingerprint,
        }
    }

    fn say(&self, line: &Value) {
        self.lines.as_ref().unwrap().send(line.to_string()).unwrap();
        self.waker.wake().unwrap();
    }

    /// The next message with this member.
    fn next(&self, member: &str) -> Value {
        let until = Instant::now() + LIMIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let message = self.replies.recv_timeout(left).expect("a message in time");
            if message.get(member).is_some() {
                return message;
            }
        }
    }

    fn ask(&self, line: &Value) -> Value {
        self.say(line);
        let reply = self.next("id");
        assert_eq!(reply["id"], line["id"]);
        reply
    }

    fn end(mut self) {
        self.lines = None;
        self.waker.wake().unwrap();
        self.crowd.take().unwrap().join().unwrap();
    }
}

/// What the server saw of its viewer.
#[derive(Debug, Default)]
struct Seen {
    reports: u32,
    nacks: Vec<u16>,
    closed: bool,
}

/// Serves one viewer: pictures as soon as it is connected, without the third packet; that one comes
/// when it is asked for. Ends with the viewer.
fn serve(socket: &UdpSocket, identity: &Identity, expected: &str) -> Seen {
    socket
        .set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    let began = Instant::now();
    let mut handshake =
        Handshake::server(identity, expected.parse().unwrap(), clock::now()).unwrap();
    let mut media: Option<Sending> = None;
    let mut seen = Seen::default();
    let mut buffer = [0; 2048];
    while began.elapsed() < LIMIT && !seen.closed {
        let now = clock::now();
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.connect(from).unwrap();
            let datagram = &buffer[..length];
            match Datagram::classify(datagram) {
                Datagram::Stun => {
                    let mut answer = Vec::new();
                    stun::answer(datagram, from, PWD, &mut answer).unwrap();
                    socket.send(&answer).unwrap();
                }
                Datagram::Dtls => handshake.receive(datagram, now),
                _ => media.as_mut().unwrap().hear(datagram, socket, &mut seen),
            }
        }
        while let Some(datagram) = handshake.transmit() {
            let _ = socket.send(&datagram);
        }
        match handshake.progress() {
            Progress::Established(secrets) if media.is_none() => {
                media = Some(Sending {
                    inbound: Inbound::new(secrets.profile, &secrets.inbound).unwrap(),
                    outbound: Outbound::new(secrets.profile, &secrets.outbound).unwrap(),
                    video: Video::new(SHAPE, STREAM, now).unwrap(),
                    withheld: None,
                });
            }
            Progress::Closed => seen.closed = true,
            _ => {}
        }
        if let Some(media) = &mut media {
            media.send(socket, now);
        }
    }
    seen
}

struct Sending {
    inbound: Inbound,
    outbound: Outbound,
    video: Video,
    withheld: Option<Vec<u8>>,
}

impl Sending {
    fn send(&mut self, socket: &UdpSocket, now: Micros) {
        while self.video.due() <= now {
            let (outbound, withheld) = (&self.outbound, &mut self.withheld);
            self.video.next(now, |packet| {
                let sequence = u16::from_be_bytes([packet[2], packet[3]]);
                let mut out = vec![0; packet.len() + 16];
                let (header, payload) = packet.split_at(12);
                outbound
                    .protect_rtp(sequence.into(), header, payload, &mut out)
                    .unwrap();
                if sequence == 3 {
                    *withheld = Some(out);
                } else {
                    let _ = socket.send(&out);
                }
            });
        }
    }

    fn hear(&mut self, datagram: &[u8], socket: &UdpSocket, seen: &mut Seen) {
        let mut plain = Vec::new();
        self.inbound.unprotect_rtcp(datagram, &mut plain).unwrap();
        rtcp::parse(&plain, |feedback| match feedback {
            Feedback::ReportBlock { .. } => seen.reports += 1,
            Feedback::Nack { lost, .. } => seen.nacks.extend(lost.iter()),
            _ => {}
        })
        .unwrap();
        if seen.nacks.contains(&3)
            && let Some(packet) = self.withheld.take()
        {
            socket.send(&packet).unwrap();
        }
    }
}

fn add(server: SocketAddr, fingerprint: &str) -> Value {
    json!({
        "do": "add", "id": 1, "viewer": "v",
        "remote": {"address": server, "ufrag": "server", "pwd": PWD, "fingerprint": fingerprint},
        "local": {"ufrag": "viewer", "pwd": "the password of the viewer"},
        "video": {"payload_type": VIDEO_TYPE},
    })
}

#[test]
fn a_viewer_connects_watches_asks_and_leaves() {
    let controller = Controller::new();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let identity = Identity::generate().unwrap();
    let fingerprint = identity.fingerprint().to_string();
    let expected = controller.fingerprint.clone();
    let server = thread::spawn(move || serve(&socket, &identity, &expected));

    assert_eq!(controller.ask(&add(address, &fingerprint))["ok"], json!({}));
    assert_eq!(
        controller.ask(&add(address, &fingerprint))["error"]["code"],
        "exists"
    );
    assert_eq!(controller.next("event")["event"], "viewer.up");
    let awaited = json!({"do": "await", "id": 2, "viewer": "v", "stream": STREAM});
    assert_eq!(controller.ask(&awaited)["ok"], json!({}));
    let arrived = controller.next("event");
    assert_eq!(
        (&arrived["event"], &arrived["stream"]),
        (&"viewer.arrived".into(), &STREAM.into())
    );

    thread::sleep(Duration::from_millis(1500));
    let reply = controller.ask(&json!({"do": "statistics", "id": 3, "each": true}));
    let (figures, totals) = (&reply["ok"]["each"]["v"], &reply["ok"]["totals"]);
    assert_eq!(figures, totals);
    assert_eq!(reply["ok"]["up"], 1);
    assert_eq!(totals["inspected"], totals["packets"]);
    assert!(totals["key_frames"].as_u64().unwrap() >= 3, "{reply}");
    for (name, expected) in [
        ("lost", 0),
        ("recovered", 1),
        ("duplicates", 0),
        ("unreadable", 0),
    ] {
        assert_eq!(totals[name], expected, "{name} of {reply}");
    }
    assert!(
        reply["ok"]["delay_us"]["samples"].as_u64().unwrap() > 50,
        "{reply}"
    );

    assert_eq!(
        controller.ask(&json!({"do": "remove", "id": 4, "viewer": "v"}))["ok"],
        json!({})
    );
    let seen = server.join().unwrap();
    assert!(seen.closed && seen.reports >= 1, "{seen:?}");
    let unknown = controller.ask(&json!({"do": "remove", "id": 5, "viewer": "v"}));
    assert_eq!(unknown["error"]["code"], "unknown");
    controller.end();
}

#[test]
fn a_server_with_another_certificate_is_left() {
    let controller = Controller::new();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let expected = controller.fingerprint.clone();
    let identity = Identity::generate().unwrap();
    let other = Identity::generate().unwrap().fingerprint().to_string();
    thread::spawn(move || serve(&socket, &identity, &expected));
    assert_eq!(controller.ask(&add(address, &other))["ok"], json!({}));
    let gone = controller.next("event");
    assert_eq!(gone["event"], "viewer.gone", "{gone}");
    controller.end();
}

#[test]
fn what_cannot_be_used_is_refused() {
    let controller = Controller::new();
    let address = "127.0.0.1:9".parse().unwrap();
    assert_eq!(
        controller.ask(&add(address, "sha-256 AB"))["error"]["code"],
        "invalid"
    );
    let other_family = controller.ask(&add("[::1]:9".parse().unwrap(), &controller.fingerprint));
    assert_eq!(other_family["error"]["code"], "failed");
    controller.say(&json!("nonsense"));
    assert_eq!(controller.next("error")["error"]["code"], "malformed");
    assert_eq!(
        controller.ask(&json!({"do": "statistics", "id": 9}))["ok"]["viewers"],
        0
    );
    controller.end();
}
