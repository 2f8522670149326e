//! Reading RTCP. Packets are told apart here, so that those of no interest cost nothing; what is
//! inside them is read by `rtcp-types`.

use rtcp_types::prelude::*;
use rtcp_types::{
    Bye, Fir, Nack, PayloadFeedback, Pli, ReceiverReport, RtcpParseError, TransportFeedback,
};
use thiserror::Error;

use super::remb::{Remb, Ssrcs};
use super::{ReportBlock, SenderReport};

/// Format of transport-wide congestion control feedback
/// (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1).
const TRANSPORT_CC: u8 = 15;
/// Header and the SSRCs of sender and media (RFC 4585 section 6.1).
const FEEDBACK_HEADER_LEN: usize = 12;

/// Why bytes are no RTCP.
#[derive(Debug, Error)]
#[error("not an RTCP packet: {0}")]
pub struct RtcpError(#[from] RtcpParseError);

/// One thing said in a compound packet.
#[derive(Debug)]
pub enum Feedback<'a> {
    /// A sender's report on its own stream.
    SenderReport(SenderReport),
    /// A receiver's report on a stream.
    ReportBlock {
        /// Who reports.
        reporter: u32,
        /// What it reports.
        block: ReportBlock,
    },
    /// Packets are missing.
    Nack {
        /// The stream they are missing from.
        media_ssrc: u32,
        /// Their sequence numbers.
        lost: LostPackets<'a>,
    },
    /// A picture cannot be decoded.
    Pli {
        /// The stream it belongs to.
        media_ssrc: u32,
    },
    /// A key frame is asked for.
    Fir {
        /// The stream that is to have one.
        ssrc: u32,
        /// Number of the request; a repeated number is the same request.
        sequence: u8,
    },
    /// The receiver's estimate of what its path can carry.
    Remb {
        /// Bits per second for all the streams together.
        bits_per_second: u64,
        /// The streams.
        ssrcs: Ssrcs<'a>,
    },
    /// Transport-wide congestion control feedback, which is only recognised.
    TransportCc,
    /// A source leaves.
    Bye {
        /// The source.
        ssrc: u32,
    },
}

/// The sequence numbers of a generic NACK (RFC 4585 section 6.2.1).
#[derive(Debug)]
pub struct LostPackets<'a>(Nack<'a>);

impl LostPackets<'_> {
    /// The sequence numbers in the packet's order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.entries()
    }
}

/// Reads a compound packet, or a single one of reduced size (RFC 5506), without allocation.
///
/// `each` is called for everything said, in order; packets of unknown type or format are skipped.
///
/// # Errors
///
/// [`RtcpError`] at the first malformed packet; what stands before it has been given to `each`.
pub fn parse<'a>(compound: &'a [u8], mut each: impl FnMut(Feedback<'a>)) -> Result<(), RtcpError> {
    let mut rest = compound;
    loop {
        let (packet, after) = split_first(rest)?;
        parse_packet(packet, &mut each)?;
        if after.is_empty() {
            return Ok(());
        }
        rest = after;
    }
}

/// The first packet of a compound, by the length in its header, and what follows it.
fn split_first(bytes: &[u8]) -> Result<(&[u8], &[u8]), RtcpParseError> {
    let truncated = |expected| RtcpParseError::Truncated {
        expected,
        actual: bytes.len(),
    };
    let &[_, _, high, low, ..] = bytes else {
        return Err(truncated(4));
    };
    let len = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
    bytes.split_at_checked(len).ok_or_else(|| truncated(len))
}

/// Reads one packet of at least four bytes.
fn parse_packet<'a>(
    packet: &'a [u8],
    each: &mut impl FnMut(Feedback<'a>),
) -> Result<(), RtcpParseError> {
    match packet[1] {
        rtcp_types::SenderReport::PACKET_TYPE => {
            let report = rtcp_types::SenderReport::parse(packet)?;
            each(Feedback::SenderReport(SenderReport {
                ssrc: report.ssrc(),
                ntp: report.ntp_timestamp(),
                rtp_timestamp: report.rtp_timestamp(),
                packets: report.packet_count(),
                octets: report.octet_count(),
            }));
            give_blocks(report.ssrc(), report.report_blocks(), each);
        }
        ReceiverReport::PACKET_TYPE => {
            let report = ReceiverReport::parse(packet)?;
            give_blocks(report.ssrc(), report.report_blocks(), each);
        }
        Bye::PACKET_TYPE => {
            for ssrc in Bye::parse(packet)?.ssrcs() {
                each(Feedback::Bye { ssrc });
            }
        }
        TransportFeedback::PACKET_TYPE => {
            give_transport_feedback(packet, each)?;
        }
        PayloadFeedback::PACKET_TYPE => {
            give_payload_feedback(packet, each)?;
        }
        _ => {}
    }
    Ok(())
}

