//! Receiving many datagrams with one system call: `recvmmsg`, with UDP GRO where it is wanted.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use super::address::RawAddress;
use super::ancillary::Control;

/// Messages in one `recvmmsg` without GRO.
const MESSAGES: usize = 64;
/// Bytes of one datagram: longer ones are dropped and counted.
const DATAGRAM: usize = 2048;
/// Messages in one `recvmmsg` with GRO: each may hold up to 64 datagrams.
const JOINED_MESSAGES: usize = 16;
const JOINED: usize = 65_535;

/// Let the kernel join datagrams of one sender that follow each other, for a [`Receiver::joined`].
/// On a kernel without it they come one by one.
pub fn join_datagrams(socket: &UdpSocket) -> bool {
    setsockopt(socket, sockopt::UdpGroSegment, &true).is_ok()
}

/// Room to receive into, for any number of sockets. Nothing is allocated after it is made.
pub struct Receiver {
    arena: Box<[u8]>,
    /// Bytes of `arena` for each message.
    room: usize,
    vectors: Vectors,
    truncated: u64,
}

/// The arguments of `recvmmsg`, written anew for every call.
struct Vectors {
    headers: Vec<libc::mmsghdr>,
    pieces: Vec<libc::iovec>,
    addresses: Vec<RawAddress>,
    controls: Vec<Control>,
}

// SAFETY: the pointers inside are only followed in `receive`, which writes them first.
unsafe impl Send for Vectors {}

impl Receiver {
    /// For sockets without [`join_datagrams`].
    pub fn single() -> Self {
        Self::new(MESSAGES, DATAGRAM)
    }

    /// For sockets with [`join_datagrams`], and others.
    pub fn joined() -> Self {
        Self::new(JOINED_MESSAGES, JOINED)
    }

    fn new(messages: usize, room: usize) -> Self {
        let vectors = Vectors {
            headers: Vec::with_capacity(messages),
            pieces: Vec::with_capacity(messages),
            addresses: vec![RawAddress::empty(); messages],
            controls: vec![Control::empty(); messages],
        };
        Self {
            arena: vec![0; messages * room].into_boxed_slice(),
            room,
            vectors,
            truncated: 0,
        }
    }

    /// Datagrams dropped so far because they were too long.
    pub fn truncated(&self) -> u64 {
        self.truncated
    }

    /// Take what waits at a socket, with one system call and without waiting, and give every
    /// datagram with its sender to `each`.
    ///
    /// Result: whether more may wait.
    ///
    /// # Errors
    /// What the system says about the socket.
    pub fn receive(
        &mut self,
        socket: &UdpSocket,
        mut each: impl FnMut(SocketAddr, &[u8]),
    ) -> io::Result<bool> {
        let count = match self.vectors.receive(socket, &mut self.arena, self.room) {
            Ok(count) => count,
            Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::EINTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        for (index, bytes) in self.arena.chunks(self.room).take(count).enumerate() {
            let header = &self.vectors.headers[index];
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                self.truncated += 1;
                continue;
            }
            let Some(from) = self.vectors.addresses[index].read() else {
                continue;
            };
            let bytes = &bytes[..header.msg_len as usize];
            let control = &self.vectors.controls[index];
            match control.read_segment(header.msg_hdr.msg_controllen) {
                Some(segment) => bytes
                    .chunks(segment)
                    .for_each(|datagram| each(from, datagram)),
                None => each(from, bytes),
            }
        }
        Ok(count == self.vectors.headers.len())
    }
}

