//! A pool with a volume `v`, and snapshots of it.

use cow_engine::{AckMode, Config, ExportId, Op, Reply, SnapOptions, SnapTarget};
use cow_sim::disk::SimDisk;
use cow_sim::world::{Machine, World};
use cow_sim::{PoolOptions, format, small_config};

const BLOCK: u64 = 4096;
/// Every so many snapshots something was written in between.
const WRITTEN: u64 = 10;
/// Snapshots that are there when something is measured.
pub const COUNTS: [u64; 3] = [1, 1000, 10_000];

fn config() -> Config {
    small_config(AckMode::Writethrough)
}

pub fn ask<M: Machine>(pool: &mut World<M>, op: Op) -> Reply {
    let what = format!("{op:?}");
    pool.run_op(op).unwrap().unwrap_or_else(|error| panic!("{what}: {error}"))
}

pub fn open<M: Machine>(disk: SimDisk) -> World<M> {
    let mut pool = World::new(disk, &config(), 1);
    ask(&mut pool, Op::Open { read_only: false });
    pool
}

/// A pool with room for more than 10,000 snapshots, and in it a volume of 1 GiB.
pub fn large_pool<M: Machine>() -> World<M> {
    let mut pool = open(format(&PoolOptions {
        blocks: 1 << 18,
        limit_blocks: 1 << 18,
        journal_blocks: 8192,
        max_chunks: 16,
        ..PoolOptions::default()
    }));
    ask(&mut pool, Op::create_volume("v", 1 << 30, Vec::new()));
    pool
}

pub fn export<M: Machine>(pool: &mut World<M>) -> ExportId {
    match ask(pool, Op::OpenExport { name: "v".into(), write: true }) {
        Reply::Export { export, .. } => export,
        other => panic!("{other:?}"),
    }
}

pub fn write<M: Machine>(pool: &mut World<M>, export: ExportId, lba: u64) {
    let data = cow_format::Buf::from_bytes(&[lba as u8 | 1; BLOCK as usize]);
    ask(pool, Op::Write { export, offset: lba % 4096 * BLOCK, len: BLOCK, data, fua: false });
}

pub fn snapshot<M: Machine>(pool: &mut World<M>, index: u64) {
    let target = SnapTarget { volume: "v".into(), snapshot: index.to_string() };
    ask(pool, Op::Snapshot { targets: vec![target], options: SnapOptions::default() });
}

/// Volume `v` has snapshots 0 to `until`.
pub fn take<M: Machine>(pool: &mut World<M>, export: ExportId, from: u64, until: u64) {
    for index in from..until {
        if index % WRITTEN == 0 {
            write(pool, export, index * 37);
        }
        snapshot(pool, index);
    }
    ask(pool, Op::Checkpoint);
    pool.run_until_idle().unwrap();
}
