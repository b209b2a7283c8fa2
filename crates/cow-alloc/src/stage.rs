//! The checkpoint's image: `image(n) = image(n-1) + adds - frees`.
//!
//! The pages of a checkpoint are staged one by one while the image stays as it is; all become the
//! image together when the checkpoint is durable. A staged zone keeps no page in memory, only
//! its runs of adds and frees: a fold may stage every zone of the pool. So it may be evicted and
//! loaded again (from its old home) before the commit.

use crate::bits::{Bits, ZONE};
use crate::image::{end_in_zone, reserved};
use crate::zone::{StagedZone, split};
use crate::{AllocError, Allocator};
use cow_format::checkpoint::ZoneDesc;
use cow_format::geometry::{Geometry, ZONE_BLOCKS};
use cow_format::page::bitmap_crc;
use cow_format::{Buf, Phys};

/// A page to be written for the next checkpoint.
#[derive(Clone, Debug)]
pub struct Staged {
    /// The zone's descriptor in that checkpoint.
    pub desc: ZoneDesc,
    /// Where the page goes: the inactive home.
    pub at: Phys,
    /// The page.
    pub page: Buf,
}

impl Allocator {
    /// Makes the zone's page for the checkpoint being written. `adds` are unfolded (or withheld)
    /// blocks that the checkpoint refers to, `frees` those that it no longer does: blocks of the
    /// current image, or among the adds of the same checkpoint. A block that was allocated and
    /// superseded inside of this fold is given as both: the image never holds it, and it goes
    /// into quarantine like any other free. Neither image nor free count change before
    /// [`Allocator::commit`].
    ///
    /// Adds and frees of a second call for the same zone come on top, and its page replaces the
    /// first one's, in the same place.
    ///
    /// # Errors
    /// [`AllocError::NeedZone`]; [`AllocError::InUse`] for an add that is in the image or was
    /// added before, [`AllocError::NotInUse`] for one that is not allocated and for a free of
    /// what is not in the image, [`AllocError::NotData`]. Nothing is staged then.
    pub fn stage(
        &mut self,
        zone: u64,
        adds: &[Phys],
        frees: &[Phys],
    ) -> Result<Staged, AllocError> {
        self.ensure(zone)?;
        let before = self.staged.get(&zone).cloned().unwrap_or_default();
        let Some(resident) = &self.zones[zone as usize] else {
            return Err(AllocError::NeedZone(zone));
        };
        let mut page = resident.image.clone();
        before.apply(&mut page);
        let (mut added, mut freed) = (Bits::empty(), Bits::empty());
        before.adds.iter().for_each(|run| added.set_run(*run));
        before.frees.iter().for_each(|run| freed.set_run(*run));
        for &phys in adds {
            let bit = self.bit_in(zone, phys)?;
            if page.get(bit) || added.get(bit) {
                return Err(AllocError::InUse(phys));
            }
            if freed.get(bit) || !(resident.is_unfolded(bit) || self.withheld.contains(&phys)) {
                return Err(AllocError::NotInUse(phys));
            }
            page.set(bit);
            added.set(bit);
        }
        for &phys in frees {
            let bit = self.bit_in(zone, phys)?;
            if !page.get(bit) {
                return Err(AllocError::NotInUse(phys));
            }
            page.clear(bit);
            freed.set(bit);
        }
        if !page.contains(&reserved(&self.geometry, self.pool_blocks, zone)) {
            let wrong = frees.iter().find(|p| !self.geometry.is_data(**p, self.pool_blocks));
            return Err(AllocError::NotData(wrong.copied().unwrap_or(Phys(zone * ZONE_BLOCKS))));
        }
        let home = self.descs[zone as usize].home ^ 1;
        let at = self.geometry.bitmap_home(zone, home);
        let (free, longest, page) = (page.free(), page.longest_free(), page.to_page());
        let crc = bitmap_crc(&page, self.pool_tag, at);
        let desc = ZoneDesc { crc, free, longest, home, fresh: false };
        let (adds, frees) = (added.runs().collect(), freed.runs().collect());
        self.staged.insert(zone, StagedZone { desc, adds, frees });
        self.trim(self.max_resident);
        Ok(Staged { desc, at, page })
    }

    fn bit_in(&self, zone: u64, phys: Phys) -> Result<u32, AllocError> {
        let (of, bit) = split(phys);
        if of == zone && phys.0 < self.pool_blocks {
            Ok(bit)
        } else {
            Err(AllocError::NotData(phys))
        }
    }

    /// The descriptors for the checkpoint being written, which records a pool of `pool_blocks`
    /// blocks: less than now if the pool has grown after the state that it describes.
    pub fn staged_descs(&self, pool_blocks: u64) -> Vec<ZoneDesc> {
        debug_assert!(pool_blocks <= self.pool_blocks);
        let count = Geometry::zone_count(pool_blocks).min(self.zone_count());
        let mut descs = self.descs[..count as usize].to_vec();
        for (zone, staged) in self.staged.range(..count) {
            descs[*zone as usize] = staged.desc;
        }
        if let Some((zone, desc)) = descs.iter_mut().enumerate().next_back() {
            // What the pool has grown by since is free, and not yet a part of it.
            let grown = self.grown_part(zone as u64, pool_blocks, self.pool_blocks).1 as u16;
            debug_assert!(desc.free >= grown, "the grown part is not in this checkpoint");
            desc.free = desc.free.saturating_sub(grown);
            desc.longest = desc.longest.saturating_sub(grown).min(desc.free);
        }
        descs
    }

    /// The zones that are staged.
    pub fn staged_zones(&self) -> impl Iterator<Item = u64> + '_ {
        self.staged.keys().copied()
    }

    /// Checkpoint `cp_seq` is durable: all that was staged is the image now. What it freed is in
    /// quarantine, batch `cp_seq`; what it added is no longer unfolded.
    pub fn commit(&mut self, cp_seq: u64) {
        debug_assert!(cp_seq > self.cp_seq, "checkpoints go up");
        self.cp_seq = cp_seq;
        for (zone, staged) in std::mem::take(&mut self.staged) {
            let index = zone as usize;
            self.descs[index] = staged.desc;
            if let Some(resident) = &mut self.zones[index] {
                staged.apply(&mut resident.image);
                for run in staged.adds.iter().chain(&staged.frees) {
                    resident.own(run.start.into(), run.len.into());
                }
                debug_assert_eq!(resident.image.free(), staged.desc.free);
                debug_assert!(resident.used.contains(&resident.image));
            }
            self.quarantine.put(cp_seq, zone, &staged.frees);
        }
    }

    /// The checkpoint will not be: forgets what was staged for it.
    pub fn abort_staged(&mut self) {
        self.staged.clear();
    }

    /// The blocks of `zone` that become free when the pool grows from `old` to `new`: first and
    /// count. They are one run, up to the new end.
    pub(crate) fn grown_part(&self, zone: u64, old: u64, new: u64) -> (u32, u32) {
        let (from, to) = (end_in_zone(old, zone), end_in_zone(new, zone));
        let mut start = from;
        for (first, len) in self.geometry.reserved_runs(zone, new) {
            if first < to {
                start = start.max((first + len).min(to));
            }
        }
        debug_assert!(start <= to && to <= ZONE);
        (start, to - start)
    }
}