impl Vectors {
    /// One `recvmmsg` into pieces of `room` bytes; how many messages came.
    fn receive(
        &mut self,
        socket: &UdpSocket,
        arena: &mut [u8],
        room: usize,
    ) -> Result<usize, Errno> {
        self.headers.clear();
        self.pieces.clear();
        for piece in arena.chunks_exact_mut(room) {
            self.pieces.push(libc::iovec {
                iov_base: piece.as_mut_ptr().cast(),
                iov_len: room,
            });
        }
        for index in 0..self.pieces.len() {
            // SAFETY: all-zero is a valid msghdr (null pointers with zero lengths).
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_name = self.addresses.as_mut_ptr().wrapping_add(index).cast();
            header.msg_namelen = RawAddress::SIZE;
            header.msg_iov = self.pieces.as_mut_ptr().wrapping_add(index);
            header.msg_iovlen = 1;
            header.msg_control = self.controls.as_mut_ptr().wrapping_add(index).cast();
            header.msg_controllen = Control::SIZE;
            self.headers.push(libc::mmsghdr {
                msg_hdr: header,
                msg_len: 0,
            });
        }
        // SAFETY: every header points to an address, a piece of the arena and a control message of
        // its own, with their lengths, all alive and unmoved until the call returns.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        Errno::result(received).map(|received| received as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::batch::Batch;
    use super::super::socket::bind_alone;
    use super::*;

    fn pair(address: &str) -> (UdpSocket, UdpSocket, SocketAddr) {
        let bind = || bind_alone(address.parse().unwrap()).unwrap();
        let (sender, receiver) = (bind(), bind());
        let to = receiver.local_addr().unwrap();
        (sender, receiver, to)
    }

    fn all(receiver: &mut Receiver, socket: &UdpSocket) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut datagrams = Vec::new();
        while receiver
            .receive(socket, |from, bytes| datagrams.push((from, bytes.to_vec())))
            .unwrap()
        {}
        datagrams
    }

    #[test]
    fn datagrams_come_with_their_senders_in_order() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (sender, socket, to) = pair(address);
            let sent: Vec<Vec<u8>> = (0..200_u8).map(|n| vec![n; usize::from(n)]).collect();
            for bytes in &sent {
                sender.send_to(bytes, to).unwrap();
            }
            let from = sender.local_addr().unwrap();
            let expected: Vec<_> = sent.into_iter().map(|bytes| (from, bytes)).collect();
            let mut receiver = Receiver::single();
            assert_eq!(all(&mut receiver, &socket), expected);
            assert_eq!(all(&mut receiver, &socket), []);
        }
    }

    #[test]
    fn a_full_call_says_that_more_may_wait() {
        let (sender, socket, to) = pair("127.0.0.1:0");
        for _ in 0..=MESSAGES {
            sender.send_to(b"x", to).unwrap();
        }
        let mut receiver = Receiver::single();
        let mut count = 0;
        assert!(receiver.receive(&socket, |_, _| count += 1).unwrap());
        assert_eq!(count, MESSAGES);
        assert!(!receiver.receive(&socket, |_, _| count += 1).unwrap());
        assert_eq!(count, MESSAGES + 1);
    }

    #[test]
    fn a_datagram_that_is_too_long_is_counted_and_the_next_one_comes() {
        let (sender, socket, to) = pair("127.0.0.1:0");
        sender.send_to(&[1; DATAGRAM + 1], to).unwrap();
        sender.send_to(&[2; DATAGRAM], to).unwrap();
        let mut receiver = Receiver::single();
        let datagrams = all(&mut receiver, &socket);
        assert_eq!(datagrams.len(), 1);
        assert_eq!(datagrams[0].1, [2; DATAGRAM]);
        assert_eq!(receiver.truncated(), 1);
    }

    #[test]
    fn joined_datagrams_are_told_apart() {
        let (sender, socket, to) = pair("127.0.0.1:0");
        assert!(join_datagrams(&socket));
        let mut batch = Batch::new(Arc::new(sender));
        assert!(batch.segmentation());
        let sent: Vec<Vec<u8>> = (0..40_u8)
            .map(|n| vec![n; if n == 39 { 500 } else { 1100 }])
            .collect();
        for bytes in &sent {
            batch.push(to, |buffer| {
                buffer[..bytes.len()].copy_from_slice(bytes);
                bytes.len()
            });
        }
        batch.flush();
        let mut receiver = Receiver::joined();
        let mut datagrams = Vec::new();
        receiver
            .receive(&socket, |_, bytes| datagrams.push(bytes.to_vec()))
            .unwrap();
        // More datagrams than messages: they came joined.
        assert!(sent.len() > JOINED_MESSAGES);
        assert_eq!(datagrams, sent);
    }
}
