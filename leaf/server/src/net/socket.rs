//! UDP sockets: one per worker and local address on the port of all viewers, and those of streams.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// What the kernel may hold for a socket in each direction, in bytes: a key frame to some hundred
/// viewers, or what arrives while a worker sends one.
const BUFFER: usize = 8 << 20;

/// Whether other sockets of this process take a share of the packets of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// The first socket of an address: nobody else may have it.
    First,
    /// Those that join it.
    Joined,
}

/// Bind `count` sockets to every address, non-blocking: result `[socket][address]`, so that each
/// inner vector is what one worker takes.
///
/// The kernel spreads datagrams by sender over the sockets of an address (`SO_REUSEPORT`), and those
/// of one sender always reach the same one. Port 0 is a port that the system chooses for the first
/// address and that the others take, too.
///
/// An address that this machine does not have just now is bound all the same.
///
/// # Errors
/// What the system says; [`io::ErrorKind::AddrInUse`] also if another process has an address with
/// `SO_REUSEPORT`, which would otherwise get a part of the packets.
pub fn bind_shared(addresses: &[SocketAddr], count: usize) -> io::Result<Vec<Vec<UdpSocket>>> {
    let mut sockets: Vec<Vec<UdpSocket>> = (0..count).map(|_| Vec::new()).collect();
    let mut chosen = 0;
    for &address in addresses {
        let mut address = address;
        if address.port() == 0 {
            address.set_port(chosen);
        }
        for (index, of_worker) in sockets.iter_mut().enumerate() {
            let sharing = if index == 0 {
                Sharing::First
            } else {
                Sharing::Joined
            };
            let socket = bind(address, Some(sharing))
                .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
            chosen = socket.local_addr()?.port();
            address.set_port(chosen);
            of_worker.push(socket);
        }
    }
    Ok(sockets)
}

/// Bind one socket, non-blocking, for a stream that arrives at this address.
///
/// # Errors
/// What the system says.
pub fn bind_alone(address: SocketAddr) -> io::Result<UdpSocket> {
    bind(address, None)
}

/// Bind one socket, non-blocking, that only sends, from whatever address the system chooses. What
/// comes to it is dropped by the kernel.
///
/// # Errors
/// What the system says.
pub fn bind_to_send(v4: bool) -> io::Result<UdpSocket> {
    let unspecified: IpAddr = if v4 {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = Socket::from(bind_alone(SocketAddr::new(unspecified, 0))?);
    // The least that the kernel gives: nobody reads it.
    socket.set_recv_buffer_size(0)?;
    Ok(socket.into())
}

fn bind(address: SocketAddr, sharing: Option<Sharing>) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    enlarge_buffers(&socket)?;
    if sharing.is_some() {
        // Addresses come and go with their links. A server that begins anew without one of them
        // serves the others, and this one once it is back.
        if address.is_ipv6() {
            socket.set_freebind_v6(true)?;
        } else {
            socket.set_freebind_v4(true)?;
        }
    }
    if sharing == Some(Sharing::Joined) {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    if sharing == Some(Sharing::First) {
        // After binding, so that this socket refuses to join another process's.
        socket.set_reuse_port(true)?;
    }
    Ok(socket.into())
}

fn enlarge_buffers(socket: &Socket) -> io::Result<()> {
    // FORCE goes beyond the system's limit and needs CAP_NET_ADMIN.
    if setsockopt(socket, sockopt::SndBufForce, &BUFFER).is_err() {
        socket.set_send_buffer_size(BUFFER)?;
    }
    if setsockopt(socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        socket.set_recv_buffer_size(BUFFER)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Duration;

    use super::*;

    fn received(socket: &UdpSocket) -> Option<usize> {
        match socket.recv(&mut [0; 100]) {
            Ok(length) => Some(length),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                None
            }
        }
    }

    #[test]
    fn workers_share_one_port_of_all_addresses() {
        let addresses = ["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
        let sockets = bind_shared(&addresses, 3).unwrap();
        assert_eq!(sockets.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
        let port = sockets[0][0].local_addr().unwrap().port();
        for of_worker in &sockets {
            for (socket, address) in of_worker.iter().zip(addresses) {
                assert_eq!(
                    socket.local_addr().unwrap(),
                    SocketAddr::new(address.ip(), port)
                );
            }
        }
    }

    #[test]
    fn an_address_that_is_away_keeps_no_other_from_serving() {
        let away = [
            "192.0.2.7:0".parse().unwrap(),
            "[2001:db8::7]:0".parse().unwrap(),
        ];
        let here = "127.0.0.1:0".parse().unwrap();
        let sockets = bind_shared(&[away[0], away[1], here], 2).unwrap();
        let to = sockets[0][2].local_addr().unwrap();
        assert_eq!(sockets[1][0].local_addr().unwrap().port(), to.port());
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"packet", to).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let got = sockets
            .iter()
            .filter_map(|of_worker| received(&of_worker[2]));
        assert_eq!(got.collect::<Vec<_>>(), [6]);
    }

    #[test]
    fn every_worker_gets_senders_and_one_sender_stays_with_one_worker() {
        let sockets = bind_shared(&["127.0.0.1:0".parse().unwrap()], 2).unwrap();
        let to = sockets[0][0].local_addr().unwrap();
        let mut senders_of = [0; 2];
        for _ in 0..64 {
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..3 {
                sender.send_to(b"x", to).unwrap();
            }
            std::thread::sleep(Duration::from_millis(1));
            let counts = [0, 1]
                .map(|worker: usize| std::iter::from_fn(|| received(&sockets[worker][0])).count());
            assert!(counts == [3, 0] || counts == [0, 3], "{counts:?}");
            senders_of[usize::from(counts[0] == 0)] += 1;
        }
        assert!(
            senders_of.iter().all(|&senders| senders > 5),
            "{senders_of:?}"
        );
    }

    #[test]
    fn nobody_joins_a_port_that_is_taken() {
        let first = bind_shared(&["127.0.0.1:0".parse().unwrap()], 2).unwrap();
        let address = first[0][0].local_addr().unwrap();
        assert_eq!(
            bind_shared(&[address], 2).unwrap_err().kind(),
            ErrorKind::AddrInUse
        );
        assert_eq!(
            bind_alone(address).unwrap_err().kind(),
            ErrorKind::AddrInUse
        );
    }

    #[test]
    fn a_socket_that_only_sends_keeps_nothing_of_what_comes() {
        let socket = bind_to_send(true).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], socket.local_addr().unwrap().port()));
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..1000 {
            sender.send_to(&[0; 1000], to).unwrap();
        }
        let kept = std::iter::from_fn(|| received(&socket)).count();
        assert!(kept < 10, "{kept}");
        bind_to_send(false).unwrap();
    }

    #[test]
    fn an_ipv6_socket_leaves_the_ipv4_port_alone() {
        let v6 = bind_alone("[::]:0".parse().unwrap()).unwrap();
        let port = v6.local_addr().unwrap().port();
        bind_alone(SocketAddr::new("0.0.0.0".parse().unwrap(), port)).unwrap();
    }

    #[test]
    fn buffers_are_at_least_what_the_system_gives_everyone() {
        let socket = Socket::from(bind_alone("127.0.0.1:0".parse().unwrap()).unwrap());
        let plain = Socket::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        assert!(socket.recv_buffer_size().unwrap() > plain.recv_buffer_size().unwrap());
        assert!(socket.send_buffer_size().unwrap() > plain.send_buffer_size().unwrap());
    }
}
