//! The viewers of a worker, found by key, name, address and ICE name; who watches what; whose time
//! has come.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;

use leaf_core::Micros;
use leaf_core::cursor::StreamId;
use leaf_secure::memory::prefetch;
use rustc_hash::FxHashMap;

use super::connection::{Connection, Path};

/// After so many rounds everybody was served at every place.
const TURNS: usize = 64;

/// A viewer's number, unique in the process and never used again.
pub type Key = u64;

/// The viewers of one worker.
#[derive(Default)]
pub struct Crowd {
    connections: FxHashMap<Key, Box<Connection>>,
    names: HashMap<String, Key>,
    ufrags: HashMap<String, Key>,
    addresses: HashMap<SocketAddr, Key>,
    subscribers: FxHashMap<StreamId, Vec<Key>>,
    timers: BinaryHeap<Reverse<(Micros, Key)>>,
}

impl Crowd {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &Connection)> {
        self.connections
            .iter()
            .map(|(key, connection)| (*key, &**connection))
    }

    /// Take a viewer in.
    pub fn insert(&mut self, key: Key, connection: Connection) {
        self.names.insert(connection.name.clone(), key);
        self.ufrags
            .insert(connection.credentials.ufrag.clone(), key);
        if let Some(path) = connection.path {
            self.addresses.insert(path.to, key);
        }
        self.connections.insert(key, Box::new(connection));
        self.follow(key);
    }

    /// Let a viewer go.
    pub fn remove(&mut self, key: Key) -> Option<Connection> {
        let gone = self.connections.remove(&key)?;
        self.names.remove(&gone.name);
        self.ufrags.remove(&gone.credentials.ufrag);
        if let Some(path) = gone.path
            && self.addresses.get(&path.to) == Some(&key)
        {
            self.addresses.remove(&path.to);
        }
        for stream in &gone.subscribed {
            unsubscribe(&mut self.subscribers, *stream, key);
        }
        Some(*gone)
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

    /// The viewer of the controller's name.
    pub fn by_name(&self, name: &str) -> Option<Key> {
        self.names.get(name).copied()
    }

    /// The viewer that is at an address.
    pub fn by_address(&self, address: SocketAddr) -> Option<Key> {
        self.addresses.get(&address).copied()
    }

    /// The viewer that was given an ICE user name fragment.
    pub fn by_ufrag(&self, ufrag: &str) -> Option<Key> {
        self.ufrags.get(ufrag).copied()
    }

    /// A viewer has proved to be at an address.
    pub fn move_to(&mut self, key: Key, path: Path) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        if connection.path == Some(path) {
            return;
        }
        if let Some(old) = connection.path.replace(path)
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
        if let Some(due) = connection.viewer.due().filter(|_| !connection.is_timed()) {
            connection.scheduled = Some(due);
            self.timers.push(Reverse((due, key)));
        }
    }

    /// When the next viewer's time comes.
    pub fn due(&self) -> Option<Micros> {
        self.timers.peek().map(|Reverse((due, _))| *due)
    }

    /// The next viewer whose time has come.
    pub fn next_due(&mut self, now: Micros) -> Option<Key> {
        while let Some(Reverse((due, key))) = self.timers.peek().copied() {
            if due > now {
                return None;
            }
            self.timers.pop();
            // A timer that was brought forward leaves the later one behind.
            if let Some(connection) = self.connections.get_mut(&key)
                && connection.scheduled == Some(due)
            {
                connection.scheduled = None;
                return Some(key);
            }
        }
        None
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
