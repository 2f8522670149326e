//! What the process asks of the system.

use std::io;
use std::os::unix::process::parent_id;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use crate::log::{Level, log};

/// Get SIGTERM when the parent's thread that started this process ends.
///
/// # Errors
/// What the system says; [`io::ErrorKind::NotFound`] if the parent has ended already.
pub fn die_with_parent() -> io::Result<()> {
    let parent = parent_id();
    set_pdeathsig(Signal::SIGTERM)?;
    if parent_id() == parent {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the parent process has ended",
        ))
    }
}

/// Allow as many open files as the system lets this process have: each stream takes a socket.
pub fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        log!(
            Level::Warning,
            "limit of open files not raised",
            error = error.to_string()
        );
    }
}
