//! Answers of a lite agent, which is always controlled (RFC 8445 section 6.1.1).

use std::net::SocketAddr;

use stun_types::attribute::{
    AttributeType, ErrorCode, MessageIntegrity, MessageIntegritySha256, UnknownAttributes,
    Username, XorMappedAddress,
};
use stun_types::message::{
    BINDING, IntegrityAlgorithm, IntegrityKey, Message, MessageClass, MessageWriteVec,
    StunWriteError,
};
use stun_types::prelude::*;

use super::attributes::{ICE_CONTROLLED, PRIORITY, USE_CANDIDATE};
use super::{StunError, integrity_key, read};

/// The attributes among those that must be understood which a check may have.
const UNDERSTOOD: [AttributeType; 5] = [
    Username::TYPE,
    MessageIntegrity::TYPE,
    MessageIntegritySha256::TYPE,
    PRIORITY,
    USE_CANDIDATE,
];
/// The most unknown attributes told, so that an answer stays small.
const MAX_UNKNOWN: usize = 16;

/// An authentic binding request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whether the controlling agent chooses the path that the request came by.
    pub use_candidate: bool,
    /// Priority that a candidate learned from the request has; a lite agent learns none.
    pub priority: Option<u32>,
}

/// Why a request is answered by an error.
struct Refusal {
    code: u16,
    /// How to sign the error, once the request has proved to be authentic.
    signed: Option<IntegrityAlgorithm>,
    unknown: Vec<AttributeType>,
}

/// Checks a binding request that came from `from` and puts its answer into `out`, which is
/// cleared before.
///
/// `local_pwd` is the password that belongs to the first name of [`super::ufrag_of`].
///
/// # Errors
///
/// - [`StunError::Malformed`] and [`StunError::Unexpected`] for what is no binding request, with
///   `out` empty: there is nothing to send.
/// - [`StunError::Refused`] with the error response in `out` (RFC 8489 sections 6.3.1 and 9.1.3,
///   RFC 8445 section 7.3.1.1): 400 without USERNAME or MESSAGE-INTEGRITY or with a malformed
///   PRIORITY, 401 for a wrong MESSAGE-INTEGRITY, 420 for unknown attributes that must be
///   understood, 487 if the asking agent takes itself for controlled.
pub fn answer(
    packet: &[u8],
    from: SocketAddr,
    local_pwd: &str,
    out: &mut Vec<u8>,
) -> Result<Request, StunError> {
    out.clear();
    let message = read(packet)?;
    if !message.has_class(MessageClass::Request) || !message.has_method(BINDING) {
        return Err(StunError::Unexpected);
    }
    let key = integrity_key(local_pwd);
    let (written, result) = match check(&message, &key) {
        Ok((request, algorithm)) => (success(&message, from, &key, algorithm)?, Ok(request)),
        Err(refusal) => (
            error(&message, &refusal, &key)?,
            Err(StunError::Refused(refusal.code)),
        ),
    };
    out.extend_from_slice(&written);
    result
}

fn check(
    message: &Message<'_>,
    key: &IntegrityKey,
) -> Result<(Request, IntegrityAlgorithm), Refusal> {
    let refusal = |code, signed| Refusal {
        code,
        signed,
        unknown: Vec::new(),
    };
    let has_integrity = message.has_attribute(MessageIntegrity::TYPE)
        || message.has_attribute(MessageIntegritySha256::TYPE);
    if !has_integrity || !message.has_attribute(Username::TYPE) {
        return Err(refusal(ErrorCode::BAD_REQUEST, None));
    }
    let algorithm = message
        .validate_integrity_with_key(key)
        .map_err(|_| refusal(ErrorCode::UNAUTHORIZED, None))?;
    let unknown = unknown_attributes(message);
    if !unknown.is_empty() {
        return Err(Refusal {
            unknown,
            ..refusal(ErrorCode::UNKNOWN_ATTRIBUTE, Some(algorithm))
        });
    }
    if message.has_attribute(ICE_CONTROLLED) {
        return Err(refusal(ErrorCode::ROLE_CONFLICT, Some(algorithm)));
    }
    let priority = message
        .raw_attribute(PRIORITY)
        .map(|attribute| <[u8; 4]>::try_from(&*attribute.value).map(u32::from_be_bytes))
        .transpose()
        .map_err(|_| refusal(ErrorCode::BAD_REQUEST, Some(algorithm)))?;
    let request = Request {
        use_candidate: message.has_attribute(USE_CANDIDATE),
        priority,
    };
    Ok((request, algorithm))
}

