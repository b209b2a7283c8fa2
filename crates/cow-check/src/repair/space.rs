//! Blocks that a repair may write new metadata to: free in every intact checkpoint, reached by nothing, and
//! named by no record that a recovery may replay.

use super::base::Base;
use crate::bitmap::read_zone;
use crate::context::{Cx, Options};
use crate::reach::{Reach, ZoneBits};
use cow_format::checkpoint::Checkpoint;
use cow_format::geometry::ZONE_BLOCKS;
use cow_format::{Phys, mutant};
use std::collections::HashMap;

/// What is known of a zone.
struct Zone {
    used: ZoneBits,
    /// The bitmap page of the checkpoint could be read.
    is_known: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Space {
    zones: HashMap<u64, Zone>,
    next: u64,
    taken: Vec<Phys>,
}

impl Space {
    /// A block. With `whole`, everything that is reached is known, so that the zones whose bitmap page cannot be
    /// read have free blocks too.
    pub(super) fn take(
        &mut self,
        cx: &mut Cx<'_>,
        base: &Base,
        reach: &Reach,
        whole: bool,
    ) -> Option<Phys> {
        while self.next < base.cp.pool_blocks {
            let (zone, bit) = (self.next / ZONE_BLOCKS, (self.next % ZONE_BLOCKS) as u32);
            let known = self.zones.entry(zone).or_insert_with(|| look(cx, base, zone));
            if !known.is_known && !whole {
                self.next = (zone + 1) * ZONE_BLOCKS;
                continue;
            }
            let phys = Phys(self.next);
            self.next += 1;
            let is_used = known.used.get(bit) || reach.zone(zone).is_some_and(|used| used.get(bit));
            if !is_used {
                self.taken.push(phys);
                return Some(phys);
            }
        }
        None
    }

    /// All blocks that were taken.
    pub(super) fn taken(&self) -> &[Phys] {
        &self.taken
    }
}

fn look(cx: &mut Cx<'_>, base: &Base, zone: u64) -> Zone {
    let mut image = |cp: &Checkpoint| image(cx, base, cp, zone);
    let own = image(&base.cp);
    let is_known = own.is_some();
    let reserved = || ZoneBits::reserved(&base.sb.geometry, zone, base.cp.pool_blocks);
    let mut used = own.unwrap_or_else(reserved);
    used.add(&reserved());
    for other in base.others.iter().filter_map(image) {
        used.add(&other);
    }
    let range = zone * ZONE_BLOCKS..(zone + 1) * ZONE_BLOCKS;
    let named = base.named.iter().filter(|_| !mutant::is("namedtaken"));
    let named = named.flat_map(|(phys, blocks)| phys.0..phys.0 + blocks);
    let withheld = base.cp.withheld.iter().map(|phys| phys.0);
    for block in named.chain(withheld).filter(|block| range.contains(block)) {
        used.set((block % ZONE_BLOCKS) as u32);
    }
    Zone { used, is_known }
}

/// What a checkpoint says of a zone, if its page can be read.
pub(super) fn image(cx: &mut Cx<'_>, base: &Base, cp: &Checkpoint, zone: u64) -> Option<ZoneBits> {
    if zone >= cp.zones.len() as u64 {
        return None;
    }
    // What is wrong with it is told by the check.
    let findings = std::mem::take(&mut cx.report);
    let image = read_zone(cx, &base.sb.geometry, cp, zone);
    cx.report = findings;
    image
}

/// For reads that have nothing to tell.
pub(super) fn quiet() -> Options<'static> {
    Options { data: false, max_findings: 0, progress: None }
}
