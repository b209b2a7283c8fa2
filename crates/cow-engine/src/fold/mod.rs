//! The fold: merges what was sequenced into the map and ends in a checkpoint. Design section 4.
//!
//! ```text
//! records:  ...... s | s+1 ..........     CP n = state at s + this fold's own effects
//! layers :  frozen   | active
//!
//! freeze -> merge -> what was cut off, walk, trim -> blobs, table, bitmap homes -> Flush 1 -> CP -> Flush 2 -> publish
//! ```
//!
//! The fold works on a clone of the snapshot tree taken at `s`, on the frozen layers, and on
//! blocks that nothing durable refers to, while the foreground goes on. Only the last step
//! touches what readers and writers see: the fold's tree, with the records after `s` applied to
//! it again, becomes the tree. Everything that a checkpoint says is the state after exactly the
//! records up to `s`, plus what the fold itself did.
//!
//! No block that the fold frees is given out again before the *next* checkpoint is durable, so
//! the checkpoint before stays a fallback, and two different nodes can never stand at one
//! address inside one fold.

mod blobs;
mod damage;
mod detach;
mod homes;
mod merge;
mod publish;
mod trim;
mod walk;

pub(crate) use blobs::read_chain;

use crate::error::{Error, SpaceKind};
use crate::space::allocate;
use crate::task::{Cx, Turns};
use cow_alloc::Stream;
use cow_extent::Layers;
use cow_format::checkpoint::{Damage, Detached, JournalPos};
use cow_format::mapnode::{FANOUT_BITS, MapNode, Slot};
use cow_format::{BufSlice, FrameSeq, Gen, NodeId, Phys, mutant};
use cow_snaptree::Tree;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
/// Writes of a fold in flight; more than that and it waits.
const MAX_WRITES: usize = 64;
/// A write that found no room below is tried again after so many ticks.
pub(crate) const STALL_TICKS: usize = 20;

/// Additions to and removals from the image of one zone.
#[derive(Default)]
struct ZoneChange {
    adds: Vec<Phys>,
    frees: Vec<Phys>,
}

/// Counts of blocks by use.
#[derive(Default)]
struct Tally {
    data: i64,
    meta: i64,
}

/// A fold in progress.
pub(crate) struct Fold {
    cx: Cx,
    cp_seq: u64,
    pool_tag: u64,
    tree: Tree,
    layers: Arc<Layers>,
    /// The last frame whose records are in the fold, and where the journal goes on.
    upto: FrameSeq,
    tail: JournalPos,
    pool_blocks: u64,
    zones: BTreeMap<u64, ZoneChange>,
    tally: Tally,
    leaks: bool,
    damage: Vec<Damage>,
    damage_overflow: u64,
    /// Some of it was met by this fold.
    has_new_damage: bool,
    /// Subtrees that were cut off and are not all given back.
    detached: Vec<Detached>,
    writes: Rc<Cell<usize>>,
    freed: u64,
    /// Blocks that were kept free for this fold, and how many of them it took (I11).
    reserved: u64,
    taken: u64,
    turns: Turns,
}

/// Where a fold is taken: at the end of the journal, or, in a replay, after a frame.
#[derive(Clone, Copy)]
pub(crate) enum FoldAt {
    Now,
    Replay(FrameSeq, JournalPos),
}

/// Begins a fold if one is due and none is running.
pub(crate) fn start_if_due(cx: &Cx) {
    {
        let mut core = cx.core();
        if !core.fold.wanted || core.fold.running || !core.serving || core.poisoned.is_some() {
            return;
        }
        if core.pool.as_ref().is_none_or(|pool| pool.read_only) {
            return;
        }
        core.fold.wanted = false;
        core.fold.running = true;
        core.fold.started += 1;
    }
    let task_cx = cx.clone();
    cx.spawn(async move {
        let result = run(&task_cx, FoldAt::Now).await;
        let mut core = task_cx.core();
        if let Err(error) = result {
            // What was acknowledged is in the journal; a fold that cannot end ends the writing.
            core.poison(format!("a fold failed: {error}"));
        }
        core.fold.running = false;
        core.fold.splice_blocks = 0;
        (core.fold.left, core.fold.taken) = (0, 0);
        core.fold.finished += 1;
        core.notify(|core| &mut core.fold_wait);
    });
}

