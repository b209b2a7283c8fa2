//! What a 4 KiB block holds, as the oracle sees it.
//!
//! A client writes blocks that are made from a token: the first word is the token, every other
//! word is derived from it, so that any sector tells which write it came from. What unaligned
//! writes leave behind is kept as bytes.

use crate::rng::mix;
use cow_format::BLOCK_SIZE;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A block's worth of bytes.
pub type Page = [u8; BLOCK_SIZE];

const WORDS: usize = BLOCK_SIZE / 8;
/// Tokens are below this; digests of mixed blocks are above.
const TOKEN_LIMIT: u64 = 1 << 62;

/// The content of a block.
#[derive(Clone)]
pub enum Value {
    /// Nothing but zeros.
    Zero,
    /// Made from a token.
    Token(u64),
    /// Anything else, with its digest.
    Mixed(u64, Arc<Page>),
}

fn word_of(token: u64, index: usize) -> u64 {
    let salted = (token ^ ((index as u64) << 48)).wrapping_mul(FACTOR);
    (salted ^ (salted >> 29)) | 1
}

/// Fills `page` with the content of `token`.
pub fn fill(token: u64, page: &mut Page) {
    debug_assert!(token > 0 && token < TOKEN_LIMIT);
    page[..8].copy_from_slice(&token.to_le_bytes());
    for (index, word) in page.chunks_exact_mut(8).enumerate().skip(1) {
        word.copy_from_slice(&word_of(token, index).to_le_bytes());
    }
}

/// What [`word_of`] multiplies by, and its inverse modulo 2^64 (Newton's iteration doubles the bits
/// that are right).
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
const INVERSE: u64 = {
    let (mut inverse, mut round) = (FACTOR, 0);
    while round < 5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(FACTOR.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
};

/// The two tokens that a word may come from: its lowest bit says nothing.
fn tokens_behind(word: u64, index: usize) -> [u64; 2] {
    [word, word ^ 1].map(|mixed| {
        let salted = mixed ^ (mixed >> 29) ^ (mixed >> 58);
        salted.wrapping_mul(INVERSE) ^ ((index as u64) << 48)
    })
}

/// Whether a sector of 512 bytes of a block, whatever the others hold, was made from a token.
#[must_use]
pub fn holds_a_sector(page: &Page) -> bool {
    let words: Vec<u64> = words(page).collect();
    let mut sectors = (0..WORDS).step_by(64).map(|first| first.max(1)..first / 64 * 64 + 64);
    sectors.any(|mut sector| {
        let first = sector.start;
        let tokens = tokens_behind(words[first], first);
        tokens.iter().any(|&token| {
            (1..TOKEN_LIMIT).contains(&token)
                && sector.all(|index| words[index] == word_of(token, index))
        })
    })
}

fn words(page: &Page) -> impl Iterator<Item = u64> + '_ {
    page.chunks_exact(8).map(|word| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        u64::from_le_bytes(bytes)
    })
}

/// The blocks that bytes `offset .. offset + len` touch.
#[must_use]
pub fn blocks_of(offset: u64, len: u64) -> Range<u64> {
    const BLOCK: u64 = BLOCK_SIZE as u64;
    if len == 0 { 0..0 } else { offset / BLOCK..(offset + len).div_ceil(BLOCK) }
}

impl Value {
    /// Recognises what a block holds.
    #[must_use]
    pub fn of(page: &Page) -> Self {
        let token = words(page).next().unwrap_or(0);
        if token == 0 && words(page).all(|word| word == 0) {
            return Self::Zero;
        }
        let derived = || words(page).enumerate().skip(1).all(|(i, word)| word == word_of(token, i));
        if token > 0 && token < TOKEN_LIMIT && derived() {
            return Self::Token(token);
        }
        let digest = words(page).fold(WORDS as u64, |hash, word| mix(hash ^ word));
        Self::Mixed(digest | TOKEN_LIMIT, Arc::new(*page))
    }

    /// The bytes.
    #[must_use]
    pub fn page(&self) -> Page {
        let mut page = [0; BLOCK_SIZE];
        match self {
            Self::Zero => {}
            Self::Token(token) => fill(*token, &mut page),
            Self::Mixed(_, bytes) => page = **bytes,
        }
        page
    }

    /// A word that stands for the content.
    #[must_use]
    pub fn digest(&self) -> u64 {
        match self {
            Self::Zero => 0,
            Self::Token(token) => *token,
            Self::Mixed(digest, _) => *digest,
        }
    }

    /// Whether it is all zeros.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        matches!(self, Self::Zero)
    }

    /// This content with `bytes` put over it from `at` on.
    #[must_use]
    pub fn overlaid(&self, at: usize, bytes: &[u8]) -> Self {
        let mut page = self.page();
        page[at..at + bytes.len()].copy_from_slice(bytes);
        Self::of(&page)
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => write!(f, "zeros"),
            Self::Token(token) => write!(f, "token {token}"),
            Self::Mixed(digest, page) => {
                let tokens: Vec<u64> = words(page).step_by(64).collect();
                write!(f, "mixed {digest:x} (first words of its sectors {tokens:x?})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_its_token_and_any_damage() {
        let mut page = [0; BLOCK_SIZE];
        assert_eq!(Value::of(&page), Value::Zero);
        fill(77, &mut page);
        assert_eq!(Value::of(&page), Value::Token(77));
        for at in [9, 511, 512, 4095] {
            let mut torn = page;
            torn[at] ^= 0x10;
            assert!(matches!(Value::of(&torn), Value::Mixed(..)));
        }
        for sector in 0..8 {
            let mut mixed = [0x55; BLOCK_SIZE];
            assert!(!holds_a_sector(&mixed));
            let bytes = sector * 512..sector * 512 + 512;
            mixed[bytes.clone()].copy_from_slice(&page[bytes.clone()]);
            assert!(holds_a_sector(&mixed), "sector {sector}");
            mixed[bytes.start + 100] ^= 1;
            assert!(!holds_a_sector(&mixed), "sector {sector}");
        }
        assert!(!holds_a_sector(&[0; BLOCK_SIZE]));
        let zeroed = Value::Token(77).overlaid(0, &[0; BLOCK_SIZE]);
        assert!(zeroed.is_zero());
    }
}
