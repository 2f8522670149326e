//! The replay list (RFC 3711, section 3.3.2), and the guess of a packet's index (section 3.3.1).

/// How far behind the newest packet one may come and be taken. A key frame sent faster than real time
/// and its retransmissions stay within it; RFC 3711 asks for 64 at least.
const WINDOW: u64 = 128;

/// Which packets of an SSRC were taken: the highest index, and a bit for each of those before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReplayWindow {
    /// One more than the highest index taken; 0 when there is none.
    next: u64,
    /// Bit n: `next - 1 - n` was taken.
    taken: u128,
}

impl ReplayWindow {
    /// Whether a packet with this index may be taken.
    pub(super) fn is_new(&self, index: u64) -> bool {
        let Some(age) = self.age(index) else {
            return true;
        };
        age < WINDOW && self.taken & (1 << age) == 0
    }

    /// Takes an index that is new; to be called after the packet's tag was found right.
    pub(super) fn take(&mut self, index: u64) {
        match self.age(index) {
            Some(age) if age < WINDOW => self.taken |= 1 << age,
            Some(_) => {}
            None => {
                let steps = u32::try_from(index + 1 - self.next).unwrap_or(u32::MAX);
                self.taken = self.taken.checked_shl(steps).unwrap_or(0) | 1;
                self.next = index + 1;
            }
        }
    }

    /// The index that a sequence number stands for: the nearest to the highest one taken. The first
    /// packet of an SSRC has the rollover counter 0 (RFC 3711, section 3.3.1).
    pub(super) fn guess(&self, sequence: u16) -> u64 {
        let Some(highest) = self.next.checked_sub(1) else {
            return sequence.into();
        };
        let distance = sequence.wrapping_sub(highest as u16).cast_signed();
        match highest.checked_add_signed(distance.into()) {
            Some(index) => index,
            None => sequence.into(),
        }
    }

    /// How far an index is behind the highest one taken; nothing if it is ahead.
    fn age(&self, index: u64) -> Option<u64> {
        self.next.checked_sub(1)?.checked_sub(index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn guesses_across_the_rollover() {
        let mut window = ReplayWindow::default();
        assert_eq!(window.guess(65_535), 65_535);
        window.take(65_530);
        assert_eq!(window.guess(3), (1 << 16) + 3);
        window.take((1 << 16) + 3);
        assert_eq!(window.guess(65_531), 65_531);
        assert_eq!(window.guess(4), (1 << 16) + 4);
    }

    #[test]
    fn never_guesses_before_the_beginning() {
        let mut window = ReplayWindow::default();
        window.take(2);
        assert_eq!(window.guess(65_000), 65_000);
    }

    proptest! {
        /// Against a set of all that was taken.
        #[test]
        fn takes_each_once(steps in prop::collection::vec(-200i64..200, 1..300)) {
            let (mut window, mut taken, mut highest) = (ReplayWindow::default(), HashSet::new(), 0);
            for step in steps {
                let index = highest.max(300_i64).saturating_add(step) as u64;
                let old = (highest as u64).saturating_sub(index) >= WINDOW && !taken.is_empty();
                prop_assert_eq!(window.is_new(index), !old && !taken.contains(&index));
                if window.is_new(index) {
                    window.take(index);
                    taken.insert(index);
                    highest = highest.max(index as i64);
                }
            }
        }

        #[test]
        fn guesses_what_is_near(highest in 40_000u64..1 << 47, step in -32_000i64..32_000) {
            let mut window = ReplayWindow::default();
            window.take(highest);
            let index = highest.checked_add_signed(step).unwrap();
            prop_assert_eq!(window.guess(index as u16), index);
        }
    }
}
