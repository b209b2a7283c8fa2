//! Bugs that other software of this class has had, each tried on this engine. A test is named after its bug, and says what
//! went wrong there and what excludes it here. Each has been seen to fail with the same fault planted
//! (`planted_faults_are_found` does that in every run). No seeds: what happens, and in which order, is written down.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pool;

use cow_engine::{AckMode, Config, DiffQuery, Error, ExportId, Op, OpId, Reply, SpaceKind};
use cow_format::{Buf, mutant};
use cow_sim::checked::check_disk;
use cow_sim::disk::{Class, Crash, Faults, NthFault, SimDisk};
use cow_sim::run::caught;
use cow_sim::small_config;
use cow_sim::world::World;
use pool::{BLOCK, MIB, Pool};
use std::collections::BTreeSet;

/// Blocks whose words all say `token`.
fn put(export: ExportId, block: u64, blocks: u64, token: u64, fua: bool) -> Op {
    let mut data = Buf::zeroed(blocks as usize);
    data.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&token.to_le_bytes()));
    Op::Write { export, offset: block * BLOCK, len: blocks * BLOCK, data, fua }
}

/// What each of these blocks says; an error for what is neither one token nor readable.
fn tokens(pool: &mut Pool, export: ExportId, block: u64, blocks: u64) -> Result<Vec<u64>, String> {
    let read = Op::Read { export, offset: block * BLOCK, len: blocks * BLOCK };
    let Reply::Data { buf, .. } = pool.ask(read).map_err(|error| error.to_string())? else {
        return Err("no data".into());
    };
    let token = |block: &[u8]| {
        let first = &block[..8];
        let same = block.chunks_exact(8).all(|word| word == first);
        same.then(|| u64::from_le_bytes(first.try_into().unwrap())).ok_or("mixed".to_owned())
    };
    buf.chunks_exact(BLOCK as usize).take(blocks as usize).map(token).collect()
}

fn config(ack: AckMode) -> Config {
    Config { layer_bytes: 8 << 20, ..small_config(ack) }
}

/// A pool with a volume whose first write is over, so that all that it looks up is known.
fn begun(ack: AckMode) -> (Pool, ExportId) {
    let mut pool = Pool::with(config(ack));
    let export = pool.volume("v", 64 * MIB, &[]);
    pool.must(put(export, 1000, 1, 1, false));
    pool.must(Op::Flush { export });
    pool.world.run_until_idle().unwrap();
    (pool, export)
}

fn answer(pool: &mut Pool, of: OpId) -> Option<Result<Reply, Error>> {
    let (id, result) = pool.world.take_reply()?;
    assert_eq!(id, of);
    Some(result)
}

/// Completes what is in flight, oldest first, but not what `held` says; whether nothing else is left.
fn let_go(pool: &mut Pool, held: impl Fn(Class, u64, u64) -> bool) {
    for _ in 0..100_000 {
        let ops = pool.world.disk().ops_in_flight();
        match ops.into_iter().position(|(class, at, blocks)| !held(class, at, blocks)) {
            Some(index) => pool.world.complete(index),
            None if pool.world.is_paused() => pool.world.resume(),
            None => return,
        }
    }
    panic!("it never rests");
}

/// One step: completes operation `index`, or lets work go on that has paused.
fn go_on(pool: &mut Pool, index: usize) {
    if pool.world.is_idle() {
        pool.world.pump().unwrap();
    } else {
        pool.world.complete(index);
    }
}

/// The machine dies now, in a way of dying: what another one finds on a copy of its disk.
fn found_after(pool: &Pool, how: Crash) -> Result<Pool, String> {
    let disk: SimDisk = pool.world.disk().crash(how);
    check_disk(&disk)?;
    let mut found = Pool::on(disk, config(AckMode::Writeback));
    found.ask(Op::Open { read_only: false }).map_err(|error| error.to_string())?;
    Ok(found)
}

fn expect(pool: &mut Pool, block: u64, expected: &[u64]) -> Result<(), String> {
    let export = pool.open("v");
    let found = tokens(pool, export, block, expected.len() as u64)?;
    if found == expected { Ok(()) } else { Err(format!("{found:?} in place of {expected:?}")) }
}

