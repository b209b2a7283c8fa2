//! What is done to a pool: to one block each time.

use super::specimen::Specimen;
use crate::rng::mix;
use crate::value::Page;
use cow_format::BLOCK_SIZE;
use cow_format::checkpoint;
use cow_format::frame;
use cow_format::superblock::COPY_BLOCKS;

/// What a device writes whole.
pub const SECTOR: usize = 512;
const SECTORS: usize = BLOCK_SIZE / SECTOR;
/// Older versions of a block that are tried, the youngest ones.
const VERSIONS: usize = 3;
/// Bytes of a superblock and of a checkpoint's header that are used; docs/format.md.
const SUPERBLOCK_LEN: usize = 936;
const CHECKPOINT_LEN: usize = 192;
/// Bits that are flipped together.
const BITS: u64 = 5;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A sector, or the block, reads as zeros.
    Zeroed,
    /// Some bits of a sector are wrong.
    Flipped,
    /// A sector, or the block, holds what it held so many versions before.
    Stale(usize),
    /// A sector, or the block, holds what belongs into the block before (-1) or behind (1).
    Misdirected(i64),
    /// This bit is wrong.
    Bit(u32),
}

/// To which block, and which sector of it; all of them if none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Harm {
    /// The block.
    pub block: u64,
    /// The sector.
    pub sector: Option<usize>,
    /// What.
    pub damage: Damage,
}

impl Harm {
    /// What the block holds afterwards; `None` if nothing changes.
    #[must_use]
    pub fn page(&self, specimen: &Specimen) -> Option<Page> {
        let before = specimen.disk.peek(self.block);
        let mut page = before;
        let range = match self.sector {
            Some(sector) => sector * SECTOR..(sector + 1) * SECTOR,
            None => 0..BLOCK_SIZE,
        };
        match self.damage {
            Damage::Zeroed => page[range].fill(0),
            Damage::Flipped => {
                for i in 0..BITS {
                    let bit = mix(self.block << 8 ^ range.start as u64 ^ mix(i)) as usize;
                    page[range.start + bit / 8 % SECTOR] ^= 1 << (bit % 8);
                }
            }
            Damage::Stale(version) => {
                let old = specimen.older.get(&self.block)?.iter().rev().nth(version)?;
                page[range.clone()].copy_from_slice(&old[range]);
            }
            Damage::Misdirected(step) => {
                let other = specimen.disk.peek(self.block.checked_add_signed(step)?);
                page[range.clone()].copy_from_slice(&other[range]);
            }
            Damage::Bit(bit) => page[bit as usize / 8] ^= 1 << (bit % 8),
        }
        (page != before).then_some(page)
    }
}

/// Every sector and every block of the used part, in every way that changes something.
#[must_use]
pub fn sectors(specimen: &Specimen) -> Vec<Harm> {
    let mut damages = vec![Damage::Zeroed, Damage::Misdirected(-1), Damage::Misdirected(1)];
    damages.extend((0..VERSIONS).map(Damage::Stale));
    let mut all = Vec::new();
    for block in specimen.used() {
        let mut pages = Vec::new();
        let flipped = (0..SECTORS).map(|sector| (Some(sector), Damage::Flipped));
        let rest = (0..SECTORS).map(Some).chain([None]);
        let rest = rest.flat_map(|sector| damages.iter().map(move |damage| (sector, *damage)));
        for (sector, damage) in flipped.chain(rest) {
            let harm = Harm { block, sector, damage };
            let Some(page) = harm.page(specimen) else { continue };
            if !pages.contains(&page) {
                pages.push(page);
                all.push(harm);
            }
        }
    }
    all
}

/// Every bit of every superblock copy, and of the header of every checkpoint and journal frame: with
/// `all` of their unused bytes too.
#[must_use]
pub fn bits(specimen: &Specimen, all: bool) -> Vec<Harm> {
    let used = |bytes| if all { BLOCK_SIZE } else { bytes };
    let mut harms = Vec::new();
    for block in specimen.used() {
        let page = specimen.disk.peek(block);
        let bytes = if COPY_BLOCKS.contains(&block) {
            used(SUPERBLOCK_LEN)
        } else if page[..8] == checkpoint::MAGIC {
            used(CHECKPOINT_LEN)
        } else if page[..4] == frame::MAGIC.to_le_bytes() {
            frame::HEADER_LEN
        } else {
            0
        };
        let bits = (0..bytes as u32 * 8).map(Damage::Bit);
        harms.extend(bits.map(|damage| Harm { block, sector: None, damage }));
    }
    harms
}
