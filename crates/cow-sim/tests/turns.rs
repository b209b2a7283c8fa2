//! What nobody waits for lets others have their turn: a fold of many leaves, with nothing to wait
//! for itself, is not one long step.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pool;

use cow_engine::{Op, Reply};
use pool::{MIB, Pool, write};

/// Blocks are written this far apart, each in a leaf of its own.
const LEAF: u64 = 256;
/// Few enough that a layer holds all of their changes, and the cache all of their nodes.
const LEAVES: u64 = 40;

fn with_leaves() -> (Pool, cow_engine::ExportId) {
    let mut pool = Pool::new(false);
    let export = pool.volume("vol", LEAVES * MIB, &[]);
    for leaf in 0..LEAVES {
        pool.write(export, leaf * LEAF, 1).unwrap();
    }
    (pool, export)
}

/// Runs `op`, which has a fold made; writes one after the other as soon as it pauses. How many
/// pauses there were, and how many of the writes were answered before it.
fn watch(pool: &mut Pool, export: cow_engine::ExportId, op: Op) -> (u64, u64) {
    let before = pool.world.resumed();
    let watched = pool.world.start_op(op);
    let (mut written, mut writing) = (0, None);
    loop {
        if pool.world.is_paused() && writing.is_none() {
            writing = Some(pool.world.start_op(write(export, 7, 1)));
        }
        while let Some((id, result)) = pool.world.take_reply() {
            result.unwrap();
            if id == watched {
                return (pool.world.resumed() - before, written);
            }
            assert_eq!(writing.take(), Some(id));
            written += 1;
        }
        pool.world.pump().unwrap();
    }
}

#[test]
fn writes_are_answered_while_a_fold_merges() {
    let (mut pool, export) = with_leaves();
    let (pauses, written) = watch(&mut pool, export, Op::Checkpoint);
    assert!(pauses >= LEAVES, "{pauses} pauses over {LEAVES} leaves");
    assert!(written >= 4, "{written} writes were answered meanwhile");
    pool.check();
}

#[test]
fn writes_are_answered_while_a_deleted_snapshot_is_walked() {
    let (mut pool, export) = with_leaves();
    pool.snapshot("vol", "old").unwrap();
    for leaf in 0..LEAVES {
        pool.write(export, leaf * LEAF, 1).unwrap();
    }
    assert!(matches!(pool.must(Op::Checkpoint), Reply::Done));
    let names = vec!["vol@old".into()];
    pool.must(Op::Delete { names, recursive: true, dry_run: false });
    let (pauses, written) = watch(&mut pool, export, Op::WaitReclaim);
    assert!(pauses >= LEAVES, "{pauses} pauses over {LEAVES} leaves");
    assert!(written >= 4, "{written} writes were answered meanwhile");
    pool.check();
}