/// Linux 694cfe7f31db, "dm thin: Flush data device before committing metadata". The thin pool committed the mapping of
/// a block that had just been provisioned without flushing the device that has the data: after a power cut the
/// mapping was there, and the block held what somebody else had once had in it.
///
/// Here the frame that names a block and the block are written side by side, and a flush is emitted when both are complete
/// (`InFlight::complete`). A checkpoint is written after a flush of all that it points to (`fold/homes.rs`).
fn data_not_flushed_before_the_mapping() -> Result<(), String> {
    let (mut pool, export) = begun(AckMode::Writeback);
    pool.world.start_op(put(export, 0, 1, 7, false));
    assert!(pool.world.take_reply().is_some(), "accepted");
    let data: Vec<u64> = pool.world.disk().writes_in_flight().map(|(at, _)| at).collect();
    let flush = pool.world.start_op(Op::Flush { export });
    let_go(&mut pool, |class, at, _| class == Class::Write && data.contains(&at));
    if let Some(result) = answer(&mut pool, flush) {
        result.map_err(|error| error.to_string())?;
        return expect(&mut found_after(&pool, Crash::LoseAll)?, 0, &[7]);
    }
    // The data is late. Nothing is promised yet, and nothing wrong is there.
    let late = found_after(&pool, Crash::KeepAll)?;
    drop(late);
    let_go(&mut pool, |_, _, _| false);
    answer(&mut pool, flush).expect("answered").map_err(|error| error.to_string())?;
    expect(&mut found_after(&pool, Crash::LoseAll)?, 0, &[7])?;
    // The same of a checkpoint: at each moment of it, whichever single write the power cut leaves behind.
    let fold = pool.world.start_op(Op::Checkpoint);
    while answer(&mut pool, fold).is_none() {
        for kept in 0..20 {
            expect(&mut found_after(&pool, Crash::Writes(1 << kept))?, 0, &[7])?;
        }
        go_on(&mut pool, 0);
    }
    Ok(())
}

/// Linux 4ae280b4ee34, "dm thin: fix bug where bio that overwrites thin block ignores FUA". A write with FUA that had to
/// allocate a block, or to break sharing, was answered before the mapping was committed: lost with the power.
///
/// Here every write allocates, and there is one place where the answer waits (`write::acknowledge`): with FUA for a flush of
/// the frame that has the mapping.
fn fua_lost_on_a_path_that_allocates() -> Result<(), String> {
    for ack in [AckMode::Writeback, AckMode::Writethrough, AckMode::Journaled] {
        let (mut pool, export) = begun(ack);
        // A block that nobody has, one that a snapshot has, too, and one that was written just now.
        pool.must(put(export, 10, 2, 3, false));
        pool.snapshot("v", "s").unwrap();
        pool.must(put(export, 11, 1, 4, false));
        for (block, token) in [(9, 5), (10, 6), (11, 7)] {
            pool.must(put(export, block, 1, token, true));
            let mut found = found_after(&pool, Crash::LoseAll)?;
            expect(&mut found, block, &[token])?;
        }
        let zeros = Op::WriteZeroes { export, offset: 10 * BLOCK, len: BLOCK, fua: true };
        pool.must(zeros);
        expect(&mut found_after(&pool, Crash::LoseAll)?, 9, &[5, 0, 7])?;
    }
    Ok(())
}

/// Linux 3ab918281668, "dm thin metadata: try to avoid ever aborting transactions". Metadata ran out of space in the middle of a
/// commit; the transaction was aborted, and with it went what had been acknowledged. There were reports of
/// corruption.
///
/// Here metadata and data are in one pool, and a write is admitted when the blocks that its fold will need are promised to it
/// (`admit.rs`, `reserve.rs`). A full pool folds, deletes, and goes on. So it is where writes are accepted at once, too
/// (`write_now.rs`).
fn metadata_space_exhausted() -> Result<(), String> {
    [AckMode::Writethrough, AckMode::Writeback].into_iter().try_for_each(metadata_space_of)
}

