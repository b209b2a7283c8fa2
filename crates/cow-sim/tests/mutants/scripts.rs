//! Directed scripts, each for a fault that chance finds too seldom. Every one passes with the engine as it
//! is.

use crate::pool::{BLOCK, Pool, write as write_of};
use cow_engine::{AckMode, Config, Engine, Error, Op, OpId, Reply, SnapTarget};
use cow_sim::checked::check_disk;
use cow_sim::cmd::Cmd;
use cow_sim::disk::{Crash, Faults};
use cow_sim::lose::lose_newest_checkpoint;
use cow_sim::oracle::Oracle;
use cow_sim::scripts::{clone, create, delete, discard, flush, snapshot, write};
use cow_sim::sim::{Sim, Stop};
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};

const GIB: u64 = 1 << 30;

/// A pool whose journal has a tail that no flush covers, opened by readers: what is read is what was
/// written, and the device is asked for nothing but reads.
pub fn a_read_only_pool_is_not_written() -> Result<(), String> {
    let mut pool = Pool::new(true);
    let export = pool.volume("v", GIB, &[("job", "nightly")]);
    for at in 0..40 {
        pool.write(export, 3 * at, 2).map_err(|error| error.to_string())?;
        if at % 10 == 5 {
            pool.snapshot("v", &format!("s{at}")).map_err(|error| error.to_string())?;
        }
    }
    pool.world.pass(20_000_000);
    pool.world.run_until_idle()?;
    pool.crash(Crash::KeepAll, true);
    let names: Vec<String> = match pool.must(Op::List { exact: false }) {
        Reply::List(nodes) => nodes.into_iter().map(|node| node.name).collect(),
        other => return Err(format!("{other:?}")),
    };
    for name in names.iter().filter(|name| !name.is_empty()) {
        let opened = pool.must(Op::OpenExport { name: name.clone(), write: false });
        let Reply::Export { export, .. } = opened else { return Err(format!("{opened:?}")) };
        pool.must(Op::Read { export, offset: 0, len: 64 * BLOCK });
        pool.must(Op::CloseExport { export });
    }
    // Time enough for whatever a pool does by itself.
    pool.minutes(3);
    pool.must(Op::Close);
    pool.world.run_until_idle()?;
    let counts = pool.world.disk().counts();
    let changes = counts.write.ops + counts.flush.ops + counts.discard.ops;
    if changes == 0 { Ok(()) } else { Err(format!("{changes} operations that are no reads")) }
}

/// A snapshot that a client reads is not deleted, and when it has been closed it is.
pub fn a_snapshot_in_use_stays() -> Result<(), String> {
    let mut pool = Pool::new(false);
    let export = pool.volume("v", GIB, &[]);
    pool.must(write_of(export, 0, 8));
    pool.snapshot("v", "s").map_err(|error| error.to_string())?;
    let opened = pool.must(Op::OpenExport { name: "v@s".into(), write: false });
    let Reply::Export { export: reader, .. } = opened else { return Err(format!("{opened:?}")) };
    let delete = || Op::Delete { names: vec!["v@s".into()], recursive: false, dry_run: false };
    match pool.ask(delete()) {
        Err(Error::Busy(text)) if text.contains("v@s") => {}
        other => return Err(format!("a delete of what is open: {other:?}")),
    }
    pool.must(Op::Read { export: reader, offset: 0, len: 8 * BLOCK });
    pool.must(Op::CloseExport { export: reader });
    pool.must(delete());
    Ok(())
}

