//! DTLS 1.2 handshakes for SRTP (RFC 6347, RFC 5764, RFC 8827), by OpenSSL.
//!
//! [`Identity`] is a process's certificate and the settings that all its handshakes share,
//! [`Fingerprint`] is what SDP says about the other side's certificate, and [`Handshake`] is one
//! connection.

mod fingerprint;
mod handshake;
mod identity;
mod openssl_dtls;
mod records;
mod transport;

pub use fingerprint::{Fingerprint, FingerprintError};
pub use handshake::{Handshake, Progress, Secrets};
pub use identity::{Identity, OpensslError};

/// An instant or a duration in microseconds of a monotonic clock.
pub type Micros = u64;
