//! A pool in memory: the allocator, what was written, and the oracle.

use super::*;
use crate::{Stream, decode_page};
use cow_format::checkpoint::Checkpoint;

const RESERVED: u8 = 1;
const IMAGE: u8 = 2;
const UNFOLDED: u8 = 4;
const WITHHELD: u8 = 8;
/// In place of a batch: left the quarantine, and is not free yet.
const LEAVING: u64 = u64::MAX;

/// A checkpoint being written.
pub struct Fold {
    /// Size of the pool in the state that it describes.
    pool_blocks: u64,
    /// Zones to stage with their adds and frees.
    pub todo: Vec<(u64, Vec<Phys>, Vec<Phys>)>,
    adds: Vec<Phys>,
    frees: Vec<Phys>,
}

pub struct World {
    pub alloc: Allocator,
    pub geometry: Geometry,
    pub disk: Disk,
    pub pool_blocks: u64,
    flags: Vec<u8>,
    /// The batch that a block is in; 0 for none.
    batch: Vec<u64>,
    /// Allocated, and not in the fold.
    pub unfolded: Vec<Phys>,
    pub fold: Option<Fold>,
    cp: Checkpoint,
    previous: Option<Checkpoint>,
    previous_image: Vec<bool>,
    /// Runs that are being discarded.
    discards: Vec<(Phys, u64)>,
}

impl World {
    pub fn new(blocks: u64, limit: u64, max_resident: usize) -> Self {
        let geometry = layout(blocks, limit);
        let mut alloc = fresh(&geometry, blocks);
        alloc.set_max_resident(max_resident);
        let zones = alloc.descs().to_vec();
        let len = limit.next_multiple_of(ZONE_BLOCKS) as usize;
        let cp = Checkpoint { seq: 1, pool_blocks: blocks, zones, ..Checkpoint::default() };
        let mut world = Self {
            alloc,
            geometry,
            disk: Disk::new(),
            pool_blocks: blocks,
            flags: vec![0; len],
            batch: vec![0; len],
            unfolded: Vec::new(),
            fold: None,
            cp,
            previous: None,
            previous_image: vec![false; len],
            discards: Vec::new(),
        };
        world.mark_reserved();
        world
    }

    fn mark_reserved(&mut self) {
        for block in 0..self.flags.len() {
            let data = self.geometry.is_data(Phys(block as u64), self.pool_blocks);
            self.flags[block] &= !RESERVED;
            self.flags[block] |= if data { 0 } else { RESERVED };
        }
    }

    fn is_free(&self, block: usize) -> bool {
        self.flags[block] == 0 && self.batch[block] == 0
    }

    pub fn free(&self) -> u64 {
        (0..self.flags.len()).filter(|block| self.is_free(*block)).count() as u64
    }

    /// Counts are exact, and what is resident agrees bit by bit.
    pub fn check(&self) {
        assert_eq!(self.alloc.free_blocks(), self.free());
        let pending = self.batch.iter().filter(|batch| **batch != 0).count() as u64;
        assert_eq!(self.alloc.pending_blocks(), pending);
        for zone in (0..self.alloc.zone_count()).filter(|zone| self.alloc.is_resident(*zone)) {
            let resident = self.alloc.zones[zone as usize].as_ref().unwrap();
            for bit in 0..ZONE_BLOCKS as usize {
                let block = zone as usize * ZONE_BLOCKS as usize + bit;
                assert_eq!(resident.used.get(bit as u32), !self.is_free(block), "block {block}");
                let image = self.flags[block] & (IMAGE | RESERVED) != 0;
                assert_eq!(resident.image.get(bit as u32), image, "image of block {block}");
            }
        }
    }

    fn take(&mut self, phys: Phys, blocks: u64) {
        assert_eq!(zone_of(phys), zone_of(phys.offset(blocks - 1)), "one zone");
        for block in phys.0..phys.0 + blocks {
            assert!(self.is_free(block as usize), "block {block} handed out, though in use");
            self.flags[block as usize] |= UNFOLDED;
            self.unfolded.push(Phys(block));
        }
    }

    /// Gives whether there was a block.
    pub fn allocate(&mut self, stream: Stream, want: u32) -> bool {
        match ask(&mut self.alloc, &self.disk, |alloc| alloc.alloc(stream, want)) {
            Ok((phys, blocks)) => {
                assert!((1..=want).contains(&blocks));
                self.take(phys, blocks.into());
                true
            }
            Err(error) => {
                assert_eq!((error, self.free()), (AllocError::NoSpace, 0));
                false
            }
        }
    }

