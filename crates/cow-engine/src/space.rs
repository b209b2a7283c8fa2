//! Admission: what an operation may use of the free space (design section 7).
//!
//! `free - reserved slop - fold reserve - promised >= need`, before anything is acknowledged. The
//! fold reserve is what the folds of all unfolded changes may write (`reserve.rs`); so an
//! acknowledged write can always be folded, and a full pool never wedges. ENOSPC is the answer only
//! when no free is pending: else the operation asks for a fold and waits, at most for a few
//! checkpoints.

use crate::core::{Core, Pool};
use crate::error::{Error, SpaceKind};
use crate::task::Cx;
use cow_alloc::{AllocError, Stream};
use cow_format::geometry::ZONE_BLOCKS;
use cow_format::{BLOCK_SIZE, Phys};

const MIB_BLOCKS: u64 = (1 << 20) / BLOCK_SIZE as u64;
/// A margin: nothing is known to need it.
const FOLD_BASE: u64 = 64;
/// Publications that an operation waits for before it is refused: one for the kill, one to leave
/// the quarantine, and those of a fold that was already running.
const MAX_ROUNDS: usize = 4;
/// The same while branch points are left to be trimmed. Not without end: what dies below them while
/// that goes on must be looked at again.
const MAX_TRIM_ROUNDS: usize = 64;

/// How deep an operation may dip into the slop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// User data: none of it.
    Data,
    /// Properties, snapshots, clones: half.
    Meta,
    /// TRIM and WRITE_ZEROES: three quarters.
    Discard,
    /// What gives space back, or takes none in the end: all of it.
    Reclaim,
}

impl Core {
    pub(crate) fn slop_blocks(&self) -> u64 {
        let blocks = self.pool.as_ref().map_or(0, |p| p.pool_blocks);
        (blocks / 64).clamp(8 * MIB_BLOCKS, 8192 * MIB_BLOCKS)
    }

    fn reserve_blocks(&self) -> u64 {
        let Some(pool) = &self.pool else { return 0 };
        let folding = pool.folding.as_ref().map_or(0, |layers| layers.reserve_blocks());
        let waiting = pool.active.reserve_blocks() + pool.tree.pending_blocks() + pool.promised;
        waiting + folding + self.fold.splice_blocks + FOLD_BASE
    }

    /// Blocks that `tier` could still use.
    pub(crate) fn available(&self, tier: Tier) -> u64 {
        let Some(pool) = &self.pool else { return 0 };
        let slop = self.slop_blocks();
        let kept = match tier {
            Tier::Data => slop,
            Tier::Meta => slop / 2,
            Tier::Discard => slop / 4,
            Tier::Reclaim => 0,
        };
        let free = pool.alloc.free_blocks() + self.set_aside();
        free.saturating_sub(kept + self.reserve_blocks())
    }

    /// Blocks that could be given out now and are promised to nobody's data.
    fn free_for_data(&self) -> u64 {
        let Some(pool) = &self.pool else { return 0 };
        pool.alloc.free_blocks().saturating_sub(pool.promised.saturating_sub(pool.promised_map))
    }

    /// Blocks that user data can still take.
    pub(crate) fn user_free_blocks(&self) -> u64 {
        self.available(Tier::Data).min(self.free_for_data())
    }

