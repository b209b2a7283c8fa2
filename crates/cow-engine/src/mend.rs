//! Data that was acknowledged, and that the device does not take: it is written elsewhere.
//!
//! It is tried once more in place; what still fails is tried block by block. A block that cannot be
//! written is withheld and its data goes to another one, which a `Move` in the journal says. Where
//! the file system below is full no block is at fault: the data goes to one that has room there,
//! set aside ahead, or waits for room. Reads are answered from memory all the while (`inflight.rs`).
//! What finds no place poisons the pool, and what was not flushed is lost.

use crate::api::IoFailure;
use crate::below::is_full;
use crate::fold::{STALL_TICKS, Stall};
use crate::inflight::Run;
use crate::place::{PROBES, WRITE_TRIES, withhold};
use crate::space::allocate;
use crate::task::{Cx, join_all};
use cow_alloc::Stream;
use cow_format::record::Record;
use cow_format::{BufSlice, Lba, Phys, checksum};
use cow_journal::Reserve;

/// So long data waits for room in the file system below.
const STALL_NS: u64 = 30_000_000_000;

/// The write of the run in flight at `at` is complete.
pub(crate) fn landed(cx: &Cx, at: Phys, result: Result<(), IoFailure>) {
    match result {
        Ok(()) => forget(cx, at),
        Err(failure) => cx.spawn(mend(cx.clone(), at, failure)),
    }
}

fn forget(cx: &Cx, at: Phys) {
    let mut core = cx.core();
    let Some(pool) = &mut core.pool else { return };
    if pool.inflight.remove(at) {
        core.notify(|core| &mut core.flush_wait);
    }
    core.notify(|core| &mut core.landing_wait);
}

async fn mend(cx: Cx, at: Phys, failure: IoFailure) {
    let run = cx.core().pool.as_ref().and_then(|pool| pool.inflight.run(at).cloned());
    let Some(run) = run else { return };
    let blocks = run.data.block_count();
    let mut failed = vec![(0, failure)];
    if blocks > 1 || !is_full(failure.errno) {
        match cx.write(at, vec![run.data.clone()]).await {
            Ok(()) => return forget(&cx, at),
            Err(failure) => failed = vec![(0, failure)],
        }
    }
    if blocks > 1 {
        failed.clear();
        let all: Vec<usize> = (0..blocks).collect();
        for some in all.chunks(PROBES) {
            let alone = some.iter().map(|&i| cx.write(at.offset(i as u64), vec![block(&run, i)]));
            let results = join_all(alone).await;
            failed.extend(some.iter().zip(results).filter_map(|(&i, r)| Some((i, r.err()?))));
        }
    }
    for some in failed.chunks(PROBES) {
        let places = some.iter().map(|&(i, failure)| find_place(&cx, at, &run, i, failure));
        let mut moves = Vec::new();
        for place in join_all(places).await {
            match place {
                Place::Same => {}
                Place::Other(record) => moves.push(record),
                // Reads are answered from memory until the pool is closed.
                Place::None => return,
            }
        }
        if !tell(&cx, &run, &moves) {
            return;
        }
    }
    forget(&cx, at);
}

fn block(run: &Run, i: usize) -> BufSlice {
    run.data.part(i, 1)
}

/// Where a block went.
enum Place {
    /// Where it should, after all.
    Same,
    Other(Record),
    /// Nowhere: the pool is poisoned.
    None,
}

/// Writes block `i` of a run that could not be written at its place.
async fn find_place(cx: &Cx, at: Phys, run: &Run, i: usize, mut failure: IoFailure) -> Place {
    let old = at.offset(i as u64);
    if !is_full(failure.errno) && withhold(cx, old).is_err() {
        return Place::None;
    }
    let mut stalled: Option<Stalled> = None;
    let mut tries = 0;
    while tries < WRITE_TRIES && cx.core().poisoned.is_none() {
        let new = if is_full(failure.errno) {
            cx.core().below.take()
        } else {
            allocate(cx, Stream::Random, 1).await.ok().map(|(phys, _)| phys)
        };
        let Some(new) = new else {
            if !is_full(failure.errno) {
                break;
            }
            match stalled.get_or_insert_with(|| Stalled::begin(cx)).retry(old, block(run, i)).await
            {
                Ok(()) => return Place::Same,
                Err(Some(again)) => failure = again,
                Err(None) => break,
            }
            continue;
        };
        match cx.write(new, vec![block(run, i)]).await {
            Ok(()) => return Place::Other(moved(run, i, old, new)),
            Err(again) if is_full(again.errno) => {
                // No fault of this block: one with room is asked for next.
                if let Some(pool) = &mut cx.core().pool {
                    pool.alloc.give_back(new, 1);
                }
                failure = again;
            }
            Err(again) => {
                tries += 1;
                if withhold(cx, new).is_err() {
                    return Place::None;
                }
                failure = again;
            }
        }
    }
    cx.core().poison(format!(
        "acknowledged data of block {} could not be written at byte {}, nor elsewhere: os error {}",
        run.lba.0 + i as u64,
        old.byte_offset(),
        failure.errno
    ));
    Place::None
}

fn moved(run: &Run, i: usize, old: Phys, new: Phys) -> Record {
    let crcs = vec![checksum::data(run.data.block(i))];
    Record::Move { node: run.node, lba: Lba(run.lba.0 + i as u64), old, new, crcs }
}

/// Puts the Moves into the journal; `false` if that cannot be. Their frame is left open: many runs may
/// have to move at once, and a frame for each would fill the journal while a fold waits for them.
fn tell(cx: &Cx, run: &Run, moves: &[Record]) -> bool {
    let mut core = cx.core();
    if moves.is_empty() {
        return core.poisoned.is_none();
    }
    let Ok(last) = core.sequence(moves, Reserve::Privileged) else {
        core.poison("the journal has no room for data that had to move".into());
        return false;
    };
    let publication = core.publications;
    let Some(pool) = &mut core.pool else { return false };
    for record in moves {
        if let Record::Move { old, new, .. } = record {
            pool.inflight.note_move((*old, *new), (run.frame, last), publication);
        }
    }
    true
}

/// Data waits for room in the file system below, until this is dropped.
struct Stalled {
    cx: Cx,
    since_ns: u64,
    _stall: Stall,
}

impl Stalled {
    fn begin(cx: &Cx) -> Self {
        let stall = Stall::begin(cx);
        let mut core = cx.core();
        let since_ns = core.now_ns;
        if let Some(pool) = &mut core.pool {
            pool.inflight.stalled += 1;
        }
        core.notify(|core| &mut core.landing_wait);
        Self { cx: cx.clone(), since_ns, _stall: stall }
    }

    /// After a while, once more in place; `None` when the pool is poisoned or it has taken too long.
    async fn retry(&self, at: Phys, data: BufSlice) -> Result<(), Option<IoFailure>> {
        for _ in 0..STALL_TICKS {
            if self.cx.core().poisoned.is_some() {
                return Err(None);
            }
            self.cx.wait(|core| &mut core.tick_wait).await;
        }
        let result = self.cx.write(at, vec![data]).await;
        if result.is_err() && self.cx.core().now_ns.saturating_sub(self.since_ns) >= STALL_NS {
            return Err(None);
        }
        result.map_err(Some)
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        if let Some(pool) = &mut self.cx.core().pool {
            pool.inflight.stalled -= 1;
        }
    }
}
