//! Pools that are wrong, and sealed all the same: bytes of structures are changed, and then every
//! checksum that covers them is made right, up to the superblock. So decoders and all behind them
//! meet what a checksum would have kept from them.

use super::specimen::Specimen;
use crate::disk::SimDisk;
use crate::lose::{newest_superblock, read, table_blocks};
use cow_format::checkpoint::Checkpoint;
use cow_format::checksum::{Salt, salted};
use cow_format::frame::{Frame, HEADER_LEN, MAX_FRAME};
use cow_format::geometry::Geometry;
use cow_format::page::{bitmap_crc, table_crc};
use cow_format::superblock::{self, COPY_BLOCKS};
use cow_format::{BLOCK_SIZE, Phys, mapnode};
use std::collections::{BTreeMap, BTreeSet};

/// Offsets of checksums; docs/format.md.
const SUPERBLOCK_CRC_AT: usize = 12;
const HEADER_CRC_AT: usize = 12;
const MAP_CRC_AT: usize = 52;
const BLOB_CRC_AT: usize = 40;
const FRAME_PAYLOAD_CRC_AT: usize = 52;
const FRAME_CRC_AT: usize = 56;
const BODY_LEN_AT: usize = 176;
const SLOT_CRC_AT: usize = 2624;
const ENTRY_LEN: usize = 256;
/// Of one edit, in the input of [`Forge::forge`].
const EDIT_LEN: usize = 12;
/// Most edits of one input.
const EDITS: usize = 24;
/// Generations of map nodes and blobs, at most: what points in a circle is not sealed for ever.
const DEPTH: usize = 64;

/// Values that are limits of something.
const VALUES: [u64; 16] = [
    0,
    1,
    2,
    255,
    256,
    4095,
    4096,
    32_768,
    1 << 16,
    u32::MAX as u64,
    1 << 32,
    (1 << 40) - 1,
    1 << 47,
    u64::MAX >> 1,
    u64::MAX - 1,
    u64::MAX,
];

type Blocks = BTreeMap<u64, [u8; BLOCK_SIZE]>;

/// A frame of the journal: block and blocks.
type Place = (u64, u64);

/// See the module.
pub struct Forge<'a> {
    pub(super) specimen: &'a Specimen,
    tag: u64,
    /// Where everything is.
    pub layout: Geometry,
    /// The newest checkpoint.
    pub cp: Checkpoint,
    /// Blocks that are worth a change: all that the newest checkpoint, and the journal behind it, are
    /// made of, and the superblocks.
    targets: Vec<u64>,
    /// Where the checksum of a block stands.
    referrers: BTreeMap<u64, Vec<(u64, usize)>>,
    /// The frames of the journal behind it.
    pub frames: Vec<Place>,
}

