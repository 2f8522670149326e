//! The packets of a source that did not come, and when to ask for them again.

use crate::Micros;

/// A packet is asked for so often at most.
pub const MAX_ASKED: u8 = 5;
/// A packet that is missing for so long is given up: nobody waits for its picture any more.
pub const MAX_AGE: Micros = 500_000;
/// So many packets at most are waited for: half a second of 10 Mbit/s.
pub const MAX_MISSING: usize = 512;
/// So many packets are asked for at once: with a report and all else they fit a datagram.
pub const MAX_ASK: usize = 128;
/// Where packets are not asked for, so long one may be on a longer way.
const PATIENCE: Micros = 100_000;
/// How long an answer takes as long as nothing is known of the path.
const WAIT: Micros = 50_000;
/// Neither is a path that is shorter asked more often, nor one that is longer too late.
const LEAST_WAIT: Micros = 20_000;
const MOST_WAIT: Micros = 200_000;

/// One packet that is missing.
#[derive(Debug, Clone, Copy)]
struct Lost {
    number: u64,
    /// When it was noticed.
    since: Micros,
    first_asked: Option<Micros>,
    asked: u8,
    due: Micros,
}

/// What a packet that was missing tells when it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Whether it was asked for.
    pub asked: bool,
    /// Time since it was asked for, and whether once only: then it is a round trip.
    pub answer: Option<(Micros, bool)>,
}

/// Packets that are missing, in the order of their numbers. Room is made when the first one is.
#[derive(Debug, Default)]
pub struct Missing {
    lost: Vec<Lost>,
    due: Option<Micros>,
}

impl Missing {
    /// When [`Missing::ask`] has something to say.
    pub fn due(&self) -> Option<Micros> {
        self.due
    }

    /// Forget all.
    pub fn clear(&mut self) {
        self.lost.clear();
        self.due = None;
    }

    /// Packets of the numbers `from` to below `to`, behind all so far, did not come. `asks` says
    /// whether they are to be asked for. Result: how many were given up for want of room.
    pub fn add(&mut self, from: u64, to: u64, asks: bool, now: Micros) -> u64 {
        if self.lost.capacity() == 0 {
            self.lost.reserve_exact(MAX_MISSING);
        }
        let due = if asks { now } else { now + PATIENCE };
        let mut given_up = 0;
        let newest = from.max(to.saturating_sub(MAX_MISSING as u64));
        given_up += newest - from;
        let room = MAX_MISSING - self.lost.len();
        let excess = ((to - newest) as usize).saturating_sub(room);
        self.lost.drain(..excess);
        given_up += excess as u64;
        self.lost.extend((newest..to).map(|number| Lost {
            number,
            since: now,
            first_asked: None,
            asked: 0,
            due,
        }));
        self.due = self.next_due();
        given_up
    }

    /// A packet came after all; None if it was not waited for.
    pub fn remove(&mut self, number: u64, now: Micros) -> Option<Found> {
        let at = self
            .lost
            .binary_search_by_key(&number, |lost| lost.number)
            .ok()?;
        let lost = self.lost.remove(at);
        self.due = self.next_due();
        Some(Found {
            asked: lost.asked > 0,
            answer: lost
                .first_asked
                .map(|at| (now.saturating_sub(at), lost.asked == 1)),
        })
    }

    /// Put the packets that are to be asked for now into `ask`, up to [`MAX_ASK`] there, and give up
    /// those that are too old. `round_trip` is that of the path, if it is known. Result: how
    /// many were given up.
    pub fn ask(
        &mut self,
        now: Micros,
        asks: bool,
        round_trip: Option<Micros>,
        ask: &mut Vec<u16>,
    ) -> u64 {
        if self.due.is_none_or(|due| due > now) {
            return 0;
        }
        let wait = round_trip.map_or(WAIT, |time| time.clamp(LEAST_WAIT, MOST_WAIT));
        let before = self.lost.len();
        self.lost.retain_mut(|lost| {
            if lost.due > now {
                return true;
            }
            let end = lost.since + MAX_AGE;
            if !asks || lost.asked == MAX_ASKED || now >= end {
                return false;
            }
            if ask.len() >= MAX_ASK {
                return true;
            }
            ask.push(lost.number as u16);
            lost.first_asked.get_or_insert(now);
            lost.asked += 1;
            lost.due = end.min(now + wait);
            true
        });
        self.due = self.next_due();
        (before - self.lost.len()) as u64
    }

