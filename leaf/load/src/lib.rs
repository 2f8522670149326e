//! Scripted receivers: many viewers in one process, for benchmarks and tests; and the synthetic
//! streams that they measure.
//!
//! # `leaf-load receive`
//!
//! Each viewer has a UDP socket of its own and is a full, controlling ICE agent, a DTLS client and a
//! receiver of SRTP. It sends receiver reports every second, asks for missing packets by NACK and by
//! PLI for a key frame when nothing can be decoded. All viewers show the same certificate.
//!
//! One JSON object per line: requests on standard input, replies and events on standard output. A
//! request has `do` and `id`; its reply has the same `id` and either `ok` or `error` (`code`: one of
//! `malformed`, `unknown`, `exists`, `invalid`, `failed`; `detail`: words). At the end of standard
//! input all viewers leave and the process ends. Times are microseconds of `CLOCK_MONOTONIC`.
//!
//! ```text
//! {"event": "hello", "protocol": 1, "pid": 4711, "fingerprint": "sha-256 AB:…"}
//!
//! {"do": "add", "id": 1, "viewer": "v1",
//!  "remote": {"address": "10.0.3.2:40000", "ufrag": "…", "pwd": "…", "fingerprint": "sha-256 …"},
//!  "local": {"ufrag": "…", "pwd": "…"},
//!  "video": {"payload_type": 102, "rtx_payload_type": 103}, "audio": {"payload_type": 111},
//!  "nack": true, "remb_kbps": 900}                                                  ok: {}
//! {"do": "remove", "id": 2, "viewer": "v1"}                                         ok: {}
//! {"do": "await", "id": 3, "viewer": "v1", "stream": 7}                             ok: {}
//! {"do": "statistics", "id": 4, "reset": true, "each": false}
//!  ok: {"at_us": 1, "viewers": 1, "up": 1, "totals": {"packets": 1, "lost": 0, …},
//!       "delay_us": {"samples": 9, "p50": 1, "p95": 1, "p99": 1, "max": 1}, "each": {"v1": {…}}}
//!
//! {"event": "viewer.up", "viewer": "v1", "at_us": 1}
//! {"event": "viewer.gone", "viewer": "v1", "at_us": 1, "why": "closed"}
//! {"event": "viewer.arrived", "viewer": "v1", "at_us": 1, "stream": 7}
//! ```
//!
//! `video`, `audio`, `rtx_payload_type` and `remb_kbps` may be absent, `nack` is true unless told. The
//! local credentials are the controller's choice, so that it can describe a viewer before the other
//! side is known. `totals` and `each` have the members of [`figures::Figures`], which go on being
//! counted; `reset` has the delays begin anew after they were told.
//!
//! To be cheap, only one packet of N is decrypted and looked into (`--sample 1/N`); numbers, losses
//! and jitter are of all packets, by their headers. What a viewer awaits, and the first key frame, is
//! looked for in every packet.
//!
//! # Delays and changes
//!
//! `leaf-load source` writes a [`stamp::Stamp`] at the end of every payload: the number of the stream
//! and the time of sending; its only line of output tells the packets in a second. The delay of a packet is from then until the kernel received it, on the
//! same machine. It does not matter whether this process is late to take it: the kernel's time counts.
//! For the time of a channel change the controller sends `await` with the other stream's number,
//! has the change made, and subtracts its own time from that of `viewer.arrived`.

pub mod clock;
pub mod control;
pub mod crowd;
pub mod figures;
pub mod ice;
pub mod media;
pub mod net;
pub mod options;
pub mod reception;
pub mod source;
pub mod stamp;
pub mod synthetic;
pub mod viewer;
