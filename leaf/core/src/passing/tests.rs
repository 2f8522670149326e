use proptest::prelude::*;

use super::*;

const MS: Micros = 1_000;
const IDR: &[u8] = &[0x65, 0x88, 0x80];
const SLICE: &[u8] = &[0x41, 0x9a, 0x00];

/// A set with the size in macroblocks, of this profile: the shortest that there is.
fn sps(profile: u8, constraints: u8, width: u32, height: u32) -> Vec<u8> {
    let mut bits = String::new();
    let mut ue = |value: u32| {
        let value = value + 1;
        let length = 32 - value.leading_zeros() as usize;
        bits += &format!("{}{value:b}", "0".repeat(length - 1));
    };
    // seq_parameter_set_id, log2_max_frame_num, pic_order_cnt_type 2, max_num_ref_frames
    [0, 0, 2, 1].into_iter().for_each(&mut ue);
    bits += "0";
    let mut ue = |value: u32| {
        let value = value + 1;
        let length = 32 - value.leading_zeros() as usize;
        bits += &format!("{}{value:b}", "0".repeat(length - 1));
    };
    ue(width - 1);
    ue(height - 1);
    // frame_mbs_only, direct_8x8, no cropping, no VUI, stop bit
    bits += "11001";
    bits += &"0".repeat((8 - bits.len() % 8) % 8);
    let mut set = vec![0x67, profile, constraints, 30];
    let bytes = bits.as_bytes().chunks(8);
    set.extend(bytes.map(|it| u8::from_str_radix(str::from_utf8(it).unwrap(), 2).unwrap()));
    set
}

/// Parameter sets and an IDR slice in one packet (STAP-A).
fn key(set: &[u8]) -> Vec<u8> {
    let mut payload = vec![0x78];
    for unit in [set, IDR] {
        payload.extend((unit.len() as u16).to_be_bytes());
        payload.extend(unit);
    }
    payload
}

fn packet(track: usize, ssrc: u32, sequence: u16, timestamp: u32, payload: &[u8]) -> Passed<'_> {
    Passed {
        track,
        payload_type: 102,
        marker: true,
        sequence,
        timestamp,
        ssrc,
        late: false,
        payload,
    }
}

const HIGH: Stream = Stream {
    ssrc: 1000,
    payload_type: 96,
    kbps: 1000,
};
const LOW: Stream = Stream {
    ssrc: 2000,
    payload_type: 96,
    kbps: 300,
};
const SOUND: Stream = Stream {
    ssrc: 3000,
    payload_type: 111,
    kbps: 64,
};

/// Two layers of tracks 0 (the small one) and 1, and the sound of track 2, 25 frames a second each.
struct Stage {
    passing: Passing,
    now: Micros,
    frame: u64,
    sends: [bool; 3],
    /// Frames by which timestamps were set back.
    behind: u64,
    /// The payload of a slice of each layer.
    slices: [usize; 2],
    keys: [bool; 2],
    sets: [Vec<u8>; 2],
    out: Vec<(Micros, To, u8, u16, u32, u32, bool)>,
    asked: Vec<(Micros, usize)>,
}

impl Stage {
    fn new() -> Self {
        let zero = 0;
        Self {
            passing: Passing::new(&[HIGH, LOW], SOUND, &[0, 1], Some(2), zero),
            now: 1_000_000,
            frame: 0,
            sends: [true; 3],
            behind: 0,
            slices: [100, 400],
            keys: [true; 2],
            sets: [sps(66, 0xc0, 20, 12), sps(66, 0xc0, 40, 23)],
            out: vec![],
            asked: vec![],
        }
    }

    fn take(&mut self, passed: &Passed<'_>) {
        let (now, out) = (self.now, &mut self.out);
        self.passing.take(passed, now, |to, it| {
            let is_key = leaf_wire::h264::sps_of(it.payload).is_some();
            out.push((
                now,
                to,
                it.payload_type,
                it.sequence,
                it.timestamp,
                it.ssrc,
                is_key,
            ));
        });
    }

