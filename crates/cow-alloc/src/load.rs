//! Zones in memory: loading and evicting.

use crate::bits::Bits;
use crate::image::{decode, reserved};
use crate::resident::Resident;
use crate::{AllocError, Allocator};
use cow_format::{FormatError, Phys, mutant};

impl Allocator {
    /// Whether the zone's bitmaps are in memory.
    pub fn is_resident(&self, zone: u64) -> bool {
        self.zones.get(zone as usize).is_some_and(Option::is_some)
    }

    /// Where to read the zone's page. `None` when it needs none: it is resident, or was never
    /// written, or there is no such zone. The answer changes when a commit moves the page, and
    /// [`Allocator::load_zone`] then refuses what was read from the old place.
    pub fn page_to_load(&self, zone: u64) -> Option<Phys> {
        let desc = self.descs.get(zone as usize).filter(|desc| !desc.fresh)?;
        (!self.is_resident(zone)).then(|| self.geometry.bitmap_home(zone, desc.home))
    }

    /// Makes a zone resident whose page was read. A zone that is resident stays as it is.
    ///
    /// # Errors
    /// When the page is not what the descriptor says.
    pub fn load_zone(&mut self, zone: u64, page: &[u8]) -> Result<(), FormatError> {
        let Some(desc) = self.descs.get(zone as usize).copied() else {
            let (what, at) = ("bitmap page", Phys::NONE);
            return Err(FormatError::Field { what, at, field: "zone" });
        };
        if !self.is_resident(zone) {
            let tag = self.pool_tag;
            let image = match decode(&self.geometry, self.pool_blocks, tag, zone, &desc, page) {
                Err(_) if mutant::is("pageempty") => self.as_empty(zone),
                image => image?,
            };
            self.trim(self.max_resident.saturating_sub(1));
            self.install(zone, image);
        }
        Ok(())
    }

    /// The fault that the mutant `pageempty` is: a zone whose page cannot be used is taken for one where nothing is.
    fn as_empty(&mut self, zone: u64) -> Box<Bits> {
        let image = reserved(&self.geometry, self.pool_blocks, zone);
        let mut used = image.clone();
        self.overlay(zone, &mut used);
        let state = &mut self.states[zone as usize];
        self.free = self.free + u64::from(used.free()) - u64::from(state.avail);
        state.avail = used.free();
        self.descs[zone as usize].free = image.free();
        image
    }

    /// Makes a zone resident that was never written. (All calls do so themselves where needed.)
    ///
    /// # Errors
    /// [`AllocError::NeedZone`] when the zone was written; [`AllocError::NotData`] when there is
    /// no such zone.
    pub fn load_fresh(&mut self, zone: u64) -> Result<(), AllocError> {
        self.ensure(zone)?;
        self.trim(self.max_resident);
        Ok(())
    }

    /// The zone's bitmaps, if they are in memory or known by rule.
    pub(crate) fn ensure(&mut self, zone: u64) -> Result<&mut Resident, AllocError> {
        let index = zone as usize;
        let Some(desc) = self.descs.get(index) else {
            return Err(AllocError::NotData(Phys(zone * cow_format::geometry::ZONE_BLOCKS)));
        };
        if self.zones[index].is_none() {
            if !desc.fresh {
                return Err(AllocError::NeedZone(zone));
            }
            self.install(zone, reserved(&self.geometry, self.pool_blocks, zone));
        }
        let resident = self.zones[index].as_mut().ok_or(AllocError::NeedZone(zone))?;
        resident.touched = true;
        Ok(resident)
    }

    fn install(&mut self, zone: u64, image: Box<Bits>) {
        let mut used = image.clone();
        self.overlay(zone, &mut used);
        let index = zone as usize;
        // Exact from here on, also after the pool grew or another program wrote a lower bound.
        self.descs[index].longest = image.longest_free();
        let state = &mut self.states[index];
        debug_assert_eq!(state.avail, used.free(), "free count of zone {zone}");
        state.longest = used.longest_free();
        state.verified = true;
        self.zones[index] = Some(Box::new(Resident::new(image, used)));
        self.loaded.push_back(zone);
    }

    /// Evicts zones until at most `keep` are resident, or all others are pinned. Second chance:
    /// the first in line that was not touched since it was last looked at. The newest stays, as
    /// somebody waits for it; nothing is evicted in the middle of a call.
    pub(crate) fn trim(&mut self, keep: usize) {
        if self.loaded.len() <= keep {
            return;
        }
        let newest = self.loaded.pop_back();
        for _ in 0..2 * self.loaded.len() {
            if self.loaded.len() < keep.max(1) {
                break;
            }
            let Some(zone) = self.loaded.pop_front() else { break };
            let slot = &mut self.zones[zone as usize];
            let touched = slot.as_mut().is_some_and(|slot| std::mem::take(&mut slot.touched));
            if touched || self.is_pinned(zone) {
                self.loaded.push_back(zone);
            } else {
                self.zones[zone as usize] = None;
            }
        }
        self.loaded.extend(newest);
    }

    /// Whether a zone must stay: nothing but its bitmaps knows the unfolded blocks.
    fn is_pinned(&self, zone: u64) -> bool {
        self.zones[zone as usize].as_ref().is_some_and(|resident| resident.has_unfolded())
            || self.frontiers.iter().any(|frontier| frontier.is_in(zone))
    }
}
