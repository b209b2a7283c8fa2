//! Data that is sequenced while its write to the device is under way ([`AckMode::Writeback`]).
//!
//! Reads of such blocks are answered from here: the device may still hold what was there before.
//! Until its data has landed, or a `Move` that names another place for it is written, no frame
//! that names it counts as complete, and no fold merges it. So none of these blocks is given out
//! again, and a slow write cannot fall on a block of somebody else's.
//!
//! [`AckMode::Writeback`]: crate::AckMode::Writeback

use cow_format::{BLOCK_SIZE, BufSlice, FrameSeq, Lba, NodeId, Phys, mutant};
use std::collections::BTreeMap;

/// A run of blocks on its way to the device.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) data: BufSlice,
    /// The node whose layer got it, and where in that.
    pub(crate) node: NodeId,
    pub(crate) lba: Lba,
    /// No earlier frame names it.
    pub(crate) frame: FrameSeq,
}

/// See the module.
#[derive(Default)]
pub(crate) struct InFlight {
    /// By first block.
    runs: BTreeMap<Phys, Run>,
    /// How many runs frames name, by the run's `frame`.
    frames: BTreeMap<FrameSeq, usize>,
    blocks: u64,
    /// For data that has moved: the frame that names its first place, and that of the `Move`.
    moves: Vec<(FrameSeq, FrameSeq)>,
    /// Where data has moved to, and after how many publications: for a reader that had looked up
    /// the first place.
    moved: BTreeMap<Phys, (Phys, u64)>,
    /// Runs that wait for room in the file system below.
    pub(crate) stalled: usize,
}

impl InFlight {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes of all runs.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks * BLOCK_SIZE as u64
    }

    /// Blocks of all runs.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    pub(crate) fn insert(&mut self, at: Phys, run: Run) {
        *self.frames.entry(run.frame).or_default() += 1;
        self.blocks += run.data.block_count() as u64;
        let before = self.runs.insert(at, run);
        debug_assert!(before.is_none(), "a block was given out while it was written");
    }

    /// The run that begins at `at`.
    pub(crate) fn run(&self, at: Phys) -> Option<&Run> {
        self.runs.get(&at)
    }

    /// The run at `at` has landed, or moved. Whether more frames may be complete now.
    pub(crate) fn remove(&mut self, at: Phys) -> bool {
        let Some(run) = self.runs.remove(&at) else { return false };
        self.blocks -= run.data.block_count() as u64;
        let Some(left) = self.frames.get_mut(&run.frame) else { return false };
        *left -= 1;
        if *left > 0 {
            return false;
        }
        self.frames.remove(&run.frame);
        self.frames.first_key_value().is_none_or(|(&first, _)| first > run.frame)
    }

    /// The bytes of a block whose write is under way.
    pub(crate) fn block(&self, phys: Phys) -> Option<&[u8]> {
        let (at, run) = self.runs.range(..=phys).next_back()?;
        let skip = (phys.0 - at.0) as usize * BLOCK_SIZE;
        run.data.get(skip..skip + BLOCK_SIZE)
    }

    /// Whether data is under way that frames up to `upto` name.
    pub(crate) fn concerns(&self, upto: FrameSeq) -> bool {
        self.frames.first_key_value().is_some_and(|(&first, _)| first <= upto)
    }

    /// Of the frames up to `written`, all of which are on the device: up to which of them the data
    /// is too. The frame of a `Move` belongs to the frame that named the data first: without the
    /// one, recovery would take the other for damaged.
    pub(crate) fn complete(&self, written: FrameSeq) -> FrameSeq {
        let before = |frame: FrameSeq| FrameSeq(frame.0.saturating_sub(1));
        let mut upto = written;
        if let Some((&first, _)) = self.frames.first_key_value()
            && !mutant::is("flushblind")
        {
            upto = upto.min(before(first));
        }
        if mutant::is("moveapart") {
            return upto;
        }
        while let Some(&(first, _)) =
            self.moves.iter().find(|&&(first, last)| first <= upto && upto < last)
        {
            upto = before(first);
        }
        upto
    }

    /// A block of data that `first` names has moved, which `last` tells.
    pub(crate) fn note_move(
        &mut self,
        (old, new): (Phys, Phys),
        (first, last): (FrameSeq, FrameSeq),
        publication: u64,
    ) {
        if self.moves.last() != Some(&(first, last)) {
            self.moves.push((first, last));
        }
        self.moved.insert(old, (new, publication));
    }

    /// Where the block has moved to.
    pub(crate) fn moved_to(&self, old: Phys) -> Option<Phys> {
        self.moved.get(&old).map(|&(new, _)| new)
    }

    /// The last frame that `seq` is complete with, as far as data has moved.
    pub(crate) fn last_move(&self, seq: FrameSeq) -> FrameSeq {
        self.moves.iter().map(|&(_, last)| last).fold(seq, FrameSeq::max)
    }

    /// Frames up to `durable` are.
    pub(crate) fn note_durable(&mut self, durable: FrameSeq) {
        self.moves.retain(|&(_, last)| last > durable);
    }

    /// Nobody reads who began before the publication `oldest`.
    pub(crate) fn forget_moved(&mut self, oldest: u64) {
        self.moved.retain(|_, &mut (_, publication)| publication >= oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cow_format::Buf;

    fn run(frame: u64, blocks: usize) -> Run {
        let data = BufSlice::whole(Buf::zeroed(blocks));
        Run { data, node: NodeId(1), lba: Lba(7), frame: FrameSeq(frame) }
    }

    #[test]
    fn a_frame_is_complete_with_the_last_of_its_data() {
        let mut table = InFlight::default();
        table.insert(Phys(10), run(4, 2));
        table.insert(Phys(20), run(4, 1));
        table.insert(Phys(30), run(6, 1));
        assert_eq!((table.blocks(), table.complete(FrameSeq(9))), (4, FrameSeq(3)));
        assert!(table.block(Phys(11)).is_some() && table.block(Phys(12)).is_none());
        assert!(table.block(Phys(9)).is_none());
        assert!(!table.remove(Phys(20)), "frame 4 has more");
        assert!(table.concerns(FrameSeq(4)) && !table.concerns(FrameSeq(3)));
        assert!(table.remove(Phys(10)));
        assert_eq!(table.complete(FrameSeq(9)), FrameSeq(5));
        assert_eq!(table.complete(FrameSeq(2)), FrameSeq(2), "no more than is written");
        assert!(table.remove(Phys(30)) && table.is_empty());
    }

    #[test]
    fn a_frame_whose_data_has_moved_is_complete_with_the_frame_that_says_so() {
        let mut table = InFlight::default();
        table.note_move((Phys(1), Phys(2)), (FrameSeq(4), FrameSeq(8)), 0);
        table.note_move((Phys(3), Phys(5)), (FrameSeq(2), FrameSeq(5)), 0);
        let complete = |table: &InFlight, written| table.complete(FrameSeq(written)).0;
        assert_eq!((complete(&table, 3), complete(&table, 4)), (1, 1));
        assert_eq!((complete(&table, 7), complete(&table, 8)), (1, 8));
        // Data that frame 7 names holds frame 8 back, and with it frame 4.
        table.insert(Phys(30), run(7, 1));
        assert_eq!(complete(&table, 9), 1);
        table.note_durable(FrameSeq(8));
        assert_eq!(complete(&table, 6), 6);
        assert_eq!(table.moved_to(Phys(3)), Some(Phys(5)));
    }
}
