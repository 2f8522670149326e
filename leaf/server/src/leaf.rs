//! What the controller asks for, carried out by the workers.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use hdrhistogram::Histogram;
use leaf_core::cursor::StreamId;
use leaf_core::ring;
use leaf_secure::dtls::{Fingerprint, Identity};
use mio::Poll;

use crate::clock;
use crate::control::reply::{
    Added, Code, Delay, Passive, Refusal, Reply, State, Statistics, StreamFigures, Viewers,
};
use crate::control::request::{Kind, Request, StreamAdd, StreamParent, ViewerAdd, ViewerImport};
use crate::control::server::{Outbox, Site};
use crate::handshakes::{self, Mailbox};
use crate::log::{set_level, unwritten};
use crate::mesh::{Post, connect};
use crate::worker::connection::{Connection, Ssrcs};
use crate::worker::handover::{name_in, ufrag_in};
use crate::worker::repair::Answering;
use crate::worker::requests::worker_of;
use crate::worker::{Figures, Leaver, MESH, Message, Others, Worker, credentials, stream_socket};

mod publishers;

/// A worker answers within milliseconds; one that does not is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// The workers, and which viewer or publisher is with which of them.
pub struct Leaf {
    posts: Vec<Post<Message>>,
    threads: Vec<JoinHandle<()>>,
    handshakes: Mailbox,
    streams: BTreeMap<StreamId, Vec<StreamAdd>>,
    viewers: HashMap<String, usize>,
    publishers: HashMap<String, usize>,
    gone: Receiver<Leaver>,
    takes_viewers: bool,
    next_key: u64,
}

