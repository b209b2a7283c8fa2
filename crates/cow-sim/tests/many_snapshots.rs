//! What a snapshot and an open cost where there are many snapshots already, in device operations.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Config, Engine, ExportId, Op, Reply, SnapOptions, SnapTarget};
use cow_sim::disk::{Counts, Crash, SimDisk};
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};

type Pool = World<Engine>;

const BLOCK: u64 = 4096;
/// Every so many snapshots something was written in between.
const WRITTEN: u64 = 10;
/// Most that an open may read at 10,000 snapshots, for each block that it reads at one.
const OPEN_FACTOR: u64 = 2;

fn config() -> Config {
    small_config(AckMode::Writethrough)
}

fn ask(pool: &mut Pool, op: Op) -> Reply {
    let what = format!("{op:?}");
    pool.run_op(op).unwrap().unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn open(disk: SimDisk) -> Pool {
    let mut pool = Pool::new(disk, &config(), 1);
    ask(&mut pool, Op::Open { read_only: false });
    pool
}

fn export(pool: &mut Pool) -> ExportId {
    match ask(pool, Op::OpenExport { name: "v".into(), write: true }) {
        Reply::Export { export, .. } => export,
        other => panic!("{other:?}"),
    }
}

fn write(pool: &mut Pool, export: ExportId, lba: u64) {
    let data = cow_format::Buf::from_bytes(&[lba as u8 | 1; BLOCK as usize]);
    ask(pool, Op::Write { export, offset: lba % 4096 * BLOCK, len: BLOCK, data, fua: false });
}

fn snapshot(pool: &mut Pool, index: u64) {
    let target = SnapTarget { volume: "v".into(), snapshot: index.to_string() };
    ask(pool, Op::Snapshot { targets: vec![target], options: SnapOptions::default() });
}

/// Volume `v` has snapshots 0 to `until`.
fn take(pool: &mut Pool, export: ExportId, from: u64, until: u64) {
    for index in from..until {
        if index % WRITTEN == 0 {
            write(pool, export, index * 37);
        }
        snapshot(pool, index);
    }
    ask(pool, Op::Checkpoint);
    pool.run_until_idle().unwrap();
}

fn added(after: &Counts, before: &Counts) -> [u64; 5] {
    let [now, then] = [after, before]
        .map(|c| [c.read.ops, c.read.blocks, c.write.ops, c.write.blocks, c.flush.ops]);
    std::array::from_fn(|at| now[at] - then[at])
}

/// Blocks and operations of an open after a clean end.
fn cost_of_open(disk: &SimDisk) -> [u64; 5] {
    let mut pool = open(disk.crash(Crash::KeepAll));
    ask(&mut pool, Op::Close);
    let disk = pool.disk().crash(Crash::KeepAll);
    let before = disk.counts();
    added(&open(disk).disk().counts(), &before)
}

#[test]
fn snapshots_and_opens_cost_the_same_among_ten_thousand() {
    let mut pool = open(format(&PoolOptions {
        blocks: 1 << 18,
        limit_blocks: 1 << 18,
        journal_blocks: 8192,
        max_chunks: 16,
        ..PoolOptions::default()
    }));
    ask(&mut pool, Op::create_volume("v", 1 << 30, Vec::new()));
    let export = export(&mut pool);
    let (mut creates, mut opens) = (Vec::new(), Vec::new());
    let mut taken = 0;
    for count in [1, 1000, 10_000] {
        take(&mut pool, export, taken, count);
        opens.push(cost_of_open(pool.disk()));
        for index in count..count + 4 {
            let before = pool.disk().counts();
            snapshot(&mut pool, index);
            creates.push(added(&pool.disk().counts(), &before));
            pool.run_until_idle().unwrap();
        }
        taken = count + 4;
        println!("{count} snapshots: create {:?}, open {:?}", creates.last(), opens.last());
    }
    // Reads, their blocks, writes, their blocks, flushes.
    assert!(creates.iter().all(|cost| *cost == [0, 0, 1, 1, 1]), "{creates:?}");
    let [few, .., many] = opens.as_slice() else { panic!("{opens:?}") };
    assert!(many[1] <= OPEN_FACTOR * few[1], "blocks read at open: {} and {}", few[1], many[1]);
}
