//! The simulated disk: sparse, in memory, with a volatile cache that a crash may persist in any
//! subset and order, torn at 512 bytes.
//!
//! ```text
//! issue ──▶ in flight ──complete──▶ cached (readable, volatile) ──flush──▶ durable
//! ```
//!
//! A flush covers the writes that were *complete* when it was emitted, nothing else. Of a transfer
//! that falls short a part is done at once, and the rest later (`short`). What the
//! disk decides by chance it takes from its own generator, so a seed gives the same disk.

mod below;
mod counts;
mod crash;
mod faults;
mod image;
mod short;

pub use counts::{Counts, Tally};
pub use crash::Crash;
pub use faults::{Class, Faults, NthFault};

use crate::rng::Rng;
use crate::sector::{GARBAGE, token_of};
use crate::value::{Page, holds_a_sector};
use below::Below;
use cow_engine::mkfs::Mkfs;
use cow_engine::{Action, Event, IoFailure, IoId};
use cow_format::{BLOCK_SIZE, Buf, BufSlice, Phys};
use faults::{FaultState, Landing};
use image::Image;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Bytes of the unit that a device writes atomically.
pub const SECTOR: usize = 512;
const EIO: i32 = 5;

/// A completed write of a block that no flush has covered.
#[derive(Clone)]
struct Version {
    /// When it completed.
    stamp: u64,
    /// Which write it was part of.
    write: u64,
    page: Arc<Page>,
    /// A flush that covered it failed: no later one makes it durable.
    doomed: bool,
}

enum Kind {
    Read { buf: Buf, bypass_cache: bool },
    Write { pages: Vec<Arc<Page>>, write: u64 },
    Flush { covers: u64 },
    Discard { write: u64 },
    Allocate,
    Grow,
}

struct InFlight {
    id: IoId,
    at: u64,
    blocks: u64,
    /// Blocks that earlier transfers of it have moved.
    moved: u64,
    /// When it completes, at the earliest.
    due_ns: u64,
    kind: Kind,
}

/// The disk. See the module.
pub struct SimDisk {
    blocks: u64,
    durable: Image,
    cached: BTreeMap<u64, Vec<Version>>,
    in_flight: Vec<InFlight>,
    now_ns: u64,
    stamp: u64,
    writes: u64,
    done: u64,
    changes: u64,
    counts: Counts,
    faults: FaultState,
    bugs: Vec<String>,
    opening_misreads_ppm: u32,
    damaged: bool,
    /// The file system that the disk is a sparse file on, if that can run full.
    below: Option<Below>,
    /// Ranges that have their space since the pool was made.
    fixed: Vec<(u64, u64)>,
}

/// What a discarded block reads as: not zeros, so that a use after the discard shows.
fn garbage() -> &'static Arc<Page> {
    static GARBAGE: OnceLock<Arc<Page>> = OnceLock::new();
    GARBAGE.get_or_init(|| Arc::new([0xdb; BLOCK_SIZE]))
}

impl SimDisk {
    /// An empty disk of `blocks` blocks.
    #[must_use]
    pub fn new(blocks: u64) -> Self {
        Self::over(Image::default(), blocks)
    }

    fn over(durable: Image, blocks: u64) -> Self {
        Self {
            blocks,
            durable,
            cached: BTreeMap::new(),
            in_flight: Vec::new(),
            now_ns: 0,
            stamp: 0,
            writes: 0,
            done: 0,
            changes: 0,
            counts: Counts::default(),
            faults: FaultState::new(Faults::default(), Rng::new(0)),
            opening_misreads_ppm: 0,
            damaged: false,
            bugs: Vec::new(),
            below: None,
            fixed: Vec::new(),
        }
    }

    /// A disk that holds what `plan` writes. Its zero ranges need no writing here.
    #[must_use]
    pub fn formatted(plan: &Mkfs, blocks: u64) -> Self {
        let mut disk = Self::new(blocks);
        disk.fixed = plan.zero.iter().map(|(at, blocks)| (at.0, *blocks)).collect();
        for (at, buf) in plan.writes.iter().chain(&plan.superblocks) {
            for index in 0..buf.block_count() {
                disk.durable.insert(at.0 + index as u64, Arc::new(*buf.block(index)));
            }
        }
        disk
    }

    /// A copy of what is durable, as it would be after a clean power-off with nothing pending.
    #[must_use]
    pub fn fork_durable(&self) -> Self {
        let mut disk = Self::over(self.durable.clone(), self.blocks);
        disk.opening_misreads_ppm = self.opening_misreads_ppm;
        disk.damaged = self.damaged;
        disk.fixed = self.fixed.clone();
        disk
    }

