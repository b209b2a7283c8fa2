//! Freed space goes back to the layer below, and only when nothing needs it any more (decision 17).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Config, Engine, Error, ExportId, Op, PoolInfo, Reply};
use cow_format::Buf;
use cow_sim::checked::check_disk;
use cow_sim::disk::{Class, Crash, Faults, NthFault};
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};

const EOPNOTSUPP: i32 = 95;
const EIO: i32 = 5;
/// Blocks of the volume that each test lets go of.
const BLOCKS: u64 = 256;

struct Pool {
    world: World<Engine>,
}

fn write(export: ExportId, first: u64, blocks: u64) -> Op {
    let len = blocks * 4096;
    let mut data = Buf::zeroed(blocks as usize);
    data.chunks_exact_mut(8).enumerate().for_each(|(i, word)| {
        word.copy_from_slice(&(first * 512 + i as u64 + 1).to_le_bytes());
    });
    Op::Write { export, offset: first * 4096, len, data, fua: false }
}

impl Pool {
    fn new(options: &PoolOptions, cell_blocks: u32) -> Self {
        let config =
            Config { cell_blocks, layer_bytes: 8 << 20, ..small_config(AckMode::Writethrough) };
        let mut pool = Self { world: World::new(format(options), &config, 1) };
        pool.ask(Op::Open { read_only: false }).unwrap();
        pool
    }

    fn ask(&mut self, op: Op) -> Result<Reply, Error> {
        self.world.run_op(op).expect("the machine answers")
    }

    fn info(&mut self) -> PoolInfo {
        match self.ask(Op::Info { exact: false }) {
            Ok(Reply::Info(info)) => *info,
            other => panic!("{other:?}"),
        }
    }

