//! What the engine knows of room in the file system below.

use crate::wait::WaitList;
use cow_format::Phys;
use std::collections::{BTreeSet, VecDeque};

/// Blocks that folds will take, with room below that nobody else can have.
#[derive(Default)]
pub(crate) struct BelowState {
    /// No room is kept: there is no file system below, or all of it was allocated at creation, or
    /// (then with the reason) it cannot.
    pub(crate) off: bool,
    pub(crate) refusal: Option<String>,
    /// The blocks: ours in the allocator, in no image, named by no record.
    pub(crate) runs: VecDeque<(Phys, u64)>,
    pub(crate) blocks: u64,
    /// Such blocks whose room is being allocated.
    pub(crate) coming: u64,
    /// A task is at it.
    pub(crate) growing: bool,
    /// Somebody waits for so many more than are needed yet.
    pub(crate) asked: u64,
    /// The pool has no blocks to set aside: what is kept free in it has to do.
    pub(crate) starved: bool,
    /// There was no room; nobody asks for it again unless somebody needs more.
    pub(crate) full: bool,
    pub(crate) failures: u64,
    /// Who waits for room waits here.
    pub(crate) wait: WaitList,
    /// Allocation groups whose bitmap homes have room.
    pub(crate) groups: BTreeSet<u64>,
}

impl BelowState {
    /// A block with room below.
    pub(crate) fn take(&mut self) -> Option<Phys> {
        let (phys, blocks) = self.runs.pop_front()?;
        if blocks > 1 {
            self.runs.push_front((phys.offset(1), blocks - 1));
        }
        self.blocks -= 1;
        Some(phys)
    }

    pub(crate) fn put(&mut self, phys: Phys, blocks: u64) {
        self.runs.push_back((phys, blocks));
        self.blocks += blocks;
    }
}
