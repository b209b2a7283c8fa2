//! Who may ask: whoever knows the token. The pool keeps a hash of it, so that who reads the pool
//! cannot ask.

use parking_lot::Mutex;
use std::fmt::Write;
use subtle::ConstantTimeEq;

/// A hash of a token. The token has 256 bits of chance in it, so that no slow hash is needed.
#[derive(Clone, Copy)]
pub(super) struct TokenHash([u8; 32]);

impl TokenHash {
    pub(super) fn of(token: &str) -> Self {
        Self(blake3::derive_key("cow-agent 2026 bearer token", token.as_bytes()))
    }

    /// Its text form, which the pool keeps.
    pub(super) fn text(self) -> String {
        hex(&self.0)
    }

    /// Reads the text form.
    pub(super) fn parse(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

/// 32 bytes of chance, as text.
pub(super) fn fresh() -> Result<String, String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes: {error}"))?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The token that counts.
#[derive(Default)]
pub(super) struct Tokens(Mutex<Option<TokenHash>>);

impl Tokens {
    pub(super) fn set(&self, hash: Option<TokenHash>) {
        *self.0.lock() = hash;
    }

    /// Whether `token` is the one. How long that takes tells nothing of how much of it is right.
    pub(super) fn accepts(&self, token: &str) -> bool {
        let given = TokenHash::of(token);
        let known = *self.0.lock();
        known.is_some_and(|known| bool::from(known.0.ct_eq(&given.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_token_is_accepted_and_only_its_hash_is_kept() {
        let tokens = Tokens::default();
        let (old, new) = (fresh().unwrap(), fresh().unwrap());
        assert!(old.len() == 64 && old != new && !tokens.accepts(&old));
        for token in [&old, &new] {
            let kept = TokenHash::of(token).text();
            assert_ne!(&kept, token);
            tokens.set(TokenHash::parse(&kept));
        }
        assert!(tokens.accepts(&new) && !tokens.accepts(&old) && !tokens.accepts(""));
        assert!(TokenHash::parse("xyz").is_none());
    }
}
