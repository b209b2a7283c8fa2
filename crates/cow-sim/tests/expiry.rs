//! Snapshots that expire: what goes by itself, what stays, and what a clock that jumps may not do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod aged;

use aged::{DAY, HOUR, MINUTE, Pool};
use cow_engine::{EventKind, Op, Reply, SnapTarget};
use cow_sim::world::WALL_START_NS;

fn expired(name: &str) -> EventKind {
    EventKind::Expired { names: vec![name.to_owned()], count: 1 }
}

#[test]
fn what_has_expired_goes_and_what_is_held_or_open_stays() {
    let mut pool = Pool::new();
    for name in ["held", "open", "origin", "soon", "stays"] {
        pool.snapshot(name, if name == "stays" { 0 } else { WALL_START_NS + HOUR });
    }
    pool.hold(true);
    let Reply::Export { export, .. } =
        pool.must(Op::OpenExport { name: "v@open".into(), write: false })
    else {
        panic!("no export");
    };
    let source = SnapTarget { volume: "v".into(), snapshot: "origin".into() };
    pool.must(Op::Clone { source, name: "c".into(), props: vec![] });
    pool.pass(59 * MINUTE);
    assert_eq!(pool.names().len(), 7, "nothing goes before its time");
    pool.pass(2 * MINUTE);
    assert_eq!(pool.names(), ["c", "v", "v@held", "v@open", "v@stays"]);
    let names = vec!["v@origin".to_owned(), "v@soon".to_owned()];
    assert_eq!(pool.kinds(), [EventKind::Expired { names, count: 2 }]);

    pool.must(Op::CloseExport { export });
    pool.hold(false);
    pool.pass(3 * MINUTE);
    assert_eq!(pool.names(), ["c", "v", "v@stays"], "what stood in the way is gone");
    assert!(!pool.0.wants_tick());
}

#[test]
fn an_undo_snapshot_expires_after_a_week() {
    let mut pool = Pool::new();
    pool.snapshot("s", 0);
    pool.roll_back();
    pool.pass(7 * DAY - MINUTE);
    assert_eq!(pool.names(), ["v", "v@s", "v@undo.1"]);
    pool.pass(2 * MINUTE);
    assert_eq!(pool.names(), ["v", "v@s"]);
}

#[test]
fn one_that_has_a_name_of_its_own_does_not_expire() {
    let mut pool = Pool::new();
    pool.snapshot("s", 0);
    pool.roll_back();
    pool.roll_back();
    assert_eq!(pool.names(), ["v", "v@s", "v@undo.1", "v@undo.2"]);
    pool.must(Op::Rename { name: "v@undo.1".into(), to: "mine".into() });
    // Neither the journal nor a checkpoint may lose when an undo snapshot expires.
    let mut pool = pool.again(WALL_START_NS + HOUR);
    pool.must(Op::Checkpoint);
    let mut pool = pool.again(WALL_START_NS + 2 * HOUR);
    pool.pass(7 * DAY - 3 * HOUR);
    assert_eq!(pool.names(), ["v", "v@mine", "v@s", "v@undo.2"]);
    pool.pass(4 * HOUR);
    assert_eq!(pool.names(), ["v", "v@mine", "v@s"]);
    assert_eq!(pool.kinds(), [expired("v@undo.2")]);
}

#[test]
fn many_go_in_steps() {
    let mut pool = Pool::new();
    for n in 0..600 {
        pool.snapshot(&format!("s{n}"), WALL_START_NS + DAY + n);
    }
    pool.pass(DAY + MINUTE);
    assert_eq!(pool.names(), ["v"]);
    let counts: Vec<u64> = pool
        .kinds()
        .into_iter()
        .map(|kind| match kind {
            EventKind::Expired { names, count } if names.len() == 16 => count,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(counts, [256, 256, 88]);
}

#[test]
fn a_moment_after_opening_nothing_goes() {
    let mut pool = Pool::new();
    pool.snapshot("s", WALL_START_NS + HOUR);
    let mut pool = pool.again(WALL_START_NS + 2 * HOUR);
    pool.pass(MINUTE / 2);
    assert_eq!(pool.names(), ["v", "v@s"]);
    pool.must(Op::Close);
    let mut pool = pool.again(WALL_START_NS + 3 * HOUR);
    pool.pass(2 * MINUTE);
    assert_eq!(pool.names(), ["v"]);
}

#[test]
fn a_clock_that_jumps_ahead_is_not_believed_at_once() {
    let mut pool = Pool::new();
    pool.snapshot("s", WALL_START_NS + HOUR);
    pool.snapshot("later", WALL_START_NS + 400 * DAY);
    pool.pass(2 * MINUTE);
    pool.0.set_clock_ahead(300 * DAY);
    for _ in 0..9 {
        pool.pass(MINUTE);
        assert_eq!(pool.names(), ["v", "v@later", "v@s"]);
    }
    let ahead = pool.kinds();
    assert!(
        matches!(ahead[..], [EventKind::ClockSuspect { ahead_ns }] if ahead_ns / DAY == 300),
        "{ahead:?}"
    );
    // Opening it once more does not make the clock any better.
    pool.must(Op::Checkpoint);
    let wall_ns = pool.0.wall_ns();
    let mut pool = pool.again(wall_ns);
    pool.pass(5 * MINUTE);
    assert_eq!(pool.names(), ["v", "v@later", "v@s"]);
    pool.pass(8 * MINUTE);
    assert_eq!(pool.names(), ["v", "v@later"], "it has gone evenly for ten minutes");
    let kinds = pool.kinds();
    assert!(
        matches!(&kinds[..], [EventKind::ClockSuspect { .. }, EventKind::ClockTrusted, last] if *last == expired("v@s")),
        "{kinds:?}"
    );
}

#[test]
fn a_pool_that_was_closed_for_long_waits_a_little() {
    let mut pool = Pool::new();
    pool.snapshot("s", WALL_START_NS + HOUR);
    pool.must(Op::Close);
    let mut pool = pool.again(WALL_START_NS + 30 * HOUR);
    pool.pass(9 * MINUTE);
    assert_eq!(pool.names(), ["v", "v@s"]);
    pool.pass(3 * MINUTE);
    assert_eq!(pool.names(), ["v"]);
}
