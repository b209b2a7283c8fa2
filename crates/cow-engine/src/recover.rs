//! Opening: superblock, checkpoint, journal. Design section 4, Recovery.
//!
//! 1. *Scan*: follow the frames from the checkpoint's tail while sequence, chain, epoch and
//!    checksums hold. What is known to have been durable is `stable`.
//! 2. *Verify* the frames beyond `stable`: the data of each `MapSet` and `Move` is read and its
//!    checksum compared. Accepted is the longest prefix of whole groups in which every failing
//!    block is excused by a later `Move` of it *inside that prefix*.
//! 3. *Fence*: the accepted end, with a new epoch, goes into the older superblock set and is
//!    flushed; else a second crash could bring back frames that this one cut.
//! 4. *Apply*, with the function that serves at runtime.
//!
//! A damaged frame below a position that a later frame calls durable is corruption: reported,
//! never cut.

mod checkpoint;
mod claim;
mod superblock;
mod table;
mod verify;

use crate::core::{Core, Pool, is_map_record};
use crate::error::Error;
use crate::fold::{FoldAt, run as run_fold};
use crate::inflight::InFlight;
use crate::loading::load_policies;
use crate::share_state::Shares;
use crate::space::load_zone;
use crate::task::{Cx, join};
use checkpoint::Found;
use claim::{Moves, claim_blocks};
use cow_alloc::AllocError;
use cow_extent::{Layers, NodeCache};
use cow_format::checkpoint::JournalPos;
use cow_format::frame::Frame;
use cow_format::record::Record;
use cow_format::superblock::{Fence, Superblock};
use cow_format::{Buf, FrameSeq, IdMap, Phys, mutant};
use cow_journal::{EndReason, JournalWriter, Ring, Scanner, Step};
use std::collections::BTreeSet;

/// From so many fences on a checkpoint is made at open, which makes old ones superfluous.
const MANY_FENCES: usize = 24;

/// Opens the pool.
pub(crate) async fn open(cx: &Cx, read_only: bool) -> Result<(), Error> {
    if cx.core().pool.is_some() {
        return Err(Error::Invalid("the pool is open already".into()));
    }
    if !read_only && !mutant::is("noopenflush") {
        // What a killed process wrote is perhaps only in a cache. It must be durable before it is
        // verified: else the fence could outlive the data that it vouches for.
        superblock::flush(cx).await?;
    }
    let mut sb = superblock::read(cx, read_only).await?;
    let (found, read, accepted) = build_and_scan(cx, &sb).await?;
    let (found_seq, fallback_tail) =
        (found.cp.seq, found.previous.as_ref().map_or(found.cp.tail, |cp| cp.tail));
    let (ring, pool_tag) = (read.ring, read.pool_tag);
    if !read_only || mutant::is("rofence") {
        superblock::fence(cx, &mut sb, accepted, fallback_tail).await?;
    }
    let last = FrameSeq(accepted.seq.0 - 1);
    let mut journal = JournalWriter::new(ring, pool_tag, sb.epoch, accepted, fallback_tail);
    journal.set_durable(last);
    journal.set_buffers(cx.core().config.buffers.clone());
    let read = Journal { fences: sb.fences.clone(), ..read };
    let withheld = found.cp.withheld.clone();
    {
        let mut core = cx.core();
        let cache = NodeCache::new(core.config.cache_bytes);
        let now_ns = core.now_ns;
        core.pool = Some(Pool {
            pool_tag,
            pool_blocks: found.cp.pool_blocks,
            read_only,
            tree: found.tree,
            since_freeze: Vec::new(),
            active: Layers::default(),
            folding: None,
            moved_late: false,
            inflight: InFlight::default(),
            alloc: found.alloc,
            journal,
            cp: found.cp,
            fallback_tail,
            durable: last,
            last_record: last,
            told_durable: last,
            writing_frames: BTreeSet::new(),
            emitted: last,
            flushing: false,
            self_flushing: false,
            writing_nodes: IdMap::default(),
            cache,
            promised: 0,
            promised_map: 0,
            shares: Shares::default(),
            open_since_ns: 0,
            unflushed_since_ns: now_ns,
            unflushed_bytes: 0,
            last_activity_ns: now_ns,
            fold_begun_ns: now_ns,
            sb,
        });
        core.begin_clock();
    }
    for phys in withheld {
        withhold(cx, phys).await?;
    }
    replay(cx, &read, accepted).await?;
    // A fold in the replay has made the checkpoint that was found the fallback.
    let unmoved = cx.core().pool()?.cp.seq == found_seq;
    if let Some(previous) = found.previous.filter(|_| unmoved && !read_only) {
        checkpoint::quarantine(cx, &previous, &read).await?;
    }
    if !read_only {
        load_policies(cx).await?;
    }
    let mut core = cx.core();
    core.serving = true;
    core.begin_expiry();
    core.seal.look = !read_only;
    let pool = core.pool()?;
    if !read_only && (pool.sb.fences.len() >= MANY_FENCES || !pool.tree.walkable().is_empty()) {
        core.fold.soon = true;
    }
    Ok(())
}

