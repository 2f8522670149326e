//! A worker: a thread with a share of the viewers and publishers, a socket on their port, and its own
//! copy of every ring. Nothing that it does for a packet waits for another thread.

pub mod connection;
pub mod crowd;
pub mod intake;
pub mod sending;

mod figures;
pub mod handover;
mod house;
mod limits;
mod link;
mod outlets;
mod peers;
mod publishers;
pub mod publishing;
pub mod repair;
pub mod requests;
mod rounds;
mod streams;
mod viewers;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use leaf_core::Micros;
use leaf_core::cursor::StreamId;
use leaf_core::gaps::MAX_MISSING;
use leaf_core::streams::{GroupId, Streams};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::clock;
use crate::control::server::Outbox;
use crate::handshakes::{Mailbox, Notice};
use crate::mesh::{Post, Seat};
use crate::net::batch::Batch;
use crate::net::receive::{Receiver, join_datagrams};

use crowd::{Crowd, Key};
use intake::{Gathering, Intake};
use outlets::Outlets;
use peers::Leaving;
use repair::Answering;
use rounds::Rounds;
use sending::Delays;

pub use figures::{Figures, StreamFigures};
pub use repair::repair_socket;
pub use requests::credentials;

/// The token of the mesh.
pub const MESH: Token = Token(0);
const FIRST_SOCKET: usize = 1;
const ASKERS: Token = Token(FIRST_INLET - 1);
const FIRST_INLET: usize = 1 << 20;
/// A socket is read so many times before others have their turn.
const READS: usize = 8;
const HOUSEKEEPING: Micros = 500_000;
/// Addresses whose packets the kernel gives to this worker though another one has the viewer.
const MAX_ROUTES: usize = 65_536;
/// Messages of other threads that are taken before viewers and streams have their turn.
const MESSAGES: usize = 1024;

/// What other threads ask a worker to do.
pub enum Message {
    /// Do this; the controller's requests.
    Do(Box<dyn FnOnce(&mut Worker) + Send>),
    /// The handshake thread has something to say.
    Notice(Notice),
    /// A datagram of a viewer or publisher of this worker came to another one.
    Datagram {
        /// Which worker it came to.
        by: usize,
        /// Where from.
        from: SocketAddr,
        /// On which of the addresses.
        socket: usize,
        /// What.
        bytes: Box<[u8]>,
    },
    /// This worker has the viewer or publisher at an address.
    Route {
        /// The address.
        from: SocketAddr,
        /// The worker.
        to: usize,
    },
    /// End.
    Stop,
}

/// What a worker tells others.
pub struct Others {
    /// Its own number.
    pub number: usize,
    /// The workers, itself included.
    pub posts: Vec<Post<Message>>,
    /// How many datagrams wait for another worker than the one they came to.
    pub forwarded: Arc<AtomicUsize>,
    /// The handshake thread.
    pub handshakes: Mailbox,
    /// The controller.
    pub outbox: Outbox,
    /// Who is gone, for the main thread.
    pub gone: Sender<Leaver>,
}

/// Who is gone, by the controller's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaver {
    /// A viewer.
    Viewer(String),
    /// A publisher.
    Publisher(String),
}

/// The last `stream.state` of a stream.
#[derive(Clone, Copy)]
struct Told {
    receiving: bool,
    size: Option<(u32, u32)>,
    at: Micros,
}

#[derive(Default)]
struct StreamState {
    receiving: bool,
    size: Option<(u32, u32)>,
    told: Option<Told>,
    key_frame_wanted: Option<Micros>,
    overflows: u64,
    parent: Option<SocketAddr>,
}

/// Counts of what could not be used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Refused {
    /// Datagrams that are nothing that is expected here.
    pub alien: u64,
    /// ICE checks that are not authentic.
    pub checks: u64,
    /// RTCP that is not authentic.
    pub rtcp: u64,
    /// Authentic RTCP of viewers that send too much of it.
    pub excess: u64,
    /// Packets of streams or publishers that are no RTP, or empty, or too long to be passed on.
    pub rtp: u64,
    /// RTP at a publisher's address that is not authentic, or a repetition.
    pub srtp: u64,
}

/// One worker.
pub struct Worker {
    poll: Poll,
    seat: Option<Seat<Message>>,
    others: Others,
    sockets: Vec<Arc<UdpSocket>>,
    batches: Vec<Batch>,
    outlets: Outlets,
    from_peers: Option<Receiver>,
    from_streams: Option<Receiver>,
    streams: Streams,
    states: HashMap<StreamId, StreamState>,
    groups: HashMap<String, GroupId>,
    next_group: GroupId,
    intake: Intake,
    gathering: Gathering,
    answering: Option<Answering>,
    rounds: Rounds,
    crowd: Crowd,
    routes: HashMap<SocketAddr, usize>,
    leaving: HashMap<Key, Leaving>,
    delays: Delays,
    refused: Refused,
    mesh_dropped: u64,
    ready: Vec<Token>,
    plain: Vec<u8>,
    answer: Vec<u8>,
    lost: Vec<u16>,
    housekeeping: Micros,
    running: bool,
}

