//! The command line.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use lexopt::{Arg, Parser, ValueExt};

use leaf_core::prefix::Prefix;

use crate::log::Level;

/// More workers than this are a mistake: each has a copy of every ring.
const MOST_THREADS: usize = 64;

/// What `--help` prints.
pub const HELP: &str = "\
Usage: anabranch-leaf serve --control PATH [--listen ADDRESS:PORT] [OPTIONS]

  --control PATH         Unix socket on which the controller connects
  --listen ADDRESS:PORT  where viewers' packets arrive; once per local address, one port for all
                         (0: one that the system chooses); without it there are no viewers
  --repair ADDRESS:PORT  where other servers ask for lost packets; this or --listen must be given
  --repair-for ADDRESS/BITS
                         who may ask; any number of times
  --threads N            worker threads, 1 to 64 (1)
  --identity FILE        PEM file with certificate and key, written if it is not there
  --log-level LEVEL      debug, info, warning or error (info)
  --die-with-parent      end when the parent process ends
  --help, --version
";

/// What the process is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Serve viewers.
    Serve(Options),
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// The options of `serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Path of the control socket.
    pub control: PathBuf,
    /// Addresses for viewers, all with the same port.
    pub listen: Vec<SocketAddr>,
    /// Where other servers ask for lost packets.
    pub repair: Option<SocketAddr>,
    /// Who may ask.
    pub repair_for: Vec<Prefix>,
    /// Number of worker threads.
    pub threads: NonZeroUsize,
    /// Where certificate and key are kept; without it they last as long as the process.
    pub identity: Option<PathBuf>,
    /// The least level that is logged.
    pub log_level: Level,
    /// Whether to end with the parent process.
    pub die_with_parent: bool,
}

/// Why a command line cannot be used, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, UsageError> {
    Err(UsageError(why.into()))
}

/// Read a command line, without the program's name.
///
/// # Errors
/// [`UsageError`] for anything that [`HELP`] does not allow.
pub fn parse<I>(arguments: I) -> Result<Command, UsageError>
where
    I: IntoIterator<Item: Into<OsString>>,
{
    let mut parser = Parser::from_args(arguments);
    let mut serve = false;
    let mut control = None;
    let mut listen = Vec::new();
    let mut repair = None;
    let mut repair_for = Vec::new();
    let mut threads = NonZeroUsize::MIN;
    let mut identity = None;
    let mut log_level = Level::Info;
    let mut die_with_parent = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Long("version") | Arg::Short('V') => return Ok(Command::Version),
            Arg::Long("control") => control = Some(PathBuf::from(parser.value()?)),
            Arg::Long("listen") => listen.push(value(&mut parser, "--listen")?),
            Arg::Long("repair") => repair = Some(value(&mut parser, "--repair")?),
            Arg::Long("repair-for") => repair_for.push(value(&mut parser, "--repair-for")?),
            Arg::Long("threads") => threads = value(&mut parser, "--threads")?,
            Arg::Long("identity") => identity = Some(PathBuf::from(parser.value()?)),
            Arg::Long("log-level") => log_level = value(&mut parser, "--log-level")?,
            Arg::Long("die-with-parent") => die_with_parent = true,
            Arg::Value(command) if !serve && command == "serve" => serve = true,
            other => return Err(other.unexpected().into()),
        }
    }
    if !serve {
        return refuse("no command: `serve` is the only one");
    }
    let Some(control) = control else {
        return refuse("--control is missing");
    };
    if threads.get() > MOST_THREADS {
        return refuse(format!("--threads must be 1 to {MOST_THREADS}"));
    }
    if listen.is_empty() && repair.is_none() {
        return refuse("--listen is missing");
    }
    check_listen(&listen)?;
    check_repair(repair, &repair_for)?;
    Ok(Command::Serve(Options {
        control,
        listen,
        repair,
        repair_for,
        threads,
        identity,
        log_level,
        die_with_parent,
    }))
}

fn value<T>(parser: &mut Parser, option: &str) -> Result<T, UsageError>
where
    T: FromStr<Err: fmt::Display>,
{
    let text = parser.value()?.string()?;
    text.parse()
        .or_else(|why| refuse(format!("{option} {text}: {why}")))
}

