//! Reading the checkpoint, and the quarantine.

use super::{Journal, needs_zone, read_twice, table};
use crate::error::Error;
use crate::task::Cx;
use cow_alloc::{AllocError, Allocator};
use cow_format::checkpoint::{Checkpoint, FLAG_NO_FALLBACK};
use cow_format::record::Record;
use cow_format::superblock::Superblock;
use cow_format::table::CHUNK_ENTRIES;
use cow_format::{Gen, NodeId, Phys, VolumeId};
use cow_snaptree::{Counters, Loading, Tree};

/// A checkpoint, and what was built from it.
pub(super) struct Found {
    pub(super) cp: Checkpoint,
    /// The one before it, while that is a fallback.
    pub(super) previous: Option<Checkpoint>,
    pub(super) tree: Tree,
    pub(super) alloc: Allocator,
}

/// The newest checkpoint, and the one before it while that is a fallback.
pub(super) async fn newest(
    cx: &Cx,
    sb: &Superblock,
) -> Result<(Checkpoint, Option<Checkpoint>), Error> {
    let (mut all, mut refused) = (Vec::new(), Vec::new());
    let mut error = Error::Corrupt("no intact checkpoint in any of the four areas".into());
    for area in 0..4 {
        match read_area(cx, sb, area).await {
            Ok(Some((cp, None))) => all.push(cp),
            Ok(Some((cp, Some(field)))) => refused.push((cp.seq, field)),
            Ok(None) => {}
            // Not damaged: it may be the newest, and nobody here can say what it says.
            Err(cause @ Error::Unsupported(_)) => return Err(cause),
            Err(cause) => error = cause,
        }
    }
    all.sort_by_key(|cp| std::cmp::Reverse(cp.seq));
    let mut candidates = all.into_iter();
    let newest = candidates.next();
    // It was written as it is: going back to one before it would lose what it says, and nobody be told.
    let is_newer = |(seq, _): &&(u64, &str)| newest.as_ref().is_none_or(|cp| *seq > cp.seq);
    if let Some((seq, field)) = refused.iter().find(is_newer) {
        return Err(Error::Corrupt(format!(
            "checkpoint {seq} is the newest, and {field} cannot be; `check --repair` may help"
        )));
    }
    let Some(newest) = newest else { return Err(error) };
    let previous = candidates
        .next()
        .filter(|p| p.seq + 1 == newest.seq && newest.flags & FLAG_NO_FALLBACK == 0);
    match previous {
        Some(previous) if reaches(cx, &previous, &newest, sb).await => Ok((newest, Some(previous))),
        _ => Ok((newest, None)),
    }
}

