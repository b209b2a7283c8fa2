//! The whole engine on a device in memory: verbs, and 4 KiB requests. Folds that fall due are
//! part of the figures of requests; what comes between two verbs is not part of theirs.

use cow_benches::criterion as configured;
use cow_benches::ram::Ram;
use cow_benches::step::{Step, each};
use cow_benches::steps::engine::{self, BLOCK, Pool};
use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Instant;

/// Where requests go: 256 MiB.
const AREA_BLOCKS: u64 = 1 << 16;

fn bench(c: &mut Criterion, name: &str, begin: impl Fn() -> Box<dyn Step>) {
    let mut step = None;
    c.bench_function(name, |b| {
        // Made when it is wanted: criterion may leave it out.
        let (step, call) = step.get_or_insert_with(|| (begin(), 0));
        each(b, &mut **step, call);
    });
}

fn snapshots(c: &mut Criterion) {
    bench(c, "snapshot_1GiB", || {
        Box::new(engine::snapshot(Pool::new(Ram::new(2), 1 << 30, 1 << 10)))
    });
    bench(c, "snapshot_64GiB_mapped", || {
        Box::new(engine::snapshot(Pool::new(Ram::thin(80), 64 << 30, 64 << 10)))
    });
    bench(c, "snapshot_16TiB_sparse", || {
        Box::new(engine::snapshot(Pool::new(Ram::new(2), 1 << 44, 0)))
    });
    bench(c, "snapshot_at_10k", || {
        let mut pool = Pool::new(Ram::new(2), 4 << 30, 0);
        engine::populate(&mut pool, 10_000);
        Box::new(engine::snapshot(pool))
    });
    bench(c, "rollback", || Box::new(engine::rollback(Pool::new(Ram::new(2), 1 << 30, 1 << 10))));
    bench(c, "setsize_1000", || {
        Box::new(engine::set_size(Pool::new(Ram::new(2), 4 << 30, 0), 1000))
    });
}

fn requests(c: &mut Criterion) {
    let pool = || Pool::new(Ram::new(2), 1 << 40, (AREA_BLOCKS * BLOCK) >> 20);
    bench(c, "e2e_mem_r_qd1", || Box::new(engine::read(pool(), AREA_BLOCKS)));
    bench(c, "e2e_mem_w_qd1", || Box::new(engine::write(pool(), AREA_BLOCKS)));
    together(c, "e2e_mem_r_qd32", || Box::new(engine::reads(pool(), AREA_BLOCKS, 32)));
    together(c, "e2e_mem_w_qd32", || Box::new(engine::writes(pool(), AREA_BLOCKS, 32)));
}

/// The time of one of 32 requests that are in flight together.
fn together(c: &mut Criterion, name: &str, begin: impl Fn() -> Box<dyn Step>) {
    let mut step = None;
    c.bench_function(name, |b| {
        let step = step.get_or_insert_with(&begin);
        b.iter_custom(|iterations| {
            let rounds = iterations.div_ceil(32);
            let start = Instant::now();
            (0..rounds).for_each(|round| step.run(round));
            start.elapsed().mul_f64(iterations as f64 / (32 * rounds) as f64)
        });
    });
}

criterion_group! {
    name = engines;
    config = configured();
    targets = snapshots, requests
}
criterion_main!(engines);