    /// One frame of each layer that sends, and two packets of sound; then what is asked for is granted.
    fn step(&mut self) {
        let frame = self.frame;
        for layer in [0, 1] {
            if !self.sends[layer] {
                continue;
            }
            let slice = [SLICE, &vec![0; self.slices[layer]]].concat();
            let payload = if std::mem::take(&mut self.keys[layer]) {
                key(&self.sets[layer])
            } else {
                slice
            };
            let stamp = ((frame - self.behind) * 3600) as u32 + 77 * layer as u32;
            let (ssrc, sequence) = (10 + layer as u32, 65_530 + frame);
            self.take(&packet(layer, ssrc, sequence as u16, stamp, &payload));
        }
        let parts = if self.sends[2] { 0..2 } else { 0..0 };
        for part in parts {
            let number = frame * 2 + part;
            let stamp = ((number - 2 * self.behind) * 960) as u32;
            self.take(&packet(2, 12, number as u16, stamp, b"opus"));
        }
        self.frame += 1;
        for _ in 0..4 {
            self.now += 10 * MS;
            self.passing.look(self.now);
            while let Some(track) = self.passing.take_wanted_key() {
                self.asked.push((self.now, track));
                self.keys[track] = true;
            }
        }
    }

    fn run(&mut self, seconds: f64) -> &mut Self {
        self.out.clear();
        self.asked.clear();
        (0..(seconds * 25.0) as u32).for_each(|_| self.step());
        self
    }

    fn shown(&self) -> Vec<Option<usize>> {
        self.passing.shown().collect()
    }

    /// What left to one place: (payload type, sequence number, timestamp, SSRC, key frame).
    fn left(&self, place: To) -> Vec<(u8, u16, u32, u32, bool)> {
        let left = self.out.iter().filter(|it| it.1 == place);
        left.map(|it| (it.2, it.3, it.4, it.5, it.6)).collect()
    }
}

#[test]
fn the_largest_picture_is_the_best_rendition_as_it_was_sent() {
    let mut stage = Stage::new();
    stage.run(2.0);
    assert_eq!(stage.shown(), [Some(1), Some(0)]);
    assert_eq!(stage.passing.size(1), Some((640, 368)));
    for (place, ssrc) in [(To::Rendition(0), 1000), (To::Rendition(1), 2000)] {
        let left = stage.left(place);
        let newest = left.last().unwrap().3;
        let run: Vec<_> = left.iter().filter(|it| it.3 == newest).collect();
        assert!(run.len() > 40, "{} frames", run.len());
        assert!(run[0].4, "it begins with a key frame");
        assert!(left.iter().any(|it| it.3 == ssrc));
        for pair in run.windows(2) {
            assert_eq!(pair[1].1.wrapping_sub(pair[0].1), 1);
            assert_eq!(pair[1].2.wrapping_sub(pair[0].2), 3600);
            assert_eq!(pair[1].0, 96);
        }
    }
    let sound = stage.left(To::Sound);
    assert!(
        sound
            .windows(2)
            .all(|it| it[1].2.wrapping_sub(it[0].2) == 960)
    );
    // RTP time is the encoder's, whose zero is that of the clock here.
    for (at, place, _, _, stamp, ..) in stage.out.iter().filter(|it| it.0 > 1_500_000) {
        let rate = if *place == To::Sound { 48 } else { 90 };
        let late = *at as i64 - i64::from(*stamp) * 1000 / rate;
        assert!((0..=20_000).contains(&late), "{place:?} {late}");
    }
}

#[test]
fn key_frames_are_at_most_four_seconds_apart() {
    let mut stage = Stage::new();
    stage.run(1.0);
    stage.run(20.0);
    for track in [0, 1] {
        let asked = stage.asked.iter().filter(|it| it.1 == track).count();
        assert!((4..=6).contains(&asked), "{asked}");
    }
    // No cut, though each was a chance of one.
    let left = stage.left(To::Rendition(0));
    assert!(left.iter().all(|it| it.3 == left[0].3));
}

#[test]
fn a_lost_layer_is_replaced_by_the_next_smaller_one_and_comes_back() {
    let mut stage = Stage::new();
    stage.run(2.0);
    stage.sends[1] = false;
    let gone = stage.now;
    stage.run(2.0);
    assert_eq!(stage.shown(), [Some(0), Some(0)]);
    let high: Vec<_> = stage
        .out
        .iter()
        .filter(|it| it.1 == To::Rendition(0))
        .collect();
    // The slate would be there 0.6 s after the last packet.
    assert!(high[0].0 - gone < 550_000, "after {} us", high[0].0 - gone);
    assert!(high[0].6, "it begins with a key frame");
    stage.sends[1] = true;
    stage.keys[1] = false;
    stage.run(1.0);
    assert_eq!(stage.shown(), [Some(1), Some(0)]);
    let first = stage.asked.iter().find(|it| it.1 == 1).unwrap().0;
    assert!(first - gone - 2_000_000 < 100_000);
    let low = stage.left(To::Rendition(1));
    assert!(low.iter().all(|it| it.3 == low[0].3), "the other runs on");
}

