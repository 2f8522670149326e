//! The viewers and publishers of a worker, found by key, name, address and ICE name; who watches what;
//! whose time has come.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;

use leaf_core::Micros;
use leaf_core::cursor::StreamId;
use leaf_secure::memory::prefetch;
use rustc_hash::FxHashMap;

use super::connection::Connection;
use super::link::{Link, Path};
use super::publishing::Publishing;

/// After so many rounds everybody was served at every place.
const TURNS: usize = 64;

/// The number of a viewer or publisher, unique in the process and never used again.
pub type Key = u64;

/// The viewers and publishers of one worker.
#[derive(Default)]
pub struct Crowd {
    connections: FxHashMap<Key, Box<Connection>>,
    publishers: FxHashMap<Key, Publishing>,
    names: HashMap<String, Key>,
    ufrags: HashMap<String, Key>,
    addresses: HashMap<SocketAddr, Key>,
    subscribers: FxHashMap<StreamId, Vec<Key>>,
    timers: Timers,
}

impl Crowd {
    /// How many viewers there are.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there is no viewer.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// All viewers.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &Connection)> {
        self.connections
            .iter()
            .map(|(key, connection)| (*key, &**connection))
    }

    /// All publishers.
    pub fn publishers(&self) -> impl Iterator<Item = (Key, &Publishing)> {
        let publishers = self.publishers.iter();
        publishers.map(|(key, publishing)| (*key, publishing))
    }

    /// Take a viewer in.
    pub fn insert(&mut self, key: Key, connection: Connection) {
        self.names.insert(connection.link.name.clone(), key);
        self.note(key, &connection.link);
        self.connections.insert(key, Box::new(connection));
        self.follow(key);
    }

    /// Take a publisher in.
    pub fn insert_publisher(&mut self, key: Key, publishing: Publishing) {
        self.note(key, &publishing.link);
        self.publishers.insert(key, publishing);
    }

    fn note(&mut self, key: Key, link: &Link) {
        self.ufrags.insert(link.credentials.ufrag.clone(), key);
        if let Some(path) = link.path {
            self.addresses.insert(path.to, key);
        }
    }

    /// Let a viewer go.
    pub fn remove(&mut self, key: Key) -> Option<Connection> {
        let gone = self.connections.remove(&key)?;
        self.names.remove(&gone.link.name);
        self.forget(key, &gone.link);
        for stream in &gone.subscribed {
            unsubscribe(&mut self.subscribers, *stream, key);
        }
        Some(*gone)
    }

    /// Let a publisher go.
    pub fn remove_publisher(&mut self, key: Key) -> Option<Publishing> {
        let gone = self.publishers.remove(&key)?;
        self.forget(key, &gone.link);
        Some(gone)
    }

    fn forget(&mut self, key: Key, link: &Link) {
        self.ufrags.remove(&link.credentials.ufrag);
        if let Some(path) = link.path
            && self.addresses.get(&path.to) == Some(&key)
        {
            self.addresses.remove(&path.to);
        }
    }

    /// A viewer.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Connection> {
        self.connections.get_mut(&key).map(Box::as_mut)
    }

    /// A viewer.
    pub fn get(&self, key: Key) -> Option<&Connection> {
        self.connections.get(&key).map(Box::as_ref)
    }

    /// A viewer's turn will come soon: have what is needed for it fetched.
    pub fn prefetch(&self, key: Key) {
        if let Some(connection) = self.connections.get(&key) {
            prefetch(&**connection);
        }
    }

    /// A viewer's turn comes next: have fetched what its own memory says where it is.
    pub fn prefetch_more(&self, key: Key) {
        if let Some(connection) = self.get(key) {
            connection.prefetch();
        }
    }

    /// A publisher.
    pub fn publisher_mut(&mut self, key: Key) -> Option<&mut Publishing> {
        self.publishers.get_mut(&key)
    }

    /// Whether this is a publisher's key.
    pub fn is_publisher(&self, key: Key) -> bool {
        self.publishers.contains_key(&key)
    }

    /// What a viewer or publisher has.
    pub fn link(&self, key: Key) -> Option<&Link> {
        let viewer = self.connections.get(&key).map(|it| &it.link);
        viewer.or_else(|| Some(&self.publishers.get(&key)?.link))
    }

    /// What a viewer or publisher has.
    pub fn link_mut(&mut self, key: Key) -> Option<&mut Link> {
        if let Some(connection) = self.connections.get_mut(&key) {
            return Some(&mut connection.link);
        }
        Some(&mut self.publishers.get_mut(&key)?.link)
    }

    /// The publisher of the controller's name. There are few.
    pub fn publisher_by_name(&self, name: &str) -> Option<Key> {
        let mut publishers = self.publishers.iter();
        let found = publishers.find(|(_, it)| it.link.name == name);
        found.map(|(key, _)| *key)
    }

    /// The viewer of the controller's name.
    pub fn by_name(&self, name: &str) -> Option<Key> {
        self.names.get(name).copied()
    }

    /// Who is at an address.
    pub fn by_address(&self, address: SocketAddr) -> Option<Key> {
        self.addresses.get(&address).copied()
    }

    /// Who was given an ICE user name fragment.
    pub fn by_ufrag(&self, ufrag: &str) -> Option<Key> {
        self.ufrags.get(ufrag).copied()
    }

    /// Somebody has proved to be at an address.
    pub fn move_to(&mut self, key: Key, path: Path) {
        let Some(link) = self.link_mut(key) else {
            return;
        };
        if link.path == Some(path) {
            return;
        }
        if let Some(old) = link.path.replace(path)
            && self.addresses.get(&old.to) == Some(&key)
        {
            self.addresses.remove(&old.to);
        }
        self.addresses.insert(path.to, key);
    }

    /// Who watches a stream, or is to.
    pub fn subscribers(&self, stream: StreamId) -> &[Key] {
        self.subscribers.get(&stream).map_or(&[], Vec::as_slice)
    }

    /// Whoever of a stream's subscribers was served last, and some before, come first from now on:
    /// a few at a time, so that for one viewer the order hardly changes from frame to frame.
    pub fn take_turns(&mut self, stream: StreamId) {
        if let Some(keys) = self.subscribers.get_mut(&stream) {
            let few = keys.len().div_ceil(TURNS);
            keys.rotate_left(few);
        }
    }

    /// Bring subscriptions and timer of a viewer up to date after it has done something.
    pub fn follow(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        if !connection
            .viewer
            .streams()
            .eq(connection.subscribed.iter().copied())
        {
            let wanted: Vec<_> = connection.viewer.streams().collect();
            let before = std::mem::replace(&mut connection.subscribed, wanted.clone());
            for stream in before.iter().filter(|stream| !wanted.contains(stream)) {
                unsubscribe(&mut self.subscribers, *stream, key);
            }
            for stream in wanted.into_iter().filter(|stream| !before.contains(stream)) {
                self.subscribers.entry(stream).or_default().push(key);
            }
        }
        let due = connection.viewer.due();
        schedule(&mut self.timers, key, &mut connection.link, due);
    }

    /// Bring the timer of a publisher up to date after it has done something.
    pub fn follow_publisher(&mut self, key: Key) {
        if let Some(publishing) = self.publishers.get_mut(&key) {
            let due = publishing.due();
            schedule(&mut self.timers, key, &mut publishing.link, due);
        }
    }

    /// When the next one's time comes.
    pub fn due(&self) -> Option<Micros> {
        self.timers.peek().map(|Reverse((due, _))| *due)
    }

    /// The next viewer or publisher whose time has come.
    pub fn next_due(&mut self, now: Micros) -> Option<Key> {
        while let Some(Reverse((due, key))) = self.timers.peek().copied() {
            if due > now {
                return None;
            }
            self.timers.pop();
            // A timer that was brought forward leaves the later one behind.
            if let Some(link) = self.link_mut(key)
                && link.scheduled == Some(due)
            {
                link.scheduled = None;
                return Some(key);
            }
        }
        None
    }
}

type Timers = BinaryHeap<Reverse<(Micros, Key)>>;

fn schedule(timers: &mut Timers, key: Key, link: &mut Link, due: Option<Micros>) {
    if let Some(due) = due.filter(|due| link.scheduled.is_none_or(|at| *due < at)) {
        link.scheduled = Some(due);
        timers.push(Reverse((due, key)));
    }
}

fn unsubscribe(subscribers: &mut FxHashMap<StreamId, Vec<Key>>, stream: StreamId, key: Key) {
    if let Some(keys) = subscribers.get_mut(&stream) {
        if let Some(at) = keys.iter().position(|other| *other == key) {
            keys.swap_remove(at);
        }
        if keys.is_empty() {
            subscribers.remove(&stream);
        }
    }
}
