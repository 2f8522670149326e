//! Socket addresses as the kernel writes them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for an IPv4 or IPv6 socket address.
///
/// A quarter of `sockaddr_storage`: a batch holds hundreds of them.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union RawAddress {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl RawAddress {
    /// Length of the room, in bytes.
    pub(super) const SIZE: libc::socklen_t = size_of::<Self>() as libc::socklen_t;

    /// An address of no family.
    pub(super) const fn empty() -> Self {
        let v6 = libc::sockaddr_in6 {
            sin6_family: libc::AF_UNSPEC as libc::sa_family_t,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        };
        Self { v6 }
    }

    /// This address.
    pub(super) fn new(address: SocketAddr) -> Self {
        let mut raw = Self::empty();
        match address {
            SocketAddr::V4(v4) => {
                raw.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(v4.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
            }
            SocketAddr::V6(v6) => {
                raw.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: v6.ip().octets(),
                    },
                    sin6_scope_id: v6.scope_id(),
                };
            }
        }
        raw
    }

    fn family(&self) -> i32 {
        // SAFETY: the family stands first in each of the three, and every constructor wrote it.
        i32::from(unsafe { self.family })
    }

    /// The number of bytes that the address takes.
    pub(super) fn length(&self) -> libc::socklen_t {
        let length = match self.family() {
            libc::AF_INET => size_of::<libc::sockaddr_in>(),
            _ => size_of::<libc::sockaddr_in6>(),
        };
        length as libc::socklen_t
    }

    /// The address, if its family is one of the two.
    pub(super) fn read(&self) -> Option<SocketAddr> {
        // SAFETY: every constructor wrote all bytes, and any bytes are valid integers and arrays.
        let (v4, v6) = unsafe { (self.v4, self.v6) };
        match self.family() {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_went_in() {
        let v6 = SocketAddrV6::new("fe80::1".parse().unwrap(), 40000, 7, 3).into();
        for address in ["192.0.2.7:50000".parse().unwrap(), v6] {
            assert_eq!(RawAddress::new(address).read(), Some(address));
        }
        assert_eq!(RawAddress::empty().read(), None);
    }
}
