//! Values that are only accepted within their limits.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A stream's number, of the controller's choice.
pub type StreamId = u64;

/// A dynamic or static RTP payload type (RFC 3550, section 5.1).
pub type PayloadType = Bounded<u8, 0, 127>;

/// A header extension's id in the one-byte form (RFC 8285, section 4.2).
pub type ExtensionId = Bounded<u8, 1, 14>;

/// A UDP port.
pub type Port = Bounded<u16, 1, 65_535>;

/// A bitrate in kbit/s.
pub type Kbps = Bounded<u32, 1, 10_000_000>;

/// A clock rate in Hz.
pub type Clock = Bounded<u32, 8_000, 192_000>;

/// A limit of a ring in bytes.
pub type RingBytes = Bounded<usize, 65_536, 0x4000_0000>;

/// Sequence numbers to jump: a hand-over uses up no more of the 2^48 that a key has.
pub type Jump = Bounded<u32, 0, 0x4000_0000>;

/// What a viewer, a group or a stream is called.
pub type Name = Text<1, 200>;

/// An ICE user name fragment (RFC 8839, section 5.4).
pub type IceUfrag = IceText<4>;

/// An ICE password (RFC 8839, section 5.4).
pub type IcePwd = IceText<22>;

/// An integer from `LOW` to `HIGH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Bounded<T, const LOW: u64, const HIGH: u64>(T);

impl<T: Copy, const LOW: u64, const HIGH: u64> Bounded<T, LOW, HIGH> {
    /// The number.
    pub fn get(self) -> T {
        self.0
    }
}

impl<'de, T, const LOW: u64, const HIGH: u64> Deserialize<'de> for Bounded<T, LOW, HIGH>
where
    T: TryFrom<u64>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number<T, const LOW: u64, const HIGH: u64>(PhantomData<T>);

        impl<T: TryFrom<u64>, const LOW: u64, const HIGH: u64> Visitor<'_> for Number<T, LOW, HIGH> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an integer from {LOW} to {HIGH}")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
                Some(number)
                    .filter(|number| (LOW..=HIGH).contains(number))
                    .and_then(|number| T::try_from(number).ok())
                    .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
            }
        }

        deserializer
            .deserialize_u64(Number::<T, LOW, HIGH>(PhantomData))
            .map(Self)
    }
}

/// A text of `LOW` to `HIGH` bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Text<const LOW: usize, const HIGH: usize>(String);

impl<const LOW: usize, const HIGH: usize> Text<LOW, HIGH> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const LOW: usize, const HIGH: usize> TryFrom<String> for Text<LOW, HIGH> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if (LOW..=HIGH).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(format!(
                "a text of {} bytes, expected {LOW} to {HIGH}",
                text.len()
            ))
        }
    }
}

/// At least `LOW` and at most 256 of the characters that ICE allows (RFC 8839, section 5.4).
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct IceText<const LOW: usize>(String);

impl<const LOW: usize> IceText<LOW> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const LOW: usize> fmt::Debug for IceText<LOW> {
    /// Only the length: a password does not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IceText({} characters)", self.0.len())
    }
}

impl<const LOW: usize> TryFrom<String> for IceText<LOW> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        if (LOW..=256).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text))
        } else {
            Err(format!("expected {LOW} to 256 letters, digits, + and /"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn accepted<T: for<'de> Deserialize<'de>>(value: Value) -> bool {
        from_value::<T>(value).is_ok()
    }

    #[test]
    fn numbers_within_their_limits_only() {
        for (number, good) in [(0, false), (1, true), (14, true), (15, false), (257, false)] {
            assert_eq!(accepted::<ExtensionId>(json!(number)), good, "{number}");
        }
        assert!(accepted::<PayloadType>(json!(127)) && !accepted::<PayloadType>(json!(128)));
        assert!(accepted::<Port>(json!(65_535)) && !accepted::<Port>(json!(65_536)));
        for value in [
            json!(-1),
            json!(1.0),
            json!("1"),
            json!(null),
            json!(u64::MAX),
        ] {
            assert!(!accepted::<Kbps>(value.clone()), "{value}");
        }
        let error = from_value::<ExtensionId>(json!(15))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("15") && error.contains("from 1 to 14"),
            "{error}"
        );
    }

    #[test]
    fn texts_within_their_limits_only() {
        assert!(accepted::<Name>(json!("a")) && accepted::<Name>(json!("ä".repeat(100))));
        assert!(!accepted::<Name>(json!("")) && !accepted::<Name>(json!("ä".repeat(101))));
        assert!(accepted::<IceUfrag>(json!("a+/9")) && !accepted::<IceUfrag>(json!("a:b9")));
        assert!(
            !accepted::<IcePwd>(json!("a".repeat(21)))
                && !accepted::<IcePwd>(json!("a".repeat(257)))
        );
    }

    #[test]
    fn a_password_is_not_shown() {
        let pwd: IcePwd = from_value(json!("secretsecretsecretsecret")).unwrap();
        assert_eq!(format!("{pwd:?}"), "IceText(24 characters)");
        assert_eq!(pwd.as_str(), "secretsecretsecretsecret");
    }
}
