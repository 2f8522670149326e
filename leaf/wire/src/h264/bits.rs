//! Bits of a NAL unit: fixed lengths and Exp-Golomb codes (ITU-T H.264 sections 7.2 and 9.1),
//! without the bytes that keep start codes out (section 7.4.1).

/// Reads bits from the most significant on; `None` at the end of the bytes.
#[derive(Clone, Debug)]
pub(super) struct Bits<'a> {
    rest: &'a [u8],
    current: u8,
    /// Bits of `current` still unread.
    left: u32,
    /// Zero bytes just before `rest`.
    zeros: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            current: 0,
            left: 0,
            zeros: 0,
        }
    }

    fn next_byte(&mut self) -> Option<u8> {
        if self.zeros >= 2
            && let [3, rest @ ..] = self.rest
        {
            self.rest = rest;
            self.zeros = 0;
        }
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        self.zeros = if byte == 0 { self.zeros + 1 } else { 0 };
        Some(byte)
    }

    /// One bit.
    pub(super) fn flag(&mut self) -> Option<bool> {
        if self.left == 0 {
            self.current = self.next_byte()?;
            self.left = 8;
        }
        self.left -= 1;
        Some((self.current >> self.left) & 1 == 1)
    }

    /// An unsigned number of `count` bits, at most 32.
    pub(super) fn unsigned(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0, |value, _| Some((value << 1) | u32::from(self.flag()?)))
    }

    /// `ue(v)`: an unsigned Exp-Golomb code, up to 2^32 - 2 as the standard bounds it.
    pub(super) fn unsigned_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.unsigned(zeros)?)
    }

    /// `se(v)`: a signed Exp-Golomb code.
    pub(super) fn signed_golomb(&mut self) -> Option<i32> {
        let code = self.unsigned_golomb()?;
        let magnitude = code.div_ceil(2) as i32;
        Some(if code % 2 == 1 { magnitude } else { -magnitude })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Bits;

    #[test]
    fn codes_of_table_9_2() {
        // 1 010 011 00100 00101 00110 00111, the codes of 0 to 6.
        let bytes = [0b1010_0110, 0b0100_0010, 0b1001_1000, 0b1110_0000];
        let mut bits = Bits::new(&bytes);
        let unsigned: Vec<u32> = (0..7).filter_map(|_| bits.unsigned_golomb()).collect();
        assert_eq!(unsigned, [0, 1, 2, 3, 4, 5, 6]);
        let mut bits = Bits::new(&bytes);
        let signed: Vec<i32> = (0..7).filter_map(|_| bits.signed_golomb()).collect();
        assert_eq!(signed, [0, 1, -1, 2, -2, 3, -3]);
    }

    #[test]
    fn emulation_prevention_is_left_out() {
        let mut bits = Bits::new(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 3]);
        let bytes: Vec<u32> = std::iter::from_fn(|| bits.unsigned(8)).collect();
        assert_eq!(bytes, [0, 0, 1, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn the_longest_code_is_read_and_a_longer_one_refused() {
        let longest = [0, 0, 3, 0, 1, 0xff, 0xff, 0xff, 0xfe];
        assert_eq!(Bits::new(&longest).unsigned_golomb(), Some(u32::MAX - 1));
        assert_eq!(Bits::new(&longest).signed_golomb(), Some(-i32::MAX));
        assert_eq!(Bits::new(&[0; 5]).unsigned_golomb(), None);
        assert_eq!(Bits::new(&[0, 0, 3, 0, 0, 0x80]).unsigned_golomb(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes: Vec<u8>) {
            let mut bits = Bits::new(&bytes);
            let count = std::iter::from_fn(|| bits.signed_golomb()).count();
            prop_assert!(count <= 8 * bytes.len());
        }
    }
}
