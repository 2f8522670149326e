use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::thread::JoinHandle;
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::connection::{MAX_REPLY, MAX_UNREAD};
use super::super::reply::KeyFrame;
use super::super::request::StreamOnly;
use super::*;

/// Answers `log` with what it was, refuses stream 404, and has a key frame as large as is wanted.
struct Answers;

impl Site for Answers {
    fn handle(&mut self, request: Request) -> Result<Reply, Refusal> {
        match request {
            Request::StreamRemove(StreamOnly { stream: 404 }) => {
                Err(Refusal::new(Code::Unknown, "no stream 404"))
            }
            Request::StreamKeyFrame(StreamOnly { stream }) => Ok(Reply::KeyFrame(Some(KeyFrame {
                annex_b: vec![0; stream as usize],
                age_ms: 0,
            }))),
            _ => Ok(Reply::Done {}),
        }
    }
}

fn hello() -> Hello {
    Hello {
        protocol: super::super::event::PROTOCOL,
        version: "0",
        pid: 1,
        fingerprint: "sha-256 AB".into(),
        listen: Vec::new(),
        repair: None,
        threads: 1,
    }
}

/// A server in a thread; ended when this is dropped.
struct Running {
    directory: TempDir,
    outbox: Outbox,
    stop: Option<StdUnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Server::bind(&directory.path().join("control"), hello()).unwrap();
        let outbox = server.outbox();
        let (stop, stopped) = StdUnixStream::pair().unwrap();
        server.stop_on(stopped).unwrap();
        let thread = std::thread::spawn(move || server.run(&mut Answers).unwrap());
        Self {
            directory,
            outbox,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    fn connect(&self) -> Client {
        let stream = StdUnixStream::connect(self.path()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut client = Client {
            lines: BufReader::new(stream),
        };
        assert_eq!(client.read()["event"], "hello");
        client
    }

    /// Stop the server and wait for its end.
    fn finish(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.finish();
    }
}

struct Client {
    lines: BufReader<StdUnixStream>,
}

impl Client {
    fn write(&mut self, bytes: &[u8]) {
        self.lines.get_mut().write_all(bytes).unwrap();
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, request: &Value) -> Value {
        self.write(format!("{request}\n").as_bytes());
        self.read()
    }

    /// Whether the server closed the connection, without anything more to read.
    fn ended(&mut self) -> bool {
        matches!(self.lines.read(&mut [0]), Ok(0))
    }
}

#[test]
fn requests_are_answered_by_their_ids() {
    let server = Running::start();
    let mut client = server.connect();
    assert_eq!(
        client.ask(&json!({"do": "state", "id": 5})),
        json!({"id": 5, "ok": {}})
    );
    assert_eq!(
        client.ask(&json!({"do": "stream.remove", "id": 6, "stream": 404})),
        json!({"id": 6, "error": {"code": "unknown", "detail": "no stream 404"}})
    );
    assert_eq!(
        client.ask(&json!({"do": "dance", "id": 7}))["error"]["code"],
        "malformed"
    );
    assert_eq!(
        client.ask(&json!({"do": "log", "id": 8}))["error"]["code"],
        "invalid"
    );
    client.write(b"\n{\"do\": \"state\", \"id\": 9}\r\n{\"do\": \"state\",");
    assert_eq!(client.read()["id"], 9);
    client.write(b" \"id\": 10}\n");
    assert_eq!(client.read()["id"], 10);
}

#[test]
fn a_thousand_requests_at_once_are_answered_in_order() {
    let server = Running::start();
    let mut client = server.connect();
    let lines: String = (0..1000)
        .map(|id| json!({"do": "state", "id": id}).to_string() + "\n")
        .collect();
    client.write(lines.as_bytes());
    for id in 0..1000 {
        assert_eq!(client.read()["id"], id);
    }
}

#[test]
fn events_of_any_thread_reach_the_controller() {
    let server = Running::start();
    let mut client = server.connect();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let outbox = server.outbox.clone();
            std::thread::spawn(move || {
                (0..100).for_each(|n| {
                    outbox.send(Event::StreamWanted {
                        stream: thread * 100 + n,
                    })
                });
            })
        })
        .collect();
    let mut streams: Vec<_> = (0..400)
        .map(|_| client.read()["stream"].as_u64().unwrap())
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    streams.sort_unstable();
    assert_eq!(streams, (0..400).collect::<Vec<_>>());
    assert_eq!(server.outbox.dropped(), 0);
}

#[test]
fn a_new_controller_takes_over() {
    let server = Running::start();
    let mut first = server.connect();
    let mut second = server.connect();
    assert!(first.ended());
    server.outbox.send(Event::StreamWanted { stream: 1 });
    assert_eq!(second.read()["event"], "stream.wanted");
    drop(second);
    let mut third = server.connect();
    assert_eq!(third.ask(&json!({"do": "state", "id": 1}))["id"], 1);
}

