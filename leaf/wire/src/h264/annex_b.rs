//! Pictures in the byte stream format of H.264's Annex B, as decoders take them.

use super::nal::{
    IDR_SLICE, PICTURE_PARAMETER_SET, Part, PayloadError, SEQUENCE_PARAMETER_SET, parts,
};

const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// Appends one access unit to `out`, each NAL unit behind a start code, from the RTP payloads of
/// all its packets in order.
///
/// Parameter sets behind a slice are left out. Payloaders repeat them before every slice of an IDR
/// picture, and there decoders take them for the start of another picture (ITU-T H.264 section
/// 7.4.1.2.3).
///
/// # Errors
///
/// [`PayloadError`] if a payload is malformed or a fragment is missing; `out` is then as it was.
pub fn annex_b<'a>(
    payloads: impl IntoIterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> Result<(), PayloadError> {
    let before = out.len();
    let result = append(payloads, out);
    if result.is_err() {
        out.truncate(before);
    }
    result
}

fn append<'a>(
    payloads: impl IntoIterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> Result<(), PayloadError> {
    // Header of the NAL unit whose fragments are being put together.
    let mut open: Option<u8> = None;
    let mut has_slice = false;
    for part in payloads.into_iter().flat_map(parts) {
        let part = part?;
        let begins = part.begins();
        has_slice |= matches!(begins, Some(1..=IDR_SLICE));
        match (part, open) {
            (Part::Unit(_), None)
                if has_slice
                    && matches!(begins, Some(SEQUENCE_PARAMETER_SET | PICTURE_PARAMETER_SET)) => {}
            (Part::Unit(unit), None) => {
                out.extend_from_slice(&START_CODE);
                out.extend_from_slice(unit);
            }
            (
                Part::Fragment {
                    header,
                    start,
                    end,
                    body,
                },
                _,
            ) if open == (!start).then_some(header) => {
                if start {
                    out.extend_from_slice(&START_CODE);
                    out.push(header);
                }
                out.extend_from_slice(body);
                open = (!end).then_some(header);
            }
            _ => return Err(PayloadError::MissingFragment),
        }
    }
    match open {
        None => Ok(()),
        Some(_) => Err(PayloadError::MissingFragment),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{PayloadError, annex_b};

    const START: [u8; 3] = [0x7c, 0x85, 1];
    const MIDDLE: [u8; 3] = [0x7c, 0x05, 2];
    const END: [u8; 3] = [0x7c, 0x45, 3];

    #[test]
    fn units_aggregations_and_fragments_make_one_picture() {
        let aggregated = [0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce];
        let payloads: [&[u8]; 5] = [&[0x06, 0x05], &aggregated, &START, &MIDDLE, &END];
        let mut out = vec![9];
        annex_b(payloads, &mut out).unwrap();
        assert_eq!(
            out,
            [
                9, 0, 0, 0, 1, 0x06, 0x05, 0, 0, 0, 1, 0x67, 0x42, 0, 0, 0, 1, 0x68, 0xce, 0, 0, 0,
                1, 0x65, 1, 2, 3
            ]
        );
    }

    #[test]
    fn parameter_sets_repeated_within_a_picture_are_left_out() {
        let (sps, pps, slice) = ([0x67, 0x42], [0x68, 0xce], [0x65, 0x88]);
        let aggregated = [0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce];
        let payloads: [&[u8]; 7] = [&sps, &pps, &slice, &aggregated, &slice, &sps, &slice];
        let mut out = Vec::new();
        annex_b(payloads, &mut out).unwrap();
        let expected = [sps, pps, slice, slice, slice].map(|unit| [0, 0, 0, 1, unit[0], unit[1]]);
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn a_missing_fragment_leaves_nothing() {
        let other = [0x7c, 0x41, 3];
        let cases: [&[&[u8]]; 6] = [
            &[&START, &MIDDLE],
            &[&MIDDLE, &END],
            &[&START, &[0x65, 0x88], &END],
            &[&START, &START, &END],
            &[&START, &other],
            &[&[0x65, 0x88], &START],
        ];
        for payloads in cases {
            let mut out = vec![9];
            let result = annex_b(payloads.iter().copied(), &mut out);
            assert_eq!(
                result,
                Err(PayloadError::MissingFragment),
                "{payloads:02x?}"
            );
            assert_eq!(out, [9]);
        }
    }

    proptest! {
        #[test]
        fn any_payloads_are_put_together_or_refused(payloads: Vec<Vec<u8>>) {
            let mut out = Vec::new();
            if annex_b(payloads.iter().map(Vec::as_slice), &mut out).is_err() {
                prop_assert!(out.is_empty());
            }
        }

        #[test]
        fn a_unit_in_fragments_is_whole_again(
            header in 0u8..128, body in prop::collection::vec(any::<u8>(), 2..200), size in 1usize..100,
        ) {
            let pieces: Vec<&[u8]> = body.chunks(size).collect();
            let last = pieces.len() - 1;
            let payloads = pieces.iter().enumerate().map(|(index, piece)| {
                let flags = u8::from(index == 0) << 7 | u8::from(index == last) << 6;
                [&[header & 0xe0 | 28, flags | header & 0x1f], *piece].concat()
            });
            let payloads: Vec<Vec<u8>> = payloads.collect();
            let mut out = Vec::new();
            annex_b(payloads.iter().map(Vec::as_slice), &mut out)?;
            prop_assert_eq!(out, [&[0, 0, 0, 1, header], body.as_slice()].concat());
        }
    }
}