/// Waits for a fold that begins after this call.
pub(crate) async fn fold_now(cx: &Cx) -> Result<(), Error> {
    let goal = {
        let mut core = cx.core();
        core.writable()?;
        core.fold.wanted = true;
        core.fold.started + 1
    };
    loop {
        {
            let mut core = cx.core();
            core.writable()?;
            if core.fold.finished >= goal {
                return Ok(());
            }
            if core.fold.is_stalled() {
                return Err(Error::NoSpace(SpaceKind::Below));
            }
        }
        cx.wait(|core| &mut core.fold_wait).await;
    }
}

/// Sizes are exact as of the last fold, so one that asks for exact sizes waits for a fold; a
/// pool that was opened read-only shows what its last checkpoint says.
pub(crate) async fn fold_if_writable(cx: &Cx) -> Result<(), Error> {
    let writable = cx.core().writable().is_ok();
    if writable { fold_now(cx).await } else { Ok(()) }
}

/// Runs one fold from freeze to publication.
pub(crate) async fn run(cx: &Cx, at: FoldAt) -> Result<(), Error> {
    let Some(mut fold) = Fold::freeze(cx, at)? else { return Ok(()) };
    fold.take_layers().await?;
    fold.merge_all().await?;
    // No node may be spliced while something of its map waits to be counted.
    if fold.drain_detached().await? || mutant::is("walkdetached") {
        fold.walk_all().await?;
        fold.trim_all().await?;
    }
    fold.write_blobs().await?;
    fold.commit().await
}

impl Fold {
    /// Freezes the state at this moment. `None` when there is nothing to do.
    fn freeze(cx: &Cx, at: FoldAt) -> Result<Option<Self>, Error> {
        let mut core = cx.core();
        let set_aside = core.below.blocks + core.below.coming;
        let has_batches = !core.fold.batches.is_empty();
        core.save_roots();
        let has_roots = !core.seal.unsaved.is_empty();
        let trims = core.fold.trim_everything || core.fold.trim_again;
        let pool = core.writable()?;
        let (upto, tail) = match at {
            FoldAt::Replay(seq, pos) => (seq, pos),
            FoldAt::Now => {
                pool.journal.seal();
                (pool.journal.last_sealed(), pool.journal.next())
            }
        };
        let idle = pool.active.is_empty()
            && pool.cp.tail.seq == tail.seq
            // A second checkpoint lets the journal go that the fallback needs.
            && pool.fallback_tail.seq == tail.seq
            && pool.cp.detached.is_empty()
            && pool.tree.walkable().is_empty()
            && !(trims && pool.tree.untrimmed().next().is_some())
            && !has_batches
            && !has_roots;
        if idle {
            return Ok(None);
        }
        let layers = Arc::new(std::mem::take(&mut pool.active));
        pool.moved_late = false;
        pool.shares.freeze();
        pool.since_freeze.clear();
        let reserved = layers.reserve_blocks() + pool.tree.pending_blocks();
        let free = pool.alloc.free_blocks() + set_aside;
        debug_assert!(free >= reserved, "{free} blocks are free, a fold may take {reserved} (I11)");
        pool.folding = Some(layers);
        let fold = Self {
            cx: cx.clone(),
            cp_seq: pool.cp.seq + 1,
            pool_tag: pool.pool_tag,
            tree: pool.tree.clone(),
            layers: Arc::default(),
            upto,
            tail,
            pool_blocks: pool.pool_blocks,
            zones: BTreeMap::new(),
            tally: Tally::default(),
            leaks: pool.cp.flags & cow_format::checkpoint::FLAG_LEAKS != 0,
            damage: pool.cp.damage.clone(),
            damage_overflow: pool.cp.damage_overflow,
            has_new_damage: false,
            detached: pool.cp.detached.clone(),
            writes: Rc::new(Cell::new(0)),
            freed: 0,
            reserved,
            taken: 0,
            turns: Turns::default(),
        };
        (core.fold.left, core.fold.taken) = (reserved, 0);
        core.fold.unread.clear();
        drop(core);
        crate::flush::emit_frames(cx);
        Ok(Some(fold))
    }