fn metadata_space_of(ack: AckMode) -> Result<(), String> {
    let (mut pool, export) = begun(ack);
    let far = pool.volume("far", 1 << 40, &[]);
    // As much metadata as possible for each block of data: all in leaves, and above them nodes, of their own.
    let (mut written, mut refused) = (Vec::new(), 0);
    for step in 0..40_000u64 {
        let block = step * 4096 + step % 7;
        match pool.ask(put(far, block, 1, step + 1, false)) {
            Ok(_) => written.push((block, step + 1)),
            Err(Error::NoSpace(SpaceKind::Pool)) => refused += 1,
            Err(error) => return Err(error.to_string()),
        }
        if refused > 3 {
            break;
        }
    }
    if refused == 0 {
        return Err("the pool is never full".into());
    }
    pool.ask(Op::Checkpoint).map_err(|error| error.to_string())?;
    pool.ask(Op::Flush { export }).map_err(|error| error.to_string())?;
    if let Some(cause) = pool.info().poisoned {
        return Err(cause);
    }
    let mut found = found_after(&pool, Crash::LoseAll)?;
    let again = found.open("far");
    for &(block, token) in written.iter().step_by(61) {
        let held = tokens(&mut found, again, block, 1)?;
        if held != [token] {
            return Err(format!("block {block}: {held:?} in place of {token}"));
        }
    }
    // A delete needs no room, and gives it all back.
    found.must(Op::CloseExport { export: again });
    found.delete("far");
    found.must(Op::Checkpoint);
    let volume = found.open("v");
    found.ask(put(volume, 0, 256, 9, true)).map_err(|error| error.to_string())?;
    Ok(())
}

/// redb #1276: a growing commit extended the file and wrote a header with the new layout, and only one flush followed both. A crash
/// could leave the header and not the extension; nothing opened the file again.
///
/// Here the file is made longer first, durably (`IoOp::Grow`), and what says that the pool is larger is sequenced after
/// that (`verbs::grow_pool`).
fn header_durable_before_the_file_extension() -> Result<(), String> {
    let (mut pool, export) = begun(AckMode::Writeback);
    pool.must(put(export, 0, 4, 7, true));
    let blocks = pool.world.disk().blocks() + 8192;
    let grow = pool.world.start_op(Op::GrowPool { blocks });
    loop {
        // The file system is slow: all else that is in flight comes first, and is kept or lost.
        for how in [Crash::LoseAll, Crash::Writes(1), Crash::Writes(2), Crash::Writes(u64::MAX)] {
            expect(&mut found_after(&pool, how)?, 0, &[7, 7, 7, 7])?;
        }
        if let Some(result) = answer(&mut pool, grow) {
            result.map_err(|error| error.to_string())?;
            break;
        }
        let ops = pool.world.disk().ops_in_flight();
        let other = ops.iter().position(|(class, ..)| *class != Class::Grow);
        go_on(&mut pool, other.unwrap_or(0));
    }
    let mut found = found_after(&pool, Crash::LoseAll)?;
    expect(&mut found, 0, &[7, 7, 7, 7])?;
    let size = found.info().size_bytes;
    if size != blocks * BLOCK {
        return Err(format!("answered, and {size} bytes long after a crash"));
    }
    Ok(())
}

