//! Connectivity checks of a full, controlling agent (RFC 8445 section 7.2).

use std::net::SocketAddr;

use stun_types::attribute::{ErrorCode, RawAttribute, Username, XorMappedAddress};
use stun_types::message::{
    BINDING, IntegrityAlgorithm, Message, MessageClass, MessageType, MessageWriteVec,
    StunWriteError, TransactionId,
};
use stun_types::prelude::*;

use super::attributes::{ICE_CONTROLLING, PRIORITY, USE_CANDIDATE};
use super::{StunError, Transaction, integrity_key, read};

/// A connectivity check to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// A random number that its response repeats.
    pub transaction: Transaction,
    /// User name fragment of the agent that asks.
    pub local_ufrag: &'a str,
    /// User name fragment of the agent asked.
    pub remote_ufrag: &'a str,
    /// Password of the agent asked.
    pub remote_pwd: &'a str,
    /// Whether the path is chosen by this check.
    pub use_candidate: bool,
    /// Priority of a peer reflexive candidate.
    pub priority: u32,
    /// A random number for conflicts of roles.
    pub tie_breaker: u64,
}

/// Puts the binding request of `check` into `out`, which is cleared before.
///
/// # Errors
///
/// [`StunError::Unwritable`] if the user name is longer than 513 bytes.
pub fn request(check: &Check<'_>, out: &mut Vec<u8>) -> Result<(), StunError> {
    out.clear();
    let username = format!("{}:{}", check.remote_ufrag, check.local_ufrag);
    let mut message = Message::builder(
        MessageType::from_class_method(MessageClass::Request, BINDING),
        transaction_id(&check.transaction),
        MessageWriteVec::new(),
    );
    message.add_attribute(&Username::new(&username)?)?;
    let mut add = |attribute, value: &[u8]| -> Result<(), StunWriteError> {
        message.add_attribute(&RawAttribute::new(attribute, value))
    };
    add(ICE_CONTROLLING, &check.tie_breaker.to_be_bytes())?;
    add(PRIORITY, &check.priority.to_be_bytes())?;
    if check.use_candidate {
        add(USE_CANDIDATE, &[])?;
    }
    let key = integrity_key(check.remote_pwd);
    message.add_message_integrity_with_key(&key, IntegrityAlgorithm::Sha1)?;
    message.add_fingerprint()?;
    out.extend_from_slice(&message.finish());
    Ok(())
}

/// The address that the response in `packet` tells the asking agent it is seen by.
///
/// # Errors
///
/// - [`StunError::Malformed`] for what is no STUN message or tells no address.
/// - [`StunError::Unexpected`] for another transaction or what is no response to a check.
/// - [`StunError::Unauthentic`] for a success not signed by `remote_pwd`.
/// - [`StunError::Refused`] for an error response, signed or not.
pub fn response(
    packet: &[u8],
    transaction: &Transaction,
    remote_pwd: &str,
) -> Result<SocketAddr, StunError> {
    let message = read(packet)?;
    let id = transaction_id(transaction);
    if message.transaction_id() != id || !message.has_method(BINDING) {
        return Err(StunError::Unexpected);
    }
    match message.class() {
        MessageClass::Success => {}
        MessageClass::Error => {
            let error = message.attribute::<ErrorCode>();
            let error = error.map_err(|_| StunError::Malformed)?;
            return Err(StunError::Refused(error.code()));
        }
        MessageClass::Request | MessageClass::Indication => return Err(StunError::Unexpected),
    }
    message
        .validate_integrity_with_key(&integrity_key(remote_pwd))
        .map_err(|_| StunError::Unauthentic)?;
    let address = message.attribute::<XorMappedAddress>();
    Ok(address.map_err(|_| StunError::Malformed)?.addr(id))
}

fn transaction_id(transaction: &Transaction) -> TransactionId {
    let number = transaction
        .iter()
        .fold(0, |number: u128, &byte| (number << 8) | u128::from(byte));
    number.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Check, request, response};
    use crate::stun::test_vectors::{IPV4_RESPONSE, IPV6_RESPONSE, PASSWORD, REQUEST, TRANSACTION};
    use crate::stun::{StunError, answer, ufrag_of};

    const CHECK: Check<'_> = Check {
        transaction: TRANSACTION,
        local_ufrag: "h6vY",
        remote_ufrag: "evtj",
        remote_pwd: PASSWORD,
        use_candidate: false,
        priority: 1,
        tie_breaker: 2,
    };

    #[test]
    fn the_responses_of_rfc_5769() {
        let ipv4 = "192.0.2.1:32853".parse().unwrap();
        assert_eq!(response(&IPV4_RESPONSE, &TRANSACTION, PASSWORD), Ok(ipv4));
        let ipv6 = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse();
        assert_eq!(
            response(&IPV6_RESPONSE, &TRANSACTION, PASSWORD),
            Ok(ipv6.unwrap())
        );
    }

    #[test]
    fn other_messages_are_no_response() {
        let unexpected = Err(StunError::Unexpected);
        assert_eq!(response(&IPV4_RESPONSE, &[0; 12], PASSWORD), unexpected);
        assert_eq!(response(&REQUEST, &TRANSACTION, PASSWORD), unexpected);
        assert_eq!(
            response(&IPV4_RESPONSE, &TRANSACTION, "another"),
            Err(StunError::Unauthentic)
        );
        assert_eq!(
            response(&IPV4_RESPONSE[..79], &TRANSACTION, PASSWORD),
            Err(StunError::Malformed)
        );
    }

    #[test]
    fn a_refusal_is_told() {
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        request(&CHECK, &mut asked).unwrap();
        let from = "192.0.2.1:32853".parse().unwrap();
        answer(&asked, from, "another", &mut answered).unwrap_err();
        assert_eq!(
            response(&answered, &TRANSACTION, PASSWORD),
            Err(StunError::Refused(401))
        );
    }

    #[test]
    fn the_agent_asked_is_named_first() {
        let mut asked = Vec::new();
        request(&CHECK, &mut asked).unwrap();
        assert_eq!(asked[8..20], TRANSACTION);
        assert_eq!(ufrag_of(&asked), Some(("evtj", "h6vY")));
    }

    #[test]
    fn a_name_too_long_is_an_error() {
        let long = "x".repeat(600);
        let check = Check {
            local_ufrag: &long,
            ..CHECK
        };
        assert_eq!(request(&check, &mut Vec::new()), Err(StunError::Unwritable));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            prop_assert!(response(&bytes, &TRANSACTION, PASSWORD).is_err());
        }

        #[test]
        fn a_damaged_response_is_refused(position in 0usize..72, bit in 0..8u32) {
            // All but the FINGERPRINT, which may as well be missing.
            let mut bytes = IPV4_RESPONSE;
            bytes[position] ^= 1 << bit;
            prop_assert!(response(&bytes, &TRANSACTION, PASSWORD).is_err());
        }
    }
}
