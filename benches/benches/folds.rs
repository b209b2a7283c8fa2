//! What takes milliseconds and more of the engine on a device in memory: folds, comparisons,
//! reclaim, recovery. Ten samples of one call each; what prepares a call is not in its figure.

use cow_benches::ram::Ram;
use cow_benches::step::{Step, each};
use cow_benches::steps::engine::{self, Pool};
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use std::time::Duration;

/// 4 GiB, all mapped.
const AREA_BLOCKS: u64 = 1 << 20;

fn bench(c: &mut Criterion, name: &str, begin: impl Fn() -> Box<dyn Step>) {
    let mut group = c.benchmark_group("folds");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(100));
    let mut step = None;
    group.bench_function(name, |b| {
        let (step, call) = step.get_or_insert_with(|| (begin(), 0));
        each(b, &mut **step, call);
    });
    group.finish();
}

fn empty(gib: u64) -> Pool {
    Pool::new(Ram::thin(gib), 64 << 30, 0)
}

fn mapped() -> Pool {
    Pool::new(Ram::thin(16), 4 << 30, 4 << 10)
}

fn folds(c: &mut Criterion) {
    bench(c, "fold_100k_rand", || Box::new(engine::fold_rand(empty(16), 100_000, 1 << 24)));
    bench(c, "fold_1M_seq", || Box::new(engine::fold_seq(empty(64), 1_000_000)));
}

fn diffs(c: &mut Criterion) {
    for (name, part) in [("diff_1pct", 100), ("diff_10pct", 10)] {
        let area = AREA_BLOCKS;
        bench(c, name, || Box::new(engine::diff(mapped(), area / part, area)));
    }
}

fn walks(c: &mut Criterion) {
    // 10,000 leaves of one block each, and 39 of 256.
    bench(c, "delete_walk_sparse", || Box::new(engine::delete_walk(empty(16), 10_000, 256)));
    bench(c, "delete_walk_dense", || Box::new(engine::delete_walk(empty(16), 10_000, 1)));
}

fn replays(c: &mut Criterion) {
    bench(c, "replay_1M", || Box::new(engine::replay(empty(64), 1_000_000)));
}

criterion_group!(all, folds, diffs, walks, replays);
criterion_main!(all);
