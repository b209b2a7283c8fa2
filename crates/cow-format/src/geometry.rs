//! Where everything lies on the device. docs/format.md, "Layout".
//!
//! ```text
//! AG0 : superblock | CP ring x4 | bitmap homes | ... | journal ring | data and table chunks
//! AGn : bitmap homes (1 MiB) | data and table chunks          AG = 16 GiB
//! ```
//!
//! The fixed areas are known by rule, never looked up: superblock copies, checkpoint areas, the
//! journal ring and the bitmap homes. Their bits are set in every bitmap page, also in one that
//! was never written.

use crate::Phys;

/// Where the four copies of the superblock live: set A is copies 0 and 1, set B copies 2 and 3.
pub const COPY_BLOCKS: [u64; 4] = [0, 8192, 1024, 16384];
/// Blocks of an allocation group (16 GiB).
pub const AG_BLOCKS: u64 = 4 << 20;
/// Blocks of a zone: what one bitmap page covers (128 MiB).
pub const ZONE_BLOCKS: u64 = 32_768;
/// Zones of an allocation group.
pub const AG_ZONES: u64 = AG_BLOCKS / ZONE_BLOCKS;
/// Blocks at the start of each group that hold its bitmap pages, two homes each.
pub const HOMES_BLOCKS: u64 = 2 * AG_ZONES;
/// Blocks of a table chunk: 256 pages, two homes each.
pub const CHUNK_BLOCKS: u64 = 512;
/// Pages of the node table in a chunk.
pub const CHUNK_PAGES: u64 = CHUNK_BLOCKS / 2;
/// The smallest pool: the last superblock copy lies at 64 MiB.
pub const MIN_POOL_BLOCKS: u64 = ZONE_BLOCKS;
/// The largest pool: 40 bits of block address.
pub const MAX_POOL_BLOCKS: u64 = 1 << 40;
/// Table chunks that a pool may grow to (512 x 2048 entries = 2^20 nodes).
pub const MAX_CHUNKS: u32 = 512;

/// The layout that mkfs chose; part of the superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the pool when it was made, in blocks.
    pub mkfs_blocks: u64,
    /// Largest size that the pool may grow to, in blocks.
    pub limit_blocks: u64,
    /// First block of each checkpoint area.
    pub cp_start: [u64; 4],
    /// Length of a checkpoint area.
    pub cp_blocks: u64,
    /// First block of the bitmap homes of AG 0 ([`HOMES_BLOCKS`] long).
    pub homes_start: u64,
    /// First block of the journal ring.
    pub journal_start: u64,
    /// Length of the journal ring.
    pub journal_blocks: u64,
    /// How many table chunks the checkpoint areas have room for.
    pub max_chunks: u32,
    /// Made with every block allocated in the file below; never discarded.
    pub preallocated: bool,
}

/// What mkfs may choose.
#[derive(Clone, Debug)]
pub struct LayoutOptions {
    /// Size of the pool in blocks.
    pub blocks: u64,
    /// Journal length in blocks; `None` for pool/32 within 32 MiB and 4 GiB.
    pub journal_blocks: Option<u64>,
    /// Growth limit in blocks; `None` for the larger of 1 TiB and 64 times the size.
    pub limit_blocks: Option<u64>,
    /// Room for table chunks; `None` for [`MAX_CHUNKS`].
    pub max_chunks: Option<u32>,
    /// See [`Geometry::preallocated`].
    pub preallocated: bool,
}