/// The first attributes that must be understood and are not, each once.
fn unknown_attributes(message: &Message<'_>) -> Vec<AttributeType> {
    let mut unknown = Vec::new();
    for (_, attribute) in message.iter_attributes() {
        let attribute = attribute.get_type();
        if attribute.comprehension_required()
            && !UNDERSTOOD.contains(&attribute)
            && !unknown.contains(&attribute)
            && unknown.len() < MAX_UNKNOWN
        {
            unknown.push(attribute);
        }
    }
    unknown
}

fn success(
    message: &Message<'_>,
    from: SocketAddr,
    key: &IntegrityKey,
    algorithm: IntegrityAlgorithm,
) -> Result<Vec<u8>, StunWriteError> {
    // A socket for both families shows IPv4 peers as mapped addresses, which they cannot use.
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    let mut response = Message::builder_success(message, MessageWriteVec::new());
    response.add_attribute(&XorMappedAddress::new(from, message.transaction_id()))?;
    response.add_message_integrity_with_key(key, algorithm)?;
    response.add_fingerprint()?;
    Ok(response.finish())
}

fn error(
    message: &Message<'_>,
    refusal: &Refusal,
    key: &IntegrityKey,
) -> Result<Vec<u8>, StunWriteError> {
    let mut response = Message::builder_error(message, MessageWriteVec::new());
    response.add_attribute(&ErrorCode::builder(refusal.code).build()?)?;
    if !refusal.unknown.is_empty() {
        response.add_attribute(&UnknownAttributes::new(&refusal.unknown))?;
    }
    if let Some(algorithm) = refusal.signed {
        response.add_message_integrity_with_key(key, algorithm)?;
    }
    response.add_fingerprint()?;
    Ok(response.finish())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;
    use stun_types::attribute::{AttributeType, ErrorCode, RawAttribute, UnknownAttributes};
    use stun_types::message::{
        BINDING, IntegrityAlgorithm, Message, MessageClass, MessageType, MessageWriteVec,
    };
    use stun_types::prelude::*;

    use super::{Request, answer};
    use crate::stun::test_vectors::{IPV4_RESPONSE, PASSWORD, REQUEST};
    use crate::stun::{Check, StunError, integrity_key, request, response};

    const CHECK: Check<'_> = Check {
        transaction: [7; 12],
        local_ufrag: "viewer",
        remote_ufrag: "server",
        remote_pwd: PASSWORD,
        use_candidate: true,
        priority: 0x6e00_01ff,
        tie_breaker: 1,
    };

    fn from() -> SocketAddr {
        "192.0.2.1:32853".parse().unwrap()
    }

    fn asked(check: &Check<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        request(check, &mut out).unwrap();
        out
    }

    /// A binding request of these attributes, signed by `pwd` if there is one.
    fn custom(attributes: &[(u16, &[u8])], pwd: Option<&str>) -> Vec<u8> {
        let request = MessageType::from_class_method(MessageClass::Request, BINDING);
        let mut message = Message::builder(request, 7.into(), MessageWriteVec::new());
        for (attribute, value) in attributes {
            message
                .add_attribute(&RawAttribute::new((*attribute).into(), value))
                .unwrap();
        }
        if let Some(pwd) = pwd {
            let key = integrity_key(pwd);
            message
                .add_message_integrity_with_key(&key, IntegrityAlgorithm::Sha1)
                .unwrap();
        }
        message.finish()
    }

    /// The code of the error response to `packet`, and whether it is signed.
    fn refused(packet: &[u8]) -> (u16, bool) {
        let mut out = Vec::new();
        let result = answer(packet, from(), PASSWORD, &mut out);
        let message = Message::from_bytes(&out).unwrap();
        assert!(message.has_class(MessageClass::Error));
        let code = message.attribute::<ErrorCode>().unwrap().code();
        assert_eq!(result, Err(StunError::Refused(code)));
        let signed = message.validate_integrity_with_key(&integrity_key(PASSWORD));
        (code, signed.is_ok())
    }

    #[test]
    fn a_check_is_answered_by_the_address_it_came_from() {
        for use_candidate in [true, false] {
            let mut out = vec![1, 2, 3];
            let check = Check {
                use_candidate,
                ..CHECK
            };
            let result = answer(&asked(&check), from(), PASSWORD, &mut out);
            let priority = Some(0x6e00_01ff);
            assert_eq!(
                result,
                Ok(Request {
                    use_candidate,
                    priority
                })
            );
            assert_eq!(response(&out, &[7; 12], PASSWORD), Ok(from()));
        }
    }

    #[test]
    fn a_mapped_address_is_answered_as_ipv4() {
        let mut out = Vec::new();
        let mapped = "[::ffff:192.0.2.1]:32853".parse().unwrap();
        answer(&asked(&CHECK), mapped, PASSWORD, &mut out).unwrap();
        assert_eq!(response(&out, &[7; 12], PASSWORD), Ok(from()));
    }

    #[test]
    fn a_controlled_agent_is_told_to_change() {
        // The request of RFC 5769 section 2.1, by which its integrity is also checked.
        assert_eq!(refused(&REQUEST), (487, true));
    }

    #[test]
    fn a_request_must_be_signed_and_named() {
        assert_eq!(refused(&custom(&[(0x0006, b"a:b")], None)), (400, false));
        assert_eq!(refused(&custom(&[], Some(PASSWORD))), (400, false));
        let wrong = custom(&[(0x0006, b"a:b")], Some("another"));
        assert_eq!(refused(&wrong), (401, false));
    }

    #[test]
    fn a_malformed_priority_is_a_bad_request() {
        let short = custom(&[(0x0006, b"a:b"), (0x0024, &[1, 2])], Some(PASSWORD));
        assert_eq!(refused(&short), (400, true));
    }

    #[test]
    fn attributes_that_must_be_understood_are_told() {
        let packet = custom(
            &[(0x0006, b"a:b"), (0x7abc, b""), (0xc057, b"1234")],
            Some(PASSWORD),
        );
        assert_eq!(refused(&packet), (420, true));
        let mut out = Vec::new();
        answer(&packet, from(), PASSWORD, &mut out).unwrap_err();
        let message = Message::from_bytes(&out).unwrap();
        let unknown = message.attribute::<UnknownAttributes>().unwrap();
        assert!(unknown.has_attribute(AttributeType::new(0x7abc)));
        assert!(!unknown.has_attribute(AttributeType::new(0xc057)));
    }

    #[test]
    fn what_is_no_request_has_no_answer() {
        let mut damaged = asked(&CHECK);
        *damaged.last_mut().unwrap() ^= 1;
        let mut longer = asked(&CHECK);
        longer.extend([0; 4]);
        let cases: [(&[u8], StunError); 4] = [
            (&IPV4_RESPONSE, StunError::Unexpected),
            (&damaged, StunError::Malformed),
            (&longer, StunError::Malformed),
            (b"", StunError::Malformed),
        ];
        for (packet, expected) in cases {
            let mut out = vec![1, 2, 3];
            assert_eq!(answer(packet, from(), PASSWORD, &mut out), Err(expected));
            assert!(out.is_empty());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_or_refused(bytes: Vec<u8>) {
            let mut out = Vec::new();
            prop_assert!(answer(&bytes, from(), PASSWORD, &mut out).is_err());
        }

        #[test]
        fn a_damaged_request_is_never_accepted(position in 0usize..88, bit in 0..8u32) {
            let mut bytes = asked(&CHECK);
            // All but the FINGERPRINT, which may as well be missing.
            prop_assert_eq!(bytes.len(), 88 + 8);
            bytes[position] ^= 1 << bit;
            let mut out = Vec::new();
            prop_assert!(answer(&bytes, from(), PASSWORD, &mut out).is_err());
        }

        #[test]
        fn any_attributes_behind_a_header_are_answered_or_refused(
            attributes in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..6),
        ) {
            let mut body = Vec::new();
            for (attribute, value) in attributes {
                body.extend([0, attribute & 0x2f, 0, value.len() as u8]);
                body.extend(&value);
                body.resize(body.len().next_multiple_of(4), 0);
            }
            let mut bytes = REQUEST[..20].to_vec();
            bytes[2..4].copy_from_slice(&(body.len() as u16).to_be_bytes());
            bytes.extend(body);
            let mut out = Vec::new();
            prop_assert!(answer(&bytes, from(), PASSWORD, &mut out).is_err());
        }
    }
}