    pub fn allocate_chunk(&mut self, blocks: u32) {
        match ask(&mut self.alloc, &self.disk, |alloc| alloc.alloc_chunk(blocks)) {
            Ok(phys) => self.take(phys, blocks.into()),
            Err(error) => {
                assert_eq!(error, AllocError::NoSpace);
                let mut run = 0;
                for block in 0..self.flags.len() {
                    let goes_on =
                        self.is_free(block) && !(block as u64).is_multiple_of(ZONE_BLOCKS);
                    run = if goes_on { run + 1 } else { u32::from(self.is_free(block)) };
                    assert!(run < blocks, "there is a run up to {block}");
                }
            }
        }
    }

    pub fn give_back(&mut self, rng: &mut Rng) {
        let Some(index) = pick(rng, self.unfolded.len()) else { return };
        let phys = self.unfolded[index];
        if self.flags[phys.0 as usize] == UNFOLDED {
            self.unfolded.swap_remove(index);
            self.alloc.give_back(phys, 1);
            self.flags[phys.0 as usize] = 0;
        }
    }

    /// The test gave these back itself.
    pub fn clear_all(&mut self, blocks: &[Phys]) {
        blocks.iter().for_each(|phys| self.flags[phys.0 as usize] = 0);
    }

    pub fn withhold(&mut self, phys: Phys) {
        let result = ask(&mut self.alloc, &self.disk, |alloc| alloc.withhold(phys));
        if self.flags[phys.0 as usize] & RESERVED != 0 {
            assert_eq!(result, Err(AllocError::NotData(phys)));
        } else {
            assert_eq!(result, Ok(()));
            self.flags[phys.0 as usize] |= WITHHELD;
            // A fold may still name it; nobody gives it back.
        }
    }

    pub fn grow(&mut self, blocks: u64) {
        self.alloc.grow(blocks).unwrap();
        self.pool_blocks = blocks;
        self.mark_reserved();
    }

    /// Chooses what the next checkpoint adds and frees.
    pub fn begin_fold(&mut self, rng: &mut Rng) {
        let add_percent = rng.below(101);
        let (adds, rest): (Vec<Phys>, Vec<Phys>) =
            std::mem::take(&mut self.unfolded).into_iter().partition(|_| rng.chance(add_percent));
        self.unfolded = rest;
        let free_percent = rng.below(60);
        let mut frees: Vec<Phys> = (0..self.flags.len())
            .filter(|block| self.flags[*block] & IMAGE != 0 && rng.chance(free_percent))
            .map(|block| Phys(block as u64))
            .collect();
        // Superseded inside of the fold: added and freed.
        frees.extend(adds.iter().filter(|_| rng.chance(20)));
        let mut by_zone: BTreeMap<u64, (Vec<Phys>, Vec<Phys>)> = BTreeMap::new();
        adds.iter().for_each(|phys| by_zone.entry(zone_of(*phys)).or_default().0.push(*phys));
        frees.iter().for_each(|phys| by_zone.entry(zone_of(*phys)).or_default().1.push(*phys));
        let mut todo = Vec::new();
        for (zone, (adds, mut frees)) in by_zone {
            if rng.chance(30) {
                // In two calls: the frees of the second may be among the adds of the first.
                let late = frees.split_off(frees.len() / 2);
                todo.push((zone, adds, frees));
                todo.push((zone, Vec::new(), late));
            } else {
                todo.push((zone, adds, frees));
            }
        }
        self.fold = Some(Fold { pool_blocks: self.pool_blocks, todo, adds, frees });
    }

    /// Stages the next zone. Gives whether there is more.
    pub fn stage_next(&mut self) -> bool {
        let Some((zone, adds, frees)) = self.fold.as_mut().and_then(|fold| fold.todo.pop()) else {
            return false;
        };
        // Backwards: the second of two calls comes last.
        let first = self.fold.as_mut().and_then(|fold| fold.todo.pop_if(|next| next.0 == zone));
        for (zone, adds, frees) in first.into_iter().chain([(zone, adds, frees)]) {
            let staged =
                ask(&mut self.alloc, &self.disk, |alloc| alloc.stage(zone, &adds, &frees)).unwrap();
            self.disk.insert(staged.at, staged.page);
        }
        true
    }

