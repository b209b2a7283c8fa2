//! The engine's state, owned by one thread. Everything that changes goes through here.

use crate::api::{ExportId, Op, OpId};
use crate::below_state::BelowState;
use crate::error::Error;
use crate::events::Events;
use crate::expiry_state::Expiry;
use crate::fold_state::FoldState;
use crate::inflight::InFlight;
use crate::info::{PoolInfo, Stats};
use crate::opened::Export;
use crate::punch_state::PunchState;
use crate::range_locks::RangeLocks;
use crate::room_state::RoomState;
use crate::seal_state::SealState;
use crate::share_state::Shares;
use crate::size_state::Sizes;
use crate::space_queue::SpaceQueue;
use crate::wait::{IoTable, TaskId, WaitList};
use crate::{Config, Reply};
use cow_alloc::Allocator;
use cow_extent::{Layers, NodeCache};
use cow_format::checkpoint::{Checkpoint, JournalPos};
use cow_format::mapnode::{MapNode, level_for};
use cow_format::record::Record;
use cow_format::superblock::Superblock;
use cow_format::{BLOCK_SIZE, FrameSeq, IdMap, Lba, NodeId, Phys, VolumeId, mutant};
use cow_journal::{AppendError, JournalWriter, Reserve};
use cow_snaptree::Tree;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// What an opened pool holds. Absent until recovery has built it.
pub(crate) struct Pool {
    pub(crate) sb: Superblock,
    pub(crate) pool_tag: u64,
    pub(crate) pool_blocks: u64,
    pub(crate) read_only: bool,
    pub(crate) tree: Tree,
    /// Records of the tree that were sequenced since the running fold froze, to be applied again
    /// on the tree that it publishes.
    pub(crate) since_freeze: Vec<(Record, FrameSeq)>,
    pub(crate) active: Layers,
    pub(crate) folding: Option<Arc<Layers>>,
    /// Data of the running fold's layers moved after the freeze.
    pub(crate) moved_late: bool,
    /// Data that is sequenced and not written yet.
    pub(crate) inflight: InFlight,
    pub(crate) alloc: Allocator,
    pub(crate) journal: JournalWriter,
    /// The newest durable checkpoint.
    pub(crate) cp: Checkpoint,
    /// The tail of the one before it, from which the journal is kept.
    pub(crate) fallback_tail: JournalPos,
    /// Every frame up to here, with its data, is durable.
    pub(crate) durable: FrameSeq,
    /// The last frame that holds more than a marker.
    pub(crate) last_record: FrameSeq,
    /// What `durable` the journal itself tells.
    pub(crate) told_durable: FrameSeq,
    /// Frames whose write is in progress.
    pub(crate) writing_frames: BTreeSet<FrameSeq>,
    /// The last frame that was handed to the device.
    pub(crate) emitted: FrameSeq,
    pub(crate) flushing: bool,
    /// A flush that nobody asked for is on its way.
    pub(crate) self_flushing: bool,
    /// Map nodes whose write is in progress: read from here.
    pub(crate) writing_nodes: IdMap<Phys, Arc<MapNode>>,
    pub(crate) cache: NodeCache,
    /// Blocks promised to writes that are not sequenced yet.
    pub(crate) promised: u64,
    /// Those of them that folds will take.
    pub(crate) promised_map: u64,
    pub(crate) shares: Shares,
    pub(crate) open_since_ns: u64,
    pub(crate) unflushed_since_ns: u64,
    pub(crate) unflushed_bytes: u64,
    pub(crate) last_activity_ns: u64,
    pub(crate) fold_begun_ns: u64,
}