#[test]
fn a_line_that_is_too_long_ends_the_connection() {
    let server = Running::start();
    let mut client = server.connect();
    client.write(&vec![b'x'; MAX_LINE + 1]);
    let reply = client.read();
    assert_eq!(
        (&reply["id"], &reply["error"]["code"]),
        (&Value::Null, &json!("malformed"))
    );
    assert!(client.ended());
    server.connect();
}

#[test]
fn a_reply_that_is_too_long_is_refused() {
    let server = Running::start();
    let mut client = server.connect();
    let request = |bytes| json!({"do": "stream.key_frame", "id": 1, "stream": bytes});
    let long = client.ask(&request(MAX_REPLY / 4 * 3 - 100));
    assert!(long["ok"]["annex_b"].as_str().unwrap().len() > MAX_REPLY / 2);
    assert_eq!(client.ask(&request(MAX_REPLY))["error"]["code"], "failed");
}

#[test]
fn a_controller_that_does_not_read_its_replies_is_left() {
    let server = Running::start();
    let mut client = server.connect();
    let request = json!({"do": "stream.key_frame", "id": 1, "stream": MAX_LINE / 2});
    // The server may have closed before the last one is written.
    let requests = format!("{request}\n").repeat(MAX_UNREAD * 4 / MAX_LINE);
    let _ = client.lines.get_mut().write_all(requests.as_bytes());
    let mut held = Vec::new();
    let _ = client.lines.read_to_end(&mut held);
    assert!(held.len() < MAX_UNREAD);
    server.connect();
}

#[test]
fn events_for_a_controller_that_does_not_read_stop_nobody() {
    let server = Running::start();
    let mut client = server.connect();
    let event = Event::ViewerStream {
        viewer: "v".repeat(200),
        stream: 1,
        why: "estimate",
    };
    let length = event_line(&event).len();
    let start = Instant::now();
    for _ in 0..MAX_UNREAD * 2 / length {
        server.outbox.send(event.clone());
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    // What the socket still holds, then the end.
    let mut held = Vec::new();
    client.lines.read_to_end(&mut held).unwrap();
    assert!(held.len() < MAX_UNREAD);
    server.connect();
}

#[test]
fn a_controller_that_missed_events_is_disconnected() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let mut server = Server::bind(&path, hello()).unwrap();
    let client = StdUnixStream::connect(&path).unwrap();
    server.accept();
    // Nobody serves now, so that the queue fills.
    let outbox = server.outbox();
    for _ in 0..=MAX_EVENTS {
        outbox.send(Event::StreamWanted { stream: 1 });
    }
    assert_eq!(outbox.dropped(), 1);
    server.serve(&mut Answers);
    assert!(server.controller.is_none());
    drop(client);
    // The next one starts anew, with room again.
    let _client = StdUnixStream::connect(&path).unwrap();
    server.accept();
    server.serve(&mut Answers);
    assert!(server.controller.is_some());
}

#[test]
fn events_without_a_controller_are_not_kept() {
    let server = Running::start();
    drop(server.connect());
    for _ in 0..10 {
        server.outbox.send(Event::StreamWanted { stream: 1 });
    }
    let mut client = server.connect();
    assert_eq!(client.ask(&json!({"do": "state", "id": 1}))["id"], 1);
}

#[test]
fn only_its_user_may_connect_and_nothing_is_left_behind() {
    let mut server = Running::start();
    assert_eq!(fs::metadata(server.path()).unwrap().mode() & 0o777, 0o600);
    server.finish();
    assert_eq!(fs::read_dir(&server.directory).unwrap().count(), 0);
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    // Dropping a listener of the standard library leaves its path, as a process that dies does.
    drop(StdUnixListener::bind(&path).unwrap());
    let server = Server::bind(&path, hello()).unwrap();
    let kind = |path: &Path| Server::bind(path, hello()).err().map(|error| error.kind());
    assert_eq!(kind(&path), Some(ErrorKind::AddrInUse));
    drop(server);
    assert!(!path.exists());
    fs::write(&path, "a file").unwrap();
    assert_eq!(kind(&path), Some(ErrorKind::AlreadyExists));
    assert_eq!(fs::read(&path).unwrap(), b"a file");
}

#[test]
fn a_second_start_does_not_disturb_the_controller() {
    let server = Running::start();
    let mut client = server.connect();
    assert!(Server::bind(&server.path(), hello()).is_err());
    assert_eq!(client.ask(&json!({"do": "state", "id": 1}))["id"], 1);
}

#[test]
fn garbage_is_answered_and_does_no_harm() {
    use proptest::test_runner::{Config, TestRunner};

    let server = Running::start();
    let mut runner = TestRunner::new(Config::with_cases(100));
    let garbage = proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300);
    runner
        .run(&garbage, |mut bytes| {
            let mut client = server.connect();
            bytes.push(b'\n');
            client.write(&bytes);
            for line in bytes
                .split(|&byte| byte == b'\n')
                .filter(|line| !line.is_empty())
            {
                let reply = client.read();
                assert_eq!(reply["error"]["code"], "malformed", "{line:?}");
            }
            assert_eq!(client.ask(&json!({"do": "state", "id": 1}))["id"], 1);
            Ok(())
        })
        .unwrap();
}
