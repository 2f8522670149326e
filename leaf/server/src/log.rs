//! The log: one JSON object per line on standard error, with the members that `structlog` writes.
//!
//! Nothing here waits: a line that standard error has no room for is dropped and counted, since a
//! reader that stopped must not stop the media.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How many lines of one event a window of [`WINDOW`] lets through.
const LINES_PER_WINDOW: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);

/// How much a line matters, by the names that `structlog` gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Level {
    /// For somebody who looks for a fault.
    Debug,
    /// What happens in normal work.
    Info,
    /// Something is wrong and the server goes on.
    Warning,
    /// Something cannot be done.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Debug, Self::Info, Self::Warning, Self::Error]
            .into_iter()
            .find(|level| level.name() == text)
            .ok_or("must be debug, info, warning or error")
    }
}

static LEAST: AtomicU8 = AtomicU8::new(Level::Info as u8);
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);
static LIMITER: Mutex<Option<Limiter>> = Mutex::new(None);

/// Log lines of this level and above from now on.
pub fn set_level(level: Level) {
    LEAST.store(level as u8, Ordering::Relaxed);
}

/// Whether lines of this level are logged.
pub fn enabled(level: Level) -> bool {
    level as u8 >= LEAST.load(Ordering::Relaxed)
}

/// Lines lost because standard error had no room.
pub fn unwritten() -> u64 {
    UNWRITTEN.load(Ordering::Relaxed)
}

/// Log one line: `log!(Level::Info, "viewer is up", viewer = id, address = from.to_string())`.
///
/// Values are anything that serialises; they are evaluated only if the level is logged.
#[macro_export]
macro_rules! log {
    ($level:expr, $event:literal $(, $key:ident = $value:expr)* $(,)?) => {
        if $crate::log::enabled($level) {
            $crate::log::write($level, $event, &[$((stringify!($key), serde_json::json!($value))),*]);
        }
    };
}
pub use crate::log;

/// Write one line with these members, unless the same event filled its window.
///
/// Used through [`log!`].
pub fn write(level: Level, event: &'static str, members: &[(&'static str, Value)]) {
    let suppressed = {
        let mut limiter = LIMITER.lock().unwrap_or_else(PoisonError::into_inner);
        match limiter
            .get_or_insert_with(Limiter::default)
            .admit(event, Instant::now())
        {
            Some(suppressed) => suppressed,
            None => return,
        }
    };
    let line = format(level, event, members, suppressed, SystemTime::now());
    let mut out = io::stderr().lock();
    // A pipe that polls writable takes PIPE_BUF bytes (4,096) at once, which is more than a line has.
    let mut ready = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
    let room = matches!(poll(&mut ready, PollTimeout::ZERO), Ok(1));
    if !room || out.write_all(line.as_bytes()).is_err() {
        UNWRITTEN.fetch_add(1, Ordering::Relaxed);
    }
}

fn format(
    level: Level,
    event: &str,
    members: &[(&'static str, Value)],
    suppressed: u64,
    now: SystemTime,
) -> String {
    let mut line: Map<String, Value> = members
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    if suppressed > 0 {
        line.insert("suppressed".into(), suppressed.into());
    }
    line.insert("event".into(), event.into());
    line.insert("level".into(), level.name().into());
    line.insert(
        "timestamp".into(),
        humantime::format_rfc3339_micros(now).to_string().into(),
    );
    let mut text = Value::Object(line).to_string();
    text.push('\n');
    text
}

/// Lets through so many lines of one event in a window, and counts the others.
#[derive(Default)]
struct Limiter {
    windows: HashMap<&'static str, Window>,
}

struct Window {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl Limiter {
    /// None if the line is not to be written, else how many were held back before it.
    fn admit(&mut self, event: &'static str, now: Instant) -> Option<u64> {
        let window = self.windows.entry(event).or_insert(Window {
            since: now,
            lines: 0,
            suppressed: 0,
        });
        if now.duration_since(window.since) >= WINDOW {
            window.since = now;
            window.lines = 0;
        }
        if window.lines == LINES_PER_WINDOW {
            window.suppressed += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_one_object_with_the_members_of_structlog() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_264_097_000_001);
        let text = format(
            Level::Warning,
            "a \"line\"\n",
            &[("viewer", json!("v1"))],
            3,
            now,
        );
        assert_eq!(text.matches('\n').count(), 1);
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!({"event": "a \"line\"\n", "level": "warning", "viewer": "v1", "suppressed": 3,
                   "timestamp": "2026-11-21T12:28:17.000001Z"})
        );
    }

    #[test]
    fn an_event_fills_its_window_and_the_next_one_tells_how_many_were_held_back() {
        let mut limiter = Limiter::default();
        let start = Instant::now();
        for _ in 0..LINES_PER_WINDOW {
            assert_eq!(limiter.admit("lost", start), Some(0));
        }
        assert_eq!(limiter.admit("lost", start), None);
        assert_eq!(limiter.admit("lost", start + WINDOW / 2), None);
        assert_eq!(limiter.admit("other", start), Some(0));
        assert_eq!(limiter.admit("lost", start + WINDOW), Some(2));
        assert_eq!(limiter.admit("lost", start + WINDOW), Some(0));
    }

    #[test]
    fn levels_have_an_order_and_names() {
        assert!(Level::Debug < Level::Info && Level::Warning < Level::Error);
        for level in [Level::Debug, Level::Info, Level::Warning, Level::Error] {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert!("loud".parse::<Level>().is_err());
    }
}
