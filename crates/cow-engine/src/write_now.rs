//! Writes that can be accepted at once: most of them, in `writeback`. Whole blocks, none of them zeros,
//! with room for them and nothing to wait for. They take the same steps in the same order as any
//! other write (`write.rs`), but in one piece: no task is made, and nothing is promised that is
//! taken back a moment later. What is not so simple leaves no trace here and goes the long way.

use crate::admit::Ask;
use crate::api::{AckMode, Action, ExportId, Op, OpId, Reply};
use crate::core::{Core, SequenceError};
use crate::export::Target;
use crate::inflight::Run;
use crate::place::stream_of;
use crate::reserve::Need;
use crate::space::Tier;
use crate::write::{MAX_WRITE, checked, map_sets};
use cow_format::{BLOCK_SIZE, Buf, BufSlice, Lba, Phys, mutant};
use cow_journal::Reserve;
use std::sync::Arc;

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Faults that are planted in steps which only the long way has.
const ELSEWHERE: [&str; 5] = ["firstcopy", "firstfold", "noturn", "latefence", "latebytes"];

/// Does a write at once and answers it, or gives it back.
pub(crate) fn write_now(core: &mut Core, id: OpId, op: Op) -> Option<Op> {
    let Op::Write { export, offset, len, data, fua: false } = op else { return Some(op) };
    match core.try_write(export, offset, len, data) {
        Ok(()) => {
            core.stats.writes += 1;
            core.stats.write_bytes += len;
            core.io.out.push(Action::Reply { id, result: Ok(Reply::Done) });
            None
        }
        Err(data) => Some(Op::Write { export, offset, len, data, fua: false }),
    }
}

impl Core {
    /// Whether there is nothing that a write may have to wait for, whatever it writes.
    fn is_plain(&self) -> bool {
        let open = self.serving && !self.closing && self.config.ack == AckMode::Writeback;
        let nobody = self.locks.exclusive == 0 || mutant::is("nowblind");
        open && nobody && !ELSEWHERE.iter().any(|name| mutant::is(name))
    }

    fn try_write(
        &mut self,
        export: ExportId,
        offset: u64,
        len: u64,
        mut data: Buf,
    ) -> Result<(), Buf> {
        let blocks = len / BLOCK;
        let whole = len > 0 && offset.is_multiple_of(BLOCK) && len.is_multiple_of(BLOCK);
        let inside = len <= data.len() as u64 && len <= MAX_WRITE;
        let Ok(target) = self.target(export, true) else { return Err(data) };
        let end = offset.checked_add(len).filter(|&end| end <= target.size_bytes);
        if !self.is_plain() || !whole || !inside || end.is_none() {
            return Err(data);
        }
        let lba = Lba(offset / BLOCK);
        if !self.admits_now(&target, lba, blocks) {
            return Err(data);
        }
        // The checksums last, and only once: a block of zeros is a hole.
        let Some(places) = self.places_now(blocks) else { return Err(data) };
        data.truncate(blocks as usize);
        let Some(crcs) = checked(&data) else {
            self.give_places_back(&places);
            return Err(data);
        };
        let data = Arc::new(data);
        let Some(pool) = &self.pool else { return Err(Buf::default()) };
        let first = pool.journal.next().seq;
        let group = map_sets(target.volume, lba, &places, crcs);
        match self.sequence(&group, Reserve::Normal) {
            Ok(_) => {}
            Err(error) => {
                self.fold.wanted |= matches!(error, SequenceError::RingFull);
                self.give_places_back(&places);
                return Err(Arc::try_unwrap(data).unwrap_or_default());
            }
        }
        let mut skip = 0;
        for (phys, count) in places {
            let slice = BufSlice::new(Arc::clone(&data), skip, count as usize);
            let at = Lba(lba.0 + skip as u64);
            self.launch(phys, Run { data: slice, node: target.node, lba: at, frame: first });
            skip += count as usize;
        }
        if let Some(pool) = &mut self.pool {
            pool.unflushed_bytes += len;
        }
        Ok(())
    }

    /// Whether there is room for a write, and it has neither to stand in a queue for that nor to land
    /// before it is sequenced.
    fn admits_now(&mut self, target: &Target, lba: Lba, blocks: u64) -> bool {
        if mutant::is("nowroom") {
            return true;
        }
        let Some(pool) = &self.pool else { return false };
        if pool.inflight.stalled > 0 || pool.inflight.bytes() >= self.config.dirty_bytes {
            return false;
        }
        let mut need = Need::default();
        need.write(lba, blocks);
        let map = pool.blocks_for(target.node, need);
        if pool.shares.guarantee(target.volume).is_none() && !self.space_queue.is_next(None) {
            return false;
        }
        let runs = [(lba, blocks)];
        let ask = Ask { volume: target.volume, tier: Tier::Data, runs: &runs, map };
        self.room_for(&ask, 0).is_ok() && !self.lands_first(blocks, (blocks, map))
    }

    /// Places for so many blocks, if all can be had without a wait.
    fn places_now(&mut self, blocks: u64) -> Option<Places> {
        let stream = stream_of(blocks as usize);
        let mut places = Places::new();
        let mut left = blocks;
        while left > 0 {
            let pool = self.pool.as_mut()?;
            let Ok((phys, got)) = pool.alloc.alloc(stream, left as u32) else {
                self.give_places_back(&places);
                return None;
            };
            places.push((phys, u64::from(got)));
            if !self.has_homes(phys) && !mutant::is("nowhomeless") {
                self.give_places_back(&places);
                return None;
            }
            left -= u64::from(got);
        }
        Some(places)
    }

    fn give_places_back(&mut self, places: &[(Phys, u64)]) {
        if let Some(pool) = &mut self.pool {
            for &(phys, blocks) in places {
                pool.alloc.give_back(phys, blocks);
            }
        }
    }
}

/// Runs of blocks of the pool.
type Places = Vec<(Phys, u64)>;
