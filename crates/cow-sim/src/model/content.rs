//! What a volume or snapshot holds, block by block; zeros are not kept.

use crate::rng::mix;
use crate::value::{Page, Value, blocks_of, fill};
use cow_format::BLOCK_SIZE;
use std::collections::BTreeMap;
use std::sync::Arc;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// See the module. A copy is cheap.
#[derive(Clone, Debug, Default)]
pub struct Content {
    blocks: Arc<BTreeMap<u64, Value>>,
    hash: u64,
}

fn term(lba: u64, value: &Value) -> u64 {
    mix(mix(lba) ^ value.digest())
}

/// The part of block `lba` that bytes `offset .. offset + len` cover.
fn part(lba: u64, offset: u64, len: u64) -> (usize, usize) {
    let start = offset.max(lba * BLOCK) - lba * BLOCK;
    let end = (offset + len).min((lba + 1) * BLOCK) - lba * BLOCK;
    (start as usize, end as usize)
}

impl Content {
    /// A word that stands for the content.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.hash
    }

    /// What the block holds.
    #[must_use]
    pub fn get(&self, lba: u64) -> Value {
        self.blocks.get(&lba).cloned().unwrap_or(Value::Zero)
    }

    /// Blocks that are not zeros, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Value)> {
        self.blocks.iter().map(|(&lba, value)| (lba, value))
    }

    /// How many those are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether all is zeros.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Sets a block.
    pub fn set(&mut self, lba: u64, value: Value) {
        let blocks = Arc::make_mut(&mut self.blocks);
        let new = if value.is_zero() { 0 } else { term(lba, &value) };
        let old = if value.is_zero() { blocks.remove(&lba) } else { blocks.insert(lba, value) };
        let old = old.map_or(0, |old| term(lba, &old));
        self.hash = self.hash.wrapping_add(new).wrapping_sub(old);
    }

    /// Writes what the tokens from `token` on make: block `i` of the range is of `token + i`.
    pub fn write(&mut self, offset: u64, len: u64, token: u64) {
        for (lba, token) in blocks_of(offset, len).zip(token..) {
            let value = match part(lba, offset, len) {
                (0, BLOCK_SIZE) => Value::Token(token),
                (start, end) => {
                    let mut page: Page = [0; BLOCK_SIZE];
                    fill(token, &mut page);
                    self.get(lba).overlaid(start, &page[start..end])
                }
            };
            self.set(lba, value);
        }
    }

    /// Writes bytes.
    pub fn write_bytes(&mut self, offset: u64, bytes: &[u8]) {
        let len = bytes.len() as u64;
        for lba in blocks_of(offset, len) {
            let (start, end) = part(lba, offset, len);
            let from = (lba * BLOCK + start as u64 - offset) as usize;
            let value = self.get(lba).overlaid(start, &bytes[from..from + (end - start)]);
            self.set(lba, value);
        }
    }

    /// Makes a range read as zeros.
    pub fn zero(&mut self, offset: u64, len: u64) {
        let range = blocks_of(offset, len);
        let touched: Vec<u64> = self.blocks.range(range).map(|(&lba, _)| lba).collect();
        for lba in touched {
            let (start, end) = part(lba, offset, len);
            let value = match end - start {
                BLOCK_SIZE => Value::Zero,
                bytes => self.get(lba).overlaid(start, &[0; BLOCK_SIZE][..bytes]),
            };
            self.set(lba, value);
        }
    }

    /// The bytes that writing `tokens from token on` to the range means.
    #[must_use]
    pub fn payload(offset: u64, len: u64, token: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len as usize);
        let mut page: Page = [0; BLOCK_SIZE];
        for (lba, token) in blocks_of(offset, len).zip(token..) {
            fill(token, &mut page);
            let (start, end) = part(lba, offset, len);
            bytes.extend_from_slice(&page[start..end]);
        }
        bytes
    }

    /// The first block that differs, with both contents.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<(u64, Value, Value)> {
        if self.hash == other.hash {
            return None;
        }
        let lbas = self.blocks.keys().chain(other.blocks.keys());
        let lba = lbas.copied().filter(|&lba| self.get(lba) != other.get(lba)).min()?;
        Some((lba, self.get(lba), other.get(lba)))
    }
}

#[cfg(test)]
mod tests;
