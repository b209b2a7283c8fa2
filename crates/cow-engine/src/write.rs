//! Writing: own the bytes, checksum them, find a place, write, sequence, acknowledge.
//!
//! The record is sequenced when the data write is complete (`writethrough` and `journaled`), so a
//! frame never names data that is not on its way to the medium; [`sequence_write`] is the one
//! point where that is decided.

use crate::api::{AckMode, ExportId, Reply};
use crate::core::{OpResult, SequenceError};
use crate::error::{Error, SpaceKind};
use crate::export::{Target, check_range};
use crate::flush::{flush_to, written_to};
use crate::locks::lock_range;
use crate::read::read_blocks;
use crate::reserve::Need;
use crate::space::{Promise, Tier, admit, allocate};
use crate::task::{Cx, join_all};
use cow_alloc::Stream;
use cow_format::checkpoint::MAX_WITHHELD;
use cow_format::record::Record;
use cow_format::{BLOCK_SIZE, Buf, BufSlice, FrameSeq, Lba, Phys, VolumeId, checksum};
use cow_journal::Reserve;
use std::sync::Arc;

const BLOCK: u64 = BLOCK_SIZE as u64;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
/// Places that a data write is tried at before its error is the client's.
const WRITE_TRIES: usize = 3;
/// From this many blocks on a write goes to the sequential stream.
const SEQUENTIAL_BLOCKS: usize = 16;
/// Longest write in one request.
const MAX_WRITE: u64 = 64 << 20;

/// A run of blocks of a request: zeros, or data with a checksum each.
struct Piece {
    /// First block, from the front of the request.
    first: usize,
    blocks: usize,
    /// Empty for zeros.
    crcs: Vec<u32>,
}

/// A run of data that has its place.
struct Placed {
    first: usize,
    phys: Phys,
    crcs: Vec<u32>,
}

pub(crate) async fn write(
    cx: &Cx,
    export: ExportId,
    offset: u64,
    len: u64,
    data: Buf,
    fua: bool,
) -> OpResult {
    let target = cx.core().target(export, true)?;
    check_range(offset, len, target.size_bytes)?;
    if len > data.len() as u64 || len > MAX_WRITE {
        return Err(Error::Invalid(format!("a write of {len} bytes is longer than its buffer")));
    }
    if len == 0 {
        return crate::discard::nothing_done(cx, fua).await;
    }
    let (first, end) = (offset / BLOCK, (offset + len).div_ceil(BLOCK));
    let head_partial = !offset.is_multiple_of(BLOCK);
    // Behind the end of the volume nothing is addressable: such a tail is zero, not merged.
    let tail_partial = !(offset + len).is_multiple_of(BLOCK) && offset + len != target.size_bytes;
    let partial = head_partial || tail_partial;
    let _turn = lock_range(cx, target.volume, first, end, partial).await;
    let target = cx.core().target(export, true)?;
    check_range(offset, len, target.size_bytes)?;
    let data = if partial {
        merge_partial(cx, &target, offset, len, data, (head_partial, tail_partial)).await?
    } else {
        trim(data, len)
    };
    let parts = vec![Part::Data(Lba(first), data)];
    let seq = write_parts(cx, export, &target, parts, offset + len).await?;
    acknowledge(cx, seq, fua).await?;
    let stats = &mut cx.core().stats;
    stats.writes += 1;
    stats.write_bytes += len;
    Ok(Reply::Done)
}

/// Zeros bytes `from .. to` of one block, whose range the caller has locked.
pub(crate) async fn zero_inside_block(
    cx: &Cx,
    export: ExportId,
    from: u64,
    to: u64,
) -> Result<(), Error> {
    let target = cx.core().target(export, true)?;
    let sides = (!from.is_multiple_of(BLOCK), !to.is_multiple_of(BLOCK));
    let data = merge_partial(cx, &target, from, to - from, Buf::zeroed(1), sides).await?;
    let parts = vec![Part::Data(Lba(from / BLOCK), data)];
    write_parts(cx, export, &target, parts, to).await.map(drop)
}

/// Waits for what the acknowledgement of a sequenced change needs.
pub(crate) async fn acknowledge(cx: &Cx, seq: FrameSeq, fua: bool) -> Result<(), Error> {
    if fua {
        return flush_to(cx, seq).await;
    }
    let ack = cx.core().config.ack;
    match ack {
        AckMode::Writethrough => Ok(()),
        AckMode::Journaled => written_to(cx, seq).await,
    }
}

