//! Writing RTP headers (RFC 3550 section 5.1) with one-byte header extensions (RFC 8285
//! section 4.2).

use thiserror::Error;

const FIXED_LEN: usize = 12;
const EXTENSION_PROFILE: [u8; 2] = [0xbe, 0xde];
/// Fixed header, extension header, abs-send-time, playout-delay and the longest mid.
const MAX_LEN: usize = FIXED_LEN + 4 + 4 + 4 + 17 + 3;
/// What `playout-delay` counts in: 10 ms, in 12 bits.
const PLAYOUT_MAX: u16 = 0xfff;

/// Why a header cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Payload types have 7 bits.
    #[error("payload type {0} is above 127")]
    PayloadType(u8),
    /// One-byte extensions have the ids 1 to 14, each used once.
    #[error("header extension id {0} is taken or not within 1 to 14")]
    ExtensionId(u8),
    /// A one-byte extension carries 1 to 16 bytes.
    #[error("an extension value of {0} bytes is not within 1 to 16")]
    ExtensionLen(usize),
    /// The extensions together are longer than a template holds.
    #[error("the header extensions do not fit")]
    TooLong,
}

/// How long a receiver may hold pictures back from when it reads this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Playout {
    /// Not at all.
    AtOnce,
    /// As long as it likes.
    Free,
}

/// The header of one RTP stream, of which only sequence number, timestamp, marker and send time
/// change from packet to packet. Its length never changes.
#[derive(Clone, Copy, Debug)]
pub struct HeaderTemplate {
    bytes: [u8; MAX_LEN],
    /// End of the extension elements, before padding to a whole word.
    end: usize,
    abs_send_time_at: Option<usize>,
}

impl HeaderTemplate {
    /// A header without extensions.
    ///
    /// # Errors
    ///
    /// [`HeaderError::PayloadType`] for a payload type above 127.
    pub fn new(payload_type: u8, ssrc: u32) -> Result<Self, HeaderError> {
        if payload_type > 127 {
            return Err(HeaderError::PayloadType(payload_type));
        }
        let mut bytes = [0; MAX_LEN];
        bytes[0] = 2 << 6;
        bytes[1] = payload_type;
        bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
        Ok(Self {
            bytes,
            end: FIXED_LEN,
            abs_send_time_at: None,
        })
    }

    /// Adds the media identification of the stream (`urn:ietf:params:rtp-hdrext:sdes:mid`,
    /// RFC 9143 section 15).
    ///
    /// # Errors
    ///
    /// [`HeaderError`] if the id is taken or out of range, or `mid` is empty or above 16 bytes.
    pub fn with_mid(mut self, id: u8, mid: &str) -> Result<Self, HeaderError> {
        self.push(id, mid.as_bytes())?;
        Ok(self)
    }

    /// Adds the time of sending (`abs-send-time`, 24 bits: 6 of seconds, 18 of fraction).
    ///
    /// # Errors
    ///
    /// [`HeaderError`] if the id is taken or out of range.
    pub fn with_abs_send_time(mut self, id: u8) -> Result<Self, HeaderError> {
        self.push(id, &[0; 3])?;
        self.abs_send_time_at = Some(self.end - 3);
        Ok(self)
    }

    /// Adds how long the receiver may hold a picture back (`playout-delay`: least and greatest in 12
    /// bits each, in 10 ms). The least is 0.
    ///
    /// # Errors
    ///
    /// [`HeaderError`] if the id is taken or out of range.
    pub fn with_playout_delay(mut self, id: u8, playout: Playout) -> Result<Self, HeaderError> {
        let [high, low] = match playout {
            Playout::AtOnce => 0,
            Playout::Free => PLAYOUT_MAX,
        }
        .to_be_bytes();
        self.push(id, &[0, high, low])?;
        Ok(self)
    }

