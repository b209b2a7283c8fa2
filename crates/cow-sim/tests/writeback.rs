//! Writes that are acknowledged when they are accepted (decision 31): what a client may count on before
//! and after the flush, and what becomes of data that the device does not take.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pool;

use cow_engine::{AckMode, Config, Error, ExportId, Op, PoolInfo, Reply, SpaceKind};
use cow_format::Buf;
use cow_format::geometry::{AG_BLOCKS, HOMES_BLOCKS, ZONE_BLOCKS};
use cow_sim::checked::check_disk;
use cow_sim::disk::{Crash, Faults};
use cow_sim::{PoolOptions, format, small_config};
use pool::{BLOCK, Pool};

const SECOND: u64 = 1_000_000_000;

fn config() -> Config {
    Config { layer_bytes: 8 << 20, ..small_config(AckMode::Writeback) }
}

/// Every block says where it belongs.
fn write(export: ExportId, block: u64, blocks: u64) -> Op {
    let mut data = Buf::zeroed(blocks as usize);
    (0..blocks).for_each(|i| data.block_mut(i as usize)[..8].copy_from_slice(&sign(block + i)));
    Op::Write { export, offset: block * BLOCK, len: blocks * BLOCK, data, fua: false }
}

fn sign(block: u64) -> [u8; 8] {
    (block + 1).to_le_bytes()
}

fn content_is(buf: &Buf, index: usize, block: u64) -> bool {
    buf.block(index)[..8] == sign(block)
}

/// What a pool says of itself, without a fold.
fn info(pool: &mut Pool) -> PoolInfo {
    match pool.must(Op::Info { exact: false }) {
        Reply::Info(info) => *info,
        other => panic!("{other:?}"),
    }
}

/// Begins an operation and gives its answer, without letting the device do anything.
fn at_once(pool: &mut Pool, op: Op) -> Option<Result<Reply, Error>> {
    let id = pool.world.start_op(op);
    let (of, result) = pool.world.take_reply()?;
    assert_eq!(of, id);
    Some(result)
}

fn begun() -> (Pool, ExportId) {
    let mut pool = Pool::with(config());
    let export = pool.volume("v", 1 << 30, &[]);
    // Whatever a first write has to look up is known after this.
    pool.must(write(export, 1000, 1));
    pool.must(Op::Flush { export });
    pool.world.run_until_idle().unwrap();
    (pool, export)
}

#[test]
fn a_write_is_acknowledged_and_read_before_the_device_has_done_anything() {
    let (mut pool, export) = begun();
    let before = pool.world.disk().counts();
    for block in 0..3 {
        assert!(matches!(at_once(&mut pool, write(export, block, 1)), Some(Ok(Reply::Done))));
    }
    let read = at_once(&mut pool, Op::Read { export, offset: 0, len: 3 * BLOCK });
    let Some(Ok(Reply::Data { buf, .. })) = read else { panic!("{read:?}") };
    (0..3).for_each(|block| assert!(content_is(&buf, block as usize, block)));
    // A part of a block whose write is under way is merged with what that writes.
    let zeros = Op::WriteZeroes { export, offset: 512, len: 512, fua: false };
    assert!(matches!(at_once(&mut pool, zeros), Some(Ok(_))));
    let now = pool.world.disk().counts();
    assert_eq!((now.read.ops, now.write.ops), (before.read.ops, before.write.ops + 4), "data only");
    assert_eq!(pool.world.disk().in_flight(), 4);
    // Data and frame are side by side on the device, and the flush comes after both.
    assert!(at_once(&mut pool, Op::Flush { export }).is_none());
    let now = pool.world.disk().counts();
    assert_eq!((now.write.ops, now.flush.ops), (before.write.ops + 5, before.flush.ops));
    pool.world.run_until_idle().unwrap();
    let (_, flushed) = pool.world.take_reply().unwrap();
    assert!(flushed.is_ok());
    assert_eq!(pool.world.disk().counts().flush.ops, before.flush.ops + 1);
}

