//! A full, controlling ICE agent with one pair of candidates (RFC 8445), which keeps asking whether
//! the other side still wants what it is sent (RFC 7675).

use std::net::SocketAddr;

use leaf_wire::ice::Credentials;
use leaf_wire::stun::{self, Check, StunError, Transaction};

use crate::clock::Micros;

/// Time after which a check without an answer is sent again.
const AGAIN: Micros = 200_000;
/// Time from one confirmed check to the next.
const CONSENT: Micros = 5_000_000;
/// Time without an answer after which the path is given up (RFC 7675 section 5.1: 30 s).
const EXPIRY: Micros = 30_000_000;
/// RFC 8445 section 5.1.2.1 for a peer reflexive candidate of the first component.
const PRIORITY: u32 = 110 << 24 | 65_535 << 8 | 255;

/// The highest there is: servers that know this agent's role only after its first check (Janus) must
/// yield in the conflict (RFC 8445 section 7.3.1.1), as a lite agent has to be controlled anyway.
const TIE_BREAKER: u64 = u64::MAX;

/// What a STUN message was good for.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The other side answered for the first time: packets may be sent.
    Connected,
    /// The other side answered again.
    Confirmed,
    /// To be sent.
    Answer(Vec<u8>),
    /// Nothing.
    Ignored,
}

/// One agent.
pub struct Agent {
    local: Credentials,
    remote: Credentials,
    peer: SocketAddr,
    transaction: Transaction,
    next: Micros,
    heard: Micros,
    connected: bool,
}

impl Agent {
    /// An agent whose first check is due `now`.
    ///
    /// # Errors
    ///
    /// [`getrandom::Error`] if the system has no random numbers.
    pub fn new(
        local: Credentials,
        remote: Credentials,
        peer: SocketAddr,
        now: Micros,
    ) -> Result<Self, getrandom::Error> {
        Ok(Self {
            local,
            remote,
            peer,
            transaction: transaction()?,
            next: now,
            heard: now,
            connected: false,
        })
    }

    /// When [`Self::check`] is to be called.
    #[must_use]
    pub fn due(&self) -> Micros {
        self.next
    }

    /// The check that is to be sent now.
    ///
    /// # Errors
    ///
    /// Why there is none: nobody has answered for 30 s, or the credentials cannot be used.
    pub fn check(&mut self, now: Micros) -> Result<Vec<u8>, String> {
        if now >= self.heard + EXPIRY {
            return Err("no answer to ICE checks for 30 s".into());
        }
        self.next = now + AGAIN;
        let mut request = Vec::new();
        let check = Check {
            transaction: self.transaction,
            local_ufrag: &self.local.ufrag,
            remote_ufrag: &self.remote.ufrag,
            remote_pwd: &self.remote.pwd,
            use_candidate: true,
            priority: PRIORITY,
            tie_breaker: TIE_BREAKER,
        };
        stun::request(&check, &mut request).map_err(|error| error.to_string())?;
        Ok(request)
    }

    /// Takes a STUN message.
    ///
    /// # Errors
    ///
    /// Why the agent cannot go on: the other side refuses.
    pub fn receive(&mut self, message: &[u8], now: Micros) -> Result<Outcome, String> {
        match stun::response(message, &self.transaction, &self.remote.pwd) {
            Ok(_) => {
                self.transaction = transaction().map_err(|error| error.to_string())?;
                (self.heard, self.next) = (now, now + CONSENT);
                let before = std::mem::replace(&mut self.connected, true);
                Ok(if before {
                    Outcome::Confirmed
                } else {
                    Outcome::Connected
                })
            }
            Err(error @ StunError::Refused(_)) => Err(error.to_string()),
            Err(StunError::Unexpected) => Ok(self.answer(message)),
            Err(_) => Ok(Outcome::Ignored),
        }
    }

    /// The answer to a check of the other side.
    fn answer(&self, message: &[u8]) -> Outcome {
        let mut answer = Vec::new();
        // What is refused has its answer, too.
        let _ = stun::answer(message, self.peer, &self.local.pwd, &mut answer);
        if answer.is_empty() {
            Outcome::Ignored
        } else {
            Outcome::Answer(answer)
        }
    }
}

fn transaction() -> Result<Transaction, getrandom::Error> {
    let mut transaction = Transaction::default();
    getrandom::fill(&mut transaction)?;
    Ok(transaction)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agent() -> Agent {
        let credentials = || Credentials::random().unwrap();
        Agent::new(
            credentials(),
            credentials(),
            "192.0.2.1:5".parse().unwrap(),
            0,
        )
        .unwrap()
    }

    fn answer(agent: &Agent, check: &[u8], pwd: &str) -> Vec<u8> {
        let mut answer = Vec::new();
        let _ = stun::answer(check, agent.peer, pwd, &mut answer);
        answer
    }

    #[test]
    fn checks_are_sent_again_until_one_is_answered_and_then_now_and_then() {
        let mut agent = agent();
        let first = agent.check(0).unwrap();
        assert_eq!(agent.due(), AGAIN);
        assert_eq!(agent.check(AGAIN).unwrap(), first);
        let response = answer(&agent, &first, &agent.remote.pwd);
        assert_eq!(agent.receive(&response, AGAIN + 5), Ok(Outcome::Connected));
        assert_eq!(agent.due(), AGAIN + 5 + CONSENT);
        let second = agent.check(agent.due()).unwrap();
        assert_ne!(second, first);
        assert_eq!(
            agent.receive(&response, agent.due()),
            Ok(Outcome::Ignored),
            "an old answer"
        );
        let response = answer(&agent, &second, &agent.remote.pwd);
        assert_eq!(
            agent.receive(&response, agent.due()),
            Ok(Outcome::Confirmed)
        );
    }

    #[test]
    fn silence_and_refusals_end_it() {
        let mut agent = agent();
        let check = agent.check(EXPIRY - 1).unwrap();
        assert!(agent.check(EXPIRY).is_err());
        let refusal = answer(&agent, &check, "another");
        assert!(agent.receive(&refusal, 0).is_err());
    }

    #[test]
    fn checks_of_the_other_side_are_answered() {
        let (mut ours, mut theirs) = (agent(), agent());
        (theirs.local, theirs.remote) = (ours.remote.clone(), ours.local.clone());
        let check = theirs.check(0).unwrap();
        let Ok(Outcome::Answer(response)) = ours.receive(&check, 0) else {
            panic!("no answer");
        };
        assert_eq!(theirs.receive(&response, 0), Ok(Outcome::Connected));
    }

    proptest! {
        #[test]
        fn any_message_is_ignored_or_answered(message: Vec<u8>) {
            prop_assert_eq!(agent().receive(&message, 0), Ok(Outcome::Ignored));
        }
    }
}
