//! A full pool never wedges (design section 7): what was acknowledged can be folded, ENOSPC comes
//! only when nothing is pending, and deletes, rollbacks and reads always work.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Engine, Op, Reply, SetSize};
use cow_sim::cmd::Cmd;
use cow_sim::oracle::Oracle;
use cow_sim::rng::Rng;
use cow_sim::scripts::{create, delete, discard, flush, rollback, snapshot, write};
use cow_sim::sim::{Sim, Stop, Tolerance};
use cow_sim::{PoolOptions, format, small_config};

type Pool = Sim<Engine>;

fn done(result: Result<(), Stop>) {
    if let Err(stop) = result {
        panic!("{stop:?}");
    }
}

fn pool(seed: u64) -> Pool {
    let config = small_config(AckMode::Writethrough);
    let disk = format(&PoolOptions::default());
    let mut pool = Pool::new(disk, Oracle::new(AckMode::Writethrough), &config, seed);
    pool.tolerate(Tolerance { no_space: true, ..Tolerance::default() });
    done(pool.open(false));
    pool
}

fn info(pool: &mut Pool) -> cow_engine::PoolInfo {
    match pool.aux(Op::Info { exact: true }) {
        Ok(Ok(Reply::Info(info))) => *info,
        other => panic!("info answered {other:?}"),
    }
}

/// Writes runs of blocks until one is refused; how many blocks went in.
fn fill(pool: &mut Pool, volume: &str, from: u64, token: &mut u64) -> u64 {
    let (mut at, mut run) = (from, 200);
    loop {
        let before = info(pool).stats.write_bytes;
        done(pool.run(write(volume, at, run, *token)));
        *token += run + 2;
        if info(pool).stats.write_bytes > before {
            at += run;
        } else if run == 1 {
            return at - from;
        } else {
            run /= 2;
        }
    }
}

fn set_size(pool: &mut Pool, name: &str) -> SetSize {
    match pool.aux(Op::SetSize { names: vec![name.to_owned()], wait: false }) {
        Ok(Ok(Reply::SetSize(size))) => size,
        other => panic!("the size of {name}: {other:?}"),
    }
}

#[test]
fn a_full_pool_goes_on() {
    for seed in 0..3 {
        let mut pool = pool(seed);
        let mut token = 1;
        done(pool.run(create("a", 1 << 30)));
        done(pool.run(create("b", 1 << 30)));
        let filled = fill(&mut pool, "a", 0, &mut token);
        assert!(filled > 20_000, "only {filled} blocks went into a pool of 32,768");
        done(pool.run(snapshot(&["a@full"])));
        done(pool.run(flush("a")));
        // Everything is shared with the snapshot: an overwrite would need a new block.
        let before = info(&mut pool).stats.writes;
        done(pool.run(write("a", 0, 200, token)));
        assert_eq!(info(&mut pool).stats.writes, before, "written without room");
        done(pool.reconcile());
        // Going back costs nothing, and undoing that either.
        done(pool.run(rollback(&["a@full"])));
        let size = set_size(&mut pool, "a@full");
        assert!(size.exact, "{size:?}");
        done(pool.run(delete(&["a@full"])));
        done(pool.run(Cmd::WaitReclaim));
        // The head alone has the blocks. A discard makes a little room, and with that overwrites
        // work as often as one likes: what each frees is back two checkpoints later.
        done(pool.run(discard("a", filled - 64, 64)));
        let mut rng = Rng::new(seed);
        for _ in 0..300 {
            let before = info(&mut pool).stats.writes;
            done(pool.run(write("a", rng.below(filled - 80), 1 + rng.below(8), token)));
            token += 20;
            assert!(info(&mut pool).stats.writes > before, "an overwrite was refused");
        }
        done(pool.reconcile());
        // A delete of everything gives everything back.
        done(pool.run(delete(&["a"])));
        done(pool.run(Cmd::WaitReclaim));
        done(pool.run(Cmd::Checkpoint));
        let left = info(&mut pool);
        assert_eq!(left.data_bytes, 0, "{left:?}");
        assert!(fill(&mut pool, "b", 0, &mut token) + 100 > filled);
        done(pool.reconcile());
        assert!(info(&mut pool).poisoned.is_none());
    }
}

/// What a dry run promises is what the delete then gives back, to the byte.
#[test]
fn a_delete_frees_what_it_said() {
    for seed in 0..20 {
        let mut pool = pool(seed);
        let mut rng = Rng::new(seed);
        let mut token = 1;
        done(pool.run(create("a", 1 << 30)));
        for snap in 0..6 {
            for _ in 0..rng.range(1, 30) {
                done(pool.run(write("a", rng.below(3000), 1 + rng.below(20), token)));
                token += 30;
            }
            done(pool.run(snapshot(&[&format!("a@s{snap}")])));
            if rng.one_in(2) {
                done(pool.run(Cmd::Checkpoint));
            }
        }
        for snap in [2, 0, 5, 1, 4, 3] {
            let name = format!("a@s{snap}");
            let promised = set_size(&mut pool, &name);
            assert!(promised.exact, "without branches every size is exact: {promised:?}");
            let before = info(&mut pool).data_bytes;
            done(pool.run(delete(&[&name])));
            done(pool.run(Cmd::WaitReclaim));
            let after = info(&mut pool).data_bytes;
            assert_eq!(before - after, promised.data_bytes, "seed {seed}, {name}");
        }
        done(pool.reconcile());
    }
}
