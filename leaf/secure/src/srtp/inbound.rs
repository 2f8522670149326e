//! Opening the packets of one direction.

use super::cipher::Cipher;
use super::keys::{Flow, SessionKeys};
use super::replay::ReplayWindow;
use super::{
    ENCRYPTED, MasterKey, Profile, RTCP_HEADER, RTCP_SSRC, RTP_SSRC, SrtpError, TRAILER,
    associated, word,
};

/// How many SSRCs a peer may use. Only packets with a right tag count.
pub const MAX_SSRCS: usize = 16;

/// Octets of an RTP header without CSRCs and extensions.
const RTP_HEADER: usize = 12;

/// Opens what the other side sent, and refuses what came before.
///
/// About 1.2 KB with every profile, nearly all of it on the heap, and 300 octets for each SSRC.
pub struct Inbound {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    sources: Vec<Source>,
}

/// What was taken of an SSRC.
#[derive(Clone, Copy)]
struct Source {
    ssrc: u32,
    rtp: ReplayWindow,
    rtcp: ReplayWindow,
}

impl Inbound {
    /// For a direction of which nothing has come.
    ///
    /// # Errors
    ///
    /// [`SrtpError::KeyLength`] if the key is not one of the profile.
    pub fn new(profile: Profile, master: &MasterKey) -> Result<Self, SrtpError> {
        let rtp = SessionKeys::derive(profile, master, Flow::Rtp)?;
        let rtcp = SessionKeys::derive(profile, master, Flow::Rtcp)?;
        Self::with(profile, &rtp, &rtcp)
    }

    /// With the session keys of both flows.
    pub(super) fn with(
        profile: Profile,
        rtp: &SessionKeys,
        rtcp: &SessionKeys,
    ) -> Result<Self, SrtpError> {
        Ok(Self {
            profile,
            rtp: Cipher::new(profile, rtp)?,
            rtcp: Cipher::new(profile, rtcp)?,
            sources: Vec::new(),
        })
    }

    /// Opens an SRTP packet into `out`, whose content it replaces, and gives the packet's index: the
    /// rollover counter and the sequence number. After an error `out` is of no use.
    ///
    /// # Errors
    ///
    /// All of [`SrtpError`] but those of sending.
    pub fn unprotect_rtp(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<u64, SrtpError> {
        let ssrc = word(packet, RTP_SSRC).ok_or(SrtpError::Malformed)?;
        let header_len = rtp_header_len(packet).ok_or(SrtpError::Malformed)?;
        let (header, sealed) = packet
            .split_at_checked(header_len)
            .filter(|(_, sealed)| sealed.len() >= self.profile.tag_len())
            .ok_or(SrtpError::Malformed)?;
        let mut source = self.source(ssrc);
        let index = source.rtp.guess(u16::from_be_bytes([packet[2], packet[3]]));
        if !source.rtp.is_new(index) {
            return Err(SrtpError::Replayed);
        }
        out.clear();
        out.extend_from_slice(header);
        match &self.rtp {
            Cipher::Aead(cipher) => cipher.open((ssrc, index), header, sealed, out)?,
            Cipher::CounterMode(cipher) => {
                let (text, tag) = sealed.split_at(sealed.len() - self.profile.tag_len());
                let rollover = ((index >> 16) as u32).to_be_bytes();
                cipher.verify(&[header, text, &rollover], tag)?;
                out.resize(header_len + text.len(), 0);
                cipher.apply((ssrc, index), text, &mut out[header_len..])?;
            }
        }
        source.rtp.take(index);
        self.remember(source)?;
        Ok(index)
    }

    /// Opens an SRTCP packet into `out`, whose content it replaces. After an error `out` is of no use.
    /// Packets that are authenticated but not encrypted are refused: WebRTC never agrees on them.
    ///
    /// # Errors
    ///
    /// All of [`SrtpError`] but those of sending.
    pub fn unprotect_rtcp(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), SrtpError> {
        let ssrc = word(packet, RTCP_SSRC).ok_or(SrtpError::Malformed)?;
        let plain_len = packet
            .len()
            .checked_sub(RTCP_HEADER + self.profile.rtcp_overhead())
            .ok_or(SrtpError::Malformed)?;
        let (header, rest) = packet.split_at(RTCP_HEADER);
        // An AEAD's tag belongs to its text and comes before the index, the other tag after it.
        let text_len = match &self.rtcp {
            Cipher::Aead(_) => plain_len + self.profile.tag_len(),
            Cipher::CounterMode(_) => plain_len,
        };
        let trailer = word(rest, text_len..text_len + TRAILER).ok_or(SrtpError::Malformed)?;
        if packet[0] >> 6 != 2 || trailer & ENCRYPTED == 0 {
            return Err(SrtpError::Malformed);
        }
        let index = u64::from(trailer & !ENCRYPTED);
        let mut source = self.source(ssrc);
        if !source.rtcp.is_new(index) {
            return Err(SrtpError::Replayed);
        }
        out.clear();
        out.extend_from_slice(header);
        let text = &rest[..text_len];
        match &self.rtcp {
            Cipher::Aead(cipher) => {
                let associated = associated(header, trailer.to_be_bytes());
                cipher.open((ssrc, index), &associated, text, out)?;
            }
            Cipher::CounterMode(cipher) => {
                let (signed, tag) = packet.split_at(packet.len() - self.profile.tag_len());
                cipher.verify(&[signed], tag)?;
                out.resize(RTCP_HEADER + text.len(), 0);
                cipher.apply((ssrc, index), text, &mut out[RTCP_HEADER..])?;
            }
        }
        source.rtcp.take(index);
        self.remember(source)
    }

    /// What was taken of an SSRC so far.
    fn source(&self, ssrc: u32) -> Source {
        let known = self.sources.iter().find(|source| source.ssrc == ssrc);
        known.copied().unwrap_or(Source {
            ssrc,
            rtp: ReplayWindow::default(),
            rtcp: ReplayWindow::default(),
        })
    }

    fn remember(&mut self, source: Source) -> Result<(), SrtpError> {
        let mut known = self.sources.iter_mut();
        if let Some(known) = known.find(|known| known.ssrc == source.ssrc) {
            *known = source;
        } else if self.sources.len() < MAX_SSRCS {
            self.sources.push(source);
        } else {
            return Err(SrtpError::TooManySources);
        }
        Ok(())
    }
}

/// Octets of the header of an RTP packet, which SRTP leaves as they are: CSRCs and extensions included
/// (RFC 3550, section 5.1).
fn rtp_header_len(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    if first >> 6 != 2 {
        return None;
    }
    let extension_at = RTP_HEADER + 4 * usize::from(first & 0x0F);
    if first & 0x10 == 0 {
        return Some(extension_at);
    }
    let words = word(packet, extension_at..extension_at + 4)? & 0xFFFF;
    Some(extension_at + 4 + 4 * words as usize)
}
