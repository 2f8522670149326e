//! The protection profiles: lengths and names.

/// How packets are protected (RFC 5764, section 4.1.2; RFC 7714, section 14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// AES-128 in GCM, a tag of 16 octets.
    AeadAes128Gcm,
    /// AES-256 in GCM, a tag of 16 octets.
    AeadAes256Gcm,
    /// AES-128 in counter mode, a tag of 10 octets by HMAC-SHA1.
    Aes128CmSha1_80,
}

impl Profile {
    /// All of them, in the order in which they are offered and chosen: the quickest first.
    pub const PREFERENCE: [Self; 3] = [
        Self::AeadAes128Gcm,
        Self::AeadAes256Gcm,
        Self::Aes128CmSha1_80,
    ];

    /// Octets of a master key, and of the session keys for encryption.
    pub const fn key_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::Aes128CmSha1_80 => 16,
            Self::AeadAes256Gcm => 32,
        }
    }

    /// Octets of a master salt, and of the session salts.
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
            Self::Aes128CmSha1_80 => 14,
        }
    }

    /// Octets of an authentication tag.
    pub const fn tag_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
            Self::Aes128CmSha1_80 => 10,
        }
    }

    /// How many octets SRTP adds to an RTP packet: the tag.
    pub const fn rtp_overhead(self) -> usize {
        self.tag_len()
    }

    /// How many octets SRTCP adds to an RTCP packet: the tag and the index.
    pub const fn rtcp_overhead(self) -> usize {
        self.tag_len() + size_of::<u32>()
    }

    /// OpenSSL's name, as SSL_CTX_set_tlsext_use_srtp(3) takes it.
    pub const fn openssl_name(self) -> &'static str {
        match self {
            Self::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "SRTP_AEAD_AES_256_GCM",
            Self::Aes128CmSha1_80 => "SRTP_AES128_CM_SHA1_80",
        }
    }

    /// The profile with this name of OpenSSL's.
    pub fn from_openssl_name(name: &str) -> Option<Self> {
        Self::PREFERENCE
            .into_iter()
            .find(|profile| profile.openssl_name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for profile in Profile::PREFERENCE {
            let name = profile.openssl_name();
            assert_eq!(Profile::from_openssl_name(name), Some(profile));
        }
        assert_eq!(Profile::from_openssl_name("SRTP_AES128_CM_SHA1_32"), None);
    }
}
