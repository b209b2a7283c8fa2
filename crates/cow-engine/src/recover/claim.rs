//! What the records of a replay say of blocks: which are in use, and which have moved.

use super::needs_zone;
use crate::error::Error;
use crate::space::zone_of;
use crate::task::Cx;
use cow_alloc::AllocError;
use cow_format::record::Record;
use cow_format::{FrameSeq, Phys, mutant};
use std::collections::{HashMap, HashSet};

/// The blocks that a record names are in use. `false` for a `Move` that the checkpoint has already:
/// it was sequenced after the freeze, and applied to what was frozen.
pub(super) async fn claim_blocks(cx: &Cx, record: &Record) -> Result<bool, Error> {
    let (phys, blocks) = match record {
        Record::MapSet { phys, crcs, .. } => (*phys, crcs.len() as u64),
        Record::Move { new, crcs, .. } => (*new, crcs.len() as u64),
        _ => return Ok(true),
    };
    {
        let mut core = cx.core();
        let pool = core.pool()?;
        let inside = |p: Phys| pool.sb.geometry.is_data(p, pool.pool_blocks);
        if !(0..blocks).all(|i| inside(phys.offset(i))) {
            return Err(Error::Corrupt(format!("a record names block {phys}, which is no data")));
        }
    }
    // What failed a write, and has moved, is withheld: in use as it is.
    let withheld: Vec<Phys> = cx.core().pool()?.alloc.withheld_in(phys, blocks).collect();
    let mut from = phys;
    for stop in withheld.into_iter().chain([phys.offset(blocks)]) {
        let blocks = stop.0 - from.0;
        if blocks > 0 && !claim_run(cx, from, blocks, matches!(record, Record::Move { .. })).await?
        {
            return Ok(false);
        }
        from = stop.offset(1);
    }
    Ok(true)
}

/// Marks blocks as used; `false` if they are those of a `Move` and the checkpoint has them.
async fn claim_run(cx: &Cx, phys: Phys, blocks: u64, is_move: bool) -> Result<bool, Error> {
    loop {
        let zone = {
            let mut core = cx.core();
            let alloc = &mut core.pool()?.alloc;
            match alloc.mark_used(phys, blocks) {
                Ok(()) => return Ok(true),
                Err(AllocError::InUse(at)) if is_move && alloc.is_in_image(at) => return Ok(false),
                Err(AllocError::NeedZone(zone)) => zone,
                Err(error) => {
                    let zone = zone_of(phys);
                    return Err(Error::Corrupt(format!("block {phys} (zone {zone}): {error}")));
                }
            }
        };
        if !needs_zone(cx, zone).await? {
            // A move that the checkpoint has already finds nothing to change: it may be applied again.
            return Ok(true);
        }
    }
}

/// The `Move` records of a journal that is replayed. No fold may come between a record and the
/// `Move` of a block that it names: a `Move` finds its entry in a layer only.
#[derive(Default)]
pub(super) struct Moves {
    /// Frames of the Moves, by the block that moved.
    of: HashMap<Phys, Vec<FrameSeq>>,
    /// New places that the checkpoint has already.
    folded: HashSet<Phys>,
    pending: HashSet<Phys>,
}

impl Moves {
    pub(super) fn note(&mut self, record: &Record, frame: FrameSeq, is_folded: bool) {
        let Record::Move { old, new, crcs, .. } = record else { return };
        if is_folded {
            self.folded.insert(*new);
        }
        for i in 0..crcs.len() as u64 {
            self.of.entry(old.offset(i)).or_default().push(frame);
        }
    }

    /// Whether the record is to be applied, now that it is its turn.
    pub(super) fn is_due(&mut self, record: &Record, frame: FrameSeq) -> bool {
        match record {
            Record::MapSet { phys, crcs, .. } if !self.of.is_empty() => {
                for block in (0..crcs.len() as u64).map(|i| phys.offset(i)) {
                    let frames = self.of.get(&block);
                    if frames.is_some_and(|frames| frames.iter().any(|&later| later >= frame)) {
                        self.pending.insert(block);
                    }
                }
                true
            }
            Record::Move { old, new, crcs, .. } => {
                for i in 0..crcs.len() as u64 {
                    self.pending.remove(&old.offset(i));
                }
                !self.folded.contains(new) || mutant::is("movetwice")
            }
            _ => true,
        }
    }

    pub(super) fn none_pending(&self) -> bool {
        self.pending.is_empty() || mutant::is("movefolded")
    }
}