    fn volume(&mut self, name: &str) -> ExportId {
        self.ask(Op::create_volume(name, 1 << 30, vec![])).unwrap();
        match self.ask(Op::OpenExport { name: name.into(), write: true }) {
            Ok(Reply::Export { export, .. }) => export,
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, export: ExportId, first: u64, blocks: u64) -> Result<Reply, Error> {
        self.ask(write(export, first, blocks))
    }

    /// A volume of [`BLOCKS`] blocks was there, is in a checkpoint, and is deleted.
    fn deleted(&mut self) {
        let export = self.volume("gone");
        self.write(export, 0, BLOCKS).unwrap();
        self.ask(Op::Checkpoint).unwrap();
        self.ask(Op::CloseExport { export }).unwrap();
        let names = vec!["gone".into()];
        self.ask(Op::Delete { names, recursive: true, dry_run: false }).unwrap();
    }

    fn discards(&self) -> (u64, u64) {
        let tally = self.world.disk().counts().discard;
        (tally.ops, tally.blocks)
    }

    fn faults(&mut self, errno: i32, sticky: bool) {
        let fault = NthFault { class: Class::Discard, nth: 0, sticky, errno };
        self.world.disk_mut().set_faults(Faults { nth: vec![fault], ..Faults::default() }, 1);
    }

    fn end(mut self) {
        self.ask(Op::Close).unwrap();
        self.world.run_until_idle().unwrap();
        assert_eq!(self.world.disk_mut().take_bugs(), Vec::<String>::new());
        check_disk(self.world.disk()).unwrap();
    }
}

#[test]
fn what_a_delete_frees_goes_below_after_the_checkpoint_that_follows() {
    let mut pool = Pool::new(&PoolOptions::default(), 16);
    pool.deleted();
    let folds = pool.info().stats.folds;
    let waits = pool.world.start_op(Op::WaitReclaim);
    // The checkpoint that frees the blocks: the one before it is a fallback that needs them.
    let mut freed = false;
    while pool.discards() == (0, 0) {
        let info = pool.info();
        freed |= info.stats.folds == folds + 1;
        assert!(!freed || info.reclaiming_bytes >= BLOCKS * 4096);
        pool.world.pump().unwrap();
    }
    assert!(freed && pool.info().stats.folds >= folds + 2);
    while !matches!(pool.world.take_reply(), Some((id, Ok(_))) if id == waits) {
        pool.world.pump().unwrap();
    }
    let info = pool.info();
    assert_eq!((info.reclaiming_bytes, info.data_bytes), (0, 0));
    // All but what shares a cell with something else at either end.
    let (_, blocks) = pool.discards();
    assert!((BLOCKS - 30..=BLOCKS + 30).contains(&blocks), "{blocks}");
    assert_eq!(info.stats.blocks_discarded, blocks);
    pool.end();
}

#[test]
fn it_goes_below_by_itself_in_a_pool_at_rest() {
    let mut pool = Pool::new(&PoolOptions::default(), 16);
    pool.deleted();
    pool.ask(Op::Checkpoint).unwrap();
    pool.world.run_until_idle().unwrap();
    assert!(pool.world.wants_tick(), "or nobody would tell it of time");
    for _ in 0..100 {
        pool.world.pass(1_000_000_000);
        pool.world.run_until_idle().unwrap();
    }
    assert!(pool.discards().1 >= BLOCKS - 30, "{:?}", pool.discards());
    assert!(!pool.world.wants_tick(), "it comes to rest");
    pool.end();
}

#[test]
fn a_reader_keeps_what_it_may_read() {
    let mut pool = Pool::new(&PoolOptions::default(), 1);
    let export = pool.volume("v");
    pool.write(export, 0, BLOCKS).unwrap();
    pool.ask(Op::Checkpoint).unwrap();
    // The read is under way while everything that it reads is overwritten and folded twice.
    let read = pool.world.start_op(Op::Read { export, offset: 0, len: BLOCKS * 4096 });
    pool.write(export, 0, BLOCKS).unwrap();
    pool.ask(Op::Checkpoint).unwrap();
    pool.ask(Op::WaitReclaim).unwrap();
    pool.world.run_until_idle().unwrap();
    let answer = std::iter::from_fn(|| pool.world.take_reply()).find(|(id, _)| *id == read);
    assert!(matches!(answer, Some((_, Ok(Reply::Data { .. })))), "{answer:?}");
    pool.end();
}

#[test]
fn a_layer_that_cannot_is_asked_once() {
    let mut pool = Pool::new(&PoolOptions::default(), 16);
    pool.faults(EOPNOTSUPP, true);
    let free = pool.info().free_bytes;
    pool.deleted();
    pool.ask(Op::WaitReclaim).unwrap();
    assert_eq!(pool.discards().0, 1);
    let info = pool.info();
    assert!(info.free_bytes + (64 << 10) >= free, "{} {free}", info.free_bytes);
    assert_eq!((info.reclaiming_bytes, info.stats.blocks_discarded), (0, 0));
    pool.deleted();
    pool.ask(Op::WaitReclaim).unwrap();
    assert_eq!(pool.discards().0, 1);
    pool.end();
}

#[test]
fn a_discard_that_fails_does_no_harm() {
    let mut pool = Pool::new(&PoolOptions::default(), 1);
    pool.faults(EIO, true);
    let free = pool.info().free_bytes;
    pool.deleted();
    pool.ask(Op::WaitReclaim).unwrap();
    assert!(pool.discards().0 >= 1);
    let info = pool.info();
    assert_eq!((info.reclaiming_bytes, info.stats.blocks_discarded), (0, 0));
    assert!(info.free_bytes + (64 << 10) >= free && info.poisoned.is_none());
    let export = pool.volume("after");
    pool.write(export, 0, BLOCKS).unwrap();
    pool.end();
}

#[test]
fn a_preallocated_pool_keeps_its_blocks() {
    let options = PoolOptions { preallocated: true, ..PoolOptions::default() };
    let mut pool = Pool::new(&options, 1);
    pool.deleted();
    pool.ask(Op::WaitReclaim).unwrap();
    for _ in 0..100 {
        pool.world.pass(1_000_000_000);
        pool.world.run_until_idle().unwrap();
    }
    assert_eq!(pool.discards(), (0, 0));
    pool.end();
}

/// Whoever waits for space gets it at once: what is in flight is waited for, nothing else.
#[test]
fn a_writer_in_a_full_pool_does_not_wait_for_holes() {
    let mut pool = Pool::new(&PoolOptions::tight(), 1);
    let export = pool.volume("v");
    let mut filled = 0;
    while pool.write(export, filled, 16).is_ok() {
        filled += 16;
    }
    assert!(filled > 500, "{filled}");
    let offset = (filled - 128) * 4096;
    let clear = Op::WriteZeroes { export, offset, len: 128 * 4096, fua: false };
    pool.ask(clear).unwrap();
    pool.ask(Op::WaitReclaim).unwrap();
    let before = pool.discards().0;
    for round in 0..20 {
        // Each needs what the one before has freed.
        let first = round * 64 % (filled - 192);
        pool.write(export, first, 64).unwrap_or_else(|e| panic!("round {round}: {e}"));
    }
    let during = pool.discards().0 - before;
    assert_eq!(during, 0, "discards while writers waited");
    pool.end();
}

/// A file is locked while a hole is punched: of many holes those who write see ten a second, and the
/// rest are punched when they have gone.
#[test]
fn while_clients_are_at_work_there_are_few_discards() {
    const TICK_NS: u64 = 5_000_000;
    const RUNS: u64 = 48;
    let mut pool = Pool::new(&PoolOptions::default(), 2);
    let (gone, kept) = (pool.volume("gone"), pool.volume("kept"));
    for run in 0..RUNS {
        pool.write(gone, run * 4, 4).unwrap();
        pool.write(kept, run * 4, 4).unwrap();
    }
    pool.ask(Op::Checkpoint).unwrap();
    pool.ask(Op::CloseExport { export: gone }).unwrap();
    let names = vec!["gone".into()];
    pool.ask(Op::Delete { names, recursive: true, dry_run: false }).unwrap();
    let waits = pool.world.start_op(Op::WaitReclaim);
    let (begun_ns, mut answered) = (pool.world.now_ns(), false);
    while pool.world.now_ns() - begun_ns < 400 * TICK_NS {
        let write = pool.world.start_op(write(kept, 3, 1));
        loop {
            match pool.world.take_reply() {
                Some((id, result)) if id == write => break assert!(result.is_ok()),
                Some((id, _)) => answered |= id == waits,
                None => pool.world.pump().unwrap(),
            }
        }
        pool.world.pass(TICK_NS);
    }
    let (ops, _) = pool.discards();
    assert!((10..=22).contains(&ops), "{ops} discards in 2 s");
    assert!(answered, "who waits for reclaim waits until clients have gone");
    for _ in 0..4 * RUNS {
        pool.world.pass(TICK_NS);
        pool.world.run_until_idle().unwrap();
    }
    assert!(pool.discards().0 >= RUNS - 2, "{:?}", pool.discards());
    pool.end();
}

/// Blocks that were freed and not discarded: the layer below could not at the time.
fn with_free_space(options: &PoolOptions) -> (Pool, ExportId) {
    let mut pool = Pool::new(options, 16);
    pool.faults(EOPNOTSUPP, true);
    let kept = pool.volume("kept");
    for at in 0..8 {
        pool.write(kept, at * 40, 8).unwrap();
    }
    pool.deleted();
    pool.ask(Op::WaitReclaim).unwrap();
    pool.ask(Op::Close).unwrap();
    let disk = pool.world.disk().crash(Crash::KeepAll);
    let config = small_config(AckMode::Writethrough);
    let config = Config { cell_blocks: 16, layer_bytes: 8 << 20, ..config };
    pool.world = World::new(disk, &config, 3);
    pool.ask(Op::Open { read_only: false }).unwrap();
    let Ok(Reply::Export { export, .. }) =
        pool.ask(Op::OpenExport { name: "kept".into(), write: true })
    else {
        panic!("no export")
    };
    (pool, export)
}

fn trim(pool: &mut Pool) -> Result<u64, Error> {
    match pool.ask(Op::TrimPool)? {
        Reply::Trimmed { bytes } => Ok(bytes),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_trim_gives_all_back_that_is_free() {
    let (mut pool, kept) = with_free_space(&PoolOptions::default());
    let (free, data) = (pool.info().free_bytes, pool.info().data_bytes);
    let bytes = trim(&mut pool).unwrap();
    let (_, blocks) = pool.discards();
    assert_eq!(blocks * 4096, bytes);
    assert!(bytes >= free - (1 << 20) && bytes > BLOCKS * 4096, "{bytes} of {free}");
    let info = pool.info();
    assert_eq!((info.free_bytes, info.data_bytes, info.reclaiming_bytes), (free, data, 0));
    // What is in use was not touched, and what was discarded can be written.
    for at in 0..8 {
        let read = Op::Read { export: kept, offset: at * 40 * 4096, len: 8 * 4096 };
        let Ok(Reply::Data { buf, skip }) = pool.ask(read) else { panic!("no data") };
        let Op::Write { data, .. } = write(kept, at * 40, 8) else { panic!() };
        assert!(buf[skip..skip + 8 * 4096] == data[..8 * 4096], "blocks from {} on", at * 40);
    }
    pool.write(kept, 1000, 256).unwrap();
    pool.end();
}

/// Writers are answered meanwhile, from blocks that are not being discarded.
#[test]
fn writers_go_on_while_a_pool_is_trimmed() {
    let (mut pool, kept) = with_free_space(&PoolOptions::default());
    let trims = pool.world.start_op(Op::TrimPool);
    let (mut written, mut done) = (0, false);
    while !done {
        let write = pool.world.start_op(write(kept, 500 + written % 300, 1));
        loop {
            match pool.world.take_reply() {
                Some((id, result)) if id == write => break assert!(result.is_ok()),
                Some((id, result)) => done |= id == trims && result.is_ok(),
                None => pool.world.pump().unwrap(),
            }
        }
        written += 1;
    }
    assert!(written >= 10, "{written} writes");
    pool.end();
}

/// Whoever waits for space gets it; a full pool has little to be trimmed.
#[test]
fn a_full_pool_can_be_trimmed_and_written_meanwhile() {
    let (mut pool, export) = with_free_space(&PoolOptions::tight());
    let mut filled = 400;
    while pool.write(export, filled, 16).is_ok() {
        filled += 16;
    }
    let offset = (filled - 128) * 4096;
    pool.ask(Op::WriteZeroes { export, offset, len: 128 * 4096, fua: false }).unwrap();
    pool.ask(Op::WaitReclaim).unwrap();
    let trims = pool.world.start_op(Op::TrimPool);
    for round in 0..20 {
        // Each needs what the one before has freed.
        let first = 400 + round * 64 % (filled - 600);
        pool.write(export, first, 64).unwrap_or_else(|e| panic!("round {round}: {e}"));
    }
    while !matches!(pool.world.take_reply(), Some((id, Ok(_))) if id == trims) {
        pool.world.pump().unwrap();
    }
    pool.end();
}

#[test]
fn a_trim_says_why_it_cannot() {
    let options = PoolOptions { preallocated: true, ..PoolOptions::default() };
    let mut pool = Pool::new(&options, 16);
    let error = trim(&mut pool).unwrap_err().to_string();
    assert!(error.contains("all of its space allocated"), "{error}");
    assert_eq!(pool.discards(), (0, 0));
    let (mut pool, _) = with_free_space(&PoolOptions::default());
    pool.faults(EOPNOTSUPP, true);
    let free = pool.info().free_bytes;
    for _ in 0..2 {
        let error = trim(&mut pool).unwrap_err().to_string();
        assert!(error.contains("does not take space back"), "{error}");
    }
    assert_eq!((pool.discards().0, pool.info().free_bytes), (1, free));
    pool.end();
    let (mut pool, _) = with_free_space(&PoolOptions::default());
    pool.faults(EIO, false);
    assert!(matches!(trim(&mut pool), Err(Error::Io { errno: EIO, .. })));
    assert_eq!(pool.info().free_bytes, free, "nothing is left in between");
    trim(&mut pool).unwrap();
    pool.end();
}
