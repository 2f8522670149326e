//! The certificate that a process shows, and the settings of OpenSSL that its handshakes share.

use std::fmt::{self, Display, Formatter};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    SslContext, SslMethod, SslMode, SslOptions, SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use openssl::x509::{X509, X509Builder, X509NameBuilder, X509Ref};
use zeroize::Zeroizing;

use super::Fingerprint;
use super::openssl_dtls::limit_certificates;
use crate::srtp::Profile;

/// How long a certificate is valid. Browsers make theirs for 30 days, and look at no date of ours.
const VALID_DAYS: u32 = 30;

/// Forward secrecy and AES-GCM: RFC 8827, section 6.5, makes one of these mandatory. The filter of
/// records counts on it.
const CIPHERS: &str = "ECDHE+AESGCM";

/// OpenSSL refused: it is out of memory or randomness, or what it was given is not what it should be.
#[derive(Debug)]
pub struct OpensslError(ErrorStack);

impl Display for OpensslError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "OpenSSL: {}", self.0)
    }
}

impl std::error::Error for OpensslError {}

impl From<ErrorStack> for OpensslError {
    fn from(errors: ErrorStack) -> Self {
        Self(errors)
    }
}

/// A certificate with its private key. Cheap to clone; the clones share everything.
#[derive(Clone)]
pub struct Identity {
    certificate: X509,
    key: PKey<Private>,
    fingerprint: Fingerprint,
    context: SslContext,
}

impl Identity {
    /// A new identity: ECDSA with P-256, signed by itself, with a random name, for 30 days.
    pub fn generate() -> Result<Self, OpensslError> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
        let certificate = self_signed(&key)?;
        Self::new(certificate, key)
    }

    /// Reads what [`to_pem`](Self::to_pem) wrote, or any certificate and private key in PEM, RSA's too.
    pub fn from_pem(pem: &[u8]) -> Result<Self, OpensslError> {
        let certificate = X509::from_pem(pem)?;
        let key = PKey::private_key_from_pem(pem)?;
        Self::new(certificate, key)
    }

    /// The private key and the certificate in PEM, for another process that is to have the same.
    pub fn to_pem(&self) -> Result<Zeroizing<Vec<u8>>, OpensslError> {
        let mut pem = Zeroizing::new(self.key.private_key_to_pem_pkcs8()?);
        let certificate = self.certificate.to_pem()?;
        // A vector that grows leaves its old copy of the key behind, so the new one is made at once.
        let mut both = Zeroizing::new(Vec::with_capacity(pem.len() + certificate.len()));
        both.append(&mut pem);
        both.extend_from_slice(&certificate);
        Ok(both)
    }

    /// The SHA-256 fingerprint of the certificate, for SDP.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    pub(super) fn context(&self) -> &SslContext {
        &self.context
    }

    #[cfg(test)]
    pub(super) fn certificate(&self) -> &X509Ref {
        &self.certificate
    }

    fn new(certificate: X509, key: PKey<Private>) -> Result<Self, OpensslError> {
        let fingerprint = Fingerprint::sha256(&certificate)?;
        let context = context(&certificate, &key)?;
        Ok(Self {
            certificate,
            key,
            fingerprint,
            context,
        })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint)
    }
}

fn self_signed(key: &PKey<Private>) -> Result<X509, ErrorStack> {
    let random = |bits| -> Result<BigNum, ErrorStack> {
        let mut number = BigNum::new()?;
        number.rand(bits, MsbOption::ONE, false)?;
        Ok(number)
    };
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("CN", &random(64)?.to_hex_str()?)?;
    let name = name.build();

    let mut certificate = X509Builder::new()?;
    certificate.set_version(2)?; // X.509 v3
    certificate.set_serial_number(&*random(63)?.to_asn1_integer()?)?;
    certificate.set_subject_name(&name)?;
    certificate.set_issuer_name(&name)?;
    certificate.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    certificate.set_not_after(&*Asn1Time::days_from_now(VALID_DAYS)?)?;
    certificate.set_pubkey(key)?;
    certificate.sign(key, MessageDigest::sha256())?;
    Ok(certificate.build())
}

/// Settings for both roles: DTLS 1.2, our SRTP profiles, neither sessions kept nor new keys agreed on
/// later. A handshake adds its check of the other side's fingerprint; without it nobody gets in.
fn context(certificate: &X509Ref, key: &PKey<Private>) -> Result<SslContext, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::dtls())?;
    context.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    context.set_cipher_list(CIPHERS)?;
    context.set_options(
        SslOptions::NO_QUERY_MTU
            | SslOptions::NO_TICKET
            | SslOptions::NO_RENEGOTIATION
            | SslOptions::CIPHER_SERVER_PREFERENCE,
    );
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    context.set_mode(SslMode::RELEASE_BUFFERS);
    context.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    context.set_tlsext_use_srtp(&Profile::PREFERENCE.map(Profile::openssl_name).join(":"))?;
    limit_certificates(&mut context);
    context.set_certificate(certificate)?;
    context.set_private_key(key)?;
    context.check_private_key()?;
    Ok(context.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_pem() {
        let identity = Identity::generate().unwrap();
        let copy = Identity::from_pem(&identity.to_pem().unwrap()).unwrap();
        assert_eq!(copy.fingerprint(), identity.fingerprint());
        assert!(copy.fingerprint().to_string().starts_with("sha-256 "));
        assert_eq!(copy.fingerprint().to_string().len(), "sha-256 ".len() + 95);
    }

    #[test]
    fn every_one_is_new() {
        let one = Identity::generate().unwrap();
        let other = Identity::generate().unwrap();
        assert_ne!(one.fingerprint(), other.fingerprint());
    }

    #[test]
    fn key_and_certificate_must_fit() {
        let one = Identity::generate().unwrap();
        let other = Identity::generate().unwrap();
        let mut pem = one.key.private_key_to_pem_pkcs8().unwrap();
        pem.extend(other.certificate.to_pem().unwrap());
        assert!(Identity::from_pem(&pem).is_err());
        assert!(Identity::from_pem(b"").is_err());
    }

    #[test]
    fn debug_tells_no_key() {
        let identity = Identity::generate().unwrap();
        let text = format!("{identity:?}");
        assert_eq!(text, format!("Identity({})", identity.fingerprint()));
    }
}
