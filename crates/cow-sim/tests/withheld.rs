//! Blocks that cannot be written are given up one by one, and only so many of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Config, Engine, Error, ExportId, Op, PoolInfo, Reply};
use cow_format::Buf;
use cow_format::checkpoint::MAX_WITHHELD;
use cow_sim::checked::check_disk;
use cow_sim::disk::{Crash, Faults, SimDisk};
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};

const BLOCK: u64 = 4096;
/// Blocks of a write.
const RUN: u64 = 512;

struct Pool {
    world: World<Engine>,
    export: ExportId,
}

impl Pool {
    /// A pool on a disk with bad blocks in the middle of its free space.
    fn new(bad: u64) -> Self {
        let mut world = World::new(format(&PoolOptions::default()), &config(), 1);
        let faults = Faults { bad: 20_000..20_000 + bad, ..Faults::default() };
        world.disk_mut().set_faults(faults, 1);
        let mut pool = Self { world, export: ExportId(0) };
        assert!(pool.ask(Op::Open { read_only: false }).is_ok());
        let create = Op::create_volume("v", 1 << 30, vec![]);
        assert!(pool.ask(create).is_ok());
        pool.open_volume();
        pool
    }

    fn open_volume(&mut self) {
        match self.ask(Op::OpenExport { name: "v".into(), write: true }) {
            Ok(Reply::Export { export, .. }) => self.export = export,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&mut self, op: Op) -> Result<Reply, Error> {
        self.world.run_op(op).expect("the machine answers")
    }

    fn write(&mut self, lba: u64) -> Result<Reply, Error> {
        let (export, offset, len) = (self.export, lba * BLOCK, RUN * BLOCK);
        let mut data = Buf::zeroed(RUN as usize);
        (0..RUN).for_each(|i| data.block_mut(i as usize).fill((lba + i) as u8 | 1));
        self.ask(Op::Write { export, offset, len, data, fua: false })
    }

    fn check_content(&mut self, lba: u64) {
        let (export, offset, len) = (self.export, lba * BLOCK, RUN * BLOCK);
        let Ok(Reply::Data { buf, .. }) = self.ask(Op::Read { export, offset, len }) else {
            panic!("run {lba} cannot be read")
        };
        for i in 0..RUN {
            assert!(buf.block(i as usize).iter().all(|&byte| byte == (lba + i) as u8 | 1));
        }
    }

    fn info(&mut self) -> PoolInfo {
        match self.ask(Op::Info { exact: false }) {
            Ok(Reply::Info(info)) => *info,
            other => panic!("{other:?}"),
        }
    }

    /// The disk without its bad blocks: as a later machine finds it.
    fn disk(&mut self) -> SimDisk {
        self.world.run_until_idle().unwrap();
        self.world.disk().crash(Crash::KeepAll)
    }
}

fn config() -> Config {
    Config { layer_bytes: 64 << 20, ..small_config(AckMode::Writethrough) }
}

#[test]
fn a_bad_block_costs_itself_and_no_other() {
    let mut pool = Pool::new(9);
    let mut runs = 0;
    while pool.write(runs * RUN).is_ok() {
        runs += 1;
    }
    assert!(runs > 40, "only {runs} runs were written");
    assert_eq!(pool.info().withheld, 9);
    (0..runs).for_each(|run| pool.check_content(run * RUN));
    assert!(pool.ask(Op::Checkpoint).is_ok());
    check_disk(&pool.disk()).unwrap();
    let world = World::new(pool.disk(), &config(), 2);
    let mut pool = Pool { world, export: ExportId(0) };
    assert!(pool.ask(Op::Open { read_only: false }).is_ok());
    assert_eq!(pool.info().withheld, 9, "forgotten");
}

#[test]
fn too_many_bad_blocks_stop_the_pool() {
    let mut pool = Pool::new(MAX_WITHHELD as u64 + 40);
    let mut runs = 0;
    let error = loop {
        match pool.write(runs * RUN) {
            Ok(_) => runs += 1,
            // Three places, and none of them good: the client may try again.
            Err(Error::Io { .. }) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::Poisoned(why) if why.contains("of the medium")), "{error}");
    assert_eq!(pool.info().withheld, MAX_WITHHELD as u64);
    // What was written is there, now and after another start, and the list is no longer than it may be.
    (0..runs).for_each(|run| pool.check_content(run * RUN));
    let world = World::new(pool.disk(), &config(), 2);
    let mut pool = Pool { world, export: ExportId(0) };
    assert!(pool.ask(Op::Open { read_only: false }).is_ok());
    pool.open_volume();
    (0..runs).for_each(|run| pool.check_content(run * RUN));
    assert!(pool.info().poisoned.is_none());
}
