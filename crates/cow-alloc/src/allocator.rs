//! The allocator's state, and the operations on single blocks.

use crate::bits::{Bits, ZONE};
use crate::frontier::{Frontier, STREAMS};
use crate::image::{end_in_zone, fresh_counts};
use crate::leaving::Leaving;
use crate::quarantine::Quarantine;
use crate::resident::{MAX_RESIDENT, Resident};
use crate::zone::{StagedZone, ZoneState, next_part, split};
use crate::{AllocError, Stream};
use cow_format::Phys;
use cow_format::checkpoint::ZoneDesc;
use cow_format::geometry::{Geometry, ZONE_BLOCKS};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The block allocator of a pool.
pub struct Allocator {
    pub(crate) geometry: Geometry,
    pub(crate) pool_tag: u64,
    pub(crate) pool_blocks: u64,
    /// The newest checkpoint.
    pub(crate) cp_seq: u64,
    /// One a zone: the image, in terms of the pool's size now.
    pub(crate) descs: Vec<ZoneDesc>,
    pub(crate) states: Vec<ZoneState>,
    pub(crate) zones: Vec<Option<Box<Resident>>>,
    /// The resident zones, in the order in which they are looked at for eviction.
    pub(crate) loaded: VecDeque<u64>,
    pub(crate) max_resident: usize,
    pub(crate) frontiers: [Frontier; STREAMS],
    pub(crate) staged: BTreeMap<u64, StagedZone>,
    pub(crate) quarantine: Quarantine,
    pub(crate) leaving: Leaving,
    pub(crate) withheld: BTreeSet<Phys>,
    /// Sum of all `avail`.
    pub(crate) free: u64,
}

impl Allocator {
    /// The allocator of a pool of `pool_blocks` blocks as checkpoint `cp_seq` describes it by
    /// `zones`, one descriptor a zone. Nothing is resident. At open what follows is, in this
    /// order: [`Allocator::withhold`] for the checkpoint's list, [`Allocator::mark_used`] and
    /// [`Allocator::grow`] for the records after it, and unless it says `no_fallback`
    /// [`Allocator::quarantine_diff`] for the pages that it changed.
    pub fn new(
        geometry: Geometry,
        pool_blocks: u64,
        pool_tag: u64,
        cp_seq: u64,
        zones: Vec<ZoneDesc>,
    ) -> Self {
        let mut descs = zones;
        // A decoded checkpoint has the right number; a wrong one must not panic later.
        let count = Geometry::zone_count(pool_blocks) as usize;
        descs.resize(count, ZoneDesc { fresh: true, ..ZoneDesc::default() });
        let mut states = Vec::with_capacity(count);
        let mut free = 0;
        for (zone, desc) in descs.iter_mut().enumerate() {
            if desc.fresh {
                (desc.free, desc.longest) = fresh_counts(&geometry, pool_blocks, zone as u64);
            }
            // No more than there are; the page is checked against it when it is loaded.
            let avail = desc.free.min(end_in_zone(pool_blocks, zone as u64) as u16);
            free += u64::from(avail);
            states.push(ZoneState { avail, longest: desc.longest, verified: desc.fresh });
        }
        Self {
            geometry,
            pool_tag,
            pool_blocks,
            cp_seq,
            descs,
            states,
            zones: (0..count).map(|_| None).collect(),
            loaded: VecDeque::new(),
            max_resident: MAX_RESIDENT,
            frontiers: [Frontier::default(); STREAMS],
            staged: BTreeMap::new(),
            quarantine: Quarantine::default(),
            leaving: Leaving::default(),
            withheld: BTreeSet::new(),
            free,
        }
    }

    /// How many zones may stay resident that need not: [`MAX_RESIDENT`] unless said otherwise.
    pub fn set_max_resident(&mut self, zones: usize) {
        self.max_resident = zones;
    }

    /// Hands out up to `want` contiguous blocks (at least one, `want` being at least one). They
    /// belong to the caller until they are staged as added or given back.
    ///
    /// # Errors
    /// [`AllocError::NeedZone`]; [`AllocError::NoSpace`] when no block is allocatable.
    pub fn alloc(&mut self, stream: Stream, want: u32) -> Result<(Phys, u32), AllocError> {
        debug_assert!(want > 0);
        if self.free == 0 {
            return Err(AllocError::NoSpace);
        }
        let (s, want) = (stream as usize, want.clamp(1, ZONE));
        if let Some(run) = self.take(s, want) {
            return Ok(run);
        }
        self.advance(s)?;
        let run = self.take(s, want);
        debug_assert!(run.is_some(), "a window without a free block");
        run.ok_or(AllocError::NoSpace)
    }

    /// Takes back blocks that were allocated and that no record names: they are allocatable at
    /// once.
    ///
    /// # Panics
    /// When a block is not an unfolded one: that is a fault of the caller.
    pub fn give_back(&mut self, phys: Phys, blocks: u64) {
        let mut rest = Some((phys, blocks));
        while let Some((zone, start, len)) = next_part(&mut rest) {
            let resident = self.zones.get_mut(zone as usize).and_then(Option::as_mut);
            let taken = resident.is_some_and(|resident| resident.forget(start, len));
            assert!(taken, "given back without being allocated");
            self.make_free(zone, len);
            for frontier in &mut self.frontiers {
                frontier.rewind(zone, start, len);
            }
        }
    }

