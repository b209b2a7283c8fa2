//! Room in the file system below: what a fold will write has it before the fold is needed.
//!
//! A pool may be a sparse file on a file system that others fill. A data write that finds no room
//! there is refused, and nothing has happened. A fold cannot be refused. So blocks for what folds
//! will write (map nodes, kill rows, properties) are set aside in the allocator and allocated in
//! the file below ahead of need, some more than are needed now, and an operation is admitted when
//! there are enough for its part too (`space.rs`). A table chunk and the bitmap homes of an
//! allocation group are allocated before their first use; other fixed areas at creation.
//! [Decision 17](../../../docs/decisions/0017-the-file-system-below.md).

use crate::core::Core;
use crate::error::{Error, SpaceKind};
use crate::space::{Tier, allocate};
use crate::task::{Cx, join_all};
use cow_alloc::Stream;
use cow_format::Phys;
use cow_format::geometry::{AG_BLOCKS, HOMES_BLOCKS};

const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
/// Blocks that are allocated below at a time, at least and at most (1 and 64 MiB).
const STEP: std::ops::RangeInclusive<u64> = 256..=16_384;
/// Most blocks that are kept beyond what is needed (16 MiB).
const MOST_SPARE: u64 = 4096;

pub(crate) fn is_full(errno: i32) -> bool {
    matches!(errno, ENOSPC | EDQUOT)
}

impl Core {
    /// Blocks that are kept beyond what is needed: part of the slop.
    fn spare_blocks(&self) -> u64 {
        (self.slop_blocks() / 4).min(MOST_SPARE)
    }

    /// What folds may still take for everything that was sequenced or promised.
    fn fold_needs(&self) -> u64 {
        let Some(pool) = &self.pool else { return 0 };
        let waiting = pool.active.reserve_blocks() + pool.tree.pending_blocks();
        waiting + pool.promised_map + self.fold.left
    }

    /// Set-aside blocks that count as free for admission: those that folds need, and a part of
    /// the slop.
    pub(crate) fn set_aside(&self) -> u64 {
        let held = self.below.blocks + self.below.coming;
        held.min(self.fold_needs() + self.slop_blocks() / 2)
    }

    /// Whether there is room below for `map` more blocks of folds, as far as an operation of this
    /// tier has to care.
    pub(crate) fn has_room_below(&self, map: u64, tier: Tier) -> bool {
        let spare = match tier {
            // What gives space back, or takes none in the end, must always work.
            Tier::Reclaim => return true,
            Tier::Data => self.spare_blocks() / 4,
            Tier::Meta | Tier::Discard | Tier::Guaranteed => 0,
        };
        self.below.off || self.below.starved || self.below.blocks >= self.fold_needs() + map + spare
    }

    /// Whether so many set-aside blocks are there beyond those that folds need: places with room
    /// below for data that finds none at its own.
    pub(crate) fn has_spare_below(&self, blocks: u64) -> bool {
        if self.below.off {
            // There is nothing that could run full, or it does not allocate ahead.
            return self.below.refusal.is_none();
        }
        let short = self.below.full || self.below.starved;
        !short && self.below.blocks >= self.fold_needs() + blocks
    }

    /// How many more blocks should be set aside.
    fn missing_below(&self) -> u64 {
        let (needs, have) = (self.fold_needs(), self.below.blocks);
        let spare = self.spare_blocks();
        if self.below.off || have >= needs + spare / 2 && self.below.asked == 0 {
            return 0;
        }
        // Ahead of need by a quarter, so that a fast writer seldom waits.
        (needs + needs / 4 + spare + self.below.asked).saturating_sub(have)
    }

    /// Gives blocks back that are set aside far beyond need.
    pub(crate) fn trim_set_aside(&mut self) {
        (self.below.full, self.below.starved) = (false, false);
        let keep = if self.below.off { 0 } else { 2 * self.fold_needs() + 2 * self.spare_blocks() };
        let punch = self.has_time_to_punch();
        while self.below.blocks > keep
            && let Some((phys, blocks)) = self.below.runs.pop_back()
            && let Some(pool) = &mut self.pool
        {
            self.below.blocks -= blocks;
            if punch {
                pool.alloc.let_go(phys, blocks);
            } else {
                pool.alloc.give_back(phys, blocks);
            }
        }
    }

    /// Gives back of what is set aside beyond need until `data` blocks can be given out; whether
    /// they can be then.
    pub(crate) fn free_spare(&mut self, data: u64) -> bool {
        let needs = self.fold_needs();
        loop {
            let missing = data.saturating_sub(self.free_for_data());
            let beyond = self.below.blocks.saturating_sub(needs);
            if missing == 0 || beyond == 0 {
                return missing == 0;
            }
            let Some((phys, blocks)) = self.below.runs.pop_back() else { return false };
            let Some(pool) = &mut self.pool else { return false };
            let back = blocks.min(missing).min(beyond);
            if back < blocks {
                self.below.runs.push_back((phys, blocks - back));
            }
            self.below.blocks -= back;
            pool.alloc.give_back(phys.offset(blocks - back), back);
        }
    }

    fn turn_off(&mut self, errno: i32) {
        if !self.below.off {
            self.below.off = true;
            self.below.refusal = Some(format!(
                "the file system below does not allocate ahead (os error {errno}): if it is full, \
                 checkpoints wait for room"
            ));
        }
        self.trim_set_aside();
    }
}

