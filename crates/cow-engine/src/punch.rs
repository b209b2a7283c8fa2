//! Gives freed blocks back to the file system or device below, before they are given out again.
//!
//! A batch that leaves the quarantine is handed on here if space is to spare: zone by zone, its
//! cells that are wholly free are discarded (`cow-alloc/src/discard.rs`), and each block becomes
//! allocatable when its discard is complete, however that went. One discard is in flight at a time:
//! a file is locked while a hole is punched, and whoever writes to it waits; while clients are at
//! work there are ten a second. Where an operation waits for space nothing is discarded: what is left
//! to be becomes allocatable at once.
//! [Decision 17](../../../docs/decisions/0017-the-file-system-below.md).

use crate::core::Core;
use crate::space::{Tier, load_zone};
use crate::task::Cx;
use cow_alloc::AllocError;
use cow_format::mutant;

/// What says that the layer below does not do this: `EOPNOTSUPP`, `ENOSYS`, `ENOTTY`.
pub(crate) const UNSUPPORTED: [i32; 3] = [95, 38, 25];
/// After a discard, while clients are at work: 100 ms. What is in flight meanwhile takes twice as long,
/// so this keeps it below one request in a hundred where there are many.
const REST_NS: u64 = 100_000_000;
/// Clients that have asked for nothing in 10 ms are not at work.
const SILENCE_NS: u64 = 10_000_000;
/// Discards are waited for so long while they are: 1 s.
const MOST_WAIT_NS: u64 = 1_000_000_000;

impl Core {
    /// Whether freed space goes back to the layer below.
    pub(crate) fn may_punch(&self) -> bool {
        let sparse = |pool: &crate::core::Pool| !pool.read_only && !pool.sb.geometry.preallocated;
        self.serving
            && self.poisoned.is_none()
            && !self.punch.off
            && !self.punch.ending
            && self.pool.as_ref().is_some_and(sparse)
    }

    /// The same, if nobody waits for that space.
    pub(crate) fn has_time_to_punch(&self) -> bool {
        self.may_punch() && self.punch.waiters == 0
    }

    /// Time went on: looks whether clients have asked for anything.
    pub(crate) fn hear_clients(&mut self) {
        let requests = self.stats.reads + self.stats.writes + self.stats.flushes;
        if requests != self.punch.heard {
            (self.punch.heard, self.punch.heard_ns) = (requests, self.now_ns);
        }
    }

    pub(crate) fn has_clients_at_work(&self) -> bool {
        self.punch.heard > 0 && self.now_ns.saturating_sub(self.punch.heard_ns) < SILENCE_NS
    }

    /// Whether another checkpoint would let blocks go to the layer below.
    pub(crate) fn owes_space(&self) -> bool {
        self.may_punch() && !self.fold.batches.is_empty()
    }

    /// Blocks that wait to be discarded are free at once; whether there were any.
    pub(crate) fn free_unpunched(&mut self) -> bool {
        self.pool.as_mut().is_some_and(|pool| pool.alloc.free_waiting() > 0)
    }

    /// Blocks that are free as soon as a discard is complete.
    pub(crate) fn is_punching(&self) -> bool {
        self.punch.running && self.pool.as_ref().is_some_and(|p| p.alloc.leaving_blocks() > 0)
    }
}

/// Begins to discard if there is something to be and nobody is at it.
pub(crate) fn start_if_due(cx: &Cx) {
    {
        let mut core = cx.core();
        let Some(pool) = &core.pool else { return };
        let due = pool.alloc.zone_to_discard().is_some() || !core.punch.early.is_empty();
        if !due || core.punch.running {
            return;
        }
        core.punch.running = true;
    }
    let task_cx = cx.clone();
    cx.spawn(async move {
        let early = std::mem::take(&mut task_cx.core().punch.early);
        for (at, blocks) in early {
            let _ = task_cx.discard(at, blocks).await;
        }
        while let Some(zone) = next_zone(&task_cx) {
            punch_zone(&task_cx, zone).await;
        }
        let mut core = task_cx.core();
        core.punch.running = false;
        core.notify(|core| &mut core.fold_wait);
        core.notify(|core| &mut core.punch.wait);
    });
}

/// The zone whose turn it is, as long as there is time for that.
fn next_zone(cx: &Cx) -> Option<u64> {
    let mut core = cx.core();
    if !core.has_time_to_punch() && core.free_unpunched() {
        core.notify(|core| &mut core.fold_wait);
    }
    core.pool.as_ref().and_then(|pool| pool.alloc.zone_to_discard())
}

async fn punch_zone(cx: &Cx, zone: u64) {
    let runs = loop {
        let begun = {
            let mut core = cx.core();
            // What is kept for its cell comes from what nothing was promised.
            let most_kept = core.available(Tier::Data, None);
            let Some(pool) = &mut core.pool else { return };
            pool.alloc.begin_discard(zone, most_kept)
        };
        match begun {
            Ok(runs) => break runs,
            Err(AllocError::NeedZone(zone)) if load_zone(cx, zone).await.is_ok() => {}
            Err(_) => {
                // Nothing is known of what lies beside them.
                cx.core().free_unpunched();
                return;
            }
        }
    };
    for (at, blocks) in runs {
        let mut done = 0;
        if mutant::is("reusepunched")
            && let Some(pool) = &mut cx.core().pool
        {
            pool.alloc.end_discard(at);
        }
        if cx.core().has_time_to_punch() {
            match cx.discard(at, blocks).await {
                Ok(()) => done = blocks,
                Err(failure) if UNSUPPORTED.contains(&failure.errno) => cx.core().punch.off = true,
                Err(_) => {}
            }
        }
        {
            let mut core = cx.core();
            core.stats.blocks_discarded += done;
            if let Some(pool) = &mut core.pool {
                pool.alloc.end_discard(at);
            }
            if core.punch.waiters > 0 {
                core.notify(|core| &mut core.fold_wait);
            }
            core.notify(|core| &mut core.punch.wait);
        }
        rest(cx).await;
    }
}

/// Leaves the file to clients, until they have been silent for a while.
async fn rest(cx: &Cx) {
    let until_ns = cx.core().now_ns.saturating_add(REST_NS);
    loop {
        {
            let core = cx.core();
            if core.now_ns >= until_ns || !core.has_clients_at_work() || !core.has_time_to_punch() {
                return;
            }
        }
        cx.wait(|core| &mut core.tick_wait).await;
    }
}

/// Waits until everything was discarded that is about to be now. A second is enough while clients are
/// at work: what was freed is theirs already, should they need it, and what goes below does so slowly.
pub(crate) async fn wait_punched(cx: &Cx) {
    let (goal, until_ns) = {
        let core = cx.core();
        let Some(pool) = &core.pool else { return };
        let until_ns = core.now_ns.saturating_add(MOST_WAIT_NS);
        let goal = pool.alloc.left_blocks().saturating_add_unsigned(pool.alloc.leaving_blocks());
        (goal, until_ns)
    };
    loop {
        {
            let core = cx.core();
            // A task is at it, or about to begin.
            let over = core.pool.as_ref().is_none_or(|pool| pool.alloc.left_blocks() >= goal);
            if over || core.now_ns >= until_ns && core.has_clients_at_work() {
                return;
            }
        }
        cx.wait(|core| &mut core.punch.wait).await;
    }
}

/// No further discard begins; waits for the one that is in flight.
pub(crate) async fn end(cx: &Cx) {
    cx.core().punch.ending = true;
    while cx.core().punch.running {
        cx.wait(|core| &mut core.punch.wait).await;
    }
}
