//! Finding places for data, and writing it there.
//!
//! A block that cannot be written is *withheld*: never given out again, and listed in every
//! checkpoint. That list has an end; a medium with more such blocks takes no more writes. So of a
//! long write that failed each block is tried alone: one bad block must not cost its neighbours.

use crate::admit::{Promise, admit};
use crate::below::allocate_data;
use crate::error::{Error, SpaceKind};
use crate::space::Tier;
use crate::task::{Cx, join_all};
use cow_alloc::Stream;
use cow_format::checkpoint::MAX_WITHHELD;
use cow_format::{Buf, BufSlice, Phys};
use std::sync::Arc;

const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
/// Places that a block is tried at before its error is the client's.
const WRITE_TRIES: usize = 3;
/// From this many blocks on a write goes to the sequential stream.
const SEQUENTIAL_BLOCKS: usize = 16;
/// Blocks of a failed write that are tried alone at a time.
const PROBES: usize = 64;

/// A run of data that has its place.
pub(crate) struct Placed {
    /// Its first block, from the front of the request.
    pub(crate) first: usize,
    pub(crate) phys: Phys,
    pub(crate) crcs: Vec<u32>,
}

impl Placed {
    /// Its blocks, each by itself.
    fn split(self) -> impl Iterator<Item = Self> {
        let (first, phys) = (self.first, self.phys);
        self.crcs.into_iter().enumerate().map(move |(i, crc)| Self {
            first: first + i,
            phys: phys.offset(i as u64),
            crcs: vec![crc],
        })
    }
}

/// Blocks of a write that is not sequenced yet: given back if it never is.
pub(crate) struct Placement {
    cx: Cx,
    pub(crate) runs: Vec<Placed>,
}

impl Placement {
    pub(crate) fn new(cx: &Cx) -> Self {
        Self { cx: cx.clone(), runs: Vec::new() }
    }

    /// The records that name the blocks are sequenced.
    pub(crate) fn keep(mut self) {
        self.runs.clear();
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        if let Some(pool) = &mut self.cx.core().pool {
            for run in &self.runs {
                pool.alloc.give_back(run.phys, run.crcs.len() as u64);
            }
        }
    }
}

/// Finds room for blocks with these checksums, which begin at block `first` of `data`, and writes
/// them; what cannot be written at one place is tried at another.
pub(crate) async fn place(
    cx: &Cx,
    data: &Arc<Buf>,
    (first, crcs): (usize, &[u32]),
    placed: &mut Placement,
    promise: &mut Promise,
) -> Result<(), Error> {
    let is_long = crcs.len() >= SEQUENTIAL_BLOCKS;
    let stream = if is_long { Stream::Sequential } else { Stream::Random };
    let mut todo = vec![(0, crcs.len())];
    let mut error = None;
    for attempt in 0..WRITE_TRIES {
        if attempt > 0 {
            // The first places were spent, and are withheld.
            let blocks: usize = todo.iter().map(|(_, len)| len).sum();
            promise.join(admit(cx, blocks as u64, 0, Tier::Data).await?);
        }
        let begun = placed.runs.len();
        for (mut at, mut len) in std::mem::take(&mut todo) {
            while len > 0 {
                let (phys, got) = allocate_data(cx, stream, len as u32).await?;
                promise.spend(u64::from(got));
                let got = got as usize;
                let crcs = crcs[at..at + got].to_vec();
                placed.runs.push(Placed { first: first + at, phys, crcs });
                at += got;
                len -= got;
            }
        }
        let failed = write_runs(cx, data, placed, begun).await?;
        for (bad, cause) in failed {
            todo.push((bad.first - first, bad.crcs.len()));
            error = Some(cause);
        }
        if todo.is_empty() {
            return Ok(());
        }
    }
    Err(error.unwrap_or(Error::NoSpace(SpaceKind::Pool)))
}

/// Writes the runs from `begun` on. Those that could not be written are taken out of `placed`,
/// withheld, and returned with what went wrong.
async fn write_runs(
    cx: &Cx,
    data: &Arc<Buf>,
    placed: &mut Placement,
    begun: usize,
) -> Result<Vec<(Placed, Error)>, Error> {
    let mut bad = Vec::new();
    for (run, cause) in try_runs(cx, data, placed, begun).await? {
        if run.crcs.len() == 1 {
            bad.push((withhold(cx, run)?, cause));
            continue;
        }
        let mut singles = run.split().peekable();
        while singles.peek().is_some() {
            let from = placed.runs.len();
            placed.runs.extend(singles.by_ref().take(PROBES));
            for (run, cause) in try_runs(cx, data, placed, from).await? {
                bad.push((withhold(cx, run)?, cause));
            }
        }
    }
    Ok(bad)
}

/// Writes the runs from `begun` on once. Those that failed are taken out of `placed`.
async fn try_runs(
    cx: &Cx,
    data: &Arc<Buf>,
    placed: &mut Placement,
    begun: usize,
) -> Result<Vec<(Placed, Error)>, Error> {
    let writes = placed.runs[begun..].iter().map(|run| {
        let slice = BufSlice::new(Arc::clone(data), run.first, run.crcs.len());
        cx.write(run.phys, vec![slice])
    });
    let results = join_all(writes).await;
    if results.iter().any(|r| r.is_err_and(|f| matches!(f.errno, ENOSPC | EDQUOT))) {
        // The file system below is full: no fault of the block.
        return Err(Error::NoSpace(SpaceKind::Below));
    }
    let mut failed = Vec::new();
    for (i, result) in results.into_iter().enumerate().rev() {
        let Err(failure) = result else { continue };
        let run = placed.runs.remove(begun + i);
        let offset = run.phys.byte_offset();
        failed.push((run, Error::Io { errno: failure.errno, op: "data write", offset }));
    }
    Ok(failed)
}

/// A block that could not be written is never given out again.
fn withhold(cx: &Cx, run: Placed) -> Result<Placed, Error> {
    let mut core = cx.core();
    let alloc = &mut core.pool()?.alloc;
    if alloc.withheld().count() >= MAX_WITHHELD {
        core.poison(format!("more than {MAX_WITHHELD} blocks of the medium cannot be written"));
        return core.writable().map(|_| run);
    }
    alloc.withhold(run.phys).map_err(|e| Error::Corrupt(e.to_string()))?;
    Ok(run)
}
