//! Between quarantine and free: blocks that are given back to the file system below first.
//!
//! ```text
//! quarantine ─ leave ─▶ waiting ─ begin_discard ─▶ discarding ─ end_discard ─▶ free
//!                          └──── free_waiting ──────────────────────────────────▲
//! ```
//!
//! What is discarded are whole *cells* of 16 blocks (64 KiB), aligned: a discard of every single
//! block would cost more than the space is worth, and leave the file below in as many pieces. A
//! cell is discarded when the last of its blocks becomes free; its other blocks, free until then,
//! are kept from being given out for as long as that takes. Blocks whose cell is not all free
//! become free at once, and stay allocated below.

use crate::bits::{Bits, Run, ZONE};
use crate::image::end_in_zone;
use crate::resident::Resident;
use crate::zone::{next_part, split};
use crate::{AllocError, Allocator};
use cow_format::Phys;
use cow_format::geometry::ZONE_BLOCKS;

/// Blocks of one discard, at most (1 MiB): a file is locked while a hole is punched.
pub const MAX_DISCARD: u32 = 256;

/// Runs to be discarded, and where to go on.
pub type Chosen = (Vec<(Phys, u64)>, Option<u32>);

impl Allocator {
    /// How many blocks a cell has; rounded to a power of two that divides a zone.
    pub fn set_cell(&mut self, blocks: u32) {
        self.leaving.cell = blocks.clamp(1, MAX_DISCARD).next_power_of_two();
    }

    /// The batches of checkpoints up to `cp_seq` leave the quarantine, to be discarded before they
    /// are free.
    pub fn leave(&mut self, cp_seq: u64) {
        for (phys, blocks) in self.releasable(cp_seq) {
            let mut rest = Some((phys, blocks));
            while let Some((zone, start, len)) = next_part(&mut rest) {
                let run = Run { start: start as u16, len: len as u16 };
                self.leaving.put(zone, run);
            }
        }
        self.quarantine.remove_up_to(cp_seq);
    }

    /// Takes back blocks as [`Allocator::give_back`] does, to be discarded before they are free.
    ///
    /// # Panics
    /// When a block is not an unfolded one: that is a fault of the caller.
    pub fn let_go(&mut self, phys: Phys, blocks: u64) {
        let mut rest = Some((phys, blocks));
        while let Some((zone, start, len)) = next_part(&mut rest) {
            let taken =
                resident_of(&mut self.zones, zone).is_some_and(|r| r.own(start, len) == len);
            assert!(taken, "let go without being allocated");
            self.leaving.put(zone, Run { start: start as u16, len: len as u16 });
        }
    }

    /// A zone with blocks that wait to be discarded.
    pub fn zone_to_discard(&self) -> Option<u64> {
        self.leaving.waiting.keys().next().copied()
    }

    /// Blocks that wait to be discarded, or are being.
    pub fn leaving_blocks(&self) -> u64 {
        self.leaving.blocks()
    }

    /// A number that has risen by as many as [`Allocator::leaving_blocks`] says now when as many
    /// have become free.
    pub fn left_blocks(&self) -> i64 {
        self.leaving.left
    }

    /// Chooses what of the waiting blocks of `zone` is to be discarded: runs of whole cells, each
    /// to be handed to [`Allocator::end_discard`]. The others are free from now on. At most
    /// `most_kept` free blocks are kept for their cells; if that is not enough, all become free.
    ///
    /// # Errors
    /// [`AllocError::NeedZone`]; nothing has changed then.
    pub fn begin_discard(
        &mut self,
        zone: u64,
        most_kept: u64,
    ) -> Result<Vec<(Phys, u64)>, AllocError> {
        self.ensure(zone)?;
        let cell_blocks = self.leaving.cell;
        let Some(waiting) = self.leaving.waiting.remove(&zone) else { return Ok(Vec::new()) };
        let Some(resident) = resident_of(&mut self.zones, zone) else { return Ok(Vec::new()) };
        let (mut leaving, mut cells) = (Bits::empty(), Bits::empty());
        waiting.iter().for_each(|run| leaving.set_run(*run));
        let mut withheld = Bits::empty();
        let first = Phys(zone * ZONE_BLOCKS);
        for phys in self.withheld.range(first..first.offset(ZONE_BLOCKS)) {
            withheld.set(split(*phys).1);
        }
        let mut busy = resident.used.clone();
        busy.remove(&leaving);
        busy.add(&withheld);
        for run in &waiting {
            let (start, end) = (u32::from(run.start), u32::from(run.start) + u32::from(run.len));
            for cell in start / cell_blocks..end.div_ceil(cell_blocks) {
                if busy.count_range(cell * cell_blocks, cell_blocks) == 0 {
                    cells.set_range(cell * cell_blocks, cell_blocks);
                }
            }
        }
        let mut kept = cells.clone();
        kept.remove(&leaving);
        if u64::from(kept.count()) > most_kept {
            (cells, kept) = (Bits::empty(), Bits::empty());
        }
        resident.used.add(&kept);
        let mut freed = leaving;
        freed.remove(&cells);
        self.leaving.end(freed.count());
        self.leaving.keep(kept.count());
        freed.remove(&withheld);
        resident.used.remove(&freed);
        self.make_used(zone, kept.count());
        self.make_free(zone, freed.count());
        let runs: Vec<Run> = cells.runs().flat_map(pieces).collect();
        if runs.is_empty() {
            self.reset_levels();
            return Ok(Vec::new());
        }
        let at = |run: &Run| (Phys(zone * ZONE_BLOCKS + u64::from(run.start)), run.len.into());
        let found = runs.iter().map(at).collect();
        self.leaving.discarding.entry(zone).or_default().extend(runs);
        Ok(found)
    }

