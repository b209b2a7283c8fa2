//! Pages of the node table are read many at a time when a pool is opened. What cannot be read, or
//! reads wrong once, is the trouble of its own page alone.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Engine, Error, Op, Reply, SnapOptions, SnapTarget};
use cow_format::checkpoint::PageDesc;
use cow_format::table::{ENTRY_PAGES, is_overflow, overflow_of};
use cow_sim::disk::{Class, Crash, Faults, NthFault, SimDisk};
use cow_sim::lose::{edit_checkpoint, table_blocks};
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};

type Pool = World<Engine>;

const BLOCK: u64 = 4096;
const SNAPSHOTS: u64 = 800;
/// Every so many snapshots have a name that is too long for an entry alone, and their pages.
const LONG: u64 = 40;
const EIO: i32 = 5;

fn ask(pool: &mut Pool, op: Op) -> Reply {
    pool.run_op(op).unwrap().unwrap()
}

/// A pool that was closed; most pages of its table were written by a checkpoint before the last.
fn closed() -> SimDisk {
    let disk = format(&PoolOptions::default());
    let mut pool = Pool::new(disk, &small_config(AckMode::Writethrough), 1);
    ask(&mut pool, Op::Open { read_only: false });
    ask(&mut pool, Op::create_volume("v", 1 << 30, Vec::new()));
    for index in 0..SNAPSHOTS {
        let snapshot = format!("{index:0width$}", width = if index % LONG == 0 { 100 } else { 0 });
        let target = SnapTarget { volume: "v".into(), snapshot };
        ask(&mut pool, Op::Snapshot { targets: vec![target], options: SnapOptions::default() });
    }
    ask(&mut pool, Op::Close);
    pool.disk().crash(Crash::KeepAll)
}

/// Opens a copy of the disk with these faults; how many snapshots there are, or why it is refused,
/// and the number of reads.
fn open(disk: &SimDisk, faults: Faults, seed: u64) -> (Result<u64, Error>, u64) {
    let mut disk = disk.crash(Crash::KeepAll);
    disk.set_faults(faults, seed);
    let mut pool = Pool::new(disk, &small_config(AckMode::Writethrough), seed);
    let opened = pool.run_op(Op::Open { read_only: true }).unwrap();
    let reads = pool.disk().counts().read.ops;
    let snapshots = opened.map(|_| match ask(&mut pool, Op::List { exact: false }) {
        Reply::List(nodes) => nodes.len() as u64 - 1,
        other => panic!("{other:?}"),
    });
    (snapshots, reads)
}

#[test]
fn pages_side_by_side_are_read_together() {
    let disk = closed();
    let pages = table_blocks(&disk).into_iter().map(|(page, _)| page as u32);
    let (overflow, entries): (Vec<u32>, Vec<u32>) = pages.partition(|page| is_overflow(*page));
    // The volume has one too.
    assert_eq!(
        (entries.len() as u64, overflow.len() as u64),
        (SNAPSHOTS / 16 + 1, SNAPSHOTS / LONG)
    );
    let pages = (entries.len() + overflow.len()) as u64;
    let (snapshots, reads) = open(&disk, Faults::default(), 1);
    assert_eq!(snapshots, Ok(SNAPSHOTS));
    assert!(reads < pages, "{reads} reads for {pages} pages and all else");
}

/// Whichever read of an opening fails once, a second try is made.
#[test]
fn a_read_that_fails_once_does_no_harm() {
    let disk = closed();
    let reads = open(&disk, Faults::default(), 1).1;
    for nth in 0..reads {
        let fault = NthFault { class: Class::Read, nth, sticky: false, errno: EIO };
        let faults = Faults { nth: vec![fault], ..Faults::default() };
        assert_eq!(open(&disk, faults, nth).0, Ok(SNAPSHOTS), "read {nth}");
    }
}

/// Wrong blocks in every fifth read that does not bypass the caches.
#[test]
fn a_block_that_reads_wrong_is_read_again_by_itself() {
    let disk = closed();
    let mut opened = 0;
    for seed in 0..100 {
        let faults = Faults { misread_ppm: 200_000, ..Faults::default() };
        match open(&disk, faults, seed).0 {
            Ok(snapshots) => {
                assert_eq!(snapshots, SNAPSHOTS);
                opened += 1;
            }
            // A superblock is not tried so often.
            Err(error) => assert!(!error.to_string().contains("node table"), "{seed}: {error}"),
        }
    }
    assert!(opened > 50, "{opened}");
}

/// A page that cannot be read: the pool is opened from the checkpoint before where that has another
/// version of it, and else is refused for this page and no other.
#[test]
fn a_page_that_cannot_be_read_is_named_and_its_neighbours_are_not() {
    let disk = closed();
    let (mut fallbacks, mut refusals) = (0, 0);
    for (_, block) in table_blocks(&disk) {
        let faults = Faults { unreadable: block..block + 1, ..Faults::default() };
        match open(&disk, faults, block).0 {
            Ok(snapshots) => {
                assert_eq!(snapshots, SNAPSHOTS);
                fallbacks += 1;
            }
            Err(error) => {
                let op = "read of the node table";
                assert_eq!(error, Error::Io { errno: EIO, op, offset: block * BLOCK });
                refusals += 1;
            }
        }
    }
    assert!(fallbacks > 0 && refusals > 0, "{fallbacks} fallbacks, {refusals} refusals");
}

/// The same with a page that was overwritten.
#[test]
fn a_page_that_is_not_what_was_written_is_named() {
    let disk = closed();
    let (mut fallbacks, mut refusals) = (0, 0);
    for (page, block) in table_blocks(&disk) {
        let mut broken = disk.crash(Crash::KeepAll);
        let mut bytes = broken.peek(block);
        bytes[100] ^= 1;
        broken.poke(block, bytes);
        match open(&broken, Faults::default(), block).0 {
            Ok(snapshots) => {
                assert_eq!(snapshots, SNAPSHOTS);
                fallbacks += 1;
            }
            Err(Error::Corrupt(what)) => {
                assert!(what.contains(&format!("page {page} at block {block}:")), "{what}");
                refusals += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(fallbacks > 0 && refusals > 0, "{fallbacks} fallbacks, {refusals} refusals");
}

/// Overflow entries that no checkpoint of ours has: too few of them, and some of nobody.
#[test]
fn overflow_entries_that_do_not_belong_to_entries_are_refused() {
    let disk = closed();
    let blocks = table_blocks(&disk);
    let is_main = |(page, _): &&(u64, u64)| !is_overflow(*page as u32);
    let last = blocks.iter().filter(is_main).map(|(page, _)| *page as u32).max().unwrap();
    assert!(last + 1 < ENTRY_PAGES);
    let refused = |page: u32, desc: PageDesc, says: &str| {
        let mut broken = disk.crash(Crash::KeepAll);
        edit_checkpoint(&mut broken, |cp| cp.pages[overflow_of(page) as usize] = desc);
        match open(&broken, Faults::default(), 1).0 {
            Err(Error::Corrupt(what)) => assert!(what.contains(says), "{what}"),
            other => panic!("{other:?}"),
        }
    };
    refused(0, PageDesc::default(), "overflow entry");
    refused(last + 1, PageDesc { used: 1, ..PageDesc::default() }, "overflow of no entries");
}
