//! DTLS handshakes and SRTP: how a viewer's keys are agreed on, and how packets are protected with them.
//!
//! [`dtls`] makes the keys (RFC 5764), [`srtp`] uses them (RFC 3711, RFC 7714). Both are sans-IO:
//! datagrams and the time go in, datagrams come out.
#![warn(missing_docs)]

pub mod dtls;
pub mod memory;
pub mod srtp;
