use proptest::prelude::*;
use serde_json::json;

use super::*;

fn incoming(value: &Value) -> Incoming {
    Incoming::read(value.to_string().as_bytes())
}

fn request(value: &Value) -> Request {
    incoming(value).request.unwrap()
}

fn refusal(value: &Value) -> Refusal {
    incoming(value).request.unwrap_err()
}

fn stream_add() -> Value {
    json!({"do": "stream.add", "id": 1, "stream": 7, "kind": "video", "port": 5004,
           "address": "10.0.3.2", "name": "high@test1", "group": "test1", "clock": 90000,
           "kbps": 1000, "max_bytes": 8388608, "parent": "10.0.1.9:5900"})
}

fn viewer_add() -> Value {
    json!({"do": "viewer.add", "id": 3, "viewer": "5f2c", "group": "test1",
           "remote": {"ufrag": "abcd", "pwd": "abcdefghijklmnopqrstuv",
                      "fingerprint": "sha-256 AB:CD", "setup": "actpass"},
           "video": {"payload_type": 102, "rtx_payload_type": 103, "mid": "0",
                     "extensions": {"abs-send-time": 3, "mid": 4, "playout-delay": 5}},
           "audio": {"payload_type": 111, "mid": "1", "extensions": {}},
           "ladder": [{"stream": 7, "kbps": 1000}, {"stream": 8, "kbps": 300}], "sound": 9,
           "start": 0, "pinned": false, "cname": "c"})
}

/// `value` with the member at `path` set, or removed.
fn with(mut value: Value, path: &str, member: Option<Value>) -> Value {
    let (parent, name) = path.rsplit_once('/').unwrap();
    let parent = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match member {
        Some(member) => drop(parent.insert(name.into(), member)),
        None => drop(parent.remove(name)),
    }
    value
}

#[test]
fn the_requests_of_the_protocol_document() {
    let Request::StreamAdd(stream) = request(&stream_add()) else {
        panic!()
    };
    assert_eq!(
        (stream.stream, stream.kind, stream.port.get()),
        (7, Kind::Video, 5004)
    );
    assert_eq!(stream.parent, Some("10.0.1.9:5900".parse().unwrap()));

    for (parent, expected) in [
        (
            json!("10.0.1.9:5900"),
            Some("10.0.1.9:5900".parse().unwrap()),
        ),
        (json!(null), None),
    ] {
        let message = json!({"do": "stream.parent", "id": 2, "stream": 7, "parent": parent});
        let expected = StreamParent {
            stream: 7,
            parent: expected,
        };
        assert_eq!(request(&message), Request::StreamParent(expected));
    }

    let Request::ViewerAdd(viewer) = request(&viewer_add()) else {
        panic!()
    };
    let video = viewer.video.clone().unwrap();
    assert_eq!(video.rtx_payload_type.unwrap().get(), 103);
    assert_eq!(video.extensions.abs_send_time.unwrap().get(), 3);
    assert_eq!(video.extensions.playout_delay.unwrap().get(), 5);
    assert_eq!(
        video.mid_extension().map(|(id, mid)| (id.get(), mid)),
        Some((4, "0"))
    );
    assert_eq!(viewer.audio.as_ref().unwrap().mid_extension(), None);
    assert_eq!(viewer.channel.ladder.rungs()[1].kbps.get(), 300);
    assert_eq!(
        (viewer.channel.sound, viewer.remote.setup),
        (Some(9), Setup::Actpass)
    );

    let change = json!({"do": "viewer.change", "id": 4, "viewer": "5f2c", "group": "test2",
                        "ladder": [{"stream": 9, "kbps": 1}], "sound": null, "pinned": true});
    let Request::ViewerChange(change) = request(&change) else {
        panic!()
    };
    assert!(change.channel.pinned && change.channel.sound.is_none() && change.channel.start == 0);

    let import = json!({"do": "viewer.import", "id": 8, "state": {"a": [1]}, "jump": 0,
                        "ladder": [{"stream": 9, "kbps": 1}], "sound": 9});
    let Request::ViewerImport(import) = request(&import) else {
        panic!()
    };
    assert_eq!(import.state["a"], json!([1]));
}

#[test]
fn the_short_requests_of_the_protocol_document() {
    let stream = StreamOnly { stream: 7 };
    let viewer = || ViewerOnly {
        viewer: Name::try_from("v".to_owned()).unwrap(),
    };
    for (what, members, expected) in [
        (
            "stream.remove",
            json!({"stream": 7}),
            Request::StreamRemove(stream.clone()),
        ),
        (
            "stream.key_frame",
            json!({"stream": 7}),
            Request::StreamKeyFrame(stream),
        ),
        (
            "viewer.close",
            json!({"viewer": "v"}),
            Request::ViewerClose(viewer()),
        ),
        (
            "viewer.export",
            json!({"viewer": "v"}),
            Request::ViewerExport(viewer()),
        ),
        (
            "viewer.snapshot",
            json!({"viewer": "v"}),
            Request::ViewerSnapshot(viewer()),
        ),
        (
            "viewer.statistics",
            json!({"viewer": "v"}),
            Request::ViewerStatistics(ViewerStatistics {
                viewer: Some(viewer().viewer),
            }),
        ),
        (
            "viewer.statistics",
            json!({}),
            Request::ViewerStatistics(ViewerStatistics { viewer: None }),
        ),
        ("statistics", json!({}), Request::Statistics),
        ("state", json!({}), Request::State),
        (
            "log",
            json!({"level": "debug"}),
            Request::Log(LogLevel {
                level: Level::Debug,
            }),
        ),
    ] {
        let line = with(
            with(members, "/do", Some(json!(what))),
            "/id",
            Some(json!(-5)),
        );
        let read = incoming(&line);
        assert_eq!(read.id, Some(Number::from(-5)));
        assert_eq!(read.request, Ok(expected), "{what}");
    }
}

