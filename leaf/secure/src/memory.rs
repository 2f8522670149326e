//! Memory that is fetched before it is needed: what belongs to one of thousands of viewers is seldom in
//! a core's cache when its turn comes.

/// Bytes that come into the cache together.
const LINE: usize = 64;

/// Have the processor fetch a value's own bytes, without waiting for them.
///
/// Does nothing on processors for which Rust has no such instruction.
pub fn prefetch<T>(value: &T) {
    let begin = std::ptr::from_ref(value).cast::<i8>();
    for at in (0..size_of::<T>()).step_by(LINE) {
        fetch(begin.wrapping_add(at));
    }
}

#[cfg(target_arch = "x86_64")]
fn fetch(line: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every x86-64 processor has the instruction (SSE), which is a hint: it neither fails nor
    // changes anything, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line) }
}

#[cfg(not(target_arch = "x86_64"))]
fn fetch(_: *const i8) {}
