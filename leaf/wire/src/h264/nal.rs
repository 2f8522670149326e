//! The NAL units in an RTP payload: whole, aggregated (STAP-A) or in fragments (FU-A). These are
//! the packets of packetization modes 0 and 1, all that WebRTC knows (RFC 7742 section 6.2).

use thiserror::Error;

pub(super) const IDR_SLICE: u8 = 5;
pub(super) const SEQUENCE_PARAMETER_SET: u8 = 7;
pub(super) const PICTURE_PARAMETER_SET: u8 = 8;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Why a payload is no H.264 that can be put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// The payload ends before what it announces.
    #[error("the payload is truncated")]
    Truncated,
    /// A packet type of the interleaved mode, or a reserved one.
    #[error("NAL unit type {0} is not of packetization mode 0 or 1")]
    UnknownType(u8),
    /// A fragment follows or is followed by something other than its neighbour.
    #[error("a fragment of a NAL unit is missing")]
    MissingFragment,
}

/// A part of an RTP payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// A NAL unit with its header; never empty.
    Unit(&'a [u8]),
    /// A piece of a NAL unit.
    Fragment {
        /// The header byte of the whole unit.
        header: u8,
        start: bool,
        end: bool,
        body: &'a [u8],
    },
}

impl Part<'_> {
    /// The type of the NAL unit that begins here, if one does.
    pub(super) fn begins(&self) -> Option<u8> {
        match self {
            Self::Unit(unit) => unit.first().map(|header| header & 0x1f),
            Self::Fragment { header, start, .. } => start.then_some(header & 0x1f),
        }
    }
}

/// The parts of one RTP payload; ends after the first error.
pub(super) fn parts(payload: &[u8]) -> Parts<'_> {
    match payload {
        [header, units @ ..] if header & 0x1f == STAP_A => Parts::Aggregated(units),
        _ => Parts::Single(Some(payload)),
    }
}

/// Iterator of [`parts`].
pub(super) enum Parts<'a> {
    Single(Option<&'a [u8]>),
    Aggregated(&'a [u8]),
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<Part<'a>, PayloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Single(payload) => payload.take().map(single),
            Self::Aggregated([]) => None,
            Self::Aggregated(units) => {
                let split = split_aggregated(units);
                *units = split.map_or(&[], |(_, rest)| rest);
                Some(split.map(|(unit, _)| Part::Unit(unit)))
            }
        }
    }
}

/// A payload of one NAL unit or of one fragment (RFC 6184 sections 5.6 and 5.8).
fn single(payload: &[u8]) -> Result<Part<'_>, PayloadError> {
    let header = payload.first().ok_or(PayloadError::Truncated)?;
    match header & 0x1f {
        1..=23 => Ok(Part::Unit(payload)),
        FU_A => match payload {
            [indicator, fragment, body @ ..] => Ok(Part::Fragment {
                header: (indicator & 0xe0) | (fragment & 0x1f),
                start: fragment & 0x80 != 0,
                end: fragment & 0x40 != 0,
                body,
            }),
            _ => Err(PayloadError::Truncated),
        },
        other => Err(PayloadError::UnknownType(other)),
    }
}

/// The first NAL unit of an aggregation and what follows it (RFC 6184 section 5.7.1).
fn split_aggregated(units: &[u8]) -> Result<(&[u8], &[u8]), PayloadError> {
    let ([high, low], rest) = units.split_first_chunk().ok_or(PayloadError::Truncated)?;
    match rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low]))) {
        Some((unit @ [_, ..], rest)) => Ok((unit, rest)),
        _ => Err(PayloadError::Truncated),
    }
}

fn begins_any_of(payload: &[u8], types: &[u8]) -> bool {
    parts(payload)
        .flatten()
        .filter_map(|part| part.begins())
        .any(|begun| types.contains(&begun))
}

/// Whether a key frame can begin with this RTP payload: a sequence parameter set or a slice of an
/// IDR picture begins in it.
///
/// A picture of several slices, or with its parameter sets in packets of their own, has several
/// such packets; they share one RTP timestamp.
#[must_use]
pub fn starts_key_frame(payload: &[u8]) -> bool {
    begins_any_of(payload, &[IDR_SLICE, SEQUENCE_PARAMETER_SET])
}

/// Whether a slice of an IDR picture begins in this RTP payload.
#[must_use]
pub fn is_idr_start(payload: &[u8]) -> bool {
    begins_any_of(payload, &[IDR_SLICE])
}

