//! Retransmissions in a stream of their own (RFC 4588 section 4).

/// The sequence number and the payload of the packet that is sent again, from the payload of its
/// retransmission; None for one without, as it is sent to probe a path.
#[must_use]
pub fn original(payload: &[u8]) -> Option<(u16, &[u8])> {
    let (number, payload) = payload.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*number), payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::original;

    #[test]
    fn the_original_number_precedes_the_payload() {
        assert_eq!(
            original(&[0x12, 0x34, 0x65, 0x88]),
            Some((0x1234, &[0x65, 0x88][..]))
        );
        assert_eq!(original(&[0, 7]), Some((7, &[][..])));
        assert_eq!(original(&[1]), None);
        assert_eq!(original(&[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let read = original(&bytes);
            prop_assert_eq!(read.is_some(), bytes.len() >= 2);
            if let Some((number, payload)) = read {
                prop_assert_eq!([&number.to_be_bytes(), payload].concat(), bytes);
            }
        }
    }
}