/// A checkpoint, and what of it cannot be, if anything.
type Read = (Checkpoint, Option<&'static str>);

/// The checkpoint in an area; `None` where there is none, or a torn one.
async fn read_area(cx: &Cx, sb: &Superblock, area: usize) -> Result<Option<Read>, Error> {
    let at = Phys(sb.geometry.cp_start[area]);
    let tag = sb.pool_tag();
    for attempt in 0..2 {
        let head = read_twice(cx, at, 1, attempt > 0, "read of a checkpoint").await?;
        let blocks = match Checkpoint::decode_len(&head, tag, at) {
            Ok(blocks) => blocks,
            Err(cause) if cause.is_unknown() => return Err(cause.into()),
            Err(_) => continue,
        };
        if blocks > sb.geometry.cp_blocks {
            continue;
        }
        let whole =
            read_twice(cx, at, blocks as usize, attempt > 0, "read of a checkpoint").await?;
        match Checkpoint::decode(&whole, tag, at) {
            Ok(cp) if Checkpoint::area(cp.seq) == area => {
                let wrong = cp.validate(&sb.geometry).err();
                return Ok(Some((cp, wrong)));
            }
            Err(cause) if cause.is_unknown() => return Err(cause.into()),
            _ => {}
        }
    }
    Ok(None)
}

/// Reads the node table of `cp`.
pub(super) async fn build(
    cx: &Cx,
    sb: &Superblock,
    cp: Checkpoint,
    previous: Option<Checkpoint>,
) -> Result<Found, Error> {
    let device_blocks = cx.core().config.device_blocks;
    if cp.pool_blocks > device_blocks {
        return Err(Error::Corrupt(format!(
            "the pool has {} blocks, the file or device below only {device_blocks}: it was cut",
            cp.pool_blocks
        )));
    }
    let counters = Counters {
        last_gen: Gen(cp.last_gen),
        last_node: NodeId(cp.last_node),
        last_volume: VolumeId(cp.last_volume),
        last_group: cp.last_group,
    };
    let mut loading = Loading::new(counters, table::used_slots(&cp));
    table::read(cx, sb, &cp, &mut loading).await?;
    let mut tree = loading.finish()?;
    for line in &cp.detached {
        if tree.node(line.node).is_some_and(|node| line.slot.birth > node.entry.label_gen) {
            let (seq, node) = (cp.seq, line.node);
            let text = format!("checkpoint {seq}: a detached subtree is younger than node {node}");
            return Err(Error::Corrupt(text));
        }
    }
    tree.set_detached(cp.detached.iter().map(|line| line.node).collect());
    tree.set_total_slots(cp.chunks.len() as u32 * CHUNK_ENTRIES);
    let tag = sb.pool_tag();
    let mut alloc =
        Allocator::new(sb.geometry.clone(), cp.pool_blocks, tag, cp.seq, cp.zones.clone());
    alloc.set_cell(cx.core().config.cell_blocks);
    Ok(Found { cp, previous, tree, alloc })
}

fn journal_of(previous: &Checkpoint, journal: &Journal) -> Journal {
    Journal { tail: previous.tail, fences: journal.fences.clone(), ..*journal }
}

/// Whether the journal still leads from the tail of `previous` to the one of `cp`. It does not
/// where `cp` is not the newest that was ever published: then `previous` was let go.
async fn reaches(cx: &Cx, previous: &Checkpoint, cp: &Checkpoint, sb: &Superblock) -> bool {
    let journal = Journal::from(sb, previous.tail);
    let mut reader = journal.reader(cx);
    let mut at = previous.tail;
    while at.seq < cp.tail.seq {
        match reader.next().await {
            Ok(Some((_, after))) => at = after,
            _ => return false,
        }
    }
    at == cp.tail
}

/// Blocks that the fallback needs and the newest checkpoint has freed are not given out: those
/// of its image, and those that the frames between the two tails name (a block that was written
/// and overwritten between them is in neither image, yet a fallback would replay it).
pub(super) async fn quarantine(
    cx: &Cx,
    previous: &Checkpoint,
    journal: &Journal,
) -> Result<(), Error> {
    let pages = cx.core().pool()?.alloc.pages_to_diff(previous);
    for (zone, home) in pages {
        let Ok(page) = read_twice(cx, home, 1, false, "read of a bitmap page").await else {
            continue;
        };
        needs_zone(cx, zone).await?;
        // A page that was overwritten since: the one before is no fallback any more.
        let _ = cx.core().pool()?.alloc.quarantine_diff(zone, previous, &page);
    }
    let mut reader = journal_of(previous, journal).reader(cx);
    while let Some((frame, after)) = reader.next().await? {
        let Some(frame) = frame.filter(|frame| frame.seq < journal.tail.seq) else {
            if after.seq > journal.tail.seq {
                break;
            }
            continue;
        };
        for record in cow_journal::records_of(&frame).unwrap_or_default() {
            let (phys, blocks) = match record {
                Record::MapSet { phys, crcs, .. } => (phys, crcs.len() as u64),
                Record::Move { new, crcs, .. } => (new, crcs.len() as u64),
                _ => continue,
            };
            quarantine_run(cx, phys, blocks).await?;
        }
        if after.seq >= journal.tail.seq {
            break;
        }
    }
    let mut core = cx.core();
    let cp_seq = core.pool()?.cp.seq;
    core.fold.batches.push_back((cp_seq, 0));
    Ok(())
}

async fn quarantine_run(cx: &Cx, phys: Phys, blocks: u64) -> Result<(), Error> {
    loop {
        let result = cx.core().pool()?.alloc.quarantine_run(phys, blocks);
        match result {
            Err(AllocError::NeedZone(zone)) => drop(needs_zone(cx, zone).await?),
            // A record that cannot be keeps nothing from being given out.
            _ => return Ok(()),
        }
    }
}