fn put(page: &mut [u8], at: usize, crc: u32) {
    page[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

fn number(page: &[u8], at: usize, len: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..len].copy_from_slice(&page[at..at + len]);
    u64::from_le_bytes(bytes)
}

/// The salted checksum of `page`, with the field at `at` as zero.
fn without(salt: Salt, tag: u64, address: u64, page: &[u8], at: usize) -> u32 {
    salted(salt, tag, address, &[&page[..at], &[0; 4], &page[at + 4..]])
}

impl<'a> Forge<'a> {
    /// For the newest state of `specimen`; `None` where there is none.
    #[must_use]
    pub fn new(specimen: &'a Specimen) -> Option<Self> {
        let sb = newest_superblock(&specimen.disk)?;
        let all = (0..4).filter_map(|area| read(&specimen.disk, &sb, area));
        let cp = all.max_by_key(|cp| cp.seq)?;
        let (tag, layout) = (sb.pool_tag(), sb.geometry);
        let (targets, referrers, frames) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut forge = Self { specimen, tag, layout, cp, targets, referrers, frames };
        forge.find_frames();
        forge.find_blocks();
        Some(forge)
    }

    fn peek(&self, block: u64) -> [u8; BLOCK_SIZE] {
        self.specimen.disk.peek(block)
    }

    fn find_frames(&mut self) {
        let (mut block, mut seq) = (self.cp.tail.block, self.cp.tail.seq);
        loop {
            let at = self.layout.journal_start + block;
            let most =
                (self.layout.journal_blocks - block).min(MAX_FRAME as u64 / BLOCK_SIZE as u64);
            let bytes: Vec<u8> = (0..most).flat_map(|i| self.peek(at + i)).collect();
            let Ok((frame, _)) = Frame::decode(&bytes, self.tag, Phys(at)) else { return };
            if frame.seq != seq {
                return;
            }
            let blocks = number(&bytes, 44, 2).max(1);
            self.frames.push((at, blocks));
            self.targets.extend(at..at + blocks.min(most));
            seq.0 += 1;
            block = (block + blocks) % self.layout.journal_blocks;
        }
    }

    /// What refers to what. Offsets are those of docs/format.md.
    fn find_blocks(&mut self) {
        let start = self.layout.cp_start[Checkpoint::area(self.cp.seq)];
        let body = number(&self.peek(start), BODY_LEN_AT, 8).div_ceil(BLOCK_SIZE as u64);
        self.targets.extend(start..start + body + 2);
        self.targets.extend(COPY_BLOCKS);
        for (zone, desc) in self.cp.zones.iter().enumerate().filter(|(_, desc)| !desc.fresh) {
            self.targets.push(self.layout.bitmap_home(zone as u64, desc.home).0);
        }
        let mut roots: Vec<u64> = self.cp.detached.iter().map(|top| top.slot.phys.0).collect();
        let detached_at =
            8 * (self.cp.chunks.len() + self.cp.withheld.len()) + 24 * self.cp.damage.len();
        for (index, top) in self.cp.detached.iter().enumerate() {
            let at = detached_at + 48 * index + 36;
            let place = (start + 1 + (at / BLOCK_SIZE) as u64, at % BLOCK_SIZE);
            self.referrers.entry(top.slot.phys.0).or_default().push(place);
        }
        for (_, block) in table_blocks(&self.specimen.disk) {
            self.targets.push(block);
            let page = self.peek(block);
            for (index, entry) in page.chunks_exact(ENTRY_LEN).enumerate() {
                // Root, kill row and properties: block and checksum. An overflow entry has text there.
                for (phys_at, crc_at) in [(40, 48), (118, 124), (132, 138)] {
                    let phys = number(entry, phys_at, 6);
                    if phys > 0 && phys < self.specimen.disk.blocks() && entry[36] > 0 {
                        let place = (block, index * ENTRY_LEN + crc_at);
                        self.referrers.entry(phys).or_default().push(place);
                        roots.push(phys);
                    }
                }
            }
        }
        let mut seen = BTreeSet::new();
        while let Some(block) = roots.pop() {
            let page = self.peek(block);
            if !seen.insert(block) {
                continue;
            }
            if page[..4] == *b"CBLB" {
                self.targets.push(block);
                let next = number(&page, 24, 8);
                if next > 0 {
                    self.referrers.entry(next).or_default().push((block, 32));
                    roots.push(next);
                }
            } else if page[..4] == mapnode::MAGIC.to_le_bytes() {
                self.targets.push(block);
                for slot in 0..mapnode::FANOUT {
                    let phys =
                        number(&page, 64 + 4 * slot, 4) | number(&page, 1088 + 2 * slot, 2) << 32;
                    if phys > 0 && page[6] > 0 {
                        let place = (block, SLOT_CRC_AT + 4 * slot);
                        self.referrers.entry(phys).or_default().push(place);
                        roots.push(phys);
                    }
                }
            }
        }
        self.targets.sort_unstable();
        self.targets.dedup();
    }

    /// The pool with the edits that `input` means, twelve bytes each: which block (2), where in it (2),
    /// what kind of change (1), and what for (7).
    #[must_use]
    pub fn forge(&self, input: &[u8]) -> SimDisk {
        let mut blocks = Blocks::new();
        for edit in input.chunks_exact(EDIT_LEN).take(EDITS) {
            let target = self.targets[number(edit, 0, 2) as usize % self.targets.len()];
            let page = blocks.entry(target).or_insert_with(|| self.peek(target));
            self.edit(page, edit);
            if COPY_BLOCKS.contains(&target) {
                // The other copy of the same write would hide it.
                let page = *page;
                self.both_copies(target, &page, &mut blocks);
            }
        }
        self.sealed(blocks)
    }

    /// The pool with one bit of a block the other way round.
    #[must_use]
    pub fn flip(&self, block: u64, byte: usize, bit: u32) -> SimDisk {
        let mut page = self.peek(block);
        page[byte] ^= 1 << bit;
        self.sealed(Blocks::from([(block, page)]))
    }

    fn sealed(&self, mut blocks: Blocks) -> SimDisk {
        self.seal(&mut blocks);
        let mut disk = self.specimen.disk.fork_durable();
        blocks.into_iter().for_each(|(block, page)| disk.poke(block, page));
        disk
    }

    fn edit(&self, page: &mut [u8; BLOCK_SIZE], edit: &[u8]) {
        let (kind, value) = (edit[4], number(edit, 5, 7));
        // Most of what matters stands at the front, and entries at every 256 bytes.
        let most = if kind & 0x80 == 0 { 256 } else { BLOCK_SIZE };
        let at = (number(edit, 2, 2) as usize % most).min(BLOCK_SIZE - 8);
        let at = if kind & 0x40 == 0 { at & !3 } else { at };
        let limit = VALUES[value as usize % VALUES.len()];
        let old = number(page, at, 8);
        match kind & 7 {
            0 => page[at] = value as u8,
            1 => page[at..at + 4].copy_from_slice(&(limit as u32).to_le_bytes()),
            2 => page[at..at + 8].copy_from_slice(&limit.to_le_bytes()),
            3 => page[at] ^= 1 << (value & 7),
            4 => page[at..at + 8].copy_from_slice(&old.wrapping_add(value & 0xff).to_le_bytes()),
            5 => page[at..at + 8].copy_from_slice(&old.wrapping_sub(value & 0xff).to_le_bytes()),
            6 => {
                // A pointer to something else.
                let other = self.targets[value as usize % self.targets.len()];
                page[at..at + 4].copy_from_slice(&(other as u32).to_le_bytes());
            }
            _ => {
                let from = value as usize % BLOCK_SIZE;
                let len = ENTRY_LEN.min(BLOCK_SIZE - from).min(BLOCK_SIZE - at);
                page.copy_within(from..from + len, at);
            }
        }
    }

    fn both_copies(&self, target: u64, page: &[u8; BLOCK_SIZE], blocks: &mut Blocks) {
        for copy in COPY_BLOCKS.iter().enumerate().filter(|(_, block)| **block != target) {
            let mut other = *page;
            put(&mut other, 32, copy.0 as u32);
            blocks.insert(*copy.1, other);
        }
    }

    /// Makes every checksum right that covers one of `blocks`.
    fn seal(&self, blocks: &mut Blocks) {
        let mut work: Vec<u64> = blocks.keys().copied().collect();
        let mut rounds = 0;
        while !work.is_empty() && rounds < DEPTH {
            rounds += 1;
            for block in std::mem::take(&mut work) {
                let Some(page) = blocks.get_mut(&block) else { continue };
                let Some(crc) = self.seal_node(block, page) else { continue };
                for (referrer, at) in self.referrers.get(&block).into_iter().flatten() {
                    let page = blocks.entry(*referrer).or_insert_with(|| self.peek(*referrer));
                    put(page, *at, crc);
                    work.push(*referrer);
                }
            }
        }
        self.seal_checkpoint(blocks);
        self.seal_frames(blocks);
        for (copy, block) in COPY_BLOCKS.iter().enumerate() {
            let Some(page) = blocks.get_mut(block) else { continue };
            put(page, 32, copy as u32);
            let mut uuid = [0; 16];
            uuid.copy_from_slice(&page[16..32]);
            let tag = superblock::pool_tag(&uuid);
            let crc = without(Salt::Superblock, tag, *block, page, SUPERBLOCK_CRC_AT);
            put(page, SUPERBLOCK_CRC_AT, crc);
        }
    }

    /// The checksum of a map node or blob, which it has from now on.
    fn seal_node(&self, block: u64, page: &mut [u8; BLOCK_SIZE]) -> Option<u32> {
        let was = self.peek(block);
        let (salt, at) = match &was[..4] {
            b"CMAP" => (Salt::MapNode, MAP_CRC_AT),
            b"CBLB" => (Salt::Blob, BLOB_CRC_AT),
            _ => return None,
        };
        let crc = without(salt, self.tag, block, page, at);
        put(page, at, crc);
        Some(crc)
    }

    /// Descriptors of pages that have changed, body and footer.
    fn seal_checkpoint(&self, blocks: &mut Blocks) {
        let cp = &self.cp;
        let start = self.layout.cp_start[Checkpoint::area(cp.seq)];
        let zones_at = 8 * (cp.chunks.len() + cp.withheld.len())
            + 24 * cp.damage.len()
            + 48 * cp.detached.len();
        let pages_at = zones_at + 16 * cp.zones.len();
        let mut crcs = Vec::new();
        for (zone, desc) in cp.zones.iter().enumerate().filter(|(_, desc)| !desc.fresh) {
            let home = self.layout.bitmap_home(zone as u64, desc.home);
            let page = blocks.get(&home.0);
            crcs.extend(page.map(|page| (zones_at + 16 * zone, bitmap_crc(page, self.tag, home))));
        }
        for (index, block) in table_blocks(&self.specimen.disk) {
            let (page, at) = (blocks.get(&block), pages_at + 16 * index as usize);
            crcs.extend(page.map(|page| (at, table_crc(page, self.tag, Phys(block)))));
        }
        for (at, crc) in crcs {
            let block = start + 1 + (at / BLOCK_SIZE) as u64;
            let page = blocks.entry(block).or_insert_with(|| self.peek(block));
            put(page, at % BLOCK_SIZE, crc);
        }
        if blocks.range(start..start + self.layout.cp_blocks).next().is_none() {
            return;
        }
        let mut header = blocks.get(&start).copied().unwrap_or_else(|| self.peek(start));
        let seq = number(&header, 16, 8);
        let crc = without(Salt::CheckpointHeader, self.tag, seq, &header, HEADER_CRC_AT);
        put(&mut header, HEADER_CRC_AT, crc);
        blocks.insert(start, header);
        let body = number(&header, BODY_LEN_AT, 8).div_ceil(BLOCK_SIZE as u64);
        let body = body.min(self.layout.cp_blocks - 2);
        let bytes: Vec<u8> = (start..start + 1 + body)
            .flat_map(|block| blocks.get(&block).copied().unwrap_or_else(|| self.peek(block)))
            .collect();
        let footer = blocks.entry(start + 1 + body).or_insert_with(|| self.peek(start + 1 + body));
        footer[..8].copy_from_slice(b"COWCPEND");
        footer[8..16].copy_from_slice(&seq.to_le_bytes());
        put(footer, 16, salted(Salt::CheckpointBody, self.tag, seq, &[&bytes]));
    }

    /// Every frame, from the first on: each has the chain of the one before it.
    fn seal_frames(&self, blocks: &mut Blocks) {
        let mut chain = self.cp.tail.chain;
        for &(at, count) in &self.frames {
            let mut bytes: Vec<u8> = (at..at + count)
                .flat_map(|block| blocks.get(&block).copied().unwrap_or_else(|| self.peek(block)))
                .collect();
            let seq = number(&bytes, 16, 8);
            bytes[24..32].copy_from_slice(&chain.to_le_bytes());
            let len = (number(&bytes, 48, 4) as usize).min(bytes.len() - HEADER_LEN);
            let payload =
                salted(Salt::FramePayload, self.tag, seq, &[&bytes[HEADER_LEN..HEADER_LEN + len]]);
            put(&mut bytes, FRAME_PAYLOAD_CRC_AT, payload);
            let header =
                without(Salt::FrameHeader, self.tag, seq, &bytes[..HEADER_LEN], FRAME_CRC_AT);
            put(&mut bytes, FRAME_CRC_AT, header);
            chain = Frame::decode(&bytes, self.tag, Phys(at)).map_or(chain, |(_, chain)| chain);
            for (block, bytes) in (at..).zip(bytes.chunks_exact(BLOCK_SIZE)) {
                let mut page = [0; BLOCK_SIZE];
                page.copy_from_slice(bytes);
                if page != self.peek(block) {
                    blocks.insert(block, page);
                }
            }
        }
    }
}