/// The newest checkpoint whose node table is intact, the journal from its tail, and where what is
/// accepted of that ends. The device reads the one while the other is made sense of.
async fn build_and_scan(cx: &Cx, sb: &Superblock) -> Result<(Found, Journal, JournalPos), Error> {
    let (newest, previous) = checkpoint::newest(cx, sb).await?;
    let read = Journal::from(sb, newest.tail);
    let building = checkpoint::build(cx, sb, newest, previous.clone());
    let (built, accepted) = join(building, scan_and_verify(cx, &read)).await;
    let cause = match built {
        Ok(found) => return Ok((found, read, accepted?)),
        // No damage: what it says is not known here, and going back would lose it.
        Err(cause @ Error::Unsupported(_)) => return Err(cause),
        Err(cause) => cause,
    };
    // The journal is kept from the tail of the one before: nothing is lost by going back.
    let Some(previous) = previous else { return Err(cause) };
    let read = Journal::from(sb, previous.tail);
    let found = checkpoint::build(cx, sb, previous, None).await.map_err(|_| cause)?;
    let accepted = scan_and_verify(cx, &read).await?;
    Ok((found, read, accepted))
}

async fn scan_and_verify(cx: &Cx, journal: &Journal) -> Result<JournalPos, Error> {
    let scan = scan(cx, journal).await?;
    verify::accept(cx, journal, &scan).await
}

/// What the scan of the ring found.
pub(crate) struct Scan {
    /// The last frame known to have been durable.
    pub(crate) stable: FrameSeq,
    /// Position after the last frame that fits.
    pub(crate) end: JournalPos,
}

/// Reads the frames of the journal one after the other.
pub(crate) struct FrameReader<'a> {
    cx: &'a Cx,
    scanner: Scanner,
    ring: Ring,
    ahead: Option<(Phys, Buf)>,
}