    /// Takes the frozen layers when all data that they name has landed: until then it may move, and
    /// the layers with it.
    async fn take_layers(&mut self) -> Result<(), Error> {
        loop {
            {
                let mut core = self.cx.core();
                let pool = core.writable()?;
                if !pool.inflight.concerns(self.upto) || mutant::is("foldrush") {
                    self.layers = pool.folding.clone().unwrap_or_default();
                    return Ok(());
                }
            }
            self.cx.wait(|core| &mut core.landing_wait).await;
        }
    }

    /// It has gone through a node or a page.
    async fn went_on(&mut self) {
        self.turns.went_on(&self.cx).await;
    }

    fn add(&mut self, phys: Phys) {
        self.zones.entry(crate::space::zone_of(phys)).or_default().adds.push(phys);
    }

    fn free(&mut self, phys: Phys) {
        self.freed += 1;
        self.zones.entry(crate::space::zone_of(phys)).or_default().frees.push(phys);
    }

    /// A block that was given out and superseded before any checkpoint saw it: never in the
    /// image, but it goes through the quarantine like every other.
    fn dead(&mut self, phys: Phys) {
        self.add(phys);
        self.free(phys);
    }

    /// `x` lets go of a pointer.
    fn kill(&mut self, x: NodeId, is_map: bool, slot: &Slot, range_end: u64) {
        if self.tree.kill(x, is_map, slot.birth, range_end) {
            self.count(is_map, -1);
            self.free(slot.phys);
        }
        self.tree.note_mapped_delta(x, is_map, -1);
    }

    /// `x` lets go of blocks of data in one leaf of its map: where in the leaf, and what was there.
    fn kill_in_leaf(&mut self, x: NodeId, leaf: u64, killed: &[(u8, Slot)]) {
        let first = leaf << FANOUT_BITS;
        let pointers = killed.iter().map(|(at, slot)| (slot.birth, first + u64::from(*at) + 1));
        let mut next = killed.iter();
        let mut freed = Vec::with_capacity(killed.len());
        self.tree.kill_all(x, false, pointers, |is_free| {
            freed.extend(next.next().filter(|_| is_free).map(|(_, slot)| slot.phys));
        });
        self.count(false, -(freed.len() as i64));
        freed.into_iter().for_each(|phys| self.free(phys));
        self.tree.note_mapped_delta(x, false, -(killed.len() as i64));
    }

    fn count(&mut self, is_map: bool, by: i64) {
        *if is_map { &mut self.tally.meta } else { &mut self.tally.data } += by;
    }

    /// A block of those that were kept free for this fold.
    async fn take_block(&mut self) -> Result<Phys, Error> {
        self.taken += 1;
        debug_assert!(self.taken <= self.reserved, "a fold takes more than its reserve (I11)");
        loop {
            let set_aside = {
                let mut core = self.cx.core();
                core.fold.left = self.reserved.saturating_sub(self.taken);
                core.fold.taken = self.taken;
                core.below.take()
            };
            if let Some(phys) = set_aside {
                return Ok(phys);
            }
            match allocate(&self.cx, Stream::Meta, 1).await {
                Ok((phys, _)) => return Ok(phys),
                // The last ones are being set aside.
                Err(Error::NoSpace(_)) if self.cx.core().below.coming > 0 => {}
                Err(error) => return Err(error),
            }
            self.cx.wait(|core| &mut core.below.wait).await;
        }
    }

