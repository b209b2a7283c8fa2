//! Into quarantine at open, and out of it.

use crate::bits::{Bits, Run};
use crate::image::{decode, end_in_zone};
use crate::zone::next_part;
use crate::{AllocError, Allocator};
use cow_format::Phys;
use cow_format::checkpoint::Checkpoint;
use cow_format::geometry::ZONE_BLOCKS;

impl Allocator {
    /// The blocks that [`Allocator::release`] would make allocatable, as merged runs in order.
    /// Those are what may be discarded below, which must be done before the release.
    pub fn releasable(&self, cp_seq: u64) -> Vec<(Phys, u64)> {
        let mut parts: Vec<(Phys, u64)> = Vec::new();
        for (zone, run) in self.quarantine.up_to(cp_seq) {
            let mut at = Phys(zone * ZONE_BLOCKS + u64::from(run.start));
            let end = at.offset(run.len.into());
            // A withheld block stays behind.
            for &block in self.withheld.range(at..end) {
                parts.push((at, block.0 - at.0));
                at = block.offset(1);
            }
            parts.push((at, end.0 - at.0));
        }
        parts.retain(|(_, blocks)| *blocks > 0);
        parts.sort_unstable();
        parts.dedup_by(|next, last| {
            let adjacent = last.0.offset(last.1) == next.0;
            if adjacent {
                last.1 += next.1;
            }
            adjacent
        });
        parts
    }

    /// The batches of checkpoints up to `cp_seq` become allocatable. Gives the runs, merged and
    /// in order.
    pub fn release(&mut self, cp_seq: u64) -> Vec<(Phys, u64)> {
        let runs = self.releasable(cp_seq);
        for &(phys, blocks) in &runs {
            let mut rest = Some((phys, blocks));
            while let Some((zone, start, len)) = next_part(&mut rest) {
                if let Some(resident) = &mut self.zones[zone as usize] {
                    debug_assert_eq!(resident.used.count_range(start, len), len);
                    debug_assert_eq!(resident.image.count_range(start, len), 0);
                    resident.used.clear_range(start, len);
                }
                self.make_free(zone, len);
            }
        }
        self.quarantine.remove_up_to(cp_seq);
        if !runs.is_empty() {
            self.reset_levels();
        }
        runs
    }

    /// The pages to hand to [`Allocator::quarantine_diff`] at open: of each zone whose page
    /// differs between the checkpoint before the newest one and the newest.
    pub fn pages_to_diff(&self, previous: &Checkpoint) -> Vec<(u64, Phys)> {
        let pairs = previous.zones.iter().zip(&self.descs).enumerate();
        pairs
            .filter(|(_, (old, new))| !old.fresh && (old.home, old.crc) != (new.home, new.crc))
            .map(|(zone, (old, _))| (zone as u64, self.geometry.bitmap_home(zone as u64, old.home)))
            .collect()
    }

    /// Puts the blocks of `zone` that the previous checkpoint's page holds and nothing uses now
    /// into the batch of the newest checkpoint. Gives how many. Without the page, once its home
    /// was overwritten, the previous checkpoint is no fallback anyway.
    ///
    /// # Errors
    /// [`AllocError::NeedZone`]; [`AllocError::Page`] when the page is not the previous
    /// checkpoint's.
    pub fn quarantine_diff(
        &mut self,
        zone: u64,
        previous: &Checkpoint,
        page: &[u8],
    ) -> Result<u64, AllocError> {
        let Some(desc) = previous.zones.get(zone as usize) else { return Ok(0) };
        let tag = self.pool_tag;
        let mut held = decode(&self.geometry, previous.pool_blocks, tag, zone, desc, page)?;
        // What lay past the end of the pool then was nobody's.
        let end = end_in_zone(previous.pool_blocks, zone);
        held.clear_range(end, ZONE_BLOCKS as u32 - end);
        self.hold(zone, &mut held)
    }

    /// Puts those of the blocks that nothing uses into the batch of the newest checkpoint. At
    /// open, for what frames between the previous checkpoint's tail and the newest one's refer
    /// to: blocks that were written and overwritten between the two are in neither's image, yet
    /// a fallback would replay them.
    ///
    /// # Errors
    /// [`AllocError::NeedZone`]; [`AllocError::NotData`].
    pub fn quarantine_run(&mut self, phys: Phys, blocks: u64) -> Result<(), AllocError> {
        if phys.0.checked_add(blocks).is_none_or(|end| end > self.pool_blocks) {
            return Err(AllocError::NotData(phys));
        }
        let mut rest = Some((phys, blocks));
        while let Some((zone, start, len)) = next_part(&mut rest) {
            let mut bits = Bits::empty();
            bits.set_range(start, len);
            self.hold(zone, &mut bits)?;
        }
        Ok(())
    }

    fn hold(&mut self, zone: u64, held: &mut Bits) -> Result<u64, AllocError> {
        let resident = self.ensure(zone)?;
        held.remove(&resident.used);
        resident.used.add(held);
        let count = held.count();
        let runs: Vec<Run> = held.runs().collect();
        self.make_used(zone, count);
        self.quarantine.put(self.cp_seq, zone, &runs);
        Ok(count.into())
    }
}
