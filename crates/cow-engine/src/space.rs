//! What an operation may use of the free space (design section 7), and taking it.
//!
//! `free - reserved slop - fold reserve - promised - guarantees >= need`, before anything is
//! acknowledged (`admit.rs`). The fold reserve is what the folds of all unfolded changes may write
//! (`reserve.rs`); so an acknowledged write can always be folded, and a full pool never wedges. The
//! guarantees are what is kept for volumes (`share.rs`).

use crate::core::{Core, Pool};
use crate::error::{Error, SpaceKind};
use crate::task::Cx;
use cow_alloc::{AllocError, Stream};
use cow_format::geometry::ZONE_BLOCKS;
use cow_format::{BLOCK_SIZE, Phys, VolumeId, mutant};

const MIB_BLOCKS: u64 = (1 << 20) / BLOCK_SIZE as u64;
/// A margin: nothing is known to need it.
const FOLD_BASE: u64 = 64;

/// How deep an operation may dip into the slop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// User data: none of it.
    Data,
    /// Properties, snapshots, clones: half.
    Meta,
    /// User data of a volume with a reserve, as far as that goes: three quarters.
    Guaranteed,
    /// TRIM and WRITE_ZEROES: three quarters.
    Discard,
    /// What gives space back, or takes none in the end: all of it.
    Reclaim,
}

/// A fold for the sake of free space writes at most one block for so many of data that it takes in.
const HOARD_PER_BLOCK: u64 = 16;

impl Pool {
    /// Whether so much was written since the last fold that what it replaced would be missed, provided that it
    /// replaces something: a pool that waits until nothing is free has only the single blocks to give that
    /// came back last, and a random write costs the device as much as it would in place. What a fold writes
    /// for that must be little.
    ///
    /// `frees_much`: what was written before replaced much. Where that is not known it is found out when a third
    /// of what was free is used up, while there is time: what a fold frees is only there after the next one, and
    /// once nothing is left writers wait for both.
    pub(crate) fn hoards(&self, frees_much: bool) -> bool {
        let data = self.active.data_blocks();
        let part = if frees_much { 8 } else { 2 };
        data > self.alloc.free_blocks() / part
            && data / HOARD_PER_BLOCK >= self.active.reserve_blocks() + FOLD_BASE
    }
}

impl Core {
    pub(crate) fn slop_blocks(&self) -> u64 {
        let blocks = self.pool.as_ref().map_or(0, |p| p.pool_blocks);
        (blocks / 64).clamp(8 * MIB_BLOCKS, 8192 * MIB_BLOCKS)
    }

    fn reserve_blocks(&self) -> u64 {
        let Some(pool) = self.pool.as_ref().filter(|_| !mutant::is("noreserve")) else { return 0 };
        let folding = pool.folding.as_ref().map_or(0, |layers| layers.reserve_blocks());
        let waiting = pool.active.reserve_blocks() + pool.tree.pending_blocks() + pool.promised;
        waiting + folding + self.fold.splice_blocks + FOLD_BASE
    }

    /// Blocks that `tier` could still use, on behalf of `volume` where it is one of the volume's
    /// own operations.
    pub(crate) fn available(&self, tier: Tier, volume: Option<VolumeId>) -> u64 {
        let Some(pool) = &self.pool else { return 0 };
        let slop = self.slop_blocks();
        // What is kept for volumes stands in nobody's way who gives space back.
        let (kept, others) = match tier {
            Tier::Data => (slop, true),
            Tier::Meta => (slop / 2, true),
            Tier::Guaranteed | Tier::Discard => (slop / 4, true),
            Tier::Reclaim => (0, false),
        };
        let own = volume.and_then(|volume| pool.shares.guarantee(volume)).unwrap_or(0);
        let others = if others { pool.shares.guaranteed() - own } else { 0 };
        let free = pool.alloc.free_blocks() + self.set_aside();
        free.saturating_sub(kept + self.reserve_blocks() + others)
    }

    /// Blocks that could be given out now and are promised to nobody's data.
    pub(crate) fn free_for_data(&self) -> u64 {
        let Some(pool) = &self.pool else { return 0 };
        pool.alloc.free_blocks().saturating_sub(pool.promised.saturating_sub(pool.promised_map))
    }

    /// Blocks that user data can still take.
    pub(crate) fn user_free_blocks(&self) -> u64 {
        self.available(Tier::Data, None).min(self.free_for_data())
    }

    /// Whether all that is kept for volumes is there: free, or free before long.
    pub(crate) fn covers_guarantees(&self) -> bool {
        let Some(pool) = &self.pool else { return true };
        let kept = self.slop_blocks() / 4 + self.reserve_blocks() + pool.shares.guaranteed();
        self.free_before_long() >= kept
    }

    /// Blocks that are free or come back by themselves.
    fn free_before_long(&self) -> u64 {
        let Some(pool) = &self.pool else { return 0 };
        pool.alloc.free_blocks() + self.set_aside() + pool.alloc.pending_blocks()
    }

