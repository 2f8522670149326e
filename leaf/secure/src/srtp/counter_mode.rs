//! AES in counter mode with HMAC-SHA1 (RFC 3711, sections 4.1.1 and 4.2.1), by the RustCrypto crates.

use aes::Aes128;
use ctr::cipher::consts::U16;
use ctr::cipher::inout::InOutBuf;
use ctr::cipher::{BlockCipherEncrypt, InnerIvInit, StreamCipher};
use ctr::{Ctr128BE, CtrCore};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::SrtpError;
use super::keys::SessionKeys;

/// Octets of the tag: the first 80 bits of the HMAC.
const TAG: usize = 10;
/// Octets of the salt.
const SALT: usize = 14;

/// The keys and the salt of a flow.
pub(super) struct CounterMode {
    cipher: Aes128,
    authentication: Hmac<Sha1>,
    salt: [u8; SALT],
}

impl CounterMode {
    pub(super) fn new(keys: &SessionKeys) -> Result<Self, SrtpError> {
        let cipher = Aes128::new_from_slice(&keys.encryption);
        let authentication = Hmac::new_from_slice(&keys.authentication);
        let salt = keys.salt.as_slice().try_into();
        Ok(Self {
            cipher: cipher.map_err(|_| SrtpError::KeyLength)?,
            authentication: authentication.map_err(|_| SrtpError::KeyLength)?,
            salt: salt.map_err(|_| SrtpError::KeyLength)?,
        })
    }

    /// Encrypts or decrypts `input` into `output` of the same length.
    pub(super) fn apply(
        &self,
        (ssrc, index): (u32, u64),
        input: &[u8],
        output: &mut [u8],
    ) -> Result<(), SrtpError> {
        let texts = InOutBuf::new(input, output).map_err(|_| SrtpError::NoRoom)?;
        stream(&self.cipher, self.counter(ssrc, index))
            .try_apply_keystream_inout(texts)
            .map_err(|_| SrtpError::Malformed)
    }

    /// The tag of the octets of all parts together.
    pub(super) fn tag(&self, parts: &[&[u8]]) -> [u8; TAG] {
        let mut tag = [0; TAG];
        tag.copy_from_slice(&self.hmac(parts).finalize().into_bytes()[..TAG]);
        tag
    }

    /// Compares a tag in constant time.
    pub(super) fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> Result<(), SrtpError> {
        self.hmac(parts)
            .verify_truncated_left(tag)
            .map_err(|_| SrtpError::Authentication)
    }

    fn hmac(&self, parts: &[&[u8]]) -> Hmac<Sha1> {
        let mut hmac = self.authentication.clone();
        for part in parts {
            hmac.update(part);
        }
        hmac
    }

    /// The first counter of a packet: `salt * 2^16 XOR ssrc * 2^64 XOR index * 2^16`.
    fn counter(&self, ssrc: u32, index: u64) -> [u8; 16] {
        let mut salt = [0; 16];
        salt[..SALT].copy_from_slice(&self.salt);
        let message = u128::from(ssrc) << 64 | u128::from(index) << 16;
        (u128::from_be_bytes(salt) ^ message).to_be_bytes()
    }
}

/// The keystream of a key from a counter on.
pub(super) fn stream<C: BlockCipherEncrypt<BlockSize = U16>>(
    key: C,
    counter: [u8; 16],
) -> Ctr128BE<C> {
    Ctr128BE::from_core(CtrCore::inner_iv_init(key, &counter.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srtp::unhex;
    use zeroize::Zeroizing;

    /// RFC 3711, appendix B.2: the keystream of index 0 and SSRC 0.
    #[test]
    fn keystream() {
        let keys = SessionKeys {
            encryption: Zeroizing::new(unhex("2B7E151628AED2A6ABF7158809CF4F3C")),
            authentication: Zeroizing::new(vec![0; 20]),
            salt: Zeroizing::new(unhex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD")),
        };
        let cipher = CounterMode::new(&keys).unwrap();
        let mut keystream = [0; 48];
        cipher.apply((0, 0), &[0; 48], &mut keystream).unwrap();
        let expected = "E03EAD0935C95E80E166B16DD92B4EB4\
                        D23513162B02D0F72A43A2FE4A5F97AB\
                        41E95B3BB0A2E8DD477901E4FCA894C0";
        assert_eq!(keystream, unhex(expected)[..]);
    }
}