    /// Marks blocks as allocated that a replayed record names.
    ///
    /// # Errors
    /// [`AllocError::NeedZone`]; [`AllocError::InUse`] and [`AllocError::NotData`] for a record
    /// that cannot be. Nothing has changed then.
    pub fn mark_used(&mut self, phys: Phys, blocks: u64) -> Result<(), AllocError> {
        let end = phys.0.checked_add(blocks).filter(|end| *end <= self.pool_blocks);
        if end.is_none() {
            return Err(AllocError::NotData(phys));
        }
        let mut rest = Some((phys, blocks));
        while let Some((zone, start, len)) = next_part(&mut rest) {
            let resident = self.ensure(zone)?;
            let used = resident.used.next_set(start, start + len);
            if used < start + len {
                return Err(AllocError::InUse(Phys(zone * ZONE_BLOCKS + u64::from(used))));
            }
        }
        let mut rest = Some((phys, blocks));
        while let Some((zone, start, len)) = next_part(&mut rest) {
            self.hand_out(zone, start, len);
        }
        Ok(())
    }

    /// A block that failed a write, or is on the checkpoint's list: never handed out again. If it
    /// was allocated and not folded, it is no longer the caller's to give back, but a fold may
    /// still stage it.
    ///
    /// # Errors
    /// [`AllocError::NeedZone`]; [`AllocError::NotData`].
    pub fn withhold(&mut self, phys: Phys) -> Result<(), AllocError> {
        if !self.geometry.is_data(phys, self.pool_blocks) {
            return Err(AllocError::NotData(phys));
        }
        let (zone, bit) = split(phys);
        let resident = self.ensure(zone)?;
        if resident.used.get(bit) {
            resident.own(bit, 1);
        } else {
            resident.used.set(bit);
            self.make_used(zone, 1);
        }
        self.withheld.insert(phys);
        Ok(())
    }

    /// The withheld blocks, for the checkpoint's list.
    pub fn withheld(&self) -> impl Iterator<Item = Phys> + '_ {
        self.withheld.iter().copied()
    }

    /// The withheld ones among so many blocks from `phys` on.
    pub fn withheld_in(&self, phys: Phys, blocks: u64) -> impl Iterator<Item = Phys> + '_ {
        self.withheld.range(phys..phys.offset(blocks)).copied()
    }

    /// Whether the newest checkpoint holds this block of a resident zone.
    pub fn is_in_image(&self, phys: Phys) -> bool {
        let (zone, bit) = split(phys);
        let resident = self.zones.get(zone as usize).and_then(Option::as_ref);
        resident.is_some_and(|resident| resident.image.get(bit))
    }

    /// Blocks that could be handed out now, over all zones, resident or not. Exact.
    pub fn free_blocks(&self) -> u64 {
        self.free
    }

    /// Blocks in quarantine, or leaving it: freed, and not allocatable yet.
    pub fn pending_blocks(&self) -> u64 {
        self.quarantine.blocks() + self.leaving.blocks()
    }

    /// Number of zones.
    pub fn zone_count(&self) -> u64 {
        self.descs.len() as u64
    }

    /// The descriptors of the newest committed image, in terms of the pool's size now.
    pub fn descs(&self) -> &[ZoneDesc] {
        &self.descs
    }

    /// Takes clear blocks of a resident zone for the caller.
    pub(crate) fn hand_out(&mut self, zone: u64, start: u32, len: u32) {
        if let Some(resident) = &mut self.zones[zone as usize] {
            debug_assert_eq!(resident.used.count_range(start, len), 0);
            resident.lend(start, len);
            self.make_used(zone, len);
        }
    }

    /// Bookkeeping: `len` blocks of `zone` are no longer allocatable.
    pub(crate) fn make_used(&mut self, zone: u64, len: u32) {
        self.states[zone as usize].avail -= len as u16;
        self.free -= u64::from(len);
    }

    /// Bookkeeping: `len` blocks of `zone` are allocatable again. `used` contains the image, so
    /// its longest free run is at most that of the image.
    pub(crate) fn make_free(&mut self, zone: u64, len: u32) {
        let longest = self.descs[zone as usize].longest;
        let state = &mut self.states[zone as usize];
        state.avail += len as u16;
        state.longest = longest.min(state.avail);
        self.free += u64::from(len);
        debug_assert!(u32::from(state.avail) <= ZONE);
    }

    /// Free space came back: streams look for long runs again.
    pub(crate) fn reset_levels(&mut self) {
        self.frontiers.iter_mut().for_each(|frontier| frontier.level = 0);
    }

    /// The overlay of a zone: blocks that are not free although the image does not hold them.
    pub(crate) fn overlay(&self, zone: u64, used: &mut Bits) {
        self.quarantine.overlay(zone, used);
        self.leaving.overlay(zone, used);
        let first = Phys(zone * ZONE_BLOCKS);
        for phys in self.withheld.range(first..first.offset(ZONE_BLOCKS)) {
            used.set(split(*phys).1);
        }
    }
}
