use std::net::UdpSocket;
use std::sync::Arc;

use leaf_secure::dtls::Secrets;
use leaf_secure::srtp::{Inbound, MasterKey, Outbound, Profile};
use leaf_wire::rtcp::{Feedback, SenderReport};
use serde_json::{Value, from_value, json, to_value};

use super::super::link::{Keys, Path};
use super::*;
use crate::net::socket::bind_alone;

const PROFILES: [Profile; 2] = [Profile::AeadAes128Gcm, Profile::Aes128CmSha1_80];

fn key(profile: Profile, fill: u8) -> MasterKey {
    let length = profile.key_len() + profile.salt_len();
    MasterKey::from_bytes(profile, &vec![fill; length]).unwrap()
}

/// A connection that is up, its publisher, and where its packets arrive.
struct Stage {
    publishing: Publishing,
    outbound: Outbound,
    inbound: Inbound,
    outlets: Outlets,
    batches: Vec<Batch>,
    at_publisher: UdpSocket,
    targets: [UdpSocket; 2],
    plain: Vec<u8>,
}

fn two_sockets() -> [UdpSocket; 2] {
    loop {
        let first = bind_alone("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut next = first.local_addr().unwrap();
        next.set_port(next.port().wrapping_add(1));
        if let Ok(second) = bind_alone(next) {
            return [first, second];
        }
    }
}

impl Stage {
    fn new(profile: Profile) -> Self {
        Self::with(profile, |_, _| {})
    }

    /// With something else in the request; it is told where the second socket is.
    fn with(profile: Profile, change: fn(&mut Value, SocketAddr)) -> Self {
        let targets = two_sockets();
        let mut request = json!({
            "publisher": "one",
            "remote": {"ufrag": "abcd", "pwd": "abcdefghijklmnopqrstuv",
                       "fingerprint": "sha-256 AB", "setup": "active"},
            "tracks": [{"mid": "0", "kind": "video", "clock": 90000, "payload_types": [102],
                        "rtx": {"103": 102}, "extensions": {"mid": 4},
                        "feedback": ["nack", "pli", "remb"],
                        "to": targets[0].local_addr().unwrap()}]
        });
        change(&mut request, targets[1].local_addr().unwrap());
        let request: PublisherAdd = from_value(request).unwrap();
        let print = ["AB"; 32].join(":");
        let fingerprint = format!("sha-256 {print}").parse().unwrap();
        let credentials = Credentials::random().unwrap();
        let mut publishing = Publishing::new(request, fingerprint, credentials, 42, 0);
        let at_publisher = bind_alone("127.0.0.1:0".parse().unwrap()).unwrap();
        let secrets = Secrets {
            profile,
            outbound: key(profile, 1),
            inbound: key(profile, 2),
        };
        publishing.link.keys = Some(Keys::new(secrets).unwrap());
        publishing.link.path = Some(Path {
            to: at_publisher.local_addr().unwrap(),
            socket: 0,
        });
        let mut outlets = Outlets::default();
        outlets.open(publishing.tracks[0].to).unwrap();
        let socket = bind_alone("127.0.0.1:0".parse().unwrap()).unwrap();
        Self {
            publishing,
            outbound: Outbound::new(profile, &key(profile, 2)).unwrap(),
            inbound: Inbound::new(profile, &key(profile, 1)).unwrap(),
            outlets,
            batches: vec![Batch::new(Arc::new(socket))],
            at_publisher,
            targets,
            plain: Vec::new(),
        }
    }

    fn sealed(&self, kind: u8, ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let template = HeaderTemplate::new(kind, ssrc).unwrap();
        let template = template.with_mid(4, "0").unwrap();
        let (mut header, mut out) = ([0; 64], vec![0; 2048]);
        let length = template.write(sequence, 7, true, 0, &mut header);
        let index = sequence.into();
        let length = self
            .outbound
            .protect_rtp(index, &header[..length], payload, &mut out)
            .unwrap();
        out.truncate(length);
        out
    }

    fn receive(&mut self, packet: &[u8], now: Micros) -> Result<Forwarded, Unusable> {
        let (plain, outlets) = (&mut self.plain, &mut self.outlets);
        let result = self.publishing.receive(packet, plain, outlets, now);
        self.outlets.flush();
        result
    }

    /// What the publisher is told now, opened.
    fn told(&mut self, now: Micros) -> Option<Vec<u8>> {
        let plain = &mut self.plain;
        self.publishing.tell(&mut self.batches, plain, now);
        self.batches[0].flush();
        let sealed = arrived(&self.at_publisher)?;
        let mut opened = Vec::new();
        self.inbound.unprotect_rtcp(&sealed, &mut opened).unwrap();
        Some(opened)
    }
}

fn arrived(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut bytes = [0; 2048];
    let length = socket.recv(&mut bytes).ok()?;
    Some(bytes[..length].to_vec())
}

#[test]
fn a_packet_leaves_as_plain_rtp_and_nothing_else_does() {
    for profile in PROFILES {
        let mut stage = Stage::new(profile);
        let packet = stage.sealed(102, 9, 258, b"slice");
        assert_eq!(stage.receive(&packet, 0), Ok(Forwarded::Sent));
        let expected = [
            &[0x80, 0x80 | 102, 1, 2, 0, 0, 0, 7, 0, 0, 0, 9][..],
            b"slice",
        ];
        assert_eq!(arrived(&stage.targets[0]).unwrap(), expected.concat());

        assert_eq!(stage.receive(&packet, 0), Err(Unusable::NotAuthentic));
        let mut forged = stage.sealed(102, 9, 259, b"slice");
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(stage.receive(&forged, 0), Err(Unusable::NotAuthentic));
        let stranger = stage.sealed(96, 9, 260, b"slice");
        assert_eq!(stage.receive(&stranger, 0), Ok(Forwarded::Nothing));
        let long = stage.sealed(102, 9, 261, &[0; 1600]);
        assert_eq!(stage.receive(&long, 0), Ok(Forwarded::TooLong));
        let longest = stage.sealed(102, 9, 262, &[0; 1524]);
        assert_eq!(stage.receive(&longest, 0), Ok(Forwarded::Sent));
        assert_eq!(arrived(&stage.targets[0]).unwrap().len(), 1536);
        assert_eq!(arrived(&stage.targets[0]), None);
        assert_eq!(arrived(&stage.targets[1]), None);
    }
}

#[test]
fn a_gap_is_asked_for_and_its_repair_leaves_as_itself() {
    let mut stage = Stage::new(PROFILES[0]);
    for sequence in [1, 3] {
        let packet = stage.sealed(102, 9, sequence, b"x");
        stage.receive(&packet, 1_000).unwrap();
        arrived(&stage.targets[0]).unwrap();
    }
    let mut lost = Vec::new();
    rtcp::parse(&stage.told(1_000).unwrap(), |feedback| {
        if let Feedback::Nack {
            media_ssrc,
            lost: it,
        } = feedback
        {
            lost.extend(it.iter().map(|sequence| (media_ssrc, sequence)));
        }
    })
    .unwrap();
    assert_eq!(lost, [(9, 2)]);
    assert_eq!(stage.told(1_001), None);
    let again = stage.sealed(103, 10, 500, b"\x00\x02lost");
    assert_eq!(stage.receive(&again, 30_000), Ok(Forwarded::Sent));
    let packet = arrived(&stage.targets[0]).unwrap();
    assert_eq!(packet[1..4], [0x80 | 102, 0, 2]);
    assert_eq!(packet[8..], *b"\x00\x00\x00\x09lost");
    assert_eq!(stage.publishing.publisher.round_trip(), Some(29_000));
}

#[test]
fn sender_reports_leave_to_the_next_port() {
    for profile in PROFILES {
        let mut stage = Stage::new(profile);
        let packet = stage.sealed(102, 9, 1, b"x");
        stage.receive(&packet, 0).unwrap();
        let report = SenderReport {
            ssrc: 9,
            ntp: 5 << 32,
            rtp_timestamp: 6,
            packets: 7,
            octets: 8,
        };
        let (mut compound, mut sealed) = (Vec::new(), Vec::new());
        rtcp::sender_report(&report, "secret@home", &mut compound);
        rtcp::bye(77, &mut compound);
        stage.outbound.protect_rtcp(&compound, &mut sealed).unwrap();
        let (plain, outlets) = (&mut stage.plain, &mut stage.outlets);
        let received = stage.publishing.receive_rtcp(&sealed, plain, outlets, 0);
        assert_eq!(received, Ok(()));
        stage.outlets.flush();
        let mut expected = Vec::new();
        rtcp::sender_report(&report, "one", &mut expected);
        assert_eq!(arrived(&stage.targets[1]).unwrap(), expected);
        let (plain, outlets) = (&mut stage.plain, &mut stage.outlets);
        let again = stage.publishing.receive_rtcp(&sealed, plain, outlets, 0);
        assert_eq!(again, Err(Unusable::NotAuthentic));
    }
}

/// A key frame of 320x192, its parameter set of constrained baseline in front (STAP-A).
const KEY: &[u8] = b"\x78\x00\x08\x67\x42\xc0\x1e\xda\x05\x06\x64\x00\x03\x65\x88\x80";

#[test]
fn a_layer_leaves_as_a_rendition_until_it_does_not_fit() {
    let mut stage = Stage::with(PROFILES[0], |request, to| {
        request["tracks"][0]["rid"] = json!("h");
        let stream = |name: &str, to: &str| json!({"name": name, "ssrc": 77, "payload_type": 96, "kbps": 1000, "to": to});
        request["passing"] = json!({
            "epoch_ms": 0, "renditions": [stream("high", &to.to_string())],
            "sound": stream("audio", "127.0.0.1:9"),
        });
    });
    let told = |stage: &mut Stage| stage.publishing.news().map(|it| to_value(it).unwrap());
    let high = |layer: Value| json!({"event": "publisher.passing", "publisher": "one", "renditions": {"high": layer}});
    assert_eq!(told(&mut stage), Some(high(Value::Null)));
    let slice = stage.sealed(102, 9, 1, b"\x41slice");
    assert_eq!(stage.receive(&slice, 0), Ok(Forwarded::Nothing));
    let key = stage.sealed(102, 9, 2, KEY);
    assert_eq!(stage.receive(&key, 1_000), Ok(Forwarded::Sent));
    let packet = arrived(&stage.targets[1]).unwrap();
    assert_eq!(packet[..4], [0x80, 0x80 | 96, 0, 2]);
    assert_eq!((&packet[8..12], &packet[12..]), (&[0, 0, 0, 77][..], KEY));
    assert_eq!(told(&mut stage), Some(high(json!("h"))));
    assert_eq!(told(&mut stage), None);
    assert_eq!(arrived(&stage.targets[0]), None, "nobody decodes");

    let plis = |stage: &mut Stage, now| {
        let mut plis: Vec<u32> = Vec::new();
        let compound = stage.told(now).unwrap_or_default();
        let _ = rtcp::parse(&compound, |feedback| {
            if let Feedback::Pli { media_ssrc } = feedback {
                plis.push(media_ssrc);
            }
        });
        plis
    };
    stage.publishing.want_key_frame(Some("low"));
    assert!(plis(&mut stage, 2_000).is_empty());
    stage.publishing.want_key_frame(Some("high"));
    assert_eq!(plis(&mut stage, 3_000), [9]);

    let main = [&KEY[..4], b"\x4d", &KEY[5..]].concat();
    let other = stage.sealed(102, 9, 3, &main);
    assert_eq!(stage.receive(&other, 4_000), Ok(Forwarded::Sent));
    let mut unfit = high(Value::Null);
    unfit["unfit"] = json!("a layer is not constrained baseline");
    assert_eq!(told(&mut stage), Some(unfit));
    assert_eq!(arrived(&stage.targets[1]), None);
    let packet = arrived(&stage.targets[0]).unwrap();
    assert_eq!(packet[..2], [0x80, 0x80 | 102], "as the decoder knows it");
}
