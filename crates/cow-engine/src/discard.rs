//! Zeros without data, and hints that a range is not needed any more.
//!
//! Both make holes, which needs no data block, but map nodes: a leaf of which a part is cleared is
//! written anew. So both are admitted, up to three quarters of the slop. When that is used up they
//! still work on leaves that the head owns (`owned.rs`): each block that they take comes back. On
//! leaves that a snapshot has too a hint is then ignored, and WRITE_ZEROES is refused. Design
//! section 7, Discard.

use crate::admit::{Ask, admit, admit_for};
use crate::api::{ExportId, Reply};
use crate::core::{OpResult, SequenceError};
use crate::error::{Error, SpaceKind};
use crate::export::check_range;
use crate::fold::fold_now;
use crate::locks::lock_range;
use crate::owned::owned;
use crate::place::Placement;
use crate::reserve::Need;
use crate::space::Tier;
use crate::task::Cx;
use crate::write::{
    Part, acknowledge, merge_partial, nothing_done, sequence_write, write, write_parts,
};
use cow_format::record::Record;
use cow_format::{BLOCK_SIZE, Buf, FrameSeq, Lba, NodeId};
use cow_journal::Reserve;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// Whole blocks of a request that are to become holes.
#[derive(Clone, Copy)]
struct Range {
    export: ExportId,
    first: u64,
    end: u64,
    /// Where the request ends, in bytes of the volume.
    end_bytes: u64,
}

/// Zeros without data: whole blocks become holes, partial ones at the ends are written; all of it
/// is one group.
pub(crate) async fn write_zeroes(
    cx: &Cx,
    export: ExportId,
    offset: u64,
    len: u64,
    fua: bool,
) -> OpResult {
    let target = cx.core().target(export, true)?;
    check_range(offset, len, target.size_bytes)?;
    let end = offset + len;
    let (start, stop) = whole_blocks(offset, end, target.size_bytes);
    if len == 0 {
        return nothing_done(cx, fua).await;
    }
    if start >= stop {
        // One or two partial blocks and nothing between them.
        let data = Buf::zeroed(len.div_ceil(BLOCK) as usize);
        return write(cx, export, offset, len, data, fua).await;
    }
    let edges = [(offset, start * BLOCK), (stop * BLOCK, end)];
    let exclusive = edges.iter().any(|(from, to)| from < to);
    let (first, last) = (offset / BLOCK, end.div_ceil(BLOCK));
    let _turn = lock_range(cx, target.volume, first, last, exclusive).await;
    let target = cx.core().target(export, true)?;
    check_range(offset, len, target.size_bytes)?;
    let mut parts = vec![Part::Zeros(Lba(start), stop - start)];
    for (from, to) in edges.into_iter().filter(|(from, to)| from < to) {
        let sides = (!from.is_multiple_of(BLOCK), !to.is_multiple_of(BLOCK));
        let data = merge_partial(cx, &target, from, to - from, Buf::zeroed(1), sides).await?;
        parts.push(Part::Data(Lba(from / BLOCK), data));
    }
    let seq = match write_parts(cx, export, &target, parts, end).await {
        Err(Error::NoSpace(SpaceKind::Pool)) if !exclusive => {
            let range = Range { export, first: start, end: stop, end_bytes: end };
            clear_if_owned(cx, range).await?
        }
        result => result?,
    };
    acknowledge(cx, seq, fua).await?;
    Ok(Reply::Done)
}

/// A hint that the range is not needed: only whole blocks are let go.
pub(crate) async fn discard(
    cx: &Cx,
    export: ExportId,
    offset: u64,
    len: u64,
    fua: bool,
) -> OpResult {
    let target = cx.core().target(export, true)?;
    check_range(offset, len, target.size_bytes)?;
    let end_bytes = offset + len;
    let (first, end) = whole_blocks(offset, end_bytes, target.size_bytes);
    if first < end {
        let _turn = lock_range(cx, target.volume, first, end, false).await;
        let range = Range { export, first, end, end_bytes };
        let cleared = match clear(cx, range).await {
            Err(Error::NoSpace(SpaceKind::Pool)) => clear_owned(cx, range).await,
            result => result.map(Some),
        };
        match cleared {
            Ok(Some(seq)) => {
                acknowledge(cx, seq, fua).await?;
                return Ok(Reply::Done);
            }
            // A hint may be ignored, and must not fail, when there is no room to note it.
            Ok(None) | Err(Error::NoSpace(_)) => {}
            Err(error) => return Err(error),
        }
    }
    nothing_done(cx, fua).await
}

