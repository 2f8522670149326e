//! Where streams arrive: one socket for each port.

use std::collections::HashMap;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use leaf_core::Micros;
use leaf_core::cursor::StreamId;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

/// The packets of a frame come one after another; so long the rest of them is waited for, so that a
/// viewer gets them together.
const GATHER: Micros = 2_000;

struct Inlet {
    stream: StreamId,
    socket: Arc<UdpSocket>,
}

/// The sockets of a worker's streams.
pub struct Intake {
    first: usize,
    next: usize,
    inlets: HashMap<usize, Inlet>,
}

impl Intake {
    /// No sockets; their tokens begin with `first`.
    pub fn new(first: usize) -> Self {
        Self {
            first,
            next: first,
            inlets: HashMap::new(),
        }
    }

    /// Whether a token is of a stream's socket.
    pub fn is_token(&self, token: Token) -> bool {
        token.0 >= self.first
    }

    /// Listen for a stream.
    ///
    /// # Errors
    /// What the system says.
    pub fn add(
        &mut self,
        stream: StreamId,
        socket: UdpSocket,
        registry: &Registry,
    ) -> io::Result<()> {
        let token = self.next;
        registry.register(
            &mut SourceFd(&socket.as_raw_fd()),
            Token(token),
            Interest::READABLE,
        )?;
        self.next += 1;
        self.inlets.insert(
            token,
            Inlet {
                stream,
                socket: Arc::new(socket),
            },
        );
        Ok(())
    }

    /// Close a stream's sockets.
    pub fn remove(&mut self, stream: StreamId, registry: &Registry) {
        self.inlets.retain(|_, inlet| {
            let stays = inlet.stream != stream;
            if !stays {
                // Closing the socket does the same; what was registered is surely there.
                let _ = registry.deregister(&mut SourceFd(&inlet.socket.as_raw_fd()));
            }
            stays
        });
    }

    /// A socket on which a stream arrives, if it does so here.
    pub fn socket_of(&self, stream: StreamId) -> Option<&UdpSocket> {
        let mut inlets = self.inlets.values();
        Some(&inlets.find(|inlet| inlet.stream == stream)?.socket)
    }

    /// The stream and socket of a token.
    pub fn get(&self, token: Token) -> Option<(StreamId, Arc<UdpSocket>)> {
        self.inlets
            .get(&token.0)
            .map(|inlet| (inlet.stream, inlet.socket.clone()))
    }
}

/// Streams for which something came that was not passed on yet.
#[derive(Default)]
pub struct Gathering {
    touched: Vec<Touched>,
}

struct Touched {
    stream: StreamId,
    due: Micros,
    is_held: bool,
}

impl Gathering {
    /// A packet came; `last` says that it ends a frame, `hold` until when to wait for what is missing
    /// before it. Nothing is held longer than the first of what it follows says.
    pub fn touch(&mut self, stream: StreamId, last: bool, hold: Option<Micros>, now: Micros) {
        let soon = if last { now } else { now + GATHER };
        let found = self.touched.iter_mut().find(|it| it.stream == stream);
        let Some(it) = found else {
            self.touched.push(Touched {
                stream,
                due: hold.unwrap_or(soon),
                is_held: hold.is_some(),
            });
            return;
        };
        match hold {
            Some(_) if it.is_held => {}
            Some(until) => (it.due, it.is_held) = (until, true),
            None if it.is_held => (it.due, it.is_held) = (now, false),
            None => it.due = it.due.min(soon),
        }
    }

    /// When the next stream is to be passed on.
    pub fn due(&self) -> Option<Micros> {
        self.touched.iter().map(|it| it.due).min()
    }

    /// A stream that is to be passed on now.
    pub fn next(&mut self, now: Micros) -> Option<StreamId> {
        let at = self.touched.iter().position(|it| it.due <= now)?;
        Some(self.touched.swap_remove(at).stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_passed_on_when_it_is_whole_or_late() {
        let mut gathering = Gathering::default();
        gathering.touch(1, false, None, 1_000);
        gathering.touch(2, false, None, 1_500);
        assert_eq!(gathering.next(1_600), None);
        assert_eq!(gathering.due(), Some(3_000));
        gathering.touch(2, true, None, 1_700);
        assert_eq!(gathering.next(1_700), Some(2));
        assert_eq!(gathering.next(2_999), None);
        assert_eq!(gathering.next(3_000), Some(1));
        assert_eq!(gathering.due(), None);
    }

    #[test]
    fn a_frame_with_a_gap_waits_for_its_repair_and_no_longer() {
        let mut gathering = Gathering::default();
        gathering.touch(1, false, None, 1_000);
        gathering.touch(1, true, Some(13_000), 1_100);
        gathering.touch(1, true, Some(20_000), 8_000);
        assert_eq!(gathering.due(), Some(13_000));
        assert_eq!(gathering.next(13_000), Some(1));
        gathering.touch(1, true, Some(20_000), 14_000);
        gathering.touch(1, true, None, 15_000);
        assert_eq!(gathering.due(), Some(15_000), "the repair came");
    }
}
