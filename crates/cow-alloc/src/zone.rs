//! What is known of single zones, and where in its zone a block lies.

use crate::bits::{Bits, Run};
use cow_format::Phys;
use cow_format::checkpoint::ZoneDesc;
use cow_format::geometry::ZONE_BLOCKS;

/// What is known of a zone that need not be resident.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ZoneState {
    /// Clear bits of `used`. Exact.
    pub avail: u16,
    /// No run of clear bits in `used` is longer, if `verified`; else most likely not.
    pub longest: u16,
    /// The page was seen, or the zone is fresh: the descriptor's `longest` is exact.
    pub verified: bool,
}

/// What a commit does to a zone.
#[derive(Clone, Default)]
pub(crate) struct StagedZone {
    pub desc: ZoneDesc,
    pub adds: Vec<Run>,
    pub frees: Vec<Run>,
}

impl StagedZone {
    /// Turns the image before the checkpoint into the one after it.
    pub fn apply(&self, image: &mut Bits) {
        self.adds.iter().for_each(|run| image.set_run(*run));
        self.frees.iter().for_each(|run| image.clear_run(*run));
    }
}

/// Part of a run that lies in one zone: the zone, the first bit and the length.
pub(crate) type Part = (u64, u32, u32);

/// Zone and bit of a block.
pub(crate) fn split(phys: Phys) -> (u64, u32) {
    (phys.0 / ZONE_BLOCKS, (phys.0 % ZONE_BLOCKS) as u32)
}

/// Cuts the part in the first zone off a run of blocks.
pub(crate) fn next_part(rest: &mut Option<(Phys, u64)>) -> Option<Part> {
    let (phys, blocks) = rest.take().filter(|(_, blocks)| *blocks > 0)?;
    let (zone, start) = split(phys);
    let len = blocks.min(ZONE_BLOCKS - u64::from(start));
    *rest = Some((phys.offset(len), blocks - len));
    Some((zone, start, len as u32))
}
