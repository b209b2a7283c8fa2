//! A fold never runs out of space (I11), whatever waits for it: kill rows, properties, roots that
//! grow, splices. Each test brings a full pool there with thousands of volumes; the fold itself
//! asserts that it takes no more than was kept for it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Config, Engine, Error, ExportId, Op, PoolInfo, Reply, SnapTarget};
use cow_format::Buf;
use cow_sim::checked::check_disk;
use cow_sim::disk::Crash;
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};

const BLOCK: u64 = 4096;

struct Pool {
    world: World<Engine>,
    config: Config,
}

impl Pool {
    fn new(journal_blocks: u64) -> Self {
        let options = PoolOptions { journal_blocks, max_chunks: 4, ..PoolOptions::default() };
        // Nothing but what is asked for makes a fold begin.
        let config = Config {
            layer_bytes: 64 << 20,
            walk_leaves: 8192,
            ..small_config(AckMode::Writethrough)
        };
        let mut pool = Self { world: World::new(format(&options), &config, 1), config };
        pool.must(Op::Open { read_only: false });
        pool
    }

    fn ask(&mut self, op: Op) -> Result<Reply, Error> {
        self.world.run_op(op).expect("the machine answers")
    }

    fn must(&mut self, op: Op) -> Reply {
        let what = format!("{op:?}");
        self.ask(op).unwrap_or_else(|error| panic!("{what:.80}: {error}"))
    }

