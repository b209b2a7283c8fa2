//! A deleted snapshot with several branches: what it still holds, who is told how much, and when.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Engine, NodeInfo, Op, Reply};
use cow_sim::cmd::Cmd;
use cow_sim::oracle::Oracle;
use cow_sim::scripts::{clone, create, delete, discard, snapshot, write};
use cow_sim::sim::{Sim, Stop};
use cow_sim::{PoolOptions, format, small_config};

type Pool = Sim<Engine>;

const BLOCK: u64 = 4096;

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

fn data_blocks(pool: &mut Pool) -> u64 {
    done(pool.run(Cmd::WaitReclaim));
    match must(pool, Op::Info { exact: true }) {
        Reply::Info(info) => info.data_bytes / BLOCK,
        other => panic!("{other:?}"),
    }
}

fn describe(pool: &mut Pool, name: &str) -> NodeInfo {
    match must(pool, Op::Describe { names: vec![name.into()], exact: true }) {
        Reply::List(mut nodes) => nodes.remove(0),
        other => panic!("{other:?}"),
    }
}

/// A golden image of 1,000 blocks over four leaves, `count` clones of it, and then it is deleted.
fn clones(count: u64) -> Pool {
    let config = small_config(AckMode::Writethrough);
    let mut pool = Pool::new(
        format(&PoolOptions::default()),
        Oracle::new(AckMode::Writethrough),
        &config,
        count,
    );
    done(pool.open(false));
    done(pool.run(create("gold", 1 << 30)));
    for at in 0..5 {
        done(pool.run(write("gold", 200 * at, 200, 1 + 300 * at)));
    }
    done(pool.run(snapshot(&["gold@v1"])));
    for number in 0..count {
        done(pool.run(clone("gold@v1", &format!("c{number}"))));
    }
    done(pool.run(delete(&["gold@v1"])));
    done(pool.run(delete(&["gold"])));
    pool
}

/// Blocks that only one clone still uses go with that clone; what none uses goes at once.
#[test]
fn a_deleted_image_holds_what_some_clone_uses() {
    let mut pool = clones(6);
    assert_eq!(data_blocks(&mut pool), 1000);
    // All but the last clone let go of everything, the last of a part.
    for number in 0..5 {
        done(pool.run(discard(&format!("c{number}"), 0, 1000)));
    }
    assert_eq!(data_blocks(&mut pool), 1000);
    done(pool.run(discard("c5", 300, 400)));
    assert_eq!(data_blocks(&mut pool), 600);
    done(pool.run(write("c5", 0, 100, 90_000)));
    assert_eq!(data_blocks(&mut pool), 600);
    done(pool.run(delete(&["c5"])));
    assert_eq!(data_blocks(&mut pool), 0);
    done(pool.reconcile());
}

/// A listing answers at once with bounds, has the maps read, and is exact when asked again, until
/// something changes.
#[test]
fn a_listing_becomes_exact_in_the_background() {
    let mut pool = clones(4);
    // Each of c0 .. c2 drops other blocks, so that each block is held by c3 and some of them.
    for number in 0..3 {
        done(pool.run(discard(&format!("c{number}"), 100 * number, 700)));
    }
    assert_eq!(data_blocks(&mut pool), 1000);
    // c3 alone has the blocks 200 .. 700, which the others have all dropped.
    let first = describe(&mut pool, "c3");
    assert!(!first.exact, "{first:?}");
    assert!(first.unique_bytes.unwrap() <= 500 * BLOCK);
    assert!(first.unique_bytes_max.unwrap() >= 500 * BLOCK);
    pool.world.run_until_idle().unwrap();
    let second = describe(&mut pool, "c3");
    assert!(second.exact, "{second:?}");
    assert_eq!(second.unique_bytes, Some(500 * BLOCK));
    assert_eq!(second.unique_bytes_max, Some(500 * BLOCK));
    // What an overwrite of new blocks changes has nothing to do with it ...
    done(pool.run(write("c1", 5000, 10, 70_000)));
    assert!(describe(&mut pool, "c3").exact);
    // ... but what was shared until now does.
    done(pool.run(write("c0", 750, 10, 80_000)));
    done(pool.run(write("c1", 800, 10, 81_000)));
    let third = describe(&mut pool, "c3");
    assert!(!third.exact, "{third:?}");
    pool.world.run_until_idle().unwrap();
    let fourth = describe(&mut pool, "c3");
    // 750 .. 760, which c0 alone had besides; 800 .. 810 c0 still has.
    assert_eq!((fourth.exact, fourth.unique_bytes), (true, Some(510 * BLOCK)));
    done(pool.run(write("c2", 150, 10, 82_000)));
    done(pool.run(discard("c0", 700, 100)));
    done(pool.run(discard("c1", 800, 200)));
    done(pool.run(discard("c2", 700, 300)));
    pool.world.run_until_idle().unwrap();
    let name = "c3".to_owned();
    let Reply::SetSize(size) = must(&mut pool, Op::SetSize { names: vec![name], wait: true })
    else {
        panic!("no size");
    };
    let before = data_blocks(&mut pool);
    done(pool.run(delete(&["c3"])));
    let after = data_blocks(&mut pool);
    assert!(size.exact);
    assert_eq!(size.data_bytes, (before - after) * BLOCK);
    done(pool.reconcile());
}
