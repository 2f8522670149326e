//! Sending many datagrams with few system calls: `sendmmsg`, with UDP GSO where datagrams to one
//! address follow each other.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use super::address::RawAddress;
use super::ancillary::Control;

/// The largest datagram that a batch takes, in bytes: the longest payload that a ring keeps, with
/// all that a packet can have around it. It may be more than an Ethernet frame holds.
pub const MAX_DATAGRAM: usize = 1536;

/// Messages in one `sendmmsg`.
const MAX_MESSAGES: usize = 256;
/// Datagrams in one GSO message (`UDP_MAX_SEGMENTS` in the kernel).
const MAX_SEGMENTS: usize = 64;
/// Bytes in one GSO message: below what an IPv4 packet holds.
const MAX_MESSAGE: usize = 65_000;
/// Datagrams waiting for a flush, in bytes: small enough to stay in a core's cache.
const ARENA: usize = 512 << 10;
/// How often one flush waits for room in the socket's buffer, a millisecond each time.
const MAX_WAITS: u32 = 4;

/// What happened to the datagrams so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that the kernel took.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// `sendmmsg` calls.
    pub calls: u64,
    /// Datagrams lost because the socket's buffer stayed full.
    pub dropped: u64,
    /// Datagrams that could not be sent to their address.
    pub unreachable: u64,
    /// GSO messages that had to be sent as single datagrams.
    pub unsegmented: u64,
}

/// One message of the batch: datagrams of `segment` bytes (the last may be shorter) to one address.
#[derive(Clone, Copy)]
struct Message {
    to: SocketAddr,
    start: usize,
    length: usize,
    segment: usize,
    count: usize,
}

impl Message {
    /// Whether a datagram of this length can follow as its last segment.
    fn takes(&self, to: SocketAddr, length: usize) -> bool {
        length <= self.segment
            && self.length == self.segment * self.count
            && self.count < MAX_SEGMENTS
            && self.length + length <= MAX_MESSAGE
            && self.to == to
    }
}

/// Datagrams on their way out of one socket. Nothing is allocated after [`Batch::new`].
pub struct Batch {
    socket: Arc<UdpSocket>,
    segmentation: bool,
    arena: Box<[u8]>,
    used: usize,
    messages: Vec<Message>,
    vectors: Vectors,
    counters: Counters,
}

impl Batch {
    /// An empty batch for this socket. Uses GSO if the kernel has it.
    pub fn new(socket: Arc<UdpSocket>) -> Self {
        let segmentation = getsockopt(&socket, sockopt::UdpGsoSegment).is_ok();
        Self::with_segmentation(socket, segmentation)
    }

    fn with_segmentation(socket: Arc<UdpSocket>, segmentation: bool) -> Self {
        Self {
            socket,
            segmentation,
            arena: vec![0; ARENA].into_boxed_slice(),
            used: 0,
            messages: Vec::with_capacity(MAX_MESSAGES),
            vectors: Vectors::new(),
            counters: Counters::default(),
        }
    }

    /// The counters so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether UDP GSO is in use.
    pub fn segmentation(&self) -> bool {
        self.segmentation
    }

    /// Append a datagram: `write` puts it into a buffer of [`MAX_DATAGRAM`] bytes and returns its
    /// length; with 0 there is none. Sends what waits if there is no room.
    pub fn push(&mut self, to: SocketAddr, write: impl FnOnce(&mut [u8]) -> usize) {
        if self.arena.len() - self.used < MAX_DATAGRAM || self.messages.len() == MAX_MESSAGES {
            self.flush();
        }
        let start = self.used;
        let length = write(&mut self.arena[start..start + MAX_DATAGRAM]).min(MAX_DATAGRAM);
        if length == 0 {
            return;
        }
        self.used += length;
        if self.segmentation
            && let Some(last) = self.messages.last_mut()
            && last.takes(to, length)
        {
            last.length += length;
            last.count += 1;
            return;
        }
        self.messages.push(Message {
            to,
            start,
            length,
            segment: length,
            count: 1,
        });
    }

