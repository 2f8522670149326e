//! All viewers of one process: their sockets, timers, and what the controller asks for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver as Inbox, Sender, TryRecvError};
use std::thread;
use std::time::Duration;

use leaf_secure::dtls::{Fingerprint, Identity};
use leaf_wire::ice::Credentials;
use mio::event::Event as Readiness;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::clock::{self, Micros};
use crate::control::{Add, Command, Done, Event, Message, Refusal, Statistics, read};
use crate::figures::Figures;
use crate::ice::Agent;
use crate::media::Shared;
use crate::net::{self, Receiver};
use crate::viewer::{self, Viewer};

const WAKE: Token = Token(usize::MAX);
const EVENTS: usize = 4096;
/// Time left to others after each look at the sockets: a wake-up for every packet would cost more
/// than the packet. The kernel notes when packets come, so what is measured does not change.
const PAUSE: Duration = Duration::from_millis(2);

/// A viewer with its socket.
struct Seat {
    name: String,
    socket: UdpSocket,
    viewer: Viewer,
    /// What stands in the timers for it.
    timer: Option<Micros>,
}

/// The viewers and what they share. Their numbers are their tokens, and are used again.
pub struct Crowd {
    poll: Poll,
    local: IpAddr,
    identity: Identity,
    shared: Shared,
    receiver: Receiver,
    seats: Vec<Option<Seat>>,
    free: Vec<usize>,
    names: HashMap<String, usize>,
    timers: BTreeSet<(Micros, usize)>,
    replies: Sender<Message>,
}

