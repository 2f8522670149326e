//! Two handshakes and a network between them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use leaf_secure::dtls::{Handshake, Identity, Micros, Progress};

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    Arrives,
    IsLost,
    ArrivesTwice,
    /// After the next one of its direction.
    ComesLate,
}

/// A client with the first identity and a server with the second, who expect each other.
pub fn pair_of(one: &Identity, other: &Identity) -> (Handshake, Handshake) {
    let client = Handshake::client(one, other.fingerprint().clone(), 0);
    let server = Handshake::server(other, one.fingerprint().clone(), 0);
    (client.unwrap(), server.unwrap())
}

/// A client and a server with new identities.
pub fn pair() -> (Handshake, Handshake) {
    pair_of(
        &Identity::generate().unwrap(),
        &Identity::generate().unwrap(),
    )
}

/// Carries datagrams; those after the given fates all arrive.
pub struct Network {
    begin: Instant,
    fates: VecDeque<Fate>,
    to_server: Vec<Vec<u8>>,
    to_client: Vec<Vec<u8>>,
}

impl Network {
    pub fn new(fates: Vec<Fate>) -> Self {
        Self {
            begin: Instant::now(),
            fates: fates.into(),
            to_server: Vec::new(),
            to_client: Vec::new(),
        }
    }

    fn now(&self) -> Micros {
        self.begin.elapsed().as_micros().try_into().unwrap()
    }

    /// Until both sides are done.
    pub fn run(&mut self, client: &mut Handshake, server: &mut Handshake) {
        let busy = |side: &Handshake| matches!(side.progress(), Progress::Handshaking);
        while busy(client) || busy(server) {
            self.step(client, server);
        }
    }

    /// Carries what is there, or waits for a timeout.
    pub fn step(&mut self, client: &mut Handshake, server: &mut Handshake) {
        collect(client, &mut self.fates, &mut self.to_server);
        collect(server, &mut self.fates, &mut self.to_client);
        if self.to_server.is_empty() && self.to_client.is_empty() {
            let next = client.timeout().into_iter().chain(server.timeout()).min();
            let wait = next.expect("somebody waits").saturating_sub(self.now());
            std::thread::sleep(Duration::from_micros(wait));
            client.handle_timeout(self.now());
            server.handle_timeout(self.now());
        }
        let now = self.now();
        for datagram in self.to_server.drain(..) {
            server.receive(&datagram, now);
        }
        for datagram in self.to_client.drain(..) {
            client.receive(&datagram, now);
        }
    }
}

fn collect(from: &mut Handshake, fates: &mut VecDeque<Fate>, to: &mut Vec<Vec<u8>>) {
    let mut late = None;
    while let Some(datagram) = from.transmit() {
        assert!(datagram.len() <= 1200, "{}", datagram.len());
        match fates.pop_front().unwrap_or(Fate::Arrives) {
            Fate::Arrives => to.push(datagram),
            Fate::IsLost => {}
            Fate::ArrivesTwice => to.extend([datagram.clone(), datagram]),
            Fate::ComesLate => {
                to.extend(late.replace(datagram));
                continue;
            }
        }
        to.extend(late.take());
    }
    to.extend(late);
}
