//! Sends a synthetic stream, in real time, until the process ends.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use crate::clock;
use crate::synthetic::{Audio, Shape, Video};

/// Where to send what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the picture goes.
    pub to: SocketAddr,
    /// Where the sound goes, if there is any.
    pub audio_to: Option<SocketAddr>,
    /// What the picture is like.
    pub shape: Shape,
    /// SSRC of the picture and number of the stream; the sound has the next one.
    pub ssrc: u32,
}

/// Says how many packets it sends in a second, as a line of JSON on standard output, and sends for
/// ever. A receiver that is not there is no error: one may come.
///
/// # Errors
///
/// What the system says about the sockets.
pub fn run(options: &Options) -> io::Result<()> {
    let began = clock::now();
    let impossible = |error| io::Error::other(format!("{error}"));
    let mut video = Video::new(options.shape, options.ssrc, began).map_err(impossible)?;
    let mut audio = Audio::new(options.ssrc.wrapping_add(1), began).map_err(impossible)?;
    let to_video = socket(options.to)?;
    let to_audio = options.audio_to.map(socket).transpose()?;
    let audio_per_s = to_audio
        .as_ref()
        .map_or(0.0, |_| Audio::PACKETS_PER_S as f64);
    println!(
        "{{\"packets_per_s\": {:.1}}}",
        options.shape.packets_per_s() + audio_per_s
    );
    loop {
        let audio_due = if to_audio.is_some() {
            audio.due()
        } else {
            u64::MAX
        };
        let due = video.due().min(audio_due);
        sleep(Duration::from_micros(due.saturating_sub(clock::now())));
        let now = clock::now();
        if video.due() <= now {
            video.next(now, |packet| drop(to_video.send(packet)));
        }
        if let Some(socket) = to_audio.as_ref().filter(|_| audio_due <= now) {
            audio.next(now, |packet| drop(socket.send(packet)));
        }
    }
}

fn socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    Ok(socket)
}
