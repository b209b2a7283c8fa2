//! A pool that grows. See `image.rs` for how a partial page is read.

use crate::image::fresh_counts;
use crate::zone::ZoneState;
use crate::{AllocError, Allocator};
use cow_format::checkpoint::ZoneDesc;
use cow_format::geometry::Geometry;

impl Allocator {
    /// The pool is `new_blocks` long now. The rest of a partial last zone becomes free by rule,
    /// without its page; zones after it are fresh.
    ///
    /// # Errors
    /// [`AllocError::BadSize`] when it would shrink or grow over its limit.
    pub fn grow(&mut self, new_blocks: u64) -> Result<(), AllocError> {
        if new_blocks < self.pool_blocks || new_blocks > self.geometry.limit_blocks {
            return Err(AllocError::BadSize(new_blocks));
        }
        let old_blocks = std::mem::replace(&mut self.pool_blocks, new_blocks);
        if let Some(last) = self.zone_count().checked_sub(1) {
            self.grow_partial(last, old_blocks, new_blocks);
        }
        for zone in self.zone_count()..Geometry::zone_count(new_blocks) {
            let (free, longest) = fresh_counts(&self.geometry, new_blocks, zone);
            self.descs.push(ZoneDesc { fresh: true, free, longest, ..ZoneDesc::default() });
            self.states.push(ZoneState { avail: free, longest, verified: true });
            self.zones.push(None);
            self.free += u64::from(free);
        }
        self.reset_levels();
        Ok(())
    }

    fn grow_partial(&mut self, zone: u64, old_blocks: u64, new_blocks: u64) {
        let (start, len) = self.grown_part(zone, old_blocks, new_blocks);
        if len == 0 {
            return;
        }
        let index = zone as usize;
        // The new run may go on from one before it: unless the page is at hand, its own length
        // is a lower bound.
        let staged = self.staged.get_mut(&zone).map(|staged| &mut staged.desc);
        let is_staged = staged.is_some();
        for desc in staged.into_iter().chain([&mut self.descs[index]]) {
            desc.free += len as u16;
            desc.longest = desc.longest.max(len as u16);
        }
        if let Some(resident) = &mut self.zones[index] {
            resident.image.clear_range(start, len);
            resident.used.clear_range(start, len);
            self.descs[index].longest = resident.image.longest_free();
        } else if self.descs[index].fresh {
            self.descs[index].longest = fresh_counts(&self.geometry, new_blocks, zone).1;
        }
        self.make_free(zone, len);
        let fresh = self.descs[index].fresh;
        let state = &mut self.states[index];
        state.verified = (self.zones[index].is_some() || fresh) && !is_staged;
    }
}
