//! A worker without its thread: what viewers are sent when packets come, and what that costs.

use std::collections::BTreeMap;
use std::time::Duration;

use leaf_secure::dtls::{Fingerprint, Identity, Secrets};
use leaf_secure::srtp::{Inbound, MasterKey, Profile};
use leaf_wire::datagram::Datagram;
use leaf_wire::header::HeaderTemplate;
use leaf_wire::rtp::RtpPacket;
use serde_json::json;
use tempfile::TempDir;

use super::connection::{Connection, Ssrcs};
use super::crowd::Key;
use super::link::{Keys, Path};
use super::*;
use crate::control::event::{Hello, PROTOCOL};
use crate::control::request::{Incoming, Request};
use crate::control::server::Server;
use crate::handshakes;
use crate::mesh::connect;
use crate::net::lab::{in_namespace, ip, processor_time};
use crate::net::socket::bind_alone;

const PICTURE: StreamId = 7;
const SOUND: StreamId = 9;
const PROFILE: Profile = Profile::AeadAes128Gcm;

/// A stream's packets.
struct Source {
    header: HeaderTemplate,
    sequence: u16,
    timestamp: u32,
}

impl Source {
    fn new(stream: StreamId) -> Self {
        Self {
            header: HeaderTemplate::new(96, stream as u32).unwrap(),
            sequence: 65_000,
            timestamp: 0,
        }
    }

    /// Packets with these payloads, of one time.
    fn packets(&mut self, step: u32, payloads: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.timestamp = self.timestamp.wrapping_add(step);
        let last = payloads.len() - 1;
        let packet = |(at, payload): (usize, &Vec<u8>)| {
            self.sequence = self.sequence.wrapping_add(1);
            let mut packet = [0; 12];
            self.header
                .write(self.sequence, self.timestamp, at == last, 0, &mut packet);
            [&packet[..], payload].concat()
        };
        payloads.iter().enumerate().map(packet).collect()
    }
}

/// A picture of so many packets, the last one shorter, a key frame's parameter sets before it; `mark`
/// tells it from others.
fn picture(key: bool, packets: usize, mark: u8) -> Vec<Vec<u8>> {
    let length = |at: usize| match at {
        0 if key => 39,
        at if at + 1 == packets => 458,
        _ => 1186,
    };
    let unit = |at: usize| match at {
        0 if key => 0x67,
        _ if key => 0x65,
        _ => 0x41,
    };
    let payload = |at: usize| [vec![unit(at), mark], vec![7; length(at) - 2]].concat();
    (0..packets).map(payload).collect()
}

/// A worker with one channel, and the parts of the process that it needs.
struct Stage {
    worker: Worker,
    picture: Source,
    sound: Source,
    fingerprint: Fingerprint,
    _server: Server,
    _directory: TempDir,
}

