//! Bitmap pages: from and to the device.
//!
//! **Partial zones.** In the last zone of a pool the blocks past its end are set in the page when
//! it is written. A pool that grows does not rewrite the page; the blocks become free *by rule*,
//! and the descriptor's free count, which each checkpoint has, counts them at once. So a reader
//! knows from the descriptor (`end` is the end of the pool in the zone, by the size that the
//! checkpoint records):
//!
//! ```text
//!   page      |xx..x...x....|XXXXXXXXXXXX|XXXXXXX|     X: past the end when it was written
//!                           end - d      end
//!   d = free count of the descriptor - clear bits of the page below `end`
//! ```
//!
//! 1. blocks from `end` on are set, whatever the page says (it may have been written for a pool
//!    that had grown after the state of its checkpoint);
//! 2. if d > 0, the d blocks below `end` must be set in the page: it is older than the growth,
//!    and they are free.
//!
//! This needs no second descriptor field, and no write when a pool grows.

use crate::bits::{Bits, ZONE};
use cow_format::checkpoint::ZoneDesc;
use cow_format::geometry::{Geometry, ZONE_BLOCKS};
use cow_format::page::bitmap_crc;
use cow_format::{BLOCK_SIZE, FormatError, Phys, mutant};

/// What a checkpoint says about the blocks of one zone. For the checker.
pub struct ZoneImage {
    zone: u64,
    bits: Box<Bits>,
}

impl ZoneImage {
    /// Whether the block is in use, reserved by the layout or past the end of the pool. Blocks of
    /// other zones are not.
    pub fn is_used(&self, phys: Phys) -> bool {
        phys.0 / ZONE_BLOCKS == self.zone && self.bits.get((phys.0 % ZONE_BLOCKS) as u32)
    }

    /// The runs of blocks in use, `(first, blocks)`, reserved ones included.
    pub fn used_runs(&self) -> impl Iterator<Item = (Phys, u64)> + '_ {
        let base = Phys(self.zone * ZONE_BLOCKS);
        self.bits.runs().map(move |run| (base.offset(run.start.into()), run.len.into()))
    }

    /// Blocks that are free.
    pub fn free(&self) -> u64 {
        self.bits.free().into()
    }
}

/// Checks and reads the page of `zone` that a checkpoint describes by `desc`, the pool being
/// `pool_blocks` long in that checkpoint. `page` comes from the active home; for a fresh zone it
/// is not looked at.
///
/// # Errors
/// When the page is not the one that the descriptor means.
pub fn decode_page(
    geometry: &Geometry,
    pool_blocks: u64,
    pool_tag: u64,
    zone: u64,
    desc: &ZoneDesc,
    page: &[u8],
) -> Result<ZoneImage, FormatError> {
    let bits = decode(geometry, pool_blocks, pool_tag, zone, desc, page)?;
    Ok(ZoneImage { zone, bits })
}

pub(crate) fn decode(
    geometry: &Geometry,
    pool_blocks: u64,
    pool_tag: u64,
    zone: u64,
    desc: &ZoneDesc,
    page: &[u8],
) -> Result<Box<Bits>, FormatError> {
    if desc.fresh {
        return Ok(reserved(geometry, pool_blocks, zone));
    }
    let (what, at) = ("bitmap page", geometry.bitmap_home(zone, desc.home));
    let field = |field| FormatError::Field { what, at, field };
    let page = page.get(..BLOCK_SIZE).ok_or(field("length"))?;
    if bitmap_crc(page, pool_tag, at) != desc.crc && !mutant::is("bitmapblind") {
        return Err(FormatError::Checksum { what, at });
    }
    let mut bits = Bits::from_page(page);
    let end = end_in_zone(pool_blocks, zone);
    bits.set_range(end, ZONE - end);
    let grown = desc.free.checked_sub(bits.free()).ok_or(field("free"))?;
    let old_end = end.checked_sub(grown.into()).ok_or(field("free"))?;
    if bits.count_range(old_end, grown.into()) != u32::from(grown) {
        return Err(field("free"));
    }
    bits.clear_range(old_end, grown.into());
    if bits.contains(&reserved(geometry, pool_blocks, zone)) {
        Ok(bits)
    } else {
        Err(field("reserved blocks"))
    }
}

/// The bits that are set by rule: fixed areas and what lies past the end.
pub(crate) fn reserved(geometry: &Geometry, pool_blocks: u64, zone: u64) -> Box<Bits> {
    let mut bits = Bits::empty();
    for (start, len) in geometry.reserved_runs(zone, pool_blocks) {
        bits.set_range(start, len);
    }
    bits
}

/// Free blocks, and the longest free run, of a zone that was never written.
pub(crate) fn fresh_counts(geometry: &Geometry, pool_blocks: u64, zone: u64) -> (u16, u16) {
    if geometry.reserved_runs(zone, pool_blocks).is_empty() {
        // Nearly all zones of a large pool.
        return (ZONE as u16, ZONE as u16);
    }
    let rule = reserved(geometry, pool_blocks, zone);
    (rule.free(), rule.longest_free())
}

/// How many blocks of `zone` are inside of the pool.
pub(crate) fn end_in_zone(pool_blocks: u64, zone: u64) -> u32 {
    pool_blocks.saturating_sub(zone * ZONE_BLOCKS).min(ZONE_BLOCKS) as u32
}
