//! What the engine knows of folds while none, or one, is in progress.

use crate::wait::WaitList;
use cow_format::Phys;
use std::collections::{BTreeSet, VecDeque};

/// So many blocks are remembered that could not be read; if one of them can, they were not lost.
const UNREAD_MAX: usize = 64;

/// What the engine knows of folds.
#[derive(Default)]
pub(crate) struct FoldState {
    /// One is in progress.
    pub(crate) running: bool,
    /// Somebody waits for one.
    pub(crate) wanted: bool,
    /// One is to begin with the next tick: background work that nobody waits for.
    pub(crate) soon: bool,
    /// There were no blocks for the kill row of what a discard had cut off.
    pub(crate) detach_starved: bool,
    /// The next one trims all that it can, not only what is worth it by itself.
    pub(crate) trim_everything: bool,
    /// A trim came to the end of what one fold does.
    pub(crate) trim_again: bool,
    /// There were no blocks for a trim to write with.
    pub(crate) trim_starved: bool,
    /// How many have begun, and how many have come to an end.
    pub(crate) started: u64,
    pub(crate) finished: u64,
    /// Writes of it that wait for room in the file system below.
    pub(crate) stalled_writes: usize,
    /// A write of a fold found no room there while the pool was being opened.
    pub(crate) given_up: bool,
    /// Blocks that the running fold may still take, and those that it took: both are in what is kept
    /// for it until it publishes.
    pub(crate) left: u64,
    pub(crate) taken: u64,
    /// Blocks that the running fold needs for the kill rows of nodes that others were spliced into.
    pub(crate) splice_blocks: u64,
    /// The last one that took data in freed half as much at least: what is written now replaces other
    /// data.
    pub(crate) frees_much: bool,
    /// Freed blocks in quarantine: checkpoint that freed them, number of its publication.
    pub(crate) batches: VecDeque<(u64, u64)>,
    /// Blocks of map nodes and blobs that the device did not give since the fold began.
    pub(crate) unread: BTreeSet<Phys>,
    /// The writes of the running fold wait here.
    pub(crate) write_wait: WaitList,
}

impl FoldState {
    /// The device did not give this block.
    pub(crate) fn note_unread(&mut self, phys: Phys) {
        if self.unread.len() < UNREAD_MAX {
            self.unread.insert(phys);
        }
    }

    /// The fold stands still: there is no room in the file system below for what it writes.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled_writes > 0
    }

    /// The same in words.
    pub(crate) fn stall_reason(&self) -> Option<String> {
        let why = "the file system below is full, and a checkpoint waits for room in it";
        self.is_stalled().then(|| why.into())
    }
}