#[test]
fn the_smallest_layer_is_replaced_by_a_larger_one_if_it_must() {
    let mut stage = Stage::new();
    stage.slices[1] = 20;
    stage.run(2.0);
    stage.sends[0] = false;
    stage.run(2.0);
    assert_eq!(stage.shown(), [Some(1), Some(1)]);
    assert_eq!(stage.passing.unfit(), None, "as long as it is small enough");
}

#[test]
fn silence_ends_all_and_what_comes_then_begins_with_a_key_frame() {
    let mut stage = Stage::new();
    stage.run(2.0);
    let before = stage.left(To::Rendition(0)).last().unwrap().3;
    stage.sends = [false; 3];
    stage.run(1.0);
    assert_eq!(stage.shown(), [None, None]);
    assert_eq!(stage.passing.due(), None, "nothing to look at");
    stage.sends = [true; 3];
    stage.run(1.0);
    let left = stage.left(To::Rendition(0));
    assert!(
        left[0].4 && left[0].3 != before,
        "a key frame of another SSRC"
    );
    assert_eq!(stage.shown(), [Some(1), Some(0)]);
}

#[test]
fn late_packets_pass_but_not_those_of_before_the_cut() {
    let mut stage = Stage::new();
    let set = key(&sps(66, 0xc0, 40, 23));
    stage.take(&packet(1, 11, 5, 100, SLICE));
    assert!(stage.out.is_empty());
    stage.take(&packet(1, 11, 6, 200, &set));
    stage.take(&packet(1, 11, 9, 300, SLICE));
    let late = |sequence| Passed {
        late: true,
        ..packet(1, 11, sequence, 300, SLICE)
    };
    stage.take(&late(8));
    stage.take(&late(4));
    let numbers: Vec<_> = stage.left(To::Rendition(0)).iter().map(|it| it.1).collect();
    assert_eq!(numbers, [6, 9, 8]);
    // A key frame whose beginning was late cannot be begun with: what followed is gone.
    let mut stage = Stage::new();
    stage.take(&Passed {
        late: true,
        ..packet(1, 11, 6, 200, &set)
    });
    assert!(stage.out.is_empty());
    assert_eq!(stage.passing.size(1), Some((640, 368)));
}

#[test]
fn another_source_of_a_layer_is_waited_for_until_its_key_frame() {
    let mut stage = Stage::new();
    stage.run(1.0);
    stage.out.clear();
    stage.take(&packet(1, 99, 7, 5, SLICE));
    assert!(stage.left(To::Rendition(0)).is_empty());
    assert_eq!(stage.shown(), [None, Some(0)]);
    stage.take(&packet(1, 99, 8, 3605, &key(&sps(66, 0xc0, 40, 23))));
    assert_eq!(stage.shown(), [Some(1), Some(0)]);
}

/// What is different, and what that is said to be.
type Case = (fn(&mut Stage), Unfit);

#[test]
fn what_does_not_fit_goes_to_a_decoder_as_one_stream() {
    let too_much = |stage: &mut Stage| stage.slices[1] = 9_000;
    let profile = |stage: &mut Stage| stage.sets[1] = sps(77, 0x40, 40, 23);
    let baseline = |stage: &mut Stage| stage.sets[1] = sps(66, 0, 40, 23);
    let cases: [Case; 3] = [
        (too_much, Unfit::TooMuch { kbps: 0 }),
        (profile, Unfit::Profile),
        (baseline, Unfit::Profile),
    ];
    for (change, expected) in cases {
        let mut stage = Stage::new();
        change(&mut stage);
        stage.run(8.0);
        let unfit = stage.passing.unfit().unwrap();
        match (unfit, expected) {
            (Unfit::TooMuch { kbps }, Unfit::TooMuch { .. }) => {
                assert!((1700..1900).contains(&kbps), "{kbps}");
            }
            _ => assert_eq!(unfit, expected),
        }
        stage.run(1.0);
        let picture = stage.left(To::Track(0));
        let sound = stage.left(To::Track(2));
        assert_eq!((picture.len(), sound.len()), (25, 50), "{unfit}");
        assert!(stage.left(To::Rendition(0)).is_empty() && stage.left(To::Sound).is_empty());
        stage.sends[1] = false;
        stage.run(2.0);
        let less = stage.left(To::Track(0));
        assert!(less.len() > 30, "the smaller layer follows");
        let all: Vec<_> = picture.iter().chain(&less).collect();
        assert!(all.iter().all(|it| (it.0, it.3) == (102, all[0].3)));
        assert!(all.windows(2).all(|it| it[1].1.wrapping_sub(it[0].1) == 1));
    }
}

