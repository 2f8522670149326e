//! The control socket: one controller at a time, served by the main thread.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{fs, time::Duration};

use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, SockAddr, Socket, Type};

use super::connection::{Input, MAX_LINE, MAX_REPLY, Output, Turn};
use super::event::{Event, Hello};
use super::reply::{Code, Refusal, Reply, line};
use super::request::{Incoming, Request};
use crate::log::{Level, log};

/// Events that wait for the main thread: all viewers of a machine may be gone at once.
const MAX_EVENTS: usize = 16_384;

const LISTENER: Token = Token(0);
const CONTROLLER: Token = Token(1);
const EVENTS: Token = Token(2);
const STOP: Token = Token(3);

/// Who carries out the controller's requests, on the main thread.
pub trait Site {
    /// Carry out one request.
    ///
    /// # Errors
    /// The refusal that the controller gets.
    fn handle(&mut self, request: Request) -> Result<Reply, Refusal>;
}

/// Where any thread puts events for the controller. Never waits.
#[derive(Clone)]
pub struct Outbox {
    events: SyncSender<Event>,
    waker: Arc<Waker>,
    dropped: Arc<AtomicU64>,
}

impl Outbox {
    /// Tell the controller, if there is one. An event for which there is no room is dropped and
    /// counted; the controller is then disconnected, so that it asks for the state anew.
    pub fn send(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        // Fails only if the main thread's poll is gone, and with it the controller.
        let _ = self.waker.wake();
    }

    /// Events dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The control socket. Its path is removed when it is dropped.
pub struct Server {
    poll: Poll,
    listener: UnixListener,
    _path: OwnPath,
    controller: Option<Controller>,
    events: Receiver<Event>,
    outbox: Outbox,
    hello: Hello,
    stop: Option<UnixStream>,
}

/// A connected controller.
struct Controller {
    stream: UnixStream,
    input: Input,
    output: Output,
    /// Whether there may be something to read.
    readable: bool,
    /// Whether it ends as soon as everything is written.
    closing: bool,
    /// [`Outbox::dropped`] when it connected.
    dropped: u64,
}

impl Server {
    /// Listen at `path`, which only this user may connect to (mode 0600). A socket that a process
    /// left there when it died is replaced.
    ///
    /// # Errors
    /// What the system says; [`ErrorKind::AddrInUse`] if a living process listens there, and
    /// [`ErrorKind::AlreadyExists`] if something is there that is no socket.
    pub fn bind(path: &Path, hello: Hello) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = listen(path)?;
        let own_path = OwnPath::new(path)?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let (sender, events) = sync_channel(MAX_EVENTS);
        let waker = Arc::new(Waker::new(poll.registry(), EVENTS)?);
        let outbox = Outbox {
            events: sender,
            waker,
            dropped: Arc::default(),
        };
        Ok(Self {
            poll,
            listener,
            _path: own_path,
            controller: None,
            events,
            outbox,
            hello,
            stop: None,
        })
    }

    /// Where other threads put events.
    pub fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    /// Let [`Server::run`] end as soon as something can be read from `stream`.
    ///
    /// # Errors
    /// What the system says.
    pub fn stop_on(&mut self, stream: StdUnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let mut stream = UnixStream::from_std(stream);
        self.poll
            .registry()
            .register(&mut stream, STOP, Interest::READABLE)?;
        self.stop = Some(stream);
        Ok(())
    }

