//! Sequence parameter sets (ITU-T H.264 section 7.3.2.1.1), as far as the size of the picture.

use thiserror::Error;

use super::bits::Bits;

/// Profiles whose sets tell chroma format, bit depth and scaling lists.
const HIGH_PROFILES: [u8; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];
/// Width and height of a macroblock.
const MACROBLOCK: u32 = 16;
/// Level 6.2 has at most 139264 macroblocks in a picture, and a side at most sqrt(8 * that).
const MAX_SIDE_IN_MACROBLOCKS: u32 = 1056;

/// Why bytes are no sequence parameter set that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a sequence parameter set of H.264")]
pub struct SpsError;

/// What a sequence parameter set says of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sps {
    /// `profile_idc`: 66 baseline, 77 main, 100 high.
    pub profile: u8,
    /// The byte of constraint flags; 0xc0 or 0xe0 makes baseline constrained baseline.
    pub constraints: u8,
    /// `level_idc`, ten times the level.
    pub level: u8,
    /// Width of the picture in luma samples, after cropping.
    pub width: u32,
    /// Height of the picture in luma samples, after cropping.
    pub height: u32,
}

impl Sps {
    /// Reads a NAL unit, header included, as [`super::sps_of`] gives it.
    ///
    /// # Errors
    ///
    /// [`SpsError`] if the unit is of another type, ends early, or its sizes are impossible.
    pub fn parse(unit: &[u8]) -> Result<Self, SpsError> {
        match unit {
            [header, profile, constraints, level, body @ ..] if header & 0x1f == 7 => {
                let (width, height) = picture_size(*profile, &mut Bits::new(body))
                    .filter(|&(width, height)| width > 0 && height > 0)
                    .ok_or(SpsError)?;
                Ok(Self {
                    profile: *profile,
                    constraints: *constraints,
                    level: *level,
                    width,
                    height,
                })
            }
            _ => Err(SpsError),
        }
    }
}

/// Luma samples to one chroma sample, across and down; one by one without chroma.
#[derive(Clone, Copy)]
struct Subsampling {
    across: u32,
    down: u32,
}

/// Width and height, from the fields after `level_idc`.
fn picture_size(profile: u8, bits: &mut Bits) -> Option<(u32, u32)> {
    bits.unsigned_golomb()?; // seq_parameter_set_id
    let subsampling = if HIGH_PROFILES.contains(&profile) {
        chroma_format(bits)?
    } else {
        Subsampling { across: 2, down: 2 }
    };
    bits.unsigned_golomb()?; // log2_max_frame_num_minus4
    skip_picture_order_count(bits)?;
    bits.unsigned_golomb()?; // max_num_ref_frames
    bits.flag()?; // gaps_in_frame_num_value_allowed_flag
    let width = side(bits)?;
    let map_height = side(bits)?;
    // Map units are two macroblocks high where fields are possible.
    let fields = if bits.flag()? { 1 } else { 2 };
    if fields == 2 {
        bits.flag()?; // mb_adaptive_frame_field_flag
    }
    bits.flag()?; // direct_8x8_inference_flag
    let height = map_height * fields;
    if !bits.flag()? {
        return Some((width, height));
    }
    let crop = |bits: &mut Bits, unit: u32| {
        let (before, after) = (bits.unsigned_golomb()?, bits.unsigned_golomb()?);
        before.checked_add(after)?.checked_mul(unit)
    };
    let across = crop(bits, subsampling.across)?;
    let down = crop(bits, subsampling.down * fields)?;
    Some((width.checked_sub(across)?, height.checked_sub(down)?))
}

/// A side of the picture in luma samples, written in macroblocks less one.
fn side(bits: &mut Bits) -> Option<u32> {
    let macroblocks = bits.unsigned_golomb()?.checked_add(1)?;
    (macroblocks <= MAX_SIDE_IN_MACROBLOCKS).then_some(macroblocks * MACROBLOCK)
}