    /// The checkpoint becomes durable, and batches before it are released.
    pub fn commit(&mut self) {
        while self.stage_next() {}
        let Some(fold) = self.fold.take() else { return };
        let seq = self.cp.seq + 1;
        let pool_blocks = fold.pool_blocks;
        let zones = self.alloc.staged_descs(pool_blocks);
        let image = self.flags.iter().map(|flags| flags & IMAGE != 0).collect();
        self.alloc.commit(seq);
        for phys in &fold.adds {
            let flags = &mut self.flags[phys.0 as usize];
            *flags = *flags & !UNFOLDED | IMAGE;
        }
        for phys in &fold.frees {
            self.flags[phys.0 as usize] &= !IMAGE;
            self.batch[phys.0 as usize] = seq;
        }
        let cp = Checkpoint { seq, pool_blocks, zones, ..Checkpoint::default() };
        self.previous = Some(std::mem::replace(&mut self.cp, cp));
        self.previous_image = image;
        self.check_pages();
        self.release(seq - 1);
    }

    pub fn abort(&mut self) {
        if let Some(fold) = self.fold.take() {
            self.alloc.abort_staged();
            self.unfolded.extend(fold.adds);
        }
    }

    /// Every page of the newest checkpoint says what the oracle says.
    fn check_pages(&self) {
        let (cp, none) = (&self.cp, Buf::zeroed(1));
        for (zone, desc) in cp.zones.iter().enumerate() {
            let zone = zone as u64;
            let page = self.disk.get(&self.geometry.bitmap_home(zone, desc.home)).unwrap_or(&none);
            let image = decode_page(&self.geometry, cp.pool_blocks, TAG, zone, desc, page).unwrap();
            for block in zone * ZONE_BLOCKS..(zone + 1) * ZONE_BLOCKS {
                let used = self.flags.get(block as usize).is_some_and(|f| f & IMAGE != 0)
                    || !self.geometry.is_data(Phys(block), cp.pool_blocks);
                assert_eq!(image.is_used(Phys(block)), used, "block {block} in the page");
            }
            assert_eq!(image.free(), u64::from(desc.free));
            let used: u64 = image.used_runs().map(|(_, blocks)| blocks).sum();
            assert_eq!(used + image.free(), ZONE_BLOCKS);
        }
    }

    fn release(&mut self, seq: u64) {
        let expected: Vec<u64> = (0..self.batch.len())
            .filter(|block| (1..=seq).contains(&self.batch[*block]))
            .map(|block| block as u64)
            .collect();
        expected.iter().for_each(|block| self.batch[*block as usize] = 0);
        let runs = self.alloc.releasable(seq);
        if seq.is_multiple_of(2) {
            self.alloc.leave(seq);
            let blocks = runs.iter().flat_map(|(phys, blocks)| phys.0..phys.0 + blocks);
            blocks.for_each(|block| self.batch[block as usize] = LEAVING);
            return;
        }
        assert_eq!(self.alloc.release(seq), runs);
        assert!(runs.windows(2).all(|pair| pair[0].0.0 + pair[0].1 < pair[1].0.0), "merged");
        let released: Vec<u64> =
            runs.iter().flat_map(|(phys, blocks)| phys.0..phys.0 + blocks).collect();
        let allocatable: Vec<u64> =
            expected.into_iter().filter(|block| self.is_free(*block as usize)).collect();
        assert_eq!(released, allocatable);
    }

    /// Something happens to blocks that leave the quarantine.
    pub fn discard(&mut self, rng: &mut Rng) {
        if rng.chance(5) {
            self.alloc.free_waiting();
            self.end_waiting(0..self.flags.len() as u64);
        } else if rng.chance(50) {
            self.begin_discard(rng);
        } else if let Some(index) = pick(rng, self.discards.len()) {
            let (phys, blocks) = self.discards.swap_remove(index);
            self.alloc.end_discard(phys);
            (phys.0..phys.0 + blocks).for_each(|block| self.batch[block as usize] = 0);
        }
    }

