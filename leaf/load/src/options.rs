//! The command line.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use lexopt::{Arg, Parser, ValueExt};

use crate::source;
use crate::synthetic::Shape;

/// What `--help` prints.
pub const HELP: &str = "\
Usage: leaf-load receive [--bind ADDRESS] [--sample 1/N] [--die-with-parent]
       leaf-load source --to ADDRESS:PORT [--audio-to ADDRESS:PORT] [--kbps N] [--fps N] [--gop S]
                        [--ssrc N] [--die-with-parent]

receive: viewers, as told by lines of JSON on standard input
  --bind ADDRESS         local address of their sockets (0.0.0.0)
  --sample 1/N           share of the packets that are looked into (1/1)
source: a synthetic stream
  --to ADDRESS:PORT      where the picture goes
  --audio-to ADDRESS:PORT  where the sound goes; without it there is none
  --kbps N               bit rate of the picture (600)
  --fps N                pictures in a second (25)
  --gop S                seconds from one key frame to the next (2)
  --ssrc N               SSRC of the picture and number of the stream; the sound has the next (1)
both:
  --die-with-parent      end when the parent process ends
  --help, --version
";

/// What the process is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Be viewers.
    Receive {
        /// Local address of their sockets.
        bind: IpAddr,
        /// One of so many packets is looked into.
        sample: u16,
    },
    /// Be a source.
    Source(source::Options),
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// A command line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What to do.
    pub action: Action,
    /// Whether to end with the parent process.
    pub die_with_parent: bool,
}

/// Why a command line cannot be used, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// One of so many packets, as `1/16`.
#[derive(Clone, Copy)]
struct Share(u16);

impl FromStr for Share {
    type Err = UsageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let of = text.strip_prefix("1/").and_then(|of| of.parse().ok());
        of.filter(|&of| of > 0)
            .map(Self)
            .ok_or_else(|| UsageError("it must be like 1/16".into()))
    }
}

/// Reads a command line, without the program's name.
///
/// # Errors
///
/// [`UsageError`] for anything that [`HELP`] does not allow.
pub fn parse<I>(arguments: I) -> Result<Options, UsageError>
where
    I: IntoIterator<Item: Into<OsString>>,
{
    let mut parser = Parser::from_args(arguments);
    let mut given = Given::default();
    while let Some(argument) = parser.next()? {
        match (given.mode, argument) {
            (_, Arg::Long("help") | Arg::Short('h')) => return Ok(alone(Action::Help)),
            (_, Arg::Long("version") | Arg::Short('V')) => return Ok(alone(Action::Version)),
            (_, Arg::Long("die-with-parent")) => given.die_with_parent = true,
            (None, Arg::Value(command)) if command == "receive" => given.mode = Some(Mode::Receive),
            (None, Arg::Value(command)) if command == "source" => given.mode = Some(Mode::Source),
            (Some(Mode::Receive), Arg::Long("bind")) => given.bind = Some(value(&mut parser)?),
            (Some(Mode::Receive), Arg::Long("sample")) => given.sample = Some(value(&mut parser)?),
            (Some(Mode::Source), Arg::Long("to")) => given.to = Some(value(&mut parser)?),
            (Some(Mode::Source), Arg::Long("audio-to")) => {
                given.audio_to = Some(value(&mut parser)?);
            }
            (Some(Mode::Source), Arg::Long("kbps")) => given.kbps = Some(value(&mut parser)?),
            (Some(Mode::Source), Arg::Long("fps")) => given.fps = Some(value(&mut parser)?),
            (Some(Mode::Source), Arg::Long("gop")) => given.gop_s = Some(value(&mut parser)?),
            (Some(Mode::Source), Arg::Long("ssrc")) => given.ssrc = Some(value(&mut parser)?),
            (_, other) => return Err(other.unexpected().into()),
        }
    }
    given.options()
}

fn alone(action: Action) -> Options {
    Options {
        action,
        die_with_parent: false,
    }
}

fn value<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    parser: &mut Parser,
) -> Result<T, UsageError> {
    Ok(parser.value()?.parse()?)
}

/// The command, which comes first.
#[derive(Clone, Copy)]
enum Mode {
    Receive,
    Source,
}

/// What was given so far.
#[derive(Default)]
struct Given {
    mode: Option<Mode>,
    die_with_parent: bool,
    bind: Option<IpAddr>,
    sample: Option<Share>,
    to: Option<SocketAddr>,
    audio_to: Option<SocketAddr>,
    kbps: Option<u32>,
    fps: Option<u32>,
    gop_s: Option<f64>,
    ssrc: Option<u32>,
}

impl Given {
    fn options(self) -> Result<Options, UsageError> {
        let action = match self.mode {
            Some(Mode::Receive) => Action::Receive {
                bind: self.bind.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
                sample: self.sample.map_or(1, |share| share.0),
            },
            Some(Mode::Source) => Action::Source(source::Options {
                to: self
                    .to
                    .ok_or_else(|| UsageError("--to is missing".into()))?,
                audio_to: self.audio_to,
                shape: self.shape()?,
                ssrc: self.ssrc.unwrap_or(1),
            }),
            None => {
                return Err(UsageError(
                    "there are two commands: receive and source".into(),
                ));
            }
        };
        Ok(Options {
            action,
            die_with_parent: self.die_with_parent,
        })
    }

    fn shape(&self) -> Result<Shape, UsageError> {
        let fps = self.fps.unwrap_or(25);
        let gop = (self.gop_s.unwrap_or(2.0) * f64::from(fps)).round();
        if !(1..=1000).contains(&fps) || !(1.0..=100_000.0).contains(&gop) {
            return Err(UsageError("--fps and --gop must make sense".into()));
        }
        Ok(Shape {
            kbps: self.kbps.unwrap_or(600),
            fps,
            gop: gop as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, UsageError> {
        parse(line.split_whitespace())
    }

    #[test]
    fn both_commands_are_read() {
        let expected = Action::Receive {
            bind: "10.0.0.1".parse().unwrap(),
            sample: 16,
        };
        let line = "receive --bind 10.0.0.1 --sample 1/16 --die-with-parent";
        let options = Options {
            action: expected,
            die_with_parent: true,
        };
        assert_eq!(parsed(line), Ok(options));
        let expected = Action::Source(source::Options {
            to: "[::1]:5004".parse().unwrap(),
            audio_to: None,
            shape: Shape {
                kbps: 300,
                fps: 30,
                gop: 15,
            },
            ssrc: 7,
        });
        let line = "source --to [::1]:5004 --kbps 300 --fps 30 --gop 0.5 --ssrc 7";
        assert_eq!(parsed(line), Ok(alone(expected)));
        assert_eq!(parsed("source --version"), Ok(alone(Action::Version)));
    }

    #[test]
    fn anything_else_is_refused() {
        for line in [
            "",
            "other",
            "source",
            "source --to x",
            "source --to 127.0.0.1:1 --fps 0",
            "source --to 127.0.0.1:1 --gop NaN",
            "source --to 127.0.0.1:1 --sample 1/2",
            "receive --sample 16",
            "receive --sample 1/0",
            "receive --to 127.0.0.1:1",
            "--bind 127.0.0.1 receive",
            "receive source",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
