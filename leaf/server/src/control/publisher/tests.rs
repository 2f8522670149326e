use proptest::prelude::*;
use serde_json::{Value, json, to_value};

use super::super::reply::{Reply, line};
use super::super::request::{Incoming, Request};
use super::*;

fn publisher_add() -> Value {
    json!({"do": "publisher.add", "id": 1, "publisher": "9a", "kbps": 2500,
           "remote": {"ufrag": "abcd", "pwd": "abcdefghijklmnopqrstuv",
                      "fingerprint": "sha-256 AB:CD", "setup": "actpass"},
           "tracks": [
             {"mid": "0", "kind": "video", "clock": 90000, "payload_types": [102, 104],
              "rtx": {"103": 102}, "ssrcs": [1234], "extensions": {"mid": 4},
              "feedback": ["nack", "pli", "remb", "goog"], "to": "127.0.0.1:41000"},
             {"mid": "1", "kind": "audio", "clock": 48000, "payload_types": [111], "rtx": {},
              "ssrcs": [], "extensions": {}, "feedback": [], "to": "[::1]:41002"}]})
}

fn read(value: &Value) -> Result<Request, Refusal> {
    Incoming::read(value.to_string().as_bytes()).request
}

/// The request with something else at `path`.
fn with(path: &str, member: Value) -> Value {
    let mut value = publisher_add();
    *value.pointer_mut(path).unwrap() = member;
    value
}

#[test]
fn the_request_of_the_protocol_document() {
    let Ok(Request::PublisherAdd(request)) = read(&publisher_add()) else {
        panic!()
    };
    assert_eq!(request.kbps.unwrap().get(), 2500);
    let [video, audio] = &request.tracks[..] else {
        panic!()
    };
    let rtx = video.rtx.iter().map(|(rtx, it)| (rtx.get(), it.get()));
    assert_eq!(rtx.collect::<Vec<_>>(), [(103, 102)]);
    assert_eq!(video.extensions.mid.unwrap().get(), 4);
    assert!(video.wants("remb") && video.wants("pli") && !audio.wants("nack"));
    assert_eq!(audio.to, "[::1]:41002".parse().unwrap());
    // As `state` tells them.
    let told = to_value(&request.tracks).unwrap();
    assert_eq!(told, publisher_add()["tracks"]);
}

#[test]
fn the_short_requests_of_the_protocol_document() {
    let publisher = Name::try_from("p".to_owned()).unwrap();
    let only = || PublisherOnly {
        publisher: publisher.clone(),
    };
    for (what, members, expected) in [
        (
            "publisher.close",
            json!({"publisher": "p"}),
            Request::PublisherClose(only()),
        ),
        (
            "publisher.key_frame",
            json!({"publisher": "p"}),
            Request::PublisherKeyFrame(PublisherKeyFrame {
                publisher: publisher.clone(),
                rendition: None,
            }),
        ),
        (
            "publisher.statistics",
            json!({}),
            Request::PublisherStatistics(PublisherStatistics { publisher: None }),
        ),
        (
            "publisher.statistics",
            json!({"publisher": "p"}),
            Request::PublisherStatistics(PublisherStatistics {
                publisher: Some(publisher.clone()),
            }),
        ),
    ] {
        let mut line = members;
        line["do"] = json!(what);
        line["id"] = json!(7);
        assert_eq!(read(&line), Ok(expected), "{what}");
    }
}

#[test]
fn values_that_do_not_fit_are_invalid() {
    let track = publisher_add()["tracks"][0].take();
    for (path, value) in [
        ("/tracks", json!([])),
        ("/tracks", json!([track, track])),
        ("/tracks/0/mid", json!("1")),
        ("/tracks/1/mid", json!("")),
        ("/tracks/0/payload_types", json!([])),
        ("/tracks/0/payload_types", json!([128])),
        ("/tracks/0/payload_types", json!(vec![102; 33])),
        ("/tracks/0/ssrcs", json!((0..33).collect::<Vec<_>>())),
        ("/tracks/0/ssrcs", json!([-1])),
        ("/tracks/0/rtx", json!({"102": 104})),
        ("/tracks/0/rtx", json!({"103": 105})),
        ("/tracks/0/rtx", json!({"200": 102})),
        ("/tracks/0/rtx", json!({"rtx": 102})),
        ("/tracks/0/extensions/mid", json!(15)),
        ("/tracks/0/clock", json!(0)),
        ("/tracks/0/kind", json!("text")),
        ("/tracks/0/feedback", json!("nack")),
        ("/tracks/0/to", json!("127.0.0.1")),
        ("/tracks/0/to", json!("127.0.0.1:0")),
        ("/tracks/0/to", json!("127.0.0.1:65535")),
        ("/tracks/0/to", json!("[::1]:41001")),
        ("/tracks/0/to", json!("[::1]:41003")),
        ("/remote/setup", json!("passive")),
        ("/kbps", json!(0)),
    ] {
        let refusal = read(&with(path, value.clone())).unwrap_err();
        assert_eq!(refusal.code, Code::Invalid, "{path} {value}");
    }
    assert!(read(&with("/tracks/0/to", json!("[::1]:41000"))).is_ok());
}