/// Whether this RTP payload has a sequence or picture parameter set.
#[must_use]
pub fn is_parameter_set(payload: &[u8]) -> bool {
    begins_any_of(payload, &[SEQUENCE_PARAMETER_SET, PICTURE_PARAMETER_SET])
}

/// The sequence parameter set in this RTP payload, with its NAL unit header, if it has a whole one.
#[must_use]
pub fn sps_of(payload: &[u8]) -> Option<&[u8]> {
    parts(payload).flatten().find_map(|part| match part {
        Part::Unit(unit) if part.begins() == Some(SEQUENCE_PARAMETER_SET) => Some(unit),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{PayloadError, is_idr_start, is_parameter_set, parts, sps_of, starts_key_frame};

    /// STAP-A of an SPS of three bytes, a PPS of two and an IDR slice of two.
    const AGGREGATED: [u8; 14] = [
        0x78, 0, 3, 0x67, 0x42, 0x00, 0, 2, 0x68, 0xce, 0, 2, 0x65, 0x88,
    ];

    #[test]
    fn what_begins_in_a_payload_is_told() {
        // Payload, then whether a key frame, an IDR slice and a parameter set begin.
        let cases: [(&[u8], [bool; 3]); 11] = [
            (&[0x65, 0x88], [true, true, false]),
            (&[0x25, 0x88], [true, true, false]),
            (&[0x67, 0x42], [true, false, true]),
            (&[0x68, 0xce], [false, false, true]),
            (&[0x41, 0x9a], [false, false, false]),
            (&[0x06, 0x05], [false, false, false]),
            (&AGGREGATED, [true, true, true]),
            (&[0x7c, 0x85, 0x88], [true, true, false]), // FU-A, start of an IDR slice
            (&[0x7c, 0x05, 0x88], [false, false, false]), // its middle
            (&[0x7c, 0x45, 0x88], [false, false, false]), // its end
            (&[0x7c, 0x81, 0x88], [false, false, false]), // start of another slice
        ];
        for (payload, expected) in cases {
            let told = [
                starts_key_frame(payload),
                is_idr_start(payload),
                is_parameter_set(payload),
            ];
            assert_eq!(told, expected, "{payload:02x?}");
        }
    }

    #[test]
    fn an_aggregation_without_key_frame_is_none() {
        assert!(!starts_key_frame(&[
            0x78, 0, 2, 0x06, 0x05, 0, 2, 0x41, 0x9a
        ]));
    }

    #[test]
    fn the_sps_is_found() {
        assert_eq!(sps_of(&AGGREGATED), Some(&[0x67, 0x42, 0x00][..]));
        assert_eq!(sps_of(&[0x67, 0x42]), Some(&[0x67, 0x42][..]));
        assert_eq!(sps_of(&[0x7c, 0x87, 0x42]), None);
        assert_eq!(sps_of(&[0x65, 0x88]), None);
    }

    #[test]
    fn malformed_payloads_are_errors() {
        let cases: [(&[u8], PayloadError); 7] = [
            (&[], PayloadError::Truncated),
            (&[0x7c], PayloadError::Truncated),
            (&[0x78, 0], PayloadError::Truncated),
            (&[0x78, 0, 2, 0x67], PayloadError::Truncated),
            (&[0x78, 0, 0], PayloadError::Truncated),
            (&[0x79, 0, 0], PayloadError::UnknownType(25)),
            (&[0x60, 0, 0], PayloadError::UnknownType(0)),
        ];
        for (payload, expected) in cases {
            let all: Vec<_> = parts(payload).collect();
            assert_eq!(all, [Err(expected)], "{payload:02x?}");
            assert!(!starts_key_frame(payload));
        }
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_refused(payload: Vec<u8>) {
            for part in parts(&payload) {
                if let Ok(super::Part::Unit(unit)) = part {
                    prop_assert!(!unit.is_empty());
                }
            }
            let _ = sps_of(&payload);
        }

        #[test]
        fn a_damaged_aggregation_is_read_or_refused(
            position in 0..AGGREGATED.len(), value: u8, end in 0..=AGGREGATED.len(),
        ) {
            let mut payload = AGGREGATED;
            payload[position] = value;
            prop_assert!(parts(&payload[..end]).count() <= 5);
        }
    }
}