impl FrameReader<'_> {
    /// The next frame (none for a pad) and the position after it; `None` at the end of the journal.
    ///
    /// # Errors
    /// When the device cannot be read, or the next frame has unknown flags: neither is the end of the
    /// journal.
    pub(crate) async fn next(&mut self) -> Result<Option<(Option<Frame>, JournalPos)>, Error> {
        let mut again = false;
        loop {
            let (at, want) = self.scanner.want();
            let skip = self.load(at, want, again).await?;
            let bytes = match &self.ahead {
                Some((_, buf)) => &buf[skip..],
                None => return Ok(None),
            };
            match self.scanner.accept(bytes) {
                Step::Frame(frame, after) => return Ok(Some((Some(frame), after))),
                Step::Pad => return Ok(Some((None, self.scanner.next()))),
                Step::End(EndReason::Lap) => return Ok(None),
                // What does not fit may be a misread: once more, past every cache.
                Step::End(_) if !again => again = true,
                Step::End(EndReason::Format(cause)) if cause.is_unknown() => {
                    return Err(cause.into());
                }
                Step::End(_) => return Ok(None),
            }
        }
    }

    /// Makes sure that `want` blocks from `at` are in memory; where they begin there, in bytes.
    async fn load(&mut self, at: Phys, want: u64, again: bool) -> Result<usize, Error> {
        if let Some((start, buf)) = self.ahead.as_ref().filter(|_| !again) {
            let end = start.0 + buf.block_count() as u64;
            if start.0 <= at.0 && at.0 + want <= end {
                return Ok((at.0 - start.0) as usize * cow_format::BLOCK_SIZE);
            }
        }
        let ring_end = self.ring.start.0 + self.ring.blocks;
        let ahead = self.cx.core().config.read_ahead;
        let blocks = if again { want } else { ahead.max(want).min(ring_end - at.0) };
        let buf = read_twice(self.cx, at, blocks as usize, again, "read of the journal").await?;
        self.ahead = Some((at, buf));
        Ok(0)
    }
}

/// Reads; a failure is tried once more.
pub(crate) async fn read_twice(
    cx: &Cx,
    at: Phys,
    blocks: usize,
    bypass: bool,
    op: &'static str,
) -> Result<Buf, Error> {
    if let Ok(buf) = cx.read(at, blocks, bypass).await {
        return Ok(buf);
    }
    cx.read(at, blocks, true).await.map_err(|failure| Error::Io {
        errno: failure.errno,
        op,
        offset: at.byte_offset(),
    })
}

/// Where a journal begins, and what must be respected in it.
pub(crate) struct Journal {
    pub(crate) ring: Ring,
    pub(crate) pool_tag: u64,
    pub(crate) tail: JournalPos,
    pub(crate) fences: Vec<Fence>,
}

impl Journal {
    pub(crate) fn from(sb: &Superblock, tail: JournalPos) -> Self {
        let (ring, pool_tag) = (Ring::of(&sb.geometry), sb.pool_tag());
        Self { ring, pool_tag, tail, fences: sb.fences.clone() }
    }

    pub(crate) fn reader<'a>(&self, cx: &'a Cx) -> FrameReader<'a> {
        let scanner = Scanner::new(self.ring, self.pool_tag, self.tail, &self.fences);
        FrameReader { cx, scanner, ring: self.ring, ahead: None }
    }
}

async fn scan(cx: &Cx, journal: &Journal) -> Result<Scan, Error> {
    let mut reader = journal.reader(cx);
    while reader.next().await?.is_some() {}
    let (stable, end) = (reader.scanner.stable(), reader.scanner.next());
    if end.seq <= stable {
        return Err(damaged(end.seq, journal.ring.phys(end.block)));
    }
    verify::look_ahead(cx, journal, end).await?;
    Ok(Scan { stable, end })
}

pub(crate) fn damaged(seq: FrameSeq, at: Phys) -> Error {
    Error::Corrupt(format!("journal frame {seq} at block {at} is damaged, though it was durable"))
}

/// The accepted frames of a journal, read anew.
struct Accepted<'a> {
    reader: FrameReader<'a>,
    end: JournalPos,
}

impl<'a> Accepted<'a> {
    fn new(cx: &'a Cx, journal: &Journal, end: JournalPos) -> Self {
        Self { reader: journal.reader(cx), end }
    }

