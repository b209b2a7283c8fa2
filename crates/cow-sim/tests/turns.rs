//! What nobody waits for lets others have their turn: a fold of many leaves, with nothing to wait
//! for itself, is not one long step.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pool;

use cow_engine::{AckMode, Config, Op, Reply, SnapTarget};
use cow_sim::small_config;
use pool::{MIB, Pool, write};

/// Blocks are written this far apart, each in a leaf of its own.
const LEAF: u64 = 256;
/// Few enough that a layer holds all of their changes, and the cache all of their nodes.
const LEAVES: u64 = 40;

fn with_leaves() -> (Pool, cow_engine::ExportId) {
    with_leaves_in(Pool::new(false))
}

fn with_leaves_in(mut pool: Pool) -> (Pool, cow_engine::ExportId) {
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

/// A fold that others are given most of the time of must not fall behind what they write.
#[test]
fn a_fold_that_can_hardly_keep_up_is_pressed() {
    let config = Config { layer_bytes: 4 << 10, ..small_config(AckMode::Writethrough) };
    let (mut pool, export) = with_leaves_in(Pool::with(config));
    pool.must(Op::Checkpoint);
    assert!(!pool.world.is_pressed(), "nothing is behind");
    pool.write(export, 0, 1).unwrap();
    let fold = pool.world.start_op(Op::Checkpoint);
    let (mut written, mut answered, mut over) = (0, 0, false);
    while !pool.world.is_pressed() {
        assert!(!over, "{written} writes during a fold, and it is not pressed");
        // All at once: a layer is full long before the fold has gone through its leaves.
        while written < answered + 64 {
            pool.world.start_op(write(export, written * 37 % (LEAVES * LEAF), 1));
            written += 1;
        }
        pool.world.pump().unwrap();
        while let Some((id, result)) = pool.world.take_reply() {
            result.unwrap();
            over |= id == fold;
            answered += 1;
        }
    }
    while answered < written + 1 {
        pool.world.pump().unwrap();
        while let Some((_, result)) = pool.world.take_reply() {
            result.unwrap();
            answered += 1;
        }
    }
    pool.must(Op::Checkpoint);
    pool.must(Op::Checkpoint);
    assert!(!pool.world.is_pressed(), "what was behind is done");
    pool.check();
}

/// Walks leaf by leaf what [`clones`] have, for `op`; writes are answered meanwhile.
fn is_walked_in_turns(op: Op) {
    let (mut pool, export) = clones();
    let (pauses, written) = watch(&mut pool, export, op);
    // A tick ends a pause too.
    assert!(pauses >= LEAVES / 2, "{pauses} pauses over {LEAVES} leaves");
    assert!(written >= 4, "{written} writes were answered meanwhile");
    pool.check();
}

/// A size that counts do not give: the image is deleted, and its clones have dropped what it had.
#[test]
fn writes_are_answered_while_a_size_is_walked() {
    let names = vec!["one@old".into(), "two@old".into()];
    is_walked_in_turns(Op::SetSize { names, wait: true });
}

#[test]
fn writes_are_answered_while_two_states_are_compared() {
    is_walked_in_turns(Op::Diff(cow_engine::DiffQuery::all("one@old", "one", 1000)));
}

#[test]
fn writes_are_answered_while_a_root_is_computed() {
    is_walked_in_turns(Op::Root { name: "one@old".into() });
}

/// Two clones of an image that is gone, every leaf of which each has written anew; and a volume to
/// write to. Nothing is to be folded.
fn clones() -> (Pool, cow_engine::ExportId) {
    let (mut pool, export) = with_leaves();
    pool.snapshot("vol", "image").unwrap();
    pool.must(Op::CloseExport { export });
    for name in ["one", "two"] {
        let source = SnapTarget { volume: "vol".into(), snapshot: "image".into() };
        pool.must(Op::Clone { source, name: name.into(), props: vec![] });
        pool.snapshot(name, "old").unwrap();
        let export = pool.open(name);
        for leaf in 0..LEAVES {
            pool.write(export, leaf * LEAF, 1).unwrap();
        }
        pool.must(Op::CloseExport { export });
    }
    pool.delete("vol");
    let export = pool.volume("busy", MIB, &[]);
    pool.must(Op::Checkpoint);
    (pool, export)
}
