//! Which datagrams OpenSSL gets to see: those made of whole DTLS records that may belong to a connection
//! of ours (RFC 6347, section 4.1).

/// Octets of a record's header.
const HEADER: usize = 13;

/// Octets that AES-GCM adds to a record: a part of the nonce and the tag (RFC 5288, section 3).
const AEAD_OVERHEAD: usize = 24;

/// Content types (RFC 5246, section 6.2.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Whether all records are whole, of a known type, and as long as the encryption of their epoch makes them.
///
/// OpenSSL drops most of the others by itself, but ends the connection at an encrypted record that is
/// shorter than its tag, though nobody has authenticated it (seen with 3.0.19). Anybody who knows the
/// ports could send one.
pub(super) fn are_plausible(mut datagram: &[u8]) -> bool {
    while let Some((header, rest)) = datagram.split_first_chunk::<HEADER>() {
        let [kind, major, _, epoch_high, epoch, .., length_high, length] = *header;
        let length = usize::from(u16::from_be_bytes([length_high, length]));
        let fits = match (epoch_high, epoch) {
            (0, 0) => (CHANGE_CIPHER_SPEC..=HANDSHAKE).contains(&kind),
            // There is one change of keys; a second would be a renegotiation.
            (0, 1) => {
                (CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&kind) && length >= AEAD_OVERHEAD
            }
            _ => false,
        };
        if !fits || major != 0xFE || rest.len() < length {
            return false;
        }
        datagram = &rest[length..];
        if datagram.is_empty() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: u8, epoch: u8, length: u8) -> Vec<u8> {
        let header = [kind, 0xFE, 0xFD, 0, epoch, 0, 0, 0, 0, 0, 7, 0, length];
        [&header[..], &vec![0; length.into()]].concat()
    }

    #[test]
    fn whole_records_of_both_epochs() {
        let flight = [record(22, 0, 70), record(20, 0, 1), record(22, 1, 40)].concat();
        assert!(are_plausible(&flight));
        assert!(are_plausible(&record(21, 1, 26)));
        for end in 0..flight.len() {
            let at_border = [83, 97].contains(&end);
            assert_eq!(are_plausible(&flight[..end]), at_border, "{end}");
        }
    }

    #[test]
    fn what_no_peer_sends() {
        assert!(!are_plausible(&record(20, 1, 1)), "shorter than its tag");
        assert!(!are_plausible(&record(23, 0, 30)), "data before the keys");
        assert!(!are_plausible(&record(24, 1, 30)), "heartbeat");
        assert!(!are_plausible(&record(22, 2, 30)), "a later epoch");
        assert!(!are_plausible(b"GET / HTTP/1.1\r\n\r\n"));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            // Its second octet decides for nearly all of them.
            prop_assert!(bytes.get(1) == Some(&0xFE) || !are_plausible(&bytes));
        }
    }
}