#[test]
fn more_than_the_budget_waits() {
    let mut pool = Pool::with(Config { dirty_bytes: 4 * BLOCK, ..config() });
    let export = pool.volume("v", 1 << 30, &[]);
    pool.must(write(export, 1000, 1));
    pool.world.run_until_idle().unwrap();
    for block in 0..4 {
        assert!(at_once(&mut pool, write(export, block, 1)).is_some_and(|done| done.is_ok()));
    }
    assert!(at_once(&mut pool, write(export, 4, 1)).is_none(), "accepted");
    assert_eq!(pool.world.disk().in_flight(), 4);
    pool.world.run_until_idle().unwrap();
    assert!(pool.world.take_reply().unwrap().1.is_ok());
}

/// Blocks 20,000 and on cannot be written. Everything is there all the same, flushed or not, also for a
/// snapshot that was taken while the data had no place yet.
#[test]
fn data_that_the_device_does_not_take_is_written_elsewhere() {
    for flushed in [true, false] {
        let (mut pool, export) = begun();
        let faults = Faults { bad: 20_000..20_200, ..Faults::default() };
        pool.world.disk_mut().set_faults(faults, 1);
        for run in 0..80 {
            pool.must(write(export, run * 256, 256));
            if run == 70 {
                pool.snapshot("v", "s").unwrap();
            }
        }
        // Some of it is superseded before it has landed, or moved.
        for run in 60..80 {
            pool.must(write(export, run * 256 + 7, 3));
        }
        if flushed {
            pool.must(Op::Flush { export });
        } else {
            pool.must(Op::Checkpoint);
        }
        let now = info(&mut pool);
        assert_eq!((now.withheld, now.poisoned), (200, None));
        check_disk(&pool.world.disk().crash(Crash::LoseAll)).unwrap();
        pool.crash(Crash::LoseAll, false);
        let export = pool.open("v");
        let expect = |pool: &mut Pool, from: u64, blocks: u64, first: u64| {
            let (offset, len) = (from * BLOCK, blocks * BLOCK);
            let Reply::Data { buf, .. } = pool.must(Op::Read { export, offset, len }) else {
                panic!()
            };
            (0..blocks)
                .for_each(|i| assert!(content_is(&buf, i as usize, first + i), "{from}+{i}"));
        };
        (0..80).for_each(|run| expect(&mut pool, run * 256, 256, run * 256));
        pool.must(Op::Checkpoint);
        check_disk(pool.world.disk()).unwrap();
    }
}

/// Where nothing is set aside (a device below that allocates late) data waits for room: new writes are
/// refused, a flush waits, and both go on when there is room.
#[test]
fn acknowledged_data_waits_for_room_below() {
    for room_comes in [true, false] {
        let (mut pool, export) = begun();
        let full = Faults { full: 600..1 << 40, ..Faults::default() };
        pool.world.disk_mut().set_faults(full, 1);
        assert!(at_once(&mut pool, write(export, 5, 3)).is_some_and(|done| done.is_ok()));
        pool.world.run_until_idle().unwrap();
        let refused = at_once(&mut pool, write(export, 9, 1));
        assert!(matches!(refused, Some(Err(Error::NoSpace(SpaceKind::Below)))), "{refused:?}");
        assert!(info(&mut pool).stalled.is_some_and(|why| why.contains("below")));
        assert!(at_once(&mut pool, Op::Flush { export }).is_none());
        let read = at_once(&mut pool, Op::Read { export, offset: 5 * BLOCK, len: BLOCK });
        assert!(matches!(read, Some(Ok(Reply::Data { buf, .. })) if content_is(&buf, 0, 5)));
        for _ in 0..100 {
            pool.world.pass(SECOND / 100);
            pool.world.run_until_idle().unwrap();
        }
        assert!(pool.world.take_reply().is_none(), "the flush");
        if room_comes {
            pool.world.disk_mut().set_faults(Faults::default(), 1);
        }
        for _ in 0..4000 {
            pool.world.pass(SECOND / 100);
            pool.world.run_until_idle().unwrap();
        }
        let (_, flushed) = pool.world.take_reply().unwrap();
        assert_eq!(flushed.is_ok(), room_comes, "{flushed:?}");
        assert_eq!(info(&mut pool).poisoned.is_none(), room_comes);
        assert_eq!(info(&mut pool).stalled, None);
    }
}

