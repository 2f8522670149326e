//! SRTP and SRTCP (RFC 3711) with the profiles that WebRTC uses (RFC 5764, RFC 7714).
//!
//! [`Outbound`] protects what this side sends and [`Inbound`] opens what the other side sent, both from
//! a [`MasterKey`] of a DTLS handshake. There is one master key for all SSRCs of a direction, no MKI,
//! and no change of keys: a direction ends after 2^48 packets of an SSRC or 2^31 of SRTCP.

mod aead;
mod cipher;
mod counter_mode;
mod inbound;
mod keys;
mod outbound;
mod profile;
mod replay;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display, Formatter};

pub use inbound::{Inbound, MAX_SSRCS};
pub use keys::MasterKey;
pub use outbound::{MAX_RTCP_INDEX, Outbound};
pub use profile::Profile;

/// Why a packet was not protected, or not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrtpError {
    /// A master key whose lengths are not those of the profile.
    KeyLength,
    /// No packet of RTP or RTCP: too short, of another version, or with a header beyond its end.
    Malformed,
    /// The buffer has no room for the protected packet.
    NoRoom,
    /// The tag is wrong: the packet was changed on its way, or is not of this peer.
    Authentication,
    /// The packet was taken before, or is too old to tell.
    Replayed,
    /// More SSRCs than a peer may use.
    TooManySources,
    /// All indices of SRTCP are used up, or one was to be used twice.
    IndexExhausted,
}

impl Display for SrtpError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyLength => "master key of a wrong length",
            Self::Malformed => "malformed packet",
            Self::NoRoom => "no room for the protected packet",
            Self::Authentication => "wrong authentication tag",
            Self::Replayed => "replayed packet",
            Self::TooManySources => "too many SSRCs",
            Self::IndexExhausted => "SRTCP index exhausted",
        })
    }
}

impl std::error::Error for SrtpError {}

/// Where the SSRC of an RTP header is (RFC 3550, section 5.1).
const RTP_SSRC: std::ops::Range<usize> = 8..12;
/// The part of an SRTCP packet that is not encrypted: the first header and the sender's SSRC.
const RTCP_HEADER: usize = 8;
/// Where the SSRC of an RTCP packet is (RFC 3550, section 6.4.1).
const RTCP_SSRC: std::ops::Range<usize> = 4..8;
/// Octets of the index at the end of an SRTCP packet.
const TRAILER: usize = 4;
/// The flag of an encrypted SRTCP packet, before the index (RFC 3711, section 3.4).
const ENCRYPTED: u32 = 1 << 31;

/// A number of four octets in network order; nothing if they are not there.
fn word(packet: &[u8], place: std::ops::Range<usize>) -> Option<u32> {
    Some(u32::from_be_bytes(packet.get(place)?.try_into().ok()?))
}

/// What an AEAD authenticates of an SRTCP packet besides its text: the header and the index
/// (RFC 7714, section 9.2).
fn associated(header: &[u8], trailer: [u8; TRAILER]) -> [u8; RTCP_HEADER + TRAILER] {
    let mut associated = [0; RTCP_HEADER + TRAILER];
    associated[..RTCP_HEADER].copy_from_slice(header);
    associated[RTCP_HEADER..].copy_from_slice(&trailer);
    associated
}

#[cfg(test)]
fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}