    fn begin_discard(&mut self, rng: &mut Rng) {
        let Some(zone) = self.alloc.zone_to_discard() else { return };
        let most = [0, 40, u64::MAX][rng.below(3) as usize];
        let before = self.free();
        let found = ask(&mut self.alloc, &self.disk, |alloc| alloc.begin_discard(zone, most));
        for (phys, blocks) in found.unwrap() {
            let cell = u64::from(crate::CELL_BLOCKS);
            assert!(phys.0.is_multiple_of(cell) && blocks.is_multiple_of(cell));
            assert_eq!((zone_of(phys), zone_of(phys.offset(blocks - 1))), (zone, zone));
            for block in phys.0..phys.0 + blocks {
                let leaves = self.batch[block as usize] == LEAVING && !self.is_discarded(block);
                assert!(leaves || self.is_free(block as usize), "block {block} is in use");
            }
            (phys.0..phys.0 + blocks).for_each(|block| self.batch[block as usize] = LEAVING);
            self.discards.push((phys, blocks));
        }
        assert!(before - self.free() <= most, "too many free blocks were kept");
        let cells = self.end_waiting(zone * ZONE_BLOCKS..(zone + 1) * ZONE_BLOCKS);
        for cell in cells.into_iter().filter(|_| most == u64::MAX) {
            let first = cell as usize * crate::CELL_BLOCKS as usize;
            let blocks = first..first + crate::CELL_BLOCKS as usize;
            assert!(
                { blocks }.any(|block| !self.is_free(block)),
                "cell {cell} is free, and was left"
            );
        }
    }

    fn is_discarded(&self, block: u64) -> bool {
        self.discards.iter().any(|(phys, blocks)| (phys.0..phys.0 + blocks).contains(&block))
    }

    /// Those of the blocks that waited are free now; the cells that they are in.
    fn end_waiting(&mut self, blocks: std::ops::Range<u64>) -> Vec<u64> {
        let mut cells = Vec::new();
        for block in blocks {
            if self.batch[block as usize] == LEAVING && !self.is_discarded(block) {
                self.batch[block as usize] = 0;
                cells.push(block / u64::from(crate::CELL_BLOCKS));
            }
        }
        cells
    }

    /// A crash, and open from the newest checkpoint: some of what was allocated is in the
    /// journal. The quarantine comes back from the previous checkpoint's pages, as far as the
    /// fold that was cut has not overwritten them.
    pub fn reopen(&mut self, rng: &mut Rng, max_resident: usize) {
        let fold = self.fold.take();
        let grown = self.pool_blocks;
        let mut alloc = Allocator::new(
            self.geometry.clone(),
            self.cp.pool_blocks,
            TAG,
            self.cp.seq,
            self.cp.zones.clone(),
        );
        alloc.set_max_resident(max_resident);
        self.alloc = alloc;
        let listed: Vec<Phys> = (0..self.flags.len())
            .filter(|block| self.flags[*block] & WITHHELD != 0)
            .map(|block| Phys(block as u64))
            .collect();
        // Those past the checkpoint's end are known again after the growth.
        let (early, late): (Vec<Phys>, Vec<Phys>) =
            listed.into_iter().partition(|phys| phys.0 < self.cp.pool_blocks);
        early.into_iter().for_each(|phys| self.withhold(phys));
        self.alloc.grow(grown).unwrap();
        late.into_iter().for_each(|phys| self.withhold(phys));
        let mut lost = std::mem::take(&mut self.unfolded);
        lost.extend(fold.into_iter().flat_map(|fold| fold.adds));
        self.batch.fill(0);
        self.discards.clear();
        for phys in lost {
            let flags = &mut self.flags[phys.0 as usize];
            *flags &= !UNFOLDED;
            if *flags == 0 && rng.chance(50) {
                *flags = UNFOLDED;
                ask(&mut self.alloc, &self.disk, |alloc| alloc.mark_used(phys, 1)).unwrap();
                let again = ask(&mut self.alloc, &self.disk, |alloc| alloc.mark_used(phys, 1));
                assert_eq!(again, Err(AllocError::InUse(phys)));
                self.unfolded.push(phys);
            }
        }
        self.diff_previous();
    }

    fn diff_previous(&mut self) {
        let Some(previous) = self.previous.take() else { return };
        for (zone, at) in self.alloc.pages_to_diff(&previous) {
            let page = &self.disk[&at];
            let result = ask(&mut self.alloc, &self.disk, |alloc| {
                alloc.quarantine_diff(zone, &previous, page)
            });
            let Ok(held) = result else {
                assert!(matches!(result, Err(AllocError::Page(_))), "{result:?}");
                continue;
            };
            let before = self.alloc.pending_blocks() - held;
            for block in zone * ZONE_BLOCKS..(zone + 1) * ZONE_BLOCKS {
                let block = block as usize;
                if self.previous_image.get(block) == Some(&true) && self.is_free(block) {
                    self.batch[block] = self.cp.seq;
                }
            }
            let now = self.batch.iter().filter(|batch| **batch != 0).count() as u64;
            assert_eq!(now, before + held);
        }
        self.previous = Some(previous);
    }
}

pub fn pick(rng: &mut Rng, len: usize) -> Option<usize> {
    (len > 0).then(|| rng.below(len as u64) as usize)
}
