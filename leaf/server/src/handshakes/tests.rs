use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Instant;

use super::*;

type Notices = Rc<RefCell<Vec<(usize, Notice)>>>;

/// The connections of one server, and what it told the workers since it was asked last.
struct Fixture {
    handshakes: Handshakes<Box<dyn FnMut(usize, Notice)>>,
    notices: Notices,
    counters: Arc<Counters>,
    client: Identity,
}

impl Fixture {
    fn new() -> Self {
        let notices = Notices::default();
        let told = notices.clone();
        let deliver = move |worker, notice| told.borrow_mut().push((worker, notice));
        let counters = Arc::new(Counters::default());
        let server = Identity::generate().unwrap();
        Self {
            handshakes: Handshakes::new(server, counters.clone(), Box::new(deliver)),
            notices,
            counters,
            client: Identity::generate().unwrap(),
        }
    }

    fn start(&mut self, viewer: u64, now: Micros) -> Handshake {
        let expected = self.client.fingerprint().clone();
        self.handshakes.handle(
            Command::Start {
                viewer,
                worker: 3,
                expected,
            },
            now,
        );
        let server = self.handshakes.identity.fingerprint().clone();
        Handshake::client(&self.client, server, now).unwrap()
    }

    fn receive(&mut self, viewer: u64, bytes: &[u8]) {
        self.handshakes.handle(
            Command::Datagram {
                viewer,
                bytes: bytes.into(),
            },
            0,
        );
    }

    fn work(&mut self, now: Micros) {
        while self.handshakes.is_busy() {
            self.handshakes.work(now);
        }
    }

    /// The notices so far; all are for the worker that the viewers belong to.
    fn told(&self) -> Vec<Notice> {
        let notices = self.notices.take();
        assert!(notices.iter().all(|&(worker, _)| worker == 3));
        notices.into_iter().map(|(_, notice)| notice).collect()
    }

    /// Pass datagrams both ways until both fall silent; the notices other than datagrams.
    fn settle(&mut self, viewer: u64, client: &mut Handshake, now: Micros) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        loop {
            let sent: Vec<_> = std::iter::from_fn(|| client.transmit()).collect();
            for datagram in &sent {
                self.receive(viewer, datagram);
                self.work(now);
            }
            let told = self.told();
            if sent.is_empty() && told.is_empty() {
                return outcomes;
            }
            for notice in told {
                assert_eq!(notice.viewer, viewer);
                match notice.outcome {
                    Outcome::Transmit(datagram) => client.receive(&datagram, now),
                    other => outcomes.push(other),
                }
            }
        }
    }

    fn count(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        counter(&self.counters).load(Ordering::Relaxed)
    }
}

fn established(outcomes: &[Outcome]) -> Option<&Secrets> {
    match outcomes {
        [Outcome::Established(secrets)] => Some(secrets),
        _ => None,
    }
}

#[test]
fn a_viewer_gets_the_same_keys_as_its_worker() {
    let mut fixture = Fixture::new();
    let mut client = fixture.start(7, 0);
    let outcomes = fixture.settle(7, &mut client, 1);
    let ours = established(&outcomes).expect("established");
    let Progress::Established(theirs) = client.progress() else {
        panic!("{client:?}")
    };
    assert!(ours.profile == theirs.profile && ours.outbound == theirs.inbound);
    assert!(ours.inbound == theirs.outbound);
    assert_eq!(fixture.handshakes.under_way, 0);
    assert_eq!(fixture.handshakes.deadline(), None);
    assert_eq!(fixture.count(|counters| &counters.established), 1);
}

#[test]
fn the_goodbye_of_a_viewer_is_told_once_and_the_viewer_forgotten() {
    let mut fixture = Fixture::new();
    let mut client = fixture.start(7, 0);
    fixture.settle(7, &mut client, 1);
    client.close();
    assert!(matches!(
        fixture.settle(7, &mut client, 2)[..],
        [Outcome::Closed]
    ));
    assert!(fixture.handshakes.sessions.is_empty());
    fixture.receive(7, b"late");
    assert_eq!(fixture.count(|counters| &counters.dropped), 1);
}

#[test]
fn we_say_goodbye_to_one_or_to_all() {
    let mut fixture = Fixture::new();
    let mut clients: Vec<_> = (0..3).map(|viewer| fixture.start(viewer, 0)).collect();
    for (viewer, client) in (0..).zip(&mut clients) {
        fixture.settle(viewer, client, 1);
    }
    let unfinished = fixture.start(9, 1);
    let goodbyes = |fixture: &Fixture, clients: &mut [Handshake]| -> HashSet<u64> {
        fixture
            .told()
            .into_iter()
            .map(|notice| {
                let Outcome::Transmit(datagram) = notice.outcome else {
                    panic!("{notice:?}")
                };
                let client = &mut clients[notice.viewer as usize];
                client.receive(&datagram, 2);
                assert!(matches!(client.progress(), Progress::Closed));
                notice.viewer
            })
            .collect()
    };
    fixture.handshakes.handle(Command::Close { viewer: 1 }, 2);
    assert_eq!(goodbyes(&fixture, &mut clients), [1].into());
    fixture.handshakes.handle(Command::CloseAll, 2);
    assert_eq!(goodbyes(&fixture, &mut clients), [0, 2].into());
    assert!(fixture.handshakes.sessions.is_empty() && fixture.handshakes.timers.is_empty());
    assert_eq!(fixture.handshakes.under_way, 0);
    drop(unfinished);
}

