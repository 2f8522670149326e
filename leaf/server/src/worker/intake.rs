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
    touched: Vec<(StreamId, Micros)>,
}

impl Gathering {
    /// A packet came; `last` says that it ends a frame.
    pub fn touch(&mut self, stream: StreamId, last: bool, now: Micros) {
        let due = if last { now } else { now + GATHER };
        match self
            .touched
            .iter_mut()
            .find(|(touched, _)| *touched == stream)
        {
            Some((_, at)) => *at = (*at).min(due),
            None => self.touched.push((stream, due)),
        }
    }

    /// When the next stream is to be passed on.
    pub fn due(&self) -> Option<Micros> {
        self.touched.iter().map(|(_, due)| *due).min()
    }

    /// A stream that is to be passed on now.
    pub fn next(&mut self, now: Micros) -> Option<StreamId> {
        let at = self.touched.iter().position(|(_, due)| *due <= now)?;
        Some(self.touched.swap_remove(at).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_passed_on_when_it_is_whole_or_late() {
        let mut gathering = Gathering::default();
        gathering.touch(1, false, 1_000);
        gathering.touch(2, false, 1_500);
        assert_eq!(gathering.next(1_600), None);
        assert_eq!(gathering.due(), Some(3_000));
        gathering.touch(2, true, 1_700);
        assert_eq!(gathering.next(1_700), Some(2));
        assert_eq!(gathering.next(2_999), None);
        assert_eq!(gathering.next(3_000), Some(1));
        assert_eq!(gathering.due(), None);
    }
}