fn give_blocks<'a, 'b>(
    reporter: u32,
    blocks: impl Iterator<Item = rtcp_types::ReportBlock<'b>>,
    each: &mut impl FnMut(Feedback<'a>),
) {
    for block in blocks {
        each(Feedback::ReportBlock {
            reporter,
            block: ReportBlock {
                ssrc: block.ssrc(),
                fraction_lost: block.fraction_lost(),
                // Sign extension from 24 bits.
                cumulative_lost: (block.cumulative_lost() << 8) as i32 >> 8,
                highest_sequence: block.extended_sequence_number(),
                jitter: block.interarrival_jitter(),
                last_sr: block.last_sender_report_timestamp(),
                delay_since_last_sr: block.delay_since_last_sender_report_timestamp(),
            },
        });
    }
}

fn give_transport_feedback<'a>(
    packet: &'a [u8],
    each: &mut impl FnMut(Feedback<'a>),
) -> Result<(), RtcpParseError> {
    let feedback = TransportFeedback::parse(packet)?;
    match feedback.count() {
        Nack::FCI_FORMAT => each(Feedback::Nack {
            media_ssrc: feedback.media_ssrc(),
            lost: LostPackets(Nack::parse(feedback_body(packet, feedback.padding())?)?),
        }),
        TRANSPORT_CC => each(Feedback::TransportCc),
        _ => {}
    }
    Ok(())
}

fn give_payload_feedback<'a>(
    packet: &'a [u8],
    each: &mut impl FnMut(Feedback<'a>),
) -> Result<(), RtcpParseError> {
    let feedback = PayloadFeedback::parse(packet)?;
    let body = feedback_body(packet, feedback.padding())?;
    match feedback.count() {
        Pli::FCI_FORMAT => each(Feedback::Pli {
            media_ssrc: feedback.media_ssrc(),
        }),
        Fir::FCI_FORMAT => {
            for entry in Fir::parse(body)?.entries() {
                each(Feedback::Fir {
                    ssrc: entry.ssrc(),
                    sequence: entry.sequence(),
                });
            }
        }
        Remb::FCI_FORMAT => match Remb::parse(body) {
            Ok(remb) => each(Feedback::Remb {
                bits_per_second: remb.bits_per_second,
                ssrcs: remb.ssrcs,
            }),
            Err(RtcpParseError::WrongImplementation) => {}
            Err(error) => return Err(error),
        },
        _ => {}
    }
    Ok(())
}

/// What stands behind the two SSRCs of a feedback packet, without padding.
fn feedback_body(packet: &[u8], padding: Option<u8>) -> Result<&[u8], RtcpParseError> {
    packet
        .len()
        .checked_sub(usize::from(padding.unwrap_or(0)))
        .and_then(|end| packet.get(FEEDBACK_HEADER_LEN..end))
        .ok_or(RtcpParseError::InvalidPadding)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Feedback, parse};
    use crate::rtcp::{self, ReportBlock, SenderReport};

    /// All that [`parse`] gives, as text, and whether it took the bytes to their end.
    fn said(bytes: &[u8]) -> (Vec<String>, bool) {
        let mut all = Vec::new();
        let result = parse(bytes, |feedback| {
            all.push(match feedback {
                Feedback::Nack { media_ssrc, lost } => {
                    format!("nack {media_ssrc} {:?}", lost.iter().collect::<Vec<_>>())
                }
                Feedback::Remb {
                    bits_per_second,
                    ssrcs,
                } => format!(
                    "remb {bits_per_second} {:?}",
                    ssrcs.iter().collect::<Vec<_>>()
                ),
                other => format!("{other:?}"),
            });
        });
        (all, result.is_ok())
    }

    /// One packet of every kind that is read, in one compound.
    fn everything() -> Vec<u8> {
        let report = SenderReport {
            ssrc: 1,
            ntp: 0x0102_0304_0506_0708,
            rtp_timestamp: 90_000,
            packets: 3,
            octets: 4,
        };
        let block = ReportBlock {
            ssrc: 7,
            fraction_lost: 128,
            cumulative_lost: -2,
            highest_sequence: 65_537,
            jitter: 9,
            last_sr: 10,
            delay_since_last_sr: 11,
        };
        let mut bytes = Vec::new();
        rtcp::sender_report(&report, "leaf", &mut bytes);
        rtcp::receiver_report(2, &[block], &mut bytes);
        rtcp::nack(2, 7, &[5, 6, 40], &mut bytes);
        rtcp::pli(2, 7, &mut bytes);
        rtcp::fir(2, 7, 12, &mut bytes);
        rtcp::remb(2, 1_000_000, &[7, 8], &mut bytes);
        rtcp::bye(2, &mut bytes);
        bytes
    }

    #[test]
    fn everything_in_a_compound_is_said_in_order() {
        let (all, whole) = said(&everything());
        assert!(whole);
        assert_eq!(
            all,
            [
                "SenderReport(SenderReport { ssrc: 1, ntp: 72623859790382856, \
                 rtp_timestamp: 90000, packets: 3, octets: 4 })",
                "ReportBlock { reporter: 2, block: ReportBlock { ssrc: 7, fraction_lost: 128, \
                 cumulative_lost: -2, highest_sequence: 65537, jitter: 9, last_sr: 10, \
                 delay_since_last_sr: 11 } }",
                "nack 7 [5, 6, 40]",
                "Pli { media_ssrc: 7 }",
                "Fir { ssrc: 7, sequence: 12 }",
                "remb 1000000 [7, 8]",
                "Bye { ssrc: 2 }",
            ]
        );
    }

    #[test]
    fn a_lone_nack_of_reduced_size_is_read() {
        // RFC 4585 section 6.2.1: packet 65535 and, by bits 0 and 15, 0 and 15.
        let nack = [
            0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0x80, 0x01,
        ];
        let (all, whole) = said(&nack);
        assert_eq!((all, whole), (vec!["nack 2 [65535, 0, 15]".into()], true));
    }

    #[test]
    fn padding_is_no_lost_packet() {
        let mut nack = [
            0xa1, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 9, 0, 0, 0, 0, 0, 4,
        ];
        assert_eq!(said(&nack), (vec!["nack 2 [9]".into()], true));
        nack[19] = 9;
        assert_eq!(said(&nack), (vec![], false));
    }

    #[test]
    fn transport_cc_is_recognised() {
        let mut feedback = [0; 20];
        feedback[..4].copy_from_slice(&[0x8f, 205, 0, 4]);
        assert_eq!(said(&feedback), (vec!["TransportCc".into()], true));
    }

    #[test]
    fn the_unknown_is_skipped() {
        let mut bytes = vec![
            0x80, 204, 0, 2, 0, 0, 0, 1, b'n', b'a', b'm', b'e', // APP
            0x80, 207, 0, 1, 0, 0, 0, 1, // XR
            0x9f, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, // transport feedback, format 31
            0x8f, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, b'A', b'B', b'C', b'D', // not REMB
        ];
        rtcp::pli(2, 7, &mut bytes);
        assert_eq!(said(&bytes), (vec!["Pli { media_ssrc: 7 }".into()], true));
    }

    #[test]
    fn every_cut_within_a_packet_is_an_error() {
        let bytes = everything();
        let mut boundaries = vec![];
        let mut at = 0;
        while at < bytes.len() {
            at += 4 * (usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]])) + 1);
            boundaries.push(at);
        }
        for end in 0..=bytes.len() {
            assert_eq!(said(&bytes[..end]).1, boundaries.contains(&end), "{end}");
        }
    }

    #[test]
    fn a_remb_with_fewer_ssrcs_than_it_says_is_an_error() {
        let mut bytes = Vec::new();
        rtcp::remb(1, 1_000, &[7], &mut bytes);
        bytes[16] = 2;
        assert_eq!(said(&bytes), (vec![], false));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            said(&bytes);
        }

        #[test]
        fn any_packet_with_a_fitting_header_is_read_or_refused(
            first: u8, packet_type in 192u8..=208, body in prop::collection::vec(any::<[u8; 4]>(), 0..40),
        ) {
            let mut bytes = vec![first, packet_type, 0, body.len() as u8];
            bytes.extend(body.concat());
            said(&bytes);
        }

        #[test]
        fn a_damaged_compound_is_read_or_refused(position in 0usize..200, value: u8) {
            let mut bytes = everything();
            let position = position % bytes.len();
            bytes[position] = value;
            said(&bytes);
        }
    }
}
