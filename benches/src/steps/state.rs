//! The structures in memory: layers, lookups, the allocator.

use crate::Rng;
use crate::step::Step;
use cow_alloc::{Allocator, Stream};
use cow_extent::{Layers, NodeCache, Probe};
use cow_format::checkpoint::ZoneDesc;
use cow_format::geometry::{Geometry, LayoutOptions};
use cow_format::mapnode::{MapNode, Slot, level_for};
use cow_format::{FamilyId, Gen, Lba, NodeId, Phys};
use std::hint::black_box;
use std::sync::Arc;

const NODE: NodeId = NodeId(1);
/// 1 TiB.
const VOLUME_BLOCKS: u64 = 1 << 28;
/// Blocks of the pool that [`alloc_hole`] allocates from: 256 MiB.
const HOLED_BLOCKS: u64 = 1 << 16;
/// One block of so many is free there.
const HOLED: u64 = 3;

/// `count` blocks at random places of a volume of 1 TiB, the same in every run.
fn places(count: u64) -> Vec<Lba> {
    let mut rng = Rng(1);
    (0..count).map(|_| Lba(rng.below(VOLUME_BLOCKS))).collect()
}

/// A layer gets block after block.
pub fn layer_insert_seq() -> impl Step {
    let (mut layers, top) = (Layers::default(), level_for(VOLUME_BLOCKS));
    move |call| layers.set_run(NODE, Lba(call), Phys(1 << 20 | call), &[call as u32], top)
}

/// A layer gets blocks at random places, up to `count`.
pub fn layer_insert_rand(count: u64) -> impl Step {
    let (mut layers, top) = (Layers::default(), level_for(VOLUME_BLOCKS));
    let places = places(count);
    move |call| {
        let lba = places[call as usize % places.len()];
        layers.set_run(NODE, lba, Phys(1 << 20 | call), &[call as u32], top);
    }
}

/// A layer gets whole leaves.
pub fn layer_insert_splice_1m() -> impl Step {
    let (mut layers, top) = (Layers::default(), level_for(VOLUME_BLOCKS));
    let crcs: Vec<u32> = (0..256).collect();
    move |call| {
        layers.set_run(NODE, Lba(call << 8), Phys((1u64 << 20) + (call << 8)), &crcs, top);
    }
}

/// Finds one of `count` random blocks of a layer.
pub fn lookup_active(count: u64) -> impl Step {
    lookup_frozen(count, 0)
}

/// Finds one of `count` random blocks of the oldest layer on a path, below `frozen` younger ones
/// that have others: what a read goes through in the head of as many snapshots that no fold has
/// seen.
pub fn lookup_frozen(count: u64, frozen: u64) -> impl Step {
    let (mut layers, top) = (Layers::default(), level_for(VOLUME_BLOCKS));
    let places = places(count);
    for node in 0..=frozen {
        for (i, lba) in places.iter().enumerate() {
            // Never the same block again, but the same leaf.
            let lba = Lba(lba.0 & !0xff | (lba.0 + node) & 0xff);
            layers.set_run(NodeId(1 + node), lba, Phys(1 << 20 | i as u64), &[i as u32], top);
        }
    }
    let path: Vec<NodeId> = (1..=1 + frozen).rev().map(NodeId).collect();
    move |call| {
        let lba = black_box(places[call as usize % places.len()]);
        let probes = path.iter().map(|node| layers.probe(*node, lba));
        black_box(probes.into_iter().find(|probe| *probe != Probe::Miss));
    }
}

/// A miss in the layer, then the leaf from the cache. `leaves` of them, each for 1 MiB of volume.
pub fn lookup_leaf_hit(leaves: u64) -> impl Step {
    let mut cache = NodeCache::new(64 << 20);
    for index in 0..leaves {
        let mut leaf = MapNode::empty(FamilyId(1), 0, index, Gen(1));
        let slot = |i: u64| Slot { phys: Phys(1 << 30 | i), birth: Gen(1), crc: i as u32 };
        leaf.slots_mut().iter_mut().zip(0..).for_each(|(s, i)| *s = slot(index << 8 | i));
        cache.insert(Phys(1 << 20 | index), index as u32, Arc::new(leaf));
    }
    let (idle, mut rng) = (Layers::default(), Rng(2));
    move |_| {
        let lba = Lba(black_box(rng.below(leaves << 8)));
        black_box(match idle.probe(NODE, lba) {
            Probe::Miss => {
                let leaf = cache.get(Phys(1 << 20 | lba.leaf()), lba.leaf() as u32);
                leaf.map(|leaf| leaf.slots()[usize::from(lba.slot())].phys)
            }
            Probe::Mapped(phys, _) => Some(phys),
            Probe::Hole => None,
        });
    }
}

/// An allocator of an empty pool.
fn allocator(blocks: u64) -> Allocator {
    let options = LayoutOptions {
        blocks,
        journal_blocks: None,
        limit_blocks: None,
        max_chunks: None,
        preallocated: false,
    };
    let geometry = match Geometry::plan(&options) {
        Ok(geometry) => geometry,
        Err(option) => panic!("no layout: {option}"),
    };
    let fresh = ZoneDesc { fresh: true, ..ZoneDesc::default() };
    let zones = vec![fresh; Geometry::zone_count(blocks) as usize];
    Allocator::new(geometry, blocks, 1, 1, zones)
}

fn take(alloc: &mut Allocator) -> Phys {
    match alloc.alloc(Stream::Random, 1) {
        Ok((phys, _)) => phys,
        Err(error) => panic!("no block: {error}"),
    }
}

/// Block after block of an empty pool of 16 GiB.
pub fn alloc_frontier() -> impl Step {
    let mut alloc = allocator(4 << 20);
    move |_| {
        black_box(take(&mut alloc));
    }
}

/// Calls that [`alloc_hole`] has holes for.
pub const HOLES: u64 = 10_000;

/// One block after the other where every third is free, and no two that adjoin.
pub fn alloc_hole() -> impl Step {
    let mut alloc = allocator(HOLED_BLOCKS);
    let free = alloc.free_blocks();
    let taken: Vec<Phys> = (0..free).map(|_| take(&mut alloc)).collect();
    let holes = taken.iter().filter(|phys| phys.0.is_multiple_of(HOLED));
    holes.for_each(|phys| alloc.give_back(*phys, 1));
    assert!(alloc.free_blocks() >= HOLES, "too few holes");
    move |_| {
        black_box(take(&mut alloc));
    }
}