fn check_listen(listen: &[SocketAddr]) -> Result<(), UsageError> {
    let Some(first) = listen.first() else {
        return Ok(());
    };
    for (index, address) in listen.iter().enumerate() {
        // Answers from an unspecified address may leave from another one than the viewer talks to,
        // and it cannot be told as an ICE candidate.
        if address.ip().is_unspecified() || address.ip().is_multicast() {
            return refuse(format!(
                "--listen {address}: must be an address of this machine"
            ));
        }
        if address.port() != first.port() {
            return refuse(format!(
                "--listen {address}: the port must be {}, as of {first}",
                first.port()
            ));
        }
        if listen[..index].contains(address) {
            return refuse(format!("--listen {address}: given twice"));
        }
    }
    Ok(())
}

fn check_repair(repair: Option<SocketAddr>, may_ask: &[Prefix]) -> Result<(), UsageError> {
    match repair {
        Some(address) if address.ip().is_unspecified() || address.ip().is_multicast() => refuse(
            format!("--repair {address}: must be an address of this machine"),
        ),
        Some(_) if may_ask.is_empty() => refuse("--repair-for is missing: nobody could ask"),
        None if !may_ask.is_empty() => refuse("--repair-for without --repair"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, UsageError> {
        parse(line.split_whitespace())
    }

    #[test]
    fn everything_given() {
        let line = "serve --control /run/leaf --listen 10.0.3.2:40000 --listen [fd00::2]:40000 \
                    --repair 10.0.3.2:5900 --repair-for 10.0.3.0/24 --threads 2 --identity=/var/leaf.pem --log-level debug --die-with-parent";
        let expected = Options {
            control: "/run/leaf".into(),
            listen: vec![
                "10.0.3.2:40000".parse().unwrap(),
                "[fd00::2]:40000".parse().unwrap(),
            ],
            repair: Some("10.0.3.2:5900".parse().unwrap()),
            repair_for: vec!["10.0.3.0/24".parse().unwrap()],
            threads: NonZeroUsize::new(2).unwrap(),
            identity: Some("/var/leaf.pem".into()),
            log_level: Level::Debug,
            die_with_parent: true,
        };
        assert_eq!(read(line), Ok(Command::Serve(expected)));
    }

    #[test]
    fn defaults() {
        let Ok(Command::Serve(options)) = read("serve --control c --listen 127.0.0.1:0") else {
            panic!("refused");
        };
        assert_eq!(options.threads.get(), 1);
        assert_eq!(options.log_level, Level::Info);
        assert_eq!(options.identity, None);
        assert!(!options.die_with_parent);
    }

    #[test]
    fn help_and_version_need_nothing_else() {
        assert_eq!(read("--help"), Ok(Command::Help));
        assert_eq!(read("serve -V"), Ok(Command::Version));
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        for (line, part) in [
            ("", "no command"),
            ("play", "play"),
            ("serve", "--control"),
            ("serve --control", "--control"),
            ("serve --control c", "--listen"),
            ("serve --control c --listen here", "--listen here"),
            ("serve --control c --repair 10.0.0.1:1", "--repair-for"),
            (
                "serve --control c --listen 10.0.0.1:1 --repair-for 10.0.0.0/8",
                "without --repair",
            ),
            (
                "serve --control c --repair 0.0.0.0:1 --repair-for 10.0.0.0/8",
                "address of this machine",
            ),
            (
                "serve --control c --repair 10.0.0.1:1 --repair-for 10.0.0.0/99",
                "ADDRESS/BITS",
            ),
            ("serve --control c --listen 10.0.0.1", "--listen 10.0.0.1"),
            (
                "serve --control c --listen 0.0.0.0:1",
                "address of this machine",
            ),
            (
                "serve --control c --listen [::]:1",
                "address of this machine",
            ),
            (
                "serve --control c --listen 224.0.0.1:1",
                "address of this machine",
            ),
            (
                "serve --control c --listen 10.0.0.1:1 --listen 10.0.0.2:2",
                "port must be 1",
            ),
            (
                "serve --control c --listen 10.0.0.1:1 --listen 10.0.0.1:1",
                "twice",
            ),
            (
                "serve --control c --listen 10.0.0.1:1 --threads 0",
                "--threads 0",
            ),
            (
                "serve --control c --listen 10.0.0.1:1 --threads 65",
                "1 to 64",
            ),
            (
                "serve --control c --listen 10.0.0.1:1 --log-level loud",
                "loud",
            ),
            ("serve serve", "serve"),
            ("serve --verbose", "--verbose"),
        ] {
            let error = read(line).expect_err(line).to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