#[test]
fn a_source_that_sets_its_time_back_is_followed() {
    let mut stage = Stage::new();
    stage.run(6.0);
    stage.behind = 4 * 25;
    stage.run(6.0);
    for place in [To::Rendition(0), To::Rendition(1), To::Sound] {
        let (at, _, _, _, stamp, ..) = *stage.out.iter().rfind(|it| it.1 == place).unwrap();
        let rate = if place == To::Sound { 48 } else { 90 };
        let late = at as i64 - i64::from(stamp) * 1000 / rate;
        assert!(late.abs() <= 20_000, "{place:?} {late}");
    }
}

#[test]
fn key_frames_without_parameter_sets_do_not_fit() {
    let mut stage = Stage::new();
    stage.run(1.0);
    for number in 0..3_u16 {
        assert_eq!(stage.passing.unfit(), None);
        let stamp = 500_000 + u32::from(number);
        stage.take(&packet(1, 11, 30_000 + number, stamp, IDR));
    }
    assert_eq!(stage.passing.unfit(), Some(Unfit::NoParameterSets));
}

#[test]
fn reports_keep_picture_and_sound_together() {
    // The picture's packets come 200 ms after its frames were taken, the sound's at once.
    let mut stage = Stage::new();
    stage.run(1.0);
    let report = |ssrc, seconds: u64, rtp_timestamp| SenderReport {
        ssrc,
        ntp: (5_000 + seconds) << 32,
        rtp_timestamp,
        packets: 0,
        octets: 0,
    };
    let reports = [
        (2, report(12, 0, 0)),
        (1, report(11, 0, 77 + 18_000)),
        (0, report(10, 9_999, 0)),
    ];
    for (track, report) in reports {
        assert_eq!(
            stage.passing.take_report(&PassedReport { track, report }),
            None
        );
    }
    stage.run(5.0);
    let of = |place| stage.left(place).last().copied().unwrap();
    let (picture, low) = (of(To::Rendition(0)), of(To::Rendition(1)));
    let apart = i64::from(low.2) - i64::from(picture.2);
    // What claims hours is not believed.
    // Of the sound each second packet comes 20 ms early, and that tells its time.
    assert!((apart - 19_800).abs() < 90, "{apart} ticks");
    let restarts = stage.left(To::Rendition(0));
    let mut ssrcs: Vec<_> = restarts.iter().map(|it| it.3).collect();
    ssrcs.dedup();
    assert_eq!(ssrcs.len(), 2, "once, at a key frame");
}

proptest! {
    #[test]
    fn any_packets_leave_in_their_place_or_not_at_all(
        steps in prop::collection::vec(
            (0..5_usize, any::<u32>(), any::<u16>(), any::<u32>(), any::<bool>(),
             prop_oneof![
                 Just(key(&sps(66, 0xc0, 40, 23))), Just(key(&sps(66, 0xc0, 20, 12))),
                 Just(IDR.to_vec()), prop::collection::vec(any::<u8>(), 0..40),
             ], 0..400_u64), 0..200),
    ) {
        let mut stage = Stage::new();
        for (track, ssrc, sequence, stamp, late, payload, wait) in &steps {
            stage.now += wait * MS;
            let passed = packet(*track, ssrc % 3, *sequence, *stamp, payload);
            stage.take(&Passed { late: *late, ..passed });
            stage.passing.look(stage.now);
            while stage.passing.take_wanted_key().is_some() {}
        }
        for (_, to, ..) in &stage.out {
            let fits = match to {
                To::Rendition(number) => *number < 2,
                To::Sound => true,
                To::Track(track) => [0, 2].contains(track),
            };
            prop_assert!(fits);
        }
    }
}