/// An image is deleted that two clones have begun with, and both let go of it; but one of them has a
/// snapshot that is held. The trim of the image leaves that alone, and takes it when the hold is gone and
/// the snapshot with it.
pub fn a_held_snapshot_beside_a_trim() -> Result<(), String> {
    let mut sim = judged(&PoolOptions::default());
    let hold = |set| Cmd::Hold { name: "c@held".into(), tag: "backup".into(), set };
    let settled = |sim: &mut Sim<Engine>, blocks: u64| {
        for cmd in [Cmd::WaitReclaim, Cmd::Checkpoint, Cmd::Checkpoint] {
            told(sim.run(cmd))?;
        }
        told(sim.reconcile())?;
        sim.world.run_until_idle()?;
        check_disk(sim.world.disk())?;
        match sim.aux(Op::Info { exact: true }) {
            Ok(Ok(Reply::Info(info))) if info.data_bytes == blocks * BLOCK => Ok(()),
            other => Err(format!("not {blocks} blocks: {other:?}")),
        }
    };
    let ended = (|| -> Result<(), Stop> {
        sim.open(false)?;
        sim.run(create("gold", GIB))?;
        for at in 0..5 {
            sim.run(write("gold", 200 * at, 200, 1 + 300 * at))?;
        }
        sim.run(snapshot(&["gold@v1"]))?;
        sim.run(clone("gold@v1", "c"))?;
        sim.run(clone("gold@v1", "d"))?;
        sim.run(snapshot(&["c@held"]))?;
        sim.run(hold(true))?;
        sim.run(delete(&["gold@v1"]))?;
        sim.run(delete(&["gold"]))?;
        sim.run(discard("c", 0, 1000))?;
        sim.run(discard("d", 0, 1000))
    })();
    told(ended)?;
    settled(&mut sim, 1000)?;
    told(sim.run(hold(false)))?;
    told(sim.run(delete(&["c@held"])))?;
    settled(&mut sim, 0)
}

/// In a full pool where nothing is pending one overwrite takes the last blocks. What it frees is back two
/// checkpoints later, and so long the next one waits.
pub fn room_comes_after_two_checkpoints() -> Result<(), String> {
    let mut pool = Pool::new(false);
    let export = pool.volume("v", GIB, &[]);
    let filled = pool.fill(export, 0);
    pool.must(Op::Discard { export, offset: (filled - 200) * BLOCK, len: 200 * BLOCK, fua: false });
    for _ in 0..4 {
        pool.must(Op::Checkpoint);
    }
    for round in 0..6 {
        let wrote = pool.write(export, 300 * round, 180);
        wrote.map_err(|error| format!("overwrite {round}: {error}"))?;
    }
    Ok(())
}

/// In a pool without room for data, nor for the records and properties of one more volume, a delete works.
pub fn a_delete_needs_no_room() -> Result<(), String> {
    let mut pool = Pool::new(false);
    let export = pool.volume("v", GIB, &[]);
    pool.fill(export, 0);
    let mut made = 0;
    loop {
        let props = vec![("k".to_owned(), "x".repeat(3000))];
        match pool.ask(Op::create_volume(format!("w{made}"), 1 << 20, props)) {
            Ok(_) => made += 1,
            Err(Error::NoSpace(_)) => break,
            Err(error) => return Err(error.to_string()),
        }
    }
    if made < 100 {
        return Err(format!("the script: no room after {made} volumes"));
    }
    for name in ["w0", "v"] {
        let delete = Op::Delete { names: vec![name.into()], recursive: true, dry_run: false };
        if name == "v" {
            pool.must(Op::CloseExport { export });
        }
        pool.ask(delete).map_err(|error| format!("a delete of {name}: {error}"))?;
    }
    Ok(())
}

/// While a fold has one layer of a block in hand, a read gives what was written after that.
pub fn a_read_beside_a_fold() -> Result<(), String> {
    let mut sim = judged(&PoolOptions::default());
    let ended = (|| -> Result<(), Stop> {
        sim.open(false)?;
        sim.run(create("v", GIB))?;
        sim.run(write("v", 0, 4, 10))?;
        // All three before the device has done anything for the first.
        sim.submit(Cmd::Checkpoint)?;
        sim.submit(write("v", 0, 4, 20))?;
        sim.submit(Cmd::Read { name: "v".into(), offset: 0, len: 4 * BLOCK })?;
        sim.drain()?;
        sim.reconcile()
    })();
    told(ended)
}

