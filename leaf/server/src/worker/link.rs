//! What the connection of every peer has, viewer's or publisher's: ICE-lite, handshake, keys, limits.

use std::net::SocketAddr;

use leaf_core::Micros;
use leaf_secure::dtls::{Fingerprint, Secrets};
use leaf_secure::srtp::{Inbound, Outbound, SrtpError};
use leaf_wire::ice::Credentials;
use leaf_wire::stun::{self, StunError};

use super::limits::{Allowance, Checks};
use crate::control::reply::PeerState;
use crate::net::batch::Batch;

/// The keys of a connection that is up.
pub struct Keys {
    /// The secrets they come from, kept for a hand-over.
    pub secrets: Secrets,
    /// For what is sent.
    pub outbound: Outbound,
    /// For what is received.
    pub inbound: Inbound,
}

impl Keys {
    /// Make both directions' keys.
    ///
    /// # Errors
    /// A secret that does not fit its profile.
    pub fn new(secrets: Secrets) -> Result<Self, SrtpError> {
        Ok(Self {
            outbound: Outbound::new(secrets.profile, &secrets.outbound)?,
            inbound: Inbound::new(secrets.profile, &secrets.inbound)?,
            secrets,
        })
    }
}

/// Where a peer's packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Its address.
    pub to: SocketAddr,
    /// Which of the worker's sockets.
    pub socket: usize,
}

/// Why an RTCP packet is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// It is not of the peer, or a repetition.
    NotAuthentic,
    /// The peer sends more than anybody has to say.
    Excess,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// It is the peer's, who chooses the path that it came by, or not. There is an answer.
    Authentic {
        /// Whether the path is chosen.
        chosen: bool,
    },
    /// It is refused, by the answer that is there.
    Refused,
    /// It is not answered.
    Dropped,
}

/// One peer's connection.
pub struct Link {
    /// The controller's name for it.
    pub name: String,
    /// Our ICE credentials.
    pub credentials: Credentials,
    /// Its ICE user name fragment.
    pub remote_ufrag: String,
    /// Its certificate.
    pub fingerprint: Fingerprint,
    /// Whether the handshake thread knows it.
    pub handshaking: bool,
    /// Where its packets go, once a check has come.
    pub path: Option<Path>,
    /// The keys, once there are some.
    pub keys: Option<Keys>,
    /// When it was added.
    pub added: Micros,
    /// When something authentic came from it.
    pub heard: Micros,
    /// The checks that came.
    pub checks: Checks,
    /// How much RTCP it may send.
    pub allowance: Allowance,
    /// When it stands in the timers.
    pub scheduled: Option<Micros>,
}

impl Link {
    /// A connection that the peer is to open.
    pub fn new(
        name: String,
        credentials: Credentials,
        remote_ufrag: String,
        fingerprint: Fingerprint,
        now: Micros,
    ) -> Self {
        Self {
            name,
            credentials,
            remote_ufrag,
            fingerprint,
            handshaking: false,
            path: None,
            keys: None,
            added: now,
            heard: now,
            checks: Checks::default(),
            allowance: Allowance::default(),
            scheduled: None,
        }
    }

    /// How far it is.
    pub fn state(&self) -> PeerState {
        match (&self.keys, self.handshaking) {
            (Some(_), _) => PeerState::Up,
            (None, true) => PeerState::Handshaking,
            (None, false) => PeerState::New,
        }
    }

    /// Take a connectivity check that came from `from`; the answer is put into `answer`. If `from`
    /// `is_taken` by another peer's media the check is dropped.
    pub fn check(
        &mut self,
        check: &[u8],
        from: SocketAddr,
        is_taken: bool,
        answer: &mut Vec<u8>,
        now: Micros,
    ) -> Checked {
        let right = stun::ufrag_of(check).is_some_and(|(_, remote)| remote == self.remote_ufrag);
        match stun::answer(check, from, &self.credentials.pwd, answer) {
            Ok(request) if right && !is_taken && self.checks.is_new(check, from) => {
                self.heard = now;
                Checked::Authentic {
                    chosen: self.path.is_none() || request.use_candidate,
                }
            }
            Err(StunError::Refused(_)) => Checked::Refused,
            _ => Checked::Dropped,
        }
    }

    /// Open an RTCP packet into `plain`.
    ///
    /// # Errors
    /// Why it is of no use.
    pub fn open_rtcp(
        &mut self,
        packet: &[u8],
        plain: &mut Vec<u8>,
        now: Micros,
    ) -> Result<(), Unusable> {
        let keys = self.keys.as_mut().ok_or(Unusable::NotAuthentic)?;
        keys.inbound
            .unprotect_rtcp(packet, plain)
            .map_err(|_| Unusable::NotAuthentic)?;
        self.heard = now;
        if self.allowance.take(now) {
            Ok(())
        } else {
            Err(Unusable::Excess)
        }
    }

    /// Open an RTP packet into `plain`.
    ///
    /// # Errors
    /// It is not of the peer, or a repetition.
    pub fn open_rtp(
        &mut self,
        packet: &[u8],
        plain: &mut Vec<u8>,
        now: Micros,
    ) -> Result<(), Unusable> {
        let keys = self.keys.as_mut().ok_or(Unusable::NotAuthentic)?;
        keys.inbound
            .unprotect_rtp(packet, plain)
            .map_err(|_| Unusable::NotAuthentic)?;
        self.heard = now;
        Ok(())
    }

    /// Send a compound RTCP packet, if the connection is up and there is one.
    pub fn send_rtcp(&mut self, compound: &[u8], batches: &mut [Batch]) {
        let (Some(path), Some(keys)) = (self.path, self.keys.as_mut()) else {
            return;
        };
        let Some(batch) = batches
            .get_mut(path.socket)
            .filter(|_| !compound.is_empty())
        else {
            return;
        };
        let mut protected = Vec::new();
        if keys.outbound.protect_rtcp(compound, &mut protected).is_ok() {
            push(batch, path.to, &protected);
        }
    }
}

/// Put a datagram that is ready into a batch; what is longer than it takes is dropped.
pub fn push(batch: &mut Batch, to: SocketAddr, datagram: &[u8]) {
    batch.push(to, |out| match out.get_mut(..datagram.len()) {
        Some(room) => {
            room.copy_from_slice(datagram);
            datagram.len()
        }
        None => 0,
    });
}
