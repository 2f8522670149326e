//! UDP with few system calls: sockets, sending in batches and receiving in batches.

pub mod batch;
#[cfg(test)]
pub mod lab;
pub mod receive;
pub mod socket;

mod address;
mod ancillary;
