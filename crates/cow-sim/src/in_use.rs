//! What the newest checkpoint on the disk uses is not written: until there is a newer one, a crash
//! would need it.

use crate::disk::SimDisk;
use crate::lose::{newest_superblock, read};
use crate::sim::Probe;
use cow_format::Phys;
use cow_format::checkpoint::Checkpoint;
use cow_format::geometry::{CHUNK_BLOCKS, ZONE_BLOCKS};
use std::collections::HashSet;

/// Looks at the writes in flight between any two steps.
#[must_use]
pub fn watch() -> Probe {
    let mut changes = u64::MAX;
    let mut newest = Used::default();
    Box::new(move |disk, _| {
        if std::mem::replace(&mut changes, disk.changes()) != disk.changes() {
            newest.refresh(disk);
        }
        for (at, blocks) in disk.writes_in_flight() {
            if let Some(block) = (at..at + blocks).find(|block| newest.blocks.contains(block)) {
                let seq = newest.seq;
                return Err(format!("block {block} is written, but checkpoint {seq} uses it"));
            }
        }
        Ok(())
    })
}

/// Data and map nodes of a checkpoint.
#[derive(Default)]
struct Used {
    seq: u64,
    blocks: HashSet<u64>,
}

impl Used {
    fn refresh(&mut self, disk: &SimDisk) {
        let Some(sb) = newest_superblock(disk) else { return };
        let all = (0..4).filter_map(|area| read(disk, &sb, area));
        let Some(cp) = all.max_by_key(|cp: &Checkpoint| cp.seq) else { return };
        if cp.seq == self.seq {
            return;
        }
        self.seq = cp.seq;
        self.blocks.clear();
        let in_table = |block: u64| {
            cp.chunks.iter().any(|chunk| (chunk.0..chunk.0 + CHUNK_BLOCKS).contains(&block))
        };
        for (zone, desc) in cp.zones.iter().enumerate().filter(|(_, desc)| !desc.fresh) {
            let page = disk.peek(sb.geometry.bitmap_home(zone as u64, desc.home).0);
            for bit in (0..ZONE_BLOCKS).filter(|bit| page[(bit / 8) as usize] >> (bit % 8) & 1 == 1)
            {
                let block = zone as u64 * ZONE_BLOCKS + bit;
                if sb.geometry.is_data(Phys(block), disk.blocks()) && !in_table(block) {
                    self.blocks.insert(block);
                }
            }
        }
    }
}
