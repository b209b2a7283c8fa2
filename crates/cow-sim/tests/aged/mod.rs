//! A pool whose snapshots grow old, for the tests of what goes by itself.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Config, Engine, Error, EventKind, Op, PoolInfo, Reply};
use cow_engine::{SnapOptions, SnapTarget};
use cow_format::Buf;
use cow_sim::checked::check_disk;
use cow_sim::disk::{Crash, SimDisk};
use cow_sim::world::{WALL_START_NS, World};
use cow_sim::{PoolOptions, format, small_config};

pub const MINUTE: u64 = 60_000_000_000;
pub const HOUR: u64 = 60 * MINUTE;
pub const DAY: u64 = 24 * HOUR;

/// A machine with a pool that has a volume `v`.
pub struct Pool(pub World<Engine>);

impl Pool {
    pub fn on(disk: SimDisk, wall_ns: u64) -> Self {
        let config = Config { wall_ns, ..small_config(AckMode::Writethrough) };
        let mut pool = Self(World::new(disk, &config, 1));
        pool.must(Op::Open { read_only: false });
        pool
    }

    pub fn new() -> Self {
        let mut pool = Self::on(format(&PoolOptions::default()), WALL_START_NS);
        pool.must(Op::create_volume("v", 1 << 20, vec![]));
        pool
    }

    pub fn ask(&mut self, op: Op) -> Result<Reply, Error> {
        self.0.run_op(op).expect("the machine answers")
    }

    pub fn must(&mut self, op: Op) -> Reply {
        let what = format!("{op:?}");
        self.ask(op).unwrap_or_else(|error| panic!("{what:.80}: {error}"))
    }

    pub fn snapshot(&mut self, name: &str, expiry_ns: u64) {
        let targets = vec![SnapTarget { volume: "v".into(), snapshot: name.into() }];
        let options = SnapOptions { expiry_ns, ..SnapOptions::default() };
        self.must(Op::Snapshot { targets, options });
    }

    /// Writes a block.
    pub fn write(&mut self, block: u64) {
        let write = Op::OpenExport { name: "v".into(), write: true };
        let Reply::Export { export, .. } = self.must(write) else { panic!("no export") };
        let mut data = Buf::zeroed(1);
        data.fill(1 + block as u8);
        self.must(Op::Write { export, offset: block % 3 * 4096, len: 4096, data, fua: true });
        self.must(Op::CloseExport { export });
    }

    /// Changes the volume and goes back to `s`.
    pub fn roll_back(&mut self) {
        self.write(0);
        let targets = vec![SnapTarget { volume: "v".into(), snapshot: "s".into() }];
        self.must(Op::Rollback { targets, discard_current: false, force: true, edits: vec![] });
    }

    /// Both clocks go on.
    pub fn pass(&mut self, ns: u64) {
        for part in [ns - ns / 2, ns / 2] {
            self.0.pass(part);
            self.settle();
        }
    }

    pub fn settle(&mut self) {
        for _ in 0..40 {
            self.0.run_until_idle().unwrap();
            self.0.pass(1_000_000);
        }
        self.0.run_until_idle().unwrap();
    }

    pub fn names(&mut self) -> Vec<String> {
        let Reply::List(nodes) = self.must(Op::List { exact: false }) else { panic!("no list") };
        let mut names: Vec<String> =
            nodes.into_iter().filter(|node| node.live).map(|node| node.name).collect();
        names.sort();
        names
    }

    pub fn info(&mut self) -> PoolInfo {
        match self.must(Op::Info { exact: false }) {
            Reply::Info(info) => *info,
            other => panic!("{other:?}"),
        }
    }

    pub fn kinds(&mut self) -> Vec<EventKind> {
        self.info().events.into_iter().map(|event| event.kind).collect()
    }

    pub fn hold(&mut self, set: bool) {
        self.must(Op::Hold { name: "v@held".into(), tag: "t".into(), set });
    }

    pub fn again(self, wall_ns: u64) -> Self {
        let disk = self.0.disk().crash(Crash::Kill(0));
        check_disk(&disk).unwrap();
        Self::on(disk, wall_ns)
    }
}
