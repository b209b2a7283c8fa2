//! Map nodes that lie near each other come with one read, and none is lost with its neighbour.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pool;

use cow_engine::{AckMode, Config, DiffQuery, ExportId, Op, Reply, SnapTarget};
use cow_sim::disk::{Class, Faults, NthFault};
use cow_sim::small_config;
use pool::{MIB, Pool};

const EIO: i32 = 5;
/// Blocks are written this far apart, each in a leaf of its own.
const LEAF: u64 = 256;
const LEAVES: u64 = 60;

/// A snapshot of many leaves, all of which were written anew after it, in a pool that has just been
/// opened: nothing of them is in memory.
fn written_anew() -> Pool {
    let config = small_config(AckMode::Writethrough);
    let mut pool = Pool::with(Config {
        layer_bytes: 8 << 20,
        cache_bytes: 8 << 20,
        walk_leaves: 8192,
        ..config
    });
    let export = pool.volume("vol", LEAVES * MIB, &[]);
    let write = |pool: &mut Pool, export: ExportId| {
        for leaf in 0..LEAVES {
            pool.write(export, leaf * LEAF, 1).unwrap();
        }
        pool.must(Op::Checkpoint);
    };
    write(&mut pool, export);
    pool.snapshot("vol", "old").unwrap();
    write(&mut pool, export);
    pool.must(Op::Close);
    pool.world.run_until_idle().unwrap();
    pool.restart();
    pool
}

/// Deletes the snapshot; device reads, and map nodes read, that this took.
fn delete(pool: &mut Pool) -> (u64, u64) {
    let (reads, nodes) = (pool.world.disk().counts().read.ops, pool.info().stats.map_nodes_read);
    pool.delete("vol@old");
    let stats = pool.info().stats;
    (pool.world.disk().counts().read.ops - reads, stats.map_nodes_read - nodes)
}

#[test]
fn a_walk_reads_many_leaves_at_once() {
    let mut pool = written_anew();
    let (reads, nodes) = delete(&mut pool);
    assert!((2 * LEAVES..=2 * LEAVES + 8).contains(&nodes), "{nodes} map nodes");
    assert!(reads <= LEAVES / 3, "{reads} reads of {nodes} map nodes");
    pool.check();
}

#[test]
fn where_such_a_read_fails_each_node_is_read_by_itself() {
    let (whole, _) = delete(&mut written_anew());
    let mut pool = written_anew();
    let data = pool.info().data_bytes;
    // The tenth read and those after it, for a while: some of them are of several nodes.
    let faults =
        (10..13).map(|nth| NthFault { class: Class::Read, nth, sticky: false, errno: EIO });
    let faults = Faults { nth: faults.collect(), ..Faults::default() };
    pool.world.disk_mut().set_faults(faults, 1);
    let (reads, _) = delete(&mut pool);
    assert!(reads >= whole + 10, "{reads} reads, {whole} without: none of many nodes has failed");
    assert_eq!(pool.info().data_bytes, data - LEAVES * 4096, "nothing is left behind");
    pool.check();
}

/// Two clones of an image that is gone, both written anew where it had something; nothing of them
/// is in memory.
fn clones() -> Pool {
    let config = small_config(AckMode::Writethrough);
    let config = Config { layer_bytes: 8 << 20, cache_bytes: 8 << 20, ..config };
    let mut pool = Pool::with(Config { walk_leaves: 8192, ..config });
    let export = pool.volume("vol", LEAVES * MIB, &[]);
    let write = |pool: &mut Pool, export: ExportId| {
        for leaf in 0..LEAVES {
            pool.write(export, leaf * LEAF, 1).unwrap();
        }
        pool.must(Op::Checkpoint);
        pool.must(Op::CloseExport { export });
    };
    write(&mut pool, export);
    pool.snapshot("vol", "image").unwrap();
    for name in ["one", "two"] {
        let source = SnapTarget { volume: "vol".into(), snapshot: "image".into() };
        pool.must(Op::Clone { source, name: name.into(), props: vec![] });
        pool.snapshot(name, "old").unwrap();
        let export = pool.open(name);
        write(&mut pool, export);
    }
    pool.delete("vol");
    pool.must(Op::Close);
    pool.world.run_until_idle().unwrap();
    pool.restart();
    pool
}

/// Device reads, and map nodes read, that `op` takes.
fn cost(pool: &mut Pool, op: Op) -> (u64, u64) {
    let (reads, nodes) = (pool.world.disk().counts().read.ops, pool.info().stats.map_nodes_read);
    pool.must(op);
    let stats = pool.info().stats;
    (pool.world.disk().counts().read.ops - reads, stats.map_nodes_read - nodes)
}

#[test]
fn a_size_a_comparison_and_a_root_read_many_leaves_at_once() {
    let mut pool = clones();
    let names = vec!["one@old".into(), "two@old".into()];
    let (reads, nodes) = cost(&mut pool, Op::SetSize { names, wait: true });
    // Those of the image, which both snapshots share, and of both heads.
    assert!((3 * LEAVES..=3 * LEAVES + 8).contains(&nodes), "{nodes} map nodes");
    assert!(reads <= LEAVES / 2, "{reads} reads of {nodes} map nodes");

    let mut pool = clones();
    let query = DiffQuery::all("one@old", "one", 1000);
    let (reads, nodes) = cost(&mut pool, Op::Diff(query));
    assert!((2 * LEAVES..=2 * LEAVES + 8).contains(&nodes), "{nodes} map nodes");
    assert!(reads <= LEAVES / 3, "{reads} reads of {nodes} map nodes");

    let mut pool = clones();
    let (reads, nodes) = cost(&mut pool, Op::Root { name: "one@old".into() });
    assert!((LEAVES..=LEAVES + 8).contains(&nodes), "{nodes} map nodes");
    // And one of the block in each of them.
    assert!(reads <= LEAVES + LEAVES / 4, "{reads} reads of {nodes} map nodes");
}

/// An answer of one extent reads the path to that, and not what comes after.
#[test]
fn a_short_answer_reads_little_ahead() {
    let mut pool = clones();
    let (_, nodes) = cost(&mut pool, Op::Diff(DiffQuery::all("one@old", "one", 1)));
    assert!(nodes <= 10, "{nodes} map nodes for one extent");
}

#[test]
fn a_size_is_exact_where_reads_of_many_leaves_fail() {
    let size = |pool: &mut Pool| {
        let names = vec!["one@old".into(), "two@old".into()];
        match pool.must(Op::SetSize { names, wait: true }) {
            Reply::SetSize(size) => size,
            other => panic!("{other:?}"),
        }
    };
    let want = size(&mut clones());
    assert!(want.exact && want.data_bytes == LEAVES * 4096, "{want:?}");
    let mut pool = clones();
    let faults = (3..6).map(|nth| NthFault { class: Class::Read, nth, sticky: false, errno: EIO });
    let faults = Faults { nth: faults.collect(), ..Faults::default() };
    pool.world.disk_mut().set_faults(faults, 1);
    assert_eq!((size(&mut pool).exact, size(&mut pool).data_bytes), (true, want.data_bytes));
}
