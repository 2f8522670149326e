//! Credentials of ICE (RFC 8445 section 5.3, RFC 8839 section 5.4).

/// The 64 characters of `ice-char`.
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// At least 4; 48 bits tell the viewers of a server apart.
const UFRAG_LEN: usize = 8;
/// At least 22, for the 128 bits of RFC 8445; this is 144 bits.
const PWD_LEN: usize = 24;

/// User name fragment and password of one side of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User name fragment, 8 characters.
    pub ufrag: String,
    /// Password, 24 characters.
    pub pwd: String,
}

impl Credentials {
    /// Credentials by the randomness of the operating system.
    ///
    /// # Errors
    ///
    /// [`getrandom::Error`] if the system has none to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; UFRAG_LEN + PWD_LEN];
        getrandom::fill(&mut bytes)?;
        // 64 divides 256, so every character is equally likely.
        let chars = bytes.map(|byte| char::from(ICE_CHARS[usize::from(byte % 64)]));
        let (ufrag, pwd) = chars.split_at(UFRAG_LEN);
        Ok(Self {
            ufrag: ufrag.iter().collect(),
            pwd: pwd.iter().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Credentials, ICE_CHARS};

    #[test]
    fn credentials_have_the_lengths_and_characters_of_ice() {
        let mut seen = HashSet::new();
        for _ in 0..200 {
            let Credentials { ufrag, pwd } = Credentials::random().unwrap();
            assert_eq!((ufrag.len(), pwd.len()), (8, 24));
            seen.extend(ufrag.bytes().chain(pwd.bytes()));
        }
        // 6400 draws miss one given character of 64 once in 10^43.
        assert_eq!(seen, ICE_CHARS.iter().copied().collect());
    }

    #[test]
    fn no_two_are_alike() {
        assert_ne!(
            Credentials::random().unwrap(),
            Credentials::random().unwrap()
        );
    }
}
