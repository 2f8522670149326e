//! NTP timestamps as RTCP uses them (RFC 3550 sections 4 and 6.4.1): 32 bits of seconds since
//! 1900 and 32 bits of fraction.

/// Seconds from the epoch of NTP, 1900, to that of Unix, 1970.
const UNIX_EPOCH: u64 = 2_208_988_800;
const MICROS: u64 = 1_000_000;

/// The NTP timestamp of a time in microseconds since 1970.
///
/// The seconds wrap in 2036, as they do on the wire.
#[must_use]
pub fn from_unix_micros(micros: u64) -> u64 {
    let seconds = micros / MICROS + UNIX_EPOCH;
    let fraction = ((micros % MICROS) << 32) / MICROS;
    (seconds << 32) | fraction
}

/// The middle 32 bits: 16 of seconds and 16 of fraction, as a receiver returns them in `LSR`.
#[must_use]
pub fn middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// The header extension `abs-send-time` of a time: 6 bits of seconds and 18 of fraction.
#[must_use]
pub fn abs_send_time(ntp: u64) -> u32 {
    (ntp >> 14) as u32 & 0x00ff_ffff
}

/// The round-trip time in microseconds that a report block tells, if it can.
///
/// `arrival` is the [`middle`] of the time the report came in, `last_sr` and `delay` are the
/// block's `LSR` and `DLSR`, all in units of 1/65536 s. `None` if the receiver has had no sender
/// report yet. A result below zero, as coarse clocks give on short paths, counts as zero.
#[must_use]
pub fn round_trip(arrival: u32, last_sr: u32, delay: u32) -> Option<u64> {
    if last_sr == 0 {
        return None;
    }
    let units = arrival.wrapping_sub(last_sr).wrapping_sub(delay) as i32;
    Some((units.max(0) as u64 * MICROS) >> 16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{abs_send_time, from_unix_micros, middle, round_trip};

    #[test]
    fn unix_time_becomes_ntp_time() {
        assert_eq!(from_unix_micros(0), 2_208_988_800 << 32);
        assert_eq!(from_unix_micros(500_000) as u32, 1 << 31);
        // 2036-02-07T06:28:16Z, the first second of the next era.
        assert_eq!(from_unix_micros(2_085_978_496_250_000), 1 << 30);
    }

    #[test]
    fn parts_of_a_timestamp() {
        let ntp = 0xb44d_b705_2000_0000;
        assert_eq!(middle(ntp), 0xb705_2000);
        // Seconds 0x05 in 6 bits, then 18 bits of the fraction 0x20000000.
        assert_eq!(abs_send_time(ntp), (0x05 << 18) | (1 << 15));
    }

    #[test]
    fn the_example_of_rfc_3550() {
        // Figure 2 of section 6.4.1: A - LSR - DLSR = 0xb710:8000 - 0xb705:2000 - 0x0005:4000.
        assert_eq!(
            round_trip(0xb710_8000, 0xb705_2000, 0x0005_4000),
            Some(6_125_000)
        );
    }

    #[test]
    fn no_sender_report_yet_tells_nothing() {
        assert_eq!(round_trip(0xb710_8000, 0, 0), None);
    }

    #[test]
    fn below_zero_counts_as_zero() {
        assert_eq!(round_trip(1000, 990, 11), Some(0));
    }

    proptest! {
        #[test]
        fn round_trips_survive_the_wrap(last_sr in 1u32.., delay in 0u32..1 << 30, units in 0u32..1 << 30) {
            let arrival = last_sr.wrapping_add(delay).wrapping_add(units);
            prop_assert_eq!(
                round_trip(arrival, last_sr, delay),
                Some((u64::from(units) * 1_000_000) >> 16)
            );
        }

        #[test]
        fn any_report_tells_at_most_half_the_range(arrival: u32, last_sr: u32, delay: u32) {
            prop_assert!(round_trip(arrival, last_sr, delay).unwrap_or(0) < 32_768 * 1_000_000);
        }
    }
}