/// cloud-hypervisor #8624: a discard dropped a cluster's reference count, and the hole was punched later. A flush in between let the
/// allocator give the cluster out again; the late hole then erased what had been put there, a table of mappings.
///
/// Here blocks whose discard is under way are not free until it is complete (`punch.rs`, `Alloc::end_discard`).
fn discard_racing_with_reuse() -> Result<(), String> {
    let config = Config { sparse: true, ..config(AckMode::Writethrough) };
    let mut pool = Pool::with(config);
    let gone = pool.volume("gone", 256 * MIB, &[]);
    let export = pool.volume("v", 256 * MIB, &[]);
    let filled = pool.fill(gone, 0);
    pool.must(Op::Checkpoint);
    pool.must(Op::CloseExport { export: gone });
    let names = vec!["gone".into()];
    let delete = pool.world.start_op(Op::Delete { names, recursive: true, dry_run: false });
    // Its blocks are freed by two checkpoints, and holes are to be punched for them; those take their time.
    for _ in 0..400 {
        let_go(&mut pool, is_large_hole);
        pool.world.pass(40_000_000);
    }
    answer(&mut pool, delete).expect("deleted").map_err(|error| error.to_string())?;
    let hole = discards(&pool.world);
    if hole < 64 {
        return Err(format!("no hole is punched, but {hole} blocks"));
    }
    // Meanwhile clients write as much as there is room for.
    let mut written = BTreeSet::new();
    for run in 0..filled / 64 {
        let write = pool.world.start_op(put(export, run * 64, 64, run + 1, false));
        for _ in 0..50 {
            let_go(&mut pool, is_large_hole);
            match answer(&mut pool, write) {
                Some(Ok(_)) => {
                    written.insert(run);
                    break;
                }
                Some(Err(_)) => break,
                None => pool.world.pass(40_000_000),
            }
        }
        if !written.contains(&run) {
            break;
        }
    }
    if written.is_empty() || discards(&pool.world) != hole {
        return Err(format!("{} written, {hole} blocks to punch", written.len()));
    }
    if let Some(bug) = pool.world.disk_mut().take_bugs().into_iter().next() {
        return Err(bug);
    }
    let_go(&mut pool, |_, _, _| false);
    while pool.world.take_reply().is_some() {}
    for &run in &written {
        let held = tokens(&mut pool, export, run * 64, 64)?;
        if held.iter().any(|&token| token != run + 1) {
            return Err(format!("run {run} holds {held:?}"));
        }
    }
    Ok(())
}

fn is_large_hole(class: Class, _: u64, blocks: u64) -> bool {
    class == Class::Discard && blocks >= 64
}

/// Blocks whose discard is under way.
fn discards(world: &World<cow_engine::Engine>) -> u64 {
    let ops = world.disk().ops_in_flight().into_iter();
    ops.filter(|(class, ..)| *class == Class::Discard).map(|(.., blocks)| blocks).sum()
}

/// OpenZFS #4996: holes without a birth time. A file was written behind its beginning, snapshotted, cut, and written further
/// behind; where data had been there was a hole that looked as if it had always been one. An incremental stream left it
/// out, and the copy kept the old data.
///
/// Here a difference compares the two states pointer by pointer, and what only one of them has is one (`diff.rs`); births
/// only let it pass over what both have.
fn holes_without_birth_in_an_incremental_stream() -> Result<(), String> {
    let (cut, all) = (3 * BLOCK, 64 * MIB);
    for folded in [false, true] {
        for way in 0..3 {
            let (mut pool, export) = begun(AckMode::Writeback);
            // Blocks of the first leaf, and all of the second.
            pool.must(put(export, 1, 1, 3, false));
            pool.must(put(export, 256, 256, 4, false));
            pool.snapshot("v", "a").unwrap();
            if folded {
                pool.must(Op::Checkpoint);
            }
            let (offset, len) = (0, 2 * MIB);
            match way {
                0 => drop(pool.must(Op::Discard { export, offset, len, fua: false })),
                1 => drop(pool.must(Op::WriteZeroes { export, offset, len, fua: false })),
                _ => {
                    // Cut before what was written, and made as long as it was.
                    for size_bytes in [BLOCK, all] {
                        let shrink = size_bytes < all;
                        pool.must(Op::Resize { volume: "v".into(), size_bytes, shrink });
                    }
                }
            }
            pool.must(put(export, cut / BLOCK, 1, 5, false));
            pool.snapshot("v", "b").unwrap();
            if folded {
                pool.must(Op::Checkpoint);
            }
            // The stream, applied to a copy of the first state.
            let query = DiffQuery::all("v@a", "v@b", 1000);
            let Reply::Diff { extents, next: None } = pool.must(Op::Diff(query)) else {
                return Err("no difference".into());
            };
            let changed: BTreeSet<u64> = extents
                .iter()
                .flat_map(|(offset, len)| offset / BLOCK..(offset + len).div_ceil(BLOCK))
                .collect();
            for block in [1, 3, 256, 300, 511] {
                if !changed.contains(&block) {
                    return Err(format!("folded {folded}, way {way}: block {block} is left out"));
                }
            }
            expect(&mut pool, 0, &[0, 0, 0, 5])?;
        }
    }
    Ok(())
}