/// The request of a publisher with layers.
fn with_layers() -> Value {
    let mut value = publisher_add();
    let track = value["tracks"][0].take();
    let layer = |rid: &str| {
        let mut layer = track.clone();
        layer["rid"] = json!(rid);
        layer["extensions"] = json!({"mid": 4, "rid": 10, "repaired_rid": 11});
        layer
    };
    value["tracks"] = json!([layer("h"), layer("l"), publisher_add()["tracks"][1]]);
    let stream = |name: &str, port: u16| {
        json!({"name": name, "ssrc": port, "payload_type": 96, "kbps": 300,
               "to": format!("127.0.0.1:{port}")})
    };
    value["passing"] = json!({"epoch_ms": 1_700_000_000_000_u64, "sound": stream("audio", 42004),
                              "renditions": [stream("high", 42000), stream("low", 42002)]});
    value
}

#[test]
fn layers_of_the_protocol_document() {
    let Ok(Request::PublisherAdd(request)) = read(&with_layers()) else {
        panic!()
    };
    let rids: Vec<_> = request.tracks.iter().map(Track::layer).collect();
    assert_eq!(rids, [Some("h"), Some("l"), None]);
    let passing = request.passing.unwrap();
    let ports: Vec<_> = passing.streams().map(|it| it.to.port()).collect();
    assert_eq!(ports, [42000, 42002, 42004]);
    assert_eq!(to_value(&request.tracks).unwrap(), with_layers()["tracks"]);
    let line = json!({"do": "publisher.key_frame", "id": 7, "publisher": "p", "rendition": "low"});
    let name = |text: &str| Name::try_from(text.to_owned()).unwrap();
    let expected = PublisherKeyFrame {
        publisher: name("p"),
        rendition: Some(name("low")),
    };
    assert_eq!(read(&line), Ok(Request::PublisherKeyFrame(expected)));
}

#[test]
fn layers_that_do_not_fit_each_other_are_invalid() {
    let plain = publisher_add()["tracks"].take();
    for (path, value) in [
        ("/passing", Value::Null),
        ("/passing/renditions", json!([])),
        ("/passing/renditions/0/to", json!("127.0.0.1:42002")),
        ("/passing/renditions/0/to", json!("127.0.0.1:0")),
        ("/passing/renditions/0/name", json!("low")),
        ("/passing/renditions/0/ssrc", json!(-1)),
        ("/passing/sound", Value::Null),
        ("/tracks", plain),
        ("/tracks/0/rid", json!("l")),
        ("/tracks/0/rid", json!("")),
        ("/tracks/0/rid", Value::Null),
        ("/tracks/0/mid", json!("5")),
        ("/tracks/0/to", json!("127.0.0.1:41010")),
        ("/tracks/0/to", json!("127.0.0.1:41001")),
        ("/tracks/2/to", json!("127.0.0.1:41001")),
        ("/tracks/0/kind", json!("audio")),
        ("/tracks/0/extensions/rid", json!(15)),
    ] {
        let mut changed = with_layers();
        *changed.pointer_mut(path).unwrap() = value.clone();
        let refusal = read(&changed).unwrap_err();
        assert_eq!(refusal.code, Code::Invalid, "{path} {value}");
    }
}

#[test]
fn replies_as_in_the_protocol_document() {
    let parsed = |reply: Reply| -> Value { serde_json::from_str(&line(None, Ok(&reply))).unwrap() };
    let added = PublisherAdded {
        ufrag: "u".into(),
        pwd: "p".into(),
        setup: Passive::Passive,
    };
    assert_eq!(
        parsed(Reply::PublisherAdded(added))["ok"],
        json!({"ufrag": "u", "pwd": "p", "setup": "passive"})
    );
    let track = TrackFigures {
        packets: 1,
        bytes: 1,
        lost: 0,
        repaired: 0,
        nacks: 0,
        plis: 0,
        useless: 0,
        jitter_ms: 1.0,
    };
    let figures = PublisherFigures {
        state: PeerState::Up,
        address: None,
        silent_ms: 3,
        rtt_ms: None,
        kbps: 4000,
        strangers: 0,
        tracks: [("0".to_owned(), track)].into(),
    };
    let publishers = Publishers {
        publishers: [("9a".to_owned(), figures)].into(),
    };
    assert_eq!(
        parsed(Reply::Publishers(publishers))["ok"],
        json!({"publishers": {"9a": {"state": "up", "address": null, "silent_ms": 3,
               "rtt_ms": null, "kbps": 4000, "strangers": 0,
               "tracks": {"0": {"packets": 1, "bytes": 1, "lost": 0, "repaired": 0, "nacks": 0,
                                "plis": 0, "useless": 0, "jitter_ms": 1.0}}}}})
    );
}

proptest! {
    #[test]
    fn a_request_with_any_bytes_changed_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut line = publisher_add().to_string().into_bytes();
        for (at, byte) in &changes {
            let at = at.index(line.len());
            line[at] = *byte;
        }
        let read = Incoming::read(&line);
        prop_assert!(read.request.is_err() || read.id.is_some());
        prop_assert!(!changes.is_empty() || read.request.is_ok());
    }
}
