//! Receiver Estimated Maximum Bitrate (draft-alvestrand-rmcat-remb-03 section 2.2).

use rtcp_types::prelude::FciParser;
use rtcp_types::{FciFeedbackPacketType, RtcpParseError};

const NAME: [u8; 4] = *b"REMB";
const MANTISSA_BITS: u32 = 18;

/// The payload of one REMB packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remb<'a> {
    pub(super) bits_per_second: u64,
    pub(super) ssrcs: Ssrcs<'a>,
}

/// SSRCs in a packet.
#[derive(Clone, Copy, Debug)]
pub struct Ssrcs<'a>(&'a [u8]);

impl<'a> Ssrcs<'a> {
    /// The SSRCs in the packet's order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.0.chunks_exact(4).map(|bytes| {
            bytes
                .iter()
                .fold(0, |ssrc, &byte| (ssrc << 8) | u32::from(byte))
        })
    }
}

impl<'a> FciParser<'a> for Remb<'a> {
    const PACKET_TYPE: FciFeedbackPacketType = FciFeedbackPacketType::PAYLOAD;
    const FCI_FORMAT: u8 = 15;

    fn parse(data: &'a [u8]) -> Result<Self, RtcpParseError> {
        let Some((&NAME, [count, first, second, third, ssrcs @ ..])) = data.split_first_chunk()
        else {
            // Other application layer feedback shares this format (RFC 4585 section 6.4).
            return Err(RtcpParseError::WrongImplementation);
        };
        let len = 4 * usize::from(*count);
        let ssrcs = ssrcs.get(..len).ok_or(RtcpParseError::Truncated {
            expected: 8 + len,
            actual: data.len(),
        })?;
        Ok(Self {
            bits_per_second: decode([*first, *second, *third]),
            ssrcs: Ssrcs(ssrcs),
        })
    }
}

/// The bit rate of 6 bits of exponent and 18 of mantissa; what passes 64 bits is their maximum.
fn decode([first, second, third]: [u8; 3]) -> u64 {
    let exponent = u32::from(first >> 2);
    let mantissa = u64::from(u32::from_be_bytes([0, first & 3, second, third]));
    if mantissa.leading_zeros() < exponent {
        u64::MAX
    } else {
        mantissa << exponent
    }
}

/// The inverse of [`decode`], rounding down.
fn encode(bits_per_second: u64) -> [u8; 3] {
    let bits = u64::BITS - bits_per_second.leading_zeros();
    let exponent = bits.saturating_sub(MANTISSA_BITS);
    let mantissa = (bits_per_second >> exponent) as u32;
    let [_, rate @ ..] = ((exponent << MANTISSA_BITS) | mantissa).to_be_bytes();
    rate
}

/// Appends the payload of a REMB packet, whose `ssrcs` are at most 255.
pub(super) fn write_fci(bits_per_second: u64, ssrcs: &[u32], out: &mut Vec<u8>) {
    out.extend_from_slice(&NAME);
    out.push(ssrcs.len() as u8);
    out.extend_from_slice(&encode(bits_per_second));
    for ssrc in ssrcs {
        out.extend_from_slice(&ssrc.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{decode, encode};

    #[test]
    fn small_rates_are_exact() {
        for rate in [0, 1, 30_000, (1 << 18) - 1] {
            assert_eq!(decode(encode(rate)), rate);
        }
        assert_eq!(encode(1 << 18), [1 << 2 | 2, 0, 0]);
    }

    #[test]
    fn a_rate_beyond_64_bits_is_the_maximum() {
        assert_eq!(decode([0xff; 3]), u64::MAX);
        assert_eq!(decode([63 << 2, 0, 1]), 1 << 63);
        assert_eq!(decode([63 << 2, 0, 0]), 0);
    }

    proptest! {
        #[test]
        fn rates_lose_less_than_their_17th_bit(rate: u64) {
            let decoded = decode(encode(rate));
            prop_assert!(decoded <= rate && rate - decoded <= rate >> 17);
        }
    }
}
