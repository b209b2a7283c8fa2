//! A pool that is overwritten gives back what was replaced long before nothing else is free: what comes
//! back late comes back in pieces of a block or two, and then random writes are as many on the device
//! as in place.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pool;

use cow_engine::{AckMode, Config, ExportId, Op, Reply};
use cow_sim::rng::Rng;
use cow_sim::{PoolOptions, format, small_config};
use pool::{BLOCK, MIB, Pool};

const POOL_BLOCKS: u64 = 1 << 16;
const LIVE_BLOCKS: u64 = 32 * MIB / BLOCK;

fn counts(pool: &mut Pool) -> (u64, u64, u64) {
    match pool.must(Op::Info { exact: false }) {
        Reply::Info(info) => {
            (info.free_bytes / BLOCK, info.stats.folds, info.stats.map_nodes_written)
        }
        other => panic!("info answered {other:?}"),
    }
}

/// A pool with a volume that nothing was written to.
fn new_pool() -> (Pool, ExportId) {
    let config = Config { layer_bytes: 64 << 20, ..small_config(AckMode::Writeback) };
    let disk = format(&PoolOptions {
        blocks: POOL_BLOCKS,
        journal_blocks: 8192,
        limit_blocks: POOL_BLOCKS,
        ..PoolOptions::default()
    });
    let mut pool = Pool::on(disk, config);
    pool.must(Op::Open { read_only: false });
    let export = pool.volume("v", 32 * MIB, &[]);
    (pool, export)
}

#[test]
fn what_was_replaced_comes_back_early() {
    let (mut pool, export) = new_pool();
    let mut rng = Rng::new(1);
    // Until a fold has seen that data is replaced, there is none for its sake.
    for lba in 0..LIVE_BLOCKS {
        pool.write(export, lba, 1).unwrap();
    }
    pool.must(Op::Checkpoint);
    for _ in 0..LIVE_BLOCKS {
        pool.write(export, rng.below(LIVE_BLOCKS), 1).unwrap();
    }
    pool.must(Op::Checkpoint);
    let (writes, mut least) = (40_000, u64::MAX);
    let (_, folds_before, nodes_before) = counts(&mut pool);
    for i in 0..writes {
        pool.write(export, rng.below(LIVE_BLOCKS), 1).unwrap();
        if i % 500 == 0 {
            // A fold goes on where nobody else asks for anything.
            pool.world.run_until_idle().unwrap();
            least = least.min(counts(&mut pool).0);
        }
    }
    let (_, folds, nodes) = counts(&mut pool);
    let (folds, nodes) = (folds - folds_before, nodes - nodes_before);
    println!("{folds} folds wrote {nodes} map nodes; {least} blocks were always free");
    assert!(least > POOL_BLOCKS * 2 / 5, "only {least} blocks were free");
    assert!(nodes <= writes / 16, "{nodes} map nodes for {writes} blocks of data");
    pool.check();
}

/// Nobody has seen yet whether what is written replaces something: it is found out while there is room.
#[test]
fn a_pool_is_not_full_before_it_is_known_what_was_replaced() {
    let (mut pool, export) = new_pool();
    let (mut rng, mut least) = (Rng::new(2), u64::MAX);
    for i in 0..POOL_BLOCKS {
        pool.write(export, rng.below(LIVE_BLOCKS), 1).unwrap();
        if i % 500 == 0 {
            pool.world.run_until_idle().unwrap();
            least = least.min(counts(&mut pool).0);
        }
    }
    assert!(least > POOL_BLOCKS * 2 / 5, "only {least} blocks were free");
    pool.check();
}

/// A fold that rests for the sake of writers must not rest until they wait for what it frees.
#[test]
fn a_fold_that_space_is_wanted_from_is_pressed() {
    let (mut pool, export) = new_pool();
    let mut rng = Rng::new(3);
    // While requests follow one another, a fold that has begun gets nothing done here.
    while !pool.world.is_pressed() {
        pool.write(export, rng.below(LIVE_BLOCKS), 1).unwrap();
        let (free, ..) = counts(&mut pool);
        assert!(free > POOL_BLOCKS / 4, "{free} blocks are free, and no fold is pressed");
    }
    pool.world.run_until_idle().unwrap();
    assert!(!pool.world.is_pressed());
    pool.check();
}