/// In a pool with little room, and with a cache that forgets nothing, map nodes come to stand where others
/// stood: what is read is what was written last.
pub fn a_map_node_where_another_was() -> Result<(), String> {
    let config = Config { cache_bytes: 16 << 20, ..small_config(AckMode::Writethrough) };
    let disk = format(&PoolOptions::tight());
    let mut sim = Sim::<Engine>::new(disk, Oracle::new(AckMode::Writethrough), &config, 1);
    let ended = (|| -> Result<(), Stop> {
        sim.open(false)?;
        sim.run(create("v", GIB))?;
        // Leaves enough for the stream of map nodes to go round the pool.
        for round in 0..100 {
            for leaf in 0..40 {
                sim.submit(write("v", 256 * leaf, 1, 100 * round + leaf + 1))?;
            }
            sim.drain()?;
            sim.run(Cmd::Checkpoint)?;
            for leaf in 0..40 {
                let (name, offset) = ("v".into(), 256 * leaf * BLOCK);
                sim.submit(Cmd::Read { name, offset, len: BLOCK })?;
            }
            sim.drain()?;
        }
        Ok(())
    })();
    told(ended)
}

/// The journal fills up to its last frame while a fold waits for data to land. The newest checkpoint is
/// lost, and the frames are there that the one before it needs.
pub fn a_full_ring_and_a_lost_checkpoint() -> Result<(), String> {
    let ring = PoolOptions { journal_blocks: 128, ..PoolOptions::default() };
    let mut sim = judged(&ring);
    let ended = (|| -> Result<(), Stop> {
        sim.open(false)?;
        sim.run(create("v", GIB))?;
        sim.run(Cmd::Checkpoint)?;
        for at in 0..38 {
            sim.run(write("v", at, 1, 100 + at))?;
            sim.run(flush("v"))?;
        }
        sim.run(Cmd::Checkpoint)?;
        // A frame each, and the device does nothing meanwhile.
        for at in 0..130 {
            sim.submit(write("v", 1000 + at, 1, 1000 + at))?;
            sim.submit(flush("v"))?;
        }
        Ok(())
    })();
    told(ended)?;
    let (mut disk, oracle) = sim.crash(Crash::KeepAll);
    if !lose_newest_checkpoint(&mut disk, &mut 0) {
        return Err("the script: there is no fallback".into());
    }
    let mut again = Sim::<Engine>::new(disk, oracle, &small_config(AckMode::Writeback), 1);
    told(again.open(false))
}

fn judged(options: &PoolOptions) -> Sim<Engine> {
    let config = small_config(AckMode::Writeback);
    Sim::new(format(options), Oracle::new(AckMode::Writeback), &config, 1)
}

fn told(ended: Result<(), Stop>) -> Result<(), String> {
    match ended {
        Ok(()) => Ok(()),
        Err(Stop::Bug(text)) => Err(text),
        Err(Stop::Crashed) => Err("there is no fuse".into()),
    }
}

