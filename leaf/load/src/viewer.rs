//! One viewer without a socket: connectivity checks, then DTLS, then media.

use std::collections::VecDeque;

use leaf_secure::dtls::{Fingerprint, Handshake, Identity, Progress};
use leaf_wire::datagram::Datagram;

use crate::clock::Micros;
use crate::figures::Figures;
use crate::ice::{Agent, Outcome};
use crate::media::{Agreed, Media, Shared};

/// Something that happened to a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// DTLS is done: media may come.
    Up,
    /// The other side said goodbye.
    Closed,
    /// The viewer is not, or no longer, connected.
    Failed(String),
    /// The first packet of a key frame of the stream that was awaited.
    Arrived {
        /// The stream.
        stream: u32,
        /// When the kernel received the packet.
        at: Micros,
    },
}

/// One viewer. After each call with a time, send all that [`Self::transmit`] gives, take
/// [`Self::event`], and call [`Self::handle_due`] at [`Self::due`].
pub struct Viewer {
    identity: Identity,
    expected: Fingerprint,
    agreed: Agreed,
    agent: Agent,
    handshake: Option<Handshake>,
    media: Option<Media>,
    awaited: Option<u32>,
    is_over: bool,
    outgoing: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
}

impl Viewer {
    /// A viewer that begins with its agent's first check. `expected` is the fingerprint that the
    /// other side's certificate must have.
    #[must_use]
    pub fn new(identity: Identity, expected: Fingerprint, agreed: Agreed, agent: Agent) -> Self {
        Self {
            identity,
            expected,
            agreed,
            agent,
            handshake: None,
            media: None,
            awaited: None,
            is_over: false,
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The next datagram to be sent.
    pub fn transmit(&mut self) -> Option<Vec<u8>> {
        self.outgoing.pop_front()
    }

    /// The next thing that happened.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Takes a datagram that arrived at `at`.
    pub fn receive(&mut self, datagram: &[u8], at: Micros, now: Micros, shared: &mut Shared) {
        if self.is_over {
            return;
        }
        match Datagram::classify(datagram) {
            Datagram::Rtp => {
                let media = self.media.as_mut();
                let arrived = media.and_then(|media| media.receive_rtp(datagram, at, shared));
                if let Some(stream) = arrived {
                    self.events.push_back(Event::Arrived { stream, at });
                }
            }
            Datagram::Rtcp => {
                if let Some(media) = &mut self.media {
                    media.receive_rtcp(datagram, at, shared);
                }
            }
            Datagram::Stun => self.receive_stun(datagram, now),
            Datagram::Dtls => {
                if let Some(handshake) = &mut self.handshake {
                    handshake.receive(datagram, now);
                    self.follow(now);
                }
            }
            Datagram::Other => {}
        }
    }

    fn receive_stun(&mut self, message: &[u8], now: Micros) {
        match self.agent.receive(message, now) {
            Ok(Outcome::Connected) => {
                match Handshake::client(&self.identity, self.expected.clone(), now) {
                    Ok(handshake) => {
                        self.handshake = Some(handshake);
                        self.follow(now);
                    }
                    Err(error) => self.fail(error.to_string()),
                }
            }
            Ok(Outcome::Answer(answer)) => self.outgoing.push_back(answer),
            Ok(Outcome::Confirmed | Outcome::Ignored) => {}
            Err(why) => self.fail(why),
        }
    }

    /// Sends what the handshake has to say, and sees how far it is.
    fn follow(&mut self, now: Micros) {
        let Some(handshake) = &mut self.handshake else {
            return;
        };
        self.outgoing
            .extend(std::iter::from_fn(|| handshake.transmit()));
        match handshake.progress() {
            Progress::Established(secrets) if self.media.is_none() => {
                match Media::new(self.agreed, secrets, now) {
                    Ok(mut media) => {
                        if let Some(stream) = self.awaited {
                            media.await_stream(stream);
                        }
                        self.media = Some(media);
                        self.events.push_back(Event::Up);
                    }
                    Err(error) => self.fail(error.to_string()),
                }
            }
            Progress::Handshaking | Progress::Established(_) => {}
            Progress::Closed => {
                self.is_over = true;
                self.events.push_back(Event::Closed);
            }
            Progress::Failed(why) => {
                let why = why.clone();
                self.fail(why);
            }
        }
    }

    fn fail(&mut self, why: String) {
        self.is_over = true;
        self.events.push_back(Event::Failed(why));
    }

    /// When [`Self::handle_due`] is to be called; None: never, it is over.
    #[must_use]
    pub fn due(&self) -> Option<Micros> {
        if self.is_over {
            return None;
        }
        let handshake = self.handshake.as_ref().and_then(Handshake::timeout);
        let media = self.media.as_ref().map(Media::due);
        Some(
            handshake
                .into_iter()
                .chain(media)
                .fold(self.agent.due(), Micros::min),
        )
    }

    /// Does what is due now.
    pub fn handle_due(&mut self, now: Micros) {
        if self.is_over {
            return;
        }
        if self.agent.due() <= now {
            match self.agent.check(now) {
                Ok(check) => self.outgoing.push_back(check),
                Err(why) => return self.fail(why),
            }
        }
        if let Some(handshake) = &mut self.handshake
            && handshake.timeout().is_some_and(|at| at <= now)
        {
            handshake.handle_timeout(now);
            self.follow(now);
        }
        if let Some(media) = self.media.as_mut().filter(|media| media.due() <= now) {
            self.outgoing.extend(media.feedback(now));
        }
    }

    /// Tells by [`Event::Arrived`] when a key frame of `stream` begins.
    pub fn await_stream(&mut self, stream: u32) {
        self.awaited = Some(stream);
        if let Some(media) = &mut self.media {
            media.await_stream(stream);
        }
    }

    /// Says goodbye, if there is anybody to say it to.
    pub fn close(&mut self) {
        self.is_over = true;
        if let Some(handshake) = &mut self.handshake {
            handshake.close();
            self.outgoing
                .extend(std::iter::from_fn(|| handshake.transmit()));
        }
    }

    /// Whether media may come.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.media.is_some() && !self.is_over
    }

    /// What was counted so far. With `reset` the longest delay is looked for anew.
    pub fn figures(&mut self, reset: bool) -> Figures {
        self.media
            .as_mut()
            .map_or_else(Figures::default, |media| media.figures(reset))
    }
}
