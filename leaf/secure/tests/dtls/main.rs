//! DTLS by its public interface: with itself, with another client, and with an intruder.

mod garbage;
mod handshake;
mod network;
mod s_client;
