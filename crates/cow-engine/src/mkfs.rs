//! Makes an empty pool.

use cow_format::checkpoint::{Checkpoint, JournalPos, PageDesc, ZoneDesc};
use cow_format::geometry::{
    CHUNK_BLOCKS, CHUNK_PAGES, Geometry, HOMES_BLOCKS, LayoutOptions, ZONE_BLOCKS,
};
use cow_format::page::bitmap_crc;
use cow_format::superblock::{COPY_BLOCKS, Superblock};
use cow_format::{BLOCK_SIZE, Buf, Epoch, FrameSeq, Phys};

/// What makes a pool: the driver zeroes the ranges, then writes the blocks, flushes, and writes
/// the superblocks last, so that a half-made pool is none.
pub struct Mkfs {
    /// Ranges `(first, blocks)` to be written with zeros, so that they have their space: the journal
    /// must not be merely fallocated.
    pub zero: Vec<(Phys, u64)>,
    /// Blocks to be written before the first flush.
    pub writes: Vec<(Phys, Buf)>,
    /// Superblocks, to be written after it, and flushed.
    pub superblocks: Vec<(Phys, Buf)>,
}

/// Plans an empty pool with identity `uuid` and the layout `options`.
///
/// # Errors
/// The name of the option that cannot be satisfied.
pub fn mkfs(uuid: [u8; 16], options: &LayoutOptions, time_ns: u64) -> Result<Mkfs, &'static str> {
    let geometry = Geometry::plan(options)?;
    let superblock = Superblock {
        uuid,
        compat: 0,
        ro_compat: 0,
        incompat: 0,
        sequence: 1,
        epoch: Epoch(0),
        fences: Vec::new(),
        geometry,
    };
    let geometry = &superblock.geometry;
    let pool_tag = superblock.pool_tag();
    let blocks = options.blocks;
    let (chunk, used_zones) = first_chunk(geometry, blocks).ok_or("size")?;
    let mut writes = Vec::new();
    let mut zones = Vec::new();
    for zone in 0..Geometry::zone_count(blocks) {
        if used_zones != zone && geometry.reserved_runs(zone, blocks).is_empty() {
            // Most zones of a large pool: nothing in them is ever looked at.
            let all = ZONE_BLOCKS as u16;
            zones.push(ZoneDesc { fresh: true, free: all, longest: all, ..ZoneDesc::default() });
            continue;
        }
        let mut page = reserved_page(geometry, zone, blocks);
        let mut fresh = true;
        if used_zones == zone {
            set_run(&mut page, (chunk.0 % ZONE_BLOCKS) as u32, CHUNK_BLOCKS as u32);
            fresh = false;
        }
        let mut desc = ZoneDesc { fresh, ..ZoneDesc::default() };
        (desc.free, desc.longest) = count_free(&page);
        if !fresh {
            let home = geometry.bitmap_home(zone, 0);
            desc.crc = bitmap_crc(&page, pool_tag, home);
            writes.push((home, page));
        }
        zones.push(desc);
    }
    let checkpoint = Checkpoint {
        seq: 1,
        tail: JournalPos { block: 0, seq: FrameSeq(1), chain: pool_tag },
        pool_blocks: blocks,
        meta_blocks: CHUNK_BLOCKS,
        time_ns,
        chunks: vec![chunk],
        zones,
        pages: vec![PageDesc { fresh: true, ..PageDesc::default() }; CHUNK_PAGES as usize],
        ..Checkpoint::default()
    };
    let area = geometry.cp_start[Checkpoint::area(checkpoint.seq)];
    writes.push((Phys(area), checkpoint.encode(pool_tag)));
    let mut zero = vec![(Phys(geometry.journal_start), geometry.journal_blocks)];
    zero.extend(geometry.cp_start.iter().map(|&start| (Phys(start), geometry.cp_blocks)));
    zero.extend([(Phys(geometry.homes_start), HOMES_BLOCKS), (chunk, CHUNK_BLOCKS)]);
    let superblocks =
        (0..4).map(|copy| (Phys(COPY_BLOCKS[copy]), superblock.encode(copy))).collect();
    Ok(Mkfs { zero, writes, superblocks })
}

/// Where the first table chunk goes, and its zone: the first free run that is long enough and
/// lies in one zone.
fn first_chunk(geometry: &Geometry, blocks: u64) -> Option<(Phys, u64)> {
    (0..Geometry::zone_count(blocks)).find_map(|zone| {
        let mut runs = geometry.reserved_runs(zone, blocks);
        runs.sort_unstable();
        let mut at = 0u32;
        runs.push((ZONE_BLOCKS as u32, 0));
        for (start, len) in runs {
            if u64::from(start.saturating_sub(at)) >= CHUNK_BLOCKS {
                return Some((Phys(zone * ZONE_BLOCKS + u64::from(at)), zone));
            }
            at = at.max(start + len);
        }
        None
    })
}

/// A bitmap page with only what the layout reserves set.
pub fn reserved_page(geometry: &Geometry, zone: u64, pool_blocks: u64) -> Buf {
    let mut page = Buf::zeroed(1);
    for (start, len) in geometry.reserved_runs(zone, pool_blocks) {
        set_run(&mut page, start, len);
    }
    page
}

fn set_run(page: &mut Buf, start: u32, len: u32) {
    for bit in start..start + len {
        page[bit as usize / 8] |= 1 << (bit % 8);
    }
}

/// Free blocks of a page and its longest free run.
fn count_free(page: &Buf) -> (u16, u16) {
    let (mut free, mut longest, mut run) = (0u16, 0u16, 0u16);
    for bit in 0..BLOCK_SIZE * 8 {
        if page[bit / 8] & (1 << (bit % 8)) == 0 {
            free += 1;
            run += 1;
            longest = longest.max(run);
        } else {
            run = 0;
        }
    }
    (free, longest)
}