impl Stage {
    fn new(address: &str) -> Self {
        let polls = [Poll::new().unwrap()];
        let (seat, post) = connect(&polls, MESH).unwrap().remove(0);
        let identity = Identity::generate().unwrap();
        let fingerprint = identity.fingerprint().clone();
        let (handshakes, _) = handshakes::spawn(identity, clock::now, |_, _| ()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let hello = Hello {
            protocol: PROTOCOL,
            version: "0",
            pid: 1,
            fingerprint: fingerprint.to_string(),
            listen: Vec::new(),
            repair: None,
            threads: 1,
        };
        let server = Server::bind(&directory.path().join("control"), hello).unwrap();
        let others = Others {
            number: 0,
            posts: vec![post],
            forwarded: Arc::default(),
            handshakes,
            outbox: server.outbox(),
            gone: std::sync::mpsc::channel().0,
        };
        let sockets = vec![bind_alone(address.parse().unwrap()).unwrap()];
        let [poll] = polls;
        let mut worker = Worker::new(poll, seat, others, sockets, None).unwrap();
        for (stream, kind, clock) in [(PICTURE, "video", 90_000), (SOUND, "audio", 48_000)] {
            let line = json!({"do": "stream.add", "id": 1, "stream": stream, "kind": kind,
                "port": 5004, "address": "127.0.0.1", "name": "n", "group": "g", "clock": clock,
                "kbps": 600});
            let Request::StreamAdd(request) = read(&line) else {
                panic!("{line}")
            };
            worker.add_stream(&request, None).unwrap();
        }
        Self {
            worker,
            picture: Source::new(PICTURE),
            sound: Source::new(SOUND),
            fingerprint,
            _server: server,
            _directory: directory,
        }
    }

    /// A viewer at this address whose connection is up.
    fn add(&mut self, key: Key, to: SocketAddr) {
        let line = json!({"do": "viewer.add", "id": 3, "viewer": key.to_string(), "group": "g",
            "remote": {"ufrag": "abcd", "pwd": "abcdefghijklmnopqrstuv",
                       "fingerprint": "sha-256 AB:CD", "setup": "actpass"},
            "video": {"payload_type": 102, "rtx_payload_type": 103, "mid": "0",
                      "extensions": {"abs-send-time": 3, "mid": 4}},
            "audio": {"payload_type": 111, "mid": "1", "extensions": {"mid": 4}},
            "ladder": [{"stream": PICTURE, "kbps": 600}], "sound": SOUND,
            "start": 0, "pinned": false, "cname": "c"});
        let Request::ViewerAdd(request) = read(&line) else {
            panic!("{line}")
        };
        let ssrcs = Ssrcs {
            video: 1,
            rtx: 2,
            audio: 3,
        };
        let now = clock::now();
        let credentials = credentials(0).unwrap();
        let mut connection = Connection::new(
            *request,
            self.fingerprint.clone(),
            credentials,
            ssrcs,
            [1, 2, 3],
            now,
        )
        .unwrap();
        connection.link.path = Some(Path { to, socket: 0 });
        connection.link.keys = Some(Keys::new(secrets(key)).unwrap());
        self.worker.add_viewer(key, connection);
        self.worker.act(key, now, |viewer, streams, sink| {
            viewer.start(streams, now, sink);
        });
        self.worker.after(key, "start", now);
    }

    /// Let everybody come to the head.
    fn catch_up(&mut self) {
        let is_behind = |worker: &Worker| {
            let mut pictures = worker.crowd.iter().map(|(_, it)| it.viewer.picture());
            pictures.any(|picture| picture.unwrap().is_catching_up())
        };
        while is_behind(&self.worker) {
            std::thread::sleep(Duration::from_millis(1));
            let now = clock::now();
            while let Some(key) = self.worker.crowd.next_due(now) {
                self.worker.on_time(key, now);
            }
            self.worker.send();
        }
    }

    fn take(&mut self, stream: StreamId, packets: &[Vec<u8>]) {
        let now = clock::now();
        for packet in packets {
            self.worker.take_in(stream, packet, now);
        }
    }

    fn take_picture(&mut self, payloads: &[Vec<u8>]) {
        let packets = self.picture.packets(3600, payloads);
        self.take(PICTURE, &packets);
    }

    fn take_sound(&mut self, payload: &[u8]) {
        let packets = self.sound.packets(960, &[payload.to_vec()]);
        self.take(SOUND, &packets);
    }

    /// Let everybody have it.
    fn pass_on(&mut self) {
        let now = clock::now();
        while let Some(stream) = self.worker.gathering.next(now) {
            self.worker.pass_on(stream);
        }
        while !self.worker.rounds.is_empty() {
            self.worker.serve_viewers();
            self.worker.send();
        }
    }
}

fn read(line: &serde_json::Value) -> Request {
    Incoming::read(line.to_string().as_bytes()).request.unwrap()
}

fn secrets(key: Key) -> Secrets {
    let master = |direction: u8| {
        let mut bytes = [direction; 16];
        bytes[..8].copy_from_slice(&key.to_be_bytes());
        MasterKey::new(&bytes, &[direction; 12])
    };
    Secrets {
        profile: PROFILE,
        outbound: master(1),
        inbound: master(2),
    }
}

#[test]
fn everybody_gets_every_packet_once_and_in_order() {
    let mut stage = Stage::new("127.0.0.1:0");
    stage.take_picture(&picture(true, 11, 0));
    let sockets: Vec<_> = (0..200)
        .map(|_| bind_alone("127.0.0.1:0".parse().unwrap()).unwrap())
        .collect();
    for (key, socket) in (0..).zip(&sockets) {
        stage.add(key, socket.local_addr().unwrap());
    }
    stage.catch_up();
    let mut sent = vec![picture(true, 11, 0)];
    let mut heard = vec![];
    for mark in 1..30 {
        let frame = picture(mark % 10 == 0, if mark % 10 == 0 { 25 } else { 3 }, mark);
        stage.take_picture(&frame);
        stage.take_sound(&[mark; 160]);
        stage.pass_on();
        sent.push(frame);
        heard.push(vec![mark; 160]);
        // The second one is alone, as half of all packets of sound are.
        stage.take_sound(&[mark; 60]);
        stage.pass_on();
        heard.push(vec![mark; 60]);
    }
    let sent = sent.concat();
    let mut receiver = Receiver::single();
    let mut whole = 0;
    for (key, socket) in (0..).zip(&sockets) {
        let mut inbound = Inbound::new(PROFILE, &secrets(key).outbound).unwrap();
        let mut got: BTreeMap<u32, Vec<(u64, Vec<u8>)>> = BTreeMap::new();
        let mut of_key_frames = vec![];
        let mut plain = vec![];
        while receiver
            .receive(socket, |_, bytes| {
                if Datagram::classify(bytes) != Datagram::Rtp {
                    return;
                }
                let index = inbound.unprotect_rtp(bytes, &mut plain).unwrap();
                let packet = RtpPacket::parse(&plain).unwrap();
                if packet.ssrc == 1 && packet.payload[0] != 0x41 && packet.payload[1] > 0 {
                    of_key_frames.push(bytes.len());
                }
                let place = (index, packet.payload.to_vec());
                got.entry(packet.ssrc).or_default().push(place);
            })
            .unwrap()
        {}
        for (ssrc, expected) in [(1, &sent), (3, &heard)] {
            let (numbers, payloads): (Vec<u64>, Vec<_>) =
                got.remove(&ssrc).unwrap().into_iter().unzip();
            assert!(payloads == *expected, "viewer {key}, SSRC {ssrc}");
            assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
        }
        assert!(got.is_empty());
        // The end is as it came if the sound was sent in a round of its own.
        for frame in of_key_frames.chunks(25) {
            assert!(frame.len() == 25 && frame[..24].iter().all(|length| *length == frame[1]));
            whole += usize::from(frame[24] == frame[1]);
        }
    }
    assert!(whole > 0, "sound goes along in a key frame's message");
}

#[test]
fn sound_is_not_gathered() {
    let mut stage = Stage::new("127.0.0.1:0");
    let now = clock::now();
    let packets = stage.picture.packets(3600, &picture(true, 2, 0));
    stage.take(PICTURE, &packets[..1]);
    let whole = stage.worker.gathering.next(now);
    assert_eq!(whole, None, "the rest of a picture is waited for");
    stage.take_sound(&[1; 160]);
    assert_eq!(stage.worker.gathering.next(clock::now()), Some(SOUND));
}

/// What a packet to one of 1,000 viewers costs, on its way through a device that segments; nobody
/// receives it.
#[test]
#[ignore = "a measurement, meant for --release --nocapture; needs CAP_SYS_ADMIN and ip"]
fn measure_a_packet() {
    const VIEWERS: u64 = 1000;
    const REPEATS: usize = 60;
    in_namespace(|| {
        ip("link add here type veth peer name there");
        ip("address add 192.0.2.1/24 dev here");
        ip("link set here up");
        ip("link set there up");
        ip("neighbour replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev here");
        let mut stage = Stage::new("192.0.2.1:0");
        stage.take_picture(&picture(true, 11, 0));
        for key in 0..VIEWERS {
            let port = 10_000 + key as u16;
            stage.add(key, ([192, 0, 2, 2], port).into());
        }
        stage.catch_up();
        let before = stage.worker.batches[0].counters().datagrams;
        let mut costs: BTreeMap<(&str, u64), Vec<Duration>> = BTreeMap::new();
        for _ in 0..REPEATS {
            for (what, packets) in [("key", 11), ("key", 25), ("delta", 3), ("sound", 1)] {
                if what == "sound" {
                    stage.take_sound(&[1; 160]);
                } else {
                    stage.take_picture(&picture(what == "key", packets as usize, 1));
                }
                let began = processor_time();
                stage.pass_on();
                let cost = processor_time() - began;
                costs.entry((what, packets)).or_default().push(cost);
            }
        }
        for ((what, packets), mut costs) in costs {
            costs.sort();
            let per = |cost: Duration| cost.as_nanos() as u64 / (VIEWERS * packets);
            println!(
                "{what:5} of {packets:2}: {:5} ns a packet, {:5} at the quickest, {:6} a viewer",
                per(costs[costs.len() / 2]),
                per(costs[0]),
                costs[costs.len() / 2].as_nanos() as u64 / VIEWERS,
            );
        }
        let counters = stage.worker.batches[0].counters();
        assert_eq!((counters.dropped, counters.unreachable), (0, 0));
        let packets = REPEATS as u64 * (11 + 25 + 3 + 1);
        assert_eq!(counters.datagrams - before, VIEWERS * packets);
    });
}
