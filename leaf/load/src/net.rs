//! UDP sockets of viewers: what came for one is taken with one system call, joined datagrams
//! (`UDP_GRO`) and the kernel's time of arrival (`SO_TIMESTAMPNS`) included.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::clock::{Micros, micros};

/// What the kernel may hold for one viewer, in bytes: several key frames.
const BUFFER: usize = 1 << 20;
/// Messages taken with one call; each may be up to 64 datagrams joined.
const MESSAGES: usize = 8;
const LONGEST: usize = 65_535;
/// Where `SO_MEMINFO` has the number of packets dropped (`SK_MEMINFO_DROPS` in linux/sock_diag.h).
const DROPS: usize = 8;

/// Room for the control messages: the length of a datagram, and a time.
const CONTROL: usize = {
    // SAFETY: computes sizes from constants and reads nothing.
    unsafe {
        (libc::CMSG_SPACE(size_of::<libc::c_int>() as u32)
            + libc::CMSG_SPACE(size_of::<libc::timespec>() as u32)) as usize
    }
};

/// Bytes of control messages, aligned as their headers want it.
#[derive(Clone, Copy)]
#[repr(C)]
union Control {
    bytes: [u8; CONTROL],
    _align: libc::cmsghdr,
}

/// A socket of one viewer, non-blocking, at a port that the system chooses.
///
/// # Errors
///
/// What the system says.
pub fn open(local: IpAddr, peer: SocketAddr) -> io::Result<UdpSocket> {
    let local = SocketAddr::new(local, 0);
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // FORCE goes beyond the system's limit and needs CAP_NET_ADMIN.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        socket.set_recv_buffer_size(BUFFER)?;
    }
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    // On a kernel without it datagrams come one by one.
    let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
    socket.bind(&local.into())?;
    socket.connect(&peer.into())?;
    Ok(socket.into())
}

/// How many packets the kernel has dropped as the socket's buffer was full.
#[must_use]
pub fn overflows(socket: &impl AsRawFd) -> u64 {
    let mut figures = [0_u32; DROPS + 1];
    let mut len = size_of_val(&figures) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `figures`, which are that long.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            figures.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        u64::from(figures[DROPS])
    } else {
        0
    }
}

/// Room to receive into, for any number of sockets. Nothing is allocated after it is made.
pub struct Receiver {
    arena: Box<[u8]>,
    headers: Vec<libc::mmsghdr>,
    pieces: Vec<libc::iovec>,
    controls: [Control; MESSAGES],
}

// SAFETY: the pointers inside are only followed in `receive`, which writes them first.
unsafe impl Send for Receiver {}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            arena: vec![0; MESSAGES * LONGEST].into_boxed_slice(),
            headers: Vec::with_capacity(MESSAGES),
            pieces: Vec::with_capacity(MESSAGES),
            controls: [Control {
                bytes: [0; CONTROL],
            }; MESSAGES],
        }
    }
}

impl Receiver {
    /// Takes what waits at a socket, with one system call and without waiting, and gives every
    /// datagram with its time of arrival, by the clock of the system, to `each`.
    ///
    /// Result: whether more may wait.
    ///
    /// # Errors
    ///
    /// What the system says about the socket, such as that the peer's port is closed.
    pub fn receive(
        &mut self,
        socket: &impl AsRawFd,
        mut each: impl FnMut(Option<Micros>, &[u8]),
    ) -> io::Result<bool> {
        self.prepare();
        // SAFETY: every header points to a piece of the arena and control messages of its own, with
        // their lengths, all alive and unmoved until the call returns.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                MESSAGES as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let count = match Errno::result(count) {
            Ok(count) => count as usize,
            Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::EINTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        for (header, bytes) in self
            .headers
            .iter()
            .zip(self.arena.chunks(LONGEST))
            .take(count)
        {
            let bytes = bytes.get(..header.msg_len as usize).unwrap_or(bytes);
            let (segment, at) = told(&header.msg_hdr);
            match segment {
                Some(segment) => bytes
                    .chunks(segment)
                    .for_each(|datagram| each(at, datagram)),
                None => each(at, bytes),
            }
        }
        Ok(count == MESSAGES)
    }

