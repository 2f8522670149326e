//! Reading RTP header extensions (RFC 8285), in the one-byte form and in the two-byte form.

/// The header without contributing sources and extensions.
const FIXED_LEN: usize = 12;
const ONE_BYTE: u16 = 0xbede;
/// The lowest four bits are free for the application (RFC 8285 section 4.3).
const TWO_BYTES: u16 = 0x1000;
/// In the one-byte form nothing behind this id may be read (RFC 8285 section 4.2).
const LAST: u8 = 15;

/// The value of the first element `id` in the header of an RTP packet; None if it is not there, or
/// if what should hold it is cut off. No id is 0.
#[must_use]
pub fn element(packet: &[u8], id: u8) -> Option<&[u8]> {
    let first = *packet.first()?;
    if first & 0x10 == 0 || id == 0 {
        return None;
    }
    let at = FIXED_LEN + 4 * usize::from(first & 0x0f);
    let (&[high, low, long, short], rest) = packet.get(at..)?.split_first_chunk::<4>()?;
    let body = rest.get(..4 * usize::from(u16::from_be_bytes([long, short])))?;
    match u16::from_be_bytes([high, low]) {
        ONE_BYTE => find(body, id, |bytes| {
            let (&head, rest) = bytes.split_first()?;
            (head >> 4 != LAST).then_some((head >> 4, usize::from(head & 0x0f) + 1, rest))
        }),
        profile if profile & 0xfff0 == TWO_BYTES => find(body, id, |bytes| {
            let (&[id, len], rest) = bytes.split_first_chunk::<2>()?;
            Some((id, len.into(), rest))
        }),
        _ => None,
    }
}

/// The value of an element; `head` reads id and length before a value, and gives what follows them.
fn find(
    mut body: &[u8],
    id: u8,
    head: impl Fn(&[u8]) -> Option<(u8, usize, &[u8])>,
) -> Option<&[u8]> {
    loop {
        // A zero is padding, in both forms.
        if let [0, rest @ ..] = body {
            body = rest;
            continue;
        }
        let (found, len, rest) = head(body)?;
        let (value, rest) = rest.split_at_checked(len)?;
        if found == id {
            return Some(value);
        }
        body = rest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::element;
    use crate::header::HeaderTemplate;

    /// A packet with one contributing source and this extension.
    fn packet(profile: [u8; 2], body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x91; 16];
        bytes.extend_from_slice(&profile);
        bytes.extend_from_slice(&((body.len() / 4) as u16).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(b"payload");
        bytes
    }

    #[test]
    fn elements_of_the_one_byte_form() {
        let body = [0x12, 1, 2, 3, 0, 0, 0x40, 9, 0xf0, 7, 0x50, 8];
        let bytes = packet([0xbe, 0xde], &body);
        assert_eq!(element(&bytes, 1), Some(&[1, 2, 3][..]));
        assert_eq!(element(&bytes, 4), Some(&[9][..]));
        for id in [0, 2, 5, 15] {
            assert_eq!(element(&bytes, id), None, "{id}");
        }
    }

    #[test]
    fn elements_of_the_two_byte_form() {
        let body = [1, 0, 0, 17, 3, b'a', b'b', b'c', 4, 1, 7, 0];
        for profile in [[0x10, 0], [0x10, 0x0f]] {
            let bytes = packet(profile, &body);
            assert_eq!(element(&bytes, 1), Some(&[][..]));
            assert_eq!(element(&bytes, 17), Some(&b"abc"[..]));
            assert_eq!(element(&bytes, 4), Some(&[7][..]));
        }
        assert_eq!(element(&packet([0x11, 0], &body), 17), None);
    }

    #[test]
    fn a_value_that_is_cut_off_is_none() {
        let bytes = packet([0xbe, 0xde], &[0x4f, 1, 2, 3]);
        assert_eq!(element(&bytes, 4), None);
        let whole = packet([0xbe, 0xde], &[0x42, 1, 2, 3]);
        for end in 0..24 {
            assert_eq!(element(&whole[..end], 4), None, "{end}");
        }
        assert_eq!(element(&whole[..24], 4), Some(&[1, 2, 3][..]));
    }

    proptest! {
        #[test]
        fn what_a_template_writes_is_found(mid in "[a-z0-9]{1,16}", id in 1u8..14) {
            let template = HeaderTemplate::new(96, 1)?
                .with_abs_send_time(14)?
                .with_mid(id, &mid)?;
            let mut bytes = [0; 64];
            let len = template.write(1, 2, false, 3, &mut bytes);
            prop_assert_eq!(element(&bytes[..len], id), Some(mid.as_bytes()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, id: u8) {
            let _ = element(&bytes, id);
        }

        #[test]
        fn any_extension_gives_a_part_of_it(
            one_byte: bool, body in prop::collection::vec(any::<[u8; 4]>(), 0..20), id: u8,
        ) {
            let body = body.concat();
            let profile = if one_byte { [0xbe, 0xde] } else { [0x10, 3] };
            let bytes = packet(profile, &body);
            if let Some(value) = element(&bytes, id) {
                let longest = if one_byte { 16 } else { 255 };
                prop_assert!(value.len() <= longest);
                let at = value.as_ptr() as usize - bytes.as_ptr() as usize;
                prop_assert!(at >= 20 && at + value.len() <= 20 + body.len());
            }
        }
    }
}