    /// Send everything that waits.
    pub fn flush(&mut self) {
        let mut waits = MAX_WAITS;
        let mut sent = 0;
        while sent < self.messages.len() {
            let result = self
                .vectors
                .send(&self.socket, &self.arena, &self.messages[sent..]);
            self.counters.calls += 1;
            match result {
                Ok(count) => {
                    for message in &self.messages[sent..sent + count] {
                        self.counters.datagrams += message.count as u64;
                        self.counters.bytes += message.length as u64;
                    }
                    sent += count;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if waits > 0 => {
                    waits -= 1;
                    self.wait_for_room();
                }
                Err(Errno::EAGAIN) => {
                    let lost = self.messages[sent..]
                        .iter()
                        .map(|message| message.count as u64);
                    self.counters.dropped += lost.sum::<u64>();
                    break;
                }
                Err(error) => {
                    self.give_up(self.messages[sent], error);
                    sent += 1;
                }
            }
        }
        self.messages.clear();
        self.used = 0;
    }

    /// Wait until the socket takes more, at most a millisecond.
    fn wait_for_room(&self) {
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
        // Whether there is room the next call tells.
        let _ = poll(&mut ready, PollTimeout::from(1_u16));
    }

    /// The kernel refused the first message that is left.
    fn give_up(&mut self, message: Message, error: Errno) {
        if message.count == 1 {
            self.counters.unreachable += 1;
            return;
        }
        // EIO: the device cannot segment. EINVAL and EMSGSIZE: a segment is more than this path's
        // MTU, which single datagrams may pass in fragments; other addresses are not concerned.
        if error == Errno::EIO {
            self.segmentation = false;
        } else if !matches!(error, Errno::EINVAL | Errno::EMSGSIZE) {
            self.counters.unreachable += message.count as u64;
            return;
        }
        self.counters.unsegmented += 1;
        let bytes = &self.arena[message.start..message.start + message.length];
        for datagram in bytes.chunks(message.segment) {
            match self.socket.send_to(datagram, message.to) {
                Ok(_) => {
                    self.counters.datagrams += 1;
                    self.counters.bytes += datagram.len() as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.counters.dropped += 1
                }
                Err(_) => self.counters.unreachable += 1,
            }
        }
    }
}

/// The arguments of `sendmmsg`, written anew for every call.
struct Vectors {
    headers: Vec<libc::mmsghdr>,
    pieces: Vec<libc::iovec>,
    addresses: Vec<RawAddress>,
    controls: Vec<Control>,
}

// SAFETY: the pointers inside are only followed in `send`, which writes them first.
unsafe impl Send for Vectors {}

impl Vectors {
    fn new() -> Self {
        Self {
            headers: Vec::with_capacity(MAX_MESSAGES),
            pieces: Vec::with_capacity(MAX_MESSAGES),
            addresses: Vec::with_capacity(MAX_MESSAGES),
            controls: vec![Control::empty(); MAX_MESSAGES],
        }
    }

    /// One `sendmmsg` of these messages (at most [`MAX_MESSAGES`]); how many were sent.
    fn send(
        &mut self,
        socket: &UdpSocket,
        arena: &[u8],
        messages: &[Message],
    ) -> Result<usize, Errno> {
        let messages = &messages[..messages.len().min(MAX_MESSAGES)];
        self.headers.clear();
        self.pieces.clear();
        self.addresses.clear();
        for message in messages {
            let bytes = &arena[message.start..message.start + message.length];
            self.addresses.push(RawAddress::new(message.to));
            self.pieces.push(libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            });
        }
        for (index, message) in messages.iter().enumerate() {
            // SAFETY: all-zero is a valid msghdr (null pointers with zero lengths).
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_namelen = self.addresses[index].length();
            header.msg_name = self.addresses.as_mut_ptr().wrapping_add(index).cast();
            header.msg_iov = self.pieces.as_mut_ptr().wrapping_add(index);
            header.msg_iovlen = 1;
            if message.count > 1 {
                self.controls[index].write_segment(message.segment as u16);
                header.msg_control = self.controls.as_mut_ptr().wrapping_add(index).cast();
                header.msg_controllen = Control::SIZE;
            }
            self.headers.push(libc::mmsghdr {
                msg_hdr: header,
                msg_len: 0,
            });
        }
        // SAFETY: every header points to its address, its piece of the arena and its control
        // message, all alive and unmoved until the call returns; the kernel only reads them.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as u32,
                libc::MSG_DONTWAIT,
            )
        };
        Errno::result(sent).map(|sent| sent as usize)
    }
}

#[cfg(test)]
mod tests;