    /// Whether it was done; refused for want of room otherwise.
    fn fits(&mut self, op: Op) -> bool {
        match self.ask(op) {
            Ok(_) => true,
            Err(Error::NoSpace(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn info(&mut self) -> PoolInfo {
        match self.must(Op::Info { exact: false }) {
            Reply::Info(info) => *info,
            other => panic!("info answered {other:?}"),
        }
    }

    fn open(&mut self, name: &str) -> ExportId {
        match self.must(Op::OpenExport { name: name.into(), write: true }) {
            Reply::Export { export, .. } => export,
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, export: ExportId, lba: u64, blocks: u64) -> Op {
        let mut data = Buf::zeroed(blocks as usize);
        data.fill(0x5a);
        Op::Write { export, offset: lba * BLOCK, len: blocks * BLOCK, data, fua: false }
    }

    fn create(&mut self, name: &str, size_bytes: u64) {
        let props = vec![("job".to_owned(), "nightly".to_owned())];
        self.must(Op::create_volume(name, size_bytes, props));
    }

    /// Writes to a volume of its own until there is no room for user data.
    fn fill(&mut self) {
        self.must(Op::create_volume("fill", 1 << 30, vec![]));
        let export = self.open("fill");
        let (mut at, mut run) = (0, 1024);
        while run > 0 {
            let op = self.write(export, at, run);
            if self.fits(op) { at += run } else { run /= 2 }
        }
        self.must(Op::CloseExport { export });
        self.must(Op::Checkpoint);
    }

    /// Folds until nothing waits any more, and looks whether all is in order, also after a crash.
    fn settle(mut self) {
        self.must(Op::Checkpoint);
        self.must(Op::WaitReclaim);
        self.must(Op::Checkpoint);
        assert_eq!(self.info().poisoned, None);
        self.world.run_until_idle().unwrap();
        check_disk(self.world.disk()).unwrap();
        let disk = self.world.disk().crash(Crash::KeepAll);
        let mut again = World::<Engine>::new(disk, &self.config, 2);
        let opened = again.run_op(Op::Open { read_only: false }).unwrap();
        assert!(opened.is_ok(), "{opened:?}");
        check_disk(again.disk()).unwrap();
    }
}

fn target(volume: &str) -> Vec<SnapTarget> {
    vec![SnapTarget { volume: volume.into(), snapshot: "s".into() }]
}

/// `count` volumes with two blocks, a property and a snapshot each, in a pool that is then full.
fn full_pool(count: usize) -> (Pool, Vec<String>) {
    let mut pool = Pool::new(8192);
    let names: Vec<String> = (0..count).map(|i| format!("v{i}")).collect();
    for name in &names {
        pool.create(name, 1 << 20);
        let export = pool.open(name);
        let op = pool.write(export, 0, 2);
        pool.must(op);
        pool.must(Op::CloseExport { export });
        pool.must(Op::Snapshot { targets: target(name), options: Default::default() });
    }
    pool.must(Op::Checkpoint);
    pool.fill();
    (pool, names)
}

/// One kill in each of 3,000 volumes, at once: a map node and a row each.
#[test]
fn kill_rows_of_thousands_of_volumes_in_one_fold() {
    let (mut pool, names) = full_pool(3000);
    for name in &names {
        let export = pool.open(name);
        let discard = Op::Discard { export, offset: 0, len: BLOCK, fua: false };
        pool.must(discard);
        pool.must(Op::CloseExport { export });
    }
    pool.settle();
}

/// A rollback is never refused, and each writes the volume's properties under another name.
#[test]
fn thousands_of_rollbacks_in_a_full_pool() {
    let (mut pool, names) = full_pool(2500);
    for _ in 0..2 {
        for name in &names {
            let targets = target(name);
            pool.must(Op::Rollback { targets, discard_current: true, force: false, edits: vec![] });
        }
    }
    pool.settle();
}

/// Properties of thousands of snapshots: refused at some time, and all that was not is folded.
#[test]
fn properties_of_thousands_of_snapshots_in_a_full_pool() {
    let (mut pool, names) = full_pool(2500);
    let mut refused = 0;
    for name in &names {
        let changes = vec![("k".to_owned(), Some("v".repeat(4080)))];
        let set = Op::SetProps { name: format!("{name}@s"), changes };
        refused += u32::from(!pool.fits(set));
    }
    assert!(refused > 0, "there was room after all");
    pool.settle();
}

/// Each reclaimed snapshot leaves its kill row to the one after it.
#[test]
fn thousands_of_splices_in_a_full_pool() {
    let mut pool = Pool::new(2048);
    let names: Vec<String> = (0..2400).map(|i| format!("v{i}")).collect();
    for round in 0..3 {
        for name in &names {
            if round == 0 {
                let (name, size_bytes) = (name.clone(), 1 << 20);
                pool.must(Op::create_volume(name, size_bytes, vec![]));
            }
            let export = pool.open(name);
            let op = pool.write(export, 0, 2 - round.min(1));
            pool.must(op);
            pool.must(Op::CloseExport { export });
            let targets = vec![SnapTarget { volume: name.clone(), snapshot: format!("s{round}") }];
            if round < 2 {
                pool.must(Op::Snapshot { targets, options: Default::default() });
            }
        }
        pool.must(Op::Checkpoint);
    }
    pool.fill();
    let names = names.iter().map(|name| format!("{name}@s1")).collect();
    pool.must(Op::Delete { names, recursive: false, dry_run: false });
    pool.settle();
}

/// What stood at the root comes to stand under new map nodes that nothing was written below.
#[test]
fn a_root_grows_inside_of_the_reserve() {
    // The second is no larger than it has to be: nothing is kept for a level that never comes.
    for (size, lbas) in [(1 << 50, [0, 5 << 24, 9 << 32]), (1 << 44, [0, 5 << 24, 7 << 24])] {
        let mut pool = Pool::new(256);
        pool.create("v", size);
        let export = pool.open("v");
        for lba in lbas {
            let op = pool.write(export, lba, 1);
            pool.must(op);
            pool.must(Op::Checkpoint);
        }
        pool.must(Op::CloseExport { export });
        pool.settle();
    }
}

/// Roots keep the levels that they had: a block takes a path of the old length.
#[test]
fn a_volume_that_became_smaller_keeps_its_levels() {
    let mut pool = Pool::new(256);
    pool.create("v", 1 << 50);
    let export = pool.open("v");
    let op = pool.write(export, 9 << 32, 1);
    pool.must(op);
    pool.must(Op::Checkpoint);
    pool.must(Op::CloseExport { export });
    let resize = Op::Resize { volume: "v".into(), size_bytes: 1 << 20, shrink: true };
    pool.must(resize);
    pool.must(Op::Checkpoint);
    let export = pool.open("v");
    let op = pool.write(export, 0, 1);
    pool.must(op);
    pool.must(Op::CloseExport { export });
    pool.settle();
}