    /// Appends an extension element and brings the extension's length up to date.
    fn push(&mut self, id: u8, value: &[u8]) -> Result<(), HeaderError> {
        if !(1..=14).contains(&id) || self.has_extension(id) {
            return Err(HeaderError::ExtensionId(id));
        }
        if !(1..=16).contains(&value.len()) {
            return Err(HeaderError::ExtensionLen(value.len()));
        }
        let start = self.end.max(FIXED_LEN + 4);
        let end = start + 1 + value.len();
        if end.next_multiple_of(4) > MAX_LEN {
            return Err(HeaderError::TooLong);
        }
        self.bytes[start] = (id << 4) | (value.len() as u8 - 1);
        self.bytes[start + 1..end].copy_from_slice(value);
        self.end = end;
        self.bytes[0] |= 1 << 4;
        self.bytes[FIXED_LEN..FIXED_LEN + 2].copy_from_slice(&EXTENSION_PROFILE);
        let words = (self.len() - FIXED_LEN - 4) / 4;
        self.bytes[FIXED_LEN + 2..FIXED_LEN + 4].copy_from_slice(&(words as u16).to_be_bytes());
        Ok(())
    }

    fn has_extension(&self, id: u8) -> bool {
        let mut at = FIXED_LEN + 4;
        while at < self.end {
            if self.bytes[at] >> 4 == id {
                return true;
            }
            at += 2 + usize::from(self.bytes[at] & 0x0f);
        }
        false
    }

