//! Finding places for data, and writing it there: before it is sequenced, or at that moment
//! (write-back).
//!
//! A block that cannot be written is *withheld*: never given out again, and listed in every
//! checkpoint. That list has an end; a medium with more such blocks takes no more writes. So of a
//! long write that failed each block is tried alone: one bad block must not cost its neighbours.

use crate::admit::{Promise, admit};
use crate::api::{AckMode, Action};
use crate::below::allocate_data;
use crate::core::Core;
use crate::error::{Error, SpaceKind};
use crate::inflight::Run;
use crate::space::Tier;
use crate::task::{Cx, join_all};
use crate::wait::Waiter;
use cow_alloc::Stream;
use cow_format::checkpoint::MAX_WITHHELD;
use cow_format::{BLOCK_SIZE, Buf, BufSlice, FrameSeq, Lba, NodeId, Phys, mutant};
use std::sync::Arc;

const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
/// Places that a block is tried at before its error is the client's.
pub(crate) const WRITE_TRIES: usize = 3;
/// From this many blocks on a write goes to the sequential stream.
const SEQUENTIAL_BLOCKS: usize = 16;
/// Blocks of the journal that are kept for Moves: some, and one for so many blocks in flight. Half of
/// what plain records leave free.
const MOVES_ROOM: u64 = 16;
const MOVES_A_BLOCK: u64 = 32;
/// Blocks of a failed write that are tried alone at a time.
pub(crate) const PROBES: usize = 64;

/// A run of data that has its place.
pub(crate) struct Placed {
    data: Arc<Buf>,
    /// Its first block, from the front of the request, and in the volume.
    first: usize,
    pub(crate) lba: Lba,
    pub(crate) phys: Phys,
    pub(crate) crcs: Vec<u32>,
}

impl Placed {
    /// What is written.
    fn slice(&self) -> BufSlice {
        BufSlice::new(Arc::clone(&self.data), self.first, self.crcs.len())
    }

    /// The fault that the mutant `latebytes` is: what a caller's buffer holds by now, who has put
    /// something else into the last block of a longer write since its checksum was taken.
    fn changed(&self) -> BufSlice {
        let blocks = self.crcs.len();
        let mut buf = Buf::zeroed(blocks);
        for i in 0..blocks {
            *buf.block_mut(i) = *self.data.block(self.first + i);
        }
        if blocks > 1 {
            buf.block_mut(blocks - 1)[BLOCK_SIZE - 1] ^= 1;
        }
        BufSlice::whole(buf)
    }

    /// Its blocks, each by itself.
    fn split(self) -> impl Iterator<Item = Self> {
        let Self { data, first, lba, phys, crcs } = self;
        crcs.into_iter().enumerate().map(move |(i, crc)| Self {
            data: Arc::clone(&data),
            first: first + i,
            lba: Lba(lba.0 + i as u64),
            phys: phys.offset(i as u64),
            crcs: vec![crc],
        })
    }
}

/// Data of a request that needs a place: blocks of `data` from `first` on, one for each checksum,
/// which go to `lba` on.
pub(crate) struct ToPlace {
    pub(crate) data: Arc<Buf>,
    pub(crate) first: usize,
    pub(crate) lba: Lba,
    pub(crate) crcs: Vec<u32>,
}

/// Blocks of a write that is not sequenced yet: given back if it never is.
pub(crate) struct Placement {
    cx: Cx,
    pub(crate) runs: Vec<Placed>,
    /// They are written before the write is sequenced, not at that moment.
    pub(crate) lands_first: bool,
}

impl Placement {
    pub(crate) fn new(cx: &Cx, lands_first: bool) -> Self {
        Self { cx: cx.clone(), runs: Vec::new(), lands_first }
    }

    /// Whether it has data that is yet to be written.
    pub(crate) fn is_to_fly(&self) -> bool {
        !self.lands_first && !self.runs.is_empty()
    }

    /// The records that name the blocks are sequenced, for `node`, in the frame `first` or later.
    /// What is not written yet is on its way from here on.
    pub(crate) fn keep(&mut self, core: &mut Core, node: NodeId, first: FrameSeq) {
        for run in self.runs.drain(..) {
            if !self.lands_first {
                let data = if mutant::is("latebytes") { run.changed() } else { run.slice() };
                core.launch(run.phys, Run { data, node, lba: run.lba, frame: first });
            }
        }
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        if self.runs.is_empty() {
            return;
        }
        if let Some(pool) = &mut self.cx.core().pool {
            for run in &self.runs {
                pool.alloc.give_back(run.phys, run.crcs.len() as u64);
            }
        }
    }
}

/// Which stream a run of so many blocks of data goes to.
pub(crate) fn stream_of(blocks: usize) -> Stream {
    if blocks >= SEQUENTIAL_BLOCKS { Stream::Sequential } else { Stream::Random }
}

