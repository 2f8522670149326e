//! RTP streams that look like H.264 and Opus to a server and are neither: sizes, times and NAL unit
//! types are right, and every payload ends with a [`Stamp`].

use leaf_wire::header::{HeaderError, HeaderTemplate};

use crate::clock::Micros;
use crate::stamp::{LEN as STAMP, Stamp};

/// The longest RTP packet, in bytes.
pub const PACKET: usize = 1200;
/// How many times as large as other pictures key frames are.
pub const KEY_FRAME_RATIO: usize = 4;
/// The payload type of pictures.
pub const VIDEO_TYPE: u8 = 96;
/// The payload type of sound.
pub const AUDIO_TYPE: u8 = 111;

const VIDEO_CLOCK: u64 = 90_000;
const AUDIO_CLOCK: u64 = 48_000;
const SECOND: Micros = 1_000_000;
const HEADER: usize = 12;
/// Fragments carry two bytes before their piece of the NAL unit (RFC 6184 section 5.8).
const FRAGMENT: usize = PACKET - HEADER - 2;
const FU_A: u8 = 28;
const IDR: u8 = 5;
const OTHER_SLICE: u8 = 1;
/// Constrained baseline, 640x360.
const SPS: [u8; 10] = [0x67, 0x42, 0xc0, 0x1e, 0xda, 0x02, 0x80, 0xbf, 0xe5, 0x40];
const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];
/// A NAL unit of filler data, in which the stamp stands (RFC 6184 section 5.7.1: STAP-A).
const FILLER: u8 = 12;
const STAP_A: u8 = 0x78;

/// What a picture stream is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bit rate of the NAL units in kbit/s.
    pub kbps: u32,
    /// Pictures in a second.
    pub fps: u32,
    /// Pictures from one key frame to the next.
    pub gop: u32,
}

impl Shape {
    /// Bytes of an ordinary picture, at least what a stamp needs.
    fn picture_bytes(self) -> usize {
        let of_gop = u64::from(self.kbps) * 125 * u64::from(self.gop) / u64::from(self.fps.max(1));
        let pictures = u64::from(self.gop.max(1)) - 1 + KEY_FRAME_RATIO as u64;
        usize::try_from(of_gop / pictures).map_or(STAMP + 1, |bytes| bytes.max(STAMP + 1))
    }

    /// RTP packets from one key frame to the next.
    #[must_use]
    pub fn packets_of_gop(self) -> usize {
        let size = self.picture_bytes();
        let of_key_frame = 1 + (size * KEY_FRAME_RATIO).div_ceil(FRAGMENT);
        of_key_frame + (self.gop.max(1) as usize - 1) * size.div_ceil(FRAGMENT)
    }

    /// RTP packets in a second.
    #[must_use]
    pub fn packets_per_s(self) -> f64 {
        self.packets_of_gop() as f64 * f64::from(self.fps) / f64::from(self.gop.max(1))
    }
}

/// Pictures.
pub struct Video {
    shape: Shape,
    stream: u32,
    header: HeaderTemplate,
    began: Micros,
    picture: u64,
    sequence: u16,
}

impl Video {
    /// A stream whose first picture, a key frame, is due at `began`; `stream` is its SSRC.
    ///
    /// # Errors
    ///
    /// None for these payload types; it is the error of [`HeaderTemplate::new`].
    pub fn new(shape: Shape, stream: u32, began: Micros) -> Result<Self, HeaderError> {
        let header = HeaderTemplate::new(VIDEO_TYPE, stream)?;
        Ok(Self {
            shape,
            stream,
            header,
            began,
            picture: 0,
            sequence: 0,
        })
    }

    /// When the next picture is due.
    #[must_use]
    pub fn due(&self) -> Micros {
        self.began + self.picture * SECOND / u64::from(self.shape.fps.max(1))
    }

    /// Gives the packets of the next picture, sent at `now`, to `send`.
    pub fn next(&mut self, now: Micros, mut send: impl FnMut(&[u8])) {
        let fps = u64::from(self.shape.fps.max(1));
        let timestamp = (self.picture * VIDEO_CLOCK / fps) as u32;
        let is_key = self
            .picture
            .is_multiple_of(u64::from(self.shape.gop.max(1)));
        self.picture += 1;
        let stamp = Stamp {
            stream: self.stream,
            sent: now,
        }
        .to_bytes();
        let mut packet = [0; PACKET];
        if is_key {
            let payload = parameter_sets(&stamp);
            let len = self.header(timestamp, false, &mut packet) + payload.len();
            packet[len - payload.len()..len].copy_from_slice(&payload);
            send(&packet[..len]);
        }
        let size = self.shape.picture_bytes() * if is_key { KEY_FRAME_RATIO } else { 1 };
        let unit = if is_key { IDR } else { OTHER_SLICE };
        let mut left = size;
        while left > 0 {
            // The last fragment must hold a stamp, so the one before it may leave it some.
            let body = match left {
                ..=FRAGMENT => left,
                _ if left < FRAGMENT + STAMP => left - STAMP,
                _ => FRAGMENT,
            };
            let (is_first, is_last) = (left == size, left == body);
            let at = self.header(timestamp, is_last, &mut packet);
            let end = at + 2 + body;
            packet[at] = 0x60 | FU_A;
            packet[at + 1] = u8::from(is_first) << 7 | u8::from(is_last) << 6 | unit;
            packet[end - STAMP..end].copy_from_slice(&stamp);
            send(&packet[..end]);
            left -= body;
        }
    }

    fn header(&mut self, timestamp: u32, marker: bool, packet: &mut [u8]) -> usize {
        self.sequence = self.sequence.wrapping_add(1);
        self.header
            .write(self.sequence, timestamp, marker, 0, packet)
    }
}

