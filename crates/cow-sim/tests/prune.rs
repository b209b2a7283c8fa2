//! Rules of volumes: what they let go, when, and what they never do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod aged;

use aged::{DAY, HOUR, MINUTE, Pool};
use cow_engine::{Error, EventKind, Op, PropEdit, Reply, SetSize, SnapTarget};
use cow_sim::world::WALL_START_NS;

fn set(pool: &mut Pool, key: &str, value: Option<&str>) {
    let changes = vec![(key.to_owned(), value.map(str::to_owned))];
    pool.must(Op::SetProps { name: "v".into(), changes });
}

fn prune(pool: &mut Pool, volumes: &[&str], dry_run: bool) -> SetSize {
    let volumes = volumes.iter().map(|name| (*name).to_owned()).collect();
    match pool.must(Op::Prune { volumes, dry_run }) {
        Reply::Deleted(size) => size,
        other => panic!("{other:?}"),
    }
}

fn data_bytes(pool: &mut Pool) -> u64 {
    pool.must(Op::WaitReclaim);
    pool.must(Op::Checkpoint);
    pool.info().data_bytes
}

/// A volume with a snapshot an hour, each with a block of its own.
fn hourly(count: u64) -> Pool {
    let mut pool = Pool::new();
    for n in 0..count {
        pool.write(n);
        pool.snapshot(&format!("s{n}"), 0);
        pool.pass(HOUR);
    }
    pool
}

#[test]
fn a_dry_run_says_exactly_what_a_prune_frees() {
    // Nothing goes by itself in the first minute after opening.
    let mut pool = hourly(6).again(WALL_START_NS + 6 * HOUR);
    set(&mut pool, "keep", Some("last=2"));
    pool.snapshot("timed", WALL_START_NS + 5 * HOUR);
    pool.must(Op::CreateVolumes {
        volumes: vec![cow_engine::NewVolume {
            name: "w".into(),
            size_bytes: 1 << 20,
            props: vec![],
        }],
        edits: vec![PropEdit {
            name: "v@s0".into(),
            changes: vec![("k".into(), Some("x".into()))],
        }],
    });
    let all = ["v@s0", "v@s1", "v@s2", "v@s3", "v@timed"];
    let would = prune(&mut pool, &["v", "w"], true);
    assert_eq!(would.names, all);
    assert!(would.exact && would.data_bytes > 0);
    assert_eq!(pool.names().len(), 2 + 7, "only said so");
    assert_eq!(prune(&mut pool, &["w"], false).names, [""; 0]);
    let before = data_bytes(&mut pool);
    let done = prune(&mut pool, &[], false);
    assert_eq!((done.names, done.data_bytes), (all.map(str::to_owned).to_vec(), would.data_bytes));
    assert_eq!(before - data_bytes(&mut pool), would.data_bytes);
    assert_eq!(pool.names(), ["v", "v@s4", "v@s5", "w"]);
    assert_eq!(prune(&mut pool, &[], false).names, [""; 0], "a second one finds nothing");
    for (name, error) in [("x", "not found: x"), ("v@s4", "v@s4: a volume's name has no @")] {
        let result = pool.ask(Op::Prune { volumes: vec![name.into()], dry_run: true });
        assert_eq!(result.unwrap_err().to_string(), error);
    }
    assert_eq!(pool.kinds(), [], "what somebody asks for is no event");
}

#[test]
fn what_is_held_or_open_stays() {
    let mut pool = hourly(5);
    pool.must(Op::Rename { name: "v@s1".into(), to: "held".into() });
    pool.hold(true);
    let open = Op::OpenExport { name: "v@s2".into(), write: false };
    let Reply::Export { export, .. } = pool.must(open) else { panic!("no export") };
    set(&mut pool, "keep", Some("last=1"));
    assert_eq!(prune(&mut pool, &["v"], true).names, ["v@s0", "v@s3"]);
    pool.pass(2 * MINUTE);
    assert_eq!(pool.names(), ["v", "v@held", "v@s2", "v@s4"], "an open pool prunes by itself");
    let names = vec!["v@s0".to_owned(), "v@s3".to_owned()];
    assert_eq!(pool.kinds(), [EventKind::Pruned { names, count: 2 }]);
    pool.must(Op::CloseExport { export });
    pool.pass(3 * MINUTE);
    assert_eq!(pool.names(), ["v", "v@held", "v@s4"]);
    pool.hold(false);
    pool.pass(3 * MINUTE);
    assert_eq!(pool.names(), ["v", "v@s4"]);
    assert!(!pool.0.wants_tick());
}

#[test]
fn a_volume_is_pruned_by_itself_once_a_minute_at_most_and_after_a_restart() {
    let mut pool = hourly(1);
    set(&mut pool, "keep", Some("last=1,daily=2"));
    pool.pass(2 * MINUTE);
    for n in 0..3 {
        pool.snapshot(&format!("t{n}"), 0);
        pool.pass(MINUTE / 10);
    }
    // At the first of the three it was a minute since nothing had to be done.
    assert_eq!(pool.names(), ["v", "v@t0", "v@t1", "v@t2"]);
    // Neither the journal nor a checkpoint may lose which volumes have rules.
    let mut pool = pool.again(WALL_START_NS + 2 * HOUR);
    pool.pass(MINUTE / 2);
    assert_eq!(pool.names().len(), 4);
    pool.must(Op::Checkpoint);
    let mut pool = pool.again(WALL_START_NS + 3 * HOUR);
    pool.pass(2 * MINUTE);
    assert_eq!(pool.names(), ["v", "v@t2"]);
    pool.pass(DAY);
    pool.snapshot("next", 0);
    pool.pass(3 * MINUTE);
    assert_eq!(pool.names(), ["v", "v@next", "v@t2"]);
    set(&mut pool, "keep", None);
    pool.snapshot("more", 0);
    pool.pass(3 * MINUTE);
    assert_eq!(pool.names(), ["v", "v@more", "v@next", "v@t2"]);
}

#[test]
fn undo_and_automatic_snapshots_never_make_a_limit_fail() {
    let mut pool = Pool::new();
    set(&mut pool, "limit", Some("1"));
    pool.snapshot("s", 0);
    pool.roll_back();
    pool.roll_back();
    let options = cow_engine::SnapOptions {
        kind: cow_format::entry::NodeKind::Auto,
        ..cow_engine::SnapOptions::default()
    };
    let target = |name: &str| vec![SnapTarget { volume: "v".into(), snapshot: name.into() }];
    for n in 0..3 {
        let targets = target(&format!("auto{n}"));
        pool.must(Op::Snapshot { targets, options: options.clone() });
    }
    let targets = target("more");
    let refused = pool.ask(Op::Snapshot { targets, options: Default::default() });
    assert!(matches!(refused, Err(Error::Limit(_))), "{refused:?}");
    pool.must(Op::Delete { names: vec!["v@s".into()], recursive: false, dry_run: false });
    pool.snapshot("more", 0);
}