#[test]
fn unknown_members_are_ignored() {
    let line = with(viewer_add(), "/new", Some(json!({"deep": [1]})));
    let line = with(line, "/video/extensions/new", Some(json!(99)));
    assert_eq!(request(&line), request(&viewer_add()));
}

#[test]
fn values_out_of_their_limits_are_invalid() {
    let rung = json!({"stream": 1, "kbps": 5});
    for (path, value) in [
        ("/video/payload_type", json!(128)),
        ("/video/rtx_payload_type", json!(102)),
        ("/video/extensions/mid", json!(15)),
        ("/video/extensions/mid", json!(0)),
        ("/video/extensions/mid", json!(3)),
        ("/video/mid", json!("")),
        ("/remote/setup", json!("passive")),
        ("/remote/ufrag", json!("abc")),
        ("/remote/pwd", json!("abc:efghijklmnopqrstuv")),
        ("/ladder", json!([])),
        ("/ladder", json!(vec![rung.clone(); 17])),
        ("/ladder", json!([rung, {"stream": 2, "kbps": 6}])),
        ("/ladder", json!([{"stream": 1, "kbps": 0}])),
        ("/start", json!(2)),
        ("/start", json!(-1)),
        ("/viewer", json!("v".repeat(201))),
        ("/sound", json!("nine")),
    ] {
        let refusal = refusal(&with(viewer_add(), path, Some(value.clone())));
        assert_eq!(refusal.code, Code::Invalid, "{path} {value}");
    }
    for (path, value) in [
        ("/port", json!(0)),
        ("/port", json!(65_536)),
        ("/clock", json!(1)),
        ("/kind", json!("text")),
        ("/address", json!("here")),
        ("/parent", json!("10.0.0.1")),
        ("/max_bytes", json!(1)),
        ("/name", json!("")),
    ] {
        let refusal = refusal(&with(stream_add(), path, Some(value.clone())));
        assert_eq!(refusal.code, Code::Invalid, "{path} {value}");
    }
}

#[test]
fn a_missing_member_is_named() {
    for path in [
        "/viewer",
        "/group",
        "/ladder",
        "/cname",
        "/remote/pwd",
        "/video/mid",
    ] {
        let refusal = refusal(&with(viewer_add(), path, None));
        assert_eq!(refusal.code, Code::Invalid);
        assert!(
            refusal.detail.contains(path.rsplit('/').next().unwrap()),
            "{}",
            refusal.detail
        );
    }
    let neither = with(with(viewer_add(), "/video", None), "/audio", None);
    assert_eq!(refusal(&neither).code, Code::Invalid);
    assert!(
        incoming(&with(viewer_add(), "/audio", None))
            .request
            .is_ok()
    );
}

#[test]
fn what_is_not_this_protocol_is_malformed() {
    for (line, id) in [
        ("", None),
        ("hello", None),
        ("[]", None),
        ("{}", None),
        ("{\"do\": \"state\"}", None),
        ("{\"do\": \"state\", \"id\": 1.5}", None),
        ("{\"do\": \"state\", \"id\": \"1\"}", None),
        ("{\"do\": \"state\", \"id\": 1} {}", None),
        ("{\"id\": 1}", Some(1)),
        ("{\"id\": 1, \"do\": 2}", Some(1)),
        ("{\"id\": 1, \"do\": \"dance\"}", Some(1)),
    ] {
        let read = Incoming::read(line.as_bytes());
        assert_eq!(read.id, id.map(Number::from), "{line}");
        assert_eq!(read.request.unwrap_err().code, Code::Malformed, "{line}");
    }
    assert!(
        Incoming::read(b"{\"do\": \"state\xff\", \"id\": 1}")
            .request
            .is_err()
    );
    assert!(
        Incoming::read("[".repeat(1 << 20).as_bytes())
            .request
            .is_err()
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(line: Vec<u8>) {
        // Random bytes are no request: those that are come from the next test.
        prop_assert!(Incoming::read(&line).request.is_err());
    }

    #[test]
    fn a_request_with_any_bytes_changed_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        add_viewer: bool,
    ) {
        let whole = if add_viewer { viewer_add() } else { stream_add() };
        let mut line = whole.to_string().into_bytes();
        for (at, byte) in &changes {
            let at = at.index(line.len());
            line[at] = *byte;
        }
        let read = Incoming::read(&line);
        prop_assert!(read.request.is_err() || read.id.is_some());
        prop_assert!(!changes.is_empty() || read.request.is_ok());
    }
}
