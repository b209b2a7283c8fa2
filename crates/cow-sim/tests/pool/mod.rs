//! A pool on a simulated disk, for tests that say what is done to it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{
    AckMode, Config, Engine, Error, ExportId, NodeInfo, Op, OpId, PoolInfo, Reply, SnapTarget,
    SpaceKind,
};
use cow_format::Buf;
use cow_format::entry::NodeKind;
use cow_sim::checked::check_disk;
use cow_sim::disk::{Crash, SimDisk};
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};
use std::collections::BTreeSet;

pub const BLOCK: u64 = 4096;
pub const MIB: u64 = 1 << 20;
const MINUTE: u64 = 60_000_000_000;

pub struct Pool {
    pub world: World<Engine>,
    config: Config,
}

impl Pool {
    /// On a plain disk, or on one that is a sparse file to the engine: then it sets blocks aside
    /// for its folds, and gives back what is free.
    pub fn new(sparse: bool) -> Self {
        Self::with(Config { sparse, ..small_config(AckMode::Writethrough) })
    }

    pub fn with(config: Config) -> Self {
        let mut options = PoolOptions::default();
        options.limit_blocks = 4 * options.blocks;
        let mut pool = Self { world: World::new(format(&options), &config, 1), config };
        pool.must(Op::Open { read_only: false });
        pool
    }

    /// On a disk that has one, which is not open yet.
    pub fn on(disk: SimDisk, config: Config) -> Self {
        Self { world: World::new(disk, &config, 1), config }
    }

    pub fn ask(&mut self, op: Op) -> Result<Reply, Error> {
        self.world.run_op(op).expect("the machine answers")
    }

    pub fn must(&mut self, op: Op) -> Reply {
        let what = format!("{op:?}");
        self.ask(op).unwrap_or_else(|error| panic!("{what:.80}: {error}"))
    }

    pub fn info(&mut self) -> PoolInfo {
        match self.must(Op::Info { exact: true }) {
            Reply::Info(info) => *info,
            other => panic!("info answered {other:?}"),
        }
    }

    pub fn describe(&mut self, name: &str) -> NodeInfo {
        match self.must(Op::Describe { names: vec![name.into()], exact: true }) {
            Reply::List(mut list) => list.pop().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub fn volume(&mut self, name: &str, size: u64, props: &[(&str, &str)]) -> ExportId {
        let props = props.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.must(Op::create_volume(name, size, props));
        self.open(name)
    }

    pub fn open(&mut self, name: &str) -> ExportId {
        match self.must(Op::OpenExport { name: name.into(), write: true }) {
            Reply::Export { export, .. } => export,
            other => panic!("{other:?}"),
        }
    }

    pub fn set(&mut self, name: &str, key: &str, value: Option<&str>) -> Result<Reply, Error> {
        let changes = vec![(key.to_owned(), value.map(str::to_owned))];
        self.ask(Op::SetProps { name: name.into(), changes })
    }

    pub fn snapshot(&mut self, volume: &str, snapshot: &str) -> Result<Reply, Error> {
        let targets = vec![SnapTarget { volume: volume.into(), snapshot: snapshot.into() }];
        self.ask(Op::Snapshot { targets, options: Default::default() })
    }

    pub fn rollback(&mut self, volume: &str, snapshot: &str) -> Reply {
        let targets = vec![SnapTarget { volume: volume.into(), snapshot: snapshot.into() }];
        self.must(Op::Rollback { targets, discard_current: false, force: true, edits: vec![] })
    }

    pub fn delete(&mut self, name: &str) {
        let names = vec![name.into()];
        self.must(Op::Delete { names, recursive: true, dry_run: false });
        self.must(Op::WaitReclaim);
    }

    pub fn write(&mut self, export: ExportId, block: u64, blocks: u64) -> Result<Reply, Error> {
        self.ask(write(export, block, blocks))
    }

    /// Writes to a volume from a block on until there is no room; how many blocks went in.
    pub fn fill(&mut self, export: ExportId, from: u64) -> u64 {
        let (mut at, mut run) = (from, 256);
        while run > 0 {
            match self.write(export, at, run) {
                Ok(_) => at += run,
                Err(Error::NoSpace(SpaceKind::Pool)) => run /= 2,
                Err(error) => panic!("{error}"),
            }
        }
        at - from
    }

    /// All at once; every one must be done.
    pub fn all(&mut self, ops: Vec<Op>) {
        let mut open: BTreeSet<OpId> = ops.into_iter().map(|op| self.world.start_op(op)).collect();
        while !open.is_empty() {
            self.world.pump().unwrap();
            while let Some((id, result)) = self.world.take_reply() {
                assert!(open.remove(&id));
                result.unwrap_or_else(|error| panic!("one of many: {error}"));
            }
        }
    }

    /// The machine dies and comes back.
    pub fn restart(&mut self) {
        self.crash(Crash::KeepAll, false);
    }

    /// The same, in a way of dying, to a pool that may take no changes.
    pub fn crash(&mut self, how: Crash, read_only: bool) {
        let disk = self.world.disk().crash(how);
        self.world = World::new(disk, &self.config, 2);
        self.must(Op::Open { read_only });
    }

    /// Time goes on for so many minutes.
    pub fn minutes(&mut self, count: u64) {
        for _ in 0..count {
            self.world.pass(MINUTE);
            for _ in 0..40 {
                self.world.run_until_idle().unwrap();
                self.world.pass(1_000_000);
            }
        }
        self.world.run_until_idle().unwrap();
    }

    /// Live undo snapshots, in the order of their names.
    pub fn undos(&mut self) -> Vec<String> {
        let Reply::List(nodes) = self.must(Op::List { exact: false }) else { panic!("no list") };
        let undos = nodes.into_iter().filter(|node| node.live && node.kind == NodeKind::Undo);
        let mut names: Vec<String> = undos.map(|node| node.name).collect();
        names.sort();
        names
    }

    pub fn check(&mut self) {
        self.must(Op::Checkpoint);
        self.world.run_until_idle().unwrap();
        check_disk(self.world.disk()).unwrap();
        assert_eq!(self.info().poisoned, None);
    }
}

pub fn write(export: ExportId, block: u64, blocks: u64) -> Op {
    let mut data = Buf::zeroed(blocks as usize);
    data.fill(0x5a);
    Op::Write { export, offset: block * BLOCK, len: blocks * BLOCK, data, fua: false }
}
