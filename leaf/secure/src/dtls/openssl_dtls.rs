//! What OpenSSL offers for DTLS and the crate `openssl` does not wrap: the retransmission timer
//! (DTLSv1_get_timeout(3)) and the buffers of the record layer (SSL_alloc_buffers(3)).

use std::ffi::{c_int, c_long, c_uint};
use std::ptr;

use foreign_types::ForeignTypeRef;
use openssl::ssl::SslRef;
use openssl_sys::{SSL, SSL_CTX_ctrl, SSL_ctrl};

use super::Micros;

/// How long the first flight waits for its answer. RFC 6347, section 4.2.4.1, says a second and lets
/// applications that cannot wait choose less; a viewer's picture starts after the handshake.
const FIRST_TIMEOUT: c_uint = 100_000;
/// The longest wait. OpenSSL gives up after 12 retransmissions, here about 17 s.
const LAST_TIMEOUT: c_uint = 2_000_000;

/// The longest certificate chain taken, in octets. It bounds what OpenSSL puts by to join fragments;
/// its default is 100 KiB.
const MAX_CERTIFICATES: c_long = 16 * 1024;

// <openssl/ssl.h>
const SSL_CTRL_SET_MAX_CERT_LIST: c_int = 51;
const DTLS_CTRL_GET_TIMEOUT: c_int = 73;
const DTLS_CTRL_HANDLE_TIMEOUT: c_int = 74;

type TimerCallback = unsafe extern "C" fn(*mut SSL, c_uint) -> c_uint;

unsafe extern "C" {
    fn DTLS_set_timer_cb(ssl: *mut SSL, callback: Option<TimerCallback>);
    fn SSL_alloc_buffers(ssl: *mut SSL) -> c_int;
    fn SSL_free_buffers(ssl: *mut SSL) -> c_int;
}

/// The wait after a wait of `last` microseconds; the first is asked for with 0.
unsafe extern "C" fn next_timeout(_ssl: *mut SSL, last: c_uint) -> c_uint {
    match last {
        0 => FIRST_TIMEOUT,
        _ => last.saturating_mul(2).min(LAST_TIMEOUT),
    }
}

/// Makes the retransmission timer ours: quicker than OpenSSL's.
pub(super) fn set_timer(ssl: &mut SslRef) {
    // SAFETY: the pointer is valid while `ssl` is borrowed, and the callback touches nothing.
    unsafe { DTLS_set_timer_cb(ssl.as_ptr(), Some(next_timeout)) }
}

/// Bounds the certificate chain that the other side may send.
pub(super) fn limit_certificates(context: &mut openssl::ssl::SslContextBuilder) {
    // SAFETY: the context is valid while it is borrowed; this control takes a number and no pointer.
    unsafe {
        SSL_CTX_ctrl(
            context.as_ptr(),
            SSL_CTRL_SET_MAX_CERT_LIST,
            MAX_CERTIFICATES,
            ptr::null_mut(),
        );
    }
}

/// How long until the present flight must be sent again; nothing when no answer is awaited.
pub(super) fn time_left(ssl: &SslRef) -> Option<Micros> {
    let mut left = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    // SAFETY: the pointer is valid while `ssl` is borrowed; this control fills the timeval it is given.
    let running = unsafe {
        SSL_ctrl(
            ssl.as_ptr(),
            DTLS_CTRL_GET_TIMEOUT,
            0,
            (&raw mut left).cast(),
        )
    };
    let micros = |number: i64| Micros::try_from(number).unwrap_or(0);
    (running == 1).then(|| micros(left.tv_sec) * 1_000_000 + micros(left.tv_usec))
}

/// Sends the present flight again if its time is over. False: OpenSSL has given up.
pub(super) fn handle_timeout(ssl: &SslRef) -> bool {
    // SAFETY: the pointer is valid and no call into OpenSSL for this connection is under way: the
    // borrow is of a stream that `Handshake` owns, and its transport never calls back.
    unsafe { SSL_ctrl(ssl.as_ptr(), DTLS_CTRL_HANDLE_TIMEOUT, 0, ptr::null_mut()) >= 0 }
}

/// Makes the buffers of the record layer again, before a call that may write.
pub(super) fn alloc_buffers(ssl: &SslRef) -> bool {
    // SAFETY: as for `handle_timeout`.
    unsafe { SSL_alloc_buffers(ssl.as_ptr()) == 1 }
}

/// Frees the buffers of the record layer, 33 KiB; OpenSSL keeps them if something is left in them.
/// (`SSL_MODE_RELEASE_BUFFERS` would do it, but for TLS only.)
pub(super) fn free_buffers(ssl: &SslRef) {
    // SAFETY: as for `handle_timeout`. Each later call is preceded by `alloc_buffers`.
    unsafe {
        SSL_free_buffers(ssl.as_ptr());
    }
}
