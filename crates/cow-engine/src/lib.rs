//! cow-engine: the step machine. Events in, actions out; no clock, thread, random source or
//! system call. The drivers (cowstore over cow-io) and the simulator drive the same code.
//!
//! [`Engine::step`] owns all change. Inside, whatever waits for a device operation is a task (an
//! `async fn` that the engine polls itself, see `task.rs`); the state is in `core.rs`. The way of
//! a write is `write.rs` and `place.rs`, of a read `read.rs` and `lookup.rs`, of a verb `verbs.rs`; frames and
//! flushes are `flush.rs`, sizes `sizes.rs` and `exact.rs`, admission is `admit.rs`, `space.rs`, `reserve.rs` and `share.rs`,
//! checkpoints are `fold/`, opening is `recover/`, content roots are `seal.rs` and below, the scrub is `scrub.rs`.
#![forbid(unsafe_code)]

mod admit;
mod ahead;
pub mod api;
mod below;
mod below_state;
mod clock;
mod core;
mod diff;
mod diff_segment;
mod discard;
mod error;
mod events;
mod exact;
mod expiry;
mod expiry_state;
mod export;
mod flush;
mod fold;
mod fold_state;
mod grow;
mod inflight;
mod info;
mod loading;
mod locks;
mod lookup;
mod make_room;
mod mapping;
mod mend;
pub mod mkfs;
mod opened;
mod ops;
mod owned;
mod place;
mod prune;
mod punch;
mod punch_state;
mod query;
mod range_locks;
mod read;
mod read_now;
mod recover;
mod reserve;
mod room_state;
mod scrub;
mod scrub_state;
mod seal;
mod seal_state;
mod share;
mod share_state;
mod size_state;
mod sizes;
mod space;
mod space_queue;
mod space_wait;
mod task;
mod tell;
mod trim_pool;
mod verbs;
mod views;
mod wait;
mod watermark;
mod write;
mod write_now;

pub use api::*;
pub use error::{Error, SpaceKind};
pub use events::{EventKind, MAX_EVENTS, PoolEvent, SpaceLevel};
pub use info::*;
pub use scrub_state::{ScrubCursor, ScrubFault, ScrubKind, ScrubStep};

use crate::core::{Core, Request};
use crate::flush::Due;
use cow_format::BufPool;
use std::cell::RefCell;
use std::rc::Rc;
use task::{Cx, Tasks};
use wait::Followup;

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Size of the file or device below, in blocks.
    pub device_blocks: u64,
    /// When writes are acknowledged.
    pub ack: AckMode,
    /// Bytes of acknowledged data whose writes to the device may be under way
    /// ([`AckMode::Writeback`]); while there are as many, writes wait to be accepted.
    pub dirty_bytes: u64,
    /// Memory of the active layers that triggers a fold, in bytes.
    pub layer_bytes: usize,
    /// Memory of the map-node cache, in bytes.
    pub cache_bytes: usize,
    /// Memory of the pages that content roots are made of, in bytes.
    pub page_bytes: usize,
    /// Nodes and pages that a fold goes through before it lets others have their turn: bounds
    /// the time that a step takes.
    pub slice: usize,
    /// Leaves of deleted nodes that one fold walks: bounds the time to its checkpoint.
    pub walk_leaves: usize,
    /// Blocks of the cells in which freed space is given back to the layer below.
    pub cell_blocks: u32,
    /// Blocks of the journal that an opening reads at once.
    pub read_ahead: u64,
    /// Below is a file system that can run full: room for checkpoints is allocated in it ahead.
    pub sparse: bool,
    /// Wall-clock time at the start, nanoseconds since 1970.
    pub wall_ns: u64,
    /// Where the memory of device operations comes from.
    pub buffers: BufPool,
    /// Tasks that can go on go on in an order that this seed chooses; 0: in the order in which they
    /// were woken. No task may rely on either, so a simulator tries others.
    pub task_order: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            device_blocks: 0,
            ack: AckMode::default(),
            dirty_bytes: 32 << 20,
            layer_bytes: 32 << 20,
            cache_bytes: 64 << 20,
            page_bytes: 16 << 20,
            slice: 1,
            walk_leaves: 8192,
            cell_blocks: cow_alloc::CELL_BLOCKS,
            read_ahead: 256,
            sparse: true,
            wall_ns: 0,
            buffers: BufPool::default(),
            task_order: 0,
        }
    }
}

/// A fold begins this long after the one before it, if anything is pending.
const FOLD_AFTER_NS: u64 = 30_000_000_000;

/// The engine of one pool. Not `Send`: it lives where its driver runs.
pub struct Engine {
    cx: Cx,
    tasks: Tasks,
}

impl Engine {
    /// An engine that has done nothing yet; the first event must be [`Op::Open`].
    pub fn new(config: Config) -> Self {
        let tasks = Tasks::new(config.task_order);
        Self { cx: Cx(Rc::new(RefCell::new(Core::new(config)))), tasks }
    }

