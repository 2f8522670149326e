//! Ranges of addresses, as `10.98.0.0/24` (RFC 4632).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPrefix;

impl fmt::Display for NoPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected ADDRESS/BITS")
    }
}

impl std::error::Error for NoPrefix {}

impl Prefix {
    /// Whether an address is one of these. IPv4 addresses are none of IPv6's.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = width(self.address) - self.bits;
        width(address) == width(self.address)
            && (number(address) ^ number(self.address))
                .checked_shr(shift.into())
                .unwrap_or(0)
                == 0
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => Ipv6Addr::to_bits(v6),
    }
}

impl FromStr for Prefix {
    type Err = NoPrefix;

    fn from_str(text: &str) -> Result<Self, NoPrefix> {
        let (address, bits) = text.split_once('/').ok_or(NoPrefix)?;
        let address: IpAddr = address.parse().map_err(|_| NoPrefix)?;
        let bits = bits.parse().map_err(|_| NoPrefix)?;
        if bits > width(address) {
            return Err(NoPrefix);
        }
        Ok(Self { address, bits })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contains(prefix: &str, address: &str) -> bool {
        let prefix: Prefix = prefix.parse().unwrap();
        prefix.contains(address.parse().unwrap())
    }

    #[test]
    fn the_first_bits_tell() {
        assert!(contains("10.98.0.0/24", "10.98.0.255"));
        assert!(!contains("10.98.0.0/24", "10.98.1.0"));
        assert!(contains("10.98.0.7/24", "10.98.0.1"));
        assert!(contains("0.0.0.0/0", "192.0.2.1"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(contains("192.0.2.1/32", "192.0.2.1"));
        assert!(!contains("192.0.2.1/32", "192.0.2.0"));
        assert!(contains("fd00::/8", "fd12::1"));
        assert!(contains("::/0", "fd12::1"));
        assert!(!contains("::/0", "10.0.0.1"));
    }

    #[test]
    fn others_are_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0/8",
            "10.0.0.0/-1",
            "/",
        ] {
            assert_eq!(text.parse::<Prefix>(), Err(NoPrefix), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}", address: u32) {
            if let Ok(prefix) = text.parse::<Prefix>() {
                prefix.contains(IpAddr::V4(address.into()));
            }
        }
    }
}