/// The state of an engine.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) pool: Option<Pool>,
    pub(crate) poisoned: Option<String>,
    /// Recovery is through. Before that the pool is there, but nobody else's.
    pub(crate) serving: bool,
    pub(crate) closing: bool,
    pub(crate) exports: IdMap<ExportId, Export>,
    pub(crate) next_export: u64,
    pub(crate) locks: RangeLocks,
    pub(crate) fold: FoldState,
    pub(crate) expiry: Expiry,
    pub(crate) events: Events,
    /// The mark that the pool is at (`watermark.rs`).
    pub(crate) space_level: u8,
    pub(crate) room: RoomState,
    pub(crate) punch: PunchState,
    pub(crate) below: BelowState,
    pub(crate) seal: SealState,
    /// Reads in progress, by the number of publications that they began after.
    pub(crate) pins: BTreeMap<u64, usize>,
    pub(crate) publications: u64,
    pub(crate) stats: Stats,
    pub(crate) now_ns: u64,
    pub(crate) wall_ns: u64,
    pub(crate) io: IoTable,
    pub(crate) current: TaskId,
    pub(crate) ready: Vec<TaskId>,
    pub(crate) spawned: Vec<Pin<Box<dyn Future<Output = ()>>>>,
    pub(crate) flush_wait: WaitList,
    pub(crate) fold_wait: WaitList,
    pub(crate) space_queue: SpaceQueue,
    /// Who waits for another operation to need less than it was promised.
    pub(crate) promise_wait: WaitList,
    pub(crate) lock_wait: WaitList,
    /// Who waits for data to land.
    pub(crate) landing_wait: WaitList,
    pub(crate) tick_wait: WaitList,
    /// Background work that lets others have their turn.
    pub(crate) paused: WaitList,
    pub(crate) ops_in_progress: usize,
    pub(crate) sizes: Sizes,
}

