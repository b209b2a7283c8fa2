//! Writing: own the bytes, checksum them, find a place, write, sequence, acknowledge.
//!
//! In `writeback` the record is sequenced when the write is accepted, and acknowledged with that;
//! its data is handed to the device in the same moment. In `writethrough` and `journaled` it is
//! sequenced when the data write is complete. [`sequence_write`] is the one point where it is.

use crate::admit::{Ask, Promise, admit_for};
use crate::api::{AckMode, ExportId, Reply};
use crate::core::{OpResult, SequenceError};
use crate::error::{Error, SpaceKind};
use crate::export::{Target, check_range};
use crate::flush::{flush, flush_to, written_to};
use crate::locks::lock_range;
use crate::place::{Placed, Placement, ToPlace, place};
use crate::read::read_blocks;
use crate::reserve::Need;
use crate::space::Tier;
use crate::task::Cx;
use cow_format::record::Record;
use cow_format::{BLOCK_SIZE, Buf, FrameSeq, Lba, Phys, VolumeId, checksum, mutant};
use cow_journal::Reserve;
use std::sync::Arc;

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Longest write in one request.
pub(crate) const MAX_WRITE: u64 = 64 << 20;

/// A run of blocks of a request: zeros, or data with a checksum each.
struct Piece {
    /// First block, from the front of the request.
    first: usize,
    blocks: usize,
    /// Empty for zeros.
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
        return nothing_done(cx, fua).await;
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

/// The answer to a request that changed nothing. Who asked for FUA may count on what was
/// acknowledged before, as after any other request.
pub(crate) async fn nothing_done(cx: &Cx, fua: bool) -> OpResult {
    if fua {
        flush(cx).await?;
    }
    Ok(Reply::Done)
}

/// Waits for what the acknowledgement of a sequenced change needs.
pub(crate) async fn acknowledge(cx: &Cx, seq: FrameSeq, fua: bool) -> Result<(), Error> {
    if fua && !mutant::is("fualost") {
        return flush_to(cx, seq).await;
    }
    let ack = cx.core().config.ack;
    match ack {
        AckMode::Writeback | AckMode::Writethrough => Ok(()),
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

/// The checksums of all blocks, if none of them is zeros.
pub(crate) fn checked(data: &Buf) -> Option<Vec<u32>> {
    let mut crcs = Vec::with_capacity(data.block_count());
    for i in 0..data.block_count() {
        let block = data.block(i);
        if is_zero(block) {
            return None;
        }
        crcs.push(checksum::data(block));
    }
    Some(crcs)
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
    let (mut runs, mut places, mut map) = (Vec::new(), Vec::new(), Need::default());
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
        for Piece { first: skip, blocks, crcs } in split(&data) {
            let lba = Lba(first.0 + skip as u64);
            if crcs.is_empty() {
                group.push(Record::MapClear { volume, lba, blocks: blocks as u64 });
            } else {
                places.push((lba, crcs.len() as u64));
                runs.push(ToPlace { data: Arc::clone(&data), first: skip, lba, crcs });
            }
        }
    }
    if mutant::is("firstcopy") && !cx.core().pool()?.has_layer(target.node) {
        for (lba, blocks) in &places {
            read_blocks(cx, target, *lba, *blocks as usize).await?;
        }
    }
    if mutant::is("firstfold") && !cx.core().pool()?.has_layer(target.node) {
        crate::fold::fold_now(cx).await?;
    }
    let tier = if places.is_empty() { Tier::Discard } else { Tier::Data };
    let blocks: u64 = places.iter().map(|(_, blocks)| blocks).sum();
    let map = {
        let mut core = cx.core();
        let pool = core.pool()?;
        if pool.inflight.stalled > 0 && blocks > 0 {
            return Err(Error::NoSpace(SpaceKind::Below));
        }
        pool.blocks_for(target.node, map)
    };
    let mut promise = admit_for(cx, &Ask { volume, tier, runs: &places, map }).await?;
    let mut placed = Placement::new(cx, cx.core().lands_first(blocks, (0, 0)));
    for run in runs {
        let begun = placed.runs.len();
        place(cx, run, &mut placed, &mut promise).await?;
        placed.runs[begun..].iter().for_each(|run| push_map_sets(&mut group, volume, run));
    }
    let seq = sequence_write(cx, export, &group, end, promise, placed).await?;
    if let Some(pool) = &mut cx.core().pool {
        pool.unflushed_bytes += BLOCK * blocks;
    }
    Ok(seq)
}

/// Records hold up to so many blocks.
const RECORD_BLOCKS: usize = 256;

fn push_map_sets(group: &mut Vec<Record>, volume: VolumeId, run: &Placed) {
    push_run(group, volume, (run.lba, run.phys), &run.crcs);
}

fn push_run(group: &mut Vec<Record>, volume: VolumeId, (lba, phys): (Lba, Phys), crcs: &[u32]) {
    for (i, crcs) in crcs.chunks(RECORD_BLOCKS).enumerate() {
        let skip = (RECORD_BLOCKS * i) as u64;
        let (lba, phys) = (Lba(lba.0 + skip), phys.offset(skip));
        group.push(Record::MapSet { volume, lba, phys, crcs: crcs.to_vec() });
    }
}

/// The records of a write to `lba` on, at these places.
pub(crate) fn map_sets(
    volume: VolumeId,
    lba: Lba,
    places: &[(Phys, u64)],
    crcs: Vec<u32>,
) -> Vec<Record> {
    if let &[(phys, _)] = places
        && crcs.len() <= RECORD_BLOCKS
    {
        return vec![Record::MapSet { volume, lba, phys, crcs }];
    }
    let (mut group, mut rest, mut lba) = (Vec::new(), &crcs[..], lba);
    for &(phys, blocks) in places {
        let (these, others) = rest.split_at(rest.len().min(blocks as usize));
        push_run(&mut group, volume, (lba, phys), these);
        (rest, lba) = (others, Lba(lba.0 + blocks));
    }
    group
}

/// The point where a change of a volume, up to byte `end` of it, takes its place in the order of
/// all changes. Data that is not written yet is handed to the device in the same moment.
pub(crate) async fn sequence_write(
    cx: &Cx,
    export: ExportId,
    group: &[Record],
    end: u64,
    mut promise: Promise,
    mut placed: Placement,
) -> Result<FrameSeq, Error> {
    loop {
        let waits_for_data = {
            let mut core = cx.core();
            if mutant::is("latefence") {
                core.unfence(export);
            }
            // A rollback since: the write would mix into the restored volume. A resize since: it
            // would lie behind the end, and come back when the volume grows.
            let target = core.target(export, true)?;
            check_range(0, end, target.size_bytes)?;
            promise.fits(&mut core, target.node)?;
            let dirty = core.config.dirty_bytes;
            let pool = core.pool()?;
            if placed.is_to_fly() && !pool.inflight.is_empty() && pool.inflight.bytes() >= dirty {
                true
            } else {
                let first = pool.journal.next().seq;
                match core.sequence(group, Reserve::Normal) {
                    Ok(seq) => {
                        placed.keep(&mut core, target.node, first);
                        core.pool()?.shares.note_replaced(target.volume, promise.replaced());
                        return Ok(seq);
                    }
                    Err(SequenceError::Refused(error)) => return Err(error),
                    Err(SequenceError::RingFull) => core.fold.wanted = true,
                }
                false
            }
        };
        if waits_for_data {
            cx.wait(|core| &mut core.landing_wait).await;
        } else {
            cx.wait(|core| &mut core.fold_wait).await;
        }
    }
}