    /// Whether a fold could bring space back, or others may turn out to need less than they were
    /// promised.
    fn free_is_pending(&self) -> bool {
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
    fn reclaim_is_pending(&self) -> bool {
        let starved = self.fold.detach_starved;
        self.pool.as_ref().is_some_and(|pool| {
            let detached = !pool.cp.detached.is_empty();
            if detached { !starved } else { !pool.tree.walkable().is_empty() }
        })
    }

    /// Whether a trim could bring space back.
    fn trim_is_pending(&self) -> bool {
        let untrimmed = |pool: &Pool| pool.tree.untrimmed().next().is_some();
        !self.fold.trim_starved && self.pool.as_ref().is_some_and(untrimmed)
    }

    /// Lets quarantined blocks go that neither the fallback checkpoint nor a reader needs: they are
    /// given back to the layer below first, if there is time for that.
    pub(crate) fn release_quarantine(&mut self) {
        let oldest = self.pins.keys().next().copied().unwrap_or(u64::MAX);
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

/// Blocks that are promised to an operation until its records are sequenced.
pub(crate) struct Promise {
    cx: Cx,
    blocks: u64,
    /// Those of them that a fold will take.
    map: u64,
}

impl Promise {
    /// So many of the blocks were allocated: they have left the free count themselves.
    pub(crate) fn spend(&mut self, blocks: u64) {
        let blocks = blocks.min(self.blocks);
        self.blocks -= blocks;
        if let Some(pool) = &mut self.cx.core().pool {
            pool.promised -= blocks;
        }
    }

    /// Takes over what another one has left.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.blocks += std::mem::take(&mut other.blocks);
        self.map += std::mem::take(&mut other.map);
    }

    /// What is left of it.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(pool) = &mut self.cx.core().pool {
            pool.promised -= self.blocks;
            pool.promised_map -= self.map;
        }
    }
}

/// An operation that waits for space, until this is dropped.
struct Waiter(Cx);

impl Waiter {
    fn new(cx: &Cx) -> Self {
        cx.core().punch.waiters += 1;
        Self(cx.clone())
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.core().punch.waiters -= 1;
    }
}

/// Waits until `data + map` blocks are there for `tier`. `data` blocks are about to be allocated
/// (they leave the free count themselves); `map` blocks are the fold reserve to come.
pub(crate) async fn admit(cx: &Cx, data: u64, map: u64, tier: Tier) -> Result<Promise, Error> {
    let mut rounds = 0;
    let mut waiter = None;
    let mut failures = None;
    loop {
        let short = {
            let mut core = cx.core();
            core.writable()?;
            if core.available(tier) < data + map || core.free_for_data() < data {
                core.lacks_blocks(rounds)?
            } else if !core.has_room_below(map, tier) {
                // One attempt to get it is worth waiting for.
                let before = *failures.get_or_insert(core.below.failures);
                if core.below.failures > before {
                    return Err(Error::NoSpace(SpaceKind::Below));
                }
                core.below.asked = core.below.asked.max(map + 1);
                Short::Below
            } else {
                let blocks = data + map;
                let pool = core.writable()?;
                pool.promised += blocks;
                pool.promised_map += map;
                return Ok(Promise { cx: cx.clone(), blocks, map });
            }
        };
        match short {
            Short::Nothing => {}
            Short::Below => cx.wait(|core| &mut core.below.wait).await,
            Short::Discard | Short::Fold => {
                waiter.get_or_insert_with(|| Waiter::new(cx));
                cx.wait(|core| &mut core.fold_wait).await;
                rounds += usize::from(short == Short::Fold);
            }
        }
    }
}

/// What an operation waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Short {
    /// It can look again.
    Nothing,
    /// Room in the file system below.
    Below,
    /// A discard to be complete.
    Discard,
    /// A publication.
    Fold,
}

impl Core {
    /// What is worth waiting for when blocks are missing, after so many publications.
    fn lacks_blocks(&mut self, rounds: usize) -> Result<Short, Error> {
        if self.free_unpunched() {
            return Ok(Short::Nothing);
        }
        if self.fold.is_stalled() {
            return Err(Error::NoSpace(SpaceKind::Below));
        }
        // What is being discarded is free before long.
        if self.is_punching() {
            return Ok(Short::Discard);
        }
        let walking = self.reclaim_is_pending();
        let most = if self.trim_is_pending() { MAX_TRIM_ROUNDS } else { MAX_ROUNDS };
        if (rounds >= most && !walking) || !self.free_is_pending() {
            return Err(Error::NoSpace(SpaceKind::Pool));
        }
        self.break_views();
        self.fold.wanted = true;
        self.fold.trim_everything = true;
        Ok(Short::Fold)
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
                Err(error) => Error::Corrupt(error.to_string()),
            },
            Err(failure) => {
                let offset = home.byte_offset();
                Error::Io { errno: failure.errno, op: "read of a bitmap page", offset }
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