impl Core {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            wall_ns: config.wall_ns,
            config,
            pool: None,
            poisoned: None,
            serving: false,
            closing: false,
            exports: IdMap::default(),
            next_export: 1,
            locks: RangeLocks::default(),
            fold: FoldState::default(),
            expiry: Expiry::default(),
            events: Events::default(),
            space_level: 0,
            room: RoomState::default(),
            punch: PunchState::default(),
            below: BelowState::default(),
            seal: SealState::default(),
            pins: BTreeMap::new(),
            publications: 0,
            stats: Stats::default(),
            now_ns: 0,
            io: IoTable::default(),
            current: 0,
            ready: Vec::new(),
            spawned: Vec::new(),
            flush_wait: WaitList::default(),
            fold_wait: WaitList::default(),
            space_queue: SpaceQueue::default(),
            promise_wait: WaitList::default(),
            lock_wait: WaitList::default(),
            landing_wait: WaitList::default(),
            tick_wait: WaitList::default(),
            paused: WaitList::default(),
            ops_in_progress: 0,
            sizes: Sizes::default(),
        }
    }

    /// The opened pool.
    pub(crate) fn pool(&mut self) -> Result<&mut Pool, Error> {
        self.pool.as_mut().ok_or_else(|| Error::Invalid("the pool is not open".into()))
    }

    /// What is known of sizes, and the snapshot tree.
    pub(crate) fn sizes_and_tree(&mut self) -> Result<(&Sizes, &Tree), Error> {
        let pool =
            self.pool.as_ref().ok_or_else(|| Error::Invalid("the pool is not open".into()))?;
        Ok((&self.sizes, &pool.tree))
    }

    /// The opened pool, if it takes changes.
    pub(crate) fn writable(&mut self) -> Result<&mut Pool, Error> {
        if let Some(cause) = &self.poisoned {
            return Err(Error::Poisoned(cause.clone()));
        }
        let pool = self.pool()?;
        if pool.read_only { Err(Error::ReadOnly("the pool".into())) } else { Ok(pool) }
    }

    /// Nothing is accepted any more: a flush, a frame or a fixed area could not be written.
    pub(crate) fn poison(&mut self, cause: String) {
        if self.poisoned.is_none() {
            self.poisoned = Some(cause);
        }
        self.notify(|core| &mut core.flush_wait);
        self.notify(|core| &mut core.fold_wait);
        self.notify(|core| &mut core.below.wait);
        self.notify(|core| &mut core.lock_wait);
        self.notify(|core| &mut core.landing_wait);
        self.notify(|core| &mut core.tick_wait);
    }

    pub(crate) fn notify(&mut self, pick: fn(&mut Core) -> &mut WaitList) {
        let mut ready = std::mem::take(&mut self.ready);
        pick(self).drain_into(&mut ready);
        self.ready = ready;
    }

    /// A reader begins: no block that it may have resolved is given out again until it ends.
    pub(crate) fn pin(&mut self) -> u64 {
        let epoch = self.publications;
        *self.pins.entry(epoch).or_default() += 1;
        epoch
    }

    pub(crate) fn unpin(&mut self, epoch: u64) {
        if let Some(count) = self.pins.get_mut(&epoch) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&epoch);
                self.release_quarantine();
            }
        }
    }

    /// Puts a record group into the journal and applies it. From here on it has happened.
    pub(crate) fn sequence(
        &mut self,
        group: &[Record],
        reserve: Reserve,
    ) -> Result<FrameSeq, SequenceError> {
        let now_ns = self.now_ns;
        let pool = self.writable().map_err(SequenceError::Refused)?;
        // The tree is asked first: a record that it refuses must not reach the journal.
        let tree_change = group.iter().any(|record| !is_map_record(record));
        let guess = pool.journal.next().seq;
        let mut next_tree = if tree_change { Some(pool.tree_after(group, guess)?) } else { None };
        let seq = match pool.journal.append(group, reserve) {
            Ok(seq) => seq,
            Err(AppendError::RingFull) => return Err(SequenceError::RingFull),
            Err(error @ AppendError::TooLarge { .. }) => {
                return Err(SequenceError::Refused(Error::Limit(error.to_string())));
            }
        };
        if tree_change && seq != guess {
            // The group went into a later frame than the open one.
            next_tree = Some(pool.tree_after(group, seq)?);
        }
        if let Some(tree) = next_tree {
            let volumes = pool.volumes_of(group);
            pool.tree = tree;
            volumes.into_iter().for_each(|volume| pool.refresh_guarantee(volume));
        }
        for record in group {
            if is_map_record(record) {
                pool.apply_map(record);
            } else if pool.folding.is_some() {
                pool.since_freeze.push((record.clone(), seq));
            }
        }
        if mutant::is("earlyfree") {
            for (_, phys) in pool.active.take_dead() {
                pool.alloc.give_back(phys, 1);
            }
        }
        if mutant::is("reuseflying") {
            pool.give_back_flying();
        }
        if pool.last_record <= pool.durable {
            pool.unflushed_since_ns = now_ns;
        }
        pool.last_record = seq;
        pool.last_activity_ns = now_ns;
        if pool.journal.open_records() > 0 && pool.open_since_ns == 0 {
            pool.open_since_ns = now_ns.max(1);
        }
        if let Some(pool) = self.pool.as_ref().filter(|_| tree_change) {
            self.expiry.note(&pool.tree, group);
        }
        Ok(seq)
    }

    /// State of the pool for people and programs; sizes are as of the last fold.
    pub(crate) fn info(&mut self) -> Result<PoolInfo, Error> {
        let poisoned = self.poisoned.clone();
        let stalled = self.fold.stall_reason();
        let (stats, events) = (self.stats, self.events.list());
        let clock_suspect = self.expiry.clock.is_suspect();
        let free_blocks = self.user_free_blocks();
        let room_note = self.below.refusal.clone();
        let (used_percent, space_level) = (self.percent_used(), self.space_level);
        let pool = self.pool()?;
        let waits = "there is no room below, and acknowledged data waits for it";
        let stalled = if pool.inflight.stalled > 0 { Some(waits.into()) } else { stalled };
        let block = BLOCK_SIZE as u64;
        let cp = &pool.cp;
        let fixed = pool.fixed_blocks();
        let counts = pool.tree.counts();
        Ok(PoolInfo {
            uuid: pool.sb.uuid,
            version: cow_format::superblock::VERSION,
            size_bytes: pool.pool_blocks * block,
            limit_bytes: pool.sb.geometry.limit_blocks * block,
            // Counters come from the device, and nothing was computed with them.
            data_bytes: cp.data_blocks.saturating_mul(block),
            metadata_bytes: cp.meta_blocks.saturating_add(fixed).saturating_mul(block),
            free_bytes: free_blocks * block,
            reserved_bytes: pool.shares.guaranteed() * block,
            reclaiming_bytes: pool.alloc.pending_blocks() * block,
            journal_bytes: pool.journal.capacity() * block,
            journal_used_bytes: pool.journal.used_blocks() * block,
            checkpoint_seq: cp.seq,
            epoch: pool.sb.epoch.0,
            durable_seq: pool.durable.0,
            volumes: counts.volumes,
            snapshots: counts.snapshots,
            deleting: counts.deleting,
            poisoned,
            stalled,
            room_note,
            withheld: pool.alloc.withheld().count() as u64,
            damage: cp.damage.len() as u64 + cp.damage_overflow,
            read_only: pool.read_only,
            used_percent,
            space_level,
            stats,
            clock_suspect,
            events,
        })
    }
}

/// Why a group was not sequenced.
pub(crate) enum SequenceError {
    /// No room in the journal until a fold is through: wait for it and try again.
    RingFull,
    /// It cannot be.
    Refused(Error),
}

impl Pool {
    /// Highest map level that a volume of this size has.
    pub(crate) fn top_level(size_bytes: u64) -> u8 {
        level_for(size_bytes.div_ceil(BLOCK_SIZE as u64).max(1))
    }