/// Reads `chroma_format_idc` and what comes with it in the high profiles.
fn chroma_format(bits: &mut Bits) -> Option<Subsampling> {
    let format = bits.unsigned_golomb()?;
    if format == 3 {
        bits.flag()?; // separate_colour_plane_flag
    }
    bits.unsigned_golomb()?; // bit_depth_luma_minus8
    bits.unsigned_golomb()?; // bit_depth_chroma_minus8
    bits.flag()?; // qpprime_y_zero_transform_bypass_flag
    if bits.flag()? {
        let lists = if format == 3 { 12 } else { 8 };
        for list in 0..lists {
            if bits.flag()? {
                skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
            }
        }
    }
    match format {
        0 | 3 => Some(Subsampling { across: 1, down: 1 }),
        1 => Some(Subsampling { across: 2, down: 2 }),
        2 => Some(Subsampling { across: 2, down: 1 }),
        _ => None,
    }
}

/// Section 7.3.2.1.1.1: a list ends early when a scale of zero follows.
fn skip_scaling_list(bits: &mut Bits, size: u32) -> Option<()> {
    let mut last: i32 = 8;
    for _ in 0..size {
        let next = last.wrapping_add(bits.signed_golomb()?).rem_euclid(256);
        if next == 0 {
            break;
        }
        last = next;
    }
    Some(())
}