impl Geometry {
    /// Lays out a pool.
    ///
    /// # Errors
    /// The name of the option that cannot be satisfied.
    pub fn plan(options: &LayoutOptions) -> Result<Self, &'static str> {
        let blocks = options.blocks;
        if !(MIN_POOL_BLOCKS..=MAX_POOL_BLOCKS).contains(&blocks) {
            return Err("size");
        }
        let limit_blocks = options
            .limit_blocks
            .unwrap_or((1u64 << 28).max(blocks.saturating_mul(64)))
            .clamp(blocks, MAX_POOL_BLOCKS);
        let max_chunks = options.max_chunks.unwrap_or(MAX_CHUNKS).clamp(1, MAX_CHUNKS);
        let cp_bytes = 65_536
            + 16 * limit_blocks.div_ceil(ZONE_BLOCKS)
            + u64::from(max_chunks) * (8 + 16 * CHUNK_PAGES);
        let cp_blocks = cp_bytes.div_ceil(crate::BLOCK_SIZE as u64) + 2;
        let journal_blocks =
            options.journal_blocks.unwrap_or((blocks / 32).clamp(8192, 1 << 20)).max(64);
        // Areas are placed one after the other; one that would cover a superblock copy starts
        // after it instead.
        let mut next = 1;
        let mut place = |len: u64| {
            while let Some(copy) = COPY_BLOCKS.iter().find(|c| (next..next + len).contains(c)) {
                next = copy + 1;
            }
            let start = next;
            next += len;
            start
        };
        let cp_start = [place(cp_blocks), place(cp_blocks), place(cp_blocks), place(cp_blocks)];
        let homes_start = place(HOMES_BLOCKS);
        let journal_start = place(journal_blocks);
        let geometry = Self {
            mkfs_blocks: blocks,
            limit_blocks,
            cp_start,
            cp_blocks,
            homes_start,
            journal_start,
            journal_blocks,
            max_chunks,
            preallocated: options.preallocated,
        };
        geometry.validate()?;
        Ok(geometry)
    }

    /// Checks a layout that came from a device.
    ///
    /// # Errors
    /// The name of the field that cannot be.
    pub fn validate(&self) -> Result<(), &'static str> {
        if !(MIN_POOL_BLOCKS..=MAX_POOL_BLOCKS).contains(&self.mkfs_blocks) {
            return Err("mkfs_blocks");
        }
        if !(self.mkfs_blocks..=MAX_POOL_BLOCKS).contains(&self.limit_blocks) {
            return Err("limit_blocks");
        }
        if !(1..=MAX_CHUNKS).contains(&self.max_chunks) {
            return Err("max_chunks");
        }
        let end = self.mkfs_blocks.min(AG_BLOCKS);
        let mut areas: Vec<(u64, u64, &'static str)> =
            self.cp_start.iter().map(|&s| (s, self.cp_blocks, "cp_start")).collect();
        areas.push((self.homes_start, HOMES_BLOCKS, "homes_start"));
        areas.push((self.journal_start, self.journal_blocks, "journal_start"));
        for &(start, len, name) in &areas {
            if start == 0 || len == 0 || start.checked_add(len).is_none_or(|e| e > end) {
                return Err(name);
            }
        }
        areas.extend(COPY_BLOCKS.iter().map(|&c| (c, 1, "superblock")));
        areas.sort_unstable();
        for pair in areas.windows(2) {
            if pair[0].0 + pair[0].1 > pair[1].0 {
                return Err(pair[1].2);
            }
        }
        if self.journal_blocks < 64 || self.cp_blocks < 4 {
            return Err("journal_blocks");
        }
        Ok(())
    }

    /// Number of zones of a pool of `blocks` blocks, the last one perhaps partial.
    pub fn zone_count(blocks: u64) -> u64 {
        blocks.div_ceil(ZONE_BLOCKS)
    }

    /// The block of home `home` (0 or 1) of the bitmap page of `zone`.
    pub fn bitmap_home(&self, zone: u64, home: u8) -> Phys {
        let group = zone / AG_ZONES;
        let start = if group == 0 { self.homes_start } else { group * AG_BLOCKS };
        Phys(start + 2 * (zone % AG_ZONES) + u64::from(home & 1))
    }

    /// The block of home `home` of page `page` of the table chunk that begins at `chunk`.
    pub fn table_home(chunk: Phys, page_in_chunk: u64, home: u8) -> Phys {
        debug_assert!(page_in_chunk < CHUNK_PAGES);
        chunk.offset(page_in_chunk + u64::from(home & 1) * CHUNK_PAGES)
    }

    /// The runs `(first, length)` of `zone` that are never data: fixed areas, and what lies past
    /// the end of a pool of `pool_blocks`. In units of blocks from the start of the zone.
    pub fn reserved_runs(&self, zone: u64, pool_blocks: u64) -> Vec<(u32, u32)> {
        let (from, to) = (zone * ZONE_BLOCKS, (zone + 1) * ZONE_BLOCKS);
        let mut runs = Vec::new();
        let mut add = |start: u64, len: u64| {
            let (lo, hi) = (start.max(from), (start + len).min(to));
            if lo < hi {
                runs.push(((lo - from) as u32, (hi - lo) as u32));
            }
        };
        if zone < AG_ZONES {
            COPY_BLOCKS.iter().for_each(|&copy| add(copy, 1));
            self.cp_start.iter().for_each(|&start| add(start, self.cp_blocks));
            add(self.homes_start, HOMES_BLOCKS);
            add(self.journal_start, self.journal_blocks);
        } else if zone.is_multiple_of(AG_ZONES) {
            add(from, HOMES_BLOCKS);
        }
        if pool_blocks < to {
            add(pool_blocks, to - pool_blocks);
        }
        runs
    }

    /// Whether `phys` may hold data, a map node, a blob or a table chunk.
    pub fn is_data(&self, phys: Phys, pool_blocks: u64) -> bool {
        if phys.is_none() || phys.0 >= pool_blocks {
            return false;
        }
        let zone = phys.0 / ZONE_BLOCKS;
        let within = (phys.0 % ZONE_BLOCKS) as u32;
        !self.reserved_runs(zone, pool_blocks).iter().any(|&(s, l)| (s..s + l).contains(&within))
    }
}