    /// Whether what the last checkpoint does not have fills more of the journal than this part.
    pub(crate) fn journal_use_exceeds(&self, numerator: u64, denominator: u64) -> bool {
        let used = self.journal.used_since(self.cp.tail);
        used * denominator > self.journal.capacity() * numerator
    }

    /// Blocks of superblocks, checkpoint areas, journal and bitmap homes.
    pub(crate) fn fixed_blocks(&self) -> u64 {
        let g = &self.sb.geometry;
        let groups = self.pool_blocks.div_ceil(cow_format::geometry::AG_BLOCKS);
        4 + 4 * g.cp_blocks + g.journal_blocks + groups * cow_format::geometry::HOMES_BLOCKS
    }

    /// The node that takes the writes of `volume`.
    pub(crate) fn head(&self, volume: VolumeId) -> Option<NodeId> {
        self.tree.head(volume)
    }

    /// Applies a record of the map to the active layers.
    pub(crate) fn apply_map(&mut self, record: &Record) {
        match record {
            Record::MapSet { volume, lba, phys, crcs } => {
                if let Some((head, top)) = self.head_and_top(*volume) {
                    self.begin_layer(head);
                    self.active.set_run(head, *lba, *phys, crcs, top);
                    self.shares.note_change(*volume, crcs.len() as u64);
                    self.refresh_guarantee(*volume);
                }
            }
            Record::MapClear { volume, lba, blocks } => {
                if let Some((head, top)) = self.head_and_top(*volume) {
                    self.begin_layer(head);
                    self.active.clear_run(head, *lba, *blocks, top);
                    self.shares.note_change(*volume, 0);
                    self.refresh_guarantee(*volume);
                }
            }
            Record::Move { node, lba, old, new, crcs } => {
                for (i, crc) in (0..).zip(crcs) {
                    let at = Lba(lba.0 + i);
                    if mutant::is("moveblind") {
                        self.active.set_run(*node, at, new.offset(i), &[*crc], 0);
                    } else {
                        self.apply_move(*node, at, old.offset(i), new.offset(i));
                    }
                }
            }
            _ => {}
        }
    }

    /// The data of a block moved. Only an entry that still names `old` is patched, be it in a layer
    /// that a fold has frozen and not begun to merge; else `new` is superseded already. The block
    /// that nothing names any more is freed with the layer.
    fn apply_move(&mut self, node: NodeId, lba: Lba, old: Phys, new: Phys) {
        if self.active.move_block(node, lba, old, new) {
            self.active.add_dead(node, old);
            return;
        }
        let frozen = self.folding.as_mut().filter(|layers| layers.has(node, lba, old));
        if let Some(layers) = frozen {
            // Nobody else has them before the merge begins.
            let layers = Arc::make_mut(layers);
            layers.move_block(node, lba, old, new);
            layers.add_dead(node, old);
            self.moved_late = true;
        } else {
            self.active.add_dead(node, new);
        }
    }

    /// The fault that the mutant `reuseflying` is: a block that was overwritten is free at once,
    /// though the write to it is still under way.
    fn give_back_flying(&mut self) {
        for (node, phys) in self.active.take_dead() {
            if self.inflight.block(phys).is_some() {
                self.alloc.give_back(phys, 1);
            } else {
                self.active.add_dead(node, phys);
            }
        }
    }

    /// The snapshot tree with a group applied that stands in frame `seq`.
    fn tree_after(&self, group: &[Record], seq: FrameSeq) -> Result<Tree, SequenceError> {
        let mut tree = self.tree.clone();
        for record in group {
            tree.apply(record, seq).map_err(|e| SequenceError::Refused(e.into()))?;
        }
        Ok(tree)
    }

    fn head_and_top(&self, volume: VolumeId) -> Option<(NodeId, u8)> {
        let head = self.head(volume)?;
        let size = self.tree.node(head)?.entry.size_bytes;
        Some((head, Self::top_level(size)))
    }
}

/// Whether a record concerns the map of a volume (and not the tree of snapshots).
pub(crate) fn is_map_record(record: &Record) -> bool {
    matches!(
        record,
        Record::MapSet { .. }
            | Record::MapClear { .. }
            | Record::Move { .. }
            | Record::PoolGrow { .. }
            | Record::Marker
    )
}

/// An operation with the name that its answer carries.
pub(crate) struct Request {
    pub(crate) id: OpId,
    pub(crate) op: Op,
}

pub(crate) type OpResult = Result<Reply, Error>;