fn skip_picture_order_count(bits: &mut Bits) -> Option<()> {
    match bits.unsigned_golomb()? {
        0 => {
            bits.unsigned_golomb()?; // log2_max_pic_order_cnt_lsb_minus4
        }
        1 => {
            bits.flag()?; // delta_pic_order_always_zero_flag
            bits.signed_golomb()?; // offset_for_non_ref_pic
            bits.signed_golomb()?; // offset_for_top_to_bottom_field
            for _ in 0..bits.unsigned_golomb()? {
                bits.signed_golomb()?; // offset_for_ref_frame; ends with the bytes at the latest
            }
        }
        _ => {}
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Sps, SpsError};

    /// From `sprop-parameter-sets` of the example in RFC 6184 section 8.2.1.
    const RFC_6184: [u8; 9] = [0x67, 0x42, 0x00, 0x0a, 0x96, 0x53, 0x05, 0x89, 0x88];
    /// Written by x264 for 1920x1080: high profile, cropped, with emulation prevention.
    const PROGRESSIVE: [u8; 29] = [
        0x67, 0x64, 0x00, 0x28, 0xac, 0xb2, 0x00, 0xf0, 0x04, 0x4f, 0xcb, 0x80, 0xb5, 0x01, 0x01,
        0x01, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x0c, 0xa3, 0xc6, 0x0c, 0x92,
    ];
    /// The same, interlaced.
    const INTERLACED: [u8; 30] = [
        0x67, 0x64, 0x00, 0x28, 0xac, 0xe4, 0x01, 0xe0, 0x11, 0x3f, 0x78, 0x0b, 0x50, 0x10, 0x10,
        0x14, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x03, 0x00, 0xca, 0x7c, 0x58, 0xb9, 0x20,
    ];

    /// Writes the bits of a set.
    #[derive(Default)]
    struct Writer(Vec<bool>);

    impl Writer {
        fn bits(&mut self, value: u64, count: u32) -> &mut Self {
            self.0
                .extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
            self
        }

        fn golomb(&mut self, value: u32) -> &mut Self {
            let code = u64::from(value) + 1;
            let len = u64::BITS - code.leading_zeros();
            self.bits(code, 2 * len - 1)
        }

        /// The unit of `profile`, with emulation prevention.
        fn unit(&self, profile: u8) -> Vec<u8> {
            let body = self.0.chunks(8).map(|bits| {
                let value = bits.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
                value << (8 - bits.len())
            });
            let mut unit = vec![0x67, profile, 0, 40];
            for byte in body {
                if byte <= 3 && unit.ends_with(&[0, 0]) {
                    unit.push(3);
                }
                unit.push(byte);
            }
            unit
        }
    }

    fn size(unit: &[u8]) -> Result<(u32, u32), SpsError> {
        Sps::parse(unit).map(|sps| (sps.width, sps.height))
    }

    #[test]
    fn the_example_of_rfc_6184() {
        assert_eq!(
            Sps::parse(&RFC_6184),
            Ok(Sps {
                profile: 66,
                constraints: 0,
                level: 10,
                width: 176,
                height: 144
            })
        );
    }

    #[test]
    fn cropped_pictures_of_high_profile() {
        for unit in [&PROGRESSIVE[..], &INTERLACED] {
            assert_eq!(
                Sps::parse(unit),
                Ok(Sps {
                    profile: 100,
                    constraints: 0,
                    level: 40,
                    width: 1920,
                    height: 1080
                })
            );
        }
    }

    #[test]
    fn what_ends_before_its_sizes_is_an_error() {
        for end in 0..RFC_6184.len() - 1 {
            assert_eq!(Sps::parse(&RFC_6184[..end]), Err(SpsError), "length {end}");
        }
        let mut slice = RFC_6184;
        slice[0] = 0x65;
        assert_eq!(Sps::parse(&slice), Err(SpsError));
    }

    #[test]
    fn impossible_sizes_are_errors() {
        let unit = |width, crop| {
            let mut writer = Writer::default();
            // Id, frame number bits, order count type 2, references, no gaps.
            writer.golomb(0).golomb(0).golomb(2).golomb(1).bits(0, 1);
            // Width, height, frames only, no direct inference, cropped on the left.
            writer.golomb(width).golomb(8).bits(0b101, 3).golomb(crop);
            writer.golomb(0).golomb(0).golomb(0).bits(1, 1);
            writer.unit(66)
        };
        assert_eq!(size(&unit(10, 4)), Ok((168, 144)));
        assert_eq!(size(&unit(10, 88)), Err(SpsError), "nothing is left");
        assert_eq!(size(&unit(10, 89)), Err(SpsError));
        assert_eq!(size(&unit(10, u32::MAX - 1)), Err(SpsError));
        assert_eq!(size(&unit(1056, 0)), Err(SpsError));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Sps::parse(&[&[0x67], bytes.as_slice()].concat());
        }

        #[test]
        fn a_damaged_set_is_read_or_refused(position in 0..PROGRESSIVE.len(), value: u8) {
            let mut unit = PROGRESSIVE;
            unit[position] = value;
            if let Ok(sps) = Sps::parse(&unit) {
                prop_assert!(sps.width <= 16_896 && sps.height <= 2 * 16_896);
            }
        }

        #[test]
        fn every_form_of_set_tells_its_size(
            width in 4u32..200, map_height in 4u32..120, interlaced: bool, chroma in 0u32..4,
            scaling: bool, order_count in 0u32..3, crops in prop::array::uniform4(0u32..5),
        ) {
            let mut writer = Writer::default();
            writer.golomb(0).golomb(chroma);
            if chroma == 3 {
                writer.bits(0, 1);
            }
            writer.golomb(0).golomb(0).bits(0, 1).bits(scaling.into(), 1);
            if scaling {
                // A list of 16 equal scales, one that ends at once (8 - 8 is 0: se(-8) is code
                // 16), and no more of the others.
                writer.bits(1, 1).bits(0xffff, 16).bits(1, 1).golomb(16);
                writer.bits(0, if chroma == 3 { 10 } else { 6 });
            }
            writer.golomb(4).golomb(order_count);
            match order_count {
                0 => { writer.golomb(2); }
                1 => { writer.bits(0, 1).golomb(3).golomb(4).golomb(2).golomb(9).golomb(10); }
                _ => {}
            }
            writer.golomb(3).bits(1, 1).golomb(width - 1).golomb(map_height - 1);
            writer.bits((!interlaced).into(), 1).bits(0, interlaced.into()).bits(1, 1).bits(1, 1);
            for crop in crops {
                writer.golomb(crop);
            }
            writer.bits(1, 1);
            let fields = 1 + u32::from(interlaced);
            let across = [1, 2, 2, 1][chroma as usize];
            let down = [1, 2, 1, 1][chroma as usize] * fields;
            prop_assert_eq!(
                size(&writer.unit(244)),
                Ok((
                    16 * width - across * (crops[0] + crops[1]),
                    16 * map_height * fields - down * (crops[2] + crops[3]),
                ))
            );
        }
    }
}