#[test]
fn another_certificate_fails() {
    let mut fixture = Fixture::new();
    let mut client = fixture.start(7, 0);
    let expected = Identity::generate().unwrap().fingerprint().clone();
    fixture.handshakes.handle(
        Command::Start {
            viewer: 7,
            worker: 3,
            expected,
        },
        0,
    );
    let outcomes = fixture.settle(7, &mut client, 1);
    assert!(matches!(outcomes[..], [Outcome::Failed(_)]), "{outcomes:?}");
    assert_eq!(fixture.count(|counters| &counters.failed), 1);
    assert!(fixture.handshakes.sessions.is_empty() && fixture.handshakes.under_way == 0);
}

#[test]
fn who_stays_silent_fails_after_15_s() {
    let mut fixture = Fixture::new();
    let _client = fixture.start(7, 100);
    assert!(fixture.handshakes.deadline().is_some());
    fixture.handshakes.expire(100 + MAX_TIME - 1);
    assert!(fixture.told().is_empty());
    fixture.handshakes.expire(100 + MAX_TIME);
    assert!(matches!(
        fixture.told()[..],
        [Notice {
            viewer: 7,
            outcome: Outcome::Failed(_)
        }]
    ));
    assert_eq!(fixture.handshakes.deadline(), None);
    assert_eq!(fixture.handshakes.under_way, 0);
}

#[test]
fn too_many_handshakes_are_refused_and_others_go_on() {
    let mut fixture = Fixture::new();
    fixture.handshakes.under_way = MAX_UNDER_WAY - 1;
    let mut first = fixture.start(1, 0);
    let _second = fixture.start(2, 0);
    assert!(matches!(
        fixture.told()[..],
        [Notice {
            viewer: 2,
            outcome: Outcome::Failed(_)
        }]
    ));
    assert_eq!(fixture.count(|counters| &counters.refused), 1);
    assert!(established(&fixture.settle(1, &mut first, 1)).is_some());
    let mut third = fixture.start(3, 1);
    assert!(established(&fixture.settle(3, &mut third, 2)).is_some());
}

#[test]
fn a_viewer_has_eight_datagrams_in_the_queue_and_others_their_turns() {
    let mut fixture = Fixture::new();
    let _flooder = fixture.start(1, 0);
    let mut client = fixture.start(2, 0);
    for _ in 0..1000 {
        fixture.receive(1, b"\x16garbage");
    }
    assert_eq!(
        fixture.count(|counters| &counters.dropped),
        1000 - MAX_QUEUED as u64
    );
    fixture.receive(2, &client.transmit().unwrap());
    fixture.handshakes.work(1);
    assert!(fixture.told().is_empty());
    fixture.handshakes.work(1);
    let told = fixture.told();
    assert!(!told.is_empty() && told.iter().all(|notice| notice.viewer == 2));
}

#[test]
fn the_thread_establishes_and_ends_with_its_mailboxes() {
    let (server, client_identity) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let fingerprint = server.fingerprint().clone();
    let (notices, inbox) = channel();
    let start = Instant::now();
    let clock = move || start.elapsed().as_micros() as Micros;
    let deliver = move |worker, notice: Notice| notices.send((worker, notice.outcome)).unwrap();
    let (mailbox, thread) = spawn(server, clock, deliver).unwrap();
    mailbox.start(5, 1, client_identity.fingerprint().clone());
    let mut client = Handshake::client(&client_identity, fingerprint, clock()).unwrap();
    let lost = client.transmit().unwrap();
    drop(lost);
    let secrets = loop {
        while let Some(datagram) = client.transmit() {
            mailbox.datagram(5, &datagram);
        }
        match inbox.recv_timeout(Duration::from_millis(50)) {
            Ok((worker, outcome)) => {
                assert_eq!(worker, 1);
                match outcome {
                    Outcome::Transmit(datagram) => client.receive(&datagram, clock()),
                    Outcome::Established(secrets) => break secrets,
                    other => panic!("{other:?}"),
                }
            }
            Err(_) => client.handle_timeout(clock()),
        }
        assert!(clock() < 10_000_000);
    };
    assert!(!secrets.outbound.expose().is_empty());
    mailbox.clone().close_all();
    assert!(matches!(
        inbox.recv_timeout(Duration::from_secs(5)),
        Ok((1, Outcome::Transmit(_)))
    ));
    drop(mailbox);
    thread.join().unwrap();
}

#[test]
fn datagrams_that_nobody_takes_are_limited() {
    let (sender, receiver) = channel();
    let mailbox = Mailbox {
        sender,
        waiting: Arc::default(),
        counters: Arc::default(),
    };
    for _ in 0..MAX_WAITING + 5 {
        mailbox.datagram(1, b"x");
    }
    assert_eq!(mailbox.counters().dropped.load(Ordering::Relaxed), 5);
    assert_eq!(receiver.try_iter().count(), MAX_WAITING);
}