    fn next_due(&self) -> Option<Micros> {
        self.lost.iter().map(|lost| lost.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(missing: &mut Missing, now: Micros, round_trip: Option<Micros>) -> (Vec<u16>, u64) {
        let mut ask = Vec::new();
        let given_up = missing.ask(now, true, round_trip, &mut ask);
        (ask, given_up)
    }

    #[test]
    fn a_packet_is_asked_for_at_once_and_then_by_the_round_trip() {
        for (round_trip, wait) in [
            (None, 50_000),
            (Some(1), 20_000),
            (Some(80_000), 80_000),
            (Some(900_000), 200_000),
        ] {
            let mut missing = Missing::default();
            assert_eq!(missing.add(7, 9, true, 1_000), 0);
            assert_eq!(missing.due(), Some(1_000));
            assert_eq!(asked(&mut missing, 1_000, round_trip), (vec![7, 8], 0));
            assert_eq!(missing.due(), Some(1_000 + wait));
            assert_eq!(asked(&mut missing, 999 + wait, round_trip), (vec![], 0));
            assert_eq!(
                asked(&mut missing, 1_000 + wait, round_trip),
                (vec![7, 8], 0)
            );
        }
    }

    #[test]
    fn it_is_given_up_after_five_times_or_half_a_second() {
        for (round_trip, times) in [(None, 5), (Some(200_000), 3)] {
            let mut missing = Missing::default();
            missing.add(70_000, 70_001, true, 0);
            let (mut count, mut now) = (0, 0);
            while let Some(due) = missing.due() {
                now = due;
                let (ask, given_up) = asked(&mut missing, now, round_trip);
                assert!(ask.iter().all(|number| *number == 4464));
                assert_eq!(given_up == 0, missing.due().is_some());
                count += ask.len();
            }
            assert_eq!(count, times);
            assert!(now <= MAX_AGE);
        }
    }

    #[test]
    fn what_comes_is_not_asked_for_again_and_tells_the_round_trip() {
        let mut missing = Missing::default();
        missing.add(5, 8, true, 0);
        asked(&mut missing, 10, None);
        let found = missing.remove(6, 30_010);
        assert_eq!(
            found,
            Some(Found {
                asked: true,
                answer: Some((30_000, true))
            })
        );
        assert_eq!(missing.remove(6, 30_011), None);
        assert_eq!(asked(&mut missing, 60_000, None), (vec![5, 7], 0));
        let found = missing.remove(7, 70_010).unwrap();
        assert_eq!(found.answer, Some((70_000, false)));
        missing.add(9, 10, true, 80_000);
        let found = missing.remove(9, 80_001).unwrap();
        assert!(!found.asked && found.answer.is_none(), "only late");
    }

    #[test]
    fn where_packets_are_not_asked_for_they_are_waited_for_a_little() {
        let mut missing = Missing::default();
        missing.add(5, 6, false, 0);
        let mut ask = Vec::new();
        assert_eq!(missing.due(), Some(PATIENCE));
        assert_eq!(missing.ask(PATIENCE, false, None, &mut ask), 1);
        assert!(ask.is_empty() && missing.due().is_none());
    }

    #[test]
    fn there_is_room_for_so_many_and_the_newest_stay() {
        let mut missing = Missing::default();
        assert_eq!(missing.add(0, 10_000, true, 0), 10_000 - 512);
        assert_eq!(missing.add(10_100, 10_110, true, 0), 10);
        assert_eq!(missing.lost.len(), MAX_MISSING);
        assert_eq!(missing.lost[0].number, 10_000 - 512 + 10);
        assert_eq!(missing.lost[511].number, 10_109);
        let mut ask = vec![1, 2];
        missing.ask(10, true, None, &mut ask);
        assert_eq!(ask.len(), MAX_ASK);
        assert_eq!(missing.due(), Some(0), "the others at once");
    }
}
