//! What OpenSSL reads and writes: datagrams in memory.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Result, Write};

/// The most datagrams that wait to be sent. A flight has fewer than ten; what comes on top is lost,
/// as it would be in a full socket, and sent again.
const MAX_OUTGOING: usize = 32;

/// One datagram to be read, and those written. Every read takes a whole datagram and every write makes
/// one.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    incoming: Option<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl Datagrams {
    /// Sets the datagram that the next read takes.
    pub(super) fn set_incoming(&mut self, datagram: &[u8]) {
        self.incoming = Some(datagram.to_vec());
    }

    /// The next datagram to be sent.
    pub(super) fn pop_outgoing(&mut self) -> Option<Vec<u8>> {
        let datagram = self.outgoing.pop_front();
        if self.outgoing.is_empty() {
            self.outgoing = VecDeque::new();
        }
        datagram
    }
}

impl Read for Datagrams {
    /// What does not fit into `buffer` is lost, as with a socket.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let datagram = self.incoming.take().ok_or(ErrorKind::WouldBlock)?;
        datagram.as_slice().read(buffer)
    }
}

impl Write for Datagrams {
    fn write(&mut self, datagram: &[u8]) -> Result<usize> {
        if self.outgoing.len() < MAX_OUTGOING {
            self.outgoing.push_back(datagram.to_vec());
        }
        Ok(datagram.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_stay() {
        let mut datagrams = Datagrams::default();
        datagrams.write_all(b"one").unwrap();
        datagrams.write_all(b"two").unwrap();
        assert_eq!(datagrams.pop_outgoing().unwrap(), b"one");
        assert_eq!(datagrams.pop_outgoing().unwrap(), b"two");
        assert_eq!(datagrams.pop_outgoing(), None);
    }

    #[test]
    fn a_read_takes_a_whole_datagram() {
        let mut datagrams = Datagrams::default();
        let mut buffer = [0; 4];
        datagrams.set_incoming(b"longer");
        assert_eq!(datagrams.read(&mut buffer).unwrap(), 4);
        assert_eq!(&buffer, b"long");
        let error = datagrams.read(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn never_grows_without_bound() {
        let mut datagrams = Datagrams::default();
        for _ in 0..MAX_OUTGOING + 5 {
            datagrams.write_all(b"x").unwrap();
        }
        let kept = std::iter::from_fn(|| datagrams.pop_outgoing()).count();
        assert_eq!(kept, MAX_OUTGOING);
    }
}
