//! Counters that wrap on the wire, made into ones that do not (RFC 3711 section 3.3.1).
//!
//! Every value is taken for the one nearest to the highest seen so far. The first value lies in
//! the second round, so that an earlier value that arrives late still has a number.

/// Extends 16-bit sequence numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SequenceUnwrapper(Highest<16>);

impl SequenceUnwrapper {
    /// The extended sequence number; its low 16 bits are `sequence`.
    pub fn unwrap(&mut self, sequence: u16) -> u64 {
        self.0.unwrap(u64::from(sequence))
    }
}

/// Extends 32-bit RTP timestamps.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimestampUnwrapper(Highest<32>);

impl TimestampUnwrapper {
    /// The extended timestamp; its low 32 bits are `timestamp`.
    pub fn unwrap(&mut self, timestamp: u32) -> u64 {
        self.0.unwrap(u64::from(timestamp))
    }
}

/// The highest extended value so far of a counter of `BITS` bits.
#[derive(Clone, Copy, Debug, Default)]
struct Highest<const BITS: u32>(Option<u64>);

impl<const BITS: u32> Highest<BITS> {
    const ROUND: u64 = 1 << BITS;

    fn unwrap(&mut self, value: u64) -> u64 {
        let Some(highest) = self.0 else {
            return *self.0.insert(Self::ROUND + value);
        };
        let ahead = value.wrapping_sub(highest) & (Self::ROUND - 1);
        if ahead < Self::ROUND / 2 {
            *self.0.insert(highest + ahead)
        } else {
            highest + ahead - Self::ROUND
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{SequenceUnwrapper, TimestampUnwrapper};

    #[test]
    fn sequence_numbers_go_on_over_the_wrap() {
        let mut unwrapper = SequenceUnwrapper::default();
        let extended: Vec<u64> = [65_534, 65_535, 1, 0, 2]
            .map(|sequence| unwrapper.unwrap(sequence))
            .to_vec();
        assert_eq!(extended, [131_070, 131_071, 131_073, 131_072, 131_074]);
    }

    #[test]
    fn a_value_before_the_first_has_a_number() {
        let mut unwrapper = SequenceUnwrapper::default();
        assert_eq!(unwrapper.unwrap(0), 65_536);
        assert_eq!(unwrapper.unwrap(65_535), 65_535);
        assert_eq!(unwrapper.unwrap(1), 65_537);
    }

    #[test]
    fn an_old_value_does_not_move_the_reference() {
        let mut unwrapper = SequenceUnwrapper::default();
        unwrapper.unwrap(40_000);
        assert_eq!(unwrapper.unwrap(10_000), 65_536 + 10_000);
        assert_eq!(unwrapper.unwrap(40_001), 65_536 + 40_001);
    }

    #[test]
    fn timestamps_go_on_over_the_wrap() {
        let mut unwrapper = TimestampUnwrapper::default();
        assert_eq!(unwrapper.unwrap(u32::MAX - 2_999), (2 << 32) - 3_000);
        assert_eq!(unwrapper.unwrap(0), 2 << 32);
        assert_eq!(unwrapper.unwrap(u32::MAX), (2 << 32) - 1);
    }

    proptest! {
        #[test]
        fn steps_below_half_a_round_are_followed_exactly(
            first: u16, steps in prop::collection::vec(-300i64..30_000, 0..50),
        ) {
            let mut unwrapper = SequenceUnwrapper::default();
            let mut expected = i64::from(first) + 65_536;
            prop_assert_eq!(unwrapper.unwrap(first), expected as u64);
            let mut highest = expected;
            for step in steps {
                expected = highest + step;
                highest = highest.max(expected);
                prop_assert_eq!(unwrapper.unwrap(expected as u16), expected as u64);
            }
        }

        #[test]
        fn any_values_keep_their_low_bits(values: Vec<u32>) {
            let mut unwrapper = TimestampUnwrapper::default();
            for value in values {
                prop_assert_eq!(unwrapper.unwrap(value) as u32, value);
            }
        }
    }
}
