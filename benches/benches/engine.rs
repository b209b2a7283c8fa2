//! The whole engine on a device in memory: verbs, and 4 KiB requests. Folds that fall due are
//! part of the figures of requests; what comes between two verbs is not part of theirs.

use cow_benches::ram::Ram;
use cow_benches::{Rng, block, criterion as configured};
use cow_engine::{ExportId, Op, SnapOptions, SnapTarget};
use cow_format::{BLOCK_SIZE, Buf};
use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use std::time::{Duration, Instant};

const BLOCK: u64 = BLOCK_SIZE as u64;
const VOLUME: &str = "vol";
/// Verbs between two folds: below the 64 layers at which a snapshot would wait for one.
const VERBS: u64 = 32;
/// Where requests go: 256 MiB.
const AREA_BLOCKS: u64 = 1 << 16;

fn target(snapshot: impl ToString) -> Vec<SnapTarget> {
    vec![SnapTarget { volume: VOLUME.into(), snapshot: snapshot.to_string() }]
}

fn write(export: ExportId, lba: u64, data: &Buf) -> Op {
    let (data, offset) = (data.clone(), lba * BLOCK);
    Op::Write { export, offset, len: BLOCK, data, fua: false }
}

/// Writes one block through an export of its own.
fn touch(ram: &mut Ram, lba: u64, data: &Buf) {
    let export = ram.open(VOLUME);
    ram.run(write(export, lba, data));
    ram.run(Op::CloseExport { export });
}

/// Times `verb` alone. Before each the volume changes; after every 32, and at the end, `clean`
/// undoes what they left, everything is folded and the space comes back.
fn verbs(
    bencher: &mut Bencher<'_>,
    ram: &mut Ram,
    verb: impl Fn(u64) -> Op,
    clean: impl Fn(u64) -> Option<Op>,
) {
    let data = Buf::from_bytes(&block(5));
    bencher.iter_custom(|iterations| {
        let mut total = Duration::ZERO;
        for first in (0..iterations).step_by(VERBS as usize) {
            let count = VERBS.min(iterations - first);
            for i in 0..count {
                touch(ram, i * 999, &data);
                let op = verb(i);
                let start = Instant::now();
                ram.run(op);
                total += start.elapsed();
            }
            if let Some(op) = clean(count) {
                ram.run(op);
            }
            ram.run(Op::Checkpoint);
            ram.run(Op::WaitReclaim);
        }
        total
    });
}

fn snapshot(c: &mut Criterion) {
    let cases = [("snapshot_1GiB", 1 << 30, 1024), ("snapshot_16TiB_sparse", 1 << 44, 0)];
    for (name, size_bytes, filled_mib) in cases {
        let mut ram = Ram::new(2);
        ram.volume(VOLUME, size_bytes);
        let export = ram.open(VOLUME);
        ram.fill(export, filled_mib);
        ram.run(Op::CloseExport { export });
        let take = |i| Op::Snapshot { targets: target(i), options: SnapOptions::default() };
        let delete = |count| {
            let names = (0..count).map(|i| format!("{VOLUME}@{i}")).collect();
            Some(Op::Delete { names, recursive: false, dry_run: false })
        };
        c.bench_function(name, |b| verbs(b, &mut ram, take, delete));
    }
}

fn rollback(c: &mut Criterion) {
    let mut ram = Ram::new(2);
    ram.volume(VOLUME, 1 << 30);
    let export = ram.open(VOLUME);
    ram.fill(export, 1024);
    ram.run(Op::CloseExport { export });
    ram.run(Op::Snapshot { targets: target("base"), options: SnapOptions::default() });
    let back = |_| Op::Rollback {
        targets: target("base"),
        discard_current: false,
        force: false,
        edits: Vec::new(),
    };
    c.bench_function("rollback", |b| verbs(b, &mut ram, back, |_| None));
}

fn requests(c: &mut Criterion) {
    let mut ram = Ram::new(2);
    ram.volume(VOLUME, 1 << 40);
    let export = ram.open(VOLUME);
    ram.fill(export, (AREA_BLOCKS * BLOCK) >> 20);
    let data = Buf::from_bytes(&block(5));
    let mut rng = Rng(9);
    c.bench_function("e2e_mem_r_qd1", |b| {
        b.iter(|| {
            let offset = rng.below(AREA_BLOCKS) * BLOCK;
            ram.run(Op::Read { export, offset, len: BLOCK })
        });
    });
    c.bench_function("e2e_mem_w_qd1", |b| {
        b.iter(|| ram.run(write(export, rng.below(AREA_BLOCKS), &data)));
    });
    // The time of one of 32 requests that are in flight together.
    c.bench_function("e2e_mem_w_qd32", |b| {
        b.iter_custom(|iterations| {
            let rounds = iterations.div_ceil(32);
            let start = Instant::now();
            for _ in 0..rounds {
                for _ in 0..32 {
                    ram.submit(write(export, rng.below(AREA_BLOCKS), &data));
                }
                ram.finish(32);
            }
            start.elapsed().mul_f64(iterations as f64 / (32 * rounds) as f64)
        });
    });
}

criterion_group! {
    name = engine;
    config = configured();
    targets = snapshot, rollback, requests
}
criterion_main!(engine);
