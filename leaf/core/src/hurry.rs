//! When a viewer is to show pictures as they come, and not when their time is.
//!
//! A receiver holds pictures back so that they come evenly and together with their sound. Of a
//! channel that it has just chosen a viewer wants to see the first picture at once; so those of a
//! catch-up, and a few after it, say that they are not to be held back. Then the receiver is told
//! for a while that it may do as it likes again: what it was told last holds until it hears
//! something else, and packets get lost.

use leaf_wire::header::Playout;
use serde::{Deserialize, Serialize};

use crate::Micros;

/// After the head is reached: as long as a receiver may need to decode the pictures of a burst.
const LONGER: Micros = 100_000;
/// So long the end of the hurry is told.
const RELEASE: Micros = 1_000_000;

/// The hurry of one viewer's picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hurry {
    /// When pictures were last on their way to the head.
    since: Option<Micros>,
}

impl Hurry {
    /// Another picture was chosen.
    pub fn begin(&mut self, now: Micros) {
        self.since = Some(now);
    }

    /// The head is not reached yet.
    pub fn go_on(&mut self, now: Micros) {
        if self.is_on(now) {
            self.since = Some(now);
        }
    }

    /// End it: the clock is another machine's now.
    pub fn end(&mut self, now: Micros) {
        self.since = self.since.map(|_| now.saturating_sub(LONGER));
    }

    /// What a picture that is sent now has to say to the receiver.
    pub fn playout(&self, now: Micros) -> Option<Playout> {
        let passed = now.saturating_sub(self.since?);
        match passed {
            _ if passed < LONGER => Some(Playout::AtOnce),
            _ if passed < LONGER + RELEASE => Some(Playout::Free),
            _ => None,
        }
    }

    fn is_on(&self, now: Micros) -> bool {
        self.playout(now) == Some(Playout::AtOnce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;

    #[test]
    fn who_has_chosen_nothing_is_not_in_a_hurry() {
        let mut hurry = Hurry::default();
        hurry.go_on(SECOND);
        hurry.end(SECOND);
        assert_eq!(hurry.playout(SECOND), None);
    }

    #[test]
    fn it_lasts_beyond_the_head_and_its_end_is_told() {
        let mut hurry = Hurry::default();
        hurry.begin(SECOND);
        for at in (SECOND..2 * SECOND).step_by(10_000) {
            hurry.go_on(at);
            assert_eq!(hurry.playout(at), Some(Playout::AtOnce));
        }
        let head = 2 * SECOND - 10_000;
        assert_eq!(hurry.playout(head + LONGER - 1), Some(Playout::AtOnce));
        assert_eq!(hurry.playout(head + LONGER), Some(Playout::Free));
        assert_eq!(hurry.playout(head + LONGER + RELEASE), None);
    }

    #[test]
    fn a_later_catch_up_that_nobody_chose_is_none() {
        let mut hurry = Hurry::default();
        hurry.begin(SECOND);
        hurry.go_on(60 * SECOND);
        assert_eq!(hurry.playout(60 * SECOND), None);
    }

    #[test]
    fn it_ends_with_a_move_to_another_machine() {
        let mut hurry = Hurry::default();
        hurry.begin(90 * SECOND);
        hurry.end(3 * SECOND);
        assert_eq!(hurry.playout(3 * SECOND), Some(Playout::Free));
        assert_eq!(hurry.playout(3 * SECOND + RELEASE), None);
    }
}
