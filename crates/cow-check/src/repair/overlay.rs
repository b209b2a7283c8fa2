//! The image as it will be: what a repair is going to write, above what is there.

use crate::blocks::{Blocks, ReadError};
use cow_format::{BLOCK_SIZE, Buf, Phys};
use std::collections::BTreeMap;

/// How often a read is tried: damage is for ever, a cable that hangs loose is not.
pub(super) const TRIES: usize = 3;

/// A block that is going to be written.
pub(super) type Page = Box<[u8; BLOCK_SIZE]>;

/// See the module.
pub(super) struct Overlay<'b> {
    below: &'b mut dyn Blocks,
    pages: BTreeMap<u64, Page>,
}

impl<'b> Overlay<'b> {
    pub(super) fn new(below: &'b mut dyn Blocks) -> Self {
        Self { below, pages: BTreeMap::new() }
    }

    /// From now on reads give `buf` there.
    pub(super) fn put(&mut self, at: Phys, buf: &Buf) {
        for index in 0..buf.block_count() {
            self.pages.insert(at.0 + index as u64, Box::new(*buf.block(index)));
        }
    }

    /// What is to be written, by block.
    pub(super) fn into_pages(self) -> BTreeMap<u64, Page> {
        self.pages
    }

    /// Forgets blocks that are no longer wanted.
    pub(super) fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        self.pages.retain(|block, _| keep(*block));
    }

    fn read_below(&mut self, at: Phys, blocks: usize) -> Result<Buf, ReadError> {
        let mut last = ReadError::new("not tried");
        for _ in 0..TRIES {
            match self.below.read(at, blocks) {
                Ok(buf) => return Ok(buf),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Blocks for Overlay<'_> {
    fn read(&mut self, at: Phys, blocks: usize) -> Result<Buf, ReadError> {
        if self.pages.range(at.0..at.0 + blocks as u64).next().is_none() {
            return self.read_below(at, blocks);
        }
        let mut buf = Buf::zeroed(blocks);
        for index in 0..blocks {
            let block = at.offset(index as u64);
            *buf.block_mut(index) = match self.pages.get(&block.0) {
                Some(page) => **page,
                None => *self.read_below(block, 1)?.block(0),
            };
        }
        Ok(buf)
    }

    fn block_count(&self) -> u64 {
        self.below.block_count()
    }
}