    /// Chooses what of `zone`, from block `from` of it on, has long been free and is to be discarded
    /// once more: runs of whole cells, about `most` blocks of them, each to be handed to
    /// [`Allocator::end_discard`]. Second, where in the zone to go on; `None` at its end.
    ///
    /// Nothing was ever written to a fresh zone.
    ///
    /// # Errors
    /// [`AllocError::NeedZone`]; nothing has changed then.
    pub fn begin_trim(&mut self, zone: u64, from: u32, most: u64) -> Result<Chosen, AllocError> {
        let cell_blocks = self.leaving.cell;
        let fresh = self.descs.get(zone as usize).is_none_or(|desc| desc.fresh);
        let avail = self.states.get(zone as usize).map_or(0, |state| state.avail);
        if fresh || u32::from(avail) < cell_blocks {
            return Ok((Vec::new(), None));
        }
        let end = end_in_zone(self.pool_blocks, zone);
        self.ensure(zone)?;
        let Some(resident) = resident_of(&mut self.zones, zone) else {
            return Ok((Vec::new(), None));
        };
        let mut busy = resident.used.clone();
        let first = Phys(zone * ZONE_BLOCKS);
        for phys in self.withheld.range(first..first.offset(ZONE_BLOCKS)) {
            busy.set(split(*phys).1);
        }
        let (mut cells, mut count) = (Bits::empty(), 0);
        let mut at = from.next_multiple_of(cell_blocks);
        while at + cell_blocks <= end && u64::from(count + cell_blocks) <= most {
            if busy.count_range(at, cell_blocks) == 0 {
                cells.set_range(at, cell_blocks);
                count += cell_blocks;
            }
            at += cell_blocks;
        }
        resident.used.add(&cells);
        self.leaving.keep(count);
        self.make_used(zone, count);
        let runs: Vec<Run> = cells.runs().flat_map(pieces).collect();
        let found = runs.iter().map(|run| (first.offset(run.start.into()), run.len.into()));
        let found = found.collect();
        if !runs.is_empty() {
            self.leaving.discarding.entry(zone).or_default().extend(runs);
        }
        Ok((found, (at + cell_blocks <= end).then_some(at)))
    }

    /// A run of [`Allocator::begin_discard`] or [`Allocator::begin_trim`] was discarded, or will not be: it is free.
    pub fn end_discard(&mut self, phys: Phys) {
        let (zone, start) = split(phys);
        let Some(runs) = self.leaving.discarding.get_mut(&zone) else { return };
        let Some(at) = runs.iter().position(|run| u32::from(run.start) == start) else { return };
        let run = runs.swap_remove(at);
        let done = runs.is_empty();
        if done {
            self.leaving.discarding.remove(&zone);
        }
        self.free_leaving(zone, run);
        if done {
            self.reset_levels();
        }
    }

    /// What waits is free without having been discarded. Gives how many blocks that were.
    pub fn free_waiting(&mut self) -> u64 {
        let before = self.leaving.blocks();
        for (zone, runs) in std::mem::take(&mut self.leaving.waiting) {
            runs.into_iter().for_each(|run| self.free_leaving(zone, run));
        }
        let freed = before - self.leaving.blocks();
        if freed > 0 {
            self.reset_levels();
        }
        freed
    }

    fn free_leaving(&mut self, zone: u64, run: Run) {
        self.leaving.end(run.len.into());
        let mut freed = Bits::empty();
        freed.set_run(run);
        let first = Phys(zone * ZONE_BLOCKS + u64::from(run.start));
        for phys in self.withheld.range(first..first.offset(run.len.into())) {
            freed.clear(split(*phys).1);
        }
        if let Some(resident) = resident_of(&mut self.zones, zone) {
            debug_assert!(resident.used.contains(&freed));
            resident.used.remove(&freed);
        }
        self.make_free(zone, freed.count());
    }
}

fn resident_of(zones: &mut [Option<Box<Resident>>], zone: u64) -> Option<&mut Resident> {
    zones.get_mut(zone as usize).and_then(Option::as_deref_mut)
}

/// Cuts a run where a discard has to end.
fn pieces(run: Run) -> impl Iterator<Item = Run> {
    let (start, end) = (u32::from(run.start), u32::from(run.start) + u32::from(run.len));
    debug_assert!(end <= ZONE);
    (start..end)
        .step_by(MAX_DISCARD as usize)
        .map(move |at| Run { start: at as u16, len: (end - at).min(MAX_DISCARD) as u16 })
}
