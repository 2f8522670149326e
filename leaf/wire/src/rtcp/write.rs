//! Writing RTCP: every function appends one whole packet to a buffer, so that calls in a row make
//! a compound packet. (The builders of `rtcp-types` allocate for each packet.)

use super::remb::write_fci;
use super::{ReportBlock, SenderReport};

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;

const FORMAT_NACK: u8 = 1;
const FORMAT_PLI: u8 = 1;
const FORMAT_FIR: u8 = 4;
const FORMAT_APPLICATION: u8 = 15;

const SDES_CNAME: u8 = 1;
/// The most report blocks in one packet, whose count has five bits.
pub const MAX_REPORT_BLOCKS: usize = 31;

/// Appends a packet of type `packet_type` with `count` (or format) around what `body` appends,
/// padded with zeros to a whole word.
fn packet(packet_type: u8, count: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[(2 << 6) | count, packet_type, 0, 0]);
    body(out);
    let len = (out.len() - start).next_multiple_of(4);
    out.resize(start + len, 0);
    let words = (len / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

fn put(out: &mut Vec<u8>, words: &[u32]) {
    for word in words {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// Appends a sender report without blocks and the source description with the canonical name
/// that must go with it (RFC 3550 sections 6.4.1 and 6.5.1).
pub fn sender_report(report: &SenderReport, cname: &str, out: &mut Vec<u8>) {
    packet(SENDER_REPORT, 0, out, |out| {
        put(out, &[report.ssrc]);
        out.extend_from_slice(&report.ntp.to_be_bytes());
        put(out, &[report.rtp_timestamp, report.packets, report.octets]);
    });
    sdes(report.ssrc, cname, out);
}

/// Appends a source description with the canonical name, cut at 255 bytes (RFC 3550 section 6.5).
pub fn sdes(ssrc: u32, cname: &str, out: &mut Vec<u8>) {
    let cname = &cname.as_bytes()[..cname.len().min(255)];
    packet(SOURCE_DESCRIPTION, 1, out, |out| {
        put(out, &[ssrc]);
        out.extend_from_slice(&[SDES_CNAME, cname.len() as u8]);
        out.extend_from_slice(cname);
        // At least one zero ends the items.
        out.push(0);
    });
}

/// Appends a receiver report of the first [`MAX_REPORT_BLOCKS`] of `blocks` (RFC 3550 section
/// 6.4.2).
///
/// Losses beyond the 24 bits they have are written as the nearest number that has.
pub fn receiver_report(ssrc: u32, blocks: &[ReportBlock], out: &mut Vec<u8>) {
    let blocks = &blocks[..blocks.len().min(MAX_REPORT_BLOCKS)];
    packet(RECEIVER_REPORT, blocks.len() as u8, out, |out| {
        put(out, &[ssrc]);
        for block in blocks {
            let lost = block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
            let losses = (u32::from(block.fraction_lost) << 24) | lost;
            put(
                out,
                &[
                    block.ssrc,
                    losses,
                    block.highest_sequence,
                    block.jitter,
                    block.last_sr,
                    block.delay_since_last_sr,
                ],
            );
        }
    });
}

/// Appends the leave of a source (RFC 3550 section 6.6).
pub fn bye(ssrc: u32, out: &mut Vec<u8>) {
    packet(BYE, 1, out, |out| put(out, &[ssrc]));
}

/// Appends a generic NACK of the packets `lost` (RFC 4585 section 6.2.1).
///
/// Sequence numbers that follow each other upwards by up to 16 share a word; any order is right,
/// ascending order is shortest.
pub fn nack(sender: u32, media: u32, lost: &[u16], out: &mut Vec<u8>) {
    packet(TRANSPORT_FEEDBACK, FORMAT_NACK, out, |out| {
        put(out, &[sender, media]);
        let mut rest = lost;
        while let [first, others @ ..] = rest {
            let mut following: u16 = 0;
            rest = others;
            while let [next, others @ ..] = rest {
                let distance = next.wrapping_sub(*first);
                if distance > 16 {
                    break;
                }
                // Distance 0 is the first packet said again.
                if let Some(bit) = distance.checked_sub(1) {
                    following |= 1 << bit;
                }
                rest = others;
            }
            put(out, &[(u32::from(*first) << 16) | u32::from(following)]);
        }
    });
}

/// Appends a picture loss indication (RFC 4585 section 6.3.1).
pub fn pli(sender: u32, media: u32, out: &mut Vec<u8>) {
    packet(PAYLOAD_FEEDBACK, FORMAT_PLI, out, |out| {
        put(out, &[sender, media]);
    });
}

/// Appends a full intra request for the stream `target`; `sequence` goes up by one with every new
/// request (RFC 5104 section 4.3.1).
pub fn fir(sender: u32, target: u32, sequence: u8, out: &mut Vec<u8>) {
    packet(PAYLOAD_FEEDBACK, FORMAT_FIR, out, |out| {
        put(out, &[sender, 0, target, u32::from(sequence) << 24]);
    });
}

/// Appends a receiver's estimate of its path for the first 255 of `ssrcs`
/// (draft-alvestrand-rmcat-remb-03 section 2.2). The bit rate is rounded down to 18 bits.
pub fn remb(sender: u32, bits_per_second: u64, ssrcs: &[u32], out: &mut Vec<u8>) {
    let ssrcs = &ssrcs[..ssrcs.len().min(255)];
    packet(PAYLOAD_FEEDBACK, FORMAT_APPLICATION, out, |out| {
        put(out, &[sender, 0]);
        write_fci(bits_per_second, ssrcs, out);
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtcp_types::Compound;

    use super::{MAX_REPORT_BLOCKS, bye, fir, nack, pli, receiver_report, remb, sender_report};
    use crate::rtcp::{Feedback, ReportBlock, SenderReport, parse};

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    fn lost_in(bytes: &[u8]) -> Vec<u16> {
        let mut all = Vec::new();
        parse(bytes, |feedback| {
            if let Feedback::Nack { lost, .. } = feedback {
                all.extend(lost.iter());
            }
        })
        .unwrap();
        all
    }

    #[test]
    fn packets_stand_as_in_the_rfcs() {
        let report = SenderReport {
            ssrc: 0x0102_0304,
            ntp: 0x1112_1314_1516_1718,
            rtp_timestamp: 0x2122_2324,
            packets: 5,
            octets: 6,
        };
        assert_eq!(
            written(|out| sender_report(&report, "a@b", out)),
            [
                0x80, 200, 0, 6, 1, 2, 3, 4, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x21,
                0x22, 0x23, 0x24, 0, 0, 0, 5, 0, 0, 0, 6, // report
                0x81, 202, 0, 3, 1, 2, 3, 4, 1, 3, b'a', b'@', b'b', 0, 0, 0, // description
            ]
        );
        assert_eq!(written(|out| bye(9, out)), [0x81, 203, 0, 1, 0, 0, 0, 9]);
        assert_eq!(
            written(|out| pli(1, 2, out)),
            [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]
        );
        assert_eq!(
            written(|out| fir(1, 2, 3, out)),
            [
                0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 3, 0, 0, 0
            ]
        );
        assert_eq!(
            written(|out| remb(1, 1 << 20, &[2], out)),
            [
                0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 0x0e, 0, 0, 0,
                0, 0, 2
            ]
        );
    }

    #[test]
    fn lost_packets_share_words() {
        let bytes = written(|out| nack(1, 2, &[65_530, 65_531, 10, 11, 27], out));
        // 65530 with bits 0 and 15 (65531 and 10), then 11 with bit 15 (27).
        assert_eq!(
            bytes[12..],
            [0xff, 0xfa, 0x80, 0x01, 0x00, 0x0b, 0x80, 0x00]
        );
        assert_eq!(lost_in(&bytes), [65_530, 65_531, 10, 11, 27]);
    }

    #[test]
    fn losses_beyond_24_bits_are_the_nearest() {
        for (lost, expected) in [(i32::MAX, 0x7f_ffff), (i32::MIN, -0x80_0000), (-1, -1)] {
            let block = ReportBlock {
                ssrc: 1,
                fraction_lost: 255,
                cumulative_lost: lost,
                highest_sequence: 0,
                jitter: 0,
                last_sr: 0,
                delay_since_last_sr: 0,
            };
            let bytes = written(|out| receiver_report(9, &[block; 40], out));
            let mut blocks = Vec::new();
            parse(&bytes, |feedback| {
                if let Feedback::ReportBlock { block, .. } = feedback {
                    blocks.push(block);
                }
            })
            .unwrap();
            let expected = ReportBlock {
                cumulative_lost: expected,
                ..block
            };
            assert_eq!(blocks, [expected; MAX_REPORT_BLOCKS]);
        }
    }

    proptest! {
        #[test]
        fn descriptions_are_well_formed(cname in ".{0,300}") {
            let bytes = written(|out| super::sdes(7, &cname, out));
            prop_assert_eq!(bytes.len() % 4, 0);
            prop_assert_eq!(bytes[9] as usize, cname.len().min(255));
            prop_assert_eq!(bytes.last(), Some(&0));
            parse(&bytes, |_| ())?;
        }

        #[test]
        fn every_packet_lost_is_asked_for_once(mut lost: Vec<u16>) {
            let bytes = written(|out| nack(1, 2, &lost, out));
            let mut asked = lost_in(&bytes);
            asked.sort_unstable();
            asked.dedup();
            lost.sort_unstable();
            lost.dedup();
            prop_assert_eq!(asked, lost);
        }

        #[test]
        fn another_parser_takes_what_is_written(ssrc: u32, lost: Vec<u16>, rate: u64) {
            let bytes = written(|out| {
                receiver_report(ssrc, &[], out);
                super::sdes(ssrc, "leaf", out);
                nack(ssrc, 2, &lost, out);
                remb(ssrc, rate, &[1, 2, 3], out);
                bye(ssrc, out);
            });
            let packets: Result<Vec<_>, _> = Compound::parse(&bytes)?.collect();
            prop_assert_eq!(packets?.len(), 5);
        }
    }
}