impl Leaf {
    /// Start the handshake thread and a worker for each set of sockets; `answering` is where other
    /// servers ask for packets.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(
        identity: Identity,
        sockets: Vec<Vec<UdpSocket>>,
        mut answering: Option<Answering>,
        outbox: &Outbox,
    ) -> io::Result<Self> {
        let takes_viewers = sockets.iter().any(|of_worker| !of_worker.is_empty());
        let polls = sockets
            .iter()
            .map(|_| Poll::new())
            .collect::<io::Result<Vec<_>>>()?;
        let (seats, posts): (Vec<_>, Vec<_>) =
            connect::<Message>(&polls, MESH)?.into_iter().unzip();
        let workers = posts.clone();
        let (handshakes, _) = handshakes::spawn(identity, clock::now, move |worker, notice| {
            if let Some(post) = workers.get(worker) {
                post.send(Message::Notice(notice));
            }
        })?;
        let (gone_sender, gone) = channel();
        let forwarded = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        let parts = polls.into_iter().zip(seats).zip(sockets);
        for (number, ((poll, seat), sockets)) in parts.enumerate() {
            let others = Others {
                number,
                posts: posts.clone(),
                forwarded: forwarded.clone(),
                handshakes: handshakes.clone(),
                outbox: outbox.clone(),
                gone: gone_sender.clone(),
            };
            // Every worker has every ring.
            let answering = answering.take();
            let mut worker = Worker::new(poll, seat, others, sockets, answering)?;
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            threads.push(thread.spawn(move || {
                if let Err(error) = worker.run() {
                    // Half of the viewers frozen would be worse than a restart for all.
                    eprintln!("anabranch-leaf: worker {number}: {error}");
                    std::process::abort();
                }
            })?);
        }
        Ok(Self {
            posts,
            threads,
            handshakes,
            streams: BTreeMap::new(),
            viewers: HashMap::new(),
            publishers: HashMap::new(),
            gone,
            takes_viewers,
            next_key: 1,
        })
    }

    /// Say goodbye to viewers and publishers, and end the workers.
    pub fn stop(self) {
        self.handshakes.close_all();
        // The goodbyes pass from the handshake thread through the workers.
        std::thread::sleep(Duration::from_millis(50));
        for post in &self.posts {
            post.send(Message::Stop);
        }
        for thread in self.threads {
            // A worker that panicked has ended the process.
            let _ = thread.join();
        }
    }

    fn ask<R: Send + 'static>(
        &self,
        worker: usize,
        what: impl FnOnce(&mut Worker) -> R + Send + 'static,
    ) -> Result<R, Refusal> {
        let (sender, answer) = channel();
        self.posts[worker].send(Message::Do(Box::new(move |worker| {
            // Nobody waits any more if it took too long.
            let _ = sender.send(what(worker));
        })));
        answer
            .recv_timeout(PATIENCE)
            .map_err(|_| Refusal::new(Code::Failed, "the worker does not answer"))
    }

    fn ask_all<R: Send + 'static>(
        &self,
        what: impl Fn(&mut Worker) -> R + Send + Clone + 'static,
    ) -> Result<Vec<R>, Refusal> {
        (0..self.posts.len())
            .map(|worker| self.ask(worker, what.clone()))
            .collect()
    }

    fn forget_the_gone(&mut self) {
        for leaver in self.gone.try_iter() {
            match leaver {
                Leaver::Viewer(name) => self.viewers.remove(&name),
                Leaver::Publisher(name) => self.publishers.remove(&name),
            };
        }
    }

    fn worker_of(&self, viewer: &str) -> Result<usize, Refusal> {
        let worker = self.viewers.get(viewer).copied();
        worker.ok_or_else(|| Refusal::new(Code::Unknown, format_args!("no viewer {viewer}")))
    }

    fn add_stream(&mut self, request: StreamAdd) -> Result<Reply, Refusal> {
        let known = self.streams.get(&request.stream);
        if let Some(known) = known {
            let place = |it: &StreamAdd| (it.address, it.port);
            if known.iter().any(|it| place(it) == place(&request)) {
                let detail = format_args!("stream {} is there already", request.stream);
                return Err(Refusal::new(Code::Exists, detail));
            }
            if known
                .iter()
                .any(|it| it.kind != request.kind || it.group != request.group)
            {
                return Err(Refusal::new(
                    Code::Invalid,
                    "a stream of another kind or group",
                ));
            }
        }
        if let Some(parent) = request.parent {
            check_parent(parent, std::iter::once(request.address))?;
        }
        let address = SocketAddr::new(request.address, request.port.get());
        let socket = stream_socket(address)
            .map_err(|error| Refusal::new(Code::Failed, format_args!("{address}: {error}")))?;
        let intake = self.intake_of(request.stream);
        let mut socket = Some(socket);
        for worker in 0..self.posts.len() {
            let (stream, socket) = (request.clone(), socket.take_if(|_| worker == intake));
            self.ask(worker, move |worker| worker.add_stream(&stream, socket))?
                .map_err(|error| Refusal::new(Code::Failed, error))?;
        }
        self.streams
            .entry(request.stream)
            .or_default()
            .push(request);
        Ok(Reply::Done {})
    }

    /// Which worker listens: all ports of a stream are with one.
    fn intake_of(&self, stream: StreamId) -> usize {
        stream as usize % self.posts.len()
    }

    fn set_parent(&mut self, request: StreamParent) -> Result<Reply, Refusal> {
        let StreamParent { stream, parent } = request;
        let Some(known) = self.streams.get_mut(&stream) else {
            return Err(unknown(stream));
        };
        if let Some(parent) = parent {
            check_parent(parent, known.iter().map(|it| it.address))?;
        }
        known.iter_mut().for_each(|it| it.parent = parent);
        self.ask_all(move |worker| worker.set_parent(stream, parent))?;
        Ok(Reply::Done {})
    }

    fn remove_stream(&mut self, stream: StreamId) -> Result<Reply, Refusal> {
        if self.streams.remove(&stream).is_none() {
            return Err(unknown(stream));
        }
        self.ask_all(move |worker| worker.remove_stream(stream))?;
        Ok(Reply::Done {})
    }

    fn add_viewer(&mut self, request: ViewerAdd) -> Result<Reply, Refusal> {
        if !self.takes_viewers {
            return Err(Refusal::new(
                Code::Invalid,
                "no --listen: here are no viewers",
            ));
        }
        let name = request.viewer.as_str().to_owned();
        if self.viewers.contains_key(&name) {
            return Err(Refusal::new(
                Code::Exists,
                format_args!("viewer {name} is there already"),
            ));
        }
        let fingerprint: Fingerprint = request
            .remote
            .fingerprint
            .as_str()
            .parse()
            .map_err(|error| Refusal::new(Code::Invalid, error))?;
        let worker = self.least_busy();
        let failed = |error: io::Error| Refusal::new(Code::Failed, error);
        let credentials = credentials(worker).map_err(failed)?;
        let [video, rtx, audio, first, second, third] = random().map_err(failed)?;
        let ssrcs = Ssrcs { video, rtx, audio };
        let has_rtx = request
            .video
            .as_ref()
            .is_some_and(|it| it.rtx_payload_type.is_some());
        let added = Added {
            ufrag: credentials.ufrag.clone(),
            pwd: credentials.pwd.clone(),
            setup: Passive::Passive,
            video_ssrc: request.video.is_some().then_some(video),
            rtx_ssrc: has_rtx.then_some(rtx),
            audio_ssrc: request.audio.is_some().then_some(audio),
        };
        let seeds = [first, second, third];
        let connection = Connection::new(
            request,
            fingerprint,
            credentials,
            ssrcs,
            seeds,
            clock::now(),
        )
        .map_err(|error| Refusal::new(Code::Invalid, error))?;
        let key = self.take_key();
        self.ask(worker, move |worker| worker.add_viewer(key, connection))?;
        self.viewers.insert(name, worker);
        Ok(Reply::Added(added))
    }

    fn export(&self, name: String, stop: bool) -> Result<Reply, Refusal> {
        let worker = self.worker_of(&name)?;
        self.ask(worker, move |worker| worker.export(&name, stop))?
            .map(Reply::Taken)
    }

    fn import(&mut self, import: ViewerImport) -> Result<Reply, Refusal> {
        if !self.takes_viewers {
            return Err(Refusal::new(
                Code::Invalid,
                "no --listen: here are no viewers",
            ));
        }
        let name = name_in(&import.state)?;
        self.check_new(&name)?;
        // Its checks are passed on by the first character of its ICE name.
        let owner = ufrag_in(&import.state).and_then(worker_of).unwrap_or(0);
        let worker = owner % self.posts.len();
        let key = self.take_key();
        let added = self.ask(worker, move |worker| worker.import(key, import))??;
        self.viewers.insert(name, worker);
        Ok(Reply::Added(added))
    }

    fn check_new(&self, name: &str) -> Result<(), Refusal> {
        if self.viewers.contains_key(name) {
            return Err(Refusal::new(
                Code::Exists,
                format_args!("viewer {name} is there already"),
            ));
        }
        Ok(())
    }

    fn take_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    fn least_busy(&self) -> usize {
        let mut counts = vec![0; self.posts.len()];
        let workers = self.viewers.values().chain(self.publishers.values());
        workers.for_each(|worker| counts[*worker] += 1);
        let least = counts.iter().enumerate().min_by_key(|(_, count)| **count);
        least.map_or(0, |(worker, _)| worker)
    }

    fn viewer_statistics(&self, viewer: Option<String>) -> Result<Reply, Refusal> {
        let viewers = match viewer {
            Some(name) => {
                let worker = self.worker_of(&name)?;
                self.ask(worker, move |worker| worker.statistics(Some(&name)))??
            }
            None => {
                let all = self.ask_all(|worker| worker.statistics(None))?;
                all.into_iter().collect::<Result<Vec<_>, _>>()?.concat()
            }
        };
        Ok(Reply::Viewers(Viewers {
            viewers: viewers.into_iter().collect(),
        }))
    }

    fn statistics(&self) -> Result<Reply, Refusal> {
        let figures = self.ask_all(Worker::figures)?;
        let mut statistics = Statistics::default();
        let counters = self.handshakes.counters();
        for (name, counter) in [
            ("handshakes", &counters.established),
            ("handshakes_failed", &counters.failed),
            ("handshakes_refused", &counters.refused),
            ("handshake_datagrams_dropped", &counters.dropped),
        ] {
            statistics
                .totals
                .insert(name, counter.load(Ordering::Relaxed));
        }
        statistics.totals.insert("log_lines_dropped", unwritten());
        let mut delays: Option<Histogram<u64>> = None;
        for (number, figures) in figures.into_iter().enumerate() {
            let Figures {
                streams,
                totals,
                delays: of_worker,
                seconds,
            } = figures;
            for (name, count) in totals {
                *statistics.totals.entry(name).or_default() += count;
            }
            statistics.cpu_s.insert(format!("worker-{number}"), seconds);
            let here = streams
                .into_iter()
                .filter(|(id, _)| self.intake_of(*id) == number);
            statistics
                .streams
                .extend(here.map(|(id, it)| (id, stream_figures(&it))));
            match &mut delays {
                // Histograms of one form always add up.
                Some(all) => drop(all.add(of_worker)),
                None => delays = Some(of_worker),
            }
        }
        if let Some(delays) = delays {
            let quantile = |q| delays.value_at_quantile(q) as f64 / 1000.0;
            statistics.delay_ms = Delay {
                p50: quantile(0.5),
                p95: quantile(0.95),
                p99: quantile(0.99),
            };
        }
        Ok(Reply::Statistics(Box::new(statistics)))
    }
}

