//! H.264 in RTP (RFC 6184): finding key frames, putting pictures together, reading their size.

mod annex_b;
mod bits;
mod nal;
mod sps;

pub use annex_b::annex_b;
pub use nal::{PayloadError, is_idr_start, is_parameter_set, sps_of, starts_key_frame};
pub use sps::{Sps, SpsError};