    /// From now on, over all crashes: how many reads go wrong, once each, while a pool is opened.
    pub fn misread_openings(&mut self, ppm: u32) {
        self.opening_misreads_ppm = ppm;
    }

    /// The faults for the time in which a pool is opened.
    #[must_use]
    pub fn opening_faults(&self) -> Faults {
        Faults { misread_ppm: self.opening_misreads_ppm, ..Faults::default() }
    }

    /// Sets what goes wrong from here on, chosen with `seed`.
    pub fn set_faults(&mut self, faults: Faults, seed: u64) {
        self.faults = FaultState::new(faults, Rng::new(seed));
    }

    /// How often a planned fault has struck since they were set.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.faults.struck()
    }

    /// Size in blocks.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Operations issued, by class.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Operations that have completed.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done
    }

    /// A number that moves whenever what a crash could leave behind has changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How many operations are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// What is in flight, oldest first: class, first block and length.
    #[must_use]
    pub fn ops_in_flight(&self) -> Vec<(Class, u64, u64)> {
        self.in_flight.iter().map(|op| (op.kind.class(), op.at, op.blocks)).collect()
    }

    /// First block and length of each write or discard in flight.
    pub fn writes_in_flight(&self) -> impl Iterator<Item = (u64, u64)> {
        let writes = self
            .in_flight
            .iter()
            .filter(|op| matches!(op.kind, Kind::Write { .. } | Kind::Discard { .. }));
        writes.map(|op| (op.at, op.blocks))
    }

    /// Faults of the engine that the disk has seen: overlapping writes, I/O out of range.
    pub fn take_bugs(&mut self) -> Vec<String> {
        std::mem::take(&mut self.bugs)
    }

    /// Whether blocks were damaged on purpose.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Whether a flush has failed, so that some of what reads give will never be durable.
    #[must_use]
    pub fn lies(&self) -> bool {
        self.cached.values().flatten().any(|version| version.doomed)
    }

    /// A word that stands for what is durable, and for the size. Two disks that have no volatile
    /// writes and the same digest are the same to whoever opens them.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.durable.digest() ^ crate::rng::mix(self.blocks)
    }

    /// The block as a reader sees it now.
    #[must_use]
    pub fn peek(&self, block: u64) -> Page {
        self.newest(block).map_or([0; BLOCK_SIZE], |page| **page)
    }

    /// Damages the block: what it holds from now on, durably.
    pub fn poke(&mut self, block: u64, page: Page) {
        self.damaged = true;
        self.cached.remove(&block);
        self.durable.insert(block, Arc::new(page));
        self.changes += 1;
    }

    /// Blocks that hold something, in no order.
    #[must_use]
    pub fn occupied(&self) -> Vec<u64> {
        self.durable.blocks()
    }

    /// From now on, until the next crash, the disk is a sparse file on a file system that has room
    /// for `free` more blocks.
    pub fn limit_room(&mut self, free: u64) {
        if let Some(below) = &mut self.below {
            below.free = free;
            return;
        }
        let mut below = Below::with_room(free);
        self.fixed.iter().for_each(|&(at, blocks)| below.mark(at, blocks));
        let used = self.durable.blocks().into_iter().chain(self.cached.keys().copied());
        used.for_each(|block| below.mark(block, 1));
        self.below = Some(below);
    }

    /// Blocks that the file system below still has room for.
    #[must_use]
    pub fn room(&self) -> Option<u64> {
        self.below.as_ref().map(|below| below.free)
    }

    fn newest(&self, block: u64) -> Option<&Arc<Page>> {
        let cached = self.cached.get(&block).and_then(|versions| versions.last());
        cached.map(|version| &version.page).or_else(|| self.durable.get(block))
    }

    /// Takes a device operation of the engine.
    ///
    /// # Panics
    /// On `Action::Reply` and `Action::Tell`, which are none.
    pub fn issue(&mut self, action: Action) {
        let mut op = match action {
            Action::Read { id, at, buf, bypass_cache } => {
                let blocks = buf.block_count() as u64;
                self.counts.read.add(blocks);
                InFlight::new(id, at.0, blocks, Kind::Read { buf, bypass_cache })
            }
            Action::Write { id, at, bufs, .. } => self.issue_write(id, at, &bufs),
            Action::Flush { id } => {
                self.counts.flush.add(0);
                InFlight::new(id, 0, 0, Kind::Flush { covers: self.stamp })
            }
            Action::Discard { id, at, blocks } => {
                self.counts.discard.add(blocks);
                self.writes += 1;
                self.changes += 1;
                InFlight::new(id, at.0, blocks, Kind::Discard { write: self.writes })
            }
            Action::Allocate { id, at, blocks } => {
                self.counts.allocate.add(blocks);
                InFlight::new(id, at.0, blocks, Kind::Allocate)
            }
            Action::Grow { id, blocks } => {
                self.counts.grow.add(blocks);
                self.changes += 1;
                InFlight::new(id, 0, blocks, Kind::Grow)
            }
            Action::Reply { .. } | Action::Tell(_) => panic!("that is no device operation"),
        };
        op.due_ns = self.now_ns + self.faults.delay_ns();
        self.inspect(&op);
        self.in_flight.push(op);
    }

    fn issue_write(&mut self, id: IoId, at: Phys, bufs: &[BufSlice]) -> InFlight {
        let mut pages = Vec::new();
        for slice in bufs {
            for chunk in slice.chunks_exact(BLOCK_SIZE) {
                let mut page = [0; BLOCK_SIZE];
                page.copy_from_slice(chunk);
                pages.push(Arc::new(page));
            }
        }
        let blocks = pages.len() as u64;
        self.counts.write.add(blocks);
        self.writes += 1;
        self.changes += 1;
        InFlight::new(id, at.0, blocks, Kind::Write { pages, write: self.writes })
    }

    /// Looks for faults of the engine in an operation that is about to be taken.
    fn inspect(&mut self, op: &InFlight) {
        let mutates = |op: &InFlight| matches!(op.kind, Kind::Write { .. } | Kind::Discard { .. });
        let end = op.at.checked_add(op.blocks);
        if !matches!(op.kind, Kind::Grow) && end.is_none_or(|end| end > self.blocks) {
            let (at, len, size) = (op.at, op.blocks, self.blocks);
            self.bugs.push(format!("I/O out of range: {len} blocks at {at} of {size}"));
        }
        if matches!(op.kind, Kind::Write { .. }) && op.blocks == 0 {
            self.bugs.push(format!("an empty write at {}", op.at));
        }
        if self.in_flight.iter().any(|other| other.id == op.id) {
            self.bugs.push(format!("{:?} is used twice", op.id));
        }
        if !mutates(op) {
            return;
        }
        let hit = self.in_flight.iter().find(|other| {
            mutates(other) && other.at < op.at + op.blocks && op.at < other.at + other.blocks
        });
        if let Some(other) = hit {
            self.bugs.push(format!(
                "a write of {} blocks at {} overlaps one of {} at {} that is in flight",
                op.blocks, op.at, other.blocks, other.at
            ));
        }
    }

    /// Completes operation `index` of those in flight (0 is the oldest).
    pub fn complete(&mut self, index: usize) -> Event {
        let op = self.in_flight.remove(index);
        self.done += 1;
        let class = op.kind.class();
        let out_of_range = class != Class::Grow && op.at + op.blocks > self.blocks;
        let takes = matches!(class, Class::Write | Class::Allocate);
        let refused = if takes { self.faults.refuses(op.at, op.blocks) } else { None };
        let refused = refused.or_else(|| match &mut self.below {
            Some(below) if takes => below.take(op.at, op.blocks),
            _ => None,
        });
        let hidden = class == Class::Read && self.faults.hides(op.at, op.blocks);
        let failure = if out_of_range || hidden { Some(EIO) } else { refused };
        let failure = failure.or_else(|| self.faults.strikes(class));
        let failure = failure.or_else(|| match &op.kind {
            Kind::Write { pages, .. } if pages.first().is_some_and(|page| holds_data(page)) => {
                self.faults.strikes_data()
            }
            _ => None,
        });
        let result = failure.map_or(Ok(()), |errno| Err(IoFailure { errno }));
        let mut back = None;
        match op.kind {
            Kind::Read { mut buf, bypass_cache } => {
                if failure.is_none() {
                    self.read(op.at, op.moved, &mut buf, bypass_cache);
                }
                back = Some(buf);
            }
            Kind::Write { mut pages, write } => {
                let rest = pages.split_off(op.moved as usize);
                self.land(op.at + op.moved, rest, write, failure.is_some());
            }
            Kind::Flush { covers } => self.flush(covers, failure.is_some()),
            Kind::Discard { write } if failure.is_none() => {
                if let Some(below) = &mut self.below {
                    below.give(op.at, op.blocks);
                }
                self.discard(op.at, op.blocks, write);
            }
            Kind::Grow if failure.is_none() => {
                self.blocks = self.blocks.max(op.blocks);
                self.changes += 1;
            }
            Kind::Discard { .. } | Kind::Grow | Kind::Allocate => {}
        }
        Event::IoDone { id: op.id, result, buf: back }
    }

    /// Fills the blocks of `buf` from `moved` on.
    fn read(&mut self, at: u64, moved: u64, buf: &mut Buf, bypass_cache: bool) {
        let moved = moved as usize;
        for index in moved..buf.block_count() {
            match self.newest(at + index as u64) {
                Some(page) => buf.block_mut(index).copy_from_slice(&page[..]),
                None => buf.block_mut(index).fill(0),
            }
        }
        if !self.faults.misreads(bypass_cache) {
            return;
        }
        let index = moved + self.faults.rng.index(buf.block_count() - moved);
        let block = at + index as u64;
        match self.durable.get(block) {
            Some(old) if self.cached.contains_key(&block) => {
                buf.block_mut(index).copy_from_slice(&old[..]);
            }
            _ => {
                let bit = self.faults.rng.index(BLOCK_SIZE * 8);
                buf.block_mut(index)[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    /// A write reaches the cache; one that failed leaves each block old, new or garbage.
    fn land(&mut self, at: u64, mut pages: Vec<Arc<Page>>, write: u64, failed: bool) {
        let landing = if failed { Landing::Right } else { self.faults.landing() };
        self.damaged |= landing != Landing::Right;
        let at = match landing {
            Landing::Right => at,
            Landing::Nowhere => return,
            Landing::Elsewhere => self.elsewhere(at, pages.len() as u64),
            Landing::Rotten => {
                let index = self.faults.rng.index(pages.len());
                let bit = self.faults.rng.index(BLOCK_SIZE * 8);
                Arc::make_mut(&mut pages[index])[bit / 8] ^= 1 << (bit % 8);
                at
            }
        };
        for (block, page) in (at..).zip(pages) {
            let page = match if failed { self.faults.rng.below(3) } else { 0 } {
                0 => page,
                1 => continue,
                _ => garbage().clone(),
            };
            self.cache(block, page, write);
        }
    }

    /// Where a write goes that misses `at`: beside it, or to something that is in use.
    fn elsewhere(&mut self, at: u64, len: u64) -> u64 {
        let mut used = self.durable.blocks();
        used.sort_unstable();
        let other = match self.faults.rng.below(3) {
            0 => at + 1,
            1 => at.saturating_sub(1),
            _ => used.get(self.faults.rng.index(used.len().max(1))).copied().unwrap_or(at + 1),
        };
        other.min(self.blocks - len)
    }

    fn cache(&mut self, block: u64, page: Arc<Page>, write: u64) {
        self.stamp += 1;
        self.changes += 1;
        let version = Version { stamp: self.stamp, write, page, doomed: false };
        self.cached.entry(block).or_default().push(version);
    }

    fn flush(&mut self, covers: u64, failed: bool) {
        self.changes += 1;
        let durable = &mut self.durable;
        self.cached.retain(|&block, versions| {
            if failed {
                versions.iter_mut().filter(|v| v.stamp <= covers).for_each(|v| v.doomed = true);
                return true;
            }
            let newest = versions.iter().rposition(|v| v.stamp <= covers && !v.doomed);
            if let Some(index) = newest {
                durable.insert(block, versions[index].page.clone());
                versions.drain(..=index);
            }
            !versions.is_empty()
        });
        self.durable.tidy();
    }

    fn discard(&mut self, at: u64, blocks: u64, write: u64) {
        let mut present: Vec<u64> = self.cached.range(at..at + blocks).map(|(&b, _)| b).collect();
        present.extend(self.durable.blocks_in(at, blocks));
        present.sort_unstable();
        present.dedup();
        for block in present {
            self.cache(block, garbage().clone(), write);
        }
    }
}

/// Whether this is a block of a volume, and nothing that the engine makes itself.
pub(crate) fn holds_data(page: &Page) -> bool {
    let sector_tells = |sector| !matches!(token_of(sector), 0 | GARBAGE);
    holds_a_sector(page) || page.chunks(SECTOR).any(sector_tells)
}

impl InFlight {
    fn new(id: IoId, at: u64, blocks: u64, kind: Kind) -> Self {
        Self { id, at, blocks, moved: 0, due_ns: 0, kind }
    }
}

impl Kind {
    fn class(&self) -> Class {
        match self {
            Self::Read { .. } => Class::Read,
            Self::Write { .. } => Class::Write,
            Self::Flush { .. } => Class::Flush,
            Self::Discard { .. } => Class::Discard,
            Self::Allocate => Class::Allocate,
            Self::Grow => Class::Grow,
        }
    }
}

#[cfg(test)]
mod tests;
