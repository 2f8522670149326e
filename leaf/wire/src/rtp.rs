//! Reading RTP packets (RFC 3550 section 5.1).

use thiserror::Error;

/// Why bytes are no RTP packet.
#[derive(Debug, Error)]
#[error("not an RTP packet: {0}")]
pub struct RtpError(#[from] rtp_types::RtpParseError);

/// An RTP packet, its payload borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpPacket<'a> {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Sequence number, which wraps.
    pub sequence: u16,
    /// Timestamp in ticks of the payload's clock, which wraps.
    pub timestamp: u32,
    /// Marker bit: with video, the last packet of a picture.
    pub marker: bool,
    /// Payload type, 7 bits.
    pub payload_type: u8,
    /// Length in bytes of the header with contributing sources and extensions.
    pub header_len: usize,
    /// The payload without padding.
    pub payload: &'a [u8],
}

impl<'a> RtpPacket<'a> {
    /// Reads the packet that fills `bytes`, without allocation.
    ///
    /// # Errors
    ///
    /// [`RtpError`] for another version than 2, a header or an extension longer than the packet,
    /// and impossible padding.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtpError> {
        let packet = rtp_types::RtpPacket::parse(bytes)?;
        let payload_end = bytes.len() - usize::from(packet.padding().unwrap_or(0));
        let header_len = payload_end - packet.payload().len();
        Ok(Self {
            ssrc: packet.ssrc(),
            sequence: packet.sequence_number(),
            timestamp: packet.timestamp(),
            marker: packet.marker_bit(),
            payload_type: packet.payload_type(),
            header_len,
            payload: &bytes[header_len..payload_end],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::RtpPacket;

    /// Version 2 with padding, extension and one contributing source; marker, type 96.
    const FULL: [u8; 28] = [
        0xb1, 0xe0, 0x12, 0x34, 0x01, 0x02, 0x03, 0x04, 0xca, 0xfe, 0xba,
        0xbe, // fixed header
        0x00, 0x00, 0x00, 0x07, // contributing source
        0xbe, 0xde, 0x00, 0x01, 0x10, 0xff, 0x00, 0x00, // one-byte extensions
        0x65, 0x88, 0x00, 0x02, // payload of two bytes, two of padding
    ];

    #[test]
    fn all_parts_are_read() {
        let packet = RtpPacket::parse(&FULL).unwrap();
        assert_eq!(
            packet,
            RtpPacket {
                ssrc: 0xcafe_babe,
                sequence: 0x1234,
                timestamp: 0x0102_0304,
                marker: true,
                payload_type: 96,
                header_len: 24,
                payload: &[0x65, 0x88],
            }
        );
    }

    #[test]
    fn padding_alone_leaves_an_empty_payload() {
        let mut bytes = FULL;
        bytes[27] = 4;
        assert_eq!(RtpPacket::parse(&bytes).unwrap().payload, &[] as &[u8]);
        for impossible in [0, 5, 255] {
            bytes[27] = impossible;
            assert!(RtpPacket::parse(&bytes).is_err(), "padding {impossible}");
        }
    }

    #[test]
    fn every_truncated_header_is_an_error() {
        let mut unpadded = FULL;
        unpadded[0] &= !0x20;
        for end in 0..24 {
            assert!(RtpPacket::parse(&unpadded[..end]).is_err(), "length {end}");
        }
        assert!(RtpPacket::parse(&unpadded[..24]).is_ok());
    }

    #[test]
    fn other_versions_are_errors() {
        for version in [0, 1, 3] {
            let mut bytes = FULL;
            bytes[0] = (bytes[0] & 0x3f) | (version << 6);
            assert!(RtpPacket::parse(&bytes).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
            if let Ok(packet) = RtpPacket::parse(&bytes) {
                prop_assert!(packet.header_len + packet.payload.len() <= bytes.len());
            }
        }

        #[test]
        fn a_damaged_packet_is_read_or_refused(
            position in 0..FULL.len(), value in any::<u8>(), end in 0..=FULL.len(),
        ) {
            let mut bytes = FULL;
            bytes[position] = value;
            if let Ok(packet) = RtpPacket::parse(&bytes[..end]) {
                prop_assert!(packet.header_len >= 12);
                prop_assert!(packet.header_len + packet.payload.len() <= end);
            }
        }
    }
}
