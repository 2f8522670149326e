//! The decisions of the leaf server, without input and output.
//!
//! A [`Ring`](ring::Ring) keeps the recent packets of one RTP stream. A [`Viewer`](viewer::Viewer)
//! has a cursor in the ring of its picture and one in the ring of its sound; it is told the time
//! and what its receiver reports, and it says which packets are to be sent under which sequence
//! number and timestamp. A [`Publisher`](publisher::Publisher) is told what its sender sent, and says
//! what is to be passed on of it and what to ask it for. Encryption and sockets are the caller's.

pub mod answers;
pub mod clock;
pub mod cursor;
pub mod gaps;
pub mod hurry;
pub mod ladder;
pub mod output;
pub mod pace;
pub mod passing;
pub mod picture;
pub mod prefix;
pub mod probation;
pub mod publisher;
pub mod retransmit;
pub mod ring;
pub mod sound;
pub mod streams;
pub mod timeline;
pub mod viewer;

/// Microseconds of a monotonic clock.
pub type Micros = u64;