/// Begins to set blocks aside if there are too few and nobody is at it.
pub(crate) fn start_if_due(cx: &Cx) {
    {
        let mut core = cx.core();
        if core.below.off || core.below.growing || !core.serving || core.poisoned.is_some() {
            return;
        }
        let Some(pool) = core.pool.as_ref().filter(|pool| !pool.read_only) else { return };
        if pool.sb.geometry.preallocated || !core.config.sparse {
            core.below.off = true;
            return;
        }
        let in_vain = (core.below.full || core.below.starved) && core.below.asked == 0;
        if in_vain || core.missing_below() == 0 {
            if std::mem::take(&mut core.below.asked) > 0 {
                core.notify(|core| &mut core.below.wait);
            }
            return;
        }
        core.below.growing = true;
    }
    let task_cx = cx.clone();
    cx.spawn(async move {
        while grow(&task_cx).await {}
        let mut core = task_cx.core();
        core.below.growing = false;
        core.below.asked = 0;
        core.notify(|core| &mut core.below.wait);
    });
}

/// One step; whether another one is due.
async fn grow(cx: &Cx) -> bool {
    let want = {
        let core = cx.core();
        let Some(pool) = core.pool.as_ref().filter(|_| core.poisoned.is_none()) else {
            return false;
        };
        // Not those that data was promised.
        let data = pool.promised.saturating_sub(pool.promised_map);
        let free = pool.alloc.free_blocks().saturating_sub(data);
        let missing = core.missing_below();
        if missing == 0 { 0 } else { missing.clamp(*STEP.start(), *STEP.end()).min(free) }
    };
    let mut runs = Vec::new();
    let mut got = 0;
    while got < want {
        let Ok((phys, blocks)) = allocate(cx, Stream::Meta, (want - got) as u32).await else {
            break;
        };
        let blocks = u64::from(blocks);
        runs.push((phys, blocks));
        got += blocks;
        cx.core().below.coming += blocks;
    }
    let results = join_all(runs.iter().map(|&(phys, blocks)| async move {
        make_homes(cx, phys).await?;
        match cx.allocate_below(phys, blocks).await {
            Ok(()) => Ok(()),
            Err(failure) => {
                give_part_back(cx, phys, blocks, failure.errno).await;
                Err(failure.errno)
            }
        }
    }))
    .await;
    let mut core = cx.core();
    let mut failed = None;
    for ((phys, blocks), result) in runs.into_iter().zip(results) {
        core.below.coming -= blocks;
        match result {
            Ok(()) => core.below.put(phys, blocks),
            Err(errno) => {
                failed = Some(errno);
                if let Some(pool) = &mut core.pool {
                    pool.alloc.give_back(phys, blocks);
                }
            }
        }
    }
    match failed {
        Some(errno) if is_full(errno) => {
            core.below.full = true;
            core.below.failures += 1;
        }
        Some(errno) => core.turn_off(errno),
        None => {}
    }
    core.below.starved = want > 0 && got == 0 || core.missing_below() > 0 && want == 0;
    core.notify(|core| &mut core.below.wait);
    got > 0 && failed.is_none()
}

/// There was no room below for all of these blocks, but perhaps for a part, and a file system may have given that (ext4
/// does): all that it had left, for blocks that are free. So it goes back.
async fn give_part_back(cx: &Cx, phys: Phys, blocks: u64, errno: i32) {
    if is_full(errno) && cx.core().may_punch() {
        let _ = cx.discard(phys, blocks).await;
    }
}

impl Core {
    /// Whether the bitmap homes of the group of `phys` have room, as far as that is seen to.
    pub(crate) fn has_homes(&self, phys: Phys) -> bool {
        self.below.off || self.below.groups.contains(&(phys.0 / AG_BLOCKS))
    }
}

/// The bitmap homes of the group of `phys` have room, or the error number.
async fn make_homes(cx: &Cx, phys: Phys) -> Result<(), i32> {
    let group = phys.0 / AG_BLOCKS;
    let at = {
        let mut core = cx.core();
        if core.has_homes(phys) {
            return Ok(());
        }
        let Ok(pool) = core.pool() else { return Ok(()) };
        pool.sb.geometry.bitmap_home(group * cow_format::geometry::AG_ZONES, 0)
    };
    match cx.allocate_below(at, HOMES_BLOCKS).await {
        Ok(()) => {
            cx.core().below.groups.insert(group);
            Ok(())
        }
        Err(failure) => Err(failure.errno),
    }
}

/// Allocates blocks for data, in a group that has its bitmap homes.
pub(crate) async fn allocate_data(
    cx: &Cx,
    stream: Stream,
    want: u32,
) -> Result<(Phys, u32), Error> {
    let (phys, got) = allocate(cx, stream, want).await?;
    match make_homes(cx, phys).await {
        Err(errno) if is_full(errno) => {
            cx.core().pool()?.alloc.give_back(phys, got.into());
            Err(Error::NoSpace(SpaceKind::Below))
        }
        _ => Ok((phys, got)),
    }
}

/// Makes room for a table chunk; `false` if there is none.
pub(crate) async fn make_room(cx: &Cx, phys: Phys, blocks: u64) -> bool {
    if cx.core().below.off {
        return true;
    }
    match cx.allocate_below(phys, blocks).await {
        Err(failure) => {
            give_part_back(cx, phys, blocks, failure.errno).await;
            !is_full(failure.errno)
        }
        Ok(()) => true,
    }
}