/// The bytes of a request as whole blocks, zeros behind its end.
fn trim(mut data: Buf, len: u64) -> Buf {
    let blocks = len.div_ceil(BLOCK) as usize;
    data.truncate(blocks);
    data[len as usize..].fill(0);
    data
}

/// Whole blocks around an unaligned request: what stands beside it is read and kept.
pub(crate) async fn merge_partial(
    cx: &Cx,
    target: &Target,
    offset: u64,
    len: u64,
    data: Buf,
    (head, tail): (bool, bool),
) -> Result<Buf, Error> {
    let first = offset / BLOCK;
    let end = (offset + len).div_ceil(BLOCK);
    let mut out = cx.core().config.buffers.zeroed((end - first) as usize);
    let last = end - 1;
    if head {
        let old = read_blocks(cx, target, Lba(first), 1).await?;
        out.block_mut(0).copy_from_slice(old.block(0));
    }
    if tail && (!head || last != first) {
        let old = read_blocks(cx, target, Lba(last), 1).await?;
        let at = (last - first) as usize;
        out.block_mut(at).copy_from_slice(old.block(0));
    }
    let skip = (offset % BLOCK) as usize;
    out[skip..skip + len as usize].copy_from_slice(&data[..len as usize]);
    Ok(out)
}

/// Splits a request into runs of zeros and of data, at leaf ends for the records' sake.
fn split(data: &Buf) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for i in 0..data.block_count() {
        let block = data.block(i);
        let zero = is_zero(block);
        let crc = if zero { 0 } else { checksum::data(block) };
        match pieces.last_mut() {
            Some(piece) if piece.crcs.is_empty() == zero => {
                piece.blocks += 1;
                piece.crcs.extend((!zero).then_some(crc));
            }
            _ => pieces.push(Piece {
                first: i,
                blocks: 1,
                crcs: Vec::from_iter((!zero).then_some(crc)),
            }),
        }
    }
    pieces
}

fn is_zero(block: &[u8; BLOCK_SIZE]) -> bool {
    // Stops at the first word that is not zero: free for real data.
    bytemuck::cast_slice::<u8, u64>(block).iter().all(|&word| word == 0)
}

/// A run of whole blocks of a request.
pub(crate) enum Part {
    /// From this block on, so many blocks of zeros.
    Zeros(Lba, u64),
    /// From this block on, these.
    Data(Lba, Buf),
}

/// Writes whole blocks and sequences them as one group.
pub(crate) async fn write_parts(
    cx: &Cx,
    export: ExportId,
    target: &Target,
    parts: Vec<Part>,
    end: u64,
) -> Result<FrameSeq, Error> {
    let volume = target.volume;
    let mut group = Vec::with_capacity(parts.len());
    let (mut runs, mut need, mut map) = (Vec::new(), 0u64, Need::default());
    for part in parts {
        let (first, data) = match part {
            Part::Zeros(lba, blocks) => {
                map.clear(lba, blocks);
                group.push(Record::MapClear { volume, lba, blocks });
                continue;
            }
            Part::Data(first, data) => (first, Arc::new(data)),
        };
        map.write(first, data.block_count() as u64);
        for piece in split(&data) {
            let lba = Lba(first.0 + piece.first as u64);
            if piece.crcs.is_empty() {
                group.push(Record::MapClear { volume, lba, blocks: piece.blocks as u64 });
            } else {
                need += piece.crcs.len() as u64;
                runs.push((lba, Arc::clone(&data), piece));
            }
        }
    }
    let tier = if need == 0 { Tier::Discard } else { Tier::Data };
    let map = cx.core().pool()?.blocks_for(target.node, map);
    let mut promise = admit(cx, need, map, tier).await?;
    let mut placed = Placement { cx: cx.clone(), runs: Vec::new(), done: false };
    for (lba, data, piece) in &runs {
        let begun = placed.runs.len();
        place(cx, data, piece, &mut placed, &mut promise).await?;
        for run in &placed.runs[begun..] {
            let at = lba.0 + (run.first - piece.first) as u64;
            push_map_sets(&mut group, volume, Lba(at), run);
        }
    }
    let seq = sequence_write(cx, export, &group, end, promise).await?;
    placed.done = true;
    if let Some(pool) = &mut cx.core().pool {
        pool.unflushed_bytes += need * BLOCK;
    }
    Ok(seq)
}

