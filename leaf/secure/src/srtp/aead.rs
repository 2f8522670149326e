//! AES-GCM over a packet (RFC 7714), by `ring`.

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::keys::SessionKeys;
use super::{Profile, SrtpError};

/// Octets of the tag.
const TAG: usize = 16;

/// The key and the salt of a flow.
pub(super) struct Aead {
    key: LessSafeKey,
    salt: [u8; NONCE_LEN],
}

impl Aead {
    pub(super) fn new(profile: Profile, keys: &SessionKeys) -> Result<Self, SrtpError> {
        let algorithm = match profile {
            Profile::AeadAes256Gcm => &AES_256_GCM,
            Profile::AeadAes128Gcm | Profile::Aes128CmSha1_80 => &AES_128_GCM,
        };
        let key = UnboundKey::new(algorithm, &keys.encryption).map_err(|_| SrtpError::KeyLength)?;
        let salt = keys.salt.as_slice().try_into();
        Ok(Self {
            key: LessSafeKey::new(key),
            salt: salt.map_err(|_| SrtpError::KeyLength)?,
        })
    }

    /// Encrypts `plain` into `sealed`, which is longer by the tag.
    pub(super) fn seal(
        &self,
        (ssrc, index): (u32, u64),
        associated: &[u8],
        plain: &[u8],
        sealed: &mut [u8],
    ) -> Result<(), SrtpError> {
        let (text, tag) = sealed
            .split_at_mut_checked(plain.len())
            .filter(|(_, tag)| tag.len() == TAG)
            .ok_or(SrtpError::NoRoom)?;
        text.copy_from_slice(plain);
        let nonce = self.nonce(ssrc, index);
        let made = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(associated), text)
            .map_err(|_| SrtpError::Malformed)?;
        tag.copy_from_slice(made.as_ref());
        Ok(())
    }

    /// Appends the plain text of `sealed` to `out`, or leaves `out` as it was.
    pub(super) fn open(
        &self,
        (ssrc, index): (u32, u64),
        associated: &[u8],
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SrtpError> {
        let begin = out.len();
        out.extend_from_slice(sealed);
        let nonce = self.nonce(ssrc, index);
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(associated), &mut out[begin..])
            .map(|plain| plain.len());
        out.truncate(begin + opened.unwrap_or(0));
        opened.map(|_| ()).map_err(|_| SrtpError::Authentication)
    }

    /// Two octets 0, the SSRC and 48 bits of the index, combined with the salt (RFC 7714, sections 8.1
    /// and 9.1: for SRTP the rollover counter and the sequence number, for SRTCP its index).
    fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let message = u128::from(ssrc) << 48 | u128::from(index);
        let mut nonce = self.salt;
        for (octet, part) in nonce.iter_mut().zip(&message.to_be_bytes()[4..]) {
            *octet ^= part;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}