fn unknown(stream: StreamId) -> Refusal {
    Refusal::new(Code::Unknown, format_args!("no stream {stream}"))
}

/// Whether questions can be sent there from where a stream arrives.
fn check_parent(parent: SocketAddr, mut from: impl Iterator<Item = IpAddr>) -> Result<(), Refusal> {
    let ip = parent.ip();
    let is_one = !ip.is_unspecified() && !ip.is_multicast() && parent.port() != 0;
    if is_one && from.all(|from| from.is_ipv4() == ip.is_ipv4()) {
        return Ok(());
    }
    let detail = format_args!("parent {parent}: not to be reached from the stream's address");
    Err(Refusal::new(Code::Invalid, detail))
}

fn stream_figures(figures: &crate::worker::StreamFigures) -> StreamFigures {
    let counters = figures.counters;
    StreamFigures {
        kind: match figures.kind {
            ring::Kind::Video => Kind::Video,
            ring::Kind::Audio => Kind::Audio,
        },
        packets: counters.packets,
        bytes: counters.bytes,
        lost: counters.lost.saturating_sub(counters.late),
        asked: figures.gaps.asked,
        repaired: figures.gaps.repaired,
        given_up: figures.gaps.given_up,
        repair_ms: figures.repair_time.map(|time| time as f64 / 1000.0),
        late: counters.refused,
        strangers: counters.strangers,
        restarts: counters.restarts,
        key_frame_age_ms: figures.key_age.map(|age| age / 1000),
        gop_bytes: figures.gop_bytes,
        ring_bytes: figures.memory,
        overflows: figures.overflows,
    }
}

