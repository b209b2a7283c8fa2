//! Table and bitmap pages to their inactive homes, then the checkpoint.

use super::Fold;
use crate::below::make_room;
use crate::error::Error;
use crate::flush::{emit_frames, written_to};
use crate::space::{Tier, load_zone};
use cow_alloc::AllocError;
use cow_format::checkpoint::{Checkpoint, FLAG_LEAKS, PageDesc, ZoneDesc};
use cow_format::entry::PAGE_ENTRIES;
use cow_format::geometry::{CHUNK_BLOCKS, CHUNK_PAGES, Geometry};
use cow_format::page::table_crc;
use cow_format::table::CHUNK_ENTRIES;
use cow_format::{BufSlice, Phys, mutant};

/// A table chunk is added when fewer entries are free.
const SPARE_ENTRIES: u32 = 1024;

/// The node table as the new checkpoint will describe it.
struct Table {
    chunks: Vec<Phys>,
    pages: Vec<PageDesc>,
}

impl Table {
    /// Where a page goes that is written now. The first time it may be either home, and an open
    /// reads in one go what lies side by side: so a full page goes to the home of the page before
    /// it, and one that is going to be written again to the other, from where that brings it there.
    fn home_of(&self, page: usize, full: bool) -> u8 {
        let desc = &self.pages[page];
        if !desc.fresh {
            return 1 - desc.home;
        }
        let before = page.checked_sub(1).map_or(0, |before| self.pages[before].home);
        if full { before } else { 1 - before }
    }
}

impl Fold {
    /// From merged and walked to published.
    pub(super) async fn commit(mut self) -> Result<(), Error> {
        self.believe_damage().await?;
        let table = self.write_table().await?;
        let zones = self.write_bitmap().await?;
        self.writes_done().await?;
        written_to(&self.cx, self.upto).await?;
        if !mutant::is("oneflush") {
            self.barrier().await?;
        }
        if mutant::is("reusenow") {
            let mut core = self.cx.core();
            let alloc = &mut core.pool()?.alloc;
            alloc.commit(self.cp_seq);
            alloc.release(self.cp_seq);
            // Who waits for room learns of it, as when they are given out in time.
            core.notify(|core| &mut core.fold_wait);
        }
        let checkpoint = self.checkpoint(table, zones)?;
        let (at, buf) = {
            let mut core = self.cx.core();
            let geometry = &core.pool()?.sb.geometry;
            let area = geometry.cp_start[Checkpoint::area(checkpoint.seq)];
            let buf = checkpoint.encode(self.pool_tag);
            if buf.block_count() as u64 > geometry.cp_blocks {
                core.poison("the checkpoint has outgrown its area".into());
            }
            (Phys(area), buf)
        };
        self.cx.core().writable()?;
        self.write(at, BufSlice::whole(buf)).await?;
        self.writes_done().await?;
        self.barrier().await?;
        self.publish(checkpoint)
    }

    /// A device flush. Every frame that was complete before it is durable after it.
    async fn barrier(&self) -> Result<(), Error> {
        emit_frames(&self.cx);
        let complete = self.cx.core().writable()?.complete();
        let result = self.cx.device_flush().await;
        let mut core = self.cx.core();
        let now_ns = core.now_ns;
        match result {
            Ok(()) => core.writable()?.note_durable(complete, now_ns),
            Err(failure) => {
                let errno = failure.errno;
                core.poison(format!("a flush of a checkpoint failed: os error {errno}"));
            }
        }
        core.notify(|core| &mut core.flush_wait);
        core.writable().map(|_| ())
    }

    async fn write_table(&mut self) -> Result<Table, Error> {
        let (mut table, max_chunks) = {
            let mut core = self.cx.core();
            let pool = core.pool()?;
            let table = Table { chunks: pool.cp.chunks.clone(), pages: pool.cp.pages.clone() };
            (table, pool.sb.geometry.max_chunks as usize)
        };
        if self.tree.free_slots() < SPARE_ENTRIES && table.chunks.len() < max_chunks {
            // Without room the table stays as it is; what needs an entry is refused in time.
            if let Some(chunk) = self.new_chunk().await? {
                table.chunks.push(chunk);
                let fresh = PageDesc { fresh: true, ..PageDesc::default() };
                table.pages.extend(std::iter::repeat_n(fresh, CHUNK_PAGES as usize));
            }
        }
        let total = table.chunks.len() as u32 * CHUNK_ENTRIES;
        if self.tree.assign_slots(total).is_err() {
            let what = "the node table is full";
            self.cx.core().poison(what.into());
            return Err(Error::Poisoned(what.into()));
        }
        if mutant::is("tablenow") {
            let later = self.cx.core().pool()?.since_freeze.clone();
            later.iter().for_each(|(record, frame)| {
                let _ = self.tree.apply(record, *frame);
            });
            let _ = self.tree.assign_slots(total);
        }
        for page in self.tree.dirty_pages() {
            let (buf, used) = self.tree.encode_page(page);
            if used == 0 && table.pages[page as usize].used == 0 {
                // As most pages of overflow entries: nothing was there, and nothing is.
                continue;
            }
            let home = table.home_of(page as usize, usize::from(used) == PAGE_ENTRIES);
            let desc = &mut table.pages[page as usize];
            let chunk = table.chunks[page as usize / CHUNK_PAGES as usize];
            let at = Geometry::table_home(chunk, u64::from(page) % CHUNK_PAGES, home);
            let crc = table_crc(&buf, self.pool_tag, at);
            *desc = PageDesc { crc, home, fresh: false, used };
            self.write(at, BufSlice::whole(buf)).await?;
            self.went_on().await;
        }
        self.tree.clear_dirty();
        Ok(table)
    }

