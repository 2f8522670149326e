//! Master keys, and the session keys that come of them (RFC 3711, section 4.3).

use std::fmt::{self, Formatter};

use aes::{Aes128, Aes256};
use ctr::cipher::{KeyInit, StreamCipher};
use zeroize::Zeroizing;

use super::counter_mode::stream;
use super::{Profile, SrtpError};

/// Octets of the key for HMAC-SHA1 (RFC 3711, section 5.2).
const AUTHENTICATION_KEY: usize = 20;

/// The keys that a DTLS handshake agreed on for one direction. Wiped from memory when dropped; shown by
/// [`expose`](Self::expose) only.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey {
    key: Zeroizing<Vec<u8>>,
    salt: Zeroizing<Vec<u8>>,
}

impl MasterKey {
    /// A master key from its parts.
    pub fn new(key: &[u8], salt: &[u8]) -> Self {
        Self {
            key: Zeroizing::new(key.to_vec()),
            salt: Zeroizing::new(salt.to_vec()),
        }
    }

    /// The key and then the salt, to hand them over to another process.
    pub fn expose(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.key.as_slice(), &self.salt].concat())
    }

    /// Reads what [`expose`](Self::expose) gave.
    ///
    /// # Errors
    ///
    /// [`SrtpError::KeyLength`] if it has not the length that the profile asks for.
    pub fn from_bytes(profile: Profile, bytes: &[u8]) -> Result<Self, SrtpError> {
        if bytes.len() != profile.key_len() + profile.salt_len() {
            return Err(SrtpError::KeyLength);
        }
        let (key, salt) = bytes.split_at(profile.key_len());
        Ok(Self::new(key, salt))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(secret)")
    }
}

/// What the keys of a session are for; the number is the label of the first of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Rtp = 0,
    Rtcp = 3,
}

/// The keys with which the packets of a flow are protected.
pub(super) struct SessionKeys {
    pub(super) encryption: Zeroizing<Vec<u8>>,
    /// Of no use to the AEAD profiles, which authenticate with the key for encryption.
    pub(super) authentication: Zeroizing<Vec<u8>>,
    /// As long as the profile's salt.
    pub(super) salt: Zeroizing<Vec<u8>>,
}

impl SessionKeys {
    /// Derives the keys of a flow, once for all packets (a key derivation rate of 0).
    pub(super) fn derive(
        profile: Profile,
        master: &MasterKey,
        flow: Flow,
    ) -> Result<Self, SrtpError> {
        if master.key.len() != profile.key_len() || master.salt.len() != profile.salt_len() {
            return Err(SrtpError::KeyLength);
        }
        let label = flow as u8;
        Ok(Self {
            encryption: derive(master, label, profile.key_len())?,
            authentication: derive(master, label + 1, AUTHENTICATION_KEY)?,
            salt: derive(master, label + 2, profile.salt_len())?,
        })
    }
}

/// AES-CM as a pseudorandom function (RFC 3711, section 4.3.3). A salt of 12 octets is padded at its end
/// (RFC 7714, section 11).
fn derive(master: &MasterKey, label: u8, length: usize) -> Result<Zeroizing<Vec<u8>>, SrtpError> {
    let mut counter = [0; 16];
    let salt = counter.get_mut(..master.salt.len());
    salt.ok_or(SrtpError::KeyLength)?
        .copy_from_slice(&master.salt);
    counter[7] ^= label;
    let mut derived = Zeroizing::new(vec![0; length]);
    let made = match master.key.len() {
        32 => Aes256::new_from_slice(&master.key)
            .map(|key| stream(key, counter).apply_keystream(&mut derived)),
        _ => Aes128::new_from_slice(&master.key)
            .map(|key| stream(key, counter).apply_keystream(&mut derived)),
    };
    made.map_err(|_| SrtpError::KeyLength)?;
    Ok(derived)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::srtp::unhex;

    /// RFC 3711, appendix B.3.
    #[test]
    fn derivation() {
        let master = MasterKey::new(
            &unhex("E1F97A0D3E018BE0D64FA32C06DE4139"),
            &unhex("0EC675AD498AFEEBB6960B3AABE6"),
        );
        let keys = SessionKeys::derive(Profile::Aes128CmSha1_80, &master, Flow::Rtp).unwrap();
        assert_eq!(*keys.encryption, unhex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(*keys.salt, unhex("30CBBC08863D8C85D49DB34A9AE1"));
        let authentication = unhex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4");
        assert_eq!(*keys.authentication, authentication);
    }

    #[test]
    fn flows_have_keys_of_their_own() {
        for profile in Profile::PREFERENCE {
            let bytes: Vec<u8> = (0..).take(profile.key_len() + profile.salt_len()).collect();
            let master = MasterKey::from_bytes(profile, &bytes).unwrap();
            let rtp = SessionKeys::derive(profile, &master, Flow::Rtp).unwrap();
            let rtcp = SessionKeys::derive(profile, &master, Flow::Rtcp).unwrap();
            assert_ne!(rtp.encryption, rtcp.encryption);
            assert_ne!(rtp.authentication, rtcp.authentication);
            assert_ne!(rtp.salt, rtcp.salt);
        }
    }

    #[test]
    fn is_never_shown() {
        let master = MasterKey::new(&[0xAB; 16], &[0xCD; 12]);
        assert_eq!(format!("{master:?}"), "MasterKey(secret)");
    }

    #[test]
    fn lengths_must_fit() {
        let master = MasterKey::new(&[1; 16], &[2; 12]);
        for profile in [Profile::AeadAes256Gcm, Profile::Aes128CmSha1_80] {
            let keys = SessionKeys::derive(profile, &master, Flow::Rtp);
            assert_eq!(keys.err(), Some(SrtpError::KeyLength));
        }
    }

    proptest! {
        #[test]
        fn round_trip(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            for profile in Profile::PREFERENCE {
                let fits = bytes.len() == profile.key_len() + profile.salt_len();
                match MasterKey::from_bytes(profile, &bytes) {
                    Ok(master) => prop_assert_eq!(&*master.expose(), &bytes),
                    Err(error) => prop_assert!(!fits && error == SrtpError::KeyLength),
                }
            }
        }
    }
}
