//! Snapshots that expire: what goes by itself, what stays, and what a clock that jumps may not do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Config, Engine, Error, EventKind, Op, PoolInfo, Reply};
use cow_engine::{SnapOptions, SnapTarget};
use cow_format::Buf;
use cow_sim::checked::check_disk;
use cow_sim::disk::Crash;
use cow_sim::world::{WALL_START_NS, World};
use cow_sim::{PoolOptions, format, small_config};

const MINUTE: u64 = 60_000_000_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

struct Pool(World<Engine>);

impl Pool {
    fn on(disk: cow_sim::disk::SimDisk, wall_ns: u64) -> Self {
        let config = Config { wall_ns, ..small_config(AckMode::Writethrough) };
        let mut pool = Self(World::new(disk, &config, 1));
        pool.must(Op::Open { read_only: false });
        pool
    }

    fn new() -> Self {
        let mut pool = Self::on(format(&PoolOptions::default()), WALL_START_NS);
        pool.must(Op::create_volume("v", 1 << 20, vec![]));
        pool
    }

    fn ask(&mut self, op: Op) -> Result<Reply, Error> {
        self.0.run_op(op).expect("the machine answers")
    }

    fn must(&mut self, op: Op) -> Reply {
        let what = format!("{op:?}");
        self.ask(op).unwrap_or_else(|error| panic!("{what:.80}: {error}"))
    }

    fn snapshot(&mut self, name: &str, expiry_ns: u64) {
        let targets = vec![SnapTarget { volume: "v".into(), snapshot: name.into() }];
        let options = SnapOptions { expiry_ns, ..SnapOptions::default() };
        self.must(Op::Snapshot { targets, options });
    }

    /// Changes the volume and goes back to `s`.
    fn roll_back(&mut self) {
        let write = Op::OpenExport { name: "v".into(), write: true };
        let Reply::Export { export, .. } = self.must(write) else { panic!("no export") };
        let mut data = Buf::zeroed(1);
        data.fill(1);
        self.must(Op::Write { export, offset: 0, len: 4096, data, fua: true });
        self.must(Op::CloseExport { export });
        let targets = vec![SnapTarget { volume: "v".into(), snapshot: "s".into() }];
        self.must(Op::Rollback { targets, discard_current: false, force: true, edits: vec![] });
    }

    /// Both clocks go on.
    fn pass(&mut self, ns: u64) {
        for part in [ns - ns / 2, ns / 2] {
            self.0.pass(part);
            self.settle();
        }
    }

    fn settle(&mut self) {
        for _ in 0..40 {
            self.0.run_until_idle().unwrap();
            self.0.pass(1_000_000);
        }
        self.0.run_until_idle().unwrap();
    }

    fn names(&mut self) -> Vec<String> {
        let Reply::List(nodes) = self.must(Op::List { exact: false }) else { panic!("no list") };
        let mut names: Vec<String> =
            nodes.into_iter().filter(|node| node.live).map(|node| node.name).collect();
        names.sort();
        names
    }

    fn info(&mut self) -> PoolInfo {
        match self.must(Op::Info { exact: false }) {
            Reply::Info(info) => *info,
            other => panic!("{other:?}"),
        }
    }

    fn kinds(&mut self) -> Vec<EventKind> {
        self.info().events.into_iter().map(|event| event.kind).collect()
    }

    fn hold(&mut self, set: bool) {
        self.must(Op::Hold { name: "v@held".into(), tag: "t".into(), set });
    }

    fn again(self, wall_ns: u64) -> Self {
        let disk = self.0.disk().crash(Crash::Kill(0));
        check_disk(&disk).unwrap();
        Self::on(disk, wall_ns)
    }
}

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