impl Worker {
    /// A worker with a socket for each address; one of them also answers other servers.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(
        poll: Poll,
        seat: Seat<Message>,
        others: Others,
        sockets: Vec<UdpSocket>,
        answering: Option<Answering>,
    ) -> io::Result<Self> {
        let sockets: Vec<_> = sockets.into_iter().map(Arc::new).collect();
        for (number, socket) in sockets.iter().enumerate() {
            let mut source = SourceFd(&socket.as_raw_fd());
            let token = Token(FIRST_SOCKET + number);
            poll.registry()
                .register(&mut source, token, Interest::READABLE)?;
        }
        if let Some(answering) = &answering {
            let mut source = SourceFd(&answering.socket().as_raw_fd());
            poll.registry()
                .register(&mut source, ASKERS, Interest::READABLE)?;
        }
        Ok(Self {
            poll,
            seat: Some(seat),
            others,
            batches: sockets.iter().cloned().map(Batch::new).collect(),
            sockets,
            outlets: Outlets::default(),
            from_peers: Some(Receiver::single()),
            from_streams: Some(Receiver::joined()),
            streams: Streams::default(),
            states: HashMap::new(),
            groups: HashMap::new(),
            next_group: 0,
            intake: Intake::new(FIRST_INLET),
            gathering: Gathering::default(),
            answering,
            rounds: Rounds::default(),
            crowd: Crowd::default(),
            routes: HashMap::new(),
            leaving: HashMap::new(),
            delays: Delays::default(),
            refused: Refused::default(),
            mesh_dropped: 0,
            ready: Vec::new(),
            plain: Vec::with_capacity(2048),
            answer: Vec::with_capacity(2048),
            lost: Vec::with_capacity(MAX_MISSING),
            housekeeping: 0,
            running: true,
        })
    }

    /// Work until told to stop.
    ///
    /// # Errors
    /// What the system says about waiting for events.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        while self.running {
            match self.poll.poll(&mut events, self.patience()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                if !self.ready.contains(&event.token()) {
                    self.ready.push(event.token());
                }
            }
            for token in std::mem::take(&mut self.ready) {
                if self.serve(token) {
                    self.ready.push(token);
                }
            }
            let now = clock::now();
            self.ask_parents(now);
            while let Some(stream) = self.gathering.next(now) {
                self.pass_on(stream);
            }
            while let Some(key) = self.crowd.next_due(now) {
                self.on_time(key, now);
            }
            if now >= self.housekeeping {
                self.housekeeping = now + HOUSEKEEPING;
                self.keep_house(now);
            }
            self.serve_viewers();
            self.send();
        }
        Ok(())
    }

    fn patience(&self) -> Option<Duration> {
        if !self.ready.is_empty() || !self.rounds.is_empty() {
            return Some(Duration::ZERO);
        }
        let due = [
            self.gathering.due(),
            self.streams.asking_due(),
            self.crowd.due(),
            Some(self.housekeeping),
        ];
        let due = due.into_iter().flatten().min()?;
        Some(Duration::from_micros(due.saturating_sub(clock::now())))
    }

    fn send(&mut self) {
        for batch in &mut self.batches {
            batch.flush();
        }
        if let Some(answering) = &mut self.answering {
            answering.flush();
        }
        self.outlets.flush();
        self.delays.left(clock::now());
        if let Some(seat) = &mut self.seat {
            seat.notify();
        }
    }

    /// Read what is there. True if there may be more.
    fn serve(&mut self, token: Token) -> bool {
        if token == MESH {
            return self.hear();
        }
        if self.intake.is_token(token) {
            let Some(mut receiver) = self.from_streams.take() else {
                return false;
            };
            let more = self.read_stream(token, &mut receiver);
            self.from_streams = Some(receiver);
            return more;
        }
        let Some(mut receiver) = self.from_peers.take() else {
            return false;
        };
        let more = match token {
            ASKERS => self.read_askers(&mut receiver),
            Token(number) => self.read_peers(number - FIRST_SOCKET, &mut receiver),
        };
        self.from_peers = Some(receiver);
        more
    }

    // -- what other threads say -----------------------------------------------------------------

    /// Take what other threads sent. True if there may be more.
    fn hear(&mut self) -> bool {
        let Some(mut seat) = self.seat.take() else {
            return false;
        };
        seat.hear();
        // Who asks for the figures does so while the seat is in use here.
        self.mesh_dropped = seat.dropped();
        seat.packets(|packet| self.take_in(packet.stream, packet.bytes, packet.arrival));
        let mut taken = 0;
        for message in seat.messages().take(MESSAGES) {
            taken += 1;
            match message {
                Message::Do(act) => act(self),
                Message::Notice(notice) => self.on_notice(notice),
                Message::Datagram {
                    by,
                    from,
                    socket,
                    bytes,
                } => {
                    self.others.forwarded.fetch_sub(1, Ordering::Relaxed);
                    if self.on_datagram(from, socket, &bytes, clock::now()) {
                        let to = self.others.number;
                        self.others.posts[by].send(Message::Route { from, to });
                    } else {
                        self.refused.alien += 1;
                    }
                }
                Message::Route { from, to } => {
                    if self.routes.len() >= MAX_ROUTES {
                        self.routes.clear();
                    }
                    self.routes.insert(from, to);
                }
                Message::Stop => self.running = false,
            }
        }
        self.seat = Some(seat);
        taken == MESSAGES
    }
}

/// A socket on which a stream is to arrive.
///
/// # Errors
/// What the system says.
pub fn stream_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = crate::net::socket::bind_alone(address)?;
    join_datagrams(&socket);
    Ok(socket)
}

#[cfg(test)]
mod tests;
