//! Groups of many volumes: more records than one frame holds, yet all of it or nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{
    AckMode, Engine, Error, NewVolume, NodeInfo, Op, PropEdit, Reply, SnapOptions, SnapTarget,
};
use cow_sim::disk::{Crash, SimDisk};
use cow_sim::rng::Rng;
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};

/// Most volumes of a group.
const MOST: usize = 1024;
/// Ways to die at each point.
const OUTCOMES: usize = 24;
/// Of the changes that the checkpoint after the group makes, one in so many is tried.
const SPARSE: u64 = 40;
/// Every so many volumes have data, which the snapshot has and the head after it has not.
const WRITTEN: usize = 100;
const BLOCK: u64 = 4096;

type Pool = World<Engine>;

fn ask(pool: &mut Pool, op: Op) -> Result<Reply, Error> {
    pool.run_op(op).expect("an answer")
}

fn name(index: usize) -> String {
    format!("volume-{index:0>40}")
}

fn targets(count: usize, snapshot: &str) -> Vec<SnapTarget> {
    let target = |index| SnapTarget { volume: name(index), snapshot: snapshot.into() };
    (0..count).map(target).collect()
}

/// A change of a property of each volume, to go with a group.
fn edits(count: usize, value: char) -> Vec<PropEdit> {
    let text = value.to_string().repeat(100);
    let edit = |index| PropEdit {
        name: name(index),
        changes: vec![("state".to_owned(), Some(text.clone()))],
    };
    (0..count).map(edit).collect()
}

fn snapshot(count: usize, to: &str) -> Op {
    let props = vec![("k".to_owned(), "v".repeat(2000))];
    let options = SnapOptions { props, edits: edits(count, 's'), ..SnapOptions::default() };
    Op::Snapshot { targets: targets(count, to), options }
}

fn rollback(count: usize) -> Op {
    Op::Rollback {
        targets: targets(count, "one"),
        discard_current: false,
        force: false,
        edits: edits(count, 'r'),
    }
}

fn write(pool: &mut Pool, byte: u8, count: usize) {
    for index in (0..count).step_by(WRITTEN) {
        let opened = ask(pool, Op::OpenExport { name: name(index), write: true });
        let Ok(Reply::Export { export, .. }) = opened else { panic!("{opened:?}") };
        let data = cow_format::Buf::from_bytes(&[byte; BLOCK as usize]);
        let op = Op::Write { export, offset: 0, len: BLOCK, data, fua: true };
        assert!(matches!(ask(pool, op), Ok(Reply::Done)));
        assert!(matches!(ask(pool, Op::CloseExport { export }), Ok(Reply::Done)));
    }
}

fn open(disk: SimDisk, seed: u64) -> Pool {
    let mut pool = Pool::new(disk, &small_config(AckMode::Writethrough), seed);
    assert!(matches!(ask(&mut pool, Op::Open { read_only: false }), Ok(Reply::Done)));
    pool
}

/// A pool of `count` volumes, some with data.
fn pool_of(count: usize, seed: u64) -> Pool {
    let options = PoolOptions { journal_blocks: 1024, max_chunks: 3, ..PoolOptions::default() };
    let mut pool = open(format(&options), seed);
    let new = |index| NewVolume { name: name(index), size_bytes: 1 << 20, props: Vec::new() };
    let volumes = (0..count).map(new).collect();
    let made = ask(&mut pool, Op::CreateVolumes { volumes, edits: Vec::new() });
    assert!(matches!(made, Ok(Reply::Nodes(nodes)) if nodes.len() == count));
    write(&mut pool, 1, count);
    pool
}

fn list(pool: &mut Pool) -> Vec<NodeInfo> {
    match ask(pool, Op::List { exact: false }) {
        Ok(Reply::List(nodes)) => nodes.into_iter().filter(|node| node.live).collect(),
        other => panic!("{other:?}"),
    }
}

fn first_byte(pool: &mut Pool, name: &str) -> u8 {
    let opened = ask(pool, Op::OpenExport { name: name.into(), write: false });
    let Ok(Reply::Export { export, .. }) = opened else { panic!("{opened:?}") };
    let Ok(Reply::Data { buf, skip }) = ask(pool, Op::Read { export, offset: 0, len: 1 }) else {
        panic!("no data")
    };
    assert!(matches!(ask(pool, Op::CloseExport { export }), Ok(Reply::Done)));
    buf[skip]
}

/// How many volumes the group has reached, in each of the ways in which that shows.
type Reached = fn(&mut Pool, usize) -> Vec<usize>;

/// The part of `count` volumes for which something holds, stretched to `MOST`.
fn share(found: usize, of: usize) -> usize {
    found * MOST / of
}

