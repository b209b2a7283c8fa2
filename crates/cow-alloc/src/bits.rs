//! The bitmap of one zone, scanned a word at a time. A set bit is a block in use.

use cow_format::geometry::ZONE_BLOCKS;
use cow_format::{BLOCK_SIZE, Buf};

/// Blocks of a zone, as a bit number.
pub(crate) const ZONE: u32 = ZONE_BLOCKS as u32;
const WORDS: usize = ZONE as usize / 64;

const _: () = assert!(WORDS * 8 == BLOCK_SIZE);

/// A run of blocks inside a zone: first block and length (1 to 32,768).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub start: u16,
    pub len: u16,
}

/// One bit a block.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bits {
    words: [u64; WORDS],
}

impl Bits {
    pub fn empty() -> Box<Self> {
        Box::new(Self { words: [0; WORDS] })
    }

    /// The bits of a page; `page` is a block long.
    pub fn from_page(page: &[u8]) -> Box<Self> {
        let mut bits = Self::empty();
        for (word, bytes) in bits.words.iter_mut().zip(page.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        bits
    }

    pub fn to_page(&self) -> Buf {
        let mut page = Buf::zeroed(1);
        for (word, bytes) in self.words.iter().zip(page.as_chunks_mut::<8>().0) {
            *bytes = word.to_le_bytes();
        }
        page
    }

    pub fn get(&self, bit: u32) -> bool {
        self.words[bit as usize / 64] >> (bit % 64) & 1 != 0
    }

    pub fn set(&mut self, bit: u32) {
        self.words[bit as usize / 64] |= 1 << (bit % 64);
    }

    pub fn clear(&mut self, bit: u32) {
        self.words[bit as usize / 64] &= !(1 << (bit % 64));
    }

    pub fn set_range(&mut self, start: u32, len: u32) {
        for (word, mask) in masks(start, len) {
            self.words[word] |= mask;
        }
    }

    pub fn clear_range(&mut self, start: u32, len: u32) {
        for (word, mask) in masks(start, len) {
            self.words[word] &= !mask;
        }
    }

    /// How many of these blocks are set.
    pub fn count_range(&self, start: u32, len: u32) -> u32 {
        masks(start, len).map(|(word, mask)| (self.words[word] & mask).count_ones()).sum()
    }

    pub fn set_run(&mut self, run: Run) {
        self.set_range(run.start.into(), run.len.into());
    }

    pub fn clear_run(&mut self, run: Run) {
        self.clear_range(run.start.into(), run.len.into());
    }

    pub fn add(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    pub fn remove(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= !other);
    }

    pub fn contains(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).all(|(word, other)| other & !word == 0)
    }

    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Number of clear bits.
    pub fn free(&self) -> u16 {
        (ZONE - self.count()) as u16
    }

    /// The first set bit in `from..to`, or `to`.
    pub fn next_set(&self, from: u32, to: u32) -> u32 {
        self.next(from, to, 0)
    }

    /// The first clear bit in `from..to`, or `to`.
    pub fn next_clear(&self, from: u32, to: u32) -> u32 {
        self.next(from, to, u64::MAX)
    }

    fn next(&self, from: u32, to: u32, flip: u64) -> u32 {
        if from >= to {
            return to;
        }
        let mut index = from as usize / 64;
        let mut word = (self.words[index] ^ flip) & (u64::MAX << (from % 64));
        loop {
            if word != 0 {
                return (index as u32 * 64 + word.trailing_zeros()).min(to);
            }
            index += 1;
            if index as u32 * 64 >= to {
                return to;
            }
            word = self.words[index] ^ flip;
        }
    }

    /// The first run of at least `min` clear bits at or after `from`: its start and full length.
    pub fn find_free(&self, from: u32, min: u32) -> Option<(u32, u32)> {
        debug_assert!(min > 0);
        let found = |start: u32| Some((start, self.next_set(start, ZONE) - start));
        // Clear bits right below the word at hand.
        let mut run = 0;
        for index in from as usize / 64..WORDS {
            let base = index as u32 * 64;
            let mut word = self.words[index];
            if base < from {
                word |= (1 << (from - base)) - 1;
            }
            if run + word.trailing_zeros() >= min {
                return found(base - run);
            }
            if word == 0 {
                run += 64;
                continue;
            }
            if min < 64 {
                let starts = starts_of(!word, min);
                if starts != 0 {
                    return found(base + starts.trailing_zeros());
                }
            }
            run = word.leading_zeros();
        }
        None
    }

    /// The length of the longest run of clear bits.
    pub fn longest_free(&self) -> u16 {
        let (mut best, mut run) = (0, 0);
        for &word in &self.words {
            best = best.max(run + word.trailing_zeros());
            if word == 0 {
                run += 64;
                continue;
            }
            while best < 63 && starts_of(!word, best + 1) != 0 {
                best += 1;
            }
            run = word.leading_zeros();
        }
        best.max(run) as u16
    }

    /// The runs of set bits, in order.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.next_set(at, ZONE);
            if start == ZONE {
                return None;
            }
            at = self.next_clear(start, ZONE);
            Some(Run { start: start as u16, len: (at - start) as u16 })
        })
    }
}

/// The bits of `ones` from which on `len` (1 to 63) bits are set.
fn starts_of(mut ones: u64, len: u32) -> u64 {
    let mut have = 1;
    while have < len {
        let step = have.min(len - have);
        ones &= ones >> step;
        have += step;
    }
    ones
}

/// The words that a range touches, and which bits of each.
fn masks(start: u32, len: u32) -> impl Iterator<Item = (usize, u64)> {
    let end = start + len;
    assert!(end <= ZONE, "outside of the zone");
    let words = if len == 0 { 0..0 } else { start / 64..end.div_ceil(64) };
    words.map(move |word| {
        let low = start.saturating_sub(word * 64);
        let high = (end - word * 64).min(64);
        (word as usize, u64::MAX << low & u64::MAX >> (64 - high))
    })
}