    /// Length in bytes of every header of this template: 12 to 44, a multiple of 4.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub fn len(&self) -> usize {
        self.end.next_multiple_of(4)
    }

    /// Makes a written header at the start of `out` longer by `bytes`, a multiple of 4, and gives its
    /// new length: zeros at the end of the extensions, which receivers pass over (RFC 8285 section 4.1.1).
    ///
    /// # Panics
    ///
    /// If `out` is shorter than that.
    pub fn pad(&self, bytes: usize, out: &mut [u8]) -> usize {
        debug_assert!(bytes.is_multiple_of(4), "extensions are counted in words");
        let (len, padded) = (self.len(), self.len() + bytes);
        if bytes > 0 {
            out[len..padded].fill(0);
            out[0] |= 1 << 4;
            out[FIXED_LEN..FIXED_LEN + 2].copy_from_slice(&EXTENSION_PROFILE);
            let words = (padded - FIXED_LEN - 4) / 4;
            out[FIXED_LEN + 2..FIXED_LEN + 4].copy_from_slice(&(words as u16).to_be_bytes());
        }
        padded
    }

    /// Writes the header of one packet to the start of `out` and gives its length, [`Self::len`].
    ///
    /// `abs_send_time` is the 24-bit value of [`crate::ntp::abs_send_time`]; a template without
    /// that extension leaves it out.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than [`Self::len`].
    pub fn write(
        &self,
        sequence: u16,
        timestamp: u32,
        marker: bool,
        abs_send_time: u32,
        out: &mut [u8],
    ) -> usize {
        let len = self.len();
        let out = &mut out[..len];
        out.copy_from_slice(&self.bytes[..len]);
        out[1] |= u8::from(marker) << 7;
        out[2..4].copy_from_slice(&sequence.to_be_bytes());
        out[4..8].copy_from_slice(&timestamp.to_be_bytes());
        if let Some(at) = self.abs_send_time_at {
            out[at..at + 3].copy_from_slice(&abs_send_time.to_be_bytes()[1..]);
        }
        len
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{HeaderError, HeaderTemplate, MAX_LEN, Playout};
    use crate::rtp::RtpPacket;

    fn write(template: &HeaderTemplate) -> Vec<u8> {
        let mut out = [0xaa; 64];
        let len = template.write(0x1234, 0x0506_0708, true, 0x00ab_cdef, &mut out);
        assert_eq!(len, template.len());
        assert!(out[len..].iter().all(|&byte| byte == 0xaa));
        out[..len].to_vec()
    }

    #[test]
    fn padding_is_of_the_extensions() {
        let plain = HeaderTemplate::new(96, 1).unwrap();
        let timed = plain.with_abs_send_time(3).unwrap();
        for (template, words) in [
            (plain, 0),
            (plain, 1),
            (plain, 290),
            (timed, 1),
            (timed, 290),
        ] {
            let mut out = [0xaa; 1400];
            template.write(7, 8, true, 9, &mut out);
            let len = template.pad(4 * words, &mut out);
            assert_eq!(len, template.len() + 4 * words);
            out[len] = 0x65;
            let packet = RtpPacket::parse(&out[..=len]).unwrap();
            assert_eq!((packet.sequence, packet.payload), (7, &[0x65][..]));
            assert_eq!(out[0] & 0x10 != 0, words > 0 || template.len() > 12);
            if template.len() > 12 {
                assert_eq!(out[16..20], [0x32, 0, 0, 9]);
                assert!(out[20..len].iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn a_plain_header_is_twelve_bytes() {
        let template = HeaderTemplate::new(96, 0xcafe_babe).unwrap();
        let expected = [0x80, 0xe0, 0x12, 0x34, 5, 6, 7, 8, 0xca, 0xfe, 0xba, 0xbe];
        assert_eq!(write(&template), expected);
    }

    #[test]
    fn extensions_stand_in_one_byte_form() {
        let template = HeaderTemplate::new(96, 1)
            .and_then(|header| header.with_abs_send_time(3))
            .and_then(|header| header.with_mid(4, "v0"))
            .unwrap();
        let extensions = [
            0xbe, 0xde, 0, 2, // profile and length in words
            0x32, 0xab, 0xcd, 0xef, // id 3: send time
            0x41, b'v', b'0', 0, // id 4, then padding
        ];
        let header = write(&template);
        assert_eq!(header[0], 0x90);
        assert_eq!(header[12..], extensions);
    }

    #[test]
    fn a_limit_of_the_playout_delay_has_two_twelves_of_bits() {
        let bytes = |playout| {
            let template = HeaderTemplate::new(96, 1).unwrap();
            write(&template.with_playout_delay(6, playout).unwrap())[12..].to_vec()
        };
        assert_eq!(bytes(Playout::AtOnce), [0xbe, 0xde, 0, 1, 0x62, 0, 0, 0]);
        assert_eq!(
            bytes(Playout::Free),
            [0xbe, 0xde, 0, 1, 0x62, 0, 0x0f, 0xff]
        );
    }

    #[test]
    fn all_extensions_at_their_longest_fit() {
        let template = HeaderTemplate::new(96, 1)
            .and_then(|header| header.with_mid(1, "0123456789abcdef"))
            .and_then(|header| header.with_abs_send_time(2))
            .and_then(|header| header.with_playout_delay(3, Playout::Free))
            .unwrap();
        assert_eq!(template.len(), MAX_LEN);
        assert_eq!(
            RtpPacket::parse(&write(&template)).unwrap().header_len,
            MAX_LEN
        );
        assert_eq!(
            template.with_mid(9, "abc").unwrap_err(),
            HeaderError::TooLong
        );
    }

    #[test]
    fn impossible_headers_are_refused() {
        let template = HeaderTemplate::new(127, 1).unwrap();
        let refusals = [
            (HeaderTemplate::new(128, 1), HeaderError::PayloadType(128)),
            (template.with_abs_send_time(0), HeaderError::ExtensionId(0)),
            (
                template.with_abs_send_time(15),
                HeaderError::ExtensionId(15),
            ),
            (template.with_mid(1, ""), HeaderError::ExtensionLen(0)),
            (
                template.with_mid(1, "0123456789abcdefg"),
                HeaderError::ExtensionLen(17),
            ),
            (
                template
                    .with_mid(2, "a")
                    .and_then(|header| header.with_abs_send_time(2)),
                HeaderError::ExtensionId(2),
            ),
        ];
        for (result, expected) in refusals {
            assert_eq!(result.unwrap_err(), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            ssrc: u32, sequence: u16, timestamp: u32, marker: bool, send_time: u32,
            payload_type in 0u8..128, mid in "[a-z]{1,16}", with_send_time: bool,
        ) {
            let mut template = HeaderTemplate::new(payload_type, ssrc)?.with_mid(1, &mid)?;
            if with_send_time {
                template = template.with_abs_send_time(2)?;
            }
            let mut bytes = [7; MAX_LEN + 2];
            let len = template.write(sequence, timestamp, marker, send_time, &mut bytes);
            let packet = RtpPacket::parse(&bytes[..len + 2])?;
            prop_assert_eq!(
                packet,
                RtpPacket { ssrc, sequence, timestamp, marker, payload_type, header_len: len,
                            payload: &[7, 7] }
            );
        }
    }
}
