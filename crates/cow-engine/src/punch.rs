//! Gives freed blocks back to the file system or device below, before they are given out again.
//!
//! A batch that leaves the quarantine is handed on here if space is to spare: zone by zone, its
//! cells that are wholly free are discarded (`cow-alloc/src/discard.rs`), and each block becomes
//! allocatable when its discard is complete, however that went. One discard is in flight at a time:
//! a file is locked while a hole is punched, and whoever writes to it waits; while clients are at
//! work there is one a tick. Where an operation waits for space nothing is discarded: what is left
//! to be becomes allocatable at once.
//! [Decision 17](../../../docs/decisions/0017-the-file-system-below.md).

use crate::core::Core;
use crate::space::{Tier, load_zone};
use crate::task::Cx;
use cow_alloc::AllocError;
use cow_format::mutant;

/// What says that the layer below does not do this: `EOPNOTSUPP`, `ENOSYS`, `ENOTTY`.
const UNSUPPORTED: [i32; 3] = [95, 38, 25];

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

    /// How much clients have asked for: where it moves, they are at work.
    fn requests(&self) -> u64 {
        self.stats.reads + self.stats.writes + self.stats.flushes
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
        let before = cx.core().requests();
        if cx.core().has_time_to_punch() {
            match cx.discard(at, blocks).await {
                Ok(()) => done = blocks,
                Err(failure) if UNSUPPORTED.contains(&failure.errno) => cx.core().punch.off = true,
                Err(_) => {}
            }
        }
        let pause = {
            let mut core = cx.core();
            core.stats.blocks_discarded += done;
            if let Some(pool) = &mut core.pool {
                pool.alloc.end_discard(at);
            }
            if core.punch.waiters > 0 {
                core.notify(|core| &mut core.fold_wait);
            }
            core.notify(|core| &mut core.punch.wait);
            core.requests() != before && core.has_time_to_punch()
        };
        if pause {
            cx.wait(|core| &mut core.tick_wait).await;
        }
    }
}

/// Waits until everything was discarded that is about to be now.
pub(crate) async fn wait_punched(cx: &Cx) {
    let goal = {
        let core = cx.core();
        let Some(pool) = &core.pool else { return };
        pool.alloc.left_blocks().saturating_add_unsigned(pool.alloc.leaving_blocks())
    };
    loop {
        {
            let core = cx.core();
            // A task is at it, or about to begin.
            if core.pool.as_ref().is_none_or(|pool| pool.alloc.left_blocks() >= goal) {
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