impl Crowd {
    /// Nobody yet. Sockets are bound to `local`; one of `sample` packets is looked into.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new(
        local: IpAddr,
        identity: Identity,
        sample: u16,
        replies: Sender<Message>,
    ) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            local,
            identity,
            shared: Shared::new(sample),
            receiver: Receiver::default(),
            seats: Vec::new(),
            free: Vec::new(),
            names: HashMap::new(),
            timers: BTreeSet::new(),
            replies,
        })
    }

    /// What has [`Self::run`] look into its inbox.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), WAKE)
    }

    /// Carries out the lines in `inbox` until nobody can send any more; then everybody leaves.
    ///
    /// # Errors
    ///
    /// What the system says about polling.
    pub fn run(mut self, inbox: &Inbox<String>) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let wait = self
                .timers
                .first()
                .map(|&(at, _)| Duration::from_micros(at.saturating_sub(clock::now())));
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let offset = clock::realtime_offset();
            for event in &events {
                self.take(event, offset);
            }
            self.handle_due();
            if !events.is_empty() {
                thread::sleep(PAUSE);
            }
            loop {
                match inbox.try_recv() {
                    Ok(line) => self.carry_out(&line),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.names
                            .clone()
                            .into_keys()
                            .for_each(|name| drop(self.remove(&name)));
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Takes what waits at one viewer's socket.
    fn take(&mut self, event: &Readiness, offset: Micros) {
        let number = event.token().0;
        let Some(Some(seat)) = self.seats.get_mut(number) else {
            return;
        };
        let now = clock::now();
        loop {
            let result = self.receiver.receive(&seat.socket, |at, datagram| {
                let at = at.map_or(now, |at| at.saturating_sub(offset));
                seat.viewer.receive(datagram, at, now, &mut self.shared);
            });
            // An error belongs to a packet sent before; the viewer notices if nobody is there.
            if !result.unwrap_or(true) {
                break;
            }
        }
        self.follow(number);
    }

    fn handle_due(&mut self) {
        let now = clock::now();
        while let Some(&(_, number)) = self.timers.first().filter(|&&(at, _)| at <= now) {
            match self.seats.get_mut(number) {
                Some(Some(seat)) => seat.viewer.handle_due(now),
                _ => return,
            }
            self.follow(number);
        }
    }

    /// Sends and tells what a step of a viewer led to, and sets its timer for the next.
    fn follow(&mut self, number: usize) {
        let Some(Some(seat)) = self.seats.get_mut(number) else {
            return;
        };
        while let Some(datagram) = seat.viewer.transmit() {
            // Lost, as on the way; what matters is sent again.
            let _ = seat.socket.send(&datagram);
        }
        while let Some(event) = seat.viewer.event() {
            // Fails if nobody listens any more, and then the inbox ends, too.
            let _ = self
                .replies
                .send(Message::Event(told(seat.name.clone(), event)));
        }
        let due = seat.viewer.due();
        if due != seat.timer {
            if let Some(before) = std::mem::replace(&mut seat.timer, due) {
                self.timers.remove(&(before, number));
            }
            self.timers.extend(due.map(|at| (at, number)));
        }
    }

    fn carry_out(&mut self, line: &str) {
        let message = match read(line) {
            Ok(request) => {
                let id = request.id;
                match self.handle(request.command) {
                    Ok(ok) => Message::Done { id, ok },
                    Err(error) => Message::Refused { id, error },
                }
            }
            Err(refusal) => refusal,
        };
        let _ = self.replies.send(message);
    }

    fn handle(&mut self, command: Command) -> Result<Done, Refusal> {
        match command {
            Command::Add(add) => self.add(*add)?,
            Command::Remove { viewer } => self.remove(&viewer)?,
            Command::Await { viewer, stream } => {
                self.find(&viewer)?.viewer.await_stream(stream);
            }
            Command::Statistics { reset, each } => {
                return Ok(Done::Statistics(Box::new(self.statistics(reset, each))));
            }
        }
        Ok(Done::Nothing {})
    }

    fn add(&mut self, add: Add) -> Result<(), Refusal> {
        if self.names.contains_key(&add.viewer) {
            return Err(Refusal::new("exists", add.viewer));
        }
        let expected: Fingerprint = add
            .remote
            .fingerprint
            .parse()
            .map_err(|error| Refusal::new("invalid", error))?;
        let local = Credentials {
            ufrag: add.local.ufrag,
            pwd: add.local.pwd,
        };
        let remote = Credentials {
            ufrag: add.remote.ufrag,
            pwd: add.remote.pwd,
        };
        let agent = Agent::new(local, remote, add.remote.address, clock::now())
            .map_err(|error| Refusal::new("failed", error))?;
        let number = self.free.pop().unwrap_or(self.seats.len());
        let socket = self.socket(&add.remote.address, number).map_err(|error| {
            self.release(number);
            Refusal::new("failed", error)
        })?;
        let viewer = Viewer::new(self.identity.clone(), expected, add.agreed, agent);
        self.names.insert(add.viewer.clone(), number);
        let seat = Seat {
            name: add.viewer,
            socket,
            viewer,
            timer: None,
        };
        if number == self.seats.len() {
            self.seats.push(Some(seat));
        } else {
            self.seats[number] = Some(seat);
        }
        self.follow(number);
        Ok(())
    }

    /// Gives back a number that was not used in the end.
    fn release(&mut self, number: usize) {
        if number < self.seats.len() {
            self.free.push(number);
        }
    }

    fn socket(&self, peer: &std::net::SocketAddr, number: usize) -> io::Result<UdpSocket> {
        let mut socket = UdpSocket::from_std(net::open(self.local, *peer)?);
        let registry = self.poll.registry();
        registry.register(&mut socket, Token(number), Interest::READABLE)?;
        Ok(socket)
    }

    fn find(&mut self, name: &str) -> Result<&mut Seat, Refusal> {
        let number = self.names.get(name);
        let seat = number.and_then(|&number| self.seats.get_mut(number)?.as_mut());
        seat.ok_or_else(|| Refusal::new("unknown", name))
    }

    fn remove(&mut self, name: &str) -> Result<(), Refusal> {
        self.find(name)?.viewer.close();
        let Some(number) = self.names.remove(name) else {
            return Ok(());
        };
        self.follow(number);
        if let Some(mut seat) = self.seats.get_mut(number).and_then(Option::take) {
            // The socket is closed in a moment, which takes it out as well.
            let _ = self.poll.registry().deregister(&mut seat.socket);
            self.free.push(number);
        }
        Ok(())
    }

    fn statistics(&mut self, reset: bool, each: bool) -> Statistics {
        let (mut totals, mut up) = (Figures::default(), 0);
        let mut all = BTreeMap::new();
        for seat in self.seats.iter_mut().flatten() {
            let mut figures = seat.viewer.figures(reset);
            figures.overflows = net::overflows(&seat.socket);
            totals += &figures;
            up += usize::from(seat.viewer.is_up());
            if each {
                all.insert(seat.name.clone(), figures);
            }
        }
        let delay_us = self.shared.delays.percentiles();
        if reset {
            self.shared.delays.reset();
        }
        Statistics {
            at_us: clock::now(),
            viewers: self.names.len(),
            up,
            totals,
            delay_us,
            each: each.then_some(all),
        }
    }
}

fn told(viewer: String, event: viewer::Event) -> Event {
    let at_us = clock::now();
    match event {
        viewer::Event::Up => Event::Up { viewer, at_us },
        viewer::Event::Closed => Event::Gone {
            viewer,
            at_us,
            why: "closed".into(),
        },
        viewer::Event::Failed(why) => Event::Gone { viewer, at_us, why },
        viewer::Event::Arrived { stream, at } => Event::Arrived {
            viewer,
            at_us: at,
            stream,
        },
    }
}
