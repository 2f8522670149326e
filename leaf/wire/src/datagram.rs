//! What a datagram is, told by its first bytes (RFC 7983 section 7, RFC 5761 section 4).

/// The protocol of a datagram on a port shared by all of WebRTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// STUN: connectivity checks of ICE.
    Stun,
    /// DTLS records.
    Dtls,
    /// RTP or SRTP.
    Rtp,
    /// RTCP or SRTCP.
    Rtcp,
    /// None of these (ZRTP, TURN channels, QUIC, garbage).
    Other,
}

impl Datagram {
    /// Tells the protocol of `bytes` without reading further than the second byte.
    #[must_use]
    pub fn classify(bytes: &[u8]) -> Self {
        match bytes {
            [0..=3, ..] => Self::Stun,
            [20..=63, ..] => Self::Dtls,
            // RTCP packet types 192 to 223 are what RTP would call payload types 64 to 95 with
            // the marker bit set; RFC 5761 keeps RTP off these.
            [128..=191, 192..=223, ..] => Self::Rtcp,
            [128..=191, _, ..] => Self::Rtp,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Datagram::{self, Dtls, Other, Rtcp, Rtp, Stun};

    #[test]
    fn every_first_byte_has_its_protocol() {
        for first in 0..=u8::MAX {
            let expected = match first {
                0..=3 => Stun,
                20..=63 => Dtls,
                128..=191 => Rtp,
                _ => Other,
            };
            assert_eq!(Datagram::classify(&[first, 96]), expected, "byte {first}");
        }
    }

    #[test]
    fn rtcp_is_told_from_rtp_by_its_packet_type() {
        for packet_type in 192..=223 {
            assert_eq!(Datagram::classify(&[0x80, packet_type]), Rtcp);
        }
        // Payload type 96 and 127 with the marker, 63 with it, and the neighbours of the range.
        for second in [0x80 | 96, 0x80 | 127, 0x80 | 63, 191, 224] {
            assert_eq!(Datagram::classify(&[0x80, second]), Rtp);
        }
    }

    #[test]
    fn too_short_is_other() {
        assert_eq!(Datagram::classify(&[]), Other);
        assert_eq!(Datagram::classify(&[0x80]), Other);
    }
}