    /// Takes one event; what is to be done is appended to `actions`.
    pub fn step(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Op { id, op } => {
                let left = write_now::write_now(&mut self.cx.core(), id, op);
                let left = left.and_then(|op| read_now::read_now(&self.cx, id, op));
                if let Some(op) = left {
                    let cx = self.cx.clone();
                    self.cx.spawn(ops::run(cx, Request { id, op }));
                }
            }
            Event::IoDone { id, result, buf } => {
                let mut core = self.cx.core();
                let followup = core.io.complete(id, result, buf);
                if let Some(Followup::Wake(task)) = followup {
                    core.ready.push(task);
                }
                drop(core);
                match followup {
                    Some(Followup::Landed(at, result)) => mend::landed(&self.cx, at, result),
                    Some(Followup::Read(read, buf)) => read_now::ended(&self.cx, read, buf),
                    Some(Followup::Wake(_)) | None => {}
                }
            }
            Event::Resume => self.cx.core().notify(|core| &mut core.paused),
            Event::Tick { now_ns, wall_ns } => self.tick(now_ns, wall_ns),
        }
        self.settle();
        actions.append(&mut self.cx.core().io.out);
    }

    /// Runs tasks, begins folds that are due and hands frames out until nothing moves.
    fn settle(&mut self) {
        loop {
            self.tasks.run(&self.cx);
            self.check_triggers();
            make_room::start_if_due(&self.cx);
            fold::start_if_due(&self.cx);
            punch::start_if_due(&self.cx);
            below::start_if_due(&self.cx);
            flush::emit_frames(&self.cx);
            let core = self.cx.core();
            if core.ready.is_empty() && core.spawned.is_empty() {
                return;
            }
        }
    }

    fn tick(&mut self, now_ns: u64, wall_ns: u64) {
        let (due, expires, prunes) = {
            let mut core = self.cx.core();
            core.now_ns = core.now_ns.max(now_ns);
            core.wall_ns = wall_ns;
            core.look_at_clock();
            core.hear_clients();
            let soon = std::mem::take(&mut core.fold.soon);
            core.fold.wanted |= soon;
            core.notify(|core| &mut core.tick_wait);
            core.notify(|core| &mut core.paused);
            (core.journal_due(), core.expiry_due(), core.prune_due())
        };
        if expires {
            self.cx.spawn(expiry::expire(self.cx.clone()));
        }
        if prunes {
            self.cx.spawn(prune::prune_by_itself(self.cx.clone()));
        }
        seal::start_if_due(&self.cx);
        if due == Due::Flush {
            let cx = self.cx.clone();
            self.cx.spawn(async move {
                // A failure has poisoned the pool; nobody waits for this flush.
                let _ = flush::flush(&cx).await;
                if let Some(pool) = &mut cx.core().pool {
                    pool.self_flushing = false;
                }
            });
        }
    }

    /// Asks for a fold where memory, the journal or time want one.
    fn check_triggers(&mut self) {
        let mut core = self.cx.core();
        core.watch_level();
        let (layer_bytes, now_ns) = (core.config.layer_bytes, core.now_ns);
        let frees = core.fold.frees_much;
        let roots = !core.seal.unsaved.is_empty();
        let running = core.fold.running;
        let idle = core.serving && !running;
        let owes = core.owes_space();
        let Some(pool) = core.pool.as_mut().filter(|pool| !pool.read_only && idle) else {
            return;
        };
        let journal = pool.journal_use_exceeds(1, 3);
        let memory = pool.active.bytes() >= layer_bytes;
        let changed = roots || !pool.active.is_empty() || pool.last_record >= pool.cp.tail.seq;
        let old = (changed || owes) && now_ns.saturating_sub(pool.fold_begun_ns) >= FOLD_AFTER_NS;
        if journal || memory || old || pool.hoards(frees) {
            pool.fold_begun_ns = now_ns;
            core.fold.wanted = true;
        }
    }

    /// Whether background work has stopped for the sake of others and goes on with
    /// [`Event::Resume`], or else with the next tick.
    pub fn is_paused(&self) -> bool {
        !self.cx.core().paused.is_empty()
    }

    /// Whether background work must not rest for the sake of others: a fold can hardly keep up with
    /// what is written, or somebody waits for what it frees.
    pub fn is_pressed(&self) -> bool {
        let core = self.cx.core();
        // The next fold is due already for the space that it brings back: soon there is none, and
        // writers would wait for all that is left of this one, and for the next.
        let hoards =
            |pool: &self::core::Pool| core.fold.running && pool.hoards(core.fold.frees_much);
        !core.space_queue.is_next(None)
            || core.pool.as_ref().is_some_and(|pool| {
                pool.journal_use_exceeds(2, 3)
                    || pool.active.bytes() >= core.config.layer_bytes
                    || hoards(pool)
            })
    }

    /// Whether time matters now: something is buffered, unflushed or unfolded. Otherwise ticks
    /// need to come only as [`Self::idle_tick_ns`] says.
    pub fn wants_tick(&self) -> bool {
        let core = self.cx.core();
        if core.fold.running
            || core.fold.soon
            || core.expiry.running
            || core.room.running
            || core.ops_in_progress > 0
            || core.seal.wants_tick()
            || core.io.in_flight() > 0
            || core.owes_space()
            || core.punch.running
        {
            return true;
        }
        core.pool.as_ref().is_some_and(|pool| {
            !pool.read_only
                && (pool.last_record >= pool.cp.tail.seq
                    || pool.last_record > pool.durable
                    || pool.durable > pool.told_durable)
        })
    }

    /// While [`Self::wants_tick`] is false: the tick after the last one should come within so many
    /// nanoseconds, as something may expire. None: time can change nothing.
    pub fn idle_tick_ns(&self) -> Option<u64> {
        let core = self.cx.core();
        core.idle_tick_ns().into_iter().chain(core.room_tick_ns()).min()
    }
}
