//! Fingerprints of certificates as SDP writes them (RFC 8122, section 5).

use std::fmt::{self, Display, Formatter, Write};
use std::str::FromStr;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::x509::X509Ref;

/// Which hash function a fingerprint is made with. RFC 8122 forbids MD2 and MD5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    const ALL: [Self; 5] = [
        Self::Sha1,
        Self::Sha224,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha-1",
            Self::Sha224 => "sha-224",
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    fn digest(self) -> MessageDigest {
        match self {
            Self::Sha1 => MessageDigest::sha1(),
            Self::Sha224 => MessageDigest::sha224(),
            Self::Sha256 => MessageDigest::sha256(),
            Self::Sha384 => MessageDigest::sha384(),
            Self::Sha512 => MessageDigest::sha512(),
        }
    }
}

/// The hash of a certificate: `sha-256 12:AB:…`, the value of SDP's `a=fingerprint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    algorithm: Algorithm,
    hash: Vec<u8>,
}

impl Fingerprint {
    /// The SHA-256 fingerprint of a certificate.
    pub(super) fn sha256(certificate: &X509Ref) -> Result<Self, ErrorStack> {
        let algorithm = Algorithm::Sha256;
        let hash = certificate.digest(algorithm.digest())?.to_vec();
        Ok(Self { algorithm, hash })
    }

    /// Whether a certificate has this fingerprint.
    pub(super) fn matches(&self, certificate: &X509Ref) -> bool {
        certificate
            .digest(self.algorithm.digest())
            .is_ok_and(|hash| *hash == *self.hash)
    }
}

impl Display for Fingerprint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.name())?;
        for (place, byte) in self.hash.iter().enumerate() {
            f.write_char(if place == 0 { ' ' } else { ':' })?;
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

/// A text that is no fingerprint, or one made with a hash function other than SHA-1 and SHA-2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FingerprintError;

impl Display for FingerprintError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("not a fingerprint of a certificate by SHA-1 or SHA-2")
    }
}

impl std::error::Error for FingerprintError {}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Reads `sha-256 12:AB:…`; upper and lower case are the same.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let (name, digits) = text.trim().split_once(' ').ok_or(FingerprintError)?;
        let algorithm = Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
            .ok_or(FingerprintError)?;
        let hash = digits
            .trim_start()
            .split(':')
            .map(octet)
            .collect::<Option<Vec<u8>>>()
            .ok_or(FingerprintError)?;
        if hash.len() != algorithm.digest().size() {
            return Err(FingerprintError);
        }
        Ok(Self { algorithm, hash })
    }
}

/// Two hexadecimal digits; `from_str_radix` alone would take a sign, too.
fn octet(digits: &str) -> Option<u8> {
    let hexadecimal = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hexadecimal.then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dtls::Identity;

    #[test]
    fn of_every_hash_function() {
        let identity = Identity::generate().unwrap();
        let certificate = identity.certificate();
        for algorithm in Algorithm::ALL {
            let hash = certificate.digest(algorithm.digest()).unwrap().to_vec();
            let text = Fingerprint { algorithm, hash }.to_string();
            assert!(text.starts_with(algorithm.name()));
            let lower = text.to_lowercase().parse::<Fingerprint>().unwrap();
            assert!(lower.matches(certificate));
            let other = Identity::generate().unwrap();
            assert!(!lower.matches(other.certificate()));
        }
    }

    #[test]
    fn what_is_none() {
        let octets = ["00"; 20].join(":");
        assert!(format!("sha-1 {octets}").parse::<Fingerprint>().is_ok());
        for text in [
            "",
            "sha-1",
            "sha-1 ",
            "sha-1 00",
            &format!("sha-256 {octets}"),
            &format!("md5 {octets}"),
            &format!("sha-1 {octets}:"),
            &format!("sha-1 +{}", &octets[1..]),
            &format!("sha-1 é{}", &octets[2..]),
        ] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text(text in ".*") {
            if let Ok(fingerprint) = text.parse::<Fingerprint>() {
                prop_assert_eq!(fingerprint.to_string().parse::<Fingerprint>(), Ok(fingerprint));
            }
        }

        #[test]
        fn round_trip(hash in prop::collection::vec(any::<u8>(), 32)) {
            let fingerprint = Fingerprint { algorithm: Algorithm::Sha256, hash };
            prop_assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        }
    }
}