    /// How full the pool is for user data: blocks of it, and how many of them can be written once
    /// all that was let go is back.
    pub(crate) fn fill(&self) -> (u64, u64) {
        let Some(pool) = &self.pool else { return (0, 0) };
        let slop = self.slop_blocks();
        let capacity = pool.pool_blocks.saturating_sub(pool.fixed_blocks() + slop);
        // What a running fold has taken has left the free count, and is kept for it besides.
        let reserve = self.reserve_blocks().saturating_sub(self.fold.taken);
        let kept = slop + reserve + pool.shares.guaranteed();
        (capacity, self.free_before_long().saturating_sub(kept).min(capacity))
    }

    /// Whether a fold could bring space back, or others may turn out to need less than they were
    /// promised.
    pub(crate) fn free_is_pending(&self) -> bool {
        self.pool.as_ref().is_some_and(|pool| {
            self.fold.running
                || pool.alloc.pending_blocks() > 0
                || pool.promised > 0
                || !pool.active.is_empty()
                || self.reclaim_is_pending()
                || self.trim_is_pending()
        })
    }

    /// Whether something deleted or discarded is still being given back.
    pub(crate) fn reclaim_is_pending(&self) -> bool {
        let starved = self.fold.detach_starved;
        self.pool.as_ref().is_some_and(|pool| {
            let detached = !pool.cp.detached.is_empty();
            if detached { !starved } else { !pool.tree.walkable().is_empty() }
        })
    }

    /// Whether a trim could bring space back.
    pub(crate) fn trim_is_pending(&self) -> bool {
        let untrimmed = |pool: &Pool| pool.tree.untrimmed().next().is_some();
        !self.fold.trim_starved && self.pool.as_ref().is_some_and(untrimmed)
    }

    /// Lets quarantined blocks go that neither the fallback checkpoint nor a reader needs: they are
    /// given back to the layer below first, if there is time for that.
    pub(crate) fn release_quarantine(&mut self) {
        let pinned = self.pins.keys().next().copied().filter(|_| !mutant::is("unpinned"));
        let oldest = pinned.unwrap_or(u64::MAX);
        let punch = self.has_time_to_punch();
        let Some(pool) = &mut self.pool else { return };
        let batches = &mut self.fold.batches;
        let mut upto = None;
        while let Some(&(cp_seq, publication)) = batches.front() {
            if cp_seq >= pool.cp.seq || publication > oldest {
                break;
            }
            upto = Some(cp_seq);
            batches.pop_front();
        }
        match upto {
            Some(cp_seq) if punch => pool.alloc.leave(cp_seq),
            Some(cp_seq) => drop(pool.alloc.release(cp_seq)),
            None => {}
        }
    }
}

/// Allocates up to `want` contiguous blocks, loading bitmap pages as needed.
pub(crate) async fn allocate(cx: &Cx, stream: Stream, want: u32) -> Result<(Phys, u32), Error> {
    loop {
        let zone = {
            let mut core = cx.core();
            match core.pool()?.alloc.alloc(stream, want) {
                Ok(run) => return Ok(run),
                Err(AllocError::NeedZone(zone)) => zone,
                Err(_) => return Err(Error::NoSpace(SpaceKind::Pool)),
            }
        };
        load_zone(cx, zone).await?;
    }
}

/// Brings the bitmap page of `zone` into memory.
pub(crate) async fn load_zone(cx: &Cx, zone: u64) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        let home = {
            let mut core = cx.core();
            let alloc = &mut core.pool()?.alloc;
            if alloc.is_resident(zone) {
                return Ok(());
            }
            match alloc.page_to_load(zone) {
                None => {
                    alloc.load_fresh(zone).map_err(|e| Error::Corrupt(e.to_string()))?;
                    return Ok(());
                }
                Some(home) => home,
            }
        };
        let page = cx.read(home, 1, tries > 0).await;
        let mut core = cx.core();
        let alloc = &mut core.pool()?.alloc;
        if alloc.is_resident(zone) {
            return Ok(());
        }
        if alloc.page_to_load(zone) != Some(home) {
            continue;
        }
        let error = match page {
            Ok(page) => match alloc.load_zone(zone, &page) {
                Ok(()) => return Ok(()),
                // What is in use can be counted again; to read, nobody needs it.
                Err(error) => Error::Corrupt(format!(
                    "{error} (zone {zone}): what is free there is not known; `cowctl check --repair` \
                     makes the page anew, and the pool can be opened read-only as it is"
                )),
            },
            Err(failure) => {
                let offset = home.byte_offset();
                let op = "read of a bitmap page, which `cowctl check --repair` makes anew,";
                Error::Io { errno: failure.errno, op, offset }
            }
        };
        tries += 1;
        if tries == 3 {
            return Err(error);
        }
    }
}

/// The zone of a block.
pub(crate) fn zone_of(phys: Phys) -> u64 {
    phys.0 / ZONE_BLOCKS
}
