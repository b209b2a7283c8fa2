//! The allocator against an oracle that keeps a few flags for each block of the pool.

mod bits;
mod discard;
mod grow;
mod model;
mod oracle;
mod pages;
mod space;

use crate::{AllocError, Allocator};
use cow_format::geometry::{Geometry, LayoutOptions, ZONE_BLOCKS};
use cow_format::{Buf, Phys};
use std::collections::BTreeMap;

const TAG: u64 = 0xa110c;

fn layout(blocks: u64, limit: u64) -> Geometry {
    Geometry::plan(&LayoutOptions {
        blocks,
        journal_blocks: Some(64),
        limit_blocks: Some(limit),
        max_chunks: Some(1),
        preallocated: false,
    })
    .unwrap()
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The blocks that were written.
type Disk = BTreeMap<Phys, Buf>;

/// Asks until the allocator no longer needs a page.
fn ask<T>(
    alloc: &mut Allocator,
    disk: &Disk,
    mut call: impl FnMut(&mut Allocator) -> Result<T, AllocError>,
) -> Result<T, AllocError> {
    for _ in 0..100_000 {
        match call(alloc) {
            Err(AllocError::NeedZone(zone)) => load(alloc, disk, zone),
            other => return other,
        }
    }
    panic!("the allocator asks for pages for ever");
}

fn load(alloc: &mut Allocator, disk: &Disk, zone: u64) {
    let home = alloc.page_to_load(zone).expect("a zone that was asked for has a page");
    alloc.load_zone(zone, &disk[&home]).unwrap();
    assert!(alloc.is_resident(zone));
}

/// An empty pool of fresh zones.
fn fresh(geometry: &Geometry, blocks: u64) -> Allocator {
    Allocator::new(geometry.clone(), blocks, TAG, 1, Vec::new())
}

/// Data blocks of a pool, by the layout alone.
fn data_blocks(geometry: &Geometry, blocks: u64) -> u64 {
    (0..blocks).filter(|block| geometry.is_data(Phys(*block), blocks)).count() as u64
}

fn zone_of(phys: Phys) -> u64 {
    phys.0 / ZONE_BLOCKS
}
