//! The control protocol: the controller's requests, our replies and events, and the socket between.
//!
//! Described in `docs/protocols/leaf.md`.

pub mod event;
pub mod publisher;
pub mod reply;
pub mod request;
pub mod server;
pub mod value;

mod connection;
