//! The cipher of one flow, RTP or RTCP, of one direction.

use super::aead::Aead;
use super::counter_mode::CounterMode;
use super::keys::SessionKeys;
use super::{Profile, SrtpError};

/// The cipher that the profile asks for.
pub(super) enum Cipher {
    Aead(Box<Aead>),
    CounterMode(Box<CounterMode>),
}

impl Cipher {
    pub(super) fn new(profile: Profile, keys: &SessionKeys) -> Result<Self, SrtpError> {
        Ok(match profile {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => {
                Self::Aead(Box::new(Aead::new(profile, keys)?))
            }
            Profile::Aes128CmSha1_80 => Self::CounterMode(Box::new(CounterMode::new(keys)?)),
        })
    }
}