impl Core {
    /// Hands data that is sequenced to the device.
    pub(crate) fn launch(&mut self, at: Phys, run: Run) {
        let bufs = vec![run.data.clone()];
        if let Some(pool) = &mut self.pool {
            pool.inflight.insert(at, run);
        }
        self.io.issue(Waiter::Data(at), |id| Action::Write { id, at, bufs, lazy: true });
    }

    /// Whether `blocks` blocks of data have to be written before they are sequenced. So it is where
    /// the mode says so, and where there may be no other place for them if the device refuses one:
    /// a block in the pool for each one that is on its way, room in the journal to say so and, on a
    /// file system that can run full, a block that has room there (`mend.rs`).
    ///
    /// The blocks are promised already; those of `unpromised` are not: of data, and for its fold.
    pub(crate) fn lands_first(&self, blocks: u64, unpromised: (u64, u64)) -> bool {
        let Some(pool) = &self.pool else { return true };
        let flying = pool.inflight.blocks() + blocks;
        let (data, map) = unpromised;
        let journal_left = pool.journal.capacity() - pool.journal.used_blocks();
        self.config.ack != AckMode::Writeback
            || self.available(Tier::Data, None) < flying + data + map
            || journal_left < MOVES_ROOM + flying / MOVES_A_BLOCK
            || !self.has_spare_below(flying + map)
    }
}

/// Finds room for data and, if it lands first, writes it there; what cannot be written at one
/// place is tried at another.
pub(crate) async fn place(
    cx: &Cx,
    run: ToPlace,
    placed: &mut Placement,
    promise: &mut Promise,
) -> Result<(), Error> {
    let ToPlace { data, first, lba, crcs } = run;
    let stream = stream_of(crcs.len());
    if !placed.lands_first {
        return find_room(cx, &data, stream, (first, lba, crcs), placed, promise).await;
    }
    let mut todo = vec![(first, lba, crcs)];
    let mut error = None;
    for attempt in 0..WRITE_TRIES {
        if attempt > 0 {
            // The first places were spent, and are withheld.
            let blocks: usize = todo.iter().map(|(.., crcs)| crcs.len()).sum();
            promise.join(admit(cx, blocks as u64, 0, Tier::Data).await?);
        }
        let begun = placed.runs.len();
        for part in std::mem::take(&mut todo) {
            find_room(cx, &data, stream, part, placed, promise).await?;
        }
        let failed = write_runs(cx, placed, begun).await?;
        for (bad, cause) in failed {
            todo.push((bad.first, bad.lba, bad.crcs));
            error = Some(cause);
        }
        if todo.is_empty() {
            return Ok(());
        }
    }
    Err(error.unwrap_or(Error::NoSpace(SpaceKind::Pool)))
}

/// Finds room for the blocks of `data` with these checksums, and writes nothing.
async fn find_room(
    cx: &Cx,
    data: &Arc<Buf>,
    stream: Stream,
    (mut first, mut lba, mut crcs): (usize, Lba, Vec<u32>),
    placed: &mut Placement,
    promise: &mut Promise,
) -> Result<(), Error> {
    while !crcs.is_empty() {
        let (phys, got) = allocate_data(cx, stream, crcs.len() as u32).await?;
        promise.spend(u64::from(got));
        let rest = crcs.split_off(got as usize);
        placed.runs.push(Placed { data: Arc::clone(data), first, lba, phys, crcs });
        first += got as usize;
        lba.0 += u64::from(got);
        crcs = rest;
    }
    Ok(())
}

/// Writes the runs from `begun` on. Those that could not be written are taken out of `placed`,
/// withheld, and returned with what went wrong.
async fn write_runs(
    cx: &Cx,
    placed: &mut Placement,
    begun: usize,
) -> Result<Vec<(Placed, Error)>, Error> {
    let mut bad = Vec::new();
    for (run, cause) in try_runs(cx, placed, begun).await? {
        if run.crcs.len() == 1 {
            withhold(cx, run.phys)?;
            bad.push((run, cause));
            continue;
        }
        let mut singles = run.split().peekable();
        while singles.peek().is_some() {
            let from = placed.runs.len();
            placed.runs.extend(singles.by_ref().take(PROBES));
            for (run, cause) in try_runs(cx, placed, from).await? {
                withhold(cx, run.phys)?;
                bad.push((run, cause));
            }
        }
    }
    Ok(bad)
}

/// Writes the runs from `begun` on once. Those that failed are taken out of `placed`.
async fn try_runs(
    cx: &Cx,
    placed: &mut Placement,
    begun: usize,
) -> Result<Vec<(Placed, Error)>, Error> {
    let writes = placed.runs[begun..].iter().map(|run| cx.write(run.phys, vec![run.slice()]));
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
pub(crate) fn withhold(cx: &Cx, phys: Phys) -> Result<(), Error> {
    let mut core = cx.core();
    let alloc = &mut core.pool()?.alloc;
    if alloc.withheld().count() >= MAX_WITHHELD {
        core.poison(format!("more than {MAX_WITHHELD} blocks of the medium cannot be written"));
        return core.writable().map(|_| ());
    }
    alloc.withhold(phys).map_err(|e| Error::Corrupt(e.to_string()))
}
