//! The thread that owns all DTLS connections, so that no worker waits for a key exchange.
//!
//! Workers hand over the datagrams that are DTLS (RFC 7983) and get back what is to be sent, the
//! keys, and the end. [`Handshakes`] is the part without threads; [`spawn`] runs it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use leaf_core::Micros;
use leaf_secure::dtls::{Fingerprint, Handshake, Identity, Progress, Secrets};

/// Handshakes under way at one time.
const MAX_UNDER_WAY: usize = 4096;
/// Datagrams of one viewer that wait for their turn.
const MAX_QUEUED: usize = 8;
/// Datagrams that wait for the thread to look at them.
const MAX_WAITING: usize = 4096;
/// How long a handshake may take.
const MAX_TIME: Micros = 15_000_000;

/// What a worker is told about one of its viewers.
#[derive(Debug)]
pub struct Notice {
    /// The viewer, by the key it was started with.
    pub viewer: u64,
    /// What happened.
    pub outcome: Outcome,
}

/// What happened to a viewer's DTLS connection.
#[derive(Debug)]
pub enum Outcome {
    /// A datagram is to be sent to it.
    Transmit(Vec<u8>),
    /// The keys are agreed on.
    Established(Secrets),
    /// It said goodbye. The end.
    Closed,
    /// There are no keys, or no more. The end, with the reason.
    Failed(String),
}

/// What the handshake thread is asked to do.
#[derive(Debug)]
enum Command {
    Start {
        viewer: u64,
        worker: usize,
        expected: Fingerprint,
    },
    Datagram {
        viewer: u64,
        bytes: Box<[u8]>,
    },
    Close {
        viewer: u64,
    },
    Forget {
        viewer: u64,
    },
    CloseAll,
}

/// What happened so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Handshakes that led to keys.
    pub established: AtomicU64,
    /// Handshakes and connections that failed.
    pub failed: AtomicU64,
    /// Handshakes that were refused because too many were under way.
    pub refused: AtomicU64,
    /// Datagrams dropped because too many waited, or because nobody was known to send them.
    pub dropped: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Where any thread hands over what the handshake thread is to do. Never waits.
#[derive(Clone)]
pub struct Mailbox {
    sender: Sender<Command>,
    waiting: Arc<AtomicUsize>,
    counters: Arc<Counters>,
}

impl Mailbox {
    /// Expect a viewer with this certificate; notices go to this worker. To be called when the
    /// viewer's first datagram is there, since the time for the handshake begins now.
    pub fn start(&self, viewer: u64, worker: usize, expected: Fingerprint) {
        self.send(Command::Start {
            viewer,
            worker,
            expected,
        });
    }

    /// A viewer sent a datagram. Dropped and counted if too many wait.
    pub fn datagram(&self, viewer: u64, bytes: &[u8]) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            count(&self.counters.dropped);
            return;
        }
        self.send(Command::Datagram {
            viewer,
            bytes: bytes.into(),
        });
    }

    /// Say goodbye to a viewer and forget it. Nothing but the goodbye is told to its worker.
    pub fn close(&self, viewer: u64) {
        self.send(Command::Close { viewer });
    }

    /// Forget a viewer without a word: another process goes on with it.
    pub fn forget(&self, viewer: u64) {
        self.send(Command::Forget { viewer });
    }

    /// Say goodbye to all viewers and forget them.
    pub fn close_all(&self) {
        self.send(Command::CloseAll);
    }

    /// The counters so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn send(&self, command: Command) {
        // Fails only if the thread has ended, and then no viewer can be helped.
        let _ = self.sender.send(command);
    }
}

/// Start the thread. It ends when every [`Mailbox`] is dropped. `clock` tells the time, `deliver`
/// takes notices for the worker of the given number.
///
/// # Errors
/// What the system says about starting a thread.
pub fn spawn(
    identity: Identity,
    clock: impl Fn() -> Micros + Send + 'static,
    deliver: impl FnMut(usize, Notice) + Send + 'static,
) -> io::Result<(Mailbox, JoinHandle<()>)> {
    let (sender, receiver) = channel();
    let counters = Arc::new(Counters::default());
    let waiting = Arc::new(AtomicUsize::new(0));
    let mailbox = Mailbox {
        sender,
        waiting: waiting.clone(),
        counters: counters.clone(),
    };
    let handshakes = Handshakes::new(identity, counters, deliver);
    let thread = Builder::new()
        .name("handshakes".into())
        .spawn(move || run(handshakes, &receiver, &waiting, clock))?;
    Ok((mailbox, thread))
}