fn random<const COUNT: usize>() -> io::Result<[u32; COUNT]> {
    let mut numbers = [0; COUNT];
    for number in &mut numbers {
        *number = getrandom::u32().map_err(io::Error::other)?;
    }
    Ok(numbers)
}

impl Site for Leaf {
    fn handle(&mut self, request: Request) -> Result<Reply, Refusal> {
        self.forget_the_gone();
        match request {
            Request::StreamAdd(stream) => self.add_stream(stream),
            Request::StreamParent(parent) => self.set_parent(parent),
            Request::StreamRemove(only) => self.remove_stream(only.stream),
            Request::StreamKeyFrame(only) => {
                let stream = only.stream;
                if !self.streams.contains_key(&stream) {
                    return Err(unknown(stream));
                }
                self.ask(0, move |worker| worker.key_frame(stream))
                    .map(Reply::KeyFrame)
            }
            Request::ViewerAdd(viewer) => self.add_viewer(*viewer),
            Request::ViewerChange(change) => {
                let worker = self.worker_of(change.viewer.as_str())?;
                self.ask(worker, move |worker| {
                    worker.change(change.viewer.as_str(), &change.channel)
                })?
                .map(Reply::Changed)
            }
            Request::ViewerClose(only) => {
                let worker = self.worker_of(only.viewer.as_str())?;
                self.ask(worker, move |worker| worker.close(only.viewer.as_str()))??;
                Ok(Reply::Done {})
            }
            Request::ViewerStatistics(which) => {
                self.viewer_statistics(which.viewer.map(|name| name.as_str().to_owned()))
            }
            Request::PublisherAdd(publisher) => self.add_publisher(*publisher),
            Request::PublisherKeyFrame(only) => self.ask_for_key_frame(only),
            Request::PublisherClose(only) => self.close_publisher(only),
            Request::PublisherStatistics(which) => self.publisher_statistics(which),
            Request::Statistics => self.statistics(),
            Request::State => {
                let viewers = self.ask_all(|worker| worker.entries())?.concat();
                let publishers = self.ask_all(|worker| worker.publisher_entries())?.concat();
                let streams = self.streams.values().flatten().cloned().collect();
                Ok(Reply::State(State {
                    streams,
                    viewers,
                    publishers,
                }))
            }
            Request::Log(log) => {
                set_level(log.level);
                Ok(Reply::Done {})
            }
            Request::ViewerExport(only) => self.export(only.viewer.as_str().to_owned(), true),
            Request::ViewerSnapshot(only) => self.export(only.viewer.as_str().to_owned(), false),
            Request::ViewerImport(import) => self.import(import),
        }
    }
}