fn snapshot_reached(pool: &mut Pool, count: usize) -> Vec<usize> {
    let nodes = list(pool);
    let has = |pick: &dyn Fn(&NodeInfo) -> bool| nodes.iter().filter(|n| pick(n)).count();
    let one_group = nodes.iter().filter(|n| n.name.contains('@')).all(|n| n.group == 1);
    assert!(one_group, "snapshots of one instant share a group");
    vec![
        share(has(&|n| n.name.ends_with("@one")), count),
        share(
            has(&|n| n.props.iter().any(|(key, value)| key == "k" && value.len() == 2000)),
            count,
        ),
        share(has(&|n| n.props.iter().any(|(key, _)| key == "state")), count),
    ]
}

fn rollback_reached(pool: &mut Pool, count: usize) -> Vec<usize> {
    let nodes = list(pool);
    let has = |pick: &dyn Fn(&NodeInfo) -> bool| nodes.iter().filter(|n| pick(n)).count();
    let written: Vec<String> = (0..count).step_by(WRITTEN).map(name).collect();
    let back = written.iter().filter(|name| first_byte(pool, name) == 1).count();
    vec![
        share(has(&|n| n.rollback_gen == 1 && !n.name.contains('@')), count),
        share(has(&|n| n.props.iter().any(|(k, v)| k == "state" && v.starts_with('r'))), count),
        share(has(&|n| n.name.ends_with("@undo.1")), written.len()),
        share(back, written.len()),
    ]
}

/// Runs `op`, and dies at every change of the disk on the way; then a checkpoint, and dies at some.
fn dies_anywhere(pool: &mut Pool, count: usize, op: Op, reached: Reached, seed: u64) {
    let mut rng = Rng::new(seed);
    let (mut acked, mut seen) = (false, pool.disk().changes());
    let (mut all, mut none, mut points) = (0, 0, 0);
    let frames = pool.disk().counts().write.ops;
    pool.start_op(op);
    loop {
        if pool.disk().changes() != seen {
            seen = pool.disk().changes();
            points += 1;
            let outcomes = if acked { usize::from(points % SPARSE == 0) * 4 } else { OUTCOMES };
            for how in plan(pool.disk(), outcomes, &mut rng) {
                let crashed = pool.disk().crash(how);
                let found = reached(&mut open(crashed, rng.word()), count);
                let whole = found.iter().all(|&part| part == MOST);
                assert!(
                    whole || !acked && found.iter().all(|&part| part == 0),
                    "seed {seed}, point {points}, {how:?}, acknowledged {acked}: {found:?}"
                );
                *if whole { &mut all } else { &mut none } += 1;
            }
        }
        match pool.take_reply() {
            Some((_, Ok(Reply::Done))) => break,
            Some((_, Ok(_))) => {
                let wrote = pool.disk().counts().write.ops - frames;
                assert!(wrote > 1, "the group fits one frame: the test is about more");
                acked = true;
                pool.start_op(Op::Checkpoint);
            }
            Some((_, Err(error))) => panic!("{error}"),
            None => pool.pump().unwrap(),
        }
    }
    println!("{count} volumes, {points} points: {none} times nothing, {all} times everything");
    assert!(none > 0 && all > 0 && acked);
}

fn plan(disk: &SimDisk, outcomes: usize, rng: &mut Rng) -> Vec<Crash> {
    if outcomes == 0 { Vec::new() } else { Crash::plan(disk.pending_writes(), outcomes, rng) }
}

#[test]
fn a_crash_leaves_all_of_a_group_or_nothing() {
    let seed = cow_sim::run::seeds(1).start;
    let count = 300;
    let mut pool = pool_of(count, seed);
    dies_anywhere(&mut pool, count, snapshot(count, "one"), snapshot_reached, seed);
    write(&mut pool, 2, count);
    dies_anywhere(&mut pool, count, rollback(count), rollback_reached, seed + 1);
}

#[test]
fn a_group_of_1024_is_taken_and_one_more_refused() {
    let mut pool = pool_of(MOST + 1, 5);
    let taken = ask(&mut pool, snapshot(MOST, "one"));
    assert!(matches!(taken, Ok(Reply::Nodes(nodes)) if nodes.len() == MOST));
    assert_eq!(snapshot_reached(&mut pool, MOST), [MOST; 3]);
    write(&mut pool, 2, MOST);
    assert!(
        matches!(ask(&mut pool, rollback(MOST)), Ok(Reply::RolledBack(kept)) if kept.len() == MOST)
    );
    assert_eq!(rollback_reached(&mut pool, MOST), [MOST; 4]);
    let last = SnapTarget { volume: name(MOST), snapshot: "one".into() };
    let alone = Op::Snapshot { targets: vec![last], options: SnapOptions::default() };
    assert!(matches!(ask(&mut pool, alone), Ok(Reply::Nodes(_))));
    pool.run_until_idle().unwrap();
    let (before, nodes) = (pool.disk().counts(), list(&mut pool).len());
    for op in [snapshot(MOST + 1, "two"), rollback(MOST + 1)] {
        match ask(&mut pool, op) {
            Err(Error::Limit(text)) => assert!(text.contains("1025, at most 1024"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pool.disk().counts().since(&before), (0, 0, 0), "nothing is written");
    assert_eq!(list(&mut pool).len(), nodes);
}