fn run<D: FnMut(usize, Notice)>(
    mut handshakes: Handshakes<D>,
    commands: &Receiver<Command>,
    waiting: &AtomicUsize,
    clock: impl Fn() -> Micros,
) {
    loop {
        let wait = match handshakes.deadline() {
            _ if handshakes.is_busy() => Duration::ZERO,
            Some(at) => Duration::from_micros(at.saturating_sub(clock())),
            None => Duration::MAX,
        };
        let first = match commands.recv_timeout(wait) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        for command in first
            .into_iter()
            .chain(commands.try_iter().take(MAX_WAITING))
        {
            if matches!(command, Command::Datagram { .. }) {
                waiting.fetch_sub(1, Ordering::Relaxed);
            }
            handshakes.handle(command, clock());
        }
        handshakes.work(clock());
        handshakes.expire(clock());
    }
}

/// One viewer's connection.
struct Session {
    worker: usize,
    handshake: Handshake,
    queued: VecDeque<Box<[u8]>>,
    established: bool,
    deadline: Micros,
    /// What stands in the timers for it.
    timer: Option<Micros>,
}

/// All DTLS connections, without threads and clocks.
struct Handshakes<D> {
    identity: Identity,
    counters: Arc<Counters>,
    deliver: D,
    sessions: HashMap<u64, Session>,
    under_way: usize,
    /// Viewers with queued datagrams, each once.
    turns: VecDeque<u64>,
    timers: BTreeSet<(Micros, u64)>,
}

impl<D: FnMut(usize, Notice)> Handshakes<D> {
    fn new(identity: Identity, counters: Arc<Counters>, deliver: D) -> Self {
        Self {
            identity,
            counters,
            deliver,
            sessions: HashMap::new(),
            under_way: 0,
            turns: VecDeque::new(),
            timers: BTreeSet::new(),
        }
    }

    /// Whether datagrams wait for [`Handshakes::work`].
    fn is_busy(&self) -> bool {
        !self.turns.is_empty()
    }

    /// When [`Handshakes::expire`] has something to do.
    fn deadline(&self) -> Option<Micros> {
        self.timers.first().map(|&(at, _)| at)
    }

    fn handle(&mut self, command: Command, now: Micros) {
        match command {
            Command::Start {
                viewer,
                worker,
                expected,
            } => {
                self.start(viewer, worker, expected, now);
            }
            Command::Datagram { viewer, bytes } => self.queue(viewer, bytes),
            Command::Close { viewer } => self.close(viewer),
            Command::Forget { viewer } => drop(self.remove(viewer)),
            Command::CloseAll => {
                let viewers: Vec<_> = self.sessions.keys().copied().collect();
                viewers.into_iter().for_each(|viewer| self.close(viewer));
            }
        }
    }

    fn start(&mut self, viewer: u64, worker: usize, expected: Fingerprint, now: Micros) {
        self.remove(viewer);
        let handshake = if self.under_way == MAX_UNDER_WAY {
            count(&self.counters.refused);
            Err("too many handshakes are under way".to_owned())
        } else {
            Handshake::server(&self.identity, expected, now).map_err(|error| error.to_string())
        };
        match handshake {
            Ok(handshake) => {
                let session = Session {
                    worker,
                    handshake,
                    queued: VecDeque::new(),
                    established: false,
                    deadline: now + MAX_TIME,
                    timer: None,
                };
                self.sessions.insert(viewer, session);
                self.under_way += 1;
                self.follow(viewer);
            }
            Err(why) => (self.deliver)(
                worker,
                Notice {
                    viewer,
                    outcome: Outcome::Failed(why),
                },
            ),
        }
    }

