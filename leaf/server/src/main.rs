//! `anabranch-leaf`: the process around the leaf server.

use std::error::Error;
use std::io;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use anabranch_leaf::control::event::{Hello, PROTOCOL};
use anabranch_leaf::control::server::Server;
use anabranch_leaf::leaf::Leaf;
use anabranch_leaf::log::{Level, log, set_level};
use anabranch_leaf::net::socket::bind_shared;
use anabranch_leaf::options::{Command, HELP, Options, parse};
use anabranch_leaf::worker::repair::{Answering, repair_socket};
use anabranch_leaf::{identity, process};
use signal_hook::consts::{SIGINT, SIGTERM};

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => print!("{HELP}"),
        Ok(Command::Version) => println!("anabranch-leaf {}", env!("CARGO_PKG_VERSION")),
        Ok(Command::Serve(options)) => {
            set_level(options.log_level);
            if let Err(error) = serve(&options) {
                log!(
                    Level::Error,
                    "leaf server failed",
                    error = error.to_string()
                );
                return ExitCode::FAILURE;
            }
        }
        Err(error) => {
            eprintln!("anabranch-leaf: {error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    if options.die_with_parent {
        process::die_with_parent()?;
    }
    process::raise_file_limit();
    let stop = stop_signals()?;
    let identity = match &options.identity {
        Some(path) => identity::load_or_create(path)
            .map_err(|error| format!("identity {}: {error}", path.display()))?,
        None => identity::generate()?,
    };
    let sockets = bind_shared(&options.listen, options.threads.get())?;
    let listen = sockets[0]
        .iter()
        .map(|socket| socket.local_addr())
        .collect::<io::Result<_>>()?;
    let answering = match options.repair {
        Some(address) => {
            let socket = repair_socket(address).map_err(|error| format!("{address}: {error}"))?;
            Some(Answering::new(socket, options.repair_for.clone()))
        }
        None => None,
    };
    let repair = answering
        .as_ref()
        .map(|answering| answering.socket().local_addr())
        .transpose()?;
    let hello = Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        fingerprint: identity.fingerprint().to_string(),
        listen,
        repair,
        threads: options.threads.get(),
    };
    let mut control = Server::bind(&options.control, hello)
        .map_err(|error| format!("control socket {}: {error}", options.control.display()))?;
    control.stop_on(stop)?;
    log!(
        Level::Info,
        "leaf server started",
        threads = options.threads.get()
    );
    let mut leaf = Leaf::start(identity, sockets, answering, &control.outbox())?;
    control.run(&mut leaf)?;
    leaf.stop();
    log!(Level::Info, "leaf server ended");
    Ok(())
}

/// A stream that can be read as soon as SIGTERM or SIGINT came.
fn stop_signals() -> io::Result<UnixStream> {
    let (stop, signal) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGTERM, signal.try_clone()?)?;
    signal_hook::low_level::pipe::register(SIGINT, signal)?;
    Ok(stop)
}