    async fn new_chunk(&mut self) -> Result<Option<Phys>, Error> {
        if self.cx.core().available(Tier::Meta, None) < CHUNK_BLOCKS {
            return Ok(None);
        }
        loop {
            let found = self.cx.core().pool()?.alloc.alloc_chunk(CHUNK_BLOCKS as u32);
            let zone = match found {
                Ok(chunk) => {
                    if !make_room(&self.cx, chunk, CHUNK_BLOCKS).await {
                        self.cx.core().pool()?.alloc.give_back(chunk, CHUNK_BLOCKS);
                        return Ok(None);
                    }
                    (0..CHUNK_BLOCKS).for_each(|i| self.add(chunk.offset(i)));
                    self.count(true, CHUNK_BLOCKS as i64);
                    return Ok(Some(chunk));
                }
                Err(AllocError::NeedZone(zone)) => zone,
                Err(_) => return Ok(None),
            };
            load_zone(&self.cx, zone).await?;
        }
    }

    /// Stages every zone that changed and writes its page.
    async fn write_bitmap(&mut self) -> Result<Vec<ZoneDesc>, Error> {
        if mutant::is("bitmapnow") {
            self.add_later_blocks();
        }
        for (zone, change) in std::mem::take(&mut self.zones) {
            let staged = loop {
                let staged = self.cx.core().pool()?.alloc.stage(zone, &change.adds, &change.frees);
                match staged {
                    Ok(staged) => break staged,
                    Err(AllocError::NeedZone(zone)) => load_zone(&self.cx, zone).await?,
                    Err(error) => {
                        let what = format!("the allocation bitmap of zone {zone}: {error}");
                        self.cx.core().poison(what.clone());
                        return Err(Error::Corrupt(what));
                    }
                }
            };
            self.write(staged.at, BufSlice::whole(staged.page)).await?;
            self.went_on().await;
        }
        let mut core = self.cx.core();
        Ok(core.pool()?.alloc.staged_descs(self.pool_blocks))
    }

    /// The fault that the mutant `bitmapnow` is: blocks of records after the freeze.
    fn add_later_blocks(&mut self) {
        let later: Vec<Phys> = match &self.cx.core().pool {
            Some(pool) => pool
                .active
                .nodes()
                .filter_map(|node| pool.active.node(node))
                .flat_map(|layer| layer.leaves.values())
                .flat_map(|leaf| leaf.entries().iter().map(|entry| entry.phys))
                .filter(|phys| !phys.is_none())
                .collect(),
            None => Vec::new(),
        };
        later.into_iter().for_each(|phys| self.add(phys));
    }

    fn checkpoint(&self, table: Table, zones: Vec<ZoneDesc>) -> Result<Checkpoint, Error> {
        let mut core = self.cx.core();
        let time_ns = core.expiry.clock.trusted_wall_ns(core.now_ns, core.wall_ns);
        let pool = core.pool()?;
        let counters = self.tree.counters();
        let sum = |old: u64, by: i64| old.saturating_add_signed(by);
        Ok(Checkpoint {
            seq: self.cp_seq,
            epoch: pool.sb.epoch,
            last_gen: counters.last_gen.0,
            last_node: counters.last_node.0,
            last_volume: counters.last_volume.0,
            last_group: counters.last_group,
            tail: self.tail,
            pool_blocks: self.pool_blocks,
            flags: if self.leaks { FLAG_LEAKS } else { 0 },
            data_blocks: sum(pool.cp.data_blocks, self.tally.data),
            meta_blocks: sum(pool.cp.meta_blocks, self.tally.meta),
            time_ns,
            damage_overflow: self.damage_overflow,
            detached: self.detached.clone(),
            chunks: table.chunks,
            withheld: pool.alloc.withheld().collect(),
            damage: self.damage.clone(),
            zones,
            pages: table.pages,
        })
    }
}