    /// Stores a map node of `x` at a new place; the slot that points to it.
    async fn store(&mut self, x: NodeId, mut node: MapNode, birth: Gen) -> Result<Slot, Error> {
        debug_assert!(node.slots().iter().all(|slot| slot.birth <= birth), "I3");
        let is_inner = node.level > 0 && node.birth > Gen(0);
        let birth = if is_inner && mutant::is("birthlow") { node.birth } else { birth };
        node.birth = birth;
        node.cp_seq = self.cp_seq;
        let phys = self.take_block().await?;
        let (buf, crc) = {
            let core = self.cx.core();
            node.encode_in(&core.config.buffers, self.pool_tag, phys)
        };
        {
            let mut core = self.cx.core();
            core.stats.map_nodes_written += 1;
            let pool = core.pool()?;
            let node = Arc::new(node);
            pool.cache.insert(phys, crc, Arc::clone(&node));
            pool.writing_nodes.insert(phys, node);
        }
        self.add(phys);
        self.count(true, 1);
        self.tree.note_born(x, true, 1);
        self.tree.note_mapped_delta(x, true, 1);
        self.write(phys, BufSlice::whole(buf)).await?;
        Ok(Slot { phys, birth, crc })
    }

    /// Begins a write; waits only when too many are in flight.
    async fn write(&mut self, at: Phys, data: BufSlice) -> Result<(), Error> {
        while self.writes.get() >= MAX_WRITES {
            self.cx.core().writable()?;
            self.cx.wait(|core| &mut core.fold.write_wait).await;
        }
        if self.cx.core().fold.given_up {
            return self.writes_done().await;
        }
        self.writes.set(self.writes.get() + 1);
        let (cx, writes) = (self.cx.clone(), Rc::clone(&self.writes));
        self.cx.spawn(async move {
            write_fixed(&cx, at, data, "map node or home").await;
            writes.set(writes.get() - 1);
            let mut core = cx.core();
            if let Some(pool) = &mut core.pool {
                pool.writing_nodes.remove(&at);
            }
            core.notify(|core| &mut core.fold.write_wait);
        });
        Ok(())
    }

    /// Waits until every write that was begun is complete.
    async fn writes_done(&self) -> Result<(), Error> {
        while self.writes.get() > 0 {
            self.cx.wait(|core| &mut core.fold.write_wait).await;
        }
        let mut core = self.cx.core();
        if core.fold.given_up {
            return Err(Error::NoSpace(SpaceKind::Below));
        }
        core.writable().map(|_| ())
    }
}

/// A write that has to succeed. A full file system below is waited for (nothing is lost, only
/// this fold stands still); any other failure poisons the pool. While the pool is being opened nobody is
/// served by waiting, and whoever opens it could not be told: the fold is given up instead, as by a crash.
pub(crate) async fn write_fixed(cx: &Cx, at: Phys, data: BufSlice, what: &str) {
    let mut stall = None;
    while let Err(failure) = cx.write_lazily(at, data.clone()).await {
        if !matches!(failure.errno, ENOSPC | EDQUOT) {
            let offset = at.byte_offset();
            let errno = failure.errno;
            cx.core().poison(format!("write of a {what} at byte {offset}: os error {errno}"));
            return;
        }
        if !cx.core().serving {
            cx.core().fold.given_up = true;
            return;
        }
        stall.get_or_insert_with(|| Stall::begin(cx));
        for _ in 0..STALL_TICKS {
            if cx.core().poisoned.is_some() {
                return;
            }
            cx.wait(|core| &mut core.tick_wait).await;
        }
    }
}

/// A write waits for room below, until this is dropped.
pub(crate) struct Stall(Cx);

impl Stall {
    pub(crate) fn begin(cx: &Cx) -> Self {
        let mut core = cx.core();
        core.fold.stalled_writes += 1;
        // Who waits for this fold's space is told that there is none below.
        core.notify(|core| &mut core.fold_wait);
        Self(cx.clone())
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.0.core().fold.stalled_writes -= 1;
    }
}
