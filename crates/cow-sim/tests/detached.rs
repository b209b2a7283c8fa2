//! A discard of much cuts subtrees off, whatever hangs below them, and gives them back bit by bit.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Config, Engine, NodeInfo, Op, PoolInfo, Reply};
use cow_sim::cmd::Cmd;
use cow_sim::disk::Crash;
use cow_sim::oracle::Oracle;
use cow_sim::rng::Rng;
use cow_sim::scripts::{clone, create, delete, discard, rollback, snapshot, write};
use cow_sim::sim::{Sim, Stop, examine};
use cow_sim::{PoolOptions, format, small_config};

type Pool = Sim<Engine>;

const BLOCK: u64 = 4096;
/// Blocks below a map node of level 1.
const SPAN: u64 = 256 * 256;

fn done(result: Result<(), Stop>) {
    if let Err(stop) = result {
        panic!("{stop:?}");
    }
}

fn must(pool: &mut Pool, op: Op) -> Reply {
    let what = format!("{op:?}");
    match pool.aux(op) {
        Ok(Ok(reply)) => reply,
        other => panic!("{what} answered {other:?}"),
    }
}

fn info(pool: &mut Pool) -> PoolInfo {
    match must(pool, Op::Info { exact: false }) {
        Reply::Info(info) => *info,
        other => panic!("{other:?}"),
    }
}

fn describe(pool: &mut Pool, name: &str) -> NodeInfo {
    match must(pool, Op::Describe { names: vec![name.into()], exact: false }) {
        Reply::List(mut nodes) => nodes.remove(0),
        other => panic!("{other:?}"),
    }
}

fn config() -> Config {
    small_config(AckMode::Writethrough)
}

fn pool(seed: u64) -> Pool {
    let mut pool = Pool::new(
        format(&PoolOptions::default()),
        Oracle::new(AckMode::Writethrough),
        &config(),
        seed,
    );
    done(pool.open(false));
    pool
}

/// A volume of 16 TiB with one block in each of `leaves` leaves, spread over subtrees of level 1.
fn scattered(pool: &mut Pool, leaves: u64) {
    done(pool.run(create("v", 16 << 40)));
    for leaf in 0..leaves {
        done(pool.run(write("v", leaf % 4 * SPAN + leaf / 4 * 256, 1, 1 + 3 * leaf)));
    }
    done(pool.run(Cmd::Checkpoint));
    done(pool.run(Cmd::Checkpoint));
}

/// The fold that merges a discard reads as much when a hundred leaves hang below it as when few do;
/// one leaf more for each fold that follows.
#[test]
fn a_discard_reads_nothing_of_what_it_cuts_off() {
    let reads = |leaves: u64| {
        let mut pool = pool(leaves);
        scattered(&mut pool, leaves);
        // Nothing is in the cache after an open.
        must(&mut pool, Op::Close);
        pool.world.run_until_idle().unwrap();
        let (disk, oracle) = pool.crash(Crash::KeepAll);
        let mut pool = Pool::new(disk, oracle, &config(), leaves);
        done(pool.open(false));
        let before = info(&mut pool);
        done(pool.run(discard("v", 0, 4 * SPAN)));
        must(&mut pool, Op::Checkpoint);
        let after = info(&mut pool);
        assert!(describe(&mut pool, "v").referenced_bytes.is_none(), "some of it is not counted");
        done(pool.run(Cmd::WaitReclaim));
        let rest = info(&mut pool);
        assert_eq!(rest.data_bytes, 0);
        assert_eq!(describe(&mut pool, "v").referenced_bytes, Some(0));
        done(pool.reconcile());
        after.stats.map_nodes_read - before.stats.map_nodes_read
    };
    let (few, many) = (reads(8), reads(400));
    // The way to the subtrees, and a leaf that the same fold gives back.
    let most = 6;
    assert!(few <= most && many <= most, "{few} map nodes for 8 leaves, {many} for 400");
}

/// Snapshots, clones and rollbacks of what is being given back; then all of it is counted right.
#[test]
fn what_branches_off_meanwhile_is_counted_right() {
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        let mut pool = pool(seed);
        scattered(&mut pool, 40);
        done(pool.run(snapshot(&["v@before"])));
        for at in 0..10 {
            done(pool.run(write("v", at % 4 * SPAN + 7, 3, 10_000 + 10 * at)));
        }
        done(pool.run(Cmd::Checkpoint));
        done(pool.run(discard("v", 0, 4 * SPAN)));
        done(pool.run(snapshot(&["v@after"])));
        done(pool.run(Cmd::Checkpoint));
        done(pool.run(clone("v@after", "c")));
        done(pool.run(write("c", 5, 2, 20_000)));
        if rng.one_in(2) {
            done(pool.run(rollback(&["v@after"])));
        }
        if rng.one_in(2) {
            done(pool.run(delete(&["v@before"])));
        }
        for _ in 0..rng.below(8) {
            done(pool.run(Cmd::Checkpoint));
        }
        let how = Crash::random(&mut rng);
        let (disk, oracle) = pool.crash(how);
        // The checker looks at the disk as it is, and after a recovery.
        examine::<Engine>(&disk, how.is_kill(), &oracle, &config(), &mut rng).unwrap();
        let mut pool = Pool::new(disk, oracle, &config(), seed);
        done(pool.open(how.is_kill()));
        done(pool.run(Cmd::WaitReclaim));
        done(pool.reconcile());
        for name in ["v", "v@after"] {
            assert_eq!(describe(&mut pool, name).referenced_bytes, Some(0), "seed {seed}, {name}");
        }
        assert_eq!(describe(&mut pool, "c").referenced_bytes, Some(2 * BLOCK), "seed {seed}");
    }
}