    /// The records of the next whole group or groups, with the frame that they end in and the
    /// position after it; `None` at the accepted end.
    async fn next(&mut self) -> Result<Option<(Vec<Record>, FrameSeq, JournalPos)>, Error> {
        let mut records = Vec::new();
        while self.reader.scanner.next().seq < self.end.seq {
            let Some((frame, after)) = self.reader.next().await? else {
                let at = self.reader.scanner.next();
                return Err(damaged(at.seq, self.reader.ring.phys(at.block)));
            };
            let Some(frame) = frame else { continue };
            let found = cow_journal::records_of(&frame)
                .map_err(|e| Error::Corrupt(format!("frame {}: {e}", frame.seq)))?;
            records.extend(found);
            if frame.flags & cow_format::frame::FLAG_MORE == 0 || mutant::is("grouppart") {
                return Ok(Some((records, frame.seq, after)));
            }
        }
        Ok(None)
    }
}

/// Marks the blocks of all accepted records as taken, then applies the records. In this order: a
/// fold in the middle of the replay allocates, and must not be given a block that a later record
/// names.
async fn replay(cx: &Cx, journal: &Journal, accepted: JournalPos) -> Result<(), Error> {
    let mut moves = Moves::default();
    let mut frames = Accepted::new(cx, journal, accepted);
    while let Some((records, seq, _)) = frames.next().await? {
        for record in &records {
            if let Record::PoolGrow { blocks } = record {
                cx.core().pool()?.grow_to(*blocks);
            }
            let is_folded = !claim_blocks(cx, record).await?;
            moves.note(record, seq, is_folded);
        }
    }
    let mut frames = Accepted::new(cx, journal, accepted);
    while let Some((records, seq, after)) = frames.next().await? {
        for record in records.iter().filter(|record| moves.is_due(record, seq)) {
            cx.core().replay_record(record, seq)?;
        }
        let full = {
            let mut core = cx.core();
            let limit = core.config.layer_bytes;
            let pool = core.pool()?;
            if pool.read_only && pool.active.bytes() > 4 * limit {
                return Err(Error::Limit(
                    "the journal holds more than memory allows: open it for writing once".into(),
                ));
            }
            !pool.read_only && pool.active.bytes() > limit && moves.none_pending()
        };
        if full {
            cx.core().fold.running = true;
            let result = run_fold(cx, FoldAt::Replay(seq, after)).await;
            cx.core().fold.running = false;
            result?;
        }
    }
    Ok(())
}

/// Loads the bitmap page of a zone; `false` for readers where it cannot be read, who need none.
///
/// # Errors
/// Where something is to be written it is needed, and can be made anew from the maps.
async fn needs_zone(cx: &Cx, zone: u64) -> Result<bool, Error> {
    let Err(cause) = load_zone(cx, zone).await else { return Ok(true) };
    if cx.core().pool()?.read_only {
        return Ok(false);
    }
    Err(cause)
}

/// A block on the checkpoint's list is never given out.
async fn withhold(cx: &Cx, phys: Phys) -> Result<(), Error> {
    loop {
        let result = cx.core().pool()?.alloc.withhold(phys);
        match result {
            Ok(()) => return Ok(()),
            Err(AllocError::NeedZone(zone)) if needs_zone(cx, zone).await? => {}
            // Nothing is given out to readers.
            Err(AllocError::NeedZone(_)) => return Ok(()),
            Err(error) => return Err(Error::Corrupt(error.to_string())),
        }
    }
}

impl Core {
    /// Applies a record that is in the journal already.
    fn replay_record(&mut self, record: &Record, frame: FrameSeq) -> Result<(), Error> {
        let pool = self.pool()?;
        if matches!(record, Record::Hold { set: false, .. }) && mutant::is("releaselost") {
            return Ok(());
        }
        if is_map_record(record) {
            pool.apply_map(record);
        } else {
            pool.tree.apply(record, frame)?;
        }
        Ok(())
    }
}

impl Pool {
    /// The pool is `blocks` long from now on.
    pub(crate) fn grow_to(&mut self, blocks: u64) {
        if blocks > self.pool_blocks {
            self.pool_blocks = blocks;
            // The limit was checked when the record was made.
            let grown = self.alloc.grow(blocks);
            debug_assert!(grown.is_ok(), "grown past the limit");
        }
    }
}
