//! Loss of the newest checkpoint: what the one before it, and the journal kept for it, are for.

use crate::disk::SimDisk;
use cow_format::checkpoint::{Checkpoint, FLAG_NO_FALLBACK, PageDesc};
use cow_format::geometry::{CHUNK_PAGES, Geometry};
use cow_format::page::{bitmap_crc, table_crc};
use cow_format::superblock::{COPY_BLOCKS, Superblock};
use cow_format::{BLOCK_SIZE, Phys};

/// Damages the newest checkpoint of the pool on `disk`, if the one before it is a fallback: the
/// next in number, not waived, and its homes not overwritten yet. `lost` is the number of the last
/// one that was lost, and 0 before. Whether one was.
///
/// A checkpoint whose successor was lost is not lost as well before there is a new successor: the
/// one before it was let go when the lost one was published.
pub fn lose_newest_checkpoint(disk: &mut SimDisk, lost: &mut u64) -> bool {
    let Some(sb) = newest_superblock(disk) else { return false };
    let mut all: Vec<Checkpoint> = (0..4).filter_map(|area| read(disk, &sb, area)).collect();
    all.sort_by_key(|cp| std::cmp::Reverse(cp.seq));
    let [newest, before, ..] = all.as_slice() else { return false };
    let is_fallback = before.seq + 1 == newest.seq && newest.flags & FLAG_NO_FALLBACK == 0;
    if !is_fallback || newest.seq < *lost || !is_whole(disk, &sb, before) {
        return false;
    }
    *lost = newest.seq;
    disk.poke(sb.geometry.cp_start[Checkpoint::area(newest.seq)], [0x5a; BLOCK_SIZE]);
    true
}

/// The pages of the node table that the newest checkpoint of the pool on `disk` refers to, and their
/// blocks.
pub fn table_blocks(disk: &SimDisk) -> Vec<(u64, u64)> {
    let Some(sb) = newest_superblock(disk) else { return Vec::new() };
    let all = (0..4).filter_map(|area| read(disk, &sb, area));
    let Some(cp) = all.max_by_key(|cp| cp.seq) else { return Vec::new() };
    let used = cp.pages.iter().enumerate().filter(|(_, page)| !page.fresh && page.used > 0);
    let home = |(i, page): (usize, &PageDesc)| {
        let chunk = cp.chunks[i / CHUNK_PAGES as usize];
        (i as u64, Geometry::table_home(chunk, i as u64 % CHUNK_PAGES, page.home).0)
    };
    used.map(home).collect()
}

/// The zones of whose bitmap page the newest checkpoint of the pool on `disk` has one, and the blocks of those.
pub fn bitmap_blocks(disk: &SimDisk) -> Vec<(u64, u64)> {
    let Some(sb) = newest_superblock(disk) else { return Vec::new() };
    let all = (0..4).filter_map(|area| read(disk, &sb, area));
    let Some(cp) = all.max_by_key(|cp| cp.seq) else { return Vec::new() };
    let written = (0..).zip(&cp.zones).filter(|(_, zone)| !zone.fresh);
    written.map(|(zone, desc)| (zone, sb.geometry.bitmap_home(zone, desc.home).0)).collect()
}

/// Changes the newest checkpoint of the pool on `disk`, checksums included; from then on it is the only
/// one.
pub fn edit_checkpoint(disk: &mut SimDisk, edit: impl FnOnce(&mut Checkpoint)) {
    let Some(sb) = newest_superblock(disk) else { return };
    let all = (0..4).filter_map(|area| read(disk, &sb, area));
    let Some(mut cp) = all.max_by_key(|cp| cp.seq) else { return };
    cp.flags |= FLAG_NO_FALLBACK;
    edit(&mut cp);
    let (start, buf) = (sb.geometry.cp_start[Checkpoint::area(cp.seq)], cp.encode(sb.pool_tag()));
    (start..).zip(0..buf.block_count()).for_each(|(at, i)| disk.poke(at, *buf.block(i)));
}

pub(crate) fn newest_superblock(disk: &SimDisk) -> Option<Superblock> {
    (0..4)
        .filter_map(|copy| Superblock::decode(&disk.peek(COPY_BLOCKS[copy]), copy).ok())
        .max_by_key(|sb| sb.sequence)
}

pub(crate) fn read(disk: &SimDisk, sb: &Superblock, area: usize) -> Option<Checkpoint> {
    let start = sb.geometry.cp_start[area];
    let tag = sb.pool_tag();
    let blocks = Checkpoint::decode_len(&disk.peek(start), tag, Phys(start)).ok()?;
    let bytes: Vec<u8> = (0..blocks).flat_map(|i| disk.peek(start + i)).collect();
    Checkpoint::decode(&bytes, tag, Phys(start)).ok().filter(|cp| Checkpoint::area(cp.seq) == area)
}

fn is_whole(disk: &SimDisk, sb: &Superblock, cp: &Checkpoint) -> bool {
    let tag = sb.pool_tag();
    let zones = cp.zones.iter().enumerate().filter(|(_, zone)| !zone.fresh).all(|(i, zone)| {
        let home = sb.geometry.bitmap_home(i as u64, zone.home);
        bitmap_crc(&disk.peek(home.0), tag, home) == zone.crc
    });
    let pages = cp.pages.iter().enumerate().filter(|(_, page)| !page.fresh).all(|(i, page)| {
        let chunk = cp.chunks[i / CHUNK_PAGES as usize];
        let home = Geometry::table_home(chunk, i as u64 % CHUNK_PAGES, page.home);
        table_crc(&disk.peek(home.0), tag, home) == page.crc
    });
    zones && pages
}
