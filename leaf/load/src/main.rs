//! `leaf-load`: scripted receivers, and synthetic streams for them.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use leaf_load::control::{Event, Message, PROTOCOL};
use leaf_load::crowd::Crowd;
use leaf_load::options::{Action, HELP, parse};
use leaf_load::source;
use leaf_secure::dtls::Identity;
use mio::Waker;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

fn main() -> ExitCode {
    let options = match parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("leaf-load: {error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    if options.die_with_parent {
        // Refused only for signals that do not exist.
        let _ = set_pdeathsig(Signal::SIGTERM);
    }
    let result = match options.action {
        Action::Help => write!(io::stdout(), "{HELP}").map_err(Into::into),
        Action::Version => {
            writeln!(io::stdout(), "leaf-load {}", env!("CARGO_PKG_VERSION")).map_err(Into::into)
        }
        Action::Source(options) => source::run(&options).map_err(Into::into),
        Action::Receive { bind, sample } => receive(bind, sample),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leaf-load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Has viewers watch until standard input ends.
fn receive(bind: IpAddr, sample: u16) -> Result<(), Box<dyn Error>> {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // With fewer files there are fewer viewers, and `add` says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
    let identity = Identity::generate()?;
    let (replies, to_write) = channel();
    let (lines, inbox) = channel();
    replies.send(Message::Event(Event::Hello {
        protocol: PROTOCOL,
        pid: std::process::id(),
        fingerprint: identity.fingerprint().to_string(),
    }))?;
    let crowd = Crowd::new(bind, identity, sample, replies)?;
    let waker = crowd.waker()?;
    thread::Builder::new()
        .name("read".into())
        .spawn(move || read(lines, &waker))?;
    let watching = thread::Builder::new()
        .name("watch".into())
        .spawn(move || crowd.run(&inbox))?;
    write(&to_write)?;
    watching
        .join()
        .map_err(|_| "the viewers' thread has panicked")??;
    Ok(())
}

/// Hands lines on until there are no more.
fn read(lines: Sender<String>, waker: &Waker) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        if lines.send(line).is_err() || waker.wake().is_err() {
            return;
        }
    }
    drop(lines);
    // Fails if the process is about to end anyway.
    let _ = waker.wake();
}

/// Writes messages, in a thread of its own, so that a slow reader holds nobody up.
fn write(messages: &Receiver<Message>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for message in messages {
        serde_json::to_writer(&mut out, &message)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}