    /// Serve until what [`Server::stop_on`] waits for.
    ///
    /// # Errors
    /// What the system says about polling; a failing controller is disconnected.
    pub fn run(&mut self, site: &mut impl Site) -> io::Result<()> {
        let mut ready = Events::with_capacity(16);
        loop {
            let busy = self.controller.as_ref().is_some_and(Controller::can_read);
            match self.poll.poll(&mut ready, busy.then_some(Duration::ZERO)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &ready {
                match event.token() {
                    LISTENER => self.accept(),
                    CONTROLLER => self.woken(event.is_readable() || event.is_read_closed()),
                    STOP => return Ok(()),
                    _ => {}
                }
            }
            self.serve(site);
        }
    }

    /// Take a new controller; the newest one wins.
    fn accept(&mut self) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    log!(
                        Level::Error,
                        "controller not accepted",
                        error = error.to_string()
                    );
                    return;
                }
            };
            self.end("another one took over");
            if let Err(error) = self.welcome(stream) {
                log!(
                    Level::Error,
                    "controller not accepted",
                    error = error.to_string()
                );
            }
        }
    }

    fn welcome(&mut self, mut stream: UnixStream) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, CONTROLLER, interest)?;
        // What happened before is in the state that it asks for.
        while self.events.try_recv().is_ok() {}
        let mut controller = Controller {
            stream,
            input: Input::default(),
            output: Output::default(),
            readable: true,
            closing: false,
            dropped: self.outbox.dropped(),
        };
        controller
            .output
            .push(&event_line(&Event::Hello(self.hello.clone())));
        self.controller = Some(controller);
        log!(Level::Info, "controller connected");
        Ok(())
    }

    /// The controller's socket has news; whether it can be written to is tried in any case.
    fn woken(&mut self, readable: bool) {
        if let Some(controller) = &mut self.controller {
            controller.readable |= readable;
        }
    }

    fn end(&mut self, why: &'static str) {
        if let Some(mut controller) = self.controller.take() {
            // Closing takes it out of the poll as well.
            let _ = self.poll.registry().deregister(&mut controller.stream);
            log!(Level::Info, "controller disconnected", why = why);
        }
    }

    /// One turn: events out, one piece of requests in, their replies out.
    fn serve(&mut self, site: &mut impl Site) {
        let dropped = self.outbox.dropped();
        let Some(controller) = &mut self.controller else {
            while self.events.try_recv().is_ok() {}
            return;
        };
        let result = if dropped > controller.dropped {
            Err("events were dropped")
        } else {
            controller.turn(&self.events, site)
        };
        if let Err(why) = result {
            self.end(why);
        }
    }
}

impl Controller {
    fn can_read(&self) -> bool {
        self.readable && !self.closing
    }

    fn turn(&mut self, events: &Receiver<Event>, site: &mut impl Site) -> Result<(), &'static str> {
        for event in events.try_iter().take(MAX_EVENTS) {
            self.write(&event_line(&event))?;
        }
        if self.can_read() {
            match self.input.fill(&mut self.stream) {
                Turn::More => {}
                Turn::Idle => self.readable = false,
                Turn::Ended => return Err("it closed the connection"),
            }
            self.answer_lines(site)?;
        }
        self.output
            .drain(&mut self.stream)
            .map_err(|_| "it closed the connection")?;
        if self.closing && self.output.is_empty() {
            return Err("a line was too long");
        }
        Ok(())
    }

    fn answer_lines(&mut self, site: &mut impl Site) -> Result<(), &'static str> {
        loop {
            match self.input.next_line() {
                Ok(None) => return Ok(()),
                Ok(Some(at)) if at.is_empty() => {}
                Ok(Some(at)) => {
                    let reply = answer(self.input.line(at), site);
                    self.write(&reply)?;
                }
                Err(_) => {
                    let refusal = too_long("a line", MAX_LINE);
                    self.closing = true;
                    return self.write(&line(None, Err(&refusal)));
                }
            }
        }
    }

    fn write(&mut self, line: &str) -> Result<(), &'static str> {
        if self.output.push(line) {
            Ok(())
        } else {
            Err("it does not read")
        }
    }
}

fn too_long(what: &str, limit: usize) -> Refusal {
    Refusal::new(
        Code::Malformed,
        format_args!("{what} is longer than {limit} bytes"),
    )
}

/// Carry out the request in a line; the line with the reply.
fn answer(bytes: &[u8], site: &mut impl Site) -> String {
    let Incoming { id, request } = Incoming::read(bytes);
    let result = request.and_then(|request| site.handle(request));
    let reply = line(id.as_ref(), result.as_ref());
    if reply.len() <= MAX_REPLY {
        return reply;
    }
    let refusal = Refusal {
        code: Code::Failed,
        ..too_long("the reply", MAX_REPLY)
    };
    line(id.as_ref(), Err(&refusal))
}

fn event_line(event: &Event) -> String {
    // Events are structs of texts and numbers, which JSON always has a form for.
    serde_json::to_string(event).unwrap_or_default()
}

/// A path that is removed with its owner, if it is still the owner's.
struct OwnPath {
    path: PathBuf,
    identity: (u64, u64),
}

impl OwnPath {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for OwnPath {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // A path that cannot be removed is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|data| (data.dev(), data.ino()))
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before `listen`, so that the mode holds from the beginning.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(16)?;
    socket.set_nonblocking(true)?;
    Ok(UnixListener::from_std(socket.into()))
}

/// Remove a socket that no process has any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(data) if data.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::new(ErrorKind::AlreadyExists, "is no socket")),
    }
    // A datagram socket cannot connect to a stream socket, and so disturbs no controller: it is
    // refused (ECONNREFUSED) if nobody is there, and has the wrong type (EPROTOTYPE) else.
    match UnixDatagram::unbound()?.connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::Error::new(
            ErrorKind::AddrInUse,
            "another process listens there",
        )),
    }
}

#[cfg(test)]
mod tests;
