//! What can go wrong with a device operation while the machine stays up.

use super::EIO;
use crate::rng::Rng;
use std::ops::Range;

const ENOSPC: i32 = 28;
/// What the drivers of cow-io say of a read that ends inside of the block that it is at: there the image ends.
const END_OF_IMAGE: i32 = 6;
/// The longest that an operation takes.
const SLOWEST_NS: u64 = 10_000_000_000;

/// Classes of device operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A flush.
    Flush,
    /// A discard.
    Discard,
    /// An allocation in the file below.
    Allocate,
    /// A growth of the file below.
    Grow,
}

/// The n-th operation of a class fails.
#[derive(Clone, Copy, Debug)]
pub struct NthFault {
    /// Of what class.
    pub class: Class,
    /// Which one; 0 is the next.
    pub nth: u64,
    /// And all that follow.
    pub sticky: bool,
    /// The error number.
    pub errno: i32,
}

/// Rates of random faults, in operations of a million, and planned ones. All off by default.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Reads that fail, every second one because the kernel moves less than a block.
    pub read_error_ppm: u32,
    /// Writes that fail; each of their blocks is then old, new or garbage.
    pub write_error_ppm: u32,
    /// The same of writes of clients' data alone.
    pub data_error_ppm: u32,
    /// Flushes that fail; what they covered may be lost, and no later flush covers it.
    pub flush_error_ppm: u32,
    /// Reads that give an older version or a flipped bit, unless they bypass the cache.
    pub misread_ppm: u32,
    /// Writes that are acknowledged and never happen.
    pub lost_write_ppm: u32,
    /// Writes that are acknowledged and go to other blocks.
    pub misdirected_write_ppm: u32,
    /// Writes one bit of which is wrong from then on.
    pub rotten_write_ppm: u32,
    /// Reads that give an older version or a flipped bit, also when they bypass the cache.
    pub wrong_read_ppm: u32,
    /// Reads and writes that move a part of what was asked, each time that they are about to end; the
    /// driver goes on with the rest, later.
    pub short_ppm: u32,
    /// Operations that take up to ten seconds, while others overtake them.
    pub slow_ppm: u32,
    /// Planned ones.
    pub nth: Vec<NthFault>,
    /// Blocks that no write succeeds on.
    pub bad: Range<u64>,
    /// Blocks that no read succeeds on.
    pub unreadable: Range<u64>,
    /// Blocks for which the file below has no room.
    pub full: Range<u64>,
}

/// The faults of a disk, as they play out.
pub(super) struct FaultState {
    plan: Faults,
    seen: [u64; 6],
    struck: u64,
    /// Short transfers, and operations that took long.
    pub(super) delayed: (u64, u64),
    pub(super) rng: Rng,
}

/// What becomes of a write that is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    Right,
    Nowhere,
    Elsewhere,
    Rotten,
}

impl FaultState {
    pub(super) fn new(plan: Faults, rng: Rng) -> Self {
        Self { plan, seen: [0; 6], struck: 0, delayed: (0, 0), rng }
    }

    /// Whether the operation of this class that completes now fails.
    pub(super) fn strikes(&mut self, class: Class) -> Option<i32> {
        let seen = self.seen[class as usize];
        self.seen[class as usize] += 1;
        let planned = self.plan.nth.iter().find(|fault| {
            fault.class == class && (seen == fault.nth || fault.sticky && seen > fault.nth)
        });
        if let Some(fault) = planned {
            self.struck += 1;
            return Some(fault.errno);
        }
        let ppm = match class {
            Class::Read => self.plan.read_error_ppm,
            Class::Write => self.plan.write_error_ppm,
            Class::Flush => self.plan.flush_error_ppm,
            Class::Discard | Class::Allocate | Class::Grow => 0,
        };
        let errno = if class == Class::Read && seen % 2 == 1 { END_OF_IMAGE } else { EIO };
        self.rng.chance_ppm(ppm).then_some(errno)
    }

    /// How many of these blocks, from the first on, a write is not refused.
    pub(super) fn before_refused(&self, at: u64, blocks: u64) -> u64 {
        before(&self.plan.full, at, before(&self.plan.bad, at, blocks))
    }

    /// How many of these blocks, from the first on, can be read.
    pub(super) fn before_hidden(&self, at: u64, blocks: u64) -> u64 {
        before(&self.plan.unreadable, at, blocks)
    }

    /// Why a write of these blocks cannot succeed, if so.
    pub(super) fn refuses(&self, at: u64, blocks: u64) -> Option<i32> {
        let meets = |range: &Range<u64>| at < range.end && range.start < at + blocks;
        let full = meets(&self.plan.full).then_some(ENOSPC);
        full.or(meets(&self.plan.bad).then_some(EIO))
    }

    /// Whether no read of these blocks can succeed.
    pub(super) fn hides(&self, at: u64, blocks: u64) -> bool {
        let range = &self.plan.unreadable;
        at < range.end && range.start < at + blocks
    }

    /// How often a planned fault has struck.
    pub(super) fn struck(&self) -> u64 {
        self.struck
    }

    /// How much longer than others the operation takes that is issued now.
    pub(super) fn delay_ns(&mut self) -> u64 {
        if !self.rng.chance_ppm(self.plan.slow_ppm) {
            return 0;
        }
        self.delayed.1 += 1;
        // As often below 10 ms as above a second.
        self.rng.range(1_000_000, SLOWEST_NS) >> self.rng.below(11)
    }

    /// Whether the transfer that completes now is a short one.
    pub(super) fn shortens(&mut self) -> bool {
        let short = self.rng.chance_ppm(self.plan.short_ppm);
        self.delayed.0 += u64::from(short);
        short
    }

    pub(super) fn misreads(&mut self, bypass_cache: bool) -> bool {
        let once = !bypass_cache && self.rng.chance_ppm(self.plan.misread_ppm);
        once || self.rng.chance_ppm(self.plan.wrong_read_ppm)
    }

    /// Where a write goes that is said to have succeeded.
    pub(super) fn landing(&mut self) -> Landing {
        let plan = &self.plan;
        let ways = [
            (plan.lost_write_ppm, Landing::Nowhere),
            (plan.misdirected_write_ppm, Landing::Elsewhere),
            (plan.rotten_write_ppm, Landing::Rotten),
        ];
        let struck = ways.into_iter().find(|(ppm, _)| self.rng.chance_ppm(*ppm));
        struck.map_or(Landing::Right, |(_, landing)| landing)
    }

    /// Whether the write of clients' data that completes now fails.
    pub(super) fn strikes_data(&mut self) -> Option<i32> {
        self.rng.chance_ppm(self.plan.data_error_ppm).then_some(EIO)
    }
}

/// How many of `blocks` blocks from `at` on come before the first one that is in `range`.
fn before(range: &Range<u64>, at: u64, blocks: u64) -> u64 {
    let first = range.start.max(at);
    if first < range.end { blocks.min(first - at) } else { blocks }
}