/// PostgreSQL's "fsyncgate" (2018): after a failed write-back the kernel marked the pages clean, so the next fsync succeeded, and a
/// checkpoint that tried again believed it. What had failed was gone.
///
/// Here a failed flush is never tried again: it latches, and nothing after it reports success (`flush::device_flush`).
fn a_failed_fsync_believed_later() -> Result<(), String> {
    let (mut pool, export) = begun(AckMode::Writeback);
    pool.must(put(export, 0, 1, 3, true));
    let once = NthFault { class: Class::Flush, nth: 0, sticky: false, errno: 5 };
    let faults = Faults { nth: vec![once], ..Faults::default() };
    pool.must(put(export, 0, 1, 4, false));
    pool.world.disk_mut().set_faults(faults, 1);
    let first = pool.ask(Op::Flush { export });
    if first.is_ok() {
        // Believed at once: then it must be there.
        expect(&mut found_after(&pool, Crash::LoseAll)?, 0, &[4])?;
    }
    for _ in 0..3 {
        for op in [Op::Flush { export }, put(export, 5, 1, 9, true), Op::Checkpoint] {
            if pool.ask(op).is_ok() {
                return Err("success is reported after a flush that failed".into());
            }
        }
    }
    // What was durable before still is.
    expect(&mut found_after(&pool, Crash::LoseAll)?, 0, &[3])
}

/// Name of the bug, the test, and the planted fault that is the same.
type Known = (&'static str, fn() -> Result<(), String>, &'static [&'static str]);

const BUGS: &[Known] = &[
    ("dm-thin 694cfe7f31db", data_not_flushed_before_the_mapping, &["flushblind", "oneflush"]),
    ("dm-thin 4ae280b4ee34", fua_lost_on_a_path_that_allocates, &["fualost"]),
    ("dm-thin 3ab918281668", metadata_space_exhausted, &["noreserve", "nowroom"]),
    ("redb 1276", header_durable_before_the_file_extension, &["growlate"]),
    ("cloud-hypervisor 8624", discard_racing_with_reuse, &["reusepunched"]),
    ("openzfs 4996", holes_without_birth_in_an_incremental_stream, &["holeless"]),
    ("fsyncgate", a_failed_fsync_believed_later, &["flushforgiven"]),
];

macro_rules! bugs {
    ($($name:ident: $bug:ident;)*) => {$(
        #[test]
        fn $name() {
            $bug().unwrap();
        }
    )*};
}

bugs! {
    dm_thin_694cfe7f31db_data_not_flushed_before_the_mapping: data_not_flushed_before_the_mapping;
    dm_thin_4ae280b4ee34_fua_lost_on_a_path_that_allocates: fua_lost_on_a_path_that_allocates;
    dm_thin_3ab918281668_metadata_space_exhausted: metadata_space_exhausted;
    redb_1276_header_durable_before_the_file_extension: header_durable_before_the_file_extension;
    cloud_hypervisor_8624_discard_racing_with_reuse: discard_racing_with_reuse;
    openzfs_4996_holes_without_birth: holes_without_birth_in_an_incremental_stream;
    fsyncgate_a_failed_fsync_believed_later: a_failed_fsync_believed_later;
}

#[test]
fn planted_faults_are_found() {
    for (bug, test, faults) in BUGS {
        for fault in *faults {
            mutant::plant(fault);
            let found = caught(test);
            mutant::plant("");
            let text = found.expect_err(&format!("{bug}: {fault} is not found"));
            println!("{bug}, {fault}: {:.100}", text.lines().next().unwrap_or_default());
        }
    }
}
