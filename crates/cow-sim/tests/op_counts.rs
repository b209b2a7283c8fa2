//! What operations cost, in device operations up to the acknowledgement.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Engine, Op, Reply, Stats};
use cow_sim::cmd::Cmd;
use cow_sim::oracle::Oracle;
use cow_sim::scripts::{clone, create, delete, flush, rollback, snapshot, write};
use cow_sim::sim::{Sim, Stop};
use cow_sim::{PoolOptions, format, small_config};

const GIB: u64 = 1 << 30;
/// Most blocks of a frame.
const FRAME_BLOCKS: u64 = 16;

type Pool = Sim<Engine>;

fn stats(pool: &mut Pool) -> Stats {
    match pool.aux(Op::Info { exact: false }) {
        Ok(Ok(Reply::Info(info))) => info.stats,
        other => panic!("info answered {other:?}"),
    }
}

fn done(result: Result<(), Stop>) {
    if let Err(stop) = result {
        panic!("{stop:?}");
    }
}

/// What was done from the submission to the reply.
#[derive(Debug)]
struct Cost {
    reads: u64,
    writes: u64,
    blocks: u64,
    flushes: u64,
    frames: u64,
    /// A fold was under way before the reply: its writes are counted too.
    fold: bool,
}

fn cost(pool: &mut Pool, cmds: &[Cmd]) -> Cost {
    done(pool.drain());
    done(pool.world.run_until_idle().map_err(Stop::Bug));
    let (before, disk) = (stats(pool), pool.world.disk().counts());
    for cmd in cmds {
        done(pool.run(cmd.clone()));
    }
    let (writes, blocks, flushes) = pool.world.disk().counts().since(&disk);
    let reads = pool.world.disk().counts().read.ops - disk.read.ops;
    let frames = stats(pool).frames - before.frames;
    done(pool.world.run_until_idle().map_err(Stop::Bug));
    let fold = stats(pool).folds > before.folds;
    Cost { reads, writes, blocks, flushes, frames, fold }
}

/// A volume with `leaves` blocks mapped over its whole length, each in a leaf of its own.
fn pool_with(size: u64, leaves: u64, snapshots: usize) -> Pool {
    let config = small_config(AckMode::Writethrough);
    let disk = format(&PoolOptions {
        blocks: 1 << 18,
        journal_blocks: 8192,
        limit_blocks: 1 << 18,
        ..PoolOptions::default()
    });
    let mut pool = Pool::new(disk, Oracle::new(AckMode::Writethrough), &config, 1);
    done(pool.open(false));
    done(pool.run(create("v", size)));
    let blocks = size / 4096;
    for leaf in 0..leaves {
        // Straight to the machine: the oracle need not know of blocks that nobody changes again.
        let lba = leaf * (blocks / leaves) + leaf % 200;
        fill(&mut pool, lba, leaf + 1);
    }
    for index in 0..snapshots {
        done(pool.run(snapshot(&[&format!("v@s{index}")])));
        if index % 20 == 19 {
            done(pool.run(Cmd::Checkpoint));
        }
    }
    done(pool.run(Cmd::Checkpoint));
    pool
}

fn fill(pool: &mut Pool, lba: u64, token: u64) {
    let opened = pool.aux(Op::OpenExport { name: "v".into(), write: true });
    let Ok(Ok(Reply::Export { export, .. })) = opened else { panic!("{opened:?}") };
    let data = cow_format::Buf::from_bytes(&[token as u8 | 1; 4096]);
    let op = Op::Write { export, offset: lba * 4096, len: 4096, data, fua: false };
    assert!(matches!(pool.aux(op), Ok(Ok(Reply::Done))));
    assert!(matches!(pool.aux(Op::CloseExport { export }), Ok(Ok(Reply::Done))));
}

fn one_frame_one_flush(size: u64, leaves: u64, snapshots: usize) {
    let mut pool = pool_with(size, leaves, snapshots);
    let verbs = [
        snapshot(&["v@new"]),
        clone("v@new", "c"),
        write("v", 0, 1, 1000),
        rollback(&["v@new"]),
        delete(&["v@new"]),
        delete(&["c"]),
    ];
    for verb in verbs {
        if !verb.is_verb() {
            done(pool.run(verb));
            done(pool.run(flush("v")));
            continue;
        }
        let cost = cost(&mut pool, std::slice::from_ref(&verb));
        println!("{size} bytes, {snapshots} snapshots, {verb:?}: {cost:?}");
        assert_eq!(cost.frames, 1, "{verb:?}");
        if !cost.fold {
            assert_eq!((cost.writes, cost.flushes), (1, 1), "{verb:?}");
            assert!(cost.blocks <= FRAME_BLOCKS, "{verb:?} wrote {} blocks", cost.blocks);
        }
    }
}

#[test]
fn a_verb_costs_one_frame_and_one_flush() {
    for (size, leaves) in [(GIB, 1024), (16 << 40, 16_384)] {
        for snapshots in [1, 1000] {
            one_frame_one_flush(size, leaves, snapshots);
        }
    }
}

#[test]
fn an_overwrite_after_a_snapshot_copies_nothing() {
    let mut pool = pool_with(GIB, 16, 1);
    for (token, lba) in [(2000, 0), (2010, 300)] {
        done(pool.run(snapshot(&[&format!("v@t{token}")])));
        let cost = cost(&mut pool, &[write("v", lba, 1, token), flush("v")]);
        assert!(!cost.fold, "nothing asks for a fold");
        assert_eq!((cost.blocks, cost.flushes), (2, 1), "one block of data and its frame");
        assert_eq!(cost.reads, 0, "what is replaced is not looked at");
    }
}
