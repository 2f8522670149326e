//! What stands on the wire: RTP, RTCP, STUN and the key frames of H.264.
//!
//! Everything here is sans-IO: parsers of borrowed bytes and writers into buffers of the caller.
//! Bytes off the network never panic; a parser gives its value or its one error.

pub mod datagram;
pub mod extension;
pub mod h264;
pub mod header;
pub mod ice;
pub mod ntp;
pub mod rtcp;
pub mod rtp;
pub mod rtx;
pub mod stun;
pub mod unwrap;
