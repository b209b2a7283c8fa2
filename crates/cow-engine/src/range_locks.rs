//! The table behind `locks.rs`: which block ranges are being written, and who waits for whom.

use cow_format::{VolumeId, mutant};
use std::collections::BTreeMap;

#[derive(Clone, Copy)]
pub(crate) struct Held {
    pub(crate) volume: VolumeId,
    pub(crate) first: u64,
    pub(crate) end: u64,
    pub(crate) exclusive: bool,
}

/// Block ranges of the writes in progress, by ticket.
#[derive(Default)]
pub(crate) struct RangeLocks {
    pub(crate) next: u64,
    pub(crate) held: BTreeMap<u64, Held>,
    pub(crate) exclusive: usize,
}

impl RangeLocks {
    pub(crate) fn must_wait(&self, ticket: u64) -> bool {
        let Some(mine) = self.held.get(&ticket).copied() else { return false };
        if self.exclusive == 0 || mutant::is("noturn") {
            return false;
        }
        self.held.range(..ticket).any(|(_, other)| {
            (mine.exclusive || other.exclusive)
                && other.volume == mine.volume
                && other.first < mine.end
                && mine.first < other.end
        })
    }
}