/// The payload before a key frame: both parameter sets and the stamp.
fn parameter_sets(stamp: &[u8; STAMP]) -> Vec<u8> {
    let filler = [&[FILLER], &stamp[..]].concat();
    let mut payload = vec![STAP_A];
    for unit in [&SPS[..], &PPS, &filler] {
        payload.extend_from_slice(&(unit.len() as u16).to_be_bytes());
        payload.extend_from_slice(unit);
    }
    payload
}

/// Sound: a packet of 160 bytes every 20 ms.
pub struct Audio {
    stream: u32,
    header: HeaderTemplate,
    began: Micros,
    packet: u64,
}

impl Audio {
    /// Sound in a second, in packets.
    pub const PACKETS_PER_S: u64 = 50;
    /// Bytes of payload in a packet.
    pub const PAYLOAD: usize = 160;
    /// First byte of an Opus packet: CELT, 20 ms, mono, one frame (RFC 6716 section 3.1).
    const TOC: u8 = 31 << 3;

    /// A stream whose first packet is due at `began`; `stream` is its SSRC.
    ///
    /// # Errors
    ///
    /// None for these payload types; it is the error of [`HeaderTemplate::new`].
    pub fn new(stream: u32, began: Micros) -> Result<Self, HeaderError> {
        let header = HeaderTemplate::new(AUDIO_TYPE, stream)?;
        Ok(Self {
            stream,
            header,
            began,
            packet: 0,
        })
    }

    /// When the next packet is due.
    #[must_use]
    pub fn due(&self) -> Micros {
        self.began + self.packet * SECOND / Self::PACKETS_PER_S
    }

    /// Gives the next packet, sent at `now`, to `send`.
    pub fn next(&mut self, now: Micros, send: impl FnOnce(&[u8])) {
        let mut packet = [0; HEADER + Self::PAYLOAD];
        let timestamp = (self.packet * AUDIO_CLOCK / Self::PACKETS_PER_S) as u32;
        let at = self
            .header
            .write(self.packet as u16, timestamp, false, 0, &mut packet);
        packet[at] = Self::TOC;
        let stamp = Stamp {
            stream: self.stream,
            sent: now,
        }
        .to_bytes();
        packet[HEADER + Self::PAYLOAD - STAMP..].copy_from_slice(&stamp);
        self.packet += 1;
        send(&packet);
    }
}

#[cfg(test)]
mod tests {
    use leaf_wire::h264::{Sps, is_idr_start, sps_of, starts_key_frame};
    use leaf_wire::rtp::RtpPacket;
    use proptest::prelude::*;

    use super::*;

    const SHAPE: Shape = Shape {
        kbps: 600,
        fps: 25,
        gop: 50,
    };

    fn pictures(shape: Shape, count: usize) -> Vec<Vec<Vec<u8>>> {
        let mut video = Video::new(shape, 7, 1_000).unwrap();
        let mut next = || {
            let mut packets = Vec::new();
            video.next(video.due(), |packet| packets.push(packet.to_vec()));
            packets
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn a_group_of_pictures_has_its_bit_rate_and_number_of_packets() {
        let packets = pictures(SHAPE, 50).concat();
        assert_eq!(packets.len(), SHAPE.packets_of_gop());
        let bytes: usize = packets.iter().map(|packet| packet.len()).sum();
        let kbps = bytes * 8 / 2 / 1000;
        assert!((600..620).contains(&kbps), "{kbps} kbit/s with headers");
    }

    #[test]
    fn key_frames_begin_as_those_of_an_encoder() {
        for (number, picture) in pictures(SHAPE, 101).iter().enumerate() {
            let first = RtpPacket::parse(&picture[0]).unwrap().payload;
            assert_eq!(starts_key_frame(first), number % 50 == 0);
            if number % 50 == 0 {
                let sps = Sps::parse(sps_of(first).unwrap()).unwrap();
                assert_eq!((sps.width, sps.height), (640, 360));
                assert!(is_idr_start(RtpPacket::parse(&picture[1]).unwrap().payload));
            }
        }
    }

    #[test]
    fn sound_comes_every_20_ms() {
        let mut audio = Audio::new(9, 5_000).unwrap();
        for number in 0..100_u16 {
            assert_eq!(audio.due(), 5_000 + Micros::from(number) * 20_000);
            audio.next(audio.due() + 7, |packet| {
                let packet = RtpPacket::parse(packet).unwrap();
                assert_eq!((packet.sequence, packet.payload.len()), (number, 160));
                assert_eq!(packet.timestamp, u32::from(number) * 960);
                let sent = 5_007 + Micros::from(number) * 20_000;
                assert_eq!(Stamp::of(packet.payload), Some(Stamp { stream: 9, sent }));
            });
        }
    }

    proptest! {
        #[test]
        fn every_stream_is_whole(kbps in 0u32..20_000, fps in 1u32..121, gop in 1u32..300) {
            let mut sequence = 0;
            for (number, picture) in pictures(Shape { kbps, fps, gop }, 5).iter().enumerate() {
                let sent = 1_000 + number as Micros * 1_000_000 / Micros::from(fps);
                for (place, packet) in picture.iter().enumerate() {
                    sequence += 1;
                    let read = RtpPacket::parse(packet).unwrap();
                    prop_assert!(packet.len() <= PACKET);
                    prop_assert_eq!(read.sequence, sequence);
                    prop_assert_eq!(read.marker, place + 1 == picture.len());
                    prop_assert_eq!(Stamp::of(read.payload), Some(Stamp { stream: 7, sent }));
                }
            }
        }
    }
}
