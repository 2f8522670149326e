//! What a synthetic source writes at the end of every payload: whose it is and when it was sent.

use crate::clock::Micros;

const MAGIC: [u8; 4] = *b"aLs1";
/// Bytes of a stamp: the magic word, the stream (32 bits), the time (64 bits), all big endian.
pub const LEN: usize = 16;

/// The stamp of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the stream: the SSRC that its source sends it with.
    pub stream: u32,
    /// When the source sent it, by [`crate::clock::now`].
    pub sent: Micros,
}

impl Stamp {
    /// The bytes that stand at the end of the payload.
    #[must_use]
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.stream.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sent.to_be_bytes());
        bytes
    }

    /// The stamp of a payload; None if no synthetic source made it.
    #[must_use]
    pub fn of(payload: &[u8]) -> Option<Self> {
        let (magic, rest) = payload.last_chunk::<LEN>()?.split_first_chunk::<4>()?;
        let (stream, sent) = rest.split_first_chunk::<4>()?;
        (*magic == MAGIC).then_some(Self {
            stream: u32::from_be_bytes(*stream),
            sent: Micros::from_be_bytes(sent.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(stream: u32, sent: u64, before: Vec<u8>) {
            let stamp = Stamp { stream, sent };
            let payload = [before, stamp.to_bytes().to_vec()].concat();
            prop_assert_eq!(Stamp::of(&payload), Some(stamp));
            prop_assert_eq!(Stamp::of(&payload[..payload.len() - 1]), None);
        }

        #[test]
        fn other_payloads_have_none(payload: Vec<u8>) {
            prop_assert_eq!(Stamp::of(&payload), None);
        }
    }
}
