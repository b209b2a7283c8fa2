//! The structures in memory: layers, lookups, the allocator.

use cow_alloc::{Allocator, Stream};
use cow_benches::{Rng, batched, criterion as configured};
use cow_extent::{Layers, NodeCache, Probe};
use cow_format::checkpoint::ZoneDesc;
use cow_format::geometry::{Geometry, LayoutOptions};
use cow_format::mapnode::{MapNode, Slot, level_for};
use cow_format::{FamilyId, Gen, Lba, NodeId, Phys};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;

const NODE: NodeId = NodeId(1);
/// 1 TiB.
const VOLUME_BLOCKS: u64 = 1 << 28;
const BATCH: u64 = 100_000;

/// Blocks at random places of the volume, the same in every run.
fn places() -> Vec<Lba> {
    let mut rng = Rng(1);
    (0..BATCH).map(|_| Lba(rng.below(VOLUME_BLOCKS))).collect()
}

fn insert(c: &mut Criterion) {
    let top = level_for(VOLUME_BLOCKS);
    c.bench_function("layer_insert_seq", |b| {
        batched(b, BATCH, Layers::default, |layers, i| {
            layers.set_run(NODE, Lba(i), Phys(1 << 20 | i), &[i as u32], top);
        });
    });
    let places = places();
    c.bench_function("layer_insert_rand", |b| {
        batched(b, BATCH, Layers::default, |layers, i| {
            layers.set_run(NODE, places[i as usize], Phys(1 << 20 | i), &[i as u32], top);
        });
    });
    let crcs: Vec<u32> = (0..256).collect();
    c.bench_function("layer_insert_splice_1M", |b| {
        batched(b, 1000, Layers::default, |layers, i| {
            layers.set_run(NODE, Lba(i << 8), Phys((1 << 20) + (i << 8)), &crcs, top);
        });
    });
}

fn lookup(c: &mut Criterion) {
    let top = level_for(VOLUME_BLOCKS);
    let places = places();
    let mut layers = Layers::default();
    for (i, &lba) in places.iter().enumerate() {
        layers.set_run(NODE, lba, Phys(1 << 20 | i as u64), &[i as u32], top);
    }
    let mut at = 0;
    c.bench_function("lookup_active", |b| {
        b.iter(|| {
            at = (at + 1) % places.len();
            layers.probe(NODE, black_box(places[at]))
        });
    });
    // A miss in the layer, then the leaf from the cache. 4096 leaves: 4 GiB of volume.
    let mut cache = NodeCache::new(64 << 20);
    for index in 0..4096 {
        let mut leaf = MapNode::empty(FamilyId(1), 0, index, Gen(1));
        let slot = |i: u64| Slot { phys: Phys(1 << 30 | i), birth: Gen(1), crc: i as u32 };
        leaf.slots_mut().iter_mut().zip(0..).for_each(|(s, i)| *s = slot(index << 8 | i));
        cache.insert(Phys(1 << 20 | index), index as u32, Arc::new(leaf));
    }
    let idle = Layers::default();
    c.bench_function("lookup_leaf_hit", |b| {
        b.iter(|| {
            at = (at + 1) % places.len();
            let lba = Lba(black_box(places[at]).0 & 0xf_ffff);
            match idle.probe(NODE, lba) {
                Probe::Miss => {
                    let leaf = cache.get(Phys(1 << 20 | lba.leaf()), lba.leaf() as u32);
                    leaf.map(|leaf| leaf.slots()[usize::from(lba.slot())].phys)
                }
                Probe::Mapped(phys, _) => Some(phys),
                Probe::Hole => None,
            }
        });
    });
}

/// An allocator of an empty pool of 16 GiB.
fn allocator() -> Allocator {
    let blocks = 4 << 20;
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

fn alloc(c: &mut Criterion) {
    c.bench_function("alloc_frontier", |b| {
        batched(b, BATCH, allocator, |alloc, _| {
            let run = alloc.alloc(Stream::Random, 1);
            debug_assert!(run.is_ok());
            run
        });
    });
}

criterion_group! {
    name = state;
    config = configured();
    targets = insert, lookup, alloc
}
criterion_main!(state);
