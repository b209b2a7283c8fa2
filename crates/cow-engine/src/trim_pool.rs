//! All that is free goes back to the file system or device below, because somebody asks for it: what
//! was freed and not discarded then, as the process died, or an operation waited for space, or its cell
//! was not all free (`punch.rs`, decision 17). Nothing is noted of what was discarded before, so that
//! is discarded again, which costs little.
//!
//! Batch by batch: its cells are kept from being given out until they are discarded. One discard is
//! in flight at a time, as always. Where an operation waits for space the batch is free at once, and
//! the next one begins when nobody waits.

use crate::api::Reply;
use crate::core::OpResult;
use crate::error::Error;
use crate::punch::{self, UNSUPPORTED};
use crate::space::{Tier, load_zone};
use crate::task::Cx;
use crate::verbs::wait_reclaim;
use cow_alloc::AllocError;
use cow_format::{BLOCK_SIZE, Phys};

/// Blocks that are kept from being given out at once: 16 MiB.
const BATCH: u64 = 4096;

/// The right to discard, which one task has at a time.
struct Turn<'a>(&'a Cx);

impl<'a> Turn<'a> {
    async fn take(cx: &'a Cx) -> Result<Self, Error> {
        loop {
            {
                let mut core = cx.core();
                check(&core)?;
                if core.punch.waiters == 0 && !std::mem::replace(&mut core.punch.running, true) {
                    return Ok(Self(cx));
                }
            }
            cx.wait(|core| &mut core.tick_wait).await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut core = self.0.core();
        core.punch.running = false;
        core.notify(|core| &mut core.fold_wait);
        core.notify(|core| &mut core.punch.wait);
    }
}

fn check(core: &crate::core::Core) -> Result<(), Error> {
    if core.pool.as_ref().is_some_and(|pool| pool.sb.geometry.preallocated) {
        let text = "this pool was made with all of its space allocated, and keeps it";
        return Err(Error::Unsupported(text.into()));
    }
    if core.punch.off {
        let text = "what lies below this pool does not take space back";
        return Err(Error::Unsupported(text.into()));
    }
    if core.punch.ending || core.closing {
        return Err(Error::Invalid("the pool is being closed".into()));
    }
    match &core.poisoned {
        Some(reason) => Err(Error::Poisoned(reason.clone())),
        None => Ok(()),
    }
}

/// What is deleted comes back first. Blocks that are discarded, those included that were before.
pub(crate) async fn trim_pool(cx: &Cx) -> OpResult {
    check(&cx.core())?;
    wait_reclaim(cx).await?;
    let (mut zone, mut from, mut blocks) = (0, 0, 0);
    while zone < cx.core().pool()?.alloc.zone_count() {
        let next = {
            let _turn = Turn::take(cx).await?;
            let (runs, next) = choose(cx, zone, from).await?;
            blocks += discard(cx, runs).await?;
            next
        };
        // What was freed meanwhile.
        punch::start_if_due(cx);
        match next {
            Some(at) => from = at,
            None => (zone, from) = (zone + 1, 0),
        }
    }
    Ok(Reply::Trimmed { bytes: blocks * BLOCK_SIZE as u64 })
}

async fn choose(cx: &Cx, zone: u64, from: u32) -> Result<cow_alloc::Chosen, Error> {
    loop {
        let chosen = {
            let mut core = cx.core();
            // What is kept for a moment comes from what nothing was promised.
            let most = core.available(Tier::Data, None).min(BATCH);
            let alloc = &mut core.pool()?.alloc;
            match alloc.begin_trim(zone, from, most) {
                // So little is free that it is not worth the while.
                Ok((runs, Some(at))) if runs.is_empty() && at == from => Ok((runs, None)),
                other => other,
            }
        };
        match chosen {
            Ok(chosen) => return Ok(chosen),
            Err(AllocError::NeedZone(zone)) => load_zone(cx, zone).await?,
            Err(error) => return Err(Error::Corrupt(error.to_string())),
        }
    }
}

/// Discards runs; each is free again afterwards, whatever came of it. How many blocks.
async fn discard(cx: &Cx, runs: Vec<(Phys, u64)>) -> Result<u64, Error> {
    let (mut done, mut failed) = (0, None);
    for (at, blocks) in runs {
        if failed.is_none() && cx.core().has_time_to_punch() {
            match cx.discard(at, blocks).await {
                Ok(()) => done += blocks,
                Err(failure) => failed = Some((failure.errno, at)),
            }
        }
        {
            let mut core = cx.core();
            if let Some(pool) = &mut core.pool {
                pool.alloc.end_discard(at);
            }
            if core.punch.waiters > 0 {
                core.notify(|core| &mut core.fold_wait);
            }
        }
        // A file is locked while a hole is punched.
        if cx.core().has_clients_at_work() {
            cx.wait(|core| &mut core.tick_wait).await;
        }
    }
    let mut core = cx.core();
    core.stats.blocks_discarded += done;
    match failed {
        None => Ok(done),
        Some((errno, _)) if UNSUPPORTED.contains(&errno) => {
            core.punch.off = true;
            check(&core).map(|()| done)
        }
        Some((errno, at)) => Err(Error::Io { errno, op: "discard", offset: at.byte_offset() }),
    }
}