/// A sparse file, and the file system below runs full with writes under way: those move to blocks that
/// have room, the next ones are refused, and the pool is well.
#[test]
fn a_file_system_that_runs_full_costs_nothing_that_was_acknowledged() {
    for (blocks, short_ppm) in [(1, 0), (1, 600_000), (9, 0), (9, 600_000), (100, 600_000)] {
        runs_full(blocks, short_ppm);
    }
}

/// With writes of so many blocks. Of those that are several transfers the first may find room and the next one none.
fn runs_full(blocks: u64, short_ppm: u32) {
    let mut pool = Pool::with(Config { sparse: true, ..config() });
    pool.world.disk_mut().set_faults(Faults { short_ppm, ..Faults::default() }, blocks);
    pool.world.disk_mut().limit_room(1 << 40);
    let export = pool.volume("v", 1 << 40, &[]);
    pool.must(write(export, 1000, 1));
    pool.must(Op::Flush { export });
    pool.world.run_until_idle().unwrap();
    pool.world.disk_mut().limit_room(40 * blocks);
    let (mut kept, mut refused) = (Vec::new(), 0);
    for block in (0..3000).map(|i| i * blocks) {
        match at_once(&mut pool, write(export, 2 * block, blocks)) {
            Some(Ok(_)) => kept.push(2 * block),
            Some(Err(Error::NoSpace(SpaceKind::Below))) => refused += 1,
            Some(Err(error)) => panic!("{error}"),
            None => {
                pool.world.run_until_idle().unwrap();
                match pool.world.take_reply().unwrap().1 {
                    Ok(_) => kept.push(2 * block),
                    Err(error) => {
                        assert!(matches!(error, Error::NoSpace(SpaceKind::Below)), "{error}");
                        refused += 1;
                    }
                }
            }
        }
    }
    // More than there was room for: some has moved.
    assert!(refused > 0 && kept.len() > 40, "{refused} refused, {} kept", kept.len());
    assert_eq!(pool.world.disk().delayed().0 > 20, short_ppm > 0);
    pool.must(Op::Flush { export });
    let now = info(&mut pool);
    assert_eq!((now.poisoned, now.stalled), (None, None));
    check_disk(&pool.world.disk().crash(Crash::LoseAll)).unwrap();
    pool.crash(Crash::LoseAll, false);
    let export = pool.open("v");
    for block in kept {
        let (offset, len) = (block * BLOCK, blocks * BLOCK);
        let Reply::Data { buf, .. } = pool.must(Op::Read { export, offset, len }) else { panic!() };
        (0..blocks).for_each(|i| assert!(content_is(&buf, i as usize, block + i), "{block}+{i}"));
    }
}

/// A write to a group whose bitmap pages have no room below yet is not accepted at once: the fold that writes them would
/// find none.
#[test]
fn a_write_waits_for_the_bitmap_of_its_group() {
    // Of the first group the journal leaves the front alone, where map nodes go.
    let options = PoolOptions {
        blocks: AG_BLOCKS + 4 * ZONE_BLOCKS,
        limit_blocks: AG_BLOCKS + 4 * ZONE_BLOCKS,
        journal_blocks: AG_BLOCKS - 16_385,
        ..PoolOptions::default()
    };
    let mut pool = Pool::on(format(&options), Config { sparse: true, ..config() });
    pool.must(Op::Open { read_only: false });
    let export = pool.volume("v", 1 << 30, &[]);
    pool.world.run_until_idle().unwrap();
    let homes = AG_BLOCKS..AG_BLOCKS + HOMES_BLOCKS;
    pool.world.disk_mut().set_faults(Faults { full: homes.clone(), ..Faults::default() }, 1);
    for blocks in [1, 16] {
        let refused = pool.ask(write(export, 0, blocks));
        assert!(matches!(refused, Err(Error::NoSpace(SpaceKind::Below))), "{refused:?}");
    }
    pool.must(Op::Checkpoint);
    assert_eq!(info(&mut pool).stalled, None);
    pool.world.disk_mut().set_faults(Faults::default(), 1);
    pool.must(write(export, 0, 1));
    pool.must(Op::Checkpoint);
    pool.world.run_until_idle().unwrap();
    let there = pool.world.disk().occupied().into_iter();
    assert!(there.max().is_some_and(|block| block >= homes.end), "the write went elsewhere");
    check_disk(pool.world.disk()).unwrap();
}