    fn queue(&mut self, viewer: u64, bytes: Box<[u8]>) {
        let session = self.sessions.get_mut(&viewer);
        match session.filter(|session| session.queued.len() < MAX_QUEUED) {
            Some(session) => {
                if session.queued.is_empty() {
                    self.turns.push_back(viewer);
                }
                session.queued.push_back(bytes);
            }
            None => count(&self.counters.dropped),
        }
    }

    /// Take one queued datagram; viewers take turns.
    fn work(&mut self, now: Micros) {
        let Some(viewer) = self.turns.pop_front() else {
            return;
        };
        // A viewer that was removed may have left its turn behind.
        let Some(session) = self.sessions.get_mut(&viewer) else {
            return;
        };
        if let Some(bytes) = session.queued.pop_front() {
            session.handshake.receive(&bytes, now);
        }
        if !session.queued.is_empty() {
            self.turns.push_back(viewer);
        }
        self.follow(viewer);
    }

    /// Send again what got no answer, and give up what takes too long.
    fn expire(&mut self, now: Micros) {
        let due = self.timers.range(..=(now, u64::MAX));
        let viewers: Vec<u64> = due.map(|&(_, viewer)| viewer).collect();
        for viewer in viewers {
            let Some(session) = self.sessions.get_mut(&viewer) else {
                continue;
            };
            if now >= session.deadline {
                self.fail(viewer, "it took longer than 15 s");
            } else {
                session.handshake.handle_timeout(now);
                self.follow(viewer);
            }
        }
    }

    fn close(&mut self, viewer: u64) {
        if let Some(session) = self.sessions.get_mut(&viewer) {
            session.handshake.close();
            self.transmit(viewer);
            self.remove(viewer);
        }
    }

    fn fail(&mut self, viewer: u64, why: &str) {
        if let Some(session) = self.remove(viewer) {
            count(&self.counters.failed);
            let outcome = Outcome::Failed(why.to_owned());
            (self.deliver)(session.worker, Notice { viewer, outcome });
        }
    }

    /// Tell what a step of the handshake led to, and set the timer for the next one.
    fn follow(&mut self, viewer: u64) {
        self.transmit(viewer);
        let Some(session) = self.sessions.get_mut(&viewer) else {
            return;
        };
        let worker = session.worker;
        match session.handshake.progress().clone() {
            Progress::Handshaking => {}
            Progress::Established(_) if session.established => {}
            Progress::Established(secrets) => {
                session.established = true;
                self.under_way -= 1;
                count(&self.counters.established);
                let outcome = Outcome::Established(secrets);
                (self.deliver)(worker, Notice { viewer, outcome });
            }
            Progress::Closed => {
                self.remove(viewer);
                (self.deliver)(
                    worker,
                    Notice {
                        viewer,
                        outcome: Outcome::Closed,
                    },
                );
            }
            Progress::Failed(why) => self.fail(viewer, &why),
        }
        self.set_timer(viewer);
    }

    fn transmit(&mut self, viewer: u64) {
        if let Some(session) = self.sessions.get_mut(&viewer) {
            while let Some(datagram) = session.handshake.transmit() {
                let outcome = Outcome::Transmit(datagram);
                (self.deliver)(session.worker, Notice { viewer, outcome });
            }
        }
    }

    fn set_timer(&mut self, viewer: u64) {
        let Some(session) = self.sessions.get_mut(&viewer) else {
            return;
        };
        let timeout = session.handshake.timeout();
        let at = if session.established {
            timeout
        } else {
            Some(timeout.map_or(session.deadline, |at| at.min(session.deadline)))
        };
        if at != session.timer {
            if let Some(old) = std::mem::replace(&mut session.timer, at) {
                self.timers.remove(&(old, viewer));
            }
            self.timers.extend(at.map(|at| (at, viewer)));
        }
    }

    fn remove(&mut self, viewer: u64) -> Option<Session> {
        let session = self.sessions.remove(&viewer)?;
        if let Some(at) = session.timer {
            self.timers.remove(&(at, viewer));
        }
        self.under_way -= usize::from(!session.established);
        Some(session)
    }
}

#[cfg(test)]
mod tests;
