//! What tests of sockets share.

use std::time::Duration;

/// In a network namespace of this thread: `ip` changes nothing outside.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        test();
    });
    thread.join().unwrap();
}

/// Run `ip` with these arguments.
pub fn ip(arguments: &str) {
    let status = std::process::Command::new("ip")
        .args(arguments.split_whitespace())
        .status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

/// Processor time of this thread, which other load on the machine disturbs less than a clock.
pub fn processor_time() -> Duration {
    nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID
        .now()
        .unwrap()
        .into()
}