/// Records hold up to 256 blocks.
fn push_map_sets(group: &mut Vec<Record>, volume: VolumeId, lba: Lba, run: &Placed) {
    for (i, crcs) in run.crcs.chunks(256).enumerate() {
        let skip = 256 * i as u64;
        group.push(Record::MapSet {
            volume,
            lba: Lba(lba.0 + skip),
            phys: run.phys.offset(skip),
            crcs: crcs.to_vec(),
        });
    }
}

/// Blocks of a write that is not sequenced yet: given back if it never is.
struct Placement {
    cx: Cx,
    runs: Vec<Placed>,
    done: bool,
}

impl Drop for Placement {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if let Some(pool) = &mut self.cx.core().pool {
            for run in &self.runs {
                pool.alloc.give_back(run.phys, run.crcs.len() as u64);
            }
        }
    }
}

/// Finds room for a piece of data and writes it there; a place that fails is withheld and
/// another one tried.
async fn place(
    cx: &Cx,
    data: &Arc<Buf>,
    piece: &Piece,
    placed: &mut Placement,
    promise: &mut Promise,
) -> Result<(), Error> {
    let stream =
        if piece.blocks >= SEQUENTIAL_BLOCKS { Stream::Sequential } else { Stream::Random };
    let mut todo = vec![(0usize, piece.crcs.len())];
    for attempt in 0..WRITE_TRIES {
        let begun = placed.runs.len();
        for (skip, mut len) in std::mem::take(&mut todo) {
            let mut at = skip;
            while len > 0 {
                let (phys, got) = allocate(cx, stream, len as u32).await?;
                promise.spend(u64::from(got));
                let got = got as usize;
                placed.runs.push(Placed {
                    first: piece.first + at,
                    phys,
                    crcs: piece.crcs[at..at + got].to_vec(),
                });
                at += got;
                len -= got;
            }
        }
        let writes = placed.runs[begun..].iter().map(|run| {
            let slice = BufSlice::new(Arc::clone(data), run.first, run.crcs.len());
            cx.write(run.phys, vec![slice])
        });
        let results = join_all(writes).await;
        let mut error = None;
        for (i, result) in results.into_iter().enumerate().rev() {
            let Err(failure) = result else { continue };
            if matches!(failure.errno, ENOSPC | EDQUOT) {
                // The file system below is full: no fault of the block.
                return Err(Error::NoSpace(SpaceKind::Below));
            }
            let run = placed.runs.remove(begun + i);
            withhold(cx, &run)?;
            let offset = run.phys.byte_offset();
            error = Some(Error::Io { errno: failure.errno, op: "data write", offset });
            todo.push((run.first - piece.first, run.crcs.len()));
        }
        match error {
            None => return Ok(()),
            Some(error) if attempt + 1 == WRITE_TRIES => return Err(error),
            Some(_) => {}
        }
    }
    Ok(())
}

/// The blocks of a run that could not be written are never given out again. Their list has an end
/// (it is part of the checkpoint); a medium that bad takes no more writes.
fn withhold(cx: &Cx, run: &Placed) -> Result<(), Error> {
    let mut core = cx.core();
    let alloc = &mut core.pool()?.alloc;
    if alloc.withheld().count() + run.crcs.len() > MAX_WITHHELD {
        core.poison("too many blocks of the medium cannot be written".into());
        return core.writable().map(|_| ());
    }
    for i in 0..run.crcs.len() as u64 {
        alloc.withhold(run.phys.offset(i)).map_err(|e| Error::Corrupt(e.to_string()))?;
    }
    Ok(())
}

/// The point where a change of a volume, up to byte `end` of it, takes its place in the order of
/// all changes.
pub(crate) async fn sequence_write(
    cx: &Cx,
    export: ExportId,
    group: &[Record],
    end: u64,
    promise: Promise,
) -> Result<FrameSeq, Error> {
    loop {
        {
            let mut core = cx.core();
            // A rollback since: the write would mix into the restored volume. A resize since: it
            // would lie behind the end, and come back when the volume grows.
            let target = core.target(export, true)?;
            check_range(0, end, target.size_bytes)?;
            match core.sequence(group, Reserve::Normal) {
                Ok(seq) => {
                    drop(core);
                    drop(promise);
                    return Ok(seq);
                }
                Err(SequenceError::Refused(error)) => return Err(error),
                Err(SequenceError::RingFull) => core.fold.wanted = true,
            }
        }
        cx.wait(|core| &mut core.fold_wait).await;
    }
}