/// The whole blocks inside `[offset, end)`; the last block of a volume is whole at its end.
fn whole_blocks(offset: u64, end: u64, size_bytes: u64) -> (u64, u64) {
    let last = if end == size_bytes { end.div_ceil(BLOCK) } else { end / BLOCK };
    (offset.div_ceil(BLOCK), last)
}

async fn clear(cx: &Cx, range: Range) -> Result<FrameSeq, Error> {
    let Range { export, first, end, end_bytes } = range;
    let target = cx.core().target(export, true)?;
    let mut need = Need::default();
    need.clear(Lba(first), end - first);
    let map = cx.core().pool()?.blocks_for(target.node, need);
    let promise =
        admit_for(cx, &Ask { volume: target.volume, tier: Tier::Discard, runs: &[], map }).await?;
    let group = [Record::MapClear { volume: target.volume, lba: Lba(first), blocks: end - first }];
    sequence_write(cx, export, &group, end_bytes, promise, Placement::new(cx, true)).await
}

/// Clears what is the head's own; the last frame, if there was anything. As a hint it need not be
/// one group.
async fn clear_owned(cx: &Cx, range: Range) -> Result<Option<FrameSeq>, Error> {
    // What was written lately is the head's own once it is folded.
    fold_now(cx).await?;
    let (mut at, mut last) = (range.first, None);
    while at < range.end {
        let head = cx.core().target(range.export, true)?.node;
        let found = owned(cx, head, at, range.end).await?;
        for (first, end) in found.runs {
            match clear_of(cx, Range { first, end, ..range }, head).await? {
                Some(seq) => last = Some(seq),
                // A snapshot came first: nothing is the new head's own.
                None => return Ok(last),
            }
        }
        at = found.until;
    }
    Ok(last)
}

/// Clears all of the range as one group if what is in it is the head's own.
async fn clear_if_owned(cx: &Cx, range: Range) -> Result<FrameSeq, Error> {
    fold_now(cx).await?;
    let head = cx.core().target(range.export, true)?.node;
    let mut at = range.first;
    while at < range.end {
        let found = owned(cx, head, at, range.end).await?;
        if found.shared {
            return Err(Error::NoSpace(SpaceKind::Pool));
        }
        at = found.until;
    }
    clear_of(cx, range, head).await?.ok_or(Error::NoSpace(SpaceKind::Pool))
}

/// Clears a range of what `head` owns; `None`, and nothing was done, if that is not the head any
/// more when its turn comes.
async fn clear_of(cx: &Cx, range: Range, head: NodeId) -> Result<Option<FrameSeq>, Error> {
    let Range { export, first, end, end_bytes } = range;
    let mut need = Need::default();
    need.clear(Lba(first), end - first);
    let map = cx.core().pool()?.blocks_for(head, need);
    let _promise = admit(cx, 0, map, Tier::Reclaim).await?;
    loop {
        {
            let mut core = cx.core();
            let target = core.target(export, true)?;
            check_range(0, end_bytes, target.size_bytes)?;
            if target.node != head {
                return Ok(None);
            }
            let (volume, blocks) = (target.volume, end - first);
            let group = [Record::MapClear { volume, lba: Lba(first), blocks }];
            match core.sequence(&group, Reserve::Normal) {
                Ok(seq) => return Ok(Some(seq)),
                Err(SequenceError::Refused(error)) => return Err(error),
                Err(SequenceError::RingFull) => core.fold.wanted = true,
            }
        }
        cx.wait(|core| &mut core.fold_wait).await;
    }
}
