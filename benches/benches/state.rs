//! The structures in memory: layers, lookups, the allocator, whose a block is that was replaced.

use cow_benches::criterion as configured;
use cow_benches::step::batched;
use cow_benches::steps::{state, tree};
use criterion::{Criterion, criterion_group, criterion_main};

const BATCH: u64 = 100_000;

fn insert(c: &mut Criterion) {
    c.bench_function("layer_insert_seq", |b| batched(b, BATCH, state::layer_insert_seq));
    c.bench_function("layer_insert_rand", |b| {
        batched(b, BATCH, || state::layer_insert_rand(BATCH));
    });
    c.bench_function("layer_insert_splice_1M", |b| {
        batched(b, 1000, state::layer_insert_splice_1m);
    });
}

fn lookup(c: &mut Criterion) {
    c.bench_function("lookup_active", |b| batched(b, u64::MAX, || state::lookup_active(BATCH)));
    for frozen in [1, 8, 64] {
        // Layers of 10,000 blocks: 64 of 100,000 are beyond what a pool keeps unfolded.
        let fresh = || state::lookup_frozen(BATCH / 10, frozen);
        c.bench_function(&format!("lookup_frozen{frozen}"), |b| batched(b, u64::MAX, fresh));
    }
    // 4 GiB of volume.
    c.bench_function("lookup_leaf_hit", |b| batched(b, u64::MAX, || state::lookup_leaf_hit(4096)));
}

fn alloc(c: &mut Criterion) {
    c.bench_function("alloc_frontier", |b| batched(b, BATCH, state::alloc_frontier));
    c.bench_function("alloc_hole", |b| batched(b, state::HOLES, state::alloc_hole));
}

fn kill(c: &mut Criterion) {
    for (name, count) in [("1_ancestor", 1), ("1000_ancestors", 1000)] {
        let fresh = || tree::kill_classify(count);
        c.bench_function(&format!("kill_classify_{name}"), |b| batched(b, u64::MAX, fresh));
    }
}

criterion_group! {
    name = state;
    config = configured();
    targets = insert, lookup, alloc, kill
}
criterion_main!(state);
