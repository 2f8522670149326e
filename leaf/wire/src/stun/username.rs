//! Whom a binding request is for, found before its integrity can be checked.

const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER_LEN: usize = 20;
const USERNAME: u16 = 0x0006;

/// The user name fragments of a binding request, first that of the agent asked (local to a
/// server), then that of the asking agent (RFC 8445 section 7.2.2).
///
/// Nothing is verified; the password to verify with is found by these. `None` if `packet` is no
/// binding request or has no USERNAME of that form.
#[must_use]
pub fn ufrag_of(packet: &[u8]) -> Option<(&str, &str)> {
    let (header, mut rest) = packet.split_at_checked(HEADER_LEN)?;
    if header[..2] != BINDING_REQUEST || header[4..8] != MAGIC_COOKIE {
        return None;
    }
    while let [type_high, type_low, len_high, len_low, body @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*len_high, *len_low]));
        if u16::from_be_bytes([*type_high, *type_low]) == USERNAME {
            return std::str::from_utf8(body.get(..len)?).ok()?.split_once(':');
        }
        // Attributes are padded to whole words (RFC 8489 section 5).
        rest = body.get(len.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ufrag_of;
    use crate::stun::test_vectors::{IPV4_RESPONSE, REQUEST};

    #[test]
    fn the_request_of_rfc_5769() {
        assert_eq!(ufrag_of(&REQUEST), Some(("evtj", "h6vY")));
    }

    #[test]
    fn other_packets_have_none() {
        assert_eq!(ufrag_of(&IPV4_RESPONSE), None);
        assert_eq!(ufrag_of(&[]), None);
        let mut other_cookie = REQUEST;
        other_cookie[4] = 0;
        assert_eq!(ufrag_of(&other_cookie), None);
        let mut no_colon = REQUEST;
        no_colon[68] = b'-';
        assert_eq!(ufrag_of(&no_colon), None);
    }

    #[test]
    fn a_request_cut_before_the_end_of_its_username_has_none() {
        for end in 0..REQUEST.len() {
            let expected = (end >= 73).then_some(("evtj", "h6vY"));
            assert_eq!(ufrag_of(&REQUEST[..end]), expected, "length {end}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = ufrag_of(&bytes);
        }

        #[test]
        fn a_damaged_request_is_read_or_refused(position in 0..REQUEST.len(), value: u8) {
            let mut bytes = REQUEST;
            bytes[position] = value;
            let _ = ufrag_of(&bytes);
        }
    }
}
