//! Protecting the packets of one direction.

use super::cipher::Cipher;
use super::keys::{Flow, SessionKeys};
use super::{
    ENCRYPTED, MasterKey, Profile, RTCP_HEADER, RTCP_SSRC, RTP_SSRC, SrtpError, associated, word,
};
use crate::memory::prefetch;

/// SRTCP has this many indices, from 0 on (RFC 3711, section 9.2).
pub const MAX_RTCP_INDEX: u32 = 1 << 31;

/// SRTP has this many indices for an SSRC.
const MAX_RTP_INDEX: u64 = 1 << 48;

/// Protects what this side sends: any number of SSRCs under one master key.
///
/// About 1.2 KB with every profile, nearly all of it on the heap.
pub struct Outbound {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    rtcp_index: u32,
}

impl Outbound {
    /// For a direction that has not sent anything; after a hand-over, see
    /// [`skip_rtcp_to`](Self::skip_rtcp_to).
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
            rtcp_index: 0,
        })
    }

    /// Has the keys fetched that [`protect_rtp`](Self::protect_rtp) needs, without waiting for them.
    pub fn prefetch(&self) {
        match &self.rtp {
            Cipher::Aead(cipher) => prefetch(&**cipher),
            Cipher::CounterMode(cipher) => prefetch(&**cipher),
        }
    }

    /// Writes the SRTP packet of a header and a payload into `out` and gives its length, which is longer
    /// than the two by [`Profile::rtp_overhead`]. The payload goes from where it is into `out` without
    /// any buffer between.
    ///
    /// `index` is the rollover counter (32 bits) and then the header's sequence number (16 bits). It
    /// must never come twice for an SSRC, except with the very same packet (a retransmission): two
    /// packets under one index betray their contents.
    ///
    /// # Errors
    ///
    /// [`SrtpError::Malformed`] for a header without an SSRC, [`SrtpError::NoRoom`] if `out` is too
    /// short, [`SrtpError::IndexExhausted`] for an index of more than 48 bits.
    pub fn protect_rtp(
        &self,
        index: u64,
        header: &[u8],
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SrtpError> {
        let ssrc = word(header, RTP_SSRC).ok_or(SrtpError::Malformed)?;
        if index >= MAX_RTP_INDEX {
            return Err(SrtpError::IndexExhausted);
        }
        let length = header.len() + payload.len() + self.profile.rtp_overhead();
        let packet = out.get_mut(..length).ok_or(SrtpError::NoRoom)?;
        let (head, sealed) = packet.split_at_mut(header.len());
        head.copy_from_slice(header);
        match &self.rtp {
            Cipher::Aead(cipher) => cipher.seal((ssrc, index), header, payload, sealed)?,
            Cipher::CounterMode(cipher) => {
                let (text, tag) = sealed.split_at_mut(payload.len());
                cipher.apply((ssrc, index), payload, text)?;
                let rollover = ((index >> 16) as u32).to_be_bytes();
                tag.copy_from_slice(&cipher.tag(&[head, text, &rollover]));
            }
        }
        Ok(length)
    }

    /// Makes the SRTCP packet of a compound RTCP packet in `out`, whose content it replaces.
    ///
    /// # Errors
    ///
    /// [`SrtpError::Malformed`] for a packet without the sender's SSRC, [`SrtpError::IndexExhausted`]
    /// after 2^31 packets.
    pub fn protect_rtcp(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), SrtpError> {
        let ssrc = word(plain, RTCP_SSRC).ok_or(SrtpError::Malformed)?;
        if self.rtcp_index >= MAX_RTCP_INDEX {
            return Err(SrtpError::IndexExhausted);
        }
        let place = (ssrc, self.rtcp_index.into());
        let trailer = (ENCRYPTED | self.rtcp_index).to_be_bytes();
        let (header, reports) = plain.split_at(RTCP_HEADER);
        out.clear();
        out.extend_from_slice(header);
        match &self.rtcp {
            Cipher::Aead(cipher) => {
                let associated = associated(header, trailer);
                out.resize(plain.len() + self.profile.tag_len(), 0);
                cipher.seal(place, &associated, reports, &mut out[RTCP_HEADER..])?;
                out.extend_from_slice(&trailer);
            }
            Cipher::CounterMode(cipher) => {
                out.resize(plain.len(), 0);
                cipher.apply(place, reports, &mut out[RTCP_HEADER..])?;
                out.extend_from_slice(&trailer);
                let tag = cipher.tag(&[out]);
                out.extend_from_slice(&tag);
            }
        }
        self.rtcp_index += 1;
        Ok(())
    }

    /// The index of the next SRTCP packet, to hand it over to another process.
    pub fn rtcp_index(&self) -> u32 {
        self.rtcp_index
    }

    /// Goes on at an index that another process has come to.
    ///
    /// # Errors
    ///
    /// [`SrtpError::IndexExhausted`] if the index was used already, or is beyond the last.
    pub fn skip_rtcp_to(&mut self, index: u32) -> Result<(), SrtpError> {
        if index < self.rtcp_index || index >= MAX_RTCP_INDEX {
            return Err(SrtpError::IndexExhausted);
        }
        self.rtcp_index = index;
        Ok(())
    }
}
