//! The replay list (RFC 3711, section 3.3.2), and the guess of a packet's index (section 3.3.1).

/// How far behind the newest packet one may come and be taken. A publisher without a stream for
/// retransmissions sends packets of half a second before again; RFC 3711 asks for 64 at least.
const WINDOW: u64 = 1024;

/// Which packets of an SSRC were taken: the highest index, and a bit for each of the last ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReplayWindow {
    /// One more than the highest index taken; 0 when there is none.
    next: u64,
    /// Bit `index % WINDOW`: that index, of the last ones, was taken.
    taken: [u64; (WINDOW / 64) as usize],
}

impl ReplayWindow {
    /// Whether a packet with this index may be taken.
    pub(super) fn is_new(&self, index: u64) -> bool {
        let Some(age) = self.age(index) else {
            return true;
        };
        let (word, bit) = place(index);
        age < WINDOW && self.taken[word] & bit == 0
    }

    /// Takes an index that is new; to be called after the packet's tag was found right.
    pub(super) fn take(&mut self, index: u64) {
        match self.age(index) {
            Some(age) if age >= WINDOW => return,
            Some(_) => {}
            None => {
                // What stood there for older ones.
                for skipped in (self.next..index).rev().take(WINDOW as usize) {
                    let (word, bit) = place(skipped);
                    self.taken[word] &= !bit;
                }
                self.next = index + 1;
            }
        }
        let (word, bit) = place(index);
        self.taken[word] |= bit;
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

/// Where the bit of an index is.
fn place(index: u64) -> (usize, u64) {
    let at = index % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
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
        fn takes_each_once(steps in prop::collection::vec(-1_200i64..1_200, 1..300)) {
            let (mut window, mut taken, mut highest) = (ReplayWindow::default(), HashSet::new(), 0);
            for step in steps {
                let index = highest.max(1_500_i64).saturating_add(step) as u64;
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