    fn prepare(&mut self) {
        self.headers.clear();
        self.pieces.clear();
        for (piece, control) in self.arena.chunks_exact_mut(LONGEST).zip(&mut self.controls) {
            self.pieces.push(libc::iovec {
                iov_base: piece.as_mut_ptr().cast(),
                iov_len: LONGEST,
            });
            // SAFETY: all-zero is a valid msghdr (null pointers with zero lengths).
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_iovlen = 1;
            header.msg_control = std::ptr::from_mut(control).cast();
            header.msg_controllen = CONTROL;
            self.headers.push(libc::mmsghdr {
                msg_hdr: header,
                msg_len: 0,
            });
        }
        for (header, piece) in self.headers.iter_mut().zip(&mut self.pieces) {
            header.msg_hdr.msg_iov = piece;
        }
    }
}

/// How long each datagram of a joined message is, and when it arrived; None: that was not told.
fn told(header: &libc::msghdr) -> (Option<usize>, Option<Micros>) {
    let (mut segment, mut at) = (None, None);
    // SAFETY: the kernel filled in the control messages that `header` points to, and their room is
    // still the receiver's; the macros give null or one that lies in it whole.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            let data = libc::CMSG_DATA(control);
            match ((*control).cmsg_level, (*control).cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let length = data.cast::<libc::c_int>().read_unaligned();
                    segment = usize::try_from(length).ok().filter(|&length| length > 0);
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time = data.cast::<libc::timespec>().read_unaligned();
                    at = Some(micros(time.tv_sec, time.tv_nsec));
                }
                _ => {}
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    (segment, at)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn pair(address: &str) -> (UdpSocket, UdpSocket) {
        let peer = UdpSocket::bind((address.parse::<IpAddr>().unwrap(), 0)).unwrap();
        let socket = open(address.parse().unwrap(), peer.local_addr().unwrap()).unwrap();
        peer.connect(socket.local_addr().unwrap()).unwrap();
        (peer, socket)
    }

    fn all(socket: &UdpSocket) -> Vec<(Micros, Vec<u8>)> {
        let (mut receiver, mut found) = (Receiver::default(), Vec::new());
        let mut each = |at: Option<Micros>, bytes: &[u8]| found.push((at.unwrap(), bytes.to_vec()));
        while receiver.receive(socket, &mut each).unwrap() {}
        found
    }

    #[test]
    fn datagrams_come_in_order_with_their_times() {
        for address in ["127.0.0.1", "::1"] {
            let (peer, socket) = pair(address);
            // Less what cutting off to microseconds may add up to.
            let before = clock::now() + clock::realtime_offset() - 2;
            for number in 0..50_u8 {
                peer.send(&vec![number; 1 + usize::from(number)]).unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
            let looked = clock::now() + clock::realtime_offset();
            let found = all(&socket);
            assert_eq!(found.len(), 50);
            for (number, (at, bytes)) in found.iter().enumerate() {
                assert_eq!(*bytes, vec![number as u8; 1 + number]);
                assert!(
                    (before..looked).contains(at),
                    "{at} is not {before} to {looked}"
                );
            }
            assert_eq!(all(&socket), []);
            assert_eq!(overflows(&socket), 0);
        }
    }

    #[test]
    fn joined_datagrams_are_told_apart() {
        let (peer, socket) = pair("127.0.0.1");
        setsockopt(&peer, sockopt::UdpGsoSegment, &100).unwrap();
        let sent: Vec<u8> = (0..250).map(|place| (place / 100) as u8).collect();
        peer.send(&sent).unwrap();
        let lengths: Vec<_> = all(&socket).into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(lengths, [vec![0; 100], vec![1; 100], vec![2; 50]]);
    }

    #[test]
    fn what_did_not_fit_is_counted() {
        let (peer, socket) = pair("127.0.0.1");
        for _ in 0..5_000 {
            peer.send(&[0; 1200]).unwrap();
        }
        let dropped = overflows(&socket);
        assert!(dropped > 0);
        assert_eq!(all(&socket).len() as u64 + dropped, 5_000);
    }

    #[test]
    fn a_closed_port_is_an_error() {
        let (peer, socket) = pair("127.0.0.1");
        drop(peer);
        socket.send(b"x").unwrap();
        let result = Receiver::default().receive(&socket, |_, _| ());
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
