//! Anabranch's leaf server: one ring per stream, one cursor per viewer.
//!
//! What the process does with sockets, threads and its controller; what it decides is in `leaf-core`.

pub mod clock;
pub mod control;
pub mod handshakes;
pub mod identity;
pub mod leaf;
pub mod log;
pub mod mesh;
pub mod net;
pub mod options;
pub mod process;
pub mod worker;