/// A block of a snapshot moves after the freeze of the fold that merges it, and the same fold gives it back,
/// because the snapshot is deleted. The Move is replayed where the next checkpoint is lost, so that what
/// this fold freed is not given out with the next checkpoint, but with the one after it. (That a client
/// is given the very block in between takes more writes than the room between two checkpoints allows:
/// the allocator goes round the pool first.)
pub fn a_move_after_the_freeze() -> Result<(), String> {
    const FREED: u64 = 300;
    let config = Config { walk_leaves: 100, ..small_config(AckMode::Writeback) };
    let mut pool = Pool::with(config);
    let export = pool.volume("v", GIB, &[]);
    // Whatever a first write has to look up is known after this, and it makes the fold free something.
    pool.must(write_of(export, 3000, FREED));
    pool.must(Op::Checkpoint);
    pool.must(write_of(export, 3000, FREED));
    pool.must(Op::Flush { export });
    pool.world.run_until_idle()?;
    // All of this is sequenced before the device has refused the first block, twice.
    let world = &mut pool.world;
    let first = world.start_op(write_of(export, 0, 1));
    let at = world.disk().writes_in_flight().map(|(at, _)| at).max().unwrap_or_default();
    world.disk_mut().set_faults(Faults { bad: at..at + 1, ..Faults::default() }, 1);
    let targets = vec![SnapTarget { volume: "v".into(), snapshot: "s".into() }];
    let mut open = vec![
        first,
        world.start_op(Op::Snapshot { targets, options: Default::default() }),
        world.start_op(write_of(export, 0, 1)),
        world.start_op(Op::Delete { names: vec!["v@s".into()], recursive: false, dry_run: false }),
        world.start_op(Op::Checkpoint),
    ];
    answered(world, &mut open)?;
    let freed = quarantined(&mut pool)?;
    if freed < FREED {
        return Err(format!("the script: only {freed} blocks were freed"));
    }
    pool.must(write_of(export, 5, 1));
    pool.must(Op::Checkpoint);
    let left = quarantined(&mut pool)?;
    if left < FREED {
        return Err(format!("of {freed} blocks {left} are left after the next checkpoint"));
    }
    pool.must(write_of(export, 6, 1));
    pool.must(Op::Checkpoint);
    let left = quarantined(&mut pool)?;
    if left < FREED { Ok(()) } else { Err(format!("{left} blocks never come back")) }
}

/// A write whose data has to move, another one, and then the frame with the Move: power is cut with every
/// subset of what they wrote on the disk. Where the data of the second is missing, the Move is cut with it,
/// and excuses nothing.
pub fn a_move_that_is_cut() -> Result<(), String> {
    const SEALED_NS: u64 = 6_000_000;
    let config = small_config(AckMode::Writeback);
    for seed in 0..4 {
        let mut pool = Pool::with(config.clone());
        let export = pool.volume("v", GIB, &[]);
        pool.must(write_of(export, 100, 1));
        pool.must(Op::Flush { export });
        pool.world.run_until_idle()?;
        let world = &mut pool.world;
        world.start_op(write_of(export, 0, 1));
        let at = world.disk().writes_in_flight().map(|(at, _)| at).max().unwrap_or_default();
        world.disk_mut().set_faults(Faults { bad: at..at + 1, ..Faults::default() }, seed);
        world.pass(SEALED_NS);
        world.start_op(write_of(export, 300, 1));
        for _ in 0..3 {
            world.pass(SEALED_NS);
            world.run_until_idle()?;
        }
        let pending = world.disk().pending_writes();
        if !(5..12).contains(&pending) {
            return Err(format!("the script: {pending} writes that no flush covers"));
        }
        for mask in 0..1 << pending {
            let crashed = world.disk().crash(Crash::Writes(mask));
            let mut again = World::<Engine>::new(crashed, &config, seed);
            let mut ask = |op: Op| -> Result<Reply, String> {
                let answer = again.run_op(op)?;
                answer.map_err(|error| format!("of {pending} writes {mask:b} are there: {error}"))
            };
            ask(Op::Open { read_only: false })?;
            let opened = ask(Op::OpenExport { name: "v".into(), write: true })?;
            let Reply::Export { export, .. } = opened else { return Err(format!("{opened:?}")) };
            ask(Op::Read { export, offset: 0, len: 400 * BLOCK })?;
        }
    }
    Ok(())
}

/// Blocks that were freed and are not given out yet.
fn quarantined(pool: &mut Pool) -> Result<u64, String> {
    match pool.must(Op::Info { exact: false }) {
        Reply::Info(info) if info.withheld == 1 => Ok(info.reclaiming_bytes / BLOCK),
        Reply::Info(_) => Err("the script: nothing has moved".into()),
        other => Err(format!("{other:?}")),
    }
}

fn answered(world: &mut World<Engine>, open: &mut Vec<OpId>) -> Result<(), String> {
    while !open.is_empty() {
        world.pump()?;
        while let Some((id, result)) = world.take_reply() {
            open.retain(|other| *other != id);
            match result {
                // The snapshot is gone before its answer.
                Ok(_) | Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
    Ok(())
}
