//! Pages while a root is being built. Memory is bounded by keeping fewer levels: without level 1 a
//! page stands for 64 MiB, and a change in them is hashed anew with its neighbours.

use crate::seal_state::PageMap;
use cow_format::BLOCK_SIZE;
use cow_merkle::{Page, Pages, PagesMut};
use std::rc::Rc;

/// More pages than fit: what they were before cannot be dropped while they are being changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overflow;

pub(super) struct Store {
    pub(super) pages: PageMap,
    /// The lowest level that is kept.
    pub(super) floor: u8,
    limit: usize,
    /// Made of nothing: each page comes once, so that the floor may rise on the way.
    fresh: bool,
}

impl Store {
    /// No pages yet, of `limit` bytes at most, from level `floor` on.
    pub(super) fn new(floor: u8, limit: usize) -> Self {
        Self { pages: PageMap::new(), floor, limit, fresh: true }
    }

    /// Those of an earlier state, to be changed.
    pub(super) fn of(pages: PageMap, floor: u8, limit: usize) -> Self {
        Self { pages, floor, limit, fresh: false }
    }
}

impl Pages for Store {
    type Error = Overflow;

    fn load(&mut self, level: u8, index: u64) -> Result<Option<Page>, Overflow> {
        Ok(self.pages.get(&(level, index)).map(|page| Page::clone(page)))
    }
}

impl PagesMut for Store {
    fn save(&mut self, page: &Page) -> Result<(), Overflow> {
        let key = (page.level(), page.index());
        if page.is_zero() {
            self.pages.remove(&key);
            return Ok(());
        }
        if page.level() < self.floor {
            return Ok(());
        }
        self.pages.insert(key, Rc::new(page.clone()));
        while self.pages.len() * BLOCK_SIZE > self.limit && self.floor < cow_merkle::MAX_LEVEL {
            if !self.fresh {
                return Err(Overflow);
            }
            self.floor += 1;
            let floor = self.floor;
            self.pages.retain(|&(level, _), _| level >= floor);
        }
        Ok(())
    }
}
